"""The wheel contains every file that the package reads at run time."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from reg_sweep.runs.record import PREDICTIONS_FILE, WEIGHTS_FILE

ROOT = Path(__file__).parents[1]
PACKAGES = ("reg_sweep", "hydra_plugins")


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """The folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def built(dist) -> tuple[set[str], set[str]]:
    """The files in the wheel, and those in the source distribution."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    return in_wheel, in_sdist


def files(folder: str) -> set[str]:
    """The files below a folder of the project, but for what Python and `reproduce.py --records` leave there."""
    found = (p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    found = (p for p in found if p.name not in (WEIGHTS_FILE, PREDICTIONS_FILE))
    return {str(p.relative_to(ROOT)) for p in found}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_holds_every_file_of_a_package(built, package):
    assert files(package) <= built[0]


def test_the_wheel_holds_the_packages_with_their_choices_alone(built):
    tops = {name.partition("/")[0] for name in built[0]}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert "reg_sweep/py.typed" in built[0]
    assert {f"reg_sweep/{name}" for name in files("conf")} <= built[0]


@pytest.mark.parametrize(
    "folder", [*PACKAGES, "conf", "light", "docs", "tests", "examples/conf", "benchmarks", "reproduction"]
)
def test_the_source_distribution_holds_every_file_of_a_folder(built, folder):
    assert files(folder) <= built[1]
    assert {"CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "Makefile", "README.md"} <= built[1]


@pytest.mark.slow
def test_the_wheel_runs_from_an_empty_folder(dist, tmp_path):
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    code = "import reg_sweep, reg_sweep.train as t; print(reg_sweep.__file__); t.main()"
    command = [sys.executable, "-c", code, "norm=gbn", "--cfg", "job"]
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(command, cwd=tmp_path / "empty", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
    assert "ghost_batch_size: 32" in done.stdout
