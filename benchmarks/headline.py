"""The paper's headline in one command: CF-AMC-SSL trained, probed, attacked, timed, in one table.

    python benchmarks/headline.py --data FOLDER

It runs the verbs of the command line one after the other and needs torch and torchvision alone:
what else a host lacks comes with it in the folder that `make bundle` packs. A call that was cut
short is given again: finished jobs are skipped, as their records say, and an interrupted job
resumes from its checkpoint, unless it prepared data.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
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
    from robustviews.reporting.tables import TableData
    from robustviews.study.jobs import Job
    from robustviews.study.schema import Study

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)  # Python that the package runs on
BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
OFFICIAL = {  # folder, its files and what they come in, by kind of data set
    "cifar10": ("cifar-10-batches-py", ("batches.meta", *BATCHES, "test_batch"), "cifar-10-python"),
    "cifar100": ("cifar-100-python", ("meta", "train", "test"), "cifar-100-python"),
}
DATA = "ROBUSTVIEWS_DATA"  # tells the verbs where data is
FAILED, WRONG, AGAIN = 1, 2, 75  # exit statuses; 75 is EX_TEMPFAIL of sysexits.h
GRACE = 30  # seconds that a stage has to end after SIGTERM
SHOWN = 40  # last lines of a log that a failure prints


class UnusableError(ValueError):
    """Something that the user can mend; the message says how."""


class CutError(Exception):
    """The time of this call is used up."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is not done yet, then write and print the headline.

    Returns:
        0; 1 when a stage failed, 2 when the call cannot work, 75 when the time was used up.
    """
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.stderr.write(f"expected Python 3.11 or newer, found {found}: {sys.executable}\n")
        return WRONG
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
    from robustviews.study import load_study

    deadline = time.monotonic() + 60 * options.minutes if options.minutes is not None else None
    study = load_study(options.study)
    every = stages(study)
    for number, job in enumerate(every, 1):
        say(f"[{number}/{len(every)}] {title(job)}: ", end="")
        if is_done(study, job):
            say("was done before")
            continue
        started = time.monotonic()
        if job.rule == "data":
            provide(job, options)
        log = Path("logs") / study.study / job.rule / f"{job.name}.log"
        try:
            status = execute(verb(study, job), options, paths, log=log, deadline=deadline)
        except CutError:
            say(f"cut: the {options.minutes:g} minutes are used up")
            begins = "begins anew" if job.rule == "data" else "goes on from its state"
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


def stages(study: Study) -> list[Job]:
    """Return every job that leaves a record, each after those it is made from."""
    from robustviews.study import jobs

    return [job for job in jobs.jobs(study).values() if job.folder is not None]


def title(job: Job) -> str:
    """Return rule and name, such as `probe emp-crop16-free3-cifar10-s0/rle`."""
    return " ".join(job.key)


def verb(study: Study, job: Job) -> list[str]:
    """Return what to type after `robustviews` for a job, without study and device."""
    from robustviews.study import jobs

    if job.rule == "data":
        (name,) = (name for name in study.datasets if jobs.data_job(study, name) == job.key)
        return ["data", "--dataset", name]
    options = zip(("--run", "--probe", "--attack"), job.parts, strict=False)
    return [job.rule, *(word for option in options for word in option)]


def is_done(study: Study, job: Job) -> bool:
    """Return whether a record has the spec of a job and covers the bytes read and written."""
    from robustviews import artifacts
    from robustviews.study import jobs

    if job.folder is None or job.key in jobs.pending(study):
        return False
    record = artifacts.read_json(job.folder / "record.json")
    files = {Path(name): value for name, value in record["inputs"].items()}
    files |= {job.folder / name: value for name, value in record["outputs"].items()}
    return all(file.exists() and artifacts.sha256(file) == value for file, value in files.items())


def execute(
    words: list[str],
    options: argparse.Namespace,
    paths: list[str],
    *,
    log: Path,
    deadline: float | None,
) -> int:
    """Run a verb in a process of its own, which dies with this one.

    Args:
        words: the verb and its options, as `verb` returns them.
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
    command = [sys.executable, "-m", "robustviews", *words]
    command += ["--study", str(options.study), "--device", options.device]
    inherited = os.environ.get("PYTHONPATH", "")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [inherited])]),
        DATA: str(options.data or ""),
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


def headline(study: Study, device: str, done: list[Job]) -> tuple[dict[str, Any], str]:
    """Return what the finished stages say, for machines and for people."""
    from benchmarks import speed
    from robustviews import artifacts
    from robustviews.reporting import results
    from robustviews.reporting.tables import TABLES, writers

    frame = results.frame(study)
    tables = [TABLES[table.kind](study, table, frame) for table in study.tables.values()]
    records = {
        title(job): artifacts.read_json(job.folder / "record.json") for job in done if job.folder
    }
    speeds = [
        speed.of_training(study, job.name, records[title(job)], device)
        for job in done
        if job.rule == "pretrain"
    ]
    summary = {
        "study": study.study,
        "commit": commit_of(records),
        "accuracies": [cell for table in tables for cell in _cells(table)],
        "seconds": {name: record["seconds"] for name, record in records.items()},
        "speed": speeds,
        "records": records,
    }
    words = [speed.in_words(found) for found in speeds]
    return summary, "\n".join([*map(writers.markdown, tables), _times(records), *words])


def commit_of(records: dict[str, dict[str, Any]]) -> str | None:
    """Return the bundle's commit, else that of all records but those of data, if it is one."""
    file = ROOT / "COMMIT"
    if file.exists():
        return file.read_text(encoding="utf-8").strip()
    made = (record for record in records.values() if record["stage"] != "data")
    told: set[str | None] = {record["code"]["commit"] for record in made}
    return told.pop() if len(told) == 1 else None


def provide(job: Job, options: argparse.Namespace) -> None:
    """Unpack the official files of a CIFAR data set if asked; raise UnusableError if some lack."""
    assert job.spec is not None
    dataset = job.spec["dataset"]
    if dataset["kind"] not in OFFICIAL or dataset["root"]:  # whose files the verb looks for itself
        return
    inner, files, archive = OFFICIAL[dataset["kind"]]
    if options.data is None:
        raise UnusableError(f"name the folder that holds {inner}: --data FOLDER")
    if options.packs and dataset["kind"] == "cifar10":
        unpack(options.packs, options.data)
    folder = options.data / inner
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        found = f"found none of {', '.join(missing)}" if folder.is_dir() else "no such folder"
        raise UnusableError(
            f"{folder}: expected the official files of {dataset['kind']}, {found}; unpack "
            f"{archive}.tar.gz there, or name the folder that holds them: --data FOLDER"
        )


def unpack(packs: Path, folder: Path) -> None:
    """Write the official files that the packs in a folder hold, by the script beside them."""
    tars = sorted(packs.glob("cifar10_exact_*.tar"))
    script = packs / "unpack.py"
    if not tars or not script.is_file():
        raise UnusableError(f"{packs}: expected unpack.py and cifar10_exact_*.tar; correct --packs")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, script, folder, *tars], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UnusableError(f"{script} failed; unpack by hand into --data\n{done.stderr}")
    say(f"unpacked {len(tars)} packs, ", end="")


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
            "verdict": cell.verdict and str(cell.verdict),
        }
        for row in table.rows
        for cell in row.cells
    ]


def _times(records: dict[str, dict[str, Any]]) -> str:
    lines = ["## Seconds", "", "| stage | s |", "| --- | ---: |"]
    lines += [f"| {name} | {record['seconds']:.1f} |" for name, record in records.items()]
    counted = "A training's seconds leave out start-up and compiling; all others include start-up."
    return "\n".join([*lines, "", counted, ""])


def _write(out: Path | None, study: Study, summary: dict[str, Any], text: str) -> None:
    from robustviews import artifacts
    from robustviews.study import folders

    folder = out or folders.results_folder(study)
    artifacts.write_json(folder / "headline.json", summary)
    artifacts.write_text(folder / "headline.md", text + "\n")


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN:])


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    data = f"folder that holds cifar-10-batches-py ({DATA})"
    parser.add_argument("--data", type=Path, default=os.environ.get(DATA) or None, help=data)
    parser.add_argument("--packs", type=Path, help="folder of packs to unpack into --data first")
    study = ROOT / "studies" / "headline.yaml"
    parser.add_argument("--study", type=Path, default=study, help="study file (%(default)s)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu (%(default)s)")
    parser.add_argument("--minutes", type=float, help="stop after so many, to be called again")
    parser.add_argument("--out", type=Path, help="folder of headline.json and headline.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
