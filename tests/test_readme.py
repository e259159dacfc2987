"""Runs the README: every command, with settings that make it tiny, and its Python."""

import csv
import re
import shlex
from pathlib import Path

import pytest
from commands import check_run
from pages import blank_pictures

from reg_sweep.report import main as report_main
from reg_sweep.runs.reading import read_runs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TINY = ["data=mnist_5k", "data.train_size=100", "data.val_size=50", "batch_size=50", "epochs=1", "runtime.threads=1"]
TINY += ["model.channels=4"]
ALONE = ["hydra.sweeper.workers=1", "report=false"]  # workers would load torch anew; the grid's command writes a report


def blocks_of(language: str) -> list[list[str]]:
    """The README's blocks of a language: their lines, without comments."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return [[line.split("  #")[0].strip() for line in block.splitlines() if line.strip()] for block in blocks]


def shown(prefix: str) -> list[str]:
    return [line for block in blocks_of("sh") for line in block if line.startswith(prefix)]


def test_the_readme_shows_commands_of_each_kind():
    assert len(shown("python -m reg_sweep.train")) >= 6
    assert shown("python -m reg_sweep.report")
    assert "make demo" in shown("make")
    assert "`make test`" in README


def test_the_readme_is_one_that_is_read_to_its_end():
    assert len(README.splitlines()) <= 200


def test_the_first_result_is_that_of_the_kept_reports_table():
    rows = list(csv.DictReader((ROOT / "docs" / "reports" / "exercise_b" / "summary.csv").read_text().splitlines()))
    (best,) = [row for row in rows if row["is_best"] == "True"]
    difference, low, high = (f"{100 * float(best[f'difference{end}']):+.2f}" for end in ("", "_ci_low", "_ci_high"))
    screen = " ".join(README.partition("```sh")[0].split())
    assert f"L1 = {best['l1']}, is {difference[1:]} points above" in screen
    assert f"(95% interval {low} to {high}, corrected for {len(rows) - 1} arms): *{best['verdict']}*" in screen


def test_the_readmes_commands_in_the_examples_are_theirs():
    """tests/test_examples.py runs them there."""
    (search,) = shown("python your_own_app.py")
    assert search in (ROOT / "examples" / "your_own_app.py").read_text()
    own = [command for command in shown("python -m reg_sweep.train") if "--config-dir conf" in command]
    assert own
    assert all(command in (ROOT / "docs" / "training.md").read_text().splitlines() for command in own)


def tiny(command: str) -> list[str]:
    """The arguments of a command, with settings that make it tiny."""
    arguments = shlex.split(command)[1:]
    if "reg_sweep.train" not in arguments:
        return arguments
    kept = [a.replace("seed=1,2,3", "seed=1,2") for a in arguments if not a.startswith(("epochs=", "data=mnist"))]
    tiny = TINY
    if "study=until_verdict" in arguments:
        tiny = [*tiny, "hydra.sweeper.design.looks=[2]", "hydra.sweeper.design.max_seeds=2", *ALONE]
    elif any(a.startswith("study=") for a in arguments):
        tiny = [*tiny, "hydra.sweeper.n_trials=2", *ALONE]
    return [*kept, *tiny]


def stories() -> list[list[str]]:
    """The blocks of commands that train or report, each to be run in order; what an earlier one has run is left out.

    A report alone is that of the first block's run.
    """
    blocks = [[c for c in block if "reg_sweep." in c and "--config-dir conf" not in c] for block in blocks_of("sh")]
    told: list[list[str]] = []
    for block in filter(None, blocks):
        if all("reg_sweep.report" in c for c in block):
            told[0] += block
        elif not any(all(tiny(c) in map(tiny, other) for c in block) for other in told):
            told.append(block)
    return told


@pytest.mark.slow
@blank_pictures()
@pytest.mark.parametrize("story", stories(), ids=lambda story: story[0].removeprefix("python -m reg_sweep."))
def test_the_commands_of_a_block_run_one_after_another(story, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in story:
        words = tiny(command)
        if words[1] == "reg_sweep.report":  # in this process, where pictures are blank
            assert report_main(words[2:]) == 0
        else:
            check_run(tmp_path, *words)
    runs = read_runs(tmp_path / "outputs")
    assert runs
    assert all(run.status == "complete" for run in runs)


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path):
    block = "".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    tiny = (
        "import functools, reg_sweep\n"
        "from reg_sweep.config.schema import DataConfig\n"
        "offline = {'_target_': 'reg_sweep.mnist_sample'}\n"
        "data = DataConfig(source=offline, val_size=50, train_size=100)\n"
    )
    (tmp_path / "outputs").mkdir()
    done = check_run(tmp_path, "-c", tiny + block.replace("epochs=2", "epochs=1, data=data"))
    assert done.stdout
