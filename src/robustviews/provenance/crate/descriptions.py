"""What things are: tools, their packages, the image around them, the workflow, the crate itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from robustviews.artifacts import Record
from robustviews.provenance.crate.graph import METADATA, ROOT, Graph, Ref, local
from robustviews.provenance.manifest import path_of

SNAKEFILE = Path("workflow/Snakefile")
LOCK = Path("requirements.lock")
CITATION = Path("CITATION.cff")
LICENSE = Path("LICENSE")

_PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
_WORKFLOW_PROFILE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
_SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
_LOCK_FORMAT = "https://pip.pypa.io/en/stable/reference/requirements-file-format/"
_IMAGES = "https://w3id.org/ro/terms/workflow-run#"
_KINDS = ("Boolean", "Integer", "Float", "Text")  # each next one holds the values of those before
_PURPOSE = {
    "data": "prepare a data set as uint8 arrays",
    "pretrain": "train one encoder",
    "probe": "train one head on a frozen encoder",
    "attack": "attack one classifier at every radius",
    "frame": "write all results as one tidy CSV",
    "metrics": "write the cells of all tables as JSON",
    "table": "write one table as Markdown, CSV and LaTeX",
    "figure": "draw one figure as SVG and PNG",
    "curves": "draw the training curves as SVG and PNG",
    "examples": "draw example views, clean and perturbed",
    "report": "write the report as one HTML page",
}


def typed(value: Any) -> tuple[Any, str]:  # noqa: ANN401  # JSON
    """Return a value as a crate holds it, and its type; lists and null are JSON text."""
    if isinstance(value, bool):
        return value, "Boolean"
    if isinstance(value, int):
        return value, "Integer"
    if isinstance(value, float):
        return value, "Float"
    return value if isinstance(value, str) else json.dumps(value), "Text"


def wider(one: str, other: str) -> str:
    """Return the type that holds the values of both."""
    return one if one == other else max(one, other, key=_KINDS.index)


def add_tool(graph: Graph, rule: str, record: Record) -> Ref:
    """Describe a verb as it was when a job ran: code, commit, packages, as far as known."""
    code, environment = record.get("code", {}), record.get("environment", {})
    packages = environment.get("packages") or {}
    python = environment.get("python")
    state = [code.get("digest"), code.get("commit"), code.get("dirty"), python, packages]
    key = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:8]
    needs = [add_package(graph, f"pkg:pypi/{name}", packages[name]) for name in sorted(packages)]
    if python:
        needs.append(add_package(graph, "pkg:generic/python", python))
    return graph.add(
        local("tool", rule, *([key] if record else [])),
        "SoftwareApplication",
        name=f"robustviews {rule}",
        description="; ".join(filter(None, (_PURPOSE.get(rule, rule), _version_text(code)))),
        softwareVersion=code.get("digest"),
        softwareRequirements=needs,
    )


def add_package(graph: Graph, name: str, version: str) -> Ref:
    """Describe what a tool needs by its package URL, such as `pkg:pypi/numpy@2.4.6`."""
    return graph.add(
        f"{name}@{version}",
        "SoftwareApplication",
        name=name.rpartition("/")[2],
        softwareVersion=version,
    )


def add_image(graph: Graph, image: str | None) -> Ref | None:
    """Describe the container image that a job ran in, without what lets one into its registry."""
    if not image or image == "unknown":  # which the image itself says, until it is told
        return None
    bare = image.rpartition("://")[2]
    said: dict[str, str | None]
    if bare.endswith(".sif"):
        bare = bare.rpartition("/")[2]
        kind, said = "SIFImage", {"name": bare}
    else:
        bare = re.sub(r"^.*@(?!sha256:)", "", bare)  # `user:password@` before the registry
        kind, said = "DockerImage", _docker(bare)
    return graph.add(
        local("image", bare), "ContainerImage", **said, additionalType={"@id": _IMAGES + kind}
    )


def _docker(image: str) -> dict[str, str | None]:
    """Take a reference such as `ghcr.io/lab/image:tag@sha256:...` apart, as Docker reads it."""
    if image.startswith("sha256:"):
        return {"name": image, "sha256": image.removeprefix("sha256:")}
    bare, _, digest = image.partition("@sha256:")
    registry, _, path = bare.partition("/")
    if not path or not re.search(r"[.:]|^localhost$", registry):
        registry, path = "docker.io", bare
    name, _, tag = path.partition(":")
    return {"registry": registry, "name": name, "tag": tag or None, "sha256": digest or None}


def add_lock(graph: Graph) -> Ref | None:
    """Add requirements.lock, where it is the one that some job recorded."""
    if not graph.disk.exists(LOCK) or graph.disk.sha256(LOCK) not in set(_recorded_locks(graph)):
        return None
    page = graph.add(_LOCK_FORMAT, "WebPageElement", name="pip's requirements file format")
    return graph.file(LOCK, conformsTo=page, description="exact versions that the jobs ran with")


def add_engine(graph: Graph) -> Ref:
    """Describe Snakemake, in the version of the lock that all jobs recorded; unknown otherwise."""
    version = None
    locks = set(_recorded_locks(graph))
    if graph.disk.exists(LOCK) and locks == {graph.disk.sha256(LOCK)}:
        text = (graph.disk.root / LOCK).read_text(encoding="utf-8")
        found = re.search(r"^snakemake==(\S+)", text, re.M)
        version = found[1] if found else None
    return graph.add(
        local("engine", "snakemake"),
        "SoftwareApplication",
        name="Snakemake",
        url="https://snakemake.readthedocs.io",
        softwareVersion=version,
    )


def add_agent(graph: Graph, agent: str) -> Ref:
    """Describe somebody who was named, by a name or an ORCID URL."""
    if agent.startswith("https://orcid.org/"):
        return graph.add(agent, "Person", name=agent.removeprefix("https://orcid.org/"))
    return graph.add(local("agent", agent), "Person", name=agent)


def add_workflow(graph: Graph, steps: list[Ref], lock: Ref | None) -> Ref:
    """Describe the workflow: the Snakefile, and the files that it includes."""
    for path in sorted((graph.disk.root / SNAKEFILE.parent).rglob("*")):
        if path.suffix in (".smk", ".yaml", ".rst"):
            graph.file(path.relative_to(graph.disk.root), license=_licenses(graph))
    language = graph.add(
        _SNAKEMAKE,
        "ComputerLanguage",
        name="Snakemake",
        identifier={"@id": "https://doi.org/10.1093/bioinformatics/bts480"},
        url={"@id": "https://snakemake.readthedocs.io"},
    )
    commits = {str(code["commit"]) for code in _recorded(graph, "code") if code.get("commit")}
    return graph.file(
        SNAKEFILE,
        ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
        name="robustviews workflow",
        description="a study as a graph of jobs: data, pretraining, probes, attacks, report",
        programmingLanguage=language,
        version=commits.pop() if len(commits) == 1 else None,
        author=_authors(graph),
        license=_licenses(graph),
        step=steps,
        buildInstructions=lock,
    )


def add_root(graph: Graph, workflow: Ref) -> None:
    """Describe the crate itself, once all actions are in it."""
    study = graph.disk.study
    for path in (path_of(study), path_of(study).with_name("manifest.json.sig")):
        if graph.disk.exists(path):
            graph.file(path, description="list of all files and cells, and its signature")
    profiles = [
        graph.add(url, "CreativeWork", name=name, version=url.rpartition("/")[2])
        for url, name in _PROFILES.items()
    ]
    kinds = ("CreateAction", "OrganizeAction", "ContainerImage")
    mentioned = [
        {"@id": identifier}
        for identifier, entity in graph.entities.items()
        if entity["@type"] in kinds
    ]
    graph.add(
        ROOT,
        "Dataset",
        name=study.title,
        description=f"Results of the study {study.study}, with all that they were made from. "
        f"{study.demonstration}".strip(),
        datePublished=_finished(graph),
        license=_terms(graph),
        author=_authors(graph),
        conformsTo=profiles,
        mainEntity=workflow,
        mentions=mentioned,
    )
    conforms = [{"@id": "https://w3id.org/ro/crate/1.1"}, {"@id": _WORKFLOW_PROFILE}]
    graph.add(METADATA, "CreativeWork", about={"@id": ROOT}, conformsTo=conforms)


def _version_text(code: dict[str, Any]) -> str:
    if not code.get("commit"):
        return ""
    changed = {True: ", with changes", None: ", perhaps with changes"}.get(code.get("dirty"), "")
    return f"commit {code['commit']}{changed}"


def _recorded(graph: Graph, section: str) -> Iterator[dict[str, Any]]:
    for job in graph.disk.jobs.values():
        if job.folder:
            yield graph.disk.section(job, section)


def _recorded_locks(graph: Graph) -> Iterator[str | None]:
    """Yield what each training and attack says of its lock; data may be older than the study."""
    for job in graph.disk.jobs.values():
        if job.folder and job.rule != "data":
            yield graph.disk.section(job, "environment").get("lock")


def _finished(graph: Graph) -> str:
    """Return the day on which the last result was begun: a date that is in the records."""
    records = (graph.disk.record(job) for job in graph.disk.jobs.values() if job.folder)
    days = [record["started"] for record in records if isinstance(record, dict)]
    return datetime.fromisoformat(max(days)).date().isoformat()


def _citation(graph: Graph) -> dict[str, Any]:
    if not graph.disk.exists(CITATION):
        return {}
    said = yaml.safe_load((graph.disk.root / CITATION).read_text(encoding="utf-8"))
    return said if isinstance(said, dict) else {}


def _authors(graph: Graph) -> list[Ref]:
    """Return the authors of the workflow that CITATION.cff names."""
    found = []
    for author in _citation(graph).get("authors", []):
        names = (author.get("given-names"), author.get("family-names"))
        name = " ".join(filter(None, names)) or author.get("name")
        kind = "Person" if any(names) else "Organization"
        identifier = author.get("orcid") or local("author", str(name))
        found.append(graph.add(identifier, kind, name=name))
    return found


def _licenses(graph: Graph) -> list[Ref]:
    """Return the licences of the sources, by CITATION.cff or else LICENSE; none are made up."""
    said = _citation(graph).get("license") or []
    names = [str(name) for name in (said if isinstance(said, list) else [said])]
    if not names and graph.disk.exists(LICENSE):
        return [graph.file(LICENSE, encodingFormat="text/plain")]
    return [
        graph.add(f"https://spdx.org/licenses/{name}", "CreativeWork", name=name) for name in names
    ]


def _terms(graph: Graph) -> Ref | None:
    """Describe the terms of all that is in the crate: the licence of the code covers no data."""
    names = [graph.entities[ref["@id"]]["name"] for ref in _licenses(graph)]
    if not names:
        return None
    return graph.add(
        local("license", "terms"),
        "CreativeWork",
        name="Terms of code and of data",
        description=f"The licence of the code is {' or '.join(names)}. The data sets have terms "
        "of their own, by those who publish them; this crate grants nothing on them.",
    )
