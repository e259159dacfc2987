"""A real tiny study on a Ray cluster of two nodes, both of them this machine."""

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import daemons
import engines
import pytest
from toy_apps import EXPIRED, run_hanging
from waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PROGRAM = Path(sys.executable).with_name("ray")
SILENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_worker_niceness": "0",  # else 15, which gets nothing of a busy machine
}


@pytest.fixture
def ray_cluster():
    """The head's address. Skipped without Ray, on which the project does not depend."""
    if find_spec("ray") is None or find_spec("hydra_plugins.hydra_ray_launcher") is None:
        pytest.skip("needs Ray and its launcher: make test-cluster installs them")
    address = f"127.0.0.1:{daemons.free_ports(1)[0]}"
    with tempfile.TemporaryDirectory(prefix="ray_") as folder:  # short: Ray has sockets in it
        common = ["--block", "--num-cpus=1", "--object-store-memory=100000000"]
        nodes: list[subprocess.Popen] = []

        def start(*arguments: str) -> None:
            command = [PROGRAM, "start", *arguments, *common]
            nodes.append(subprocess.Popen(command, env=os.environ | SILENT, stdout=subprocess.DEVNULL))

        try:
            start("--head", f"--port={address.partition(':')[2]}", f"--temp-dir={folder}")
            wait_until(lambda: n_nodes(address) == 1, "head of the Ray cluster", 150, 0.2)
            start(f"--address={address}")
            wait_until(lambda: n_nodes(address) == 2, "second node of the Ray cluster", 150, 0.2)
            yield address
        finally:
            for node in reversed(nodes):  # not `ray stop`, which stops all that there are on this machine
                node.terminate()
                node.wait(60)


def n_nodes(address: str) -> int:
    command = [PROGRAM, "status", f"--address={address}"]
    said = subprocess.run(command, env=os.environ | SILENT, capture_output=True, text=True).stdout
    return said.partition("Pending:")[0].count(" node_")


@pytest.mark.parametrize("hangs", ["in_python", "swallows"])
def test_a_job_that_hangs_on_a_node_is_ended_and_the_study_continues(tmp_path, ray_cluster, hangs):
    init = {"init.address": ray_cluster, "init.object_store_memory": "null", "remote.max_retries": 0}
    launched = ["hydra/launcher=ray", "hydra.sweeper.n_jobs=2"]
    launched += [f"+hydra.launcher.ray.{k}={v}" for k, v in init.items()]
    path = os.pathsep.join([str(PROGRAM.parent), os.environ["PATH"]])
    trials = run_hanging(tmp_path, hangs, *launched, **SILENT, PATH=path)
    assert trials[1].user_attrs["error"] == EXPIRED


def test_a_study_of_a_cluster_of_two_nodes_is_the_serial_one(tmp_path, ray_cluster, serial):
    launched = ["+cluster=ray", "hydra.sweeper.n_jobs=2", f"hydra.launcher.ray.init.address={ray_cluster}"]
    path = os.pathsep.join([str(PROGRAM.parent), os.environ["PATH"]])
    code, said = engines.run(tmp_path, *engines.STUDY, *launched, **SILENT, PATH=path)
    assert code == 0, said
    engines.check_study(tmp_path, serial, said)
