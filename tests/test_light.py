"""reg_sweep-light: built from the same source, and installed where nothing is but what it asks for."""

import importlib.metadata
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from toy_apps import APPS

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def needed(requirements: list[str]) -> dict[str, importlib.metadata.Distribution]:
    """The distributions that these need, by name, and those that they need in turn."""
    found = {}
    todo = [Requirement(text) for text in requirements]
    while todo:
        wanted = todo.pop()
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            todo += map(Requirement, found[name].requires or [])
    return found


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """The Python of an environment with the wheel and links to what it needs, and no other package."""
    folder = tmp_path_factory.mktemp("light")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT / "light", check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (installed,) = importlib.metadata.distributions(name="reg_sweep-light", path=[str(site)])
    distributions = needed(installed.requires)
    assert not {"torch", "torchvision", "mlxtend", "pandas", "scikit-learn"} & distributions.keys()
    for distribution in distributions.values():
        for top in {Path(file).parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    return python


def test_what_is_installed_takes_less_than_300_megabytes(light):
    """The files of the packages, without the bytecode that pip compiles beside them and others do not."""
    (site,) = light.parents[1].glob("lib/python*/site-packages")
    (own,) = importlib.metadata.distributions(name="reg_sweep-light", path=[str(site)])
    size = 0
    for distribution in (own, *needed(own.requires).values()):
        places = [Path(distribution.locate_file(file)) for file in distribution.files if file.suffix != ".pyc"]
        size += sum(path.stat().st_size for path in places if path.is_file())
    assert 100e6 < size < 300e6


def run(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run([python, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def done(python: Path, folder: Path, *arguments: str) -> str:
    ended = run(python, folder, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


ROWS = [("a", 1, 0.5), ("a", 2, 0.52), ("a", 3, 0.51), ("b", 1, 0.9), ("b", 2, 0.92), ("b", 3, 0.905)]
SOURCES = {
    "runs.csv": "method,seed,acc\n" + "".join(f"{a},{s},{x}\n" for a, s, x in ROWS),
    "runs.jsonl": "".join(f'{{"method": "{a}", "seed": {s}, "acc": {x}}}\n' for a, s, x in ROWS),
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_report_reads_anybodys_runs(light, tmp_path, name):
    (tmp_path / name).write_text(SOURCES[name])
    said = done(light, tmp_path, "-m", "reg_sweep.report", name, "--score", "acc", "--baseline", "a", "--out", "page")
    assert "acc 90.83% against 51.00%: +39.83 points" in said
    assert (tmp_path / "page" / "index.html").is_file()


def test_the_judge_judges_and_no_torch_is_there(light, tmp_path):
    scores = {"a": {1: 0.5, 2: 0.51, 3: 0.52}, "b": {1: 0.7, 2: 0.72, 3: 0.71}}
    code = f"import reg_sweep; print(reg_sweep.judge({scores}, 'a').arms['b'].verdict)"
    assert done(light, tmp_path, "-c", code) == "better\n"
    assert "No module named 'torch'" in run(light, tmp_path, "-c", "import torch").stderr


def test_the_sweeper_runs_a_study(light, tmp_path):
    options = ["hydra/sweeper=optuna_study", "hydra.sweep.dir=out", "hydra/sweeper/sampler=grid"]
    options += ["x=0.1,0.3,0.8,2", "y=0,1"]
    said = done(light, tmp_path, str(APPS / "sphere.py"), "-m", *options)
    assert "importance of each parameter (fANOVA): " in said
    assert (tmp_path / "out" / "study.json").is_file()


def test_the_loop_begins_a_ledger(light, tmp_path):
    said = done(light, tmp_path, "-m", "reg_sweep.loop", "init", "loop.jsonl", "--score", "loss", "--lower")
    assert "loss, lower is better" in said


@pytest.mark.parametrize("start", [["-m", "reg_sweep.train"], ["-c", "import reg_sweep.train as t; t.main()"]])
def test_the_trainer_says_what_to_install(light, tmp_path, start):
    ended = run(light, tmp_path, *start, "l1=0.1")
    assert ended.returncode == 1
    said = "reg_sweep.train: training needs torch, which reg_sweep-light leaves out: pip install reg_sweep\n"
    assert ended.stderr == said


def test_what_needs_torch_says_so_in_one_line(light, tmp_path):
    last = run(light, tmp_path, "-c", "from reg_sweep import fit").stderr.splitlines()[-1]
    assert last.endswith("reg_sweep.fit needs torch, which reg_sweep-light leaves out: pip install reg_sweep")
