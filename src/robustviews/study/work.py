"""How much work a job is, counted from its options: for estimates and for what a cluster is asked.

A pass is a forward and a backward pass of the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from robustviews.attacks import Attack
from robustviews.methods import SimClr
from robustviews.probe import Probe
from robustviews.probe.dense import DenseProbe
from robustviews.regimes import Standard, passes_over_data
from robustviews.sanity import Sanity, dense, effort
from robustviews.study import plan
from robustviews.study.schema import Encoder, Run, Study
from robustviews.study.shapes import Shape
from robustviews.tasks.classification import CLASSIFICATION

# Of an imported encoder whose architecture no study file states.
_ASSUMED = Encoder(backbone="resnet50", stem="imagenet")


def seen_run(study: Study, network: str) -> Run:
    """Return the run of a network; for an imported encoder, one with an assumed architecture."""
    options = plan.options_of(study, plan.networks(study)[network].entry)
    if isinstance(options, Run):
        return options
    return Run(SimClr(), Standard(), (), epochs=1, views=options.views, encoder=_ASSUMED)


def passes_of(run: Run) -> int:
    """Return how often a training passes over the data."""
    replays = run.regime.updates_per_batch
    return passes_over_data(run.epochs, run.epochs_meaning, replays, run.views.count)


def passes_per_image(run: Run) -> int:
    """Return the passes of one view that a training takes for each training image."""
    return passes_of(run) * run.views.count * run.regime.updates_per_batch * (1 + run.regime.steps)


@dataclass(frozen=True)
class Training:
    """Work of a pretraining."""

    minibatches: int  # of all passes over the data
    views: int  # of a minibatch
    passes: int  # of each view, in each minibatch

    @classmethod
    def of(cls, run: Run, shape: Shape) -> Training:
        """Count the work of a run on a data set."""
        return cls(
            minibatches=passes_of(run) * (shape.train // run.batch_size),
            views=run.batch_size * run.views.count,
            passes=run.regime.updates_per_batch * (1 + run.regime.steps),
        )


@dataclass(frozen=True)
class Fit:
    """Work of a probe.

    Attributes:
        images: training images, each encoded in `stack` views.
        stack: views of an image.
        updates: of the head, or of the whole network.
        batch: images of an update.
        passes: of the encoder for each image of an update; 0 where it stays frozen, and features
            are computed once, or maps in each update if too many bytes would have to be kept.
    """

    images: int
    stack: int
    updates: int
    batch: int
    passes: int

    @classmethod
    def of(cls, probe: Probe, shape: Shape) -> Fit:
        """Count the work of a probe on a data set."""
        if isinstance(probe, DenseProbe):
            images = min(probe.images or shape.train, shape.train)
            batch = min(probe.batch_size, images)
            return cls(images, 1, probe.updates, batch, int(probe.tuned))
        batch = probe.batch_size or shape.train
        updates = probe.network_updates or (probe.epochs or 1) * math.ceil(shape.train / batch)
        passes = probe.steps + 1 if probe.steps or probe.network_updates else 0
        return cls(shape.train, probe.stack, updates, batch, passes)


@dataclass(frozen=True)
class Evaluation:
    """Work of an attack."""

    images: int  # attacked, at each radius
    stack: int  # views of an image
    at_once: int  # images attacked at a time
    radii: int  # number of radii
    passes: float  # of an image at one radius, if no try succeeds

    @classmethod
    def of(cls, attack: Attack, probe: Probe, shape: Shape, *, batch: int) -> Evaluation:
        """Count the work of an attack through a probe, `batch` views at a time."""
        images = min(attack.images or shape.test, shape.test)
        at_once = min(images, max(1, batch // probe.stack))
        return cls(images, probe.stack, at_once, len(attack.eps), attack.passes)

    @property
    def calls(self) -> int:
        """Minibatches of all radii."""
        return self.radii * math.ceil(self.images / self.at_once)


@dataclass(frozen=True)
class Examination:
    """Work of the checks of a head."""

    images: int  # attacked in each check
    stack: int  # views of an image
    at_once: int  # images in a batch
    passes: float  # of an image
    forwards: float  # forward passes of an image without a backward pass, if no attack succeeds

    @classmethod
    def of(cls, options: Sanity, probe: Probe, shape: Shape, *, batch: int) -> Examination:
        """Count the work of the checks of a head, `batch` views at a time."""
        images = min(options.images_of(probe.stack), shape.test)
        at_once = min(images, max(1, batch // probe.stack))
        counted = effort if probe.task is CLASSIFICATION else dense.effort
        passes, forwards = counted(options, images=images)
        return cls(images, probe.stack, at_once, passes, forwards)

    @property
    def calls(self) -> int:
        """Batches of each pass."""
        return math.ceil(self.images / self.at_once)
