"""reg-sweep-loop: exit codes for programs, one-line errors, and a ledger that loses nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import at_once

from reg_sweep.loop.__main__ import main
from reg_sweep.loop.ledger import Ledger

KEEP, DISCARD, RUN, ERROR = 0, 1, 2, 3


def loop(*words, code):
    """Runs the command in this process; it must end with this exit code."""
    try:
        ended = main([str(word) for word in words])
    except SystemExit as error:  # argparse's
        ended = error.code
    assert ended == code, words


def shell(script):
    return ["--", "sh", "-c", script]


def tried(change, script, ledger, *options, code):
    """Tries a change with a program given as a shell command."""
    loop("try", ledger, "--change", change, *options, *shell(script), code=code)


@pytest.fixture
def begun(tmp_path):
    """A new loop, in which higher is better."""
    ledger = tmp_path / "loop.jsonl"
    loop("init", ledger, "--score", "acc", "--higher", "--margin", "0.5", code=KEEP)
    return ledger


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The bytes of a ledger whose baseline the command has measured: seed 7 scored 1.7, seed 12 scored 1.12."""
    ledger = tmp_path_factory.mktemp("measured") / "loop.jsonl"
    loop("init", ledger, "--score", "acc", "--higher", "--margin", "0.5", code=KEEP)
    loop("baseline", ledger, *shell("echo 1.{seed}"), code=KEEP)
    return ledger.read_bytes()


@pytest.fixture
def ledger(measured, tmp_path):
    """A loop whose baseline is measured."""
    path = tmp_path / "loop.jsonl"
    path.write_bytes(measured)
    return path


def entries(ledger):
    return [json.loads(line) for line in ledger.read_text().splitlines()]


def only_line(capsys):
    """The one line that the command printed on stderr."""
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


# ---- complete loops


def test_a_loop_from_init_to_report(ledger, capsys):
    tried("worse", "echo 0.{seed}", ledger, code=DISCARD)
    tried("better", "echo 9.{seed}", ledger, code=KEEP)
    said = capsys.readouterr().out
    assert "discard worse: no prospect of being shown better after 2 seeds: -1 (" in said
    assert "keep better: better after" in said
    loop("status", ledger, "--json", code=KEEP)
    status = json.loads(capsys.readouterr().out)
    assert (status["kept"], status["tried"], status["baseline"]["change"]) == (["better"], 2, "better")
    assert status["path"][-1]["gain"] == pytest.approx(8.0)
    assert status["runs"]["baselines"] == 28
    loop("status", ledger, code=KEEP)
    assert "gained     +8 (" in capsys.readouterr().out
    loop("report", ledger, code=KEEP)
    page = ledger.with_name("loop.jsonl.html").read_text()
    assert "2 changes tried, 1 kept" in page
    assert page.count("<svg") == page.count('aria-label="Figure"><svg') == 2  # a figure that is too wide scrolls
    assert "difference (above 0 is better)" in page


def test_a_program_that_runs_things_itself_follows_the_exit_codes(ledger, capsys):
    code, n = RUN, 0
    answer = None
    while code == RUN:
        words = ["--seed", answer["seed"], "--score", 9 + answer["seed"] / 100] if answer else []
        code = main([str(w) for w in ("record", ledger, "--change", "better", "--json", *words)])
        answer, n = json.loads(capsys.readouterr().out), n + 1
    assert (code, answer["verdict"]) == (KEEP, "keep")
    loop("record", ledger, "--change", "next", "--json", code=RUN)
    assert json.loads(capsys.readouterr().out)["change"] == "baseline"
    loop("record", ledger, "--change", "next", "--seed", 15, "--score", 1, code=ERROR)
    assert "measured first: record seed 1 of --change baseline" in only_line(capsys)
    for seed in (1, 2, 3, 4, *range(15, 24)):
        loop("record", ledger, "--change", "baseline", "--seed", seed, "--score", 9 + seed / 100, code=RUN)
    loop("record", ledger, "--change", "baseline", "--seed", 24, "--score", 9.5, code=KEEP)
    failed = ["--failed", "out of memory", "--seed", first_seed(ledger, "bad")]
    loop("record", ledger, "--change", "bad", *failed, code=DISCARD)


def first_seed(ledger, change):
    return Ledger(ledger).loop.ask(change).seed


def test_the_same_code_is_answered_from_the_ledger_and_runs_nothing(ledger, tmp_path):
    tried("worse", "echo 0.{seed}", ledger, "--digest", "abc", code=DISCARD)
    before = ledger.read_bytes()
    tried("same code", f"touch {tmp_path}/ran; echo 9{{seed}}", ledger, "--digest", "abc", code=DISCARD)
    assert ledger.read_bytes() == before
    assert not (tmp_path / "ran").exists()


def test_not_worse_keeps_what_is_simpler(ledger):
    tried("simpler", "echo 0.99{seed}", ledger, code=DISCARD)
    tried("simpler", "echo 1.{seed}", ledger, "--question", "not_worse", code=KEEP)


# ---- sources of the score


@pytest.mark.parametrize(
    ("where", "script"),
    [
        ("last", "echo noise; echo; echo val_acc: 0.{seed}"),
        ("regex:acc=([0-9.]+)", "echo acc=9; echo acc=0.{seed} done"),
        ("json:out-{seed}.json:last.acc", 'echo "{\\"last\\": {\\"acc\\": 0.{seed}}}" > out-{seed}.json'),
        ("json:same.json:accs.0", 'echo "{\\"accs\\": [0.{seed}]}" > same.json'),
    ],
)
def test_a_score_is_read_from_the_last_line_a_json_file_or_a_pattern(where, script, ledger, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loop("try", ledger, "--change", "c", "--score-from", where, *shell(script), code=DISCARD)
    runs = [entry for entry in entries(ledger) if entry.get("change") == "c"]
    assert [run["score"] for run in runs] == [float(f"0.{run['seed']}") for run in runs]


@pytest.mark.parametrize(
    ("options", "script", "says"),
    [
        ([], "true {seed}", "must print a score, got nothing for seed"),
        ([], "echo oops {seed} done", "must be a number, got 'done'"),
        (["--score-from", "regex:acc=(.*)"], "echo {seed}", "has no match of 'acc=(.*)'"),
        (["--score-from", "regex:("], "echo {seed}", "--score-from must have a valid regular expression"),
        (["--score-from", "csv:x"], "echo {seed}", "must be last, json:FILE:KEY or regex:PATTERN"),
        (["--score-from", "json:none.json:acc"], "echo {seed}", "must write none.json, got no such file"),
        (["--score-from", "json:old.json:acc"], "echo {seed}", "got one that was there before it"),
        (["--score-from", "json:new.json:acc"], "echo {seed} > new.json", "must be JSON with a number at acc"),
        ([], "echo 1", "no {seed} in it"),
        ([], "exit 127 # {seed}", "is not found"),
        ([], "kill -TERM $$ # {seed}", "was stopped (SIGTERM): the same command resumes it"),
    ],
)
def test_a_program_that_tells_no_score_is_an_error_and_no_answer(
    options, script, says, ledger, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("old.json").write_text('{"acc": 1}')
    before = ledger.read_bytes()
    loop("try", ledger, "--change", "c", *options, *shell(script), code=ERROR)
    assert says in only_line(capsys)
    assert ledger.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "script", "reason"),
    [
        ([], "echo at {seed}; echo CUDA out of memory >&2; exit 7", "exit status 7 (CUDA out of memory) on seed"),
        ([], "kill -KILL $$ # {seed}", "killed by SIGKILL on seed"),
        ([], "echo nan {seed} nan", "diverged on seed"),
        (["--timeout", "0.2"], "exec sleep 60{seed}", "not done after 0.2 s on seed"),
    ],
)
def test_a_change_that_fails_is_discarded_with_the_reason(options, script, reason, ledger, capsys):
    loop("try", ledger, "--change", "c", *options, *shell(script), code=DISCARD)
    assert reason in capsys.readouterr().out
    assert reason in Ledger(ledger).loop.candidates[-1].reason


def test_a_baseline_that_fails_is_an_error_unless_told_that_it_may(begun, capsys):
    script = shell("[ {seed} != 6 ] && echo 1.{seed}")
    loop("baseline", begun, *script, code=ERROR)
    assert "the baseline must run, got exit status 1 on seed 6: fix it, or add --skip-failed" in only_line(capsys)
    assert len(entries(begun)) == 6
    loop("baseline", begun, "--skip-failed", *script, code=KEEP)
    assert Ledger(begun).loop.baseline.lost.keys() == {6}


# ---- wrong arguments


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["record", "{ledger}", "--change", "c", "--seed", "999", "--score", "1"], "seed must be one that was asked"),
        (["record", "{ledger}", "--change", "c", "--seed", "5", "--score", "high"], "must be a number, got 'high'"),
        (["record", "{ledger}", "--change", "c", "--seed", "5"], "needs either --score X or --failed REASON"),
        (["record", "{ledger}", "--change", "c", "--score", "1"], "needs the --seed"),
        (["status", "{ledger}", "--change", "unknown"], "must be one that was tried, got 'unknown'"),
        (["status", "{ledger}", "--gain", "-1"], "--gain must be above 0"),
        (["status", "{folder}"], "must be a ledger, got a directory"),
        (["status", "{folder}/none"], "got no file: begin one with"),
        (["report", "{ledger}", "--out", "{folder}/none/x.html"], "can't be written: No such file"),
        (["try", "{ledger}", "--change", "c"], "a command must follow --"),
        (["try", "{ledger}", "--change", "baseline", "--", "{seed}"], "--change must not be 'baseline'"),
        (["try", "{ledger}", "--change", "c", "--", "no-such-program-{seed}"], "can't be started: No such file"),
        (["init", "{ledger}", "--score", "loss", "--higher"], "score must be 'acc', as in the loop that"),
        (["init", "{ledger}", "--score", "acc", "--lower"], "holds, got False: name another file"),
        (["init", "{folder}/new", "--score", "acc", "--lower", "--error", "2"], "error must be above 0 and below 0.5"),
        (["init", "{folder}/none/new", "--score", "acc", "--lower"], "can't be written: No such file"),
        (["initialize"], "invalid choice"),
        (["init", "{folder}/new", "--score", "acc"], "--lower --higher is required"),
    ],
)
def test_what_is_typed_wrong_is_one_line_and_exit_code_3(words, says, ledger, capsys):
    capsys.readouterr()
    before = ledger.read_bytes()
    loop(*(word.format(ledger=ledger, folder=ledger.parent, seed="{seed}") for word in words), code=ERROR)
    assert says in only_line(capsys)
    assert ledger.read_bytes() == before


def test_a_gain_needs_a_baseline_that_is_measured_and_whose_scores_differ(begun, capsys):
    loop("baseline", begun, *shell("[ {seed} -lt 6 ] && echo 1 || kill $$"), code=ERROR)
    capsys.readouterr()
    loop("status", begun, "--gain", "1", code=ERROR)
    assert "got 9 of its runs missing: run reg-sweep-loop baseline" in only_line(capsys)
    loop("baseline", begun, *shell("echo 1 # {seed}"), code=KEEP)
    capsys.readouterr()
    loop("status", begun, "--gain", "1", code=ERROR)
    assert "got one score on all seeds: does its command use {seed}?" in only_line(capsys)
    loop("status", begun, code=KEEP)


def test_another_change_waits_until_the_kept_one_is_measured(ledger, capsys):
    tried("better", "[ {seed} -lt 15 ] && [ {seed} -gt 4 ] && echo 9.{seed} || kill $$", ledger, code=ERROR)
    capsys.readouterr()
    tried("next", "echo 9.{seed}", ledger, code=ERROR)
    assert "the kept change 'better' must be measured first" in only_line(capsys)
    tried("better", "echo 9.{seed}", ledger, code=KEEP)
    tried("next", "echo 9.{seed}", ledger, code=DISCARD)


# ---- kills, torn lines, two at once, a full disk


@pytest.mark.slow
def test_a_killed_try_resumes_with_the_same_command(ledger, tmp_path):
    script = f"[ -e {tmp_path}/go ] && exec echo 9.{{seed}}; touch {tmp_path}/waits; exec sleep 60"
    words = [sys.executable, "-m", "reg_sweep.loop", "try", str(ledger), "--change", "c", *shell(script)]
    before = ledger.read_bytes()
    running = subprocess.Popen(words, start_new_session=True)
    while not (tmp_path / "waits").exists():
        assert running.poll() is None
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert ledger.read_bytes() == before
    (tmp_path / "go").touch()
    assert subprocess.run(words, check=False, stdout=subprocess.DEVNULL).returncode == KEEP


@pytest.mark.parametrize("end", range(1, 80, 13))
def test_a_torn_last_line_says_nothing_and_is_ended_by_the_next(end, ledger, capsys):
    whole = ledger.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    ledger.write_bytes(whole[: last + end])
    assert Ledger(ledger).loop.baseline.missing == [14]
    loop("baseline", ledger, *shell("echo 1.{seed}"), code=KEEP)
    assert ledger.read_bytes().startswith(whole[: last + end] + b"\n")
    loop("status", ledger, code=KEEP)
    assert "torn       lines 15: left by a killed program" in capsys.readouterr().out
    assert Ledger(ledger).loop.baseline.scores[14] == 1.14


def test_a_last_line_that_lacks_only_its_end_counts(ledger):
    ledger.write_bytes(ledger.read_bytes().rstrip(b"\n"))
    loop("record", ledger, "--change", "c", "--seed", first_seed(ledger, "c"), "--score", "1", code=RUN)
    assert len(entries(ledger)) == 16


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda lines: ["", *lines], "line 1 is damaged"),
        (lambda lines: ["PNG", *lines], "line 1 is damaged"),
        (lambda lines: ['{"a": 1}', *lines], "got another file"),
        (lambda lines: [lines[0].replace('"format": 1', '"format": 99'), *lines[1:]], "must have format 1, got 99"),
        (
            lambda lines: [lines[0].replace('"error": 0.05', '"error": "x"'), *lines[1:]],
            "line 1, must hold valid rules, got invalid ones (",
        ),
        (
            lambda lines: [lines[0].replace('"score"', '"no"'), *lines[1:]],
            "got invalid ones (no 'score'): restore the file",
        ),
        (lambda lines: [*lines[:5], "garbage", *lines[5:]], "line 6 is damaged"),
        (lambda lines: [*lines[:5], *lines[4:]], "line 6 contradicts the lines before it"),
        (lambda lines: [*lines, '{"change": "c", "seed": [], "score": 1}'], "line 16 contradicts"),
        (lambda lines: [*lines, '{"seed": 5, "score": 1}'], "line 16 contradicts"),
    ],
)
def test_a_damaged_ledger_is_named_by_its_line_and_left_as_it_is(damage, says, ledger, capsys):
    ledger.write_text("\n".join(damage(ledger.read_text().splitlines())) + "\n")
    before = ledger.read_bytes()
    capsys.readouterr()
    loop("try", ledger, "--change", "c", *shell("echo 9.{seed}"), code=ERROR)
    assert says in only_line(capsys)
    assert ledger.read_bytes() == before


def test_a_full_disk_is_one_line_and_the_ledger_as_it_was(ledger, capsys, monkeypatch):
    before = ledger.read_bytes()
    seed = first_seed(ledger, "c")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    capsys.readouterr()
    loop("record", ledger, "--change", "c", "--seed", seed, "--score", "1", code=ERROR)
    assert "can't be written: No space left on device" in only_line(capsys)
    assert ledger.read_bytes() == before


def test_two_programs_at_once_lose_nothing(ledger):
    changes = [f"change {i % 3}" for i in range(6)]
    at_once(lambda: tried(changes.pop(), "echo 0.{seed}", ledger, code=DISCARD), 6)
    assert sorted(c.change for c in Ledger(ledger).loop.candidates) == ["change 0", "change 1", "change 2"]


def test_names_that_are_no_text_and_markup_reach_the_page_harmlessly(ledger):
    tried("<script>alert(1)</script> \udcff λ", "echo 0.{seed}", ledger, code=DISCARD)
    loop("report", ledger, code=KEEP)
    assert "<script>" not in ledger.with_name("loop.jsonl.html").read_text(encoding="utf-8")


def test_a_page_of_a_loop_that_has_just_begun(begun):
    loop("report", begun, code=KEEP)
    assert "0 changes tried" in begun.with_name("loop.jsonl.html").read_text()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
@pytest.mark.parametrize(
    ("redirect", "code", "error"),
    [
        (">&-", KEEP, ""),
        (">/dev/full", ERROR, "reg-sweep-loop: [Errno 28] No space left on device\n"),
        ("2>&-", KEEP, ""),
    ],
)
def test_an_answer_that_cannot_be_printed_is_an_error_of_one_line(tmp_path, redirect, code, error):
    words = [sys.executable, "-W", "error", "-m", "reg_sweep.loop", "init", "a.jsonl", "--score", "loss", "--lower"]
    done = subprocess.run(["sh", "-c", f'"$0" "$@" {redirect}', *words], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, error)
    assert "loss" in (tmp_path / "a.jsonl").read_text()
