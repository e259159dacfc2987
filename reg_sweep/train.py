"""Trains one run, or a sweep of them: Hydra's config in, a run's directory and its objective out.

python -m reg_sweep.train norm=gbn l1=0.00001 l2=0.0005
"""

import difflib
import logging
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import reg_sweep
from reg_sweep import files, records
from reg_sweep.config import ConfigError, DataError, RunConfig, comparable, digest, to_dict
from reg_sweep.overrides import file_search_path, missing_overrides, search_path, search_path_overrides, user_folders
from reg_sweep.records import RecordError
from reg_sweep.search.command import public_arguments
from reg_sweep.search.settings import Settings

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent
# Inside the package when installed, beside it in a checkout.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def _schema() -> DictConfig:
    """RunConfig's types and defaults, without those that belong to one choice of a group: the group's file has them."""
    schema = OmegaConf.structured(RunConfig)
    schema.model, schema.data.source = {}, {}
    schema.optimizer.momentum, schema.optimizer.nesterov = None, None
    return schema


ConfigStore.instance().store(name="schema", node=_schema())

_HIGHER_IS_BETTER = {"val_accuracy", "test_accuracy", "zero_share"}


class Interrupted(BaseException):
    """The run was asked to stop, by Ctrl-C or SIGTERM; its checkpoint is kept."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number


# ---- one run


def train(
    run: RunConfig, directory: Path, save_config: Callable[[], None], command: str, *, job: int | None = None
) -> float | list[float]:
    """Trains `run` in `directory`, or continues or just reports what lies there; returns its objective, or several.

    A sweep's `job` is summed up in a line, and only its first one shows the table of layers.

    Raises:
        ConfigError: `directory` holds another config's run or a sweep's runs, or another process trains there; or
            model, norm and data don't go together.
        optuna.TrialPruned: the trial of the study that this run belongs to was pruned.
    """
    if any(directory.glob(f"[0-9]*/{records.RUN_FILE}")):
        raise ConfigError(f"{directory} must be new or hold this very run, got a sweep's runs: choose another name=...")
    with files.claim(directory):
        before = _record_of_same_run(run, directory)
        if before is not None and before["status"] in ("complete", "diverged", "pruned"):
            log.info("%s is %s already: nothing to train", directory, before["status"])
            return _objective(run, before)

        import torch  # not before the config is known to be good: it takes seconds

        from reg_sweep.training.data import load_data
        from reg_sweep.training.fit import choose_device, fit
        from reg_sweep.training.model import layer_table, layers, make_model

        device = choose_device(run.runtime.device)
        data = load_data(run.data)
        if before is not None and before["data"]["fingerprint"] != data.fingerprint:
            raise ConfigError(
                f"{directory} must be continued on its own data ({before['data']['source']}, "
                f"{before['data']['fingerprint']}), got {data.source} {data.fingerprint}: choose another name=..."
            )
        model = make_model(run.model, run.norm, data.in_shape, data.n_classes, run.seed)  # refuses what can't be built
        log.info(
            "%s: %s train, %s val, %s test images (%s)",
            data.name,
            *(f"{len(split):,}" for split in (data.train, data.val, data.test)),
            data.source,
        )
        if not job:
            log.info("%s", layer_table(layers(model, data.in_shape)))
        _warn_of_test_selection(run)
        save_config()
        trial = _current_trial()
        record: dict[str, Any] = {
            "schema": records.SCHEMA,
            "status": "running",
            "name": run.name,
            "config": to_dict(run),
            "digest": digest(to_dict(run)),
            "data": data.facts(),
            "epochs_done": 0,
            "last": None,
            "best_val": None,
            "weights": None,
            "layers": [],
            "n_parameters": None,
            "versions": _versions(),
            "git_commit": _git_commit(),
            "device": {
                "name": str(device),
                "threads": run.runtime.threads or torch.get_num_threads(),
                "processor": _processor(device),
            },
            "seconds": 0.0,
            "started": before["started"] if before is not None else _now(),
            "ended": None,
            "command": command,
            "message": None,
            "trial": None if trial is None else trial.facts(),
        }
        records.write_record(directory, record)

        def on_epoch(row: dict[str, float | None]) -> bool:
            record["epochs_done"], record["last"] = int(row["epoch"] or 0), row
            records.write_record(directory, record)
            if trial is None or len(run.objectives) > 1 or run.objectives[0] == "zero_share":
                return False
            trial.report(row[run.objectives[0]], record["epochs_done"])
            return trial.should_prune()

        try:
            with _stop_on_signals() as caught:
                fitted = fit(run, data, directory, on_epoch=on_epoch, stop=lambda: bool(caught))
        except Exception as error:
            record |= {"status": "failed", "ended": _now(), "message": _last_line(error)}
            with suppress(OSError):  # a full disk may be what failed
                records.write_record(directory, record)
            raise
        record |= {
            "epochs_done": len(fitted.history),
            "last": fitted.history[-1] if fitted.history else None,
            "best_val": _best_val(fitted.history),
            "weights": fitted.weights,
            "layers": fitted.layers,
            "n_parameters": fitted.n_parameters,
            "seconds": round(sum(row["seconds"] or 0.0 for row in fitted.history), 3),
            "message": fitted.message,
        }
        if caught:
            done = _count(record["epochs_done"], "epoch")
            record["message"] = f"stopped by {signal.Signals(caught[0]).name} after {done}; it can be continued"
            records.write_record(directory, record)
            raise Interrupted(caught[0])
        if fitted.test is not None:
            records.write_predictions(
                directory,
                predicted=fitted.test.predicted,
                probability=fitted.test.probability,
                label=data.test.labels.numpy(),
                index=data.test_index,
            )
        state = fitted.model.state_dict()
        records.write_weights(directory, {name: t.detach().cpu().contiguous().numpy() for name, t in state.items()})
        record |= {"status": fitted.status, "ended": _now()}
        records.write_record(directory, record)
        (directory / records.CHECKPOINT_FILE).unlink(missing_ok=True)
        _say_what_came_out(record, directory, brief=job is not None, penalized=run.l1 > 0 or run.l2 > 0)
        return _objective(run, record)


def _record_of_same_run(run: RunConfig, directory: Path) -> dict[str, Any] | None:
    """The record in `directory`; None where there is none.

    Raises:
        ConfigError: it is another config's, or unreadable: nothing there may be overwritten.
    """
    if not (directory / records.RUN_FILE).exists():
        return None
    try:
        record = records.read_record(directory)
    except RecordError as error:
        raise ConfigError(f"{error}: choose another name=..., or remove {directory}") from None
    if record["digest"] != digest(to_dict(run)):
        difference = _differences(comparable(record["config"]), comparable(to_dict(run)))
        raise ConfigError(
            f"{directory} must be new or hold this very run, got the run of another config "
            f"({', '.join(difference[:4])}): choose another name=..."
        )
    return record


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two configs, as 'l1 0.001 there, 0.01 here'."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} {a} there, {b} here")
    return found


def _warn_of_test_selection(run: RunConfig) -> None:
    for objective in run.objectives:
        if objective.startswith("test_"):
            log.warning("objective=%s: what is chosen by it is chosen on test, and looks better than it is", objective)


def _objective(run: RunConfig, record: dict[str, Any]) -> float | list[float]:
    """The objective's values at the last epoch. A diverged run's are the worst there are."""
    if record["status"] == "pruned":
        import optuna

        raise optuna.TrialPruned(record["message"])
    values = [_objective_value(name, record) for name in run.objectives]
    return values[0] if isinstance(run.objective, str) else values


def _objective_value(name: str, record: dict[str, Any]) -> float:
    if record["status"] == "diverged":
        return float("-inf") if name in _HIGHER_IS_BETTER else float("inf")
    if name == "zero_share":
        return record["weights"]["n_zero"] / record["weights"]["n"]
    return record["last"][name]


def _best_val(history: list[dict[str, float | None]]) -> dict[str, float | None] | None:
    rows = [row for row in history if row["val_loss"] is not None]
    return min(rows, key=lambda row: row["val_loss"] or 0.0) if rows else None


def _current_trial() -> Any:
    if "REG_SWEEP_TRIAL" not in os.environ:  # outside a study Optuna need not load
        return None
    from reg_sweep.search import current_trial

    return current_trial()


def _say_what_came_out(record: dict[str, Any], directory: Path, *, brief: bool, penalized: bool) -> None:
    last, weights = record["last"], record["weights"]
    what = f"{record['status']} after {_count(record['epochs_done'], 'epoch')}, {record['seconds']:.1f} s"
    if last is None:
        log.info("%s: %s\nrecord    %s", what, record["message"], directory)
        return
    splits = [split for split in ("val", "test") if last[f"{split}_accuracy"] is not None]
    scores = {s: f"accuracy {last[f'{s}_accuracy']:.2%}, loss {last[f'{s}_loss']:.4f}" for s in splits}
    share = last["penalty"] / (last["penalty"] + last["train_loss"])
    if brief:
        said = ", ".join(f"{split} {score}" for split, score in scores.items())
        log.info("%s: %s, penalty %s of the loss: %s", what, said, f"{share:.0%}", directory)
        return
    lines = [what]
    lines += [f"{split:<9} {score} ({record['data'][f'n_{split}']:,} images)" for split, score in scores.items()]
    if penalized:
        lines.append(f"penalty   {last['penalty']:.4f}, {share:.0%} of the training loss")
        if share > 0.5:
            lines.append("          the penalty outweighs the data: a smaller l1 or l2 may fit better")
    lines.append(
        f"weights   {weights['n_zero']:,} of {weights['n']:,} are zero, {weights['n_near_zero']:,} are below 0.001;"
        f" {weights['n_dead_kernels']:,} of {weights['n_kernels']:,} kernels are dead"
    )
    if record["message"]:
        lines.append(f"note      {record['message']}")
    lines.append(f"record    {directory}")
    lines.append(f"next      python -m reg_sweep.report {shlex.quote(str(directory.parent))}")
    log.info("\n".join(lines))


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


@contextmanager
def _stop_on_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them; a second Ctrl-C is not waited for."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def handle(number: int, _: object) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)
        log.info("stopping at the next batch")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    packages = ("torch", "numpy", "hydra-core", "optuna")
    return {
        "python": platform.python_version(),
        "reg_sweep": reg_sweep.__version__,
        **{package: version(package) for package in packages},
    }


def _git_commit() -> str | None:
    """The commit of the checkout that this package runs from, marked where it was changed; None outside a checkout."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def _processor(device: Any) -> str:
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# ---- under Hydra


def to_run_config(cfg: DictConfig) -> RunConfig:
    """Hydra's composed config as a RunConfig.

    Raises:
        ConfigError: a key is unknown, or a value is out of its range.
    """
    _refuse_added_keys(cfg)
    run = OmegaConf.to_object(cfg)
    assert isinstance(run, RunConfig)
    return run


def _refuse_added_keys(cfg: DictConfig, prefix: str = "") -> None:
    """Hydra's +key=value adds to the schema, where nothing would read it."""
    schema = OmegaConf.get_type(cfg)
    if not is_dataclass(schema):
        return
    names = [field.name for field in fields(schema)]
    for key, value in cfg.items():
        if key not in names:
            raise ConfigError(_unknown_key(f"{prefix}{key!s}", [f"{prefix}{name}" for name in names]))
        if isinstance(value, DictConfig):
            _refuse_added_keys(value, f"{prefix}{key}.")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(cfg: DictConfig) -> float | list[float]:
    run = to_run_config(cfg)
    config = HydraConfig.get()
    directory = Path(config.runtime.output_dir)

    def save_config() -> None:
        folder = directory / ".hydra"
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(cfg, folder / "config.yaml")
        OmegaConf.save(OmegaConf.create({"hydra": config}), folder / "hydra.yaml")
        OmegaConf.save(config.overrides.task, folder / "overrides.yaml")

    command = shlex.join(["python", "-m", "reg_sweep.train", *_own_arguments(cfg, config)])
    try:
        job = config.job.num if config.mode is RunMode.MULTIRUN else None
        return train(run, directory, save_config, command, job=job)
    except (ConfigError, DataError) as error:
        if config.mode is RunMode.MULTIRUN:
            raise
        raise SystemExit(_refuse(error)) from None  # an exception would be printed with Hydra's own line before it


def _own_arguments(cfg: DictConfig, config: HydraConf) -> list[str]:
    """The arguments that run this job alone: what its study's file set is written out, the sweep's name left out."""
    own = [o for o in config.overrides.task if o.partition("=")[0] not in _SWEEPS_OWN]

    def compose(overrides: list[str]) -> DictConfig:
        is_there = GlobalHydra.instance().is_initialized()  # not in a launcher's process
        with nullcontext() if is_there else hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            path = file_search_path(user_folders(config.runtime))
            return hydra.compose("config", [path, *overrides], return_hydra_config=True)

    if config.runtime.choices.get("study") is not None:
        own += missing_overrides(cfg, config.runtime.choices, own, compose, _SWEEPS_OWN)
    return [*search_path(config.runtime), *own]


_SWEEPS_OWN = ("name", "report", "study")

_started: Path | None = None  # where this process's command writes; for the command that continues it


class SweepReport(Callback):
    """Refuses what is out of range before the first run; writes the report at a multirun's end."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        global _started
        _started = Path(config.hydra.run.dir)
        self._check([list(config.hydra.overrides.task)], config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        global _started
        _started = Path(config.hydra.sweep.dir)
        if (_started / records.RUN_FILE).exists():
            said = f"{_started} must be new or hold this sweep, got a single run: choose another name=..."
            raise SystemExit(_refuse(ConfigError(said)))
        # What another sweeper proposes, it alone knows.
        if config.hydra.sweeper._target_.endswith(".BasicSweeper"):
            arguments = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
            batches = BasicSweeper.split_arguments(arguments, max_batch_size=None)
            self._check([list(job) for batch in batches for job in batch][:MAX_CHECKED], config)

    def _check(self, jobs: list[list[str]], config: DictConfig) -> None:
        """Composes and checks the config of each job; exits on the first that is not valid.

        It exits itself, because of an exception from a callback Hydra would only warn.
        """
        from reg_sweep.training.data import check_split

        paths = search_path_overrides(config.hydra)
        try:
            for overrides in jobs:
                check_split(to_run_config(hydra.compose("config", [*paths, *overrides])).data)
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            raise SystemExit(_refuse(error)) from None

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if not config.report:
            return
        from reg_sweep.report import write_report

        root = Path(config.hydra.sweep.dir)
        if any(True for _ in records.find_runs(root)):
            report = write_report([root], root / "report")
            log.info("\n%s\nreport    %s", report.verdict, report.page)


MAX_CHECKED = 500  # jobs of a grid; the rest are refused when their turn comes


def explain(error: BaseException) -> str:
    """An error in a config as one line: what, rule, value, remedy."""
    cause = error if error.__cause__ is None else error.__cause__
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group} must be one of {', '.join(error.options)}, got {option!r}{_close_to(option, error.options)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} can't be read: {_one_line(error)}"
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        key, message = cause.full_key, str(cause.msg)
        if "not in" in message:
            parent = cause.parent_node if isinstance(cause.parent_node, DictConfig) else {}
            prefix = key.rpartition(".")[0]
            return _unknown_key(key, [f"{prefix}.{name}".lstrip(".") for name in map(str, parent)])
        wrong = _WRONG_TYPE.match(message)
        if wrong is not None:
            kind = _KINDS.get(wrong["kind"], wrong["kind"])
            return f"{key} must be {kind}, got {wrong['value']!r}"
        return f"{key}: {message.splitlines()[0]}"
    return _one_line(error)


_WRONG_TYPE = re.compile(r"Value '(?P<value>.*)' of type '.*' could not be converted to (?P<kind>\w+)")
_KINDS = {"Float": "a number", "Integer": "a whole number", "Boolean": "true or false"}


def _unknown_key(key: str, known: list[str]) -> str:
    if key in Settings.__dataclass_fields__:
        return f"{key} must be a key of the config, got the sweeper's: did you mean 'hydra.sweeper.{key}'?"
    return f"{key} must be a key of the config, got an unknown one{_close_to(key, known)} (--help lists them)"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _close_to(word: str, words: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else ""


def _refuse(error: BaseException) -> int:
    print(f"reg_sweep: error: {explain(error)}", file=sys.stderr)
    return 2


def _continue_command() -> str:
    """The command line as it was typed, with the name of what it started."""
    arguments = public_arguments(sys.argv[1:])
    if _started is not None and _started.is_relative_to("outputs"):
        arguments = [a for a in arguments if not a.startswith("name=")]
        arguments.append(f"name={_started.relative_to('outputs').as_posix()}")
    return shlex.join(["python", "-m", "reg_sweep.train", *arguments])


def _overrides_first(arguments: list[str]) -> list[str]:
    """Lets flags stand anywhere among the overrides, which Hydra's own parser takes in one piece only."""
    overrides: list[str] = []
    flags: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_override = not argument.startswith("-") and ("=" in argument or argument.startswith("~"))
        (overrides if is_override and before not in _FLAGS_WITH_VALUE else flags).append(argument)
    return overrides + flags


_FLAGS_WITH_VALUE = {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p"}


def main() -> None:
    """The command line. Errors in the config end with one line and exit code 2, other errors with a traceback."""
    if os.environ.get("HYDRA_FULL_ERROR"):
        _job()
        return
    sys.argv[1:] = _overrides_first(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves errors to us instead of printing several lines
    try:
        _job()
    except (Interrupted, KeyboardInterrupt) as stopped:
        print(f"stopped; continue with\n  {_continue_command()}", file=sys.stderr)
        raise SystemExit(stopped.exit_code if isinstance(stopped, Interrupted) else 130) from None
    except (ConfigError, DataError, HydraException, OmegaConfBaseException) as error:
        raise SystemExit(_refuse(error)) from None
    except OSError as error:
        print(
            f"reg_sweep: error: {error}; what was finished stays, continue with {_continue_command()}", file=sys.stderr
        )
        raise SystemExit(1) from None
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


if __name__ == "__main__":
    main()
