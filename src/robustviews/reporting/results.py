"""The results frame of a study: only this module reads accuracies, from the attacks' flags.

A row is one (run, probe, attack, eps), with eps 0 for clean images. A row without attack is a
pretraining of which a table only shows the minutes.
"""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from robustviews import artifacts, sanity
from robustviews.artifacts import ArtifactError, Record
from robustviews.attacks import flag_name
from robustviews.reporting import accuracies
from robustviews.reporting.accuracies import Answers
from robustviews.study import differences, folders, jobs, networks, plan
from robustviews.tasks.classification import CLASSIFICATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robustviews.study.jobs import Job, Key
    from robustviews.study.schema import Figure, Study, Table

NOT_CHECKED = "not checked"
IMPORTED = "imported"  # method and regime of an imported encoder, which no file tells
Evaluation = tuple[str, str, str]  # run, probe, attack
_SHOWN = 12  # problems that an error lists; it counts the rest


class Result(TypedDict):
    """One row of the frame; accuracies are fractions, eps is in 1/255.

    `accuracy` is a metric of the task, such as `top-1`: as the data set says, correct / n or a mean
    over classes. Where it is no share of images, `weighs` tells for how many images of equal weight
    it stands, which is no column of the CSV; of a dense task, `correct` is empty.

    `sanity` names the failed checks of an attacked head, such as `AS3 AS9`, or is `not checked`; it
    is empty if the attack is established.
    """

    study: str
    run: str
    entry: str
    method: str
    regime: str
    dataset: str
    seed: int
    probe: str
    attack: str
    eps: float
    metric: str
    n: int
    correct: int | None
    accuracy: float | None
    low: float | None
    high: float | None
    pretrain_minutes: float | None
    device: str
    probe_epochs: int | None
    attack_steps: int | None
    sanity: str
    record: str
    weighs: NotRequired[int]


class Frame(list[Result]):
    """Rows, and the flags (n,) of each run, probe and attack by radius, 0 for clean.

    A flag is 1 where an image is right, and its weight where accuracy is a mean over classes. Of a
    dense task the answers stand there.
    """

    def __init__(
        self, rows: list[Result], flags: dict[Evaluation, dict[float, Any] | Answers]
    ) -> None:
        super().__init__(rows)
        self.flags = flags


class ResultsError(ArtifactError):
    """Records are missing or not those of the study; `problems` lists all, each with a fix."""

    def __init__(self, problems: list[ArtifactError]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems

    def message(self, study_file: str) -> str:
        """Return one line per problem, up to a limit."""
        more = len(self.problems) - _SHOWN
        shown = [problem.message(study_file) for problem in self.problems[:_SHOWN]]
        return "\n".join([*shown, *([f"... and {more} more"] if more > 0 else [])])


class _NotRunError(ArtifactError):
    """A job was never run, or with another spec; to fix it, run the job."""


def frame(
    study: Study,
    root: Path = Path(),
    *,
    blocks: Sequence[Table | Figure] = (),
    partial: bool = False,
) -> Frame:
    """Read every result that a cell of the study needs.

    A result is valid if its record and those of head and encoder have the specs of the study, if
    each job read the bytes that the job before it wrote, and if flags have their checksum.

    Args:
        study: decides which results are read, and with which specs.
        root: project folder.
        blocks: tables and figures whose cells are read; all of the study when empty.
        partial: leave out missing and stale results instead of raising.

    Returns:
        Rows in the order of the study's tables, with the flags behind them.

    Raises:
        ResultsError: a record is missing, stale or (alone with `partial`) of another study.
    """
    reader = _Reader(study, root, partial=partial)
    evaluations = plan.evaluations(study, *blocks)
    evaluated = {run for run, _, _ in evaluations}
    rows: list[Result] = []
    problems: dict[str, ArtifactError] = {}

    def read(run: str, probe: str = "", attack: str = "") -> None:
        try:
            rows.extend(reader.rows(run, probe, attack))
        except ArtifactError as error:
            if not (partial and isinstance(error, _NotRunError)):
                problems.setdefault(str(error), error)

    for evaluation in evaluations:
        read(*evaluation)
    runs = {row["run"] for row in rows} if partial else evaluated
    for run in plan.networks_of(study, *blocks):
        if run not in runs:
            read(run)
    if problems:
        raise ResultsError(list(problems.values()))
    return Frame(rows, reader.flags)


def to_csv(rows: list[Result]) -> str:
    """Write a frame as CSV, floats with all digits; without `weighs`."""
    text, columns = io.StringIO(), [name for name in Result.__annotations__ if name != "weighs"]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row} for row in rows)
    return text.getvalue()


def records(study: Study, root: Path = Path()) -> dict[str, Record]:
    """Return the records of a study's finished jobs, by path relative to the project.

    Raises:
        ArtifactError: a record is not valid.
    """
    computing = [job for job in jobs.jobs(study).values() if job.folder and job.rule != "data"]
    return {
        str(job.record): Record.parse(artifacts.read_json(root / job.record), job.record)
        for job in computing
        if (root / job.record).exists()
    }


def histories(study: Study, root: Path = Path()) -> dict[str, list[dict[str, Any]]]:
    """Return the training curve of each finished pretraining, by run name.

    Raises:
        ArtifactError: a file is damaged.
    """
    found = {}
    for run in plan.pretrainings(study):
        path = root / folders.job_folder(study, "pretrain", run) / folders.CURVE
        if not path.exists():
            continue
        found[run] = artifacts.read_jsonl(path)
        for row in found[run]:
            if not all(isinstance(row.get(name), int | float) for name in ("epoch", "loss")):
                text = f"{path}: expected epoch and loss in each line; make it again:"
                raise ArtifactError(text, path)
    return found


class _Reader:
    """Reads and checks each record of one study once."""

    def __init__(self, study: Study, root: Path, *, partial: bool) -> None:
        self._study, self._root, self._partial = study, root, partial
        self._jobs = jobs.jobs(study)
        self._checked: dict[Key, Record] = {}
        self.flags: dict[Evaluation, dict[float, Any] | Answers] = {}

    def rows(self, run: str, probe: str, attack: str) -> list[Result]:
        """Return the rows of an evaluation, or of a pretraining without attack."""
        if not attack:
            return [self._row(run, record=self._encoder(run).record)]
        job = self._jobs["attack", f"{run}/{probe}/{attack}"]
        flags = self._flags(job)
        names = {eps: flag_name(eps) for eps in (0.0, *self._study.attacks[attack].eps)}
        task, truth = self._study.probes[probe].task, flags["labels"]
        answers = {eps: flags[name] for eps, name in names.items()}
        dataset = self._study.datasets[plan.networks(self._study)[run].dataset]
        dense = task is not CLASSIFICATION
        if dense:
            self.flags[run, probe, attack] = Answers(task, answers, truth)
        else:
            averaged = dataset.accuracy == "mean_per_class"
            weights = accuracies.weights(truth) if averaged else 1
            self.flags[run, probe, attack] = {eps: weights * one for eps, one in answers.items()}
        faults, rows = self._sanity(run, probe), []
        for eps, metric in itertools.product(names, task.metrics):
            row = self._row(run, probe, attack, record=job.record)
            row["eps"], row["metric"], row["n"] = eps, metric, len(truth)
            if eps:
                row["sanity"] = " ".join([*faults, *self._behind(job, names[eps], flags)])
            if dense:
                accuracies.score(row, task, answers[eps], truth)
            else:
                accuracies.count(row, answers[eps], truth, dataset.accuracy)
            rows.append(row)
        return rows

    def _row(self, run: str, probe: str = "", attack: str = "", *, record: Path) -> Result:
        """Return a row without accuracy."""
        study, network = self._study, plan.networks(self._study)[run]
        source = self._record(self._encoder(run))
        trained = source.spec.get("run")
        return Result(
            study=study.study,
            run=run,
            entry=network.entry,
            method=trained["method"]["kind"] if trained else IMPORTED,
            regime=trained["regime"]["kind"] if trained else IMPORTED,
            dataset=network.dataset,
            seed=network.seed,
            probe=probe,
            attack=attack,
            eps=0.0,
            metric="",
            n=0,
            correct=0,
            accuracy=None,
            low=None,
            high=None,
            pretrain_minutes=(source.seconds or 0.0) / 60 if trained else None,
            device=source.environment.get("device") or "unknown",
            probe_epochs=study.probes[probe].epochs if probe else None,
            attack_steps=study.attacks[attack].steps if attack else None,
            sanity="",
            record=record.as_posix(),
        )

    def _encoder(self, run: str) -> Job:
        return self._jobs[plan.networks(self._study)[run].encoder]

    def _sanity(self, run: str, probe: str) -> list[str]:
        """Return the checks that a head fails, judged by the flags where they say it."""
        job = self._jobs.get(("sanity", networks.examination(self._study, run, probe)))
        if job is None or probe not in job.spec["probes"]:
            return [NOT_CHECKED]
        try:
            flags, record = sanity.of_head(self._flags(job), probe), self._record(job)
        except _NotRunError:
            if not self._partial:
                raise
            return [NOT_CHECKED]
        measures = record.result[probe]["measures"] | sanity.measures_of(flags)
        return list(sanity.failed(measures, self._study.sanity))

    def _behind(self, job: Job, name: str, flags: dict[str, Any]) -> list[str]:
        """Return AS12 if a weaker attack on the same head fools images that AutoAttack does not."""
        for weaker in plan.weaker(self._study, *job.parts):
            other = self._jobs["attack", "/".join([*job.parts[:2], weaker])]
            try:
                weak = self._flags(other)
            except _NotRunError:
                if not self._partial:
                    raise
                continue
            if name in weak and sanity.disagrees(flags, weak, name):
                return ["AS12"]
        return []

    def _record(self, job: Job) -> Record:
        """Return a job's record after checking it and the records of its network."""
        if job.key not in self._checked:
            self._checked[job.key] = self._read(job)
        return self._checked[job.key]

    def _read(self, job: Job) -> Record:
        path, output = job.record, job.writes[0]
        if not (self._root / path).exists():
            raise _NotRunError(f"{path}: missing; run it with:", output)
        record = Record.parse(artifacts.read_json(self._root / path), path)
        for difference in differences.of_record(record, job, self._study.study):
            if difference.kind == "foreign":
                raise ArtifactError(f"{path}: {difference}; remove {path.parent} and run:", output)
            raise _NotRunError(f"{path}: {difference}; run it again with:", output)
        for source, key in job.reads.items():
            if key[0] == "data":
                continue
            written = self._record(self._jobs[key]).outputs.get(source.name)
            if record.inputs.get(source.as_posix()) != written:
                text = f"{path}: stale: not made from the present {source}; run it again with:"
                raise _NotRunError(text, output)
        return record

    def _flags(self, job: Job) -> dict[str, Any]:
        path, record = job.writes[0], self._record(job)
        if not (self._root / path).exists():
            raise _NotRunError(f"{path}: missing; run it with:", path)
        actual, expected = artifacts.sha256(self._root / path), record.outputs.get(path.name)
        if actual != expected:
            raise ArtifactError(
                f"{path}: differs from its record: expected {expected}, found {actual}; "
                f"remove {path.parent} and run:",
                path,
            )
        return artifacts.read_arrays(self._root / path)
