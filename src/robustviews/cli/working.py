"""A job that a verb runs: its study, its locks, its record, and the settings of the process."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustviews import artifacts
from robustviews.artifacts.resume import Resume
from robustviews.cli.names import UsageError, known
from robustviews.machine import gpus
from robustviews.study import Study, folders, load_study, plan
from robustviews.study.jobs import Job, jobs
from robustviews.workflow import locks

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Work:
    """A job, the start time and the commit at its start, and whether it has a GPU of its own."""

    study: Study
    job: Job
    folder: Path
    started: artifacts.Start
    commit: tuple[str | None, bool | None]
    own_gpu: bool = False

    def resume(self, environment: dict[str, Any]) -> Resume:
        """Return the saved state from which the job resumes in an environment."""
        from robustviews.machine import runtime

        return Resume(
            folders.STATE / self.study.study / self.job.name.replace("/", "-"),
            self.job.spec,
            list(self.job.reads),
            self.study.runtime.checkpoint_minutes,
            environment=runtime.decisive({"packages": artifacts.packages(), **environment}),
            started=self.started,
        )

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


@contextlib.contextmanager
def working(options: argparse.Namespace, rule: str, *names: str) -> Iterator[Work]:
    """Yield a job; lock its folder, and a GPU if it computes on one, during the block."""
    study, started, commit = load_study(options.study), artifacts.Start(), artifacts.commit()
    jobs_of_rule = {key[1]: job for key, job in jobs(study).items() if key[0] == rule}
    first: dict[str, Iterable[str]] = {
        "pretrain": plan.pretrainings(study),
        "encoder": study.encoders,
        "sanity": plan.attacked(study),
    }
    firsts = first.get(rule, plan.networks(study))
    groups = [list(group) for group in (firsts, study.probes, study.attacks)]
    for name, group, kind in zip(names, groups, ("run", "probe", "attack"), strict=False):
        known(name, group, kind)
    known("/".join(names), jobs_of_rule, rule)
    job = jobs_of_rule["/".join(names)]
    assert job.folder is not None
    with (
        locks.acquire(job.folder, f"{rule} {job.name}"),
        gpus.taken(options.device, processes=int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) as own,
    ):
        yield Work(study, job, job.folder, started, commit, own)


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
