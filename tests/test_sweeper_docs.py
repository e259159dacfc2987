"""Runs the commands of docs/sweeper.md, and compares its table of options with the settings."""

import re
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest
from commands import type_in

from hydra_plugins.reg_sweep_plugins.optuna_study import PRUNERS, SAMPLERS, OptunaStudyConf
from reg_sweep.search.settings import Settings

TEXT = (Path(__file__).parents[1] / "docs" / "sweeper.md").read_text()
APP = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
BLOCKS = [
    [line.split("   #")[0].strip() for line in block.splitlines()]
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
]


def table(heading: str) -> dict[str, str]:
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", section, re.MULTILINE)
    assert rows
    return dict(rows)


def test_the_table_lists_every_option_with_its_default():
    parts = {key: value for part in OptunaStudyConf().defaults if isinstance(part, dict) for key, value in part.items()}
    words = {None: "null", True: "true", False: "false"}
    defaults = {}
    for field in fields(Settings):
        value = field.default if field.default_factory is MISSING else field.default_factory()
        value = {} if is_dataclass(value) else value  # a node of keys that are null
        is_word = value is None or isinstance(value, bool)
        defaults[field.name] = parts.get(field.name, words[value] if is_word else str(value))
    assert table("Options") == defaults


def test_the_text_names_every_sampler_and_pruner():
    section = TEXT.partition("\n## Samplers and pruners\n")[2].partition("\n## ")[0]
    assert all(f"`{name}`" in section for name in (*SAMPLERS, *PRUNERS))


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=[re.search(r"sweep\.dir=(\w+)", block[0])[1] for block in BLOCKS])
def test_the_commands_run(block, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    for command in block:
        assert "failed:" not in type_in(tmp_path, command).stdout
    (folder,) = (p.parent for p in tmp_path.glob("*/study.json"))
    has_no_best = "until_verdict" in block[0] or "resumable_grid" in block[0]
    assert (folder / "optimization_results.yaml").exists() != has_no_best
