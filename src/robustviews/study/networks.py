"""Encoders that a study attacks, and their names: pretrained or imported."""

from __future__ import annotations

from dataclasses import dataclass, replace


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
    """An encoder on a data set, on which heads are trained and attacked.

    Attributes:
        entry: run or imported encoder of the study.
        dataset: the data set.
        seed: seed of the heads, and of the pretraining.
        pretraining: where the encoder comes from; None for an imported one.
        trained_on: data set on which heads are trained, if `dataset` has only test images.
    """

    entry: str
    dataset: str
    seed: int
    pretraining: Pretraining | None
    trained_on: str = ""

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
