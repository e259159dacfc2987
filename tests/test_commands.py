"""Every command that training prints or records, typed again: it does what its sentence says. And names and codes."""

import json
import re
import shlex
import signal
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from commands import IMPORTED, LONGER, ONE, TINY, Command, check_run, last_command, start_train, type_in
from pages import blank_pictures
from waiting import wait_until

from reg_sweep.report import main as report_main
from reg_sweep.runs.reading import Run, read_metrics, read_record, read_runs
from reg_sweep.runs.record import METRICS_FILE, RUN_FILE, WEIGHTS_FILE


def met_with_epochs(folder: Path, pattern: str, n: int, command: Command, number: int) -> tuple[Path, CompletedProcess]:
    """Signals the command once the run whose folder the pattern finds has n epochs; gives that folder, and the end."""

    def found() -> list[Path]:
        return [p.parent for p in folder.glob(f"{pattern}/{METRICS_FILE}") if len(read_metrics(p.parent)) >= n]

    wait_until(lambda: found() or command.code is not None, f"{n} epochs")
    command.send(number)
    done = command.end()
    assert done.returncode == 128 + number, done.stderr
    return found()[0], done


def runs(folder: Path) -> list[Run]:
    return read_runs(folder / "outputs")


# ---- resume


def test_a_forked_command_finds_loaded_what_it_needs(tmp_path):
    """One that loads torch itself takes four times as long, and the fork server leaves out a lost name in silence."""
    wanted = {"torch", *IMPORTED.split()}
    check_run(tmp_path, "-c", f"import sys; lost = {wanted} - set(sys.modules); assert not lost, lost")


@pytest.mark.slow
def test_a_run_without_a_name_is_continued_by_the_command_that_its_end_prints(tmp_path):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\nl2: 0.001\n")
    (tmp_path / "typed here").mkdir()
    own = ["experiment=mine", "--config-dir", "../own", "~model.dropout"]
    child = start_train(tmp_path / "typed here", *TINY, LONGER, "epochs=8", *own)
    run, stopped = met_with_epochs(tmp_path / "typed here", "outputs/*", 2, child, signal.SIGINT)
    done = type_in(tmp_path / "typed here", last_command(stopped))
    assert re.search(r"resuming after epoch [2-7] of 8", done.stdout)
    assert [(r.path, r.status, r.config["l2"]) for r in runs(tmp_path / "typed here")] == [(run, "complete", 0.001)]


@pytest.mark.slow
@pytest.mark.parametrize("sweeper", ["basic", "optuna_study"])
def test_a_sweep_without_a_name_is_continued_by_the_command_that_its_end_prints(tmp_path, sweeper):
    study = ["hydra.sweeper.n_trials=2", "hydra/sweeper/sampler=grid"] if sweeper == "optuna_study" else []
    grid = ["l1=0,0.001", f"hydra/sweeper={sweeper}", *study, "report=false"]
    child = start_train(tmp_path, "-m", *TINY, LONGER, "epochs=4", *grid)
    _, stopped = met_with_epochs(tmp_path, "outputs/*/1", 1, child, signal.SIGTERM)
    before = {r.path: r.status for r in runs(tmp_path)}
    assert list(before.values()) == ["complete", "running"]
    kept = {path: (path / WEIGHTS_FILE).stat().st_mtime_ns for path, s in before.items() if s == "complete"}
    type_in(tmp_path, last_command(stopped))
    assert {r.path: r.status for r in runs(tmp_path)} == dict.fromkeys(before, "complete")
    assert {path: (path / WEIGHTS_FILE).stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
def test_processes_started_at_once_without_a_name_each_have_a_folder_of_their_own(tmp_path):
    children = [start_train(tmp_path, *ONE, f"seed={seed}") for seed in (1, 2, 3)]
    assert [child.end().returncode for child in children] == [0, 0, 0]
    assert sorted(r.seed for r in runs(tmp_path)) == [1, 2, 3]


# ---- run it again


@pytest.mark.slow
def test_a_record_and_a_search_of_a_main_config_of_ones_own_print_commands_that_make_it_again(start, tmp_path, capsys):
    own = tmp_path / "conf of mine"
    own.mkdir()
    (own / "mine.yaml").write_text("defaults: [config, _self_]\noptimizer: {lr: 0.01}\nbatch_size: 25\n")
    typed = ["--config-dir", "conf of mine", "--config-name", "mine", "~model.dropout"]
    arguments = [a for a in ONE if not a.startswith("batch_size")]
    assert start(*arguments, *typed, "name=single") == 0
    assert start("study=l1_search", *arguments, *typed, "hydra.sweeper.n_trials=2", "name=study", "report=false") == 0
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("run it"))
    outputs = tmp_path / "outputs"
    best = json.loads((outputs / "study" / "study.json").read_text())
    winner = min(best["trials"], key=lambda t: t["values"])["number"]
    sources = [("single", "single"), (f"study/{winner}", None), ("study/1", "study/1")]
    for number, (source, recorded) in enumerate(sources):
        command = said.partition(":")[2] if recorded is None else read_record(outputs / recorded)["command"]
        assert start(*shlex.split(command)[3:], f"name=again{number}") == 0
        there, again = (read_record(outputs / name)["config"] for name in (source, f"again{number}"))
        assert {**again, "name": "", "report": True} == {**there, "name": "", "report": True}
        assert (again["optimizer"]["lr"], again["batch_size"], "dropout" in again["model"]) == (0.01, 25, False)


@pytest.mark.slow
@blank_pictures()
def test_what_is_told_to_come_next_does_what_it_says(start, tmp_path, capsys):
    assert start("-m", *ONE, "norm=bn,none", "l1=0.00001") == 0
    said = capsys.readouterr().out
    command = re.search(r"Train more seeds: (python -m reg_sweep.train .*)", said)[1]
    assert start(*shlex.split(command)[3:]) == 0
    assert sorted((r.config["norm"]["name"], r.config["l1"], r.seed) for r in runs(tmp_path)) == sorted(
        (norm, 0.00001, seed) for norm in ("bn", "none") for seed in (1, 2, 3)
    )
    assert start(*ONE) == 0
    command = re.search(r"next +python -m reg_sweep.report (.*)", capsys.readouterr().out)[1]
    assert report_main(shlex.split(command)) == 0
    assert "norm" in (tmp_path / "outputs" / "report" / "index.html").read_text()


# ---- grids


@pytest.mark.slow
def test_a_grid_that_gets_more_seeds_reuses_its_runs_and_mixes_nothing(start, tmp_path, capsys):
    grid = ["-m", *ONE, "norm=bn,none", "name=g", "report=false"]
    assert start(*grid, "seed=1") == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "outputs").rglob("*.safetensors")}
    capsys.readouterr()
    assert start(*grid, "seed=1,2") == 0
    assert capsys.readouterr().out.count("nothing to train") == 2
    assert sorted((r.config["norm"]["name"], r.seed, r.status) for r in runs(tmp_path)) == [
        (norm, seed, "complete") for norm in ("bn", "none") for seed in (1, 2)
    ]
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.slow
def test_two_starts_of_one_grid_both_end_well_and_train_each_run_once(tmp_path):
    grid = ["-m", *ONE, "seed=1,2", "name=g", "report=false"]
    children = [start_train(tmp_path, *grid) for _ in range(2)]
    done = [child.end() for child in children]
    assert [each.returncode for each in done] == [0, 0]
    assert sum(each.stdout.count("complete after 1 epoch") for each in done) == 2
    assert sorted(r.seed for r in runs(tmp_path)) == [1, 2]


# ---- refused


@pytest.mark.slow
def test_a_folder_that_lost_its_record_is_left_alone(start, tmp_path, capfd):
    assert start(*ONE, "name=a") == 0
    folder = tmp_path / "outputs" / "a"
    (folder / RUN_FILE).unlink()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for changed in ([], ["l1=0.5"]):
        capfd.readouterr()
        assert start(*ONE, *changed, "name=a") == 2
        error = capfd.readouterr().err
        assert "without a run.json" in error
        assert "name=..." in error
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_a_refused_study_is_told_the_name_that_helps(start, capfd):
    study = ["study=l1_search", *ONE, "hydra.sweeper.n_trials=2", "report=false"]
    assert start(*study) == 0
    capfd.readouterr()
    assert start(*study, "norm=gbn") == 2
    error = capfd.readouterr().err
    assert "choose another name=..." in error
    assert "study_name" not in error
    assert start(*study, "norm=gbn", "name=another") == 0
