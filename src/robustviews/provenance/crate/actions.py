"""What was done: one action a job, what it read and wrote, with which parameters, tool and when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from robustviews.artifacts import Record
from robustviews.provenance.crate import descriptions
from robustviews.provenance.crate.graph import Graph, Ref, local
from robustviews.provenance.disk import files
from robustviews.study import folders
from robustviews.study.jobs import RULES, Job, Key
from robustviews.workflow.metadata import Notes, Window

STUDY = "study"  # name of the parameter that stands for the study file

_COMPLETED = "http://schema.org/CompletedActionStatus"
_UNITS = "https://qudt.org/vocab/unit/"
# What a record says of resources: where, what it means, its unit.
_USAGE = (
    (("seconds",), "https://schema.org/totalTime", "SEC"),
    (("environment", "threads"), "https://schema.org/processorRequirements", "NUM"),
    (("result", "peak_bytes"), "https://schema.org/memoryRequirements", "BYTE"),
)


class Runs:
    """The actions of a crate.

    Attributes:
        graph: that they are added to.
        study_file: relative to the project.
        engine: Snakemake, where its notes say that it ran; None otherwise.
        agent: who ran the study: somebody who was named, else the engine; None otherwise.
    """

    def __init__(self, graph: Graph, study_file: Path, agent: str | None) -> None:
        self.graph, self.study_file = graph, study_file
        self.lock = descriptions.add_lock(graph)
        self._notes = Notes(graph.disk.root)
        self.engine = descriptions.add_engine(graph) if self._notes else None
        self.agent = descriptions.add_agent(graph, agent) if agent else self.engine
        self._actions: dict[Key, Ref] = {}
        self._steps: dict[str, Ref] = {}
        self._controls: list[Ref] = []
        self._spans: list[tuple[datetime | None, datetime | None]] = []

    def add(self, job: Job) -> None:
        """Describe a job that was done: the action, its tool, its step."""
        record = self.graph.disk.record(job) if job.folder else {}
        assert isinstance(record, dict)
        tool = descriptions.add_tool(self.graph, job.rule, record)
        step = self._step(job.rule, tool)
        title = f"{job.rule} {job.name}".strip()
        noted = self._notes.window(files(job)[0])
        action = self.graph.add(
            local("job", job.rule, *filter(None, [job.name])),
            "CreateAction",
            name=title,
            description=_description(job, record),
            instrument=tool,
            agent=self.agent,
            actionStatus=_COMPLETED,
            **self._times(record, noted),
            additionalProperty=list(self._environment(record)),
            resourceUsage=list(self._usage(job, record)),
            containerImage=descriptions.add_image(self.graph, _at(record, "environment", "image")),
        )
        self.graph.append(action, "object", self._inputs(job, tool, step))
        self.graph.append(action, "object", self._parameters(job, record, tool, step))
        self.graph.append(action, "result", self._outputs(job, tool))
        self._actions[job.key] = action
        control = local("control", job.rule, *filter(None, [job.name]))
        self._controls.append(
            self.graph.add(
                control,
                "ControlAction",
                name=f"orchestrate {title}",
                instrument=step,
                object=action,
                actionStatus=_COMPLETED,
                startTime=_seconds(noted.start) if noted else None,
                endTime=_seconds(noted.end) if noted else None,
            )
        )

    def add_workflow(self) -> Ref:
        """Describe the workflow, its run, and the run of its engine; return the workflow."""
        graph = self.graph
        tools = [action["instrument"] for action in map(self._entity, self._actions.values())]
        workflow = descriptions.add_workflow(graph, list(self._steps.values()), self.lock)
        graph.append(workflow, "hasPart", tools)
        study = graph.file(self.study_file)
        self._fill(workflow, "input", local("input", "workflow", STUDY), STUDY, study)
        reporting = [job for job in graph.disk.jobs.values() if job.folder is None]
        made = [path for job in reporting for path in job.writes]
        for path in made:
            name = path.relative_to(folders.results_folder(graph.disk.study)).as_posix()
            slot = local("output", "workflow", name)
            self._fill(workflow, "output", slot, name, graph.file(path))
        self._connect_outputs(workflow, reporting)
        starts, ends = ([each for each in span if each] for span in zip(*self._spans, strict=True))
        run = graph.add(
            local("run"),
            "CreateAction",
            name=f"run of the study {graph.disk.study.study}",
            description=f"snakemake --config study={self.study_file.as_posix()}",
            instrument=workflow,
            agent=self.agent,
            actionStatus=_COMPLETED,
            startTime=_time(min(starts)),
            endTime=_time(max(ends)) if len(ends) == len(self._spans) else None,
            object=[study],
            result=[graph.file(path) for path in made],
        )
        if self.engine:
            graph.add(
                local("engine-run"),
                "OrganizeAction",
                name="run of Snakemake",
                instrument=self.engine,
                agent=self.agent,
                object=self._controls,
                result=run,
                actionStatus=_COMPLETED,
            )
        return workflow

    def _entity(self, ref: Ref) -> dict[str, Any]:
        return self.graph.entities[ref["@id"]]

    def _step(self, rule: str, tool: Ref) -> Ref:
        """Return the step of a rule; another version of its tool is another example of it."""
        position = str(RULES.index(rule))
        step = self.graph.add(local("step", rule), "HowToStep", name=rule, position=position)
        self.graph.append(step, "workExample", [tool])
        self._steps[rule] = step
        return step

    def _inputs(self, job: Job, tool: Ref, step: Ref) -> Iterator[Ref]:
        """Yield the files that a job read, and fill the slots of its tool with them."""
        study = self.graph.file(self.study_file)
        slot = local("input", job.rule, STUDY)
        self._fill(tool, "input", slot, STUDY, study)
        self._connect(step, local("input", "workflow", STUDY), slot)
        yield study
        for need, path in self._sources(job):
            maker = self.graph.disk.jobs[need]
            name = f"{maker.rule}/{_slot(maker, path)}"
            slot, file = local("input", job.rule, name), self.graph.file(path)
            self._fill(tool, "input", slot, name, file)
            self._connect(step, local("output", maker.rule, _slot(maker, path)), slot)
            yield file

    def _sources(self, job: Job) -> Iterator[tuple[Key, Path]]:
        """Yield what a job read: what its record says, else all that the jobs before it left."""
        disk = self.graph.disk
        if job.folder:
            for name in disk.section(job, "inputs"):
                yield disk.owners[name], Path(name)
            return
        for need in job.needs:
            for path in files(disk.jobs[need]):
                yield need, path

    def _outputs(self, job: Job, tool: Ref) -> Iterator[Ref]:
        for path in files(job):
            name, file = _slot(job, path), self.graph.file(path)
            self._fill(tool, "output", local("output", job.rule, name), name, file)
            yield file

    def _parameters(self, job: Job, record: Record, tool: Ref, step: Ref) -> Iterator[Ref]:
        """Yield every leaf of the resolved spec as the value of a parameter of the tool."""
        for name, value in flat(record.get("spec", {})):
            slot = local("parameter", job.rule, name)
            text, kind = descriptions.typed(value)
            held = self.graph.add(
                local("value", job.rule, f"{name}={text}"), "PropertyValue", name=name, value=text
            )
            self._fill(tool, "input", slot, name, held, kind=kind)
            self._connect(step, local("input", "workflow", STUDY), slot)
            yield held

    def _environment(self, record: Record) -> Iterator[Ref]:
        """Yield where a job ran, as its record says; packages and image are things of their own."""
        said = {
            "environment": {
                name: value
                for name, value in record.get("environment", {}).items()
                if name not in ("packages", "image")
            },
            "code": record.get("code", {}),
            "resumed": record.get("resumed"),
        }
        for name, value in flat(said):
            if value is not None:
                text, _ = descriptions.typed(value)
                yield self.graph.add(
                    local("environment", f"{name}={text}"), "PropertyValue", name=name, value=text
                )

    def _usage(self, job: Job, record: Record) -> Iterator[Ref]:
        for keys, meaning, unit in _USAGE:
            value = _at(record, *keys)
            if value is not None:
                yield self.graph.add(
                    local("usage", job.rule, job.name, keys[-1]),
                    "PropertyValue",
                    name=keys[-1],
                    propertyID=meaning,
                    unitCode=_UNITS + unit,
                    value=value,
                )

    def _times(self, record: Record, noted: Window | None) -> dict[str, str | None]:
        """Return start and end, as the record says or else Snakemake's note; unknown without both.

        What a record calls seconds is all work on a job, before interruptions too.
        """
        started, work = record.get("started"), timedelta(seconds=round(record.get("seconds", 0)))
        start = end = None
        if noted:
            start, end = (datetime.fromtimestamp(round(each), UTC) for each in noted)
        if started:
            start = datetime.fromisoformat(started)
            end = end or (None if record.get("resumed") else start + work)
        self._spans.append((start, end))
        return {"startTime": _time(start), "endTime": _time(end)}

    def _fill(
        self, tool: Ref, side: str, slot: str, name: str, example: Ref, *, kind: str = "File"
    ) -> None:
        """Say that a thing fills a slot of a tool; of kinds of values the widest one stays."""
        parameter = self.graph.add(slot, "FormalParameter", name=name, additionalType=kind)
        self.graph.append(tool, side, [parameter])
        self.graph.append(example, "exampleOfWork", [parameter])
        entity = self._entity(parameter)
        entity["additionalType"] = descriptions.wider(entity["additionalType"], kind)

    def _connect(self, receiver: Ref, source: str, target: str) -> None:
        connection = self.graph.add(
            local("connection", source.removeprefix("#"), "to", target.removeprefix("#")),
            "ParameterConnection",
            sourceParameter={"@id": source},
            targetParameter={"@id": target},
        )
        self.graph.append(receiver, "connection", [connection])

    def _connect_outputs(self, workflow: Ref, reporting: list[Job]) -> None:
        folder = folders.results_folder(self.graph.disk.study)
        for job in reporting:
            for path in job.writes:
                target = local("output", "workflow", path.relative_to(folder).as_posix())
                self._connect(workflow, local("output", job.rule, _slot(job, path)), target)


def flat(options: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested options as (dotted name, value)."""
    for name, value in options.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _slot(job: Job, path: Path) -> str:
    """Return what a file is to its rule: a name, or a kind where each job names its own."""
    return path.suffix[1:] if job.folder is None and job.name else path.name


def _description(job: Job, record: Record) -> str:
    resumed = record.get("resumed")
    text = f"made again with: snakemake {files(job)[0].as_posix()}"
    if resumed:
        text += f"; resumed {resumed} times after interruptions"
    return text


def _at(record: Record, *keys: str) -> Any:  # noqa: ANN401  # JSON
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _seconds(since_epoch: float) -> str | None:
    return _time(datetime.fromtimestamp(round(since_epoch), UTC))


def _time(moment: datetime | None) -> str | None:
    """Write a moment as the profile wants it, with the offset in figures."""
    return None if moment is None else moment.isoformat(timespec="seconds")
