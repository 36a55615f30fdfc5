"""Linear probes: how a frozen encoder becomes a classifier, and what it reads of a test image.

The encoder is in eval mode and its parameters never change; only the linear head is trained, or
nothing if the network has a head of its own. `PROBES` also has the probes of the other modules.

Source: arXiv 2501.03507 and its reference code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from robustviews.attacks import fraction, in_pixels, pgd
from robustviews.options import LazyModule, option, plan_only, remark, switch
from robustviews.probe.dense import DetectionProbe, SegmentationProbe
from robustviews.probe.finetune import FinetuneProbe
from robustviews.probe.knn import KnnProbe
from robustviews.probe.logistic import LogisticProbe
from robustviews.probe.protocol import Classifying, Probe

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robustviews import augment, optim
    from robustviews.augment import Views
    from robustviews.encoder import Encoder
    from robustviews.machine import feed, runtime
    from robustviews.probe import heads
    from robustviews.probe.protocol import History, Training
else:
    torch, nn = LazyModule("torch"), LazyModule("torch.nn")
    augment, feed = LazyModule("robustviews.augment"), LazyModule("robustviews.machine.feed")
    heads, optim = LazyModule("robustviews.probe.heads"), LazyModule("robustviews.optim")
    runtime = LazyModule("robustviews.machine.runtime")

_HORIZON_OF_THE_CODE = 100  # epochs


@dataclass(frozen=True)
class LinearProbe(Classifying):
    """A linear head on frozen features of whole images; the features are computed once.

    Attributes:
        epochs: switch `probe_epochs`. Code: 2 in the EMP-SSL script and 20 in the SimCLR script;
            one value makes the rows of a table comparable.
        lr: learning rate of Adam.
        batch_size: images in a minibatch.
        feature: switch `probe_feature`. Code: the 4096-d `prefeature`; `backbone` is the 512-d
            feature below it.
    """

    epochs: int = switch(
        20, ge=1, name="probe_epochs", code={"emp_ssl": (2,), "simclr": (20,)}, paper=(20,)
    )
    lr: float = option(3e-4, gt=0)
    batch_size: int = option(256, ge=1)
    feature: Literal["prefeature", "backbone"] = switch(
        "prefeature", name="probe_feature", code=("prefeature",)
    )

    @plan_only
    def describe(self) -> str:
        """Return the length of the training."""
        return f"linear head, {self.epochs} epochs"

    def train(
        self, encoder: Encoder, training: Training, *, start: nn.Module | None = None
    ) -> tuple[nn.Module, History]:
        """Train on the features of whole images."""
        h = heads.frozen_features(self, encoder, training)
        head = start or heads.new_head(encoder, self.feature, training)
        adam = optim.Adam(head.parameters(), self.lr)
        fit = heads.Fit(head, adam, training)
        return head, fit.run(h, batch_size=self.batch_size, epochs=self.epochs)


@dataclass(frozen=True)
class RobustLinearProbe(Classifying):
    """A linear head trained on PGD examples against encoder and head (r-LE).

    Attributes:
        epochs: passes over the training set.
        lr: learning rate of Adam.
        batch_size: images in a minibatch.
        feature: as in the linear probe.
        eps: radius of the attack in training, in 1/255.
        step_size: step size of the attack, in 1/255; 2.55 is the paper's 0.01.
        steps: steps of the attack.
        rle_start: what the head starts from: the name of a linear probe (code, EMP-SSL: the
            standard head) or `fresh` (code, SimCLR).
        rle_trailing_standard: epochs of standard training afterwards. Code: the EMP-SSL script
            trains the robust head in this way before it attacks the head, which undoes the robust
            training; 0 leaves the head robust.
        craft_precision: arithmetic while examples are computed, as `precision` of a run; the head
            is fitted to float32 features of the examples.
        weak: why steps that cannot reach the surface of the ball are wanted.
    """

    epochs: int = switch(
        20, ge=1, name="probe_epochs", code={"emp_ssl": (2,), "simclr": (20,)}, paper=(20,)
    )
    lr: float = option(3e-4, gt=0)
    batch_size: int = option(256, ge=1)
    feature: Literal["prefeature", "backbone"] = switch(
        "prefeature", name="probe_feature", code=("prefeature",)
    )
    eps: float = option(8.0, ge=0, le=255)
    step_size: float = option(2.55, gt=0, le=255)
    steps: int = option(5, ge=1)
    rle_start: str = switch(
        "fresh",
        code={"emp_ssl": ("standard head",), "simclr": ("fresh",)},
        paper=("fresh",),
        shown_as=lambda start: start if start == "fresh" else "standard head",
    )
    rle_trailing_standard: int = switch(0, ge=0, code={"emp_ssl": (2,), "simclr": (0,)}, paper=(0,))
    craft_precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    weak: str = remark()

    @property
    def starts_from(self) -> str | None:
        """Return the probe that `rle_start` names."""
        return None if self.rle_start == "fresh" else self.rle_start

    @plan_only
    def describe(self) -> str:
        """Return the attack in training and its length."""
        examples = f"{self.steps}-step PGD examples of {fraction(self.eps)}"
        weak = f" (weak: {self.weak})" if self.weak else ""
        return f"linear head on {examples}, {self.epochs} epochs{weak}"

    def train(
        self, encoder: Encoder, training: Training, *, start: nn.Module | None = None
    ) -> tuple[nn.Module, History]:
        """Attack each minibatch, then fit the head to the features of the examples."""
        head = start or heads.new_head(encoder, self.feature, training)
        adam = optim.Adam(head.parameters(), self.lr)

        def attacked(images: Tensor, labels: Tensor) -> Tensor:
            parts = zip(images.split(training.batch), labels.split(training.batch), strict=True)
            with runtime.frozen(head):
                features = [
                    self._attacked(encoder, head, augment.to_float(part, training.size), classes)
                    for part, classes in parts
                ]
            return torch.cat(features)

        fit, epochs = heads.Fit(head, adam, training), self.epochs
        with runtime.frozen(encoder):
            history = fit.run(training.images, attacked, batch_size=self.batch_size, epochs=epochs)
        if self.rle_trailing_standard:
            h = heads.frozen_features(self, encoder, training)
            epochs += self.rle_trailing_standard
            history = fit.run(h, batch_size=self.batch_size, epochs=epochs)
        return head, history

    def _attacked(
        self, encoder: Encoder, head: nn.Module, images: Tensor, labels: Tensor
    ) -> Tensor:
        """Return features (B, F) of PGD examples for images (B, 3, H, W) in [0, 1]."""

        def loss(adversarial: Tensor) -> Tensor:
            h = encoder.represent(adversarial, self.feature, precision=self.craft_precision)
            # Not a mean: the gradient of an image must not depend on the batch size.
            return nn.functional.cross_entropy(head(h), labels, reduction="none")

        with runtime.tf32(allowed=self.craft_precision == "tf32"):
            adversarial = pgd(
                loss,
                images,
                eps=in_pixels(self.eps),
                step_size=in_pixels(self.step_size),
                steps=self.steps,
            )
        with torch.no_grad():
            return encoder.represent(adversarial, self.feature)


@dataclass(frozen=True)
class NcropProbe(Classifying):
    """A linear head on the mean feature of n random views, in training and in testing.

    An attack perturbs the n views jointly, through their mean.

    Attributes:
        n: views of each image, drawn once.
        epochs: passes over the features (switch `npatch_epochs`). Code: 100 in the EMP-SSL script
            and 20 in the SimCLR script.
        lr: initial learning rate of SGD.
        momentum: momentum of SGD.
        weight_decay: weight decay of SGD.
        batch_size: images in a minibatch.
        feature: as in the linear probe.
        npatch_augmentation: how views are drawn. `full`: crop, flip and colour (code); `geometry`:
            only crop and flip.
        npatch_views: whose changes of colour the views have. `emp_ssl`: those of EMP-SSL, whichever
            method has trained the encoder (code); `pretraining`: those of the encoder's training.
            The crop is always that of the training.
        npatch_schedule: schedule of the learning rate. `epochs`: a cosine per epoch that would
            reach zero after 100 epochs, however many there are (code: the 20 epochs of the SimCLR
            script end at .0274); `updates`: a cosine to zero over all updates.
    """

    n: int = option(32, ge=1)
    epochs: int = switch(100, ge=1, name="npatch_epochs", code={"emp_ssl": (100,), "simclr": (20,)})
    lr: float = option(0.03, gt=0)
    momentum: float = option(0.9, ge=0, lt=1)
    weight_decay: float = option(5e-5, ge=0)
    batch_size: int = option(100, ge=1)
    feature: Literal["prefeature", "backbone"] = switch(
        "prefeature", name="probe_feature", code=("prefeature",)
    )
    npatch_augmentation: Literal["full", "geometry"] = switch("full", code=("full",))
    npatch_views: Literal["emp_ssl", "pretraining"] = switch(
        "emp_ssl", code={"simclr": ("emp_ssl",)}
    )
    npatch_schedule: Literal["epochs", "updates"] = switch("epochs", code=("epochs",))
    draws_views: ClassVar[bool] = True

    @property
    def stack(self) -> int:
        """The n views."""
        return self.n

    @plan_only
    def describe(self) -> str:
        """Return the number of views and the length of the training."""
        return f"linear head on the mean over {self.n} views, {self.epochs} epochs"

    def inputs(
        self, images: Tensor, counters: Tensor, views: Views, *, size: int, seed: int
    ) -> Tensor:
        """Return n views of each image: (B, n, 3, H, W)."""
        views = replace(views, count=self.n)
        if self.npatch_augmentation == "geometry":
            views = replace(views, augmentation="geometry")
        elif self.npatch_views == "emp_ssl":
            views = replace(views, augmentation="emp_ssl")
        key = runtime.counter_key(seed, "ncrop")
        drawn = augment.make_views(images, views, size=size, key=key, counters=counters)
        return drawn.transpose(0, 1)  # (B, n, 3, H, W)

    def train(
        self, encoder: Encoder, training: Training, *, start: nn.Module | None = None
    ) -> tuple[nn.Module, History]:
        """Train on the mean features, by SGD with a cosine schedule."""
        h = heads.frozen_features(self, encoder, training)
        head = start or heads.new_head(encoder, self.feature, training)
        sgd = optim.Sgd(
            head.parameters(), self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )
        fit = heads.Fit(head, sgd, training, lr_at=self._schedule(len(training.labels)))
        return head, fit.run(h, batch_size=self.batch_size, epochs=self.epochs)

    def _schedule(self, images: int) -> Callable[[int], float]:
        """Return the learning rate before each update, counted from 0."""
        minibatches = -(-images // self.batch_size)
        if self.npatch_schedule == "epochs":
            return lambda step: optim.cosine_lr(
                step // minibatches, base=self.lr, horizon=_HORIZON_OF_THE_CODE
            )
        updates = self.epochs * minibatches
        return lambda step: optim.cosine_lr(step, base=self.lr, horizon=updates)


@dataclass(frozen=True)
class OwnHead(Classifying):
    """The classifier of a supervised network; nothing is trained.

    Attributes:
        feature: the classifier reads the backbone.
    """

    feature: ClassVar[Literal["backbone"]] = "backbone"
    trained: ClassVar[bool] = False

    @plan_only
    def describe(self) -> str:
        """Return the origin of the head."""
        return "the classifier that the network was trained with"

    def train(
        self, encoder: Encoder, training: Training, *, start: nn.Module | None = None
    ) -> tuple[nn.Module, History]:
        """Return the network's classifier."""
        return _own(encoder), []

    def restore(
        self, weights: Mapping[str, Tensor], encoder: Encoder, *, classes: int
    ) -> nn.Module:
        """Return the network's classifier; it has no weights of its own."""
        return _own(encoder)


def _own(encoder: Encoder) -> nn.Linear:
    if encoder.classifier is None:
        raise ValueError("probe `own` needs a supervised network, which has a classifier")
    return encoder.classifier


OWN_HEAD = OwnHead()
PROBES: dict[str, type[Probe]] = {
    "linear": LinearProbe,
    "robust_linear": RobustLinearProbe,
    "ncrop": NcropProbe,
    "logistic": LogisticProbe,
    "knn": KnnProbe,
    "finetune": FinetuneProbe,
    "segmentation": SegmentationProbe,
    "detection": DetectionProbe,
    "own": OwnHead,
}
