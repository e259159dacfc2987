"""A real tiny study, and real runs, on a real SLURM of one node."""

import sys

import engines
import pytest
from toy_apps import EXPIRED, STUDY, load, run_hanging, run_process
from waiting import wait_until

from reg_sweep.runs.reading import read_record

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SMALL = ["hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1", "hydra.launcher.array_parallelism=2"]
LAUNCHED = ["+cluster=slurm", *SMALL]


def variables(cluster):
    return {name: cluster.environment[name] for name in ("PATH", "SLURM_CONF")}


def submit(cluster, folder, command, *options):
    """Queues a shell command from a folder; the job's number."""
    wrapped = f"export OMP_NUM_THREADS=1; {command}"
    said = cluster.ask("sbatch", "--parsable", "-c1", "--mem=500", *options, "--wrap", wrapped, cwd=folder)
    assert said.strip(), "sbatch failed"
    return said.strip()


def logs(folder):
    return "\n".join(path.read_text() for path in sorted(folder.glob("slurm-*.out")))


def words(arguments):
    command = [sys.executable, "-m", "reg_sweep.train", *arguments]
    return " ".join(f"'{a}'" if "$" not in a else f'"{a}"' for a in command)


def test_a_study_of_slurms_jobs_is_the_serial_one(tmp_path, cluster, serial):
    code, said = engines.run(tmp_path, *engines.STUDY, *LAUNCHED, **variables(cluster))
    assert code == 0, said
    engines.check_study(tmp_path, serial, said)


def test_the_jobs_of_an_array_share_a_study_by_one_line(tmp_path, cluster, serial):
    line = words([*engines.STUDY, *engines.QUICK, "hydra.sweeper.storage=study.log"])
    submit(cluster, tmp_path, line, "--array=1-2")
    cluster.wait_for_jobs()
    engines.check_study(tmp_path, serial, logs(tmp_path))


def test_a_run_that_is_pre_empted_and_queued_again_resumes_where_it_was_to_the_same_bits(tmp_path, cluster):
    settings = [*engines.RUN, "epochs=20", "seed=7"]
    once, again = tmp_path / "once", tmp_path / "again"
    for folder in (once, again):
        folder.mkdir()
    job = submit(cluster, again, "exec " + words(["+cluster=array", *settings]), "--requeue", "--open-mode=append")

    def epochs():
        return sum(len(path.read_text().splitlines()) - 1 for path in again.glob("outputs/*/metrics.csv"))

    wait_until(lambda: epochs() >= 2, "second epoch", 120)
    cluster.ask("scontrol", "requeue", job)
    code, said = engines.run(once, "+cluster=array", *settings)
    assert code == 0, said
    wait_until(lambda: "stopped" in logs(again), "word of the stopped run", 60)
    cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
    cluster.wait_for_jobs()
    (whole,), (continued,) = once.glob("outputs/run_*"), again.glob("outputs/run_*")
    assert whole.name == continued.name == f"run_{read_record(whole)['digest']}"
    assert engines.outcome(read_record(continued)) == engines.outcome(read_record(whole))
    assert "continu" in logs(again)


@pytest.mark.parametrize("hangs", ["in_python", "swallows", "in_c"])
def test_a_job_that_hangs_on_a_node_is_ended_and_the_study_continues(tmp_path, cluster, hangs):
    """C code that lets no other thread run ends with SLURM's own limit, a minute here; its trial has failed before."""
    limit = f"hydra.launcher.timeout_min={1 if hangs == 'in_c' else 30}"
    launched = ["hydra/launcher=submitit_slurm", *SMALL, limit]
    trials = run_hanging(tmp_path, hangs, *launched, **variables(cluster))
    assert trials[1].user_attrs["error"] == EXPIRED


def test_no_worker_waits_while_there_are_jobs_of_uneven_length(tmp_path, cluster):
    """Twenty jobs that sleep for 1 to 10 seconds, four at once."""
    naps = [10, 1, 2, 9, 3, 1, 8, 4, 2, 7, 5, 1, 6, 3, 10, 2, 1, 4, 1, 5]
    swept = f"pause_s={','.join(f'{n}.0{i:02}' for i, n in enumerate(naps))}"
    launched = ["hydra/launcher=submitit_slurm", *SMALL[:2], "hydra.launcher.array_parallelism=4"]
    run_process(tmp_path, "arms", *STUDY, "hydra/sweeper/sampler=grid", swept, *launched, **variables(cluster))
    spans = [(t.datetime_start.timestamp(), t.datetime_complete.timestamp()) for t in load(tmp_path / "out").trials]
    begun = sorted(begin for begin, _ in spans)
    ready, last = begun[3], begun[-1]  # from where four are there to where none is left
    busy = sum(max(0.0, min(end, last) - max(begin, ready)) for begin, end in spans)
    assert 1 - busy / (4 * (last - ready)) <= 0.05


def test_a_node_without_the_package_is_one_line(tmp_path, cluster):
    stand_in = tmp_path / "bare" / "reg_sweep"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'reg_sweep'\")")
    bare = f'hydra.launcher.setup=["export PYTHONPATH={stand_in.parent}"]'
    code, said = engines.run(tmp_path, *engines.STUDY, *LAUNCHED, bare, **variables(cluster))
    line = said.strip().splitlines()[-1]
    assert code == 2
    assert line.startswith("reg_sweep: error: the launcher raised FailedJobError: ModuleNotFoundError: No module named")
    assert "the machine that runs the jobs needs the packages installed here, 3 times before any job began" in line
    assert "Traceback" not in said


def test_a_machine_without_slurm_is_one_line_before_anything_is_written(tmp_path, cluster):
    # Of a configuration that is not there SLURM's programs wait a minute for it.
    conf = tmp_path / "away.conf"
    conf.write_text("ClusterName=away\nSlurmctldHost=localhost\nSlurmctldPort=1\nMessageTimeout=2\n")
    away = {"SLURM_CONF": str(conf), "PATH": cluster.environment["PATH"]}
    code, said = engines.run(tmp_path, "-m", "l1=0,1", *engines.RUN, *LAUNCHED, "name=it", **away)
    (line,) = said.strip().splitlines()
    assert code == 2
    assert line.startswith("reg_sweep: error: hydra/launcher=submitit_slurm must be started where SLURM answers, got ")
    assert not (tmp_path / "outputs").exists()
