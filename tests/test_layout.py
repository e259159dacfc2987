"""Who may import whom: the arrows of the package, enforced."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "reg_sweep"

# Each module's own imports within the package, at any level of its code.
ARROWS = {
    "__init__": set(),
    "config": set(),
    "records": {"config"},
    "data": {"config"},
    "norms": {"config"},
    "penalties": {"config"},
    "model": {"config", "norms"},
    "fitting": {"config", "data", "model", "penalties", "records"},
    "stats": set(),
    "study": set(),
    "space": {"study"},
    "outcome": {"study"},
    "progress": {"outcome"},
    "trial": {"outcome", "progress", "study"},
    "search": {"outcome", "progress", "records", "space", "study", "trial"},
    "labels": {"config"},
    "wording": {"records", "stats"},
    "predictions": {"records"},
    "arms": {"labels", "predictions", "records", "stats"},
    "study_record": {"records"},
    "pictures": set(),
    "axes": {"pictures"},
    "figures": {"axes", "pictures", "stats"},
    "study_figures": {"axes", "pictures"},
    "textbook": {"pictures"},
    "verdict": {"arms", "wording"},
    "rows": {"arms", "labels", "wording"},
    "summary": {"arms", "rows"},
    "study_section": {"arms", "labels", "pictures", "rows", "study_figures", "study_record", "wording"},
    "section": {
        *("arms", "config", "figures", "labels", "pictures", "predictions", "records", "rows", "stats"),
        *("study_section", "verdict", "wording"),
    },
    "report": {
        *("arms", "labels", "pictures", "records", "rows", "section", "study_record", "study_section", "summary"),
        *("textbook", "verdict", "wording"),
    },
    "train": {"config", "data", "fitting", "model", "outcome", "records", "report", "search", "study"},
}
STUDIES = {"study", "space", "outcome", "progress", "trial", "search"}
# Libraries that only some modules may import.
OWNERS = {
    "hydra": {"train", *STUDIES},
    "omegaconf": {"train", *STUDIES},
    "optuna": {"train", *STUDIES},
    "matplotlib": {"axes", "figures", "pictures", "study_figures", "textbook"},
    "jinja2": {"report"},
    "torch": {"data", "norms", "penalties", "model", "fitting", "train"},
}


def imports(module: str) -> set[str]:
    """The dotted names that a module imports, wherever in its code."""
    names = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules() -> list[str]:
    return sorted(path.stem for path in PACKAGE.glob("*.py"))


def test_every_module_has_its_arrows():
    assert set(modules()) == ARROWS.keys()


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_lies_below_it(module):
    own = {name.split(".")[1] for name in imports(module) if name.startswith("reg_sweep.")} & ARROWS.keys()
    assert own <= ARROWS[module]


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_imported_by_its_owners_alone(library):
    users = {m for m in modules() if any(name.split(".")[0] == library for name in imports(m))}
    assert users <= OWNERS[library]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("reg_sweep.config", ["torch", "numpy", "hydra", "optuna"]),
        ("reg_sweep.records", ["torch", "numpy", "hydra", "optuna"]),
        ("reg_sweep.report", ["torch", "hydra", "optuna"]),
        ("reg_sweep.train", ["torch", "matplotlib", "optuna"]),
        ("hydra_plugins.reg_sweep_plugins.optuna_study", ["torch", "matplotlib", "optuna", "numpy"]),
    ],
)
def test_importing_a_module_loads_nothing_heavy(module, absent):
    code = f"import sys, {module}; print([m for m in {absent} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
