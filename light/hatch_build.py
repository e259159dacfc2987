"""Build hooks that make the wheel of reg_sweep-light from the sources of reg_sweep; hatchling calls them."""

import re
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

HERE = Path(__file__).parent
ROOT = HERE.parent
# Only training and its data sets need these.
LEFT_OUT = {"torch", "torchvision", "torch-pruning", "mlxtend"}


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()


class LightMetadata(MetadataHookInterface):
    """The metadata of reg_sweep, without the dependencies of training."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in the fields that light/pyproject.toml declares as dynamic."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        version = re.search(r'^__version__ = "(.*)"$', (ROOT / "reg_sweep" / "__init__.py").read_text(), re.MULTILINE)
        assert version is not None
        metadata["version"] = version[1]
        metadata["description"] = "The judge, the report, the sweeper and the loop of reg_sweep, without torch."
        for key in ("license", "requires-python", "scripts", "entry-points"):
            metadata[key] = project[key]
        metadata["dependencies"] = [d for d in project["dependencies"] if _name(d) not in LEFT_OUT]
        extras = project["optional-dependencies"]
        metadata["optional-dependencies"] = {k: v for k, v in extras.items() if k not in ("dev", "docs")}


class LightFiles(BuildHookInterface):
    """The files of reg_sweep without `training/`, and with a `train` that says what to install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """List the wheel's files."""
        places = {"reg_sweep": "reg_sweep", "hydra_plugins": "hydra_plugins", "conf": "reg_sweep/conf"}
        files = {}
        for folder, place in places.items():
            for path in sorted((ROOT / folder).rglob("*")):
                inside = path.relative_to(ROOT / folder)
                if path.is_file() and "__pycache__" not in inside.parts and inside.parts[0] != "training":
                    files[str(path)] = f"{place}/{inside.as_posix()}"
        del files[str(ROOT / "reg_sweep" / "train.py")]
        files[str(HERE / "train.py")] = "reg_sweep/train.py"
        build_data["force_include"] = files
