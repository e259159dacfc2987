"""Starts a temporary SLURM cluster for tests, whose only node is this machine.

It needs root, and Debian's packages slurmctld, slurmd, slurm-client and munge.
"""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from daemons import free_ports, running
from waiting import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
IS_HERE = all(shutil.which(program, path=PATH) for program in PROGRAMS) and os.geteuid() == 0
N_CPUS = 4  # may be more than the machine has, because the tests' jobs mostly sleep

# Replaces sacct, which submitit calls. It asks the controller, because real accounting needs a database.
SACCT = """#!{python}
import re, subprocess
said = subprocess.run(["scontrol", "show", "job", "-o"], capture_output=True, text=True).stdout
print("JobID|State|NodeList")
for line in said.splitlines():
    facts = dict(part.partition("=")[::2] for part in line.split())
    array = f"{{facts.get('ArrayJobId')}}_{{facts.get('ArrayTaskId')}}"
    print(array if "ArrayJobId" in facts else facts.get("JobId", ""), facts.get("JobState", ""), "vm", sep="|")
"""

CONF = """
ClusterName=test
SlurmctldHost=vm(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
MinJobAge=300
OverTimeLimit=0
KillWait=10
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
NodeName=vm NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=vm Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """The cluster's daemons, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("state", "spool", "munge"):
            (folder / name).mkdir()
        conf = folder / "slurm.conf"
        conf.write_text(CONF.format(folder=folder, ports=free_ports(2), cpus=N_CPUS))
        programs = folder / "bin"
        programs.mkdir()
        (programs / "sacct").write_text(SACCT.format(python=sys.executable))
        (programs / "sacct").chmod(0o755)
        path = os.pathsep.join([str(programs), PATH])
        self.environment = {**os.environ, "PATH": path, "SLURM_CONF": str(conf)}
        self._daemons: list[subprocess.Popen[bytes]] = []
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self._start(
            "munged",
            *("--force", "--foreground", f"--key-file={key}", f"--socket={folder}/munge.socket"),
            *(f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log"),
            f"--seed-file={folder}/munge/seed",
        )
        wait_until((folder / "munge.socket").exists, "socket of munged")
        self._start("slurmctld", "-D", "-c")
        self._start("slurmd", "-D", "-N", "vm")
        wait_until(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%t"), "idle node", pause_s=0.2)

    def _start(self, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=PATH)
        with (self.folder / f"{program}.out").open("wb") as log:
            daemon = subprocess.Popen([path, *arguments], env=self.environment, cwd="/", stdout=log, stderr=log)
        self._daemons.append(daemon)

    def ask(self, *command: str, cwd: Path | None = None) -> str:
        """Runs one of SLURM's programs; returns its output."""
        done = subprocess.run(command, env=self.environment, cwd=cwd, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else ""

    def wait_for_jobs(self, timeout_s: float = 120) -> None:
        """Waits until the queue is empty."""
        wait_until(lambda: self.ask("squeue", "-h").strip() == "", "empty queue", timeout_s, pause_s=0.2)

    def stop(self) -> None:
        """Ends all jobs, then the daemons."""
        self.ask("scancel", "--full", "--signal=KILL", "--user=root")
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def cluster() -> AbstractContextManager[Cluster]:
    return running(Cluster, "reg_sweep_slurm_")
