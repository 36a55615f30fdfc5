"""The paper's headline in one command: CF-AMC-SSL trained, probed, attacked, timed, in one table.

    python benchmarks/headline.py --data FOLDER

It runs the verbs of the command line one after the other and needs torch and torchvision alone:
what else a host lacks comes with it in the folder that `make bundle` packs. A call that was cut
short is given again: what a record vouches for is skipped, and a training goes on from its state.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import importlib.util
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustviews.config.schema import Study
    from robustviews.tables import TableData

ROOT = Path(__file__).resolve().parents[1]
FILES = ("batches.meta", *(f"data_batch_{n}" for n in range(1, 6)), "test_batch")  # of CIFAR-10
FAILED, WRONG, AGAIN = 1, 2, 75  # exit statuses; 75 is EX_TEMPFAIL of sysexits.h
GRACE = 30  # seconds that a stage has to end after SIGTERM
SHOWN = 40  # last lines of a log that a failure prints


class UnusableError(ValueError):
    """Something that the user can mend; the message says how."""


class CutError(Exception):
    """The time of this call is used up."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One call of a verb.

    Attributes:
        verb: of the command line.
        names: what it works on, by option.
        folder: of its results, relative to the working folder.
        spec: what its record has to say.
    """

    verb: str
    names: dict[str, str]
    folder: Path
    spec: dict[str, Any]

    @property
    def title(self) -> str:
        """Verb and names, such as `probe emp-crop16-free3-cifar10-s0/rle`."""
        return f"{self.verb} {'/'.join(self.names.values())}"


def main(arguments: list[str] | None = None) -> int:
    """Run what is not done yet, then write and print the headline.

    Returns:
        0; 1 when a stage failed, 2 when the call cannot work, 75 when the time was used up.
    """
    options = _options(arguments)
    paths = importable(ROOT)
    # A script's own folder is none to import from: a module in it may have the name of Python's.
    others = [path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks"]
    sys.path[:] = [*paths, str(ROOT), *others]
    from robustviews.artifacts import ArtifactError

    try:
        return _run(options, paths)
    except (ValueError, ArtifactError) as error:  # what is refused in words for the user
        if type(error) is ValueError:  # or a mistake of ours
            traceback.print_exc()
        sys.stderr.write(f"{error}\n")
        return WRONG


def _run(options: argparse.Namespace, paths: list[str]) -> int:
    from robustviews.config import load_study

    study = load_study(options.study)
    if options.packs:
        unpack(options.packs, options.data)
    deadline = time.monotonic() + 60 * options.minutes if options.minutes is not None else None
    every = stages(study)
    for number, stage in enumerate(every, 1):
        say(f"[{number}/{len(every)}] {stage.title}: ", end="")
        if is_done(stage):
            say("was done before")
            continue
        if stage.verb == "data":
            check_data(options.data)
        log = Path("logs") / study.study / f"{stage.verb}/{'/'.join(stage.names.values())}.log"
        started = time.monotonic()
        try:
            status = execute(stage, options, paths, log=log, deadline=deadline)
        except CutError:
            say(f"cut: the {options.minutes:g} minutes are used up")
            begins = "goes on from its state" if stage.verb == "pretrain" else "begins anew"
            say(f"Call again: this stage {begins}, and those before it are skipped.")
            return AGAIN
        if status:
            say(f"failed with status {status}; the end of {log}:\n{_end_of(log)}")
            return FAILED
        say(f"{time.monotonic() - started:.1f} s")
    summary, text = headline(study, options.device, every)
    _write(options.out, study, summary, text)
    say(f"\n{text}")
    return 0


def importable(root: Path) -> list[str]:
    """Return the folders that bring the package and what this Python lacks.

    Args:
        root: holds `src`, and in a bundle `site` with a folder for each distribution.
    """
    folders = [root / "src"]
    for folder in sorted((root / "site").glob("*")):
        modules = [path.stem for path in folder.iterdir() if path.stem.isidentifier()]
        if any(importlib.util.find_spec(module) is None for module in modules):
            folders.append(folder)
    return [str(folder) for folder in folders]


def stages(study: Study) -> list[Stage]:
    """Return every job of a study that a cell needs, each after those it is made from."""
    from robustviews import plan

    found = [
        Stage("data", {"dataset": name}, plan.data_folder(study, name), plan.data_spec(study, name))
        for name in dict.fromkeys(job.dataset for job in plan.jobs(study).values())
    ]
    for run in plan.jobs(study):
        folder, spec = plan.pretrain_folder(study, run), plan.pretrain_spec(study, run)
        found.append(Stage("pretrain", {"run": run}, folder, spec))
    for run, probe in plan.heads(study):
        folder, spec = plan.probe_folder(study, run, probe), plan.probe_spec(study, run, probe)
        found.append(Stage("probe", {"run": run, "probe": probe}, folder, spec))
    for run, probe, attack in plan.evaluations(study):
        names = {"run": run, "probe": probe, "attack": attack}
        folder = plan.attack_folder(study, run, probe, attack)
        found.append(Stage("attack", names, folder, plan.attack_spec(study, run, probe, attack)))
    return found


def is_done(stage: Stage) -> bool:
    """Return whether a record vouches for a stage: its spec, and the bytes it read and wrote."""
    from robustviews import artifacts

    path = stage.folder / "record.json"
    if not path.exists():
        return False
    record = artifacts.read_json(path)
    files = {Path(name): value for name, value in record["inputs"].items()}
    files |= {stage.folder / name: value for name, value in record["outputs"].items()}
    return record["spec"] == stage.spec and all(
        file.exists() and artifacts.sha256(file) == value for file, value in files.items()
    )


def execute(
    stage: Stage,
    options: argparse.Namespace,
    paths: list[str],
    *,
    log: Path,
    deadline: float | None,
) -> int:
    """Run a verb in a process of its own, which dies with this one.

    Args:
        stage: the verb and its names.
        options: of this command: study, device, folder of the data.
        paths: what the process imports from besides its own.
        log: gets what it says, after what is there.
        deadline: on the clock of `time.monotonic`, or None.

    Returns:
        Its exit status.

    Raises:
        CutError: the deadline came first.
    """
    left = None if deadline is None else deadline - time.monotonic()
    if left is not None and left <= 0:
        raise CutError
    command = [sys.executable, "-m", "robustviews", stage.verb, "--study", str(options.study)]
    command += ["--device", options.device]
    for name, value in stage.names.items():
        command += [f"--{name}", value]
    inherited = os.environ.get("PYTHONPATH", "")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [inherited])]),
        "ROBUSTVIEWS_DATA": str(options.data),
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            env=environment,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  # no other thread here that holds a lock
        )
        try:
            return process.wait(left)
        except subprocess.TimeoutExpired:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            raise CutError from None
        finally:
            process.kill()
            process.wait()


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent is gone, however that ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def headline(study: Study, device: str, done: list[Stage]) -> tuple[dict[str, Any], str]:
    """Return what the finished stages say, for machines and for people."""
    from benchmarks import speed
    from robustviews import artifacts, results
    from robustviews.tables import TABLES, writers

    frame = results.frame(study)
    tables = [TABLES[table.kind](study, table, frame) for table in study.tables.values()]
    records = {stage.title: artifacts.read_json(stage.folder / "record.json") for stage in done}
    trainings = [stage for stage in done if stage.verb == "pretrain"]
    speeds = [
        speed.of_training(study, stage.names["run"], records[stage.title], device)
        for stage in trainings
    ]
    commit = ROOT / "COMMIT"
    summary = {
        "study": study.study,
        "commit": commit.read_text(encoding="utf-8").strip() if commit.exists() else None,
        "accuracies": [cell for table in tables for cell in _cells(table)],
        "seconds": {title: record["seconds"] for title, record in records.items()},
        "speed": speeds,
        "records": records,
    }
    words = [speed.in_words(found) for found in speeds]
    return summary, "\n".join([*map(writers.markdown, tables), _times(records), *words])


def check_data(folder: Path) -> None:
    """Raise UnusableError unless a folder holds the official files of CIFAR-10."""
    inner = folder / "cifar-10-batches-py"
    missing = [name for name in FILES if not (inner / name).is_file()]
    if missing:
        found = f"found none of {', '.join(missing)}" if inner.is_dir() else "no such folder"
        raise UnusableError(
            f"{inner}: expected the official files of CIFAR-10, {found}; unpack "
            "cifar-10-python.tar.gz there, or name the folder that holds them: --data FOLDER"
        )


def unpack(packs: Path, folder: Path) -> None:
    """Write the official files that the packs in a folder hold, by the script beside them."""
    tars = sorted(packs.glob("cifar10_exact_*.tar"))
    script = packs / "unpack.py"
    if not tars or not script.is_file():
        raise UnusableError(f"{packs}: expected unpack.py and cifar10_exact_*.tar; correct --packs")
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, script, folder, *tars], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UnusableError(f"{script} failed; unpack by hand into --data\n{done.stderr}")
    say(f"unpacked {len(tars)} packs: {time.monotonic() - started:.1f} s")


def say(text: str, *, end: str = "\n") -> None:
    """Write a line at once, or the first half of one."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def _cells(table: TableData) -> list[dict[str, Any]]:
    return [
        {
            "probe": row.probe,
            "column": f"{cell.column.dataset} {cell.column.label}",
            "ours": cell.ours,
            "low": cell.low,
            "high": cell.high,
            "images": cell.evidence[0].n,
            "published": cell.published,
            "verdict": cell.verdict,
        }
        for row in table.rows
        for cell in row.cells
    ]


def _times(records: dict[str, dict[str, Any]]) -> str:
    lines = ["## Seconds", "", "| stage | s |", "| --- | ---: |"]
    lines += [f"| {title} | {record['seconds']:.1f} |" for title, record in records.items()]
    return "\n".join([*lines, ""])


def _write(out: Path | None, study: Study, summary: dict[str, Any], text: str) -> None:
    from robustviews import artifacts, plan

    folder = out or plan.results_folder(study)
    artifacts.write_json(folder / "headline.json", summary)
    artifacts.write_text(folder / "headline.md", text + "\n")


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN:])


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds cifar-10-batches-py"
    )
    parser.add_argument("--packs", type=Path, help="folder of packs to unpack into --data first")
    study = ROOT / "studies" / "headline.yaml"
    parser.add_argument("--study", type=Path, default=study, help="study file (%(default)s)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu (%(default)s)")
    parser.add_argument("--minutes", type=float, help="stop after so many, to be called again")
    parser.add_argument("--out", type=Path, help="folder of headline.json and headline.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
