"""The sphere, with a database that takes a password: SQLite behind an address of the kind that servers have."""

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL

from reg_sweep.hydra_app.internals import VERSION_BASE

ConfigStore.instance().store(name="vault", node={"x": 0.0})


class Vault(SQLiteDialect_pysqlite):
    supports_statement_cache = True

    def create_connect_args(self, url: URL) -> tuple:
        if url.password != "s3cr3t":
            raise ValueError(f"password authentication failed: {url.password} is not the password of {url.username}")
        return super().create_connect_args(URL.create("sqlite", database=url.database))


registry.impls["vault"] = lambda: Vault


@hydra.main(config_path=None, config_name="vault", **VERSION_BASE)
def main(config: DictConfig) -> float:
    return (config.x - 0.3) ** 2


if __name__ == "__main__":
    main()
