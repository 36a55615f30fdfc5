"""Probes of dense tasks: a head on the maps of an encoder, which stays frozen or is tuned with it.

Protocol of our own; sizes and rates are those of small networks, see docs/dense.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustviews.options import LazyModule, option, plan_only
from robustviews.probe.protocol import Defaults
from robustviews.tasks.detection import DETECTION
from robustviews.tasks.protocol import Task
from robustviews.tasks.segmentation import SEGMENTATION

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustviews import encoder as encoders
    from robustviews.encoder import Encoder
    from robustviews.probe import dense_fit
    from robustviews.probe.protocol import History, Training
    from robustviews.tasks.protocol import Maps
else:
    encoders = LazyModule("robustviews.encoder")
    dense_fit = LazyModule("robustviews.probe.dense_fit")

KEPT = 2**30
"""Bytes of maps of a frozen encoder, at most, that are computed once and kept."""


@dataclass(frozen=True)
class DenseProbe(Defaults):
    """A head on the maps of an encoder, trained by AdamW with warm-up and a cosine to zero.

    Attributes:
        tuned: whether the encoder is trained, too; it is then an artifact of its own.
        updates: updates of the training.
        batch_size: images in a minibatch; all images if there are fewer.
        lr: learning rate of the head after the warm-up.
        encoder_lr: that of a tuned encoder; null for a third of `lr`.
        weight_decay: decoupled decay of all weights.
        warmup: updates in which the rates rise linearly from zero.
        clip: largest length of the gradient of all weights.
        images: training images to use, the first ones; null for all.
        flip: mirror each training image with probability 1/2.
        batchnorm: whether the batch norms of a tuned encoder keep their statistics (`frozen`) or
            take those of each minibatch (`train`). The norms of the head are always trained.
    """

    tuned: bool = False
    updates: int = option(400, ge=1)
    batch_size: int = option(20, ge=1)
    lr: float = option(0.01, gt=0)
    encoder_lr: float | None = option(None, gt=0)
    weight_decay: float = option(1e-4, ge=0)
    warmup: int = option(10, ge=0)
    clip: float = option(10.0, gt=0)
    images: int | None = option(None, ge=1)
    flip: bool = False
    batchnorm: Literal["frozen", "train"] = "train"
    task: ClassVar[Task]
    feature: ClassVar[Literal["backbone"]] = "backbone"

    @property
    @plan_only
    def network_updates(self) -> int:
        """Return the updates of a tuned encoder."""
        return self.updates if self.tuned else 0

    @plan_only
    def describe(self) -> str:
        """Return what is trained, and how long."""
        trained = "all weights" if self.tuned else "the head"
        return f"{self.task.name} head, {self.updates} updates of {trained}"

    def features(self, encoder: Encoder, inputs: Tensor) -> Maps:
        """Return the maps of an encoder."""
        return encoder.maps(inputs)

    def train(
        self, encoder: Encoder, training: Training, *, start: nn.Module | None = None
    ) -> tuple[nn.Module, History]:
        """Train the head, and the encoder with it if it is tuned; a line of history per pass."""
        return dense_fit.DenseFit(self, encoder, training).run()

    def restore(
        self, weights: Mapping[str, Tensor], encoder: Encoder, *, classes: int
    ) -> nn.Module:
        """Return the head with these weights; a tuned encoder has weights of its own."""
        head = self.task.head(encoder.backbone.channels, classes)
        encoders.load_strictly(head, weights, "head")
        return head.to(next(encoder.parameters()).device)


@dataclass(frozen=True)
class SegmentationProbe(DenseProbe):
    """A feature pyramid with a class for each pixel; options as in `DenseProbe`."""

    task: ClassVar[Task] = SEGMENTATION


@dataclass(frozen=True)
class DetectionProbe(DenseProbe):
    """A detector without anchors (FCOS) of one level; options as in `DenseProbe`."""

    lr: float = option(0.005, gt=0)
    warmup: int = option(15, ge=0)
    task: ClassVar[Task] = DETECTION
