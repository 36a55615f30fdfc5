"""Checks of recorded sanity checks: their measures from the flags, their verdicts from measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from robustviews import artifacts, sanity
from robustviews.artifacts import ArtifactError
from robustviews.provenance.checks import remake
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, judged
from robustviews.provenance.values import Flags, wrong_images
from robustviews.study.jobs import Job


def check(disk: Disk, job: Job) -> list[Finding]:
    """Check that verdicts follow from measures, and measures from the flags of real test images."""
    path = job.writes[0]
    if not disk.exists(path):
        return []  # the check of bytes reports it
    try:
        flags = artifacts.read_arrays(disk.root / path)
        problems = list(_problems(disk, job, flags))
    except (ArtifactError, LookupError, ValueError, TypeError, OSError) as error:
        problems = [f"cannot be read: {type(error).__name__}: {error}"]
    right = "measures follow from the flags, and failed checks from the measures"
    return judged("sanity", path, problems, right, fix=remake(disk, job))


def _problems(disk: Disk, job: Job, flags: Flags) -> Iterator[str]:
    results, probes = disk.stated(job).result, set(job.spec["probes"])
    heads = {key.partition("/")[0] for key in flags}
    for what, found in (("flags", heads), (str(job.record), set(results))):
        if found != probes:
            yield f"{what}: expected the heads {_listed(probes)}, found {_listed(found)}"
            return
    for probe in job.spec["probes"]:
        for text in _of_head(disk, job, probe, sanity.of_head(flags, probe), results[probe]):
            yield f"{probe}: {text}"


def _of_head(
    disk: Disk, job: Job, probe: str, flags: Flags, result: dict[str, Any]
) -> Iterator[str]:
    shapes = {name: flag.shape for name, flag in flags.items()}
    if len({shape[:1] for shape in shapes.values()}) != 1:
        yield f"expected one flag per image, found {shapes}"
        return
    task, truth = disk.study.probes[probe].task, flags["labels"]
    answers = {name: flag for name, flag in flags.items() if name not in ("index", "labels")}
    wrong = [f"{name} {text}" for name, one in answers.items() for text in task.wrong(one, truth)]
    yield from wrong
    yield from wrong_images(disk, job, flags["index"], truth, task)
    if wrong:
        return
    stated, options = result["measures"], disk.study.sanity
    counts = sanity.measures_of(flags)
    wrong = [name for name, count in counts.items() if stated.get(name) != count]
    for name in wrong:
        yield f"{job.record} says that {name} is {stated.get(name)}, its flags give {counts[name]}"
    if wrong:
        return
    faults = sanity.failed(stated, options)
    if result["failed"] != faults:
        found, expected = _listed(result["failed"]), _listed(faults)
        yield f"{job.record} says that {found} failed, its measures give {expected}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
