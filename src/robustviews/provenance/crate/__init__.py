"""Export of a finished study as an RO-Crate, a folder that describes itself in JSON-LD.

Profile: Provenance Run Crate 0.5, with those that it extends, on RO-Crate 1.1: the newest for which
a validator exists. What it says comes from records and bytes: the same study, the same crate.
"""

from __future__ import annotations

from pathlib import Path

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.provenance.audit import audit
from robustviews.provenance.crate.actions import Runs
from robustviews.provenance.crate.descriptions import add_root
from robustviews.provenance.crate.graph import METADATA, Graph
from robustviews.provenance.disk import Disk, files
from robustviews.provenance.manifest import refuse_failed
from robustviews.study.schema import Study

__all__ = ["METADATA", "build", "write"]


def build(study: Study, *, study_file: Path, agent: str | None = None) -> Graph:
    """Describe a finished study.

    Args:
        study: whose results lie in the current folder.
        study_file: that it was read from, relative to the project.
        agent: who ran it, a name or an ORCID URL; nobody is named without it.

    Raises:
        RefusedError: the audit found something wrong.
        ArtifactError: a job is still to be done, or a file of the workflow is missing.
    """
    disk = Disk(study, Path())
    _require_finished(disk, study_file)
    refuse_failed(audit(study), "no crate")
    graph = Graph(disk)
    runs = Runs(graph, study_file, agent)
    for job in disk.jobs.values():
        runs.add(job)
    workflow = runs.add_workflow()
    add_root(graph, workflow)
    return graph


def write(graph: Graph, folder: Path) -> None:
    """Copy all files of a crate into a new folder, with their description.

    Copies, not links: a crate goes elsewhere, and what happens to it there is not to reach back.

    Raises:
        ArtifactError: the folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder}: expected a new folder, found something there; name another")
    with artifacts.atomic_folder(folder) as into:
        graph.to_rocrate().write(into)


def _require_finished(disk: Disk, study_file: Path) -> None:
    missing = {
        job.key: path
        for job in disk.jobs.values()
        for path in reversed(files(job))
        if not disk.exists(path)
    }
    if missing:
        (rule, name), path = next(iter(missing.items()))
        raise ArtifactError(
            f"{path}: missing, as {len(missing)} of {len(disk.jobs)} jobs are still to be done, "
            f"the first: {f'{rule} {name}'.strip()}; run: "
            f"snakemake --config study={study_file.as_posix()}"
        )
