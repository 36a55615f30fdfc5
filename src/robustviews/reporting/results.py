"""The results frame of a study: only this module reads accuracies, from the attacks' flags.

A row is one (run, probe, attack, eps), with eps 0 for clean images. A row without attack is a
pretraining of which a table only shows the minutes.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypedDict, cast, get_args, get_type_hints

from robustviews import artifacts
from robustviews.artifacts import RECORD, ArtifactError, Record
from robustviews.artifacts import records as record_shape
from robustviews.attacks import flag_name
from robustviews.reporting.statistics import wilson
from robustviews.study import differences, folders, plan, specs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robustviews.study.schema import Figure, Study, Table

_SHOWN = 12  # problems that an error lists; it counts the rest


class Result(TypedDict):
    """One row of the frame; accuracies are fractions, eps is in 1/255."""

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
    n: int
    correct: int
    accuracy: float | None
    low: float | None
    high: float | None
    pretrain_minutes: float
    device: str
    probe_epochs: int | None
    attack_steps: int | None
    record: str


class ResultsError(ArtifactError):
    """Records are missing or not those of the study; `problems` lists all, each with a fix."""

    def __init__(self, problems: list[ArtifactError]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems

    def message(self, study_file: str) -> str:
        """Return one line per problem, up to a limit."""
        shown = [problem.message(study_file) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            shown.append(f"... and {len(self.problems) - _SHOWN} more")
        return "\n".join(shown)


class _NotRunError(ArtifactError):
    """A job was never run, or with another spec; to fix it, run the job."""


def frame(
    study: Study,
    root: Path = Path(),
    *,
    blocks: Sequence[Table | Figure] = (),
    partial: bool = False,
) -> list[Result]:
    """Read every result that a cell of the study needs.

    A result is valid if its record and those of its head and encoder have the specs of the present
    study, if each job read the same bytes that the job before it wrote, and if the flags have the
    checksum of their record.

    Args:
        study: decides which results are read, and with which specs.
        root: project folder.
        blocks: tables and figures whose cells are read; all of the study when empty.
        partial: leave out missing and stale results instead of raising.

    Returns:
        Rows in the order in which the study's tables name them.

    Raises:
        ResultsError: a record is missing, stale (another spec), or foreign (another study, other
            bytes). With `partial` only for foreign ones.
    """
    reader = _Reader(study, root)
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
    for run in plan.pretrainings_of(study, *blocks):
        if run not in runs:
            read(run)
    if problems:
        raise ResultsError(list(problems.values()))
    return rows


def to_csv(rows: list[Result]) -> str:
    """Write a frame as CSV; `from_csv` returns exactly the same rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row} for row in rows)
    return text.getvalue()


def from_csv(text: str) -> list[Result]:
    """Read what `to_csv` wrote.

    Raises:
        ResultsError: the columns differ.
    """
    reader = csv.DictReader(io.StringIO(text))
    columns = list(reader.fieldnames or ())
    if columns != list(_COLUMNS):
        expected = ",".join(_COLUMNS)
        problem = f"frame.csv: expected columns {expected}; found {','.join(columns)}"
        raise ResultsError([ArtifactError(f"{problem}; delete it and run snakemake again")])
    return [
        cast(Result, {name: _parse(hint, row[name]) for name, hint in _COLUMNS.items()})
        for row in reader
    ]


def records(study: Study, root: Path = Path()) -> dict[str, Record]:
    """Return the records of a study's finished jobs, by path relative to the project.

    Raises:
        ArtifactError: a record is not valid.
    """
    job_folders = [folders.pretrain_folder(study, run) for run in plan.pretrainings(study)]
    job_folders += [folders.probe_folder(study, *head) for head in plan.heads(study)]
    job_folders += [
        folders.attack_folder(study, *evaluation) for evaluation in plan.evaluations(study)
    ]
    paths = [folder / RECORD for folder in job_folders]
    return {
        path.as_posix(): record_shape.require(artifacts.read_json(root / path), path)
        for path in paths
        if (root / path).exists()
    }


def histories(study: Study, root: Path = Path()) -> dict[str, list[dict[str, Any]]]:
    """Return the training curve of each finished pretraining, by run name."""
    paths = {
        run: root / folders.pretrain_folder(study, run) / folders.CURVE
        for run in plan.pretrainings(study)
    }
    return {run: artifacts.read_jsonl(path) for run, path in paths.items() if path.exists()}


class _Reader:
    """Reads and checks each record of one study once."""

    def __init__(self, study: Study, root: Path) -> None:
        self._study, self._root = study, root
        self._checked: dict[Path, Record] = {}

    def rows(self, run: str, probe: str, attack: str) -> list[Result]:
        """Return the rows of an evaluation, or of a pretraining without attack."""
        if not attack:
            path = folders.pretrain_folder(self._study, run) / RECORD
            return [self._row(run, record=path)]
        folder = folders.attack_folder(self._study, run, probe, attack)
        made_from = [folders.pretrain_folder(self._study, run) / folders.ENCODER]
        if self._study.probes[probe].trained:
            made_from.append(folders.probe_folder(self._study, run, probe) / folders.HEAD)
        spec = specs.attack_spec(self._study, run, probe, attack)
        record = self._record(folder / folders.FLAGS, spec, made_from)
        flags = self._flags(folder / folders.FLAGS, record)
        names = {eps: flag_name(eps) for eps in (0.0, *self._study.attacks[attack].eps)}
        return [
            self._row(
                run,
                probe,
                attack,
                eps=eps,
                correct=int(flags[name].sum()),
                n=len(flags[name]),
                record=folder / RECORD,
            )
            for eps, name in names.items()
        ]

    def _row(
        self,
        run: str,
        probe: str = "",
        attack: str = "",
        *,
        record: Path,
        eps: float = 0.0,
        correct: int = 0,
        n: int = 0,
    ) -> Result:
        study, job = self._study, plan.pretrainings(self._study)[run]
        training = self._pretraining(run)
        low, high = wilson(correct, n) if n else (None, None)
        return Result(
            study=study.study,
            run=run,
            entry=job.entry,
            method=training["spec"]["run"]["method"]["kind"],
            regime=training["spec"]["run"]["regime"]["kind"],
            dataset=job.dataset,
            seed=job.seed,
            probe=probe,
            attack=attack,
            eps=eps,
            n=n,
            correct=correct,
            accuracy=correct / n if n else None,
            low=low,
            high=high,
            pretrain_minutes=training["seconds"] / 60,
            device=training["environment"].get("device") or "unknown",
            probe_epochs=study.probes[probe].epochs if probe else None,
            attack_steps=study.attacks[attack].steps if attack else None,
            record=record.as_posix(),
        )

    def _pretraining(self, run: str) -> Record:
        output = folders.pretrain_folder(self._study, run) / folders.ENCODER
        return self._record(output, specs.pretrain_spec(self._study, run), [])

    def _head(self, run: str, probe: str) -> Record:
        made_from = [folders.pretrain_folder(self._study, run) / folders.ENCODER]
        start = self._study.probes[probe].starts_from
        if start:
            made_from.append(folders.probe_folder(self._study, run, start) / folders.HEAD)
        output = folders.probe_folder(self._study, run, probe) / folders.HEAD
        return self._record(output, specs.probe_spec(self._study, run, probe), made_from)

    def _upstream(self, path: Path) -> Record:
        """Return the record of an encoder or head, given its path."""
        _, _, stage, run, *rest = path.parts
        return self._pretraining(run) if stage == "pretrain" else self._head(run, rest[0])

    def _record(self, output: Path, spec: specs.Spec, made_from: list[Path]) -> Record:
        """Return the record beside an output after checking it and the records of its inputs."""
        path = output.with_name(RECORD)
        if path in self._checked:
            return self._checked[path]
        if not (self._root / path).exists():
            raise _NotRunError(f"{path}: missing; run it with:", output)
        record: Record = artifacts.read_json(self._root / path)
        problem = record_shape.broken(record)
        if problem:
            raise ArtifactError(
                f"{path}: not a job record: {problem}; remove {path.parent} and run:", output
            )
        if record["study"] != self._study.study:
            raise ArtifactError(
                f"{path}: belongs to study {record['study']!r}, expected {self._study.study!r}; "
                f"remove {path.parent} and run:",
                output,
            )
        differing = differences.differences(record["spec"], spec)
        if differing:
            key, recorded, expected = differing[0]
            raise _NotRunError(
                f"{path}: stale: {key} was {recorded}, the study now says {expected}; "
                "run it again with:",
                output,
            )
        for source in made_from:
            checksum = self._upstream(source)["outputs"].get(source.name)
            if record["inputs"].get(source.as_posix()) != checksum:
                raise _NotRunError(
                    f"{path}: stale: not made from the present {source}; run it again with:",
                    output,
                )
        self._checked[path] = record
        return record

    def _flags(self, path: Path, record: Record) -> dict[str, Any]:
        if not (self._root / path).exists():
            raise _NotRunError(f"{path}: missing; run it with:", path)
        actual, expected = artifacts.sha256(self._root / path), record["outputs"].get(path.name)
        if actual != expected:
            raise ArtifactError(
                f"{path}: differs from its record: expected {expected}, found {actual}; "
                f"remove {path.parent} and run:",
                path,
            )
        return artifacts.read_arrays(self._root / path)


def _parse(hint: object, text: str) -> str | int | float | None:
    options = get_args(hint) or (hint,)
    if not text and NoneType in options:
        return None
    kind: type[str | int | float] = options[0]
    return kind(text)


_COLUMNS: dict[str, Any] = get_type_hints(Result)
