"""The documentation says what is so: paths, links, settings, records; the site's navigation has every page."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from scripts import script
from trees import write_run

from reg_sweep import train
from reg_sweep.config.schema import RunConfig
from reg_sweep.hydra_app.command_line import placed_beside_study
from reg_sweep.hydra_app.internals import VERSION_BASE
from reg_sweep.runs import study as study_record
from reg_sweep.runs.arrays import write_weights
from reg_sweep.runs.record import (
    METRICS,
    SCHEMA,
    DataFacts,
    DeviceFacts,
    LayerFacts,
    MetricsRow,
    RunRecord,
    TrialFacts,
    WeightCounts,
)
from reg_sweep.runs.validation import Count, NImages, Seconds

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
TEXTS = ["CONTRIBUTING.md", "README.md", *PAGES]
FOLDERS = ("benchmarks", "conf", "docs", "examples", "hydra_plugins", "reg_sweep", "reproduction", "tests", ".github")


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def written(name: str) -> str:
    """A page as it is read: without code, with what it includes."""
    text = text_of(name)
    for file in re.findall(r'^--8<-- "([\w.]+)', text, re.MULTILINE):
        text = text_of(file) + text.replace(f'--8<-- "{file}', "")
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


# ---- paths and targets


def named(name: str) -> list[str]:
    """The paths in a text's code spans, those of a kind (NAME) left out."""
    spans = re.findall(r"`([\w./-]+)`", text_of(name))
    return [s for s in dict.fromkeys(spans) if s.split("/")[0] in FOLDERS and "/" in s and "NAME" not in s]


@pytest.mark.parametrize("name", TEXTS)
def test_every_path_that_a_text_names_is_there(name):
    assert [path for path in named(name) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_target_of_make_that_a_text_names_is_there(name):
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text_of(name), re.MULTILINE)) <= targets


# ---- links and pages


def anchors(name: str) -> set[str]:
    """Anchors of a text's headings."""
    headings = re.findall(r"^#+ (.+)$", written(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(name: str) -> Iterator[tuple[str, str]]:
    """The files that a text links to or shows, seen from the project's root, and the headings there."""
    text = text_of(name)
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r"^\[[\w-]+\]: (\S+)", prose, re.MULTILINE)
    for link in found:
        if not link.startswith(("http://", "https://")):
            path, _, heading = link.partition("#")
            target = (ROOT / name).parent / path if path else ROOT / name
            yield target.resolve().relative_to(ROOT).as_posix(), heading


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_to_a_file_and_a_heading(name):
    for path, heading in links(name):
        assert (ROOT / path).is_file(), path
        assert not heading or heading in anchors(path), f"{path}#{heading}"


def pages_of(entry: Any) -> Iterator[str]:
    """The files in a part of mkdocs.yml's navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from pages_of(part)


def test_the_navigation_holds_every_page_once():
    assert sorted(pages_of(yaml.safe_load(text_of("mkdocs.yml"))["nav"])) == [Path(page).name for page in PAGES]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_with_the_question_that_it_answers(page):
    title, question, _ = re.split(r"\n\n", text_of(page), maxsplit=2)
    assert title.startswith("# ")
    assert re.fullmatch(r"\*[A-Z].*\?\*", question, re.DOTALL)


# ---- settings


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return script("docs/reference.py")


def test_the_page_of_settings_is_current(reference):
    assert text_of("docs/config.md") == reference.page(), "write it again: python docs/reference.py"


def test_a_key_without_a_meaning_is_told(reference, monkeypatch):
    monkeypatch.delitem(reference.KEYS, "data.fill")
    with pytest.raises(SystemExit, match=r"data\.fill"):
        reference.page()


# ---- commands


def train_commands() -> list[str]:
    """The commands of the pages' blocks that train; those of docs/training.md run in tests/test_examples.py."""
    pages = [text_of(page) for page in PAGES if page != "docs/training.md"]
    blocks = re.findall(r"```sh\n(.*?)```", "".join(pages), re.DOTALL)
    lines = {line.split(" #")[0].strip() for block in blocks for line in block.splitlines()}
    return sorted(line for line in lines if "reg_sweep.train" in line and "experiment=best" not in line)


@pytest.mark.parametrize("command", train_commands())
def test_a_command_of_the_pages_is_one_that_the_program_takes(command):
    words_of = [word for word in shlex.split(command)[3:] if word != "-m"]
    placed = [word for word in placed_beside_study(words_of, []) if not word.startswith("--")]
    overrides = [f"{key}={value.split(',')[0]}" for key, _, value in (word.partition("=") for word in placed)]
    with initialize_config_dir(str(train.CONF), **VERSION_BASE):
        config = compose("config", overrides)
    assert isinstance(train.to_run_config(config), RunConfig)


def test_the_table_of_false_claims_is_that_of_the_kept_simulation():
    worst: dict[tuple[str, str], float] = {}
    cells = [line.split(" | ") for line in text_of("docs/results/simulate_family.txt").splitlines()]
    for noise, arms, _, *shares in [row for row in cells if len(row) == 8 and row[0] != "noise"]:
        worst[noise, arms] = max(worst.get((noise, arms), 0.0), *map(float, shares[:4]))
    section = text_of("docs/statistics.md").partition("**False claims.**")[2].partition("\n**Power.**")[0]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines()]
    rows = {row[0]: row[1:6] for row in cells if len(row) == 7}
    names = [noise for noise, arms in worst if arms == "2"]
    assert len(names) > 15
    for noise in names:
        assert rows[noise] == [f"{worst[noise, arms]:.3f}" for arms in ("2", "3", "6", "11", "31")]


@pytest.mark.parametrize("name", TEXTS)
def test_every_line_of_output_in_a_text_is_one_that_was_printed(name):
    """docs/results/ keeps what the commands printed, whole."""
    printed = {line for file in (ROOT / "docs" / "results").glob("*.txt") for line in file.read_text().splitlines()}
    shown = [
        line for block in re.findall(r"```text\n(.*?)```", text_of(name), re.DOTALL) for line in block.splitlines()
    ]
    assert name != "README.md" or len(shown) > 10
    assert [line for line in shown if line not in printed] == []


# ---- records

TYPES = {
    "run.json": RunRecord,
    "data": DataFacts,
    "weights": WeightCounts,
    "layers": LayerFacts,
    "device": DeviceFacts,
    "trial": TrialFacts,
    "metrics.csv": MetricsRow,
    "study.json": study_record.StudyJson,
    "A study's trial": study_record.TrialJson,
    "design": study_record.DesignJson,
    "looks": study_record.LookJson,
    "An arm at a look": study_record.ArmLookJson,
}
LINKED = {kind: heading for heading, kind in TYPES.items()} | {MetricsRow: "row", study_record.LookJson: "look"}
LINKED |= {LayerFacts: "layer", study_record.TrialJson: "study's trial", study_record.ArmLookJson: "arm"}
WORDS = {Count: "count", NImages: "count", Seconds: "seconds", Any: "anything", str: "text"}
WORDS |= {bool: "true or false", int: "whole number", float: "number", dict: "mapping", tuple: "pair"}


def words(kind: Any) -> str:
    """A type as docs/records.md writes it."""
    if kind in LINKED:
        return LINKED[kind]
    if kind in WORDS:
        return WORDS[kind]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is NotRequired:
        return f"{words(inner[0])}, may be absent"
    if origin is Annotated:
        return words(inner[0])
    if origin in (Union, UnionType):
        return f"{' or '.join(words(k) for k in inner if k is not NoneType)} or null"
    if origin is Literal:
        return f"{', '.join(inner[:-1])} or {inner[-1]}"
    if origin is list:
        return f"list of {words(inner[0])}"
    return f"mapping of {words(inner[1])}" if origin is dict and inner[1] is not Any else WORDS[origin]


def told(heading: str) -> dict[str, str]:
    """The keys in the table below a heading of docs/records.md, and their types without links and marks."""
    below = rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)"
    section = re.search(below, text_of("docs/records.md"), re.MULTILINE | re.DOTALL)
    assert section is not None
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section[1], re.MULTILINE)
    return {key: re.sub(r"\[(.*?)\]\(.*?\)", r"\1", kind).replace("`", "") for key, kind in rows}


@pytest.mark.parametrize("heading", TYPES)
def test_the_page_of_records_has_the_keys_of_each_type(heading):
    hints = get_type_hints(TYPES[heading], include_extras=True)
    assert told(heading) == {key: words(kind) for key, kind in hints.items()}


def test_the_page_of_records_names_the_schemas_and_the_columns_of_metrics():
    assert list(told("metrics.csv")) == list(METRICS)
    assert f"`schema` is {SCHEMA} in `run.json` and in `study.json`" in text_of("docs/records.md")
    assert SCHEMA == study_record.STUDY_SCHEMA


def test_the_python_of_the_page_of_records_runs(tmp_path, monkeypatch, capsys):
    write_weights(write_run(tmp_path / "outputs" / "a", n_wrong=5), {"a.weight": np.zeros((2, 3), np.float32)})
    monkeypatch.chdir(tmp_path)
    exec("".join(re.findall(r"```python\n(.*?)```", text_of("docs/records.md"), re.DOTALL)), {})
    assert capsys.readouterr().out.splitlines()[1] == "0.9 1"
