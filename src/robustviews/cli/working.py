"""A job that a verb runs: its study, locks, stage and record, and the settings of the process."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from robustviews import artifacts
from robustviews.artifacts.resume import Resume
from robustviews.cli.names import UsageError, known
from robustviews.machine import gpus
from robustviews.study import Study, folders, load_study, plan
from robustviews.study.inputs import Split
from robustviews.study.jobs import Job, jobs
from robustviews.workflow import locks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_Result = TypeVar("_Result")
Content = Mapping[str, "Tensor"] | Sequence[Mapping[str, Any]]  # of a file: tensors, or JSON lines


@dataclass(frozen=True)
class Work:
    """A job, the start time and the commit at its start, and whether it has a GPU of its own."""

    study: Study
    job: Job
    folder: Path
    started: artifacts.Start
    commit: tuple[str | None, bool | None]
    own_gpu: bool = False

    def save(
        self,
        files: Mapping[str, Content],
        result: dict[str, Any],
        *,
        metadata: dict[str, str] | None = None,
        **values: Any,  # noqa: ANN401  # of a record
    ) -> None:
        """Write the files of the finished job and its record.

        Args:
            files: content by name.
            result: numbers of the job.
            metadata: of the files with tensors.
            values: further arguments of `write_record`.
        """
        with artifacts.atomic_folder(self.folder) as into:
            for name, content in files.items():
                if isinstance(content, Mapping):
                    artifacts.write_tensors(into / name, content, metadata)
                else:
                    artifacts.write_jsonl(into / name, content)
            self.write_record(into, result=result, **values)

    def write_record(self, into: Path, **values: Any) -> None:  # noqa: ANN401  # of a record
        """Write the record beside the files of the finished job."""
        artifacts.write_record(
            into,
            stage=self.job.rule,
            name=self.job.name,
            study=self.study.study,
            spec=self.job.spec,
            inputs=list(self.job.reads),
            started=self.started,
            code=self.commit,
            **values,
        )


@dataclass(frozen=True)
class Computation:
    """A job on its device."""

    work: Work  # the job
    device: torch.device  # device of the stage
    environment: dict[str, Any]  # of the record
    state: Resume  # from which an interrupted job resumes

    def call(
        self,
        stage: Callable[..., _Result],
        split: Split,
        *weights: object,
        **options: Any,  # noqa: ANN401  # of the stage
    ) -> _Result:
        """Call the stage of the job with weights, a split, and the options of the job."""
        return stage(
            *weights,
            split.images,
            split.labels,
            classes=split.classes,
            size=split.size,
            **options,
            device=self.device,
            checkpoint=self.state,
            title=self.work.job.name,
        )

    def save(self, files: Mapping[str, Content], result: dict[str, Any], **values: float) -> None:
        """Write the files and the record of the finished job, and discard its state.

        Args:
            files: content by name.
            result: numbers of the job.
            values: `seconds` and `resumed` if not those of the state.
        """
        counted: dict[str, Any] = {"seconds": self.state.seconds(), "resumed": self.state.resumed}
        counted |= values
        self.work.save(files, result, environment=self.environment, **counted)
        self.state.discard()


@contextlib.contextmanager
def working(options: argparse.Namespace, rule: str, *names: str) -> Iterator[Work]:
    """Yield a job; lock its folder, and a GPU if it computes on one, during the block."""
    study, started, commit = load_study(options.study), artifacts.Start(), artifacts.commit()
    jobs_of_rule = {key[1]: job for key, job in jobs(study).items() if key[0] == rule}
    if len(names) > 1:
        groups = [list(group) for group in (plan.networks(study), study.probes, study.attacks)]
        for name, group, kind in zip(names, groups, ("run", "probe", "attack"), strict=False):
            known(name, group, kind)
    what = "run" if rule in ("pretrain", "sanity") else rule
    known("/".join(names), jobs_of_rule, what)
    job = jobs_of_rule["/".join(names)]
    assert job.folder is not None
    with (
        locks.acquire(job.folder, f"{rule} {job.name}"),
        gpus.taken(options.device, processes=int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) as own,
    ):
        yield Work(study, job, job.folder, started, commit, own)


def computation(
    options: argparse.Namespace,
    work: Work,
    *,
    tuned: bool = False,
    **environment: Any,  # noqa: ANN401  # of the record
) -> Computation:
    """Apply the runtime settings of a job to this process, and find its saved state."""
    from robustviews.machine import runtime

    device = set_up(options, work.study, tuned=tuned)
    environment = {**runtime.environment(device), **environment}
    state = Resume(
        folders.STATE / work.study.study / work.job.name.replace("/", "-"),
        work.job.spec,
        list(work.job.reads),
        work.study.runtime.checkpoint_minutes,
        environment=runtime.decisive({"packages": artifacts.packages(), **environment}),
        started=work.started,
    )
    return Computation(work, device, environment, state)


def set_up(options: argparse.Namespace, study: Study, *, tuned: bool = False) -> torch.device:
    """Apply the runtime settings of a study to this process, and return the device."""
    from robustviews.machine import distributed, runtime

    if distributed.launched() and distributed.ranks() == 1:
        raise UsageError(
            f"only the verb pretrain runs under torchrun; run {options.name} without it"
        )
    runtime.configure(
        threads=options.threads or study.runtime.threads,
        deterministic=study.runtime.deterministic,
        tuned=tuned,
    )
    return runtime.choose_device(options.device)
