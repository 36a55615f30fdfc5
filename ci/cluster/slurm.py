"""A Slurm of one node with two pretended GPUs, from Debian's packages.

Everything lies in one scratch folder, but for two files in /etc/slurm: what runs inside a job does
not see SLURM_CONF. What a killed run left is removed by the next one. Debian's packages are
installed where they are missing, and stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ETC = Path("/etc/slurm")
MARK = "# of robustviews' ci/cluster, which remove it\n"
WANTED = "ROBUSTVIEWS_TEST_CLUSTER"
NAME = "robustviews-test-cluster"
SCRATCH = Path("/var/tmp") / NAME
GPUS = ("0", "1")  # as CUDA_VISIBLE_DEVICES names them
PATIENCE = 60  # seconds that a daemon may take to begin or to end
_TOOLS = ("slurmctld", "slurmd", "sinfo", "munged")
_PACKAGES = ("slurm-wlm", "munge")
# cred_expire and KillWait only shorten what takes minutes elsewhere: a requeued job starts again
# once its credential has expired, and a cancelled one is killed KillWait after it was told to end.
_CONF = """\
ClusterName={cluster}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
TaskProlog={folder}/began
TaskEpilog={folder}/ended
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=300
KillWait=5
SchedulerParameters=sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=UNLIMITED DefMemPerCPU=500 State=UP
PartitionName=urgent Nodes={host} PriorityTier=2 MaxTime=UNLIMITED DefMemPerCPU=500 State=UP
"""
# Character devices: with plain files Slurm would not set CUDA_VISIBLE_DEVICES.
_GRES = "AutoDetect=off\nName=gpu File={folder}/dev/nvidia[0-1]\n"
# Runs in the environment of each task, before and after it.
_WITNESS = """\
#!/bin/sh
echo "{event} $SLURM_JOB_ID ${{SLURM_STEP_ID:-batch}} $(date +%s.%N) ${{CUDA_VISIBLE_DEVICES-}}" \\
  >>{folder}/steps
"""


class UnableError(Exception):
    """This machine does not allow it; the message says what."""


def obstacle() -> str | None:
    """Return why no Slurm can be brought up here, or None where one can."""
    release = Path("/etc/os-release")
    text = release.read_text(encoding="utf-8") if release.is_file() else ""
    if "ID=debian\n" not in text or 'VERSION_ID="12"\n' not in text:
        return "needs Debian 12, whose Slurm it brings up, and this is not"
    if os.geteuid() != 0:
        return "needs root, who may start Slurm's daemons"
    conf = ETC / "slurm.conf"
    if conf.exists() and not _is_ours(conf):
        return f"needs a machine without a Slurm, and {conf} is there"
    if not conf.exists() and _said("sinfo"):
        return "needs a machine without a Slurm, and sinfo answers"
    return None


@dataclass(frozen=True)
class Step:
    """Work of a job: the devices it saw, and from when to when, in seconds since the epoch."""

    job: str
    devices: str
    began: float
    ended: float


@dataclass(frozen=True)
class Slurm:
    """A running Slurm."""

    folder: Path

    def run(self, *command: str) -> str:
        """Run a command of Slurm, which must succeed; return what it said."""
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def steps(self) -> list[Step]:
        """Return what jobs did beside their batch script; one that was requeued has two steps."""
        running: dict[str, tuple[float, str]] = {}
        steps = []
        for line in (self.folder / "steps").read_text(encoding="utf-8").splitlines():
            event, job, step, seconds, *devices = line.split()
            if step == "batch":
                continue
            if event == "began":
                running[job] = float(seconds), "".join(devices)
            else:
                began, seen = running.pop(job)
                steps.append(Step(job, seen, began, float(seconds)))
        assert not running, f"jobs without an end: {running}"
        return steps


@contextlib.contextmanager
def one_node() -> Iterator[Slurm]:
    """Bring up Slurm; take down and remove all of it afterwards, on SIGTERM too.

    Raises:
        UnableError: packages or device nodes are not to be had.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    lock = SCRATCH.with_suffix(".lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"{lock} is held: another run of these tests goes on") from error
        daemons: list[subprocess.Popen[bytes]] = []
        try:
            _clean(daemons)
            _install()
            _configure()
            _bring_up(daemons)
            yield Slurm(SCRATCH)
        finally:
            _clean(daemons)
            lock.unlink()
            signal.signal(signal.SIGTERM, before)


def _install() -> None:
    if all(map(shutil.which, _TOOLS)):
        return
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update"],
        ["apt-get", "install", "-y", "--no-install-recommends", *_PACKAGES],
    ):
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UnableError(f"{' '.join(command)}:\n{(done.stdout + done.stderr)[-2000:]}")


def _configure() -> None:
    SCRATCH.mkdir(mode=0o755)
    for name in ("munge", "state", "spool", "dev"):
        (SCRATCH / name).mkdir(mode=0o755)
    key = SCRATCH / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    try:
        for gpu in GPUS:
            os.mknod(SCRATCH / "dev" / f"nvidia{gpu}", 0o20666, os.makedev(1, 3))  # as /dev/null
    except PermissionError as error:
        raise UnableError(
            f"device nodes, which pretend to be GPUs, cannot be made: {error}"
        ) from error
    (SCRATCH / "steps").touch()
    for event in ("began", "ended"):
        script = SCRATCH / event
        script.write_text(_WITNESS.format(event=event, folder=SCRATCH), encoding="utf-8")
        script.chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    controller, node = _free_ports(2)
    conf = _CONF.format(cluster=NAME, host=host, controller=controller, node=node, folder=SCRATCH)
    (ETC / "slurm.conf").write_text(MARK + conf, encoding="utf-8")
    (ETC / "gres.conf").write_text(MARK + _GRES.format(folder=SCRATCH), encoding="utf-8")


def _bring_up(daemons: list[subprocess.Popen[bytes]]) -> None:
    munge = SCRATCH / "munge"
    files = [f"--{kind}-file={munge / kind}" for kind in ("key", "pid", "log", "seed")]
    daemons.append(_start("munged", "--foreground", f"--socket={munge / 'socket'}", *files))
    _wait((munge / "socket").exists, "munged", daemons)
    daemons.append(_start("slurmctld", "-D", "-L", f"{SCRATCH}/slurmctld.log"))
    daemons.append(_start("slurmd", "-D", "-L", f"{SCRATCH}/slurmd.log"))
    _wait(lambda: _said("sinfo", "--noheader", "--format=%T") == "idle", "slurmd", daemons)


def _start(*command: str) -> subprocess.Popen[bytes]:
    """Start a daemon that ends when these tests do, and that Ctrl-C leaves to the cleaning."""
    with (SCRATCH / f"{command[0]}.out").open("w") as out:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def _wait(
    done: Callable[[], bool], name: str, daemons: Sequence[subprocess.Popen[bytes]] = ()
) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in daemons):
            files = (SCRATCH / f"{name}.{kind}" for kind in ("out", "log"))
            said = "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
            raise RuntimeError(f"{name} does not do what it should:\n{said[-2000:]}")
        time.sleep(0.1)


def _clean(daemons: list[subprocess.Popen[bytes]]) -> None:
    """End jobs and daemons, and remove everything; say so where something stays."""
    if daemons and _said("squeue", "--noheader"):
        _said("scancel", "--state=PENDING")
        _said("scancel", "--signal=KILL", "--full", "--state=RUNNING")
        with contextlib.suppress(RuntimeError):  # the check below tells what stays
            _wait(lambda: not _said("squeue", "--noheader"), "slurmd")
    for daemon in reversed(daemons):  # munged last: the others speak through it
        daemon.terminate()
        try:
            daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
    for name in ("slurm.conf", "gres.conf"):
        if (ETC / name).exists() and _is_ours(ETC / name):
            (ETC / name).unlink()
    shutil.rmtree(SCRATCH, ignore_errors=True)
    left = _processes()
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    if left or SCRATCH.exists():
        raise RuntimeError(f"expected nothing of {SCRATCH} to stay, found processes {left}")


def _processes() -> list[int]:
    """Return the processes of daemons here, and of jobs, which know the name of their cluster."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            daemon = f"{SCRATCH}/".encode() in (folder / "cmdline").read_bytes()
            if daemon or f"SLURM_CLUSTER_NAME={NAME}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def _is_ours(file: Path) -> bool:
    return file.read_text(encoding="utf-8").startswith(MARK)


def _said(*command: str) -> str:
    """Return what a command of Slurm said; nothing where it failed or is not there."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    return done.stdout.strip() if done.returncode == 0 else ""


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
