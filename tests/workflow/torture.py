"""Kill the workflow and its jobs at random, many times, and count what is lost or changed.

`make torture` runs it; `make test` does not. Each round removes results of torture.yaml, a study of
every kind of job, and starts Snakemake, `dvc repro`, or two Snakemakes and a `dvc repro` at once.
After a random time a signal goes to the session, to all processes, to a command alone, to one job
or to the server of jobs. The same command starts again and is killed again, until it has ended by
itself. Then everything is compared:

- lost: a job ran again that Snakemake had recorded as finished;
- corrupt: a file differs from its record;
- other bytes: a file differs from that of two undisturbed runs, which agree on it;
- other commands: anything but the same command had to be typed;
- orphans: temporary files and locks that nothing removed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import torch

from robustviews import artifacts
from robustviews.study import load_study
from robustviews.study.jobs import REPORTING, jobs
from robustviews.workflow.metadata import ProjectMetadata
from tests.unit.checkpoints import synthetic
from tests.workflow import victims
from tests.workflow.power import Disk
from tests.workflow.project import Project

STUDY = Path(__file__).with_name("torture.yaml")
TRIES = 4  # of the same command, undisturbed, after the last kill
KILLS = 16  # of a round, at most
PATIENCE = 900  # seconds of a command, on a machine under load
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--retries", "99", "--config", "device=cpu"]
DVC = [sys.executable, "-m", "dvc", "repro"]
COMMANDS = {
    "snakemake": [SNAKEMAKE],
    "dvc repro": [DVC],
    "two snakemake and dvc repro": [SNAKEMAKE, SNAKEMAKE, DVC],
}
COMPUTING = ("data", "encoder", "pretrain", "probe", "attack", "sanity")
FAILURES = ("lost", "corrupt", "other bytes", "other commands", "orphans", "hangs")


def create(folder: Path) -> Project:
    """Return a project with a checkpoint to import, that was never run."""
    folder.mkdir(parents=True)
    file, study = folder.parent / "brought.pth", folder.parent / "study.yaml"
    torch.save(synthetic.source(width=2, stem="cifar").state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    study.write_text(STUDY.read_text(encoding="utf-8").replace("HASH", digest), encoding="utf-8")
    project = Project.create(folder, study)
    file.rename(folder / file.name)
    return project


class Started:
    """A command in a session of its own."""

    def __init__(self, project: Project, command: list[str]) -> None:
        self._file = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            cwd=project.folder,
            env=project.environment(),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=self._file,
        )

    def end(self, patience: float) -> tuple[int, str]:
        """Wait; return status and output."""
        status = self.process.wait(patience)
        self._file.seek(0)
        with self._file as file:
            return status, file.read()


class Torture:
    """A project that is killed again and again, and what was counted."""

    def __init__(self, folder: Path, chance: random.Random, disk: Disk | None = None) -> None:
        self.project, self.chance, self.disk = create(folder), chance, disk
        self.root = self.project.folder
        self.counts: Counter[str] = Counter(dict.fromkeys(FAILURES, 0))
        self.kills, self.loads = 0, [os.getloadavg()[0]]
        self.expected = self.undisturbed()
        os.sync()

    def undisturbed(self) -> dict[str, str]:
        """Run the study twice; return the hashes of the files that both runs agree on."""
        self.project.snakemake().said()
        first = self.outputs()
        for name in ("data", "results", ".snakemake"):
            shutil.rmtree(self.root / name)
        self.project.snakemake().said()
        self.project.commit("Run")
        second = self.outputs()
        assert first.keys() == second.keys()
        return {name: digest for name, digest in first.items() if second[name] == digest}

    def outputs(self) -> dict[str, str]:
        """Return the hash of every file of data and results."""
        files = (path for top in ("data", "results") for path in (self.root / top).rglob("*"))
        return {
            path.relative_to(self.root).as_posix(): artifacts.sha256(path)
            for path in files
            if path.is_file()
        }

    def round(self, most: int) -> None:
        """Remove results; start and kill the same command until it ends by itself; compare.

        Args:
            most: kills.
        """
        self.remove_some()
        (name,) = self.chance.choices(list(COMMANDS), weights=(6, 1, 1))
        finished = self.finished()
        for _ in range(most):
            if not self.kill(name):
                break
            finished = self.finished() | finished  # as it was first
        victims.wait_for_none(self.root, PATIENCE)
        self.finish(name)
        self.check(finished)

    def remove_some(self) -> None:
        """Remove the results of jobs of a random rule and of all jobs after them."""
        everything = jobs(load_study(self.root / "params.yaml")).values()
        rule = self.chance.choice((*COMPUTING, self.chance.choice(REPORTING)))
        removed: set[Path] = set()
        for job in everything:
            chosen = job.rule == rule and self.chance.random() < 0.7
            if chosen or removed.intersection(job.reads):
                removed.update(job.writes)
        for path in removed:
            (self.root / path).unlink(missing_ok=True)

    def kill(self, name: str) -> bool:
        """Start commands and kill them at a random moment; return whether they still ran."""
        started = [Started(self.project, command) for command in COMMANDS[name]]
        self.wait_for_a_moment(started)
        while not self.disk and self.chance.random() < 0.8:
            self.send(name, "a job", started)  # which Snakemake starts again
            time.sleep(self.chance.expovariate(1))
        ran = any(one.process.poll() is None for one in started)
        if self.disk and ran:
            self.disk.cut()
            self.send(name, "the power", started)
        elif ran:
            self.send(name, self.chance.choice(victims.KINDS), started)
        for one in started:
            self.end(one)
        if self.disk:
            self.restore(self.disk)
        elif self.chance.random() < 0.5:  # else the same command meets what is left of the last one
            victims.wait_for_none(self.root, PATIENCE)
        return ran

    def send(self, name: str, kind: str, started: list[Started]) -> None:
        """Send a signal to processes of a kind, and count it if one got it."""
        number, there = self.chance.choice(victims.SIGNALS), victims.running(self.root)
        if kind in ("the power", victims.SERVER):
            number = signal.SIGKILL  # the server ignores the others
        one = self.chance.choice(started).process.pid
        if not victims.send(number, victims.chosen(kind, there, one, self.chance)):
            return
        self.kills += 1
        stage = victims.stage(there)
        for key in (f"of {name}", f"by {number.name}", f"during {stage}", f"that hit {kind}"):
            self.counts[f"kills {key}"] += 1
        self.loads.append(os.getloadavg()[0])
        print(f"{self.kills}: {number.name} to {kind} of {name}, {stage}", flush=True)  # noqa: T201

    def restore(self, disk: Disk) -> None:
        """Start the machine again; no record may be there whose files are not."""
        deadline = time.monotonic() + PATIENCE
        while (there := victims.running(self.root)) and time.monotonic() < deadline:
            victims.send(signal.SIGKILL, there)
            time.sleep(0.1)
        disk.restore()
        self.check_records()

    def wait_for_a_moment(self, started: list[Started]) -> None:
        """Wait until a job runs, except one time in four, and then a random while."""
        deadline, early = time.monotonic() + PATIENCE, self.chance.random() < 0.25
        while (
            not early
            and time.monotonic() < deadline
            and any(one.process.poll() is None for one in started)
            and not any(one.verb in victims.VERBS for one in victims.running(self.root))
        ):
            time.sleep(0.1)
        time.sleep(self.chance.expovariate(1))

    def end(self, started: Started) -> tuple[int, str]:
        """Return status and output of a command; a command that hangs is killed and counted."""
        with suppress(subprocess.TimeoutExpired):
            return started.end(PATIENCE)
        self.counts["hangs"] += 1
        print(f"  hangs: {victims.running(self.root)}", flush=True)  # noqa: T201
        victims.send(signal.SIGKILL, victims.running(self.root))
        return started.end(PATIENCE)

    def finish(self, name: str) -> None:
        """Run the same commands at once, then those that failed, until all have succeeded."""
        commands, texts = COMMANDS[name], [""]
        for number in range(TRIES):
            started = [Started(self.project, command) for command in commands]
            ended = [self.end(one) for one in started]
            texts = [text for status, text in ended if status]
            if not texts:
                single = len(COMMANDS[name]) == 1
                self.counts["rounds that needed the same command twice"] += number > 0 and single
                return
            commands = [
                command for command, (status, _) in zip(commands, ended, strict=True) if status
            ]
        self.counts["other commands"] += 1
        print(*texts, sep="\n", flush=True)  # noqa: T201
        self.project.snakemake("--unlock")
        self.project.dvc("repro").said()

    def finished(self) -> dict[Path, str]:
        """Return the records of the jobs that Snakemake recorded as finished."""
        metadata, found = ProjectMetadata(self.root), {}
        for path in self.root.glob("[dr]*/**/record.json"):
            relative = path.relative_to(self.root)
            if metadata.unfinished(relative):
                self.counts["finished jobs whose Snakemake was killed before it recorded them"] += 1
            elif isinstance(metadata.of(relative), dict):
                found[path] = artifacts.sha256(path)
        return found

    def check(self, finished: dict[Path, str]) -> None:
        """Count what was lost, is corrupt, has other bytes, or is left over."""
        for path, was in finished.items():
            if not path.exists() or artifacts.sha256(path) != was:
                self.fail("lost", path)
        self.check_records()
        now = self.outputs()
        for name, digest in self.expected.items():
            if now.get(name) != digest:
                self.fail("other bytes", self.root / name)
        hidden = [name for name in now if any(part[0] == "." for part in Path(name).parts)]
        for name in hidden:
            self.fail("orphans", self.root / name)
        self.counts["files compared"] += len(self.expected)

    def check_records(self) -> None:
        """Count files that differ from the record beside them."""
        for path in self.root.glob("[dr]*/**/record.json"):
            try:
                stated = json.loads(path.read_text(encoding="utf-8"))["outputs"]
                torn = [
                    name for name in stated if artifacts.sha256(path.parent / name) != stated[name]
                ]
            except (ValueError, artifacts.ArtifactError):
                torn = [path.name]
            for name in torn:
                self.fail("corrupt", path.parent / name)

    def fail(self, kind: str, path: Path) -> None:
        self.counts[kind] += 1
        print(f"  {kind}: {path.relative_to(self.root)}", flush=True)  # noqa: T201


def _busy(parent: int) -> None:
    while os.getppid() == parent:
        pass


def main() -> None:
    """Kill as often as asked, and print what was counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--load", type=int, default=2, help="processes that only keep a core busy")
    parser.add_argument("--power", action="store_true", help="cut the power instead; as root")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # a background process ignores the first
        signal.signal(number, signal.default_int_handler)
    began, rounds, chance = time.monotonic(), 0, random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        parent, disk = Path(folder).resolve(), None
        if options.power:
            disk = Disk(parent, chance)
            stack.callback(disk.remove)
            parent = disk.folder
        root = parent / "new" / "project"
        stack.callback(lambda: victims.send(signal.SIGKILL, victims.running(root)))
        torture = Torture(root, chance, disk)
        print(f"begins after {time.monotonic() - began:.0f} s", flush=True)  # noqa: T201
        for _ in range(options.load):
            arguments = (os.getpid(),)
            multiprocessing.Process(target=_busy, args=arguments, daemon=True).start()
        while torture.kills < options.kills:
            torture.round(min(KILLS, options.kills - torture.kills))
            rounds += 1
            failures = {name: torture.counts[name] for name in FAILURES}
            print(f"round {rounds}: {failures}", flush=True)  # noqa: T201
    minutes = (time.monotonic() - began) / 60
    load = statistics.median(torture.loads)
    print(f"{torture.kills} kills, {rounds} rounds, {minutes:.0f} minutes, load {load:.0f}")  # noqa: T201
    for name, count in sorted(torture.counts.items()):
        print(f"{count:6d} {name}")  # noqa: T201
    raise SystemExit(any(torture.counts[name] for name in FAILURES))


if __name__ == "__main__":
    main()
