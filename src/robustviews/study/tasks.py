"""Checks that data set, probe, attack and metric of a cell are of one task."""

from __future__ import annotations

from robustviews.attacks import WorstOf
from robustviews.probe import Probe
from robustviews.study.columns import Column
from robustviews.study.imported import Add
from robustviews.study.located import LocatedDict
from robustviews.study.problems import Place, nearest
from robustviews.study.schema import Row, Run, Study
from robustviews.tasks.classification import CLASSIFICATION
from robustviews.tasks.protocol import Task
from robustviews.tasks.table import task_of


def of_attack(study: Study, name: str) -> Task:
    """Return the task of an attack of the study; a worst case has that of its first attack."""
    options = study.attacks[name]
    first = options.of[0] if isinstance(options, WorstOf) and options.of else name
    return task_of(study.attacks.get(first))


def check_column(study: Study, measure: Column, place: Place, add: Add) -> None:
    """Report an attack of another task than the data set's, and a metric that the task has not."""
    options = study.datasets.get(measure.dataset)
    if options is None:
        return  # it has mistakes of its own
    task = task_of(options)
    known = {name: of_attack(study, name) for name in study.attacks}
    other = known.get(measure.metric, task)
    if other is not task:
        fitting = [f"`{name}`" for name, one in known.items() if one is task]
        fix = f"write {' or '.join(fitting)}" if fitting else f"add an attack on {task.name}"
        text = f"`{measure.dataset}` is of {task.name}, `{measure.metric}` attacks {other.name}"
        add(place, f"{text}; {fix}")
    if measure.score and measure.score not in task.metrics:
        text = f"{task.name} has no metric `{measure.score}`"
        add(place, f"{text}; {nearest(measure.score, task.metrics)}")
    if measure.score and measure.is_minutes:
        add(place, f"minutes have no metric; write {measure.dataset}/{measure.metric}")


def check_worst(parts: dict[str, object], place: Place, add: Add) -> None:
    """Report a worst case over attacks of different tasks."""
    names = {name: task_of(part).name for name, part in parts.items()}
    if len(set(names.values())) > 1:
        found = ", ".join(f"`{name}` attacks {task}" for name, task in names.items())
        add(place, f"expected attacks on one task; {found}")


def check_run(study: Study, run: Run, node: LocatedDict, add: Add) -> None:
    """Report data sets of a run whose labels are not classes of images."""
    for name, place in zip(run.datasets, node["datasets"].at, strict=True):
        task = task_of(study.datasets.get(name))
        if task is not CLASSIFICATION:
            text = f"`{name}` is of {task.name}, and runs are pretrained on classes of images"
            add(place, f"{text}; use it in rows, with pretrained_on")


def check_row(
    study: Study,
    row: Row,
    probe: Probe | None,
    columns: list[tuple[str, str]],
    node: LocatedDict,
    add: Add,
) -> None:
    """Report data sets of another task than the probe's."""
    if probe is None:
        return
    for name in dict.fromkeys(name for name, _ in columns):
        task = task_of(study.datasets.get(name))
        if name in study.datasets and task is not probe.task:
            fitting = [one for one, other in study.probes.items() if other.task is task]
            fix = " or ".join(f"`{one}`" for one in fitting)
            fix = f"write {fix}" if fix else f"add one of kind: {task.name} to `probes`"
            text = f"`{row.probe}` is a probe of {probe.task.name}, `{name}` is of {task.name}"
            add(node.at["probe"], f"{text}; {fix}")
