"""Jobs that take turns: one at a time, each with its own state and time."""

import threading

import pytest

from reg_sweep.training import turns
from reg_sweep.training.turns import Turns


def test_a_job_runs_until_it_asks_and_continues_with_the_answer():
    said = []

    def job(name: str) -> str:
        for i in range(2):
            said.append(f"{name} asks {i}")
            said.append(f"{name} hears {turns.current().ask(i)}")
        return name

    both = Turns([], [])
    a, b = both.begin(lambda: job("a")), both.begin(lambda: job("b"))
    assert (a.question, b.question) == (0, 0)
    for answer in ("x", "y"):
        for one in (a, b):
            both.turn(one, answer)
    assert said[:4] == ["a asks 0", "b asks 0", "a hears x", "a asks 1"]
    assert said[4:] == ["b hears x", "b asks 1", "a hears y", "b hears y"]
    assert (a.is_done, a.result, b.result) == (True, "a", "b")
    assert turns.current() is None


def test_an_exception_as_an_answer_is_raised_in_the_job_and_kept_where_it_does_not_catch_it():
    run = Turns([], [])
    job = run.begin(lambda: turns.current().ask("?"))
    run.turn(job, ValueError("no"))
    assert job.is_done
    assert isinstance(job.error, ValueError)


def test_each_job_finds_the_state_as_it_left_it():
    world = {"state": "program's"}
    run = Turns([(lambda: world["state"], lambda value: world.update(state=value))], [])

    def job(own: str) -> str:
        first = world["state"]
        world["state"] = own
        turns.current().ask(None)
        return f"{first} {world['state']}"

    jobs = [run.begin(lambda own=own: job(own)) for own in ("a", "b")]
    assert world["state"] == "program's"
    for one in jobs:
        run.turn(one)
    assert [one.result for one in jobs] == ["program's a", "program's b"]
    assert world["state"] == "program's"


def test_a_jobs_seconds_are_its_own_turns_and_its_share(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("reg_sweep.training.turns.time.perf_counter", lambda: now[0])

    def job(seconds: float) -> float:
        started = turns.seconds()
        now[0] += seconds
        turns.current().ask(None)
        now[0] += seconds
        return turns.seconds() - started

    run = Turns([], [])
    a, b = run.begin(lambda: job(1)), run.begin(lambda: job(10))
    now[0] += 100  # time between turns, which belongs to no job
    for one, share in ((a, 0.25), (b, 0.5)):
        one.add_seconds(share)
        run.turn(one)
    assert (a.result, b.result) == (2.25, 20.5)


@pytest.mark.parametrize("stops", [[], [15]])
def test_jobs_share_the_signals_of_the_thread_that_runs_them(stops):
    from reg_sweep.training.turns import stop_on_signals

    def job() -> list[int]:
        assert threading.current_thread() is not threading.main_thread()
        with stop_on_signals() as caught:
            return list(caught)

    assert Turns([], stops).begin(job).result == stops
