"""The probe that trains all weights: a fine-tuned encoder with a linear head.

Source: Ericsson et al. 2021 (ssl-transfer): SGD with Nesterov momentum 0.9, a cosine to zero, 5,000
updates of 64 images, learning rate and weight decay chosen on validation images, then a training
on all training images. Their grid has 16 pairs, ours 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from robustviews.augment import Views
from robustviews.options import LazyModule, option, plan_only
from robustviews.probe.protocol import Classifying

if TYPE_CHECKING:
    from torch import nn

    from robustviews.encoder import Encoder
    from robustviews.probe import heads, tuning
    from robustviews.probe.protocol import History, Training
else:
    heads = LazyModule("robustviews.probe.heads")
    tuning = LazyModule("robustviews.probe.tuning")


@dataclass(frozen=True)
class FinetuneProbe(Classifying):
    """A linear head, and the encoder trained with it; batch norm is in train mode.

    Attributes:
        updates: updates of a training.
        batch_size: images in a minibatch; all images if there are fewer.
        lr: learning rates before the cosine to zero. The pair of rate and decay with the highest
            accuracy on a held-out tenth of the training images is used to train on all of them; a
            single pair is used as it is.
        weight_decay: weight decays, each tried with each learning rate.
        crop: `resized` trains on random windows, `padded` on shifted images, as in `views` of a
            run, `none` on whole images; all are flipped at random.
        scale: smallest and largest share of the area in a window; only for `resized`.
        padding: width of the border in pixels; only for `padded`.
        precision: arithmetic of the network in training, as of a run.
        feature: what the head reads: `backbone`, or the `prefeature` above it.
    """

    updates: int = option(5000, ge=1)
    batch_size: int = option(64, ge=2)
    lr: tuple[float, ...] = option((0.1, 0.01, 0.001), gt=0)
    weight_decay: tuple[float, ...] = option((0.0, 1e-4), ge=0)
    crop: Literal["resized", "padded", "none"] = "resized"
    scale: tuple[float, float] = option((0.08, 1.0), gt=0, le=1)
    padding: int = option(4, ge=0)
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    feature: Literal["prefeature", "backbone"] = "backbone"

    def __post_init__(self) -> None:
        """Refuse empty lists, and a range of areas whose ends are swapped."""
        for name in ("lr", "weight_decay"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one value, found none")
        _ = self.views

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Learning rate and weight decay of each training that is tried."""
        return [(lr, decay) for lr in self.lr for decay in self.weight_decay]

    @property
    def views(self) -> Views:
        """How training images are cropped and flipped."""
        return Views(
            count=1,
            crop=self.crop,
            scale=self.scale,
            padding=self.padding,
            augmentation="geometry",
        )

    @property
    @plan_only
    def network_updates(self) -> int:
        """Return the updates of all trainings."""
        trainings = len(self.pairs) + 1 if len(self.pairs) > 1 else 1
        return self.updates * trainings

    @plan_only
    def describe(self) -> str:
        """Return the length of the training and what is chosen."""
        text = f"all weights, {self.updates} updates"
        if len(self.pairs) == 1:
            return f"{text}, lr {self.lr[0]:g}, weight decay {self.weight_decay[0]:g}"
        return f"{text}, best of {len(self.pairs)} rates and decays on a held-out tenth"

    def train(
        self, encoder: Encoder, training: Training, *, start: nn.Module | None = None
    ) -> tuple[nn.Module, History]:
        """Train encoder and head; the returned head holds the encoder, too."""
        return tuning.Tuning(self, encoder, training).run()
