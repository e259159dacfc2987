"""Finding the sources of runs under files and folders by their contents, and reading each with its reader."""

import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlparse

from reg_sweep.readers import events, folders, servers, stores
from reg_sweep.readers.cells import read_table
from reg_sweep.readers.foreign import ForeignRun, ReadError, Wanted
from reg_sweep.readers.names import path_settings
from reg_sweep.readers.tables import table_runs
from reg_sweep.runs.discovery import natural, walk
from reg_sweep.runs.record import RUN_FILE, STUDY_FILE, RecordError
from reg_sweep.runs.study import read_study
from reg_sweep.runs.validation import ValidationError, open_regular, visible

_TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"}
_JUDGED = "judged.json"  # beside each page of a report
_LEDGER = b'{"ledger": "reg_sweep.loop"'  # how the file of a loop begins
MAX_FOLDERS = 200_000


@dataclass
class Found:
    """The runs of all sources; what each source is, by path; what was left out, and why."""

    runs: list[ForeignRun] = field(default_factory=list)
    sources: dict[Path, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, path: Path, kind: str, runs: Sequence[ForeignRun | None]) -> None:
        """Adds a source's runs; a source without runs is not listed."""
        known = [run for run in runs if run is not None]
        if known:
            self.sources[path] = kind
            self.runs += known


def find_foreign(roots: Sequence[str | Path], wanted: Wanted, own: Collection[Path] = ()) -> Found:
    """The runs of other programs under these files, folders and addresses; `own` are folders of this project's runs.

    Raises:
        ReadError: a file or address that was named itself can't be read, or a folder can be read in two ways.
    """
    found = Found()
    for root in roots:
        address = str(root)
        path = _path(address)
        if path is None:
            kind, runs = servers.address_runs(address)
            found.add(servers.address_place(address), kind, runs)
        elif path.is_dir():
            _Tree(path, wanted, found, own).read()
        else:
            _read_file(path, path.parent, wanted, found)
    return _without_trials(_of_one_kind(found, wanted))


def _path(address: str) -> Path | None:
    """The file or folder that an address names; None for a server's."""
    if "://" not in address or Path(address).exists():
        return Path(address)
    parts = urlparse(address)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme == "sqlite":
        return Path(unquote(parts.path[1:]))
    return None


def _read_file(path: Path, root: Path, wanted: Wanted, found: Found) -> None:
    """Reads a file by its first bytes."""
    try:
        with open_regular(path) as file:
            start = file.read(len(_LEDGER))
    except OSError as error:
        raise ReadError(f"{path}: unreadable ({error.strerror or error})") from None
    except ValidationError as error:
        raise ReadError(f"{path}: {error}") from None
    if start.startswith(b"SQLite format 3"):
        kind, runs = stores.sqlite_runs(path)
        found.add(path, kind, runs)
    elif start == _LEDGER:
        page = shlex.join(["python", "-m", "reg_sweep.loop", "report", str(path)])
        raise _LedgerError(
            f"{path} must hold runs to judge, got the ledger of a loop, which has judged its own: to write its page, "
            f"type {page}"
        )
    elif start.startswith(b":W&B"):
        found.add(path, "an offline run of W&B", [events.wandb_run(path)])
    elif "tfevents" in path.name:
        found.add(path, "TensorBoard's events", [events.tensorboard_run(path.parent, [path], root)])
    elif servers.is_journal(path):
        found.add(path, "Optuna's journal", servers.journal_runs(path))
    elif path.name == STUDY_FILE:
        found.add(path, "a study of optuna_study", _study(path))
    elif path.name == "trainer_state.json":
        found.add(path, "Hugging Face's Trainer", [folders.huggingface_run(path.parent, root, [path])])
    else:
        _read_table(path, root, wanted, found)


def _read_table(path: Path, root: Path, wanted: Wanted, found: Found) -> None:
    table = read_table(path)
    form, runs = table_runs(table, wanted)
    if path.parent != root or not any(run.settings for run in runs):
        said = path_settings(path.relative_to(root))
        for run in runs:
            run.settings = said | run.settings
    if table.noted:
        found.problems.append(visible(table.noted))
    found.add(path, f"a table, {form}", runs)


def _study(path: Path) -> list[ForeignRun]:
    try:
        return folders.study_runs(read_study(path))
    except RecordError as error:
        raise ReadError(str(error)) from None


# ---- folders


class _LedgerError(ReadError):
    """The ledger of a loop, which is not a table of runs."""


class _Tree:
    """A walk through a folder, which stops at each run."""

    def __init__(self, root: Path, wanted: Wanted, found: Found, known: Collection[Path]) -> None:
        """Adds what is under `root` to `found`; `known`: folders of this project's runs, read already."""
        self.root, self.wanted, self.found, self.known = root, wanted, found, known
        self.own = Found()
        self.has_own_runs = False

    def read(self) -> None:
        """Reads the folder. Sources beside this project's own runs are most likely copies of them, and left out."""
        n_folders = 0
        for name, names_of, files in walk(self.root):
            folder = Path(name)
            n_folders += 1
            if n_folders > MAX_FOLDERS:
                self.own.problems.append(f"{self.root}: more than {MAX_FOLDERS:,} folders: the rest is left out")
                break
            if _JUDGED in files:  # a report's own files
                names_of.clear()
                continue
            stops = self._folder(folder, set(files), names_of)
            names_of[:] = [] if stops else sorted((n for n in names_of if not n.startswith(".")), key=natural)
        if self.has_own_runs:
            foreign = {p: kind for p, kind in self.own.sources.items() if not _is_own_storage(p, kind)}
            if not foreign:
                return
            left = ", ".join(f"{path} ({kind})" for path, kind in list(foreign.items())[:3])
            self.found.problems.append(
                visible(f"{left}: left out, since it lies beside runs of reg_sweep; to read it, name it as well")
            )
            return
        if any(run.source == "study.json" for run in self.own.runs):  # it holds all that its storage does
            self.own.runs = [run for run in self.own.runs if run.source != "Optuna"]
            self.own.sources = {p: kind for p, kind in self.own.sources.items() if not kind.startswith("Optuna's")}
        self.found.runs += self.own.runs
        self.found.sources |= self.own.sources
        self.found.problems += self.own.problems

    def _folder(self, folder: Path, files: set[str], below: list[str]) -> bool:
        """Reads the sources in a folder. Returns whether its subfolders belong to them."""
        if RUN_FILE in files:
            if folder in self.known:
                self.has_own_runs = True
                return True
            recorded: list[ForeignRun | None] = []
            self._try(lambda: recorded.append(folders.recorded_run(folder)))
            if recorded != [None]:
                self.own.add(folder, "recorded by record_run", recorded)
                return True
            self.has_own_runs = True
            return True
        if stores.is_mlflow_run(folder):
            self._try(lambda: self.own.add(folder, "MLflow's file store", [stores.mlflow_run(folder)]))
            return True
        if self._log_files(folder, files, below):
            return True
        taken: set[str] = set()
        if folders.is_lightning_run(folder):
            taken.add("metrics.csv")
            self._try(lambda: self.own.add(folder, "Lightning's CSVLogger", [folders.lightning_run(folder, self.root)]))
        elif folders.is_hydra_job(folder):
            taken |= {f for f in files if Path(f).suffix in _TABLES}
            run = (folder, "a Hydra app's job")
            self._try(lambda: self.own.add(*run, [folders.hydra_run(folder, self.wanted.metrics_file)]))
        for name in sorted(files - taken, key=natural):
            if _is_source(folder / name):
                self._try(partial(_read_file, folder / name, self.root, self.wanted, self.own))
        return False

    def _log_files(self, folder: Path, files: set[str], below: list[str]) -> bool:
        """Reads event files and a Trainer's states. Returns whether the folder's subfolders belong to them."""
        logs = sorted(folder / f for f in files if "tfevents" in f)
        if logs:
            inner = [folder / n for n in below if events.is_hparams_folder(folder / n)]
            logs += sorted(path for own in inner for path in own.glob("*tfevents*"))
            below[:] = [n for n in below if folder / n not in inner]
            self._try(
                lambda: self.own.add(folder, "TensorBoard's events", [events.tensorboard_run(folder, logs, self.root)])
            )
        checkpoints = [n for n in below if re.fullmatch(r"checkpoint-\d+", n)]
        states = [folder / "trainer_state.json"] if "trainer_state.json" in files else []
        states += [s for n in checkpoints if (s := folder / n / "trainer_state.json").is_file()]
        if states:
            below[:] = [n for n in below if n not in checkpoints]
            run = (folder, "Hugging Face's Trainer")
            self._try(lambda: self.own.add(*run, [folders.huggingface_run(folder, self.root, states)]))
        return False

    def _try(self, read: Callable[[], object]) -> None:
        """Reads a source; one that can't be read costs only its own runs."""
        try:
            read()
        except _LedgerError as error:
            self.found.problems.append(visible(str(error)))
        except ReadError as error:
            self.own.problems.append(f"{error}: left out")


def _is_own_storage(path: Path, kind: str) -> bool:
    """Whether a source is the storage of a study of ours, whose study.json beside it holds all that it does."""
    return kind.startswith("Optuna's") and (path.parent / STUDY_FILE).is_file()


def _is_source(path: Path) -> bool:
    """Whether a file of a folder may hold runs, by its name; a journal by its content."""
    if path.suffix in (".wandb", ".db", ".sqlite", ".sqlite3") or path.suffix in _TABLES or path.name == STUDY_FILE:
        return True
    return path.suffix in (".log", ".journal") and servers.is_journal(path)


def _without_trials(found: Found) -> Found:
    """The runs without a search's trials, if there are runs to judge: exploratory trials are not judged beside them."""
    trials = [run for run in found.runs if run.is_trial]
    judged = [run for run in found.runs if not run.is_trial]
    if not trials or not judged:
        return found
    said = visible(
        f"{trials[0].where}: {len(trials):,} trials of a search are left out of the comparison: they are "
        "exploratory, and never judged beside the arms chosen from them"
    )
    return Found(judged, found.sources, [*found.problems, said])


# ---- one kind of source, where several describe the same runs


def _of_one_kind(found: Found, wanted: Wanted) -> Found:
    """The sources found, of the kind that was asked for.

    Raises:
        ReadError: two kinds lie in the same folders, so that each run would be read twice; or there is no such kind.
    """
    kinds = Counter(_word(run.source) for run in found.runs)
    if wanted.source is not None:
        if wanted.source not in kinds:
            known = ", ".join(kinds) or "none"
            raise ReadError(f"--source must be one of the kinds that were found ({known}), got {wanted.source!r}")
        kept = [run for run in found.runs if _word(run.source) == wanted.source]
        paths = {run.path for run in kept}
        sources = {path: kind for path, kind in found.sources.items() if path in paths}
        return Found(kept, sources or found.sources, found.problems)
    by_path: dict[Path, set[str]] = {}
    for run in found.runs:
        by_path.setdefault(run.path if run.path.is_dir() else run.path.parent, set()).add(_word(run.source))
    for path, own in by_path.items():
        around = {kind for above in path.parents if above in by_path for kind in by_path[above]}
        both = sorted(own | around)
        if len(own) > 1 or (around - own):
            counted = " or ".join(f"{kind} ({kinds[kind]:,} runs)" for kind in both)
            raise ReadError(
                f"{path}: its runs can be read in two ways, as {counted}: say which, such as --source {both[0]}"
            )
    return found


def _word(source: str) -> str:
    return re.sub(r"[^a-z]", "", source.lower().replace("&", "and"))
