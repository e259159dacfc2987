"""What is known of Hydra's launchers."""

import pytest
from omegaconf import OmegaConf

from reg_sweep.search import launchers
from reg_sweep.search.launchers import at_once, check_launcher, launcher_error, reason
from reg_sweep.search.settings import StudyError

SUBMITIT = """Job (task=0) failed during processing with trace:
----------------------
Traceback (most recent call last):
  File "submitit/core/submission.py", line 55, in process_job
    delayed = utils.DelayedSubmission.load(paths.submitted_pickle)
ModuleNotFoundError: No module named 'reg_sweep'

----------------------
You can check full logs with 'job.stderr(0)'"""


def launcher(kind, **settings):
    return OmegaConf.create({"_target_": f"hydra_plugins.somewhere.{kind}", **settings})


def test_a_launcher_gets_as_many_trials_as_it_runs_at_once(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert at_once(launcher("JoblibLauncher", n_jobs=3)) == 3
    assert [at_once(launcher("JoblibLauncher", n_jobs=n)) for n in (-1, -2, -9)] == [8, 7, 1]
    assert at_once(launcher("SlurmLauncher", array_parallelism=16, cpus_per_task=4)) == 16
    assert [at_once(launcher("LocalLauncher", cpus_per_task=n)) for n in (None, 3, 20)] == [8, 2, 1]
    assert at_once(launcher("BasicLauncher")) == at_once(launcher("RayLauncher")) == 1


def test_of_a_jobs_traceback_the_last_word_is_told_with_its_remedy():
    said, remedy = reason(RuntimeError(SUBMITIT)), "its jobs' machine needs the packages of this one"
    assert said == f"RuntimeError: ModuleNotFoundError: No module named 'reg_sweep': {remedy}"
    assert reason(OSError("no such queue\nand more")) == "OSError: no such queue"
    assert reason(ValueError()) == "ValueError"


def test_an_error_of_a_launchers_own_is_one_line_and_any_other_is_left_alone():
    theirs = type("FailedJobError", (Exception,), {"__module__": "submitit.core.utils"})
    assert "FailedJobError: ModuleNotFoundError" in str(launcher_error(theirs(SUBMITIT)))
    assert launcher_error(ValueError("mine")) is None


def test_a_machine_without_slurm_is_told_in_a_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    check_launcher(launcher("JoblibLauncher"))
    with pytest.raises(StudyError, match="must be started where SLURM answers, got no sbatch and srun: start it on"):
        check_launcher(launcher("SlurmLauncher"))


@pytest.mark.parametrize(("answers", "word"), [({"sinfo": "busy"}, "got busy"), ({"sacct": "disabled"}, None)])
def test_a_slurm_that_does_not_answer_is_refused_and_one_without_accounting_warned_of(
    monkeypatch, tmp_path, caplog, answers, word
):
    for program in ("sbatch", "srun", "sinfo", "sacct"):
        path = tmp_path / program
        path.write_text(f"#!/bin/sh\necho {answers[program]} >&2; exit 1\n" if program in answers else "#!/bin/sh\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    if word is not None:
        with pytest.raises(StudyError, match=word):
            check_launcher(launcher("SlurmLauncher"))
        return
    check_launcher(launcher("SlurmLauncher"))
    assert "SLURM's accounting does not answer (disabled)" in caplog.text
    assert launchers.log.name == caplog.records[0].name
