"""The trials that a process runs next: new ones, requeued ones, and those of processes that died."""

import os
import socket
import threading
import time

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from toy_apps import plan_of, states
from waiting import at_once

from reg_sweep.search.optuna_internals import frozen
from reg_sweep.search.storage import open_storage
from reg_sweep.search.trial import JobError, JobTrial
from reg_sweep.search.trial_queue import TrialQueue, ask_within

QUICK = {"heartbeat_interval": 0.01, "grace_period": 0.05}


@pytest.fixture
def queue_of():
    """A queue over a study, as one more process would have it: it shares the storage and the lock alone."""
    return lambda study, **settings: TrialQueue(study, plan_of("x=interval(0, 1)", **settings))


@pytest.fixture(params=["study.db", "study.log"])
def study(request, tmp_path):
    """A study in each kind of file that a sweep may use: in memory, Optuna never hands a returned trial out again."""
    is_database = request.param == "study.db"
    location = request.getfixturevalue("database") if is_database else str(tmp_path / request.param)
    return optuna.create_study(storage=open_storage(location))


def begun(trial, attempt=1, **facts):
    trial.set_user_attr("job", {"attempt": attempt, "beat": 1.0, **facts})


def take_one(queue):
    (trial,) = queue.take().trials
    return trial


def test_a_queue_gives_exactly_as_many_trials_as_the_study_has(queue_of, study):
    queue = queue_of(study, n_trials=5)
    assert [[t.number for t in queue.take(2).trials] for _ in range(4)] == [[0, 1], [2, 3], [4], []]
    assert queue.take().others_run
    for number in range(5):
        study.tell(number, 0.0)
    batch = queue.take()
    assert (batch.trials, batch.others_run) == ([], False)
    assert len(study.trials) == 5


def test_queues_that_take_at_the_same_time_never_make_a_trial_too_many(queue_of, database):
    """Each has a connection of its own, as processes do; the lock is all that keeps them from the last trial twice."""
    optuna.create_study(study_name="it", storage=open_storage(database))
    taken = []

    def work():
        queue = queue_of(optuna.load_study(study_name="it", storage=open_storage(database)), n_trials=7)
        while trials := queue.take().trials:
            taken.extend(t.number for t in trials)

    at_once(work, 4)
    assert sorted(taken) == list(range(7))


def test_no_worker_waits_while_trials_are_left(queue_of, database):
    """20 trials of tenfold uneven length on 4 workers, by a simulated clock."""
    optuna.create_study(study_name="it", storage=open_storage(database))
    study = optuna.load_study(study_name="it", storage=open_storage(database))
    lengths = [10, 1, 2, 9, 3, 1, 8, 4, 2, 7, 5, 1, 6, 3, 10, 2, 1, 4, 1, 5]
    free = [(0, worker, queue_of(study, n_trials=20)) for worker in range(4)]
    spans, running = [], {}
    while free:
        now, worker, queue = free.pop(free.index(min(free, key=lambda item: item[:2])))
        if worker in running:
            study.tell(running.pop(worker), 0.0)
        trials = queue.take().trials
        for trial in trials:
            running[worker] = trial.number
            spans.append((now, now + lengths[trial.number]))
            free.append((now + lengths[trial.number], worker, queue))
    last = max(begin for begin, _ in spans)
    assert len(spans) == 20
    assert sum(min(end, last) - begin for begin, end in spans) == 4 * last  # all four are busy until it begins


def test_a_trial_given_back_is_the_next_one_with_its_parameters_and_reports(queue_of, study):
    queue = queue_of(study, n_trials=2)
    first = take_one(queue)
    begun(first)
    first.report(0.5, 1)
    queue.requeue([first])
    assert study.trials[0].state == TrialState.WAITING
    again = take_one(queue)
    assert (again.number, again.params) == (first.number, first.params)
    assert study.trials[0].intermediate_values == {1: 0.5}
    assert study.trials[0].user_attrs["job"] == {"attempt": 1}
    assert take_one(queue).number == 1
    assert queue.take().trials == []


def test_a_finished_trial_is_not_given_back(queue_of, study):
    queue = queue_of(study)
    trial = take_one(queue)
    study.tell(trial, 1.0)
    queue.requeue([trial])
    assert study.trials[0].state == TrialState.COMPLETE


def test_a_silent_trial_is_taken_over_before_a_new_one_begins(queue_of, study):
    dead = study.ask({"x": FloatDistribution(0, 1)})
    begun(dead)
    queue = queue_of(study, n_trials=3, **QUICK)
    assert take_one(queue).number == 1  # the queue has only now heard of the other, which may be alive
    study.tell(1, 0.0)
    time.sleep(0.1)
    again = take_one(queue)
    assert (again.number, again.params) == (0, dead.params)
    assert study.trials[0].user_attrs["job"] == {"attempt": 2}


def test_a_process_that_wakes_up_learns_that_its_trial_was_taken_over(queue_of, study):
    asleep = JobTrial(study.ask({"x": FloatDistribution(0, 1)}))
    asleep.begin("0")
    queue = queue_of(study, **QUICK)
    queue.take()
    time.sleep(0.1)
    assert take_one(queue).number == 0
    asleep.beat("0")
    assert asleep.taken_over


def test_a_heartbeat_of_a_queued_job_does_not_hide_that_the_job_has_begun_meanwhile(study, monkeypatch):
    asked = study.ask({"x": FloatDistribution(0, 1)})
    queued, job = JobTrial(asked), JobTrial(asked)
    begins = threading.Thread(target=job.begin, args=("0",))

    def read(trial):
        now = frozen(trial)
        begins.start()
        begins.join(0.5)  # which it does not within this time, for the heartbeat holds the study's lock
        return now

    monkeypatch.setattr("reg_sweep.search.trial.frozen", read)
    queued.beat()
    begins.join()
    assert study.trials[0].user_attrs["job"]["directory"] == "0"


def test_a_trial_that_was_just_taken_over_is_not_taken_over_again(queue_of, study):
    """Two processes watch a trial that died before its first heartbeat; one takes it over and has yet to begin it."""
    study.ask({"x": FloatDistribution(0, 1)})
    first, second = queue_of(study, n_trials=1, **QUICK), queue_of(study, n_trials=1, **QUICK)
    assert first.take().trials == second.take().trials == []
    time.sleep(0.1)
    assert take_one(first).number == 0
    assert second.take().trials == []
    assert study.trials[0].user_attrs["job"] == {"attempt": 2}


def taken_over_from(queue_of, study):
    """A process that was silent and lives, and the same trial in the hands of another one's queue, not begun yet."""
    asleep = JobTrial(study.ask({"x": FloatDistribution(0, 1)}))
    asleep.begin("0")
    queue = queue_of(study, n_trials=1, **QUICK)
    queue.take()
    time.sleep(0.1)
    return asleep, queue, take_one(queue)


def test_the_late_result_of_a_silent_process_is_the_trials_and_the_other_attempt_ends_quietly(queue_of, study):
    asleep, queue, again = taken_over_from(queue_of, study)
    other = JobTrial(again)
    other.begin("0")
    asleep.report(0.5, 1)
    asleep.finish(2.0)
    other.report(0.7, 2)
    assert not other.should_prune()
    other.finish(3.0)
    other.finish(error="it broke")
    queue.fail(again, "the job ended without a result")
    queue.requeue([again])
    assert (states(study), study.trials[0].value, study.trials[0].user_attrs.get("error")) == (["COMPLETE"], 2.0, None)


def test_a_late_result_that_comes_before_the_next_attempt_begins_is_taken(queue_of, study):
    asleep = JobTrial(study.ask({"x": FloatDistribution(0, 1)}))
    asleep.begin("0")
    queue = queue_of(study, n_trials=1, **QUICK)
    queue._take_over(study.trials[0], "silent")
    assert states(study) == ["WAITING"]
    asleep.finish(2.0)
    assert states(study) == ["COMPLETE"]
    assert queue.take().trials == []


def test_what_fails_in_a_process_that_was_taken_for_dead_leaves_the_trial_to_the_other(queue_of, study):
    asleep, _, again = taken_over_from(queue_of, study)
    with pytest.raises(JobError):
        asleep.finish(error="it broke")
    first = queue_of(study)
    first._attempts[0] = 1
    first.fail(again, "the job ended without a result")
    assert states(study) == ["RUNNING"]
    JobTrial(again).finish(1.0)
    assert states(study) == ["COMPLETE"]


def test_no_trial_is_made_beyond_the_plan_also_by_a_process_whose_lock_was_lost(database):
    """A server that restarts frees every lock: the number is checked where the trial is made."""
    study = optuna.create_study(study_name="it", storage=open_storage(database))
    other = optuna.load_study(study_name="it", storage=open_storage(database))
    assert ask_within(study, {}, 1).number == 0
    assert ask_within(other, {}, 1) is None
    assert len(study.trials) == 1
    assert study.ask().number == 1  # others set no limit


def test_a_heartbeat_keeps_a_trial_from_being_taken_over(queue_of, study):
    alive = JobTrial(study.ask({"x": FloatDistribution(0, 1)}))
    queue = queue_of(study, n_trials=1, **QUICK)
    for _ in range(5):
        alive.beat("0")
        assert queue.take().trials == []
        time.sleep(0.03)


def test_a_dead_workers_trial_is_retaken_at_once_and_nobody_elses(queue_of, study):
    host, dead = socket.gethostname(), os.getpid()
    for facts in ({"pid": dead, "host": host}, {"pid": dead, "host": "elsewhere"}, {"pid": 1, "host": host}):
        begun(study.ask({"x": FloatDistribution(0, 1)}), **facts)
    queue = queue_of(study)
    assert queue.reclaim_from_dead_worker(dead) == (True, True)
    assert states(study) == ["WAITING", "RUNNING", "RUNNING"]
    assert queue.reclaim_from_dead_worker(123456789) == (False, False)  # it had begun none


def test_a_trial_fails_after_its_last_attempt(queue_of, study):
    begun(study.ask({"x": FloatDistribution(0, 1)}), attempt=3, pid=os.getpid(), host=socket.gethostname())
    queue_of(study, max_retries=2).reclaim_from_dead_worker(os.getpid())
    assert states(study) == ["FAIL"]
    assert study.trials[0].user_attrs["error"] == "killed or silent 3 times (hydra.sweeper.max_retries=2)"


def test_a_queue_gives_no_more_trials_once_too_many_have_failed(queue_of, study):
    queue = queue_of(study, n_trials=4, max_failure_rate=0.25)
    for _ in range(2):
        queue.fail(take_one(queue), "it broke")
    batch = queue.take()
    assert (batch.trials, batch.others_run) == ([], False)
    assert [t.user_attrs["error"] for t in batch.seen] == ["it broke"] * 2


def test_a_trial_that_is_silent_too_often_fails(queue_of, study):
    """Its process is gone each time: another one, which only ever sees it run, gives it up after its last retry."""
    begun(study.ask({"x": FloatDistribution(0, 1)}), attempt=3)
    queue = queue_of(study, n_trials=1, max_retries=2, max_failure_rate=1, **QUICK)
    assert queue.take().trials == []
    assert states(study) == ["RUNNING"]
    time.sleep(0.1)
    assert queue.take().trials == []
    assert states(study) == ["FAIL"]
    assert study.trials[0].user_attrs["error"] == "killed or silent 3 times (hydra.sweeper.max_retries=2)"
