"""Kill the workflow and its jobs at random, many times, and count what is lost or changed.

`make torture` runs it; `make test` does not. Each round removes the results of some jobs of the
tiny study, starts Snakemake, two of them at once, or `dvc repro`, and kills the process group,
Snakemake alone or one job by SIGKILL, SIGTERM, SIGINT or SIGHUP after a random time. Then the same
command runs again, without any other, until it succeeds. Lost is a job that Snakemake had recorded
as finished and that runs again, corrupt a file that differs from its record, other bytes an output
that differs from an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from robustviews import artifacts
from robustviews.study import load_study
from robustviews.study.jobs import jobs
from robustviews.workflow.metadata import ProjectMetadata
from tests.workflow.project import Project

TRIES = 4  # of the same command after a kill
PATIENCE = 900  # seconds of a command
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
COMMANDS = {
    "snakemake": [[sys.executable, "-m", "snakemake", "--config", "device=cpu"]],
    "dvc repro": [[sys.executable, "-m", "dvc", "repro"]],
}
COMMANDS["two snakemake"] = 2 * COMMANDS["snakemake"]
COMMANDS["snakemake and dvc repro"] = COMMANDS["snakemake"] + COMMANDS["dvc repro"]
# What differs between two runs of one job: times, and what names them.
VARYING = ("record.json", "training.jsonl", "report.html", "audit.html")


class Torture:
    """A project that is killed again and again, and what was counted."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.project, self.chance = Project.create(folder), chance
        self.counts: Counter[str] = Counter(dict.fromkeys(ZERO, 0))
        self.project.dvc("repro").said()
        self.project.commit("Run")
        self.expected = self.outputs()

    def outputs(self) -> dict[str, str]:
        """Return the hash of every output whose bytes only its inputs decide."""
        root = self.project.folder
        files = (path for top in ("data", "results") for path in (root / top).rglob("*"))
        return {
            path.relative_to(root).as_posix(): artifacts.sha256(path)
            for path in files
            if path.is_file()
            and not any(part[0] == "." for part in path.relative_to(root).parts)
            and path.name not in VARYING
            and "minutes" not in path.name
            and path.suffix in (".npy", ".safetensors")
        }

    def round(self) -> None:
        """Remove, start, kill, and run the same command until it succeeds."""
        self.remove_some()
        name = self.chance.choice(list(COMMANDS))
        finished = self.kill(COMMANDS[name])
        self.counts[f"kills of {name}"] += 1
        for command in COMMANDS[name][-1:]:
            self.finish(name, command)
        self.check(finished)

    def remove_some(self) -> None:
        """Remove the results of random jobs and of all jobs after them, as if none had run."""
        removed: set[Path] = set()
        share = self.chance.uniform(0, 0.5)
        for job in jobs(load_study(self.project.folder / "params.yaml")).values():
            if removed.intersection(job.reads) or (job.folder and self.chance.random() < share):
                removed.update(job.writes)
        for path in removed:
            (self.project.folder / path).unlink(missing_ok=True)

    def kill(self, commands: list[list[str]]) -> dict[Path, str]:
        """Start commands, kill them at a random moment; return the records of finished jobs."""
        processes = [self.start(command) for command in commands]
        time.sleep(self.chance.uniform(2, 25))
        number = self.chance.choice(SIGNALS)
        victims = self.chance.choice((self.groups, self.alone, self.job))(processes)
        for pid in victims:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        self.counts[f"by {number.name}"] += 1
        print(f"  {number.name} to {len(victims)} of {len(processes)}", flush=True)  # noqa: T201
        if victims and number is signal.SIGKILL:
            time.sleep(1)
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
        self.wait_for_jobs()
        root = self.project.folder
        metadata = ProjectMetadata(root)
        return {
            path: artifacts.sha256(path)
            for path in root.rglob("results/**/record.json")
            if not metadata.unfinished(path.relative_to(root))
        }

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(
            command,
            cwd=self.project.folder,
            env=self.project.environment(),
            start_new_session=True,
            **quiet,
        )

    def groups(self, processes: list[subprocess.Popen[bytes]]) -> list[int]:
        """Return all processes of all commands, as a closed terminal ends them."""
        return [pid for process in processes for pid in self.family(process.pid)]

    def alone(self, processes: list[subprocess.Popen[bytes]]) -> list[int]:
        return [self.chance.choice(processes).pid]

    def job(self, processes: list[subprocess.Popen[bytes]]) -> list[int]:
        """Return one process of a job."""
        jobs = [
            pid
            for process in processes
            for pid in self.family(process.pid)
            if b"robustviews\0" in _command_line(pid) and b"snakemake\0" not in _command_line(pid)
        ]
        return [self.chance.choice(jobs)] if jobs else self.alone(processes)

    def family(self, session: int) -> list[int]:
        """Return the processes of a session."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ProcessLookupError):
                if os.getsid(int(path.name)) == session:
                    found.append(int(path.name))
        return found

    def wait_for_jobs(self) -> None:
        """Wait until no job of the project runs: a job may outlive its workflow."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            running = 0
            for path in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    inside = (path / "cwd").readlink() == self.project.folder
                    running += inside and (path / "status").read_text().find("State:\tZ") < 0
            if not running:
                return
            time.sleep(0.2)

    def finish(self, name: str, command: list[str]) -> None:
        """Run the same command, and nothing else, until it succeeds."""
        for number in range(TRIES):
            done = self.project.run(*command)
            if done.status == 0:
                self.counts["needed more than one repetition"] += number > 0
                return
            print(f"  {name} again: {done.text.strip().splitlines()[-1:]}", flush=True)  # noqa: T201
        self.counts["commands besides the same one"] += 1
        print(done.text, flush=True)  # noqa: T201
        self.project.snakemake("--unlock")
        self.project.dvc("repro").said()

    def check(self, finished: dict[Path, str]) -> None:
        """Count what was lost, is corrupt, has other bytes, or is half-written."""
        for path, was in finished.items():
            if not path.exists() or artifacts.sha256(path) != was:
                self.counts["lost"] += 1
                print(f"  lost: {path}", flush=True)  # noqa: T201
        for path in self.project.folder.rglob("results/**/record.json"):
            stated = json.loads(path.read_text(encoding="utf-8"))["outputs"]
            for name, digest in stated.items():
                self.counts["corrupt"] += artifacts.sha256(path.parent / name) != digest
        now = self.outputs()
        self.counts["other bytes"] += sum(now.get(name) != it for name, it in self.expected.items())
        self.counts["files checked"] += len(self.expected)


def _command_line(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def main() -> None:
    """Run rounds until the time is over, and print what was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores it
    end, rounds = time.monotonic() + 60 * options.minutes, 0
    with tempfile.TemporaryDirectory() as folder:
        torture = Torture(Path(folder) / "project", random.Random(options.seed))
        while time.monotonic() < end:
            torture.round()
            rounds += 1
            counts = {name: torture.counts[name] for name in ZERO}
            print(f"round {rounds}: {counts}", flush=True)  # noqa: T201
    print(f"{rounds} rounds, seed {options.seed}")  # noqa: T201
    for name, count in sorted(torture.counts.items()):
        print(f"{count:6d} {name}")  # noqa: T201
    failed = sum(torture.counts[name] for name in ZERO)
    raise SystemExit(failed > 0)


ZERO = ("lost", "corrupt", "other bytes", "commands besides the same one")

if __name__ == "__main__":
    main()
