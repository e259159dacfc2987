"""Sources of runs, written by their own programs (`support/foreign_runs.py`): all give the same verdict."""

import gzip
import json
import os
import shutil
import signal
from pathlib import Path

import foreign_runs
import pytest
from trees import design_of, write_run, write_study

from reg_sweep.comparison.compare import make_comparisons
from reg_sweep.comparison.results import Result, result, strangers
from reg_sweep.loop.ledger import Ledger
from reg_sweep.readers import servers, stores
from reg_sweep.readers.catches import caught
from reg_sweep.readers.choose import Choice, choose
from reg_sweep.readers.folders import plain_arguments
from reg_sweep.readers.foreign import ForeignRun, ReadError, Wanted
from reg_sweep.readers.sources import find_foreign
from reg_sweep.runs.reading import read_run
from reg_sweep.stats.candidate import Rules
from reg_sweep.stats.judge import judge
from reg_sweep.stats.judgement import Finding

DATA = Path(__file__).parent / "data"
WRITTEN_HERE = ("csv", "hydra", "records")
KEPT = sorted(path.name for path in DATA.iterdir())
SCORES = {(method, seed): scores for method, seed, scores in foreign_runs.runs()}


def placed(kind: str, folder: Path) -> Path:
    """The files of a kind, in a folder of their own; packed databases are unpacked."""
    if kind in WRITTEN_HERE:
        foreign_runs.main(folder, [kind])
    else:
        shutil.copytree(DATA / kind, folder / kind)
    for path in (folder / kind).rglob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    return folder / kind


def read(*roots: Path, **wanted: object) -> Choice:
    asked = Wanted(**wanted)
    return caught(choose(find_foreign(roots, asked).runs, asked))


def finding(results: list[Result]) -> Finding:
    (table,) = make_comparisons(results, margin=0.01)
    (found,) = table.judgement.arms.values()
    return found


def expected() -> Finding:
    scores = {m: {s: its[-1] for (method, s), its in SCORES.items() if method == m} for m in ("base", "new")}
    return judge(scores, "base", margin=0.01).arms["new"]


@pytest.mark.parametrize("kind", [*KEPT, *WRITTEN_HERE])
def test_the_same_scores_give_the_same_verdict_from_every_source(kind, tmp_path):
    choice = read(placed(kind, tmp_path))
    assert repr(finding(strangers(choice, kind))) == repr(expected())  # to the last digit
    assert not choice.problems
    assert choice.notes == []


def test_this_projects_own_records_give_the_same_verdict(tmp_path):
    own = [
        write_run(tmp_path / f"{method}-{seed}", norm={"base": "bn", "new": "gn"}[method], seed=seed, accuracy=its[-1])
        for (method, seed), its in SCORES.items()
    ]
    assert repr(finding([result(read_run(folder)) for folder in own])) == repr(expected())


@pytest.mark.parametrize("kind", sorted({*KEPT, *WRITTEN_HERE} - {"parquet", "hydra", "optuna", "optuna_journal"}))
def test_histories_are_read_from_every_source_that_keeps_them(kind, tmp_path):
    choice = read(placed(kind, tmp_path))
    histories = [r.run.history[choice.score.name].values.tolist() for r in choice.runs]
    assert dict(zip([(*r.arm.values(), r.seed) for r in choice.runs], histories, strict=True)) == SCORES


def test_sources_are_mixed_freely(tmp_path):
    mixed = tmp_path / "mixed"
    for kind, method in (("tensorboard", "base"), ("wandb", "new")):
        placed(kind, mixed)
        for run in find_foreign([mixed / kind], Wanted()).runs:
            if run.settings["method"] != method:
                shutil.rmtree(run.path if run.path.is_dir() else run.path.parent)
    assert repr(finding(strangers(read(mixed), "mixed"))) == repr(expected())


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("mysql://me:Zqpw@127.0.0.1:1/x", "mysql://127.0.0.1:1/x: needs the driver of its database: pip install"),
        ("foo://me:Zqpw@host/x", "foo://host/x: must be an Optuna storage that answers (it must begin with"),
        ("rediss://:Zqpw@host/0", "rediss://host/0: a Redis journal holds pickled snapshots, which are never loaded"),
        ("redis://host", "redis://host: a Redis journal holds pickled snapshots, which are never loaded"),
    ],
)
def test_an_address_that_cant_be_read_is_refused_without_its_password(address, said):
    with pytest.raises(ReadError) as error:
        find_foreign([address], Wanted())
    assert str(error.value).startswith(said)
    assert "Zqpw" not in str(error.value)


@pytest.mark.parametrize("name", ["study.json", "a.csv", "a.db", "a.log", "a.wandb", "events.out.tfevents.1", "a.yaml"])
def test_a_pipe_is_never_waited_for(name, tmp_path):
    """Named itself it is refused; in a folder it costs a line, or nothing where its name promises no runs."""
    os.mkfifo(tmp_path / name)
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waits for a pipe"))
    signal.alarm(60)
    try:
        with pytest.raises(ReadError, match="must be a regular file"):
            find_foreign([tmp_path / name], Wanted())
        found = find_foreign([tmp_path], Wanted())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert found.runs == []
    assert all("must be a regular file" in problem for problem in found.problems)
    assert bool(found.problems) == (name not in ("a.log", "a.yaml"))


def test_a_storage_with_too_many_runs_is_refused_and_not_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "MAX_RUNS", 5)
    with pytest.raises(ReadError, match="must have at most 5 runs, got more"):
        find_foreign([placed("mlflow_db", tmp_path) / "mlflow.db"], Wanted())


# The trials of a search, and those of the confirmation of x = 0 against x = 1.
SEARCHED = [{"params": {"x": x}, "values": [9.0]} for x in (0.0, 1.0)]
CONFIRMED = [{"params": {"x": x, "seed": s}, "values": [(x == 0) / 5 + s / 8]} for x in (0.0, 1.0) for s in (1, 2)]
DESIGN = design_of("tour_length", [2], [{"x": 0.0}, {"x": 1.0}], variance="plain")


def in_files(folder: Path) -> list[Path]:
    write_study(folder, SEARCHED, kind="search")
    write_study(folder / "confirm", CONFIRMED, kind="until_verdict", design=DESIGN, looks=[])
    return [folder]


def in_storage(folder: Path) -> list[Path]:
    import optuna

    storage = f"sqlite:///{folder / 'studies.db'}"
    own = {"reg_sweep": {}, "searcher": "TPESampler and NopPruner"}
    for name, trials, marks in (("it", SEARCHED, own), ("it_confirm", CONFIRMED, own | {"looks": []})):
        study = optuna.create_study(study_name=name, storage=storage)
        with pytest.warns(optuna.exceptions.ExperimentalWarning):
            study.set_metric_names(["tour_length"])
        for key, value in marks.items():
            study.set_user_attr(key, value)
        for n, trial in enumerate(trials, 1):
            spread = {k: optuna.distributions.FloatDistribution(0, 9) for k in trial["params"]}
            known = {"params": trial["params"], "value": trial["values"][0], "distributions": spread}
            study.add_trial(optuna.trial.create_trial(**known, user_attrs={} if "seed" in spread else {"seed": n}))
    return [folder / "studies.db"]


@pytest.mark.parametrize("write", [in_files, in_storage])
def test_a_searchs_trials_never_enter_a_table_that_a_confirmation_judges(tmp_path, write):
    found = find_foreign(write(tmp_path), Wanted())
    assert len(found.runs) == 4
    assert any("2 trials of a search are left out of the comparison" in problem for problem in found.problems)
    scored = {(r.arm["x"], r.seed): r.value for r in caught(choose(found.runs, Wanted(arms=("x",)))).runs}
    assert scored == {(t["params"]["x"], t["params"]["seed"]): t["values"][0] for t in CONFIRMED}
    assert {name for run in found.runs for name in run.scores} == {"tour_length (minimized)"}  # the name says no way


def test_an_address_of_both_is_read_alike(tmp_path):
    (path,) = in_storage(tmp_path)
    runs = [
        [(r.settings, r.scores, r.is_trial) for r in read]
        for read in (servers.address_runs(f"sqlite:///{path}")[1], stores.sqlite_runs(path)[1])
    ]
    assert runs[0] == runs[1]
    assert [is_trial for _, _, is_trial in runs[0]] == [True] * 2 + [False] * 4


def test_two_programs_logs_of_the_same_runs_are_asked_about(tmp_path):
    folder = placed("tensorboard", tmp_path)
    for own in folder.iterdir():
        shutil.copy(DATA / "lightning/lightning_logs/version_0/metrics.csv", own)
        shutil.copy(DATA / "lightning/lightning_logs/version_0/hparams.yaml", own)
    with pytest.raises(ReadError, match=r"two ways, as lightning \(6 runs\) or tensorboard \(6 runs\): say which"):
        read(folder)
    assert len(read(folder, source="tensorboard").runs) == 6


def test_a_search_of_another_tracker_beside_own_runs_is_named_and_left_out(tmp_path):
    placed("tensorboard", tmp_path)
    write_run(tmp_path / "own")
    found = find_foreign([tmp_path], Wanted())
    assert found.runs == []
    assert "left out, since it lies beside runs of reg_sweep" in found.problems[0]


def test_a_loops_ledger_is_no_table_and_its_page_is_named(tmp_path):
    ledger = tmp_path / "loop.jsonl"
    Ledger.begin(ledger, score="val_loss", rules=Rules(higher_is_better=False))
    write_run(tmp_path / "own")
    (told,) = find_foreign([tmp_path], Wanted()).problems
    assert told.endswith(f"to write its page, type python -m reg_sweep.loop report {ledger}")
    with pytest.raises(ReadError, match="which has judged its own: to write"):
        find_foreign([ledger], Wanted())


def test_the_storage_of_a_search_beside_its_own_study_json_is_not_named_as_left_out(tmp_path):
    place = placed("optuna", tmp_path)
    write_run(tmp_path / "own")
    assert len(find_foreign([tmp_path], Wanted()).problems) == 1
    (place / "study.json").write_text("{}")
    assert not any("study.db" in problem for problem in find_foreign([tmp_path], Wanted()).problems)


def test_a_runs_arguments_are_found_in_a_pickle_that_is_never_loaded():
    found = plain_arguments(DATA / "huggingface/new-3/training_args.bin")
    assert (found["seed"], found["learning_rate"]) == (3, 0.125)


def test_an_optuna_storage_is_read_by_its_address_too(tmp_path):
    address = f"sqlite:///{placed('optuna', tmp_path) / 'study.db'}"
    found = servers.address_runs(address)[1], find_foreign([address], Wanted()).runs
    by_address, by_file = ([(r.settings, r.scores) for r in runs] for runs in found)
    assert by_address == by_file


# ---- what becomes of a run


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_a_log_without_its_end_is_unfinished(kind, tmp_path):
    """A run cut off in its last record: W&B's crashed, TensorBoard's is still running."""
    folder = placed(kind, tmp_path)
    cut = find_foreign([folder], Wanted()).runs[0]
    path = cut.path if cut.path.is_file() else next(cut.path.iterdir())
    path.write_bytes(path.read_bytes()[:-20])
    runs: list[ForeignRun] = find_foreign([folder], Wanted()).runs
    assert {run.status for run in runs} == {"complete", {"tensorboard": "running", "wandb": "failed"}[kind]}
    assert len(runs) == 6


def test_mlflows_failed_runs_are_failed_and_deleted_ones_are_none(tmp_path):
    folder = placed("mlflow", tmp_path)
    metas = sorted(folder.glob("mlruns/*/*/meta.yaml"))
    metas[0].write_text(metas[0].read_text().replace("status: 3", "status: 4"))
    metas[1].write_text(metas[1].read_text().replace("lifecycle_stage: active", "lifecycle_stage: deleted"))
    assert sorted(run.status for run in find_foreign([folder], Wanted()).runs) == ["complete"] * 4 + ["failed"]


def test_a_trainer_that_did_not_reach_its_steps_is_running(tmp_path):
    folder = placed("huggingface", tmp_path)
    path = folder / "new-1" / "trainer_state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_steps": 99}))
    (cut,) = [run for run in find_foreign([folder], Wanted()).runs if run.status == "running"]
    assert cut.message == "it ends at step 30 of 99"


def test_a_hydra_job_without_its_metrics_file_failed(tmp_path):
    folder = placed("hydra", tmp_path)
    (folder / "multirun/0/metrics.json").unlink()
    runs = find_foreign([folder], Wanted(metrics_file="metrics.json")).runs
    status_of = {(run.settings["method"], run.settings["seed"]): run.status for run in runs}
    assert status_of == {run: "failed" if run == ("base", 1) else "complete" for run in SCORES}
