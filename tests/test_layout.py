"""Who may import whom, enforced."""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import reg_sweep

PACKAGE = Path(__file__).parents[1] / "reg_sweep"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# The rooms, and the rooms that each may import; only train.py ties all of them.
GROUND = {"config", "runs", "images"}
STANDS_ON = {
    "__init__": set(),
    "config": set(),
    "runs": {"config"},
    "images": {"config", "runs"},
    "readers": {"config", "runs"},
    "hydra_app": {"config", "runs"},
    "stats": set(),
    "training": GROUND,
    "compact": GROUND | {"training"},
    "search": GROUND | {"hydra_app", "stats"},
    "loop": {"runs", "stats"},
    "comparison": GROUND | {"readers", "stats"},
    "report": GROUND | {"readers", "stats", "comparison"},
    "judging": {"stats", "report"},
}
# Libraries that only some modules or folders may import.
OWNERS = {
    "torch": {"training", "compact"},
    "matplotlib": {"report.figures"},
    "jinja2": {"report.page"},
    "optuna": {"search", "readers.servers"},
    "hydra": {"train", "hydra_app", "search"},
    "omegaconf": {"train", "hydra_app", "search"},
    "fcntl": {"runs.files"},
}


@cache
def nodes(module: str) -> list[ast.AST]:
    """All of a module's syntax tree."""
    return list(ast.walk(ast.parse(MODULES[module].read_text())))


@cache
def imports(module: str) -> set[str]:
    """The dotted names that a module imports, wherever in its code."""
    names = set()
    for node in nodes(module):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports; of a package its __init__ counts where a name is its own."""
    names = {name.removeprefix("reg_sweep.") for name in imports(module) if name.startswith("reg_sweep.")}
    found = {name for name in names if name in MODULES}
    inner = {name.rpartition(".")[0] for name in found if "." in name}
    return found - inner - {module}


def room(module: str) -> str:
    return module.partition(".")[0]


def is_in(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("module", [m for m in MODULES if m != "train"])
def test_a_module_imports_its_own_room_and_those_that_it_stands_on(module):
    assert {room(other) for other in own_imports(module)} <= STANDS_ON[room(module)] | {room(module)}


def test_a_class_that_yaml_names_is_an_import_too():
    """YAML may name the entry's classes and functions, and the public names, alone."""
    targets = [
        target
        for path in sorted((PACKAGE.parent / "conf").rglob("*.yaml"))
        for target in re.findall(r"(?<!\$\{)\breg_sweep\.[\w.]+", "\n".join(_values(path)))
    ]
    assert targets
    assert {t.split(".")[1] for t in targets} <= {"train", *reg_sweep.__all__}


def _values(path: Path) -> list[str]:
    return [line.partition("#")[0] for line in path.read_text().splitlines() if "python -m" not in line]


def test_only_a_package_imports_its_own_modules_by_a_name_in_a_text():
    """The graph of imports would not show it."""
    by_name = {m for m, path in MODULES.items() if re.search(r"import_module\(f?[\"']reg_sweep", path.read_text())}
    assert by_name == {"__init__", "search", "compact"}


def test_imports_point_one_way():
    list(TopologicalSorter({module: own_imports(module) for module in MODULES}).static_order())  # raises on a circle


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_imported_by_its_owners_alone(library):
    users = {m for m in MODULES if any(name.split(".")[0] == library for name in imports(m))}
    assert users
    assert all(is_in(user, OWNERS[library]) for user in users)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("reg_sweep", ["torch", "numpy", "hydra", "optuna"]),
        ("reg_sweep.config.schema", ["torch", "numpy", "hydra", "optuna"]),
        ("reg_sweep.runs.record", ["torch", "numpy", "hydra", "optuna"]),
        ("reg_sweep.report", ["torch", "hydra", "optuna"]),
        (
            "reg_sweep.stats.judge",
            ["torch", "matplotlib", "pandas", "scipy.stats", "scipy.optimize", "hydra", "optuna"],
        ),
        ("reg_sweep.loop.__main__", ["torch", "numpy", "scipy", "hydra", "matplotlib"]),
        ("reg_sweep.search", ["torch", "matplotlib", "optuna"]),
        ("reg_sweep.search.sweep", ["torch", "matplotlib", "optuna"]),
        ("reg_sweep.train", ["torch", "matplotlib", "optuna"]),
        ("hydra_plugins.reg_sweep_plugins.optuna_study", ["torch", "matplotlib", "optuna", "numpy"]),
        ("hydra_plugins.reg_sweep_plugins.population", ["torch", "matplotlib", "optuna", "numpy"]),
    ],
)
def test_importing_a_module_loads_nothing_heavy(module, absent):
    code = f"import sys, {module}; print([m for m in {absent} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_no_module_function_or_class_outgrows_its_room():
    """400, 60 and 200 lines; but the training loop reads down in one piece, and the judge's docstring specifies it."""
    too_long = {name for name, path in MODULES.items() if len(path.read_text().splitlines()) > 400}
    for name in MODULES:
        for node in nodes(name):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                limit = 200 if isinstance(node, ast.ClassDef) else 60
                if node.end_lineno - node.lineno >= limit:
                    too_long.add(f"{name}.{node.name}")
    assert too_long == {"training.fit._train", "stats.judge.judge"}
