"""Encoders that a study attacks, and their names: pretrained, imported, or tuned by a probe."""

from __future__ import annotations

from dataclasses import dataclass, replace

from robustviews.study.schema import Study

_TUNED = "--"  # between a network and the probe that tunes it; no name of a study has it


@dataclass(frozen=True)
class Pretraining:
    """One pretraining: a run of the study, on one data set, with one seed."""

    entry: str
    dataset: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder, such as emp-crop16-free3-cifar10-s0."""
        return f"{self.entry}-{self.dataset}-s{self.seed}"


@dataclass(frozen=True)
class Network:
    """An encoder on a data set, on which heads are trained and attacked."""

    entry: str  # run or imported encoder of the study
    dataset: str
    seed: int  # seed of the heads, and of the pretraining
    pretraining: Pretraining | None  # where the encoder comes from; None for an imported one
    trained_on: str = ""  # data set on which heads are trained, if `dataset` has only test images

    @property
    def name(self) -> str:
        """The name of its folders; that of the pretraining if both have the same data set."""
        if self.pretraining is None:
            return f"{self.entry}-{self.dataset}"
        if self.pretraining.dataset == self.dataset:
            return self.pretraining.name
        return f"{self.pretraining.name}-on-{self.dataset}"

    @property
    def taught(self) -> Network:
        """The network whose heads are trained, and attacked on `dataset`."""
        return replace(self, dataset=self.trained_on or self.dataset, trained_on="")

    @property
    def encoder(self) -> tuple[str, str]:
        """Rule and name of the job that makes the encoder."""
        if self.pretraining is None:
            return "encoder", self.entry
        return "pretrain", self.pretraining.name


def tunes(study: Study, probe: str) -> bool:
    """Return whether a probe of the study trains the encoder, too."""
    return probe in study.probes and study.probes[probe].network_updates > 0


def examination(study: Study, network: str, probe: str) -> str:
    """Return the job that checks a head: one per encoder, and a tuned encoder is one of its own."""
    return f"{network}{_TUNED}{probe}" if tunes(study, probe) else network


def examined(job: str) -> str:
    """Return the network of an examination, or of another job, from the name of the job."""
    return job.partition("/")[0].partition(_TUNED)[0]
