"""What the README shows is run: every command, with settings that make it tiny, and its Python."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import warm

from reg_sweep import records

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TINY = ["data.train_size=100", "data.val_size=50", "batch_size=50", "epochs=1", "runtime.threads=1"]
TINY_MNIST = ["data=mnist_5k", *TINY]


def commands(language: str) -> list[str]:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def shown(prefix: str) -> list[str]:
    return [line for line in commands("sh") if line.startswith(prefix)]


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    done = warm.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_readme_shows_commands_of_each_kind():
    assert len(shown("python -m reg_sweep.train")) >= 6
    assert shown("python -m reg_sweep.report")
    assert "make demo" in shown("make")
    assert "make test" in shown("make")


@pytest.mark.slow
@pytest.mark.parametrize("command", shown("python -m reg_sweep.train"))
def test_a_train_command_of_the_readme_runs(command, tmp_path):
    arguments = shlex.split(command)[1:]
    if "--help" in arguments:
        assert "Groups" in python(tmp_path, *arguments).stdout
        return
    folder, tiny = tmp_path, TINY_MNIST
    if "conf" in arguments:
        folder, tiny = ROOT / "examples", [*TINY, f"hydra.run.dir={tmp_path}/outputs/run"]
    if any("fashion" in a for a in arguments):
        tiny = ["data.source={_target_: reg_sweep.mnist_sample}", "~data.source.dataset", *TINY]
    if "study=until_verdict" in arguments:
        tiny = [*tiny, "hydra.sweeper.design.looks=[2]", "hydra.sweeper.design.max_seeds=2", "report=false"]
    elif any(a.startswith("study=") for a in arguments):
        tiny = [*tiny, "hydra.sweeper.n_trials=2", "report=false"]  # the grid's command writes one
    if "confirm=true" in arguments:
        tiny = [*tiny, "hydra.sweeper.design.looks=[2]", "hydra.sweeper.design.max_seeds=2"]
    if "experiment=best" in arguments:
        python(folder, "-m", "reg_sweep.train", "study=l1_search", *tiny, "hydra.sweeper.n_trials=2", "report=false")
    python(folder, *[a for a in arguments if not a.startswith("data=mnist")], *tiny)
    runs = records.read_runs(tmp_path / "outputs")
    assert runs
    assert all(run.status == "complete" for run in runs)


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path):
    block = "".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    tiny = (
        "import functools, reg_sweep\n"
        "from reg_sweep import config\n"
        "offline = {'_target_': 'reg_sweep.mnist_sample'}\n"
        "data = config.DataConfig(source=offline, val_size=50, train_size=100)\n"
    )
    (tmp_path / "outputs").mkdir()
    done = python(tmp_path, "-c", tiny + block.replace("epochs=2", "epochs=1, data=data"))
    assert done.stdout
