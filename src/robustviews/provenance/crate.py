"""Export of a finished study as an RO-Crate, a folder that describes itself in JSON-LD.

Profile: Provenance Run Crate 0.5 and the profiles that it extends, on RO-Crate 1.1, the newest
version that a validator covers. The crate describes what these profiles require, and the
parameters and the environment of each job. All statements come from records, Snakemake metadata
and bytes, so the same study gives the same crate.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from robustviews import artifacts
from robustviews.artifacts import ArtifactError, Record
from robustviews.provenance import manifest
from robustviews.provenance.audit import audit
from robustviews.provenance.disk import Disk
from robustviews.study.differences import leaves
from robustviews.study.jobs import Job
from robustviews.study.schema import Study
from robustviews.workflow.metadata import ProjectMetadata, Window

Ref = dict[str, str]  # {"@id": ...}

METADATA = "ro-crate-metadata.json"

_ROOT = "./"
_RO_CRATE = "https://w3id.org/ro/crate/1.1"
_WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
_PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    _WORKFLOW_CRATE: "Workflow RO-Crate",
}
_SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
_RUN_TERMS = "https://w3id.org/ro/terms/workflow-run#"
_CONTEXT = [
    f"{_RO_CRATE}/context",
    # Terms that RO-Crate 1.1 lacks, spelled out so that a reader need not fetch another context.
    {term: _RUN_TERMS + term for term in ("ContainerImage", "containerImage", "sha256")},
]
_COMPLETED = "http://schema.org/CompletedActionStatus"
_ENVIRONMENT = ("code", "environment", "seconds", "resumed", "result")  # sections of a record

_SNAKEFILE = Path("workflow/Snakefile")
_LICENSE = Path("LICENSE")
_ALSO = (_LICENSE, Path("CITATION.cff"), Path("requirements.lock"))  # no job reads these files
_TERMS = (
    f"{_LICENSE} covers the code. The data sets have terms of their own, set by their publishers; "
    "this crate grants no rights to them."
)


@dataclass
class Crate:
    """Content of a crate.

    Attributes:
        entities: JSON-LD of each described thing, by its @id.
        files: paths relative to the project, and in the crate.
    """

    entities: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def add(self, identifier: str, kind: str | list[str], /, **properties: Any) -> Ref:  # noqa: ANN401  # JSON-LD
        """Describe a thing, unless it is described already; None and empty lists are left out."""
        stated = {name: value for name, value in properties.items() if value not in (None, [])}
        self.entities.setdefault(identifier, {"@id": identifier, "@type": kind} | stated)
        return {"@id": identifier}

    def actions(self) -> list[dict[str, Any]]:
        """Return the jobs, and the run of the workflow once it is described."""
        return [thing for thing in self.entities.values() if thing["@type"] == "CreateAction"]


def build(study: Study, *, agent: str | None = None) -> Crate:
    """Describe a finished study.

    Args:
        study: the study; its results lie in the current folder.
        agent: name or ORCID URL of the person who ran the study; None names nobody.

    Raises:
        RefusedError: a check of the audit failed.
        ArtifactError: a file of the study or of the workflow is missing.
    """
    manifest.refuse_failed(study, audit(study), "no crate")
    disk, crate = Disk(study, Path()), Crate()
    _add_files(crate, {*manifest.paths(disk), *_not_listed(study)})
    common: dict[str, Any] = {"actionStatus": _COMPLETED}
    if agent:
        is_url = agent.startswith("https://orcid.org/")
        identifier = agent if is_url else _identifier("agent", agent)
        common["agent"] = crate.add(identifier, "Person", name=agent)
    metadata = ProjectMetadata(disk.root)
    for job in disk.jobs.values():
        _add_job(crate, disk, job, metadata.window(job.writes[0]), common)
    _add_run(crate, disk, common)
    _add_root(crate, study)
    return crate


def write(crate: Crate, folder: Path) -> None:
    """Copy all files of a crate into a new folder, with their description.

    The files are copies, not links: a change in the crate must not reach the study.

    Raises:
        ArtifactError: the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder}: expected a new or empty folder; choose another folder")
    with artifacts.atomic_folder(folder) as temporary:
        for path in crate.files:
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / path)
        graph = {"@context": _CONTEXT, "@graph": list(crate.entities.values())}
        artifacts.write_json(temporary / METADATA, graph)


def _not_listed(study: Study) -> Iterator[Path]:
    """Yield files that the manifest does not list: workflow, lock, licence, the manifest itself."""
    yield _SNAKEFILE
    for path in sorted(_SNAKEFILE.parent.rglob("*")):
        if path.suffix in (".smk", ".yaml", ".rst"):
            yield path
    signed = manifest.path_of(study)
    for path in (*_ALSO, signed, signed.with_name(f"{signed.name}.sig")):
        if path.is_file():
            yield path


def _add_files(crate: Crate, paths: Iterable[Path]) -> None:
    for path in sorted(paths, key=str):
        entry, language = manifest.entry(path), None
        kind: str | list[str] = "File"
        if path == _SNAKEFILE:
            kind = ["File", "SoftwareSourceCode", "ComputationalWorkflow"]
            language = crate.add(_SNAKEMAKE, "ComputerLanguage", name="Snakemake")
        crate.files.append(path)
        crate.add(
            _file(path)["@id"],
            kind,
            name=path.name,
            contentSize=str(entry["size"]),
            sha256=entry["sha256"].removeprefix("sha256:"),
            programmingLanguage=language,
        )


def _add_job(
    crate: Crate, disk: Disk, job: Job, window: Window | None, common: dict[str, Any]
) -> None:
    """Describe a job: what it read and wrote, its parameters, time, code, image and environment."""
    record = disk.stated(job) if job.folder else Record()
    digest, image = record.code.digest, record.environment.get("image")
    sections = asdict(record) if job.folder else {}
    stated = {name: value for name, value in sections.items() if name in _ENVIRONMENT}
    crate.add(
        _identifier("job", job.rule, job.name),
        "CreateAction",
        name=f"{job.rule} {job.name}".strip(),
        instrument=crate.add(
            _identifier("tool", job.rule, digest or ""),
            "SoftwareApplication",
            name=f"robustviews {job.rule}",
            softwareVersion=digest,
        ),
        object=[
            _file(Path(disk.study.file)),
            *map(_file, _read(disk, job)),
            *_values(crate, record.spec),
        ],
        result=[_file(path) for path in disk.files(job)],
        containerImage=image
        and crate.add(_identifier("image", image), "ContainerImage", name=image),
        additionalProperty=list(_values(crate, stated)),
        **_times(record, window),
        **common,
    )


def _read(disk: Disk, job: Job) -> list[Path]:
    """Return the files that a job read: by its record, or else all files of the jobs it needs."""
    if job.folder:
        return [Path(name) for name in disk.stated(job).inputs]
    return [path for need in job.needs for path in disk.jobs[need].writes]


def _values(crate: Crate, options: dict[str, Any]) -> Iterator[Ref]:
    """Describe each leaf of nested options by its dotted name; lists and null are JSON text."""
    for keys, value in leaves(options):
        name = ".".join(keys)
        text = value if isinstance(value, bool | int | float | str) else json.dumps(value)
        yield crate.add(
            _identifier("value", f"{name}={text}"), "PropertyValue", name=name, value=text
        )


def _times(record: Record, window: Window | None) -> dict[str, str]:
    """Return start and end, as far as the record or Snakemake metadata state them.

    The seconds of a record count all work on a job, so a resumed job has no end without metadata.
    """
    times = {}
    if window:
        times = dict(zip(("startTime", "endTime"), map(_moment, window), strict=True))
    if record.start is not None:
        times["startTime"] = _moment(record.start)
        if not record.resumed and record.seconds is not None:
            times.setdefault("endTime", _moment(record.start + record.seconds))
    return times


def _add_run(crate: Crate, disk: Disk, common: dict[str, Any]) -> None:
    """Describe the run of the whole workflow, and the tools that the workflow consists of."""
    jobs = crate.actions()
    tools = {job["instrument"]["@id"]: job["instrument"] for job in jobs}
    crate.entities[_file(_SNAKEFILE)["@id"]]["hasPart"] = list(tools.values())
    ends = [job["endTime"] for job in jobs if "endTime" in job]
    shown = [path for job in disk.jobs.values() if job.folder is None for path in job.writes]
    crate.add(
        "#run",
        "CreateAction",
        name=f"run of the study {disk.study.study}",
        instrument=_file(_SNAKEFILE),
        object=[_file(Path(disk.study.file))],
        result=[_file(path) for path in shown],
        startTime=min(job["startTime"] for job in jobs if "startTime" in job),
        endTime=max(ends) if len(ends) == len(jobs) else None,
        **common,
    )


def _add_root(crate: Crate, study: Study) -> None:
    """Describe the crate itself, dated by the day on which the last job started."""
    starts = [action["startTime"] for action in crate.actions() if "startTime" in action]
    profiles = [
        crate.add(url, "CreativeWork", name=name, version=url.rpartition("/")[2])
        for url, name in _PROFILES.items()
    ]
    crate.add(
        _ROOT,
        "Dataset",
        name=study.title,
        description=f"Results of the study {study.study} and all files that they were made from. "
        f"{study.demonstration}".strip(),
        datePublished=max(starts).partition("T")[0],
        license=_TERMS if _LICENSE in crate.files else None,
        conformsTo=profiles,
        mainEntity=_file(_SNAKEFILE),
        mentions=[{"@id": action["@id"]} for action in crate.actions()],
        hasPart=[_file(path) for path in crate.files],
    )
    conforms = [{"@id": _RO_CRATE}, {"@id": _WORKFLOW_CRATE}]
    crate.add(METADATA, "CreativeWork", about={"@id": _ROOT}, conformsTo=conforms)


def _file(path: Path) -> Ref:
    return {"@id": quote(path.as_posix())}


def _identifier(kind: str, *names: str) -> str:
    """Return the @id of a thing that only this crate describes, such as `#job/table/table1`."""
    return "#" + "/".join(quote(name, safe="/=:@+,") for name in (kind, *names) if name)


def _moment(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as the profile requires it."""
    return datetime.fromtimestamp(round(seconds), UTC).isoformat()
