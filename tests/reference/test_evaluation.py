"""Probes and attacks of the product against the numpy evaluation, in float64 where it can be.

Images of a data set become float32 in the product; weights, features and gradients here are
float64, so that both sides differ by the rounding of pixels only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustviews.attacks import PgdAttack
from robustviews.augment import Views
from robustviews.evaluate import Classifier, evaluate
from robustviews.machine import runtime
from robustviews.probe import LinearProbe, NcropProbe, Probe, RobustLinearProbe
from robustviews.probe.protocol import Training

from . import published_evaluation
from .published_evaluation import Array, Head, Labels, Network, robust_linear_evaluation
from .recorded import CLEARLY_DIFFERENT, assert_near, difference

SIZE, FEATURES, CLASSES, VIEWS = 4, 12, 5, 3
PIXELS = 3 * SIZE**2
EPS, STEP_SIZE = 8, 2.55  # in 1/255; 2.55 is 0.01
EXACT = 1e-12  # float64 on both sides
ROUNDED = 1e-6  # float32 pixels


class OneLayer(nn.Module):
    """The encoder of `Network` in torch; it takes part in any gradient, as a frozen encoder."""

    classifier = None

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(PIXELS, FEATURES), nn.BatchNorm1d(FEATURES)
        self.double()
        arrays = {
            "layer.weight": net.a,
            "layer.bias": net.b,
            "norm.running_mean": net.mean,
            "norm.running_var": net.variance,
            "norm.weight": net.gamma,
            "norm.bias": net.beta,
        }
        self.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()}, strict=False)
        self.eval()

    def represent(self, images: Tensor, feature: str = "prefeature", **_: Any) -> Tensor:
        """Return features (N, F) in float64."""
        return self.norm(self.layer(images.double().flatten(1))).relu()

    def width_of(self, feature: str) -> int:
        """Return F."""
        return FEATURES


def network() -> Network:
    rng = np.random.default_rng(0)
    return Network(
        a=rng.normal(size=(FEATURES, PIXELS)),
        b=rng.normal(size=FEATURES),
        mean=rng.normal(size=FEATURES),
        variance=rng.uniform(0.5, 2.0, size=FEATURES),
        gamma=rng.normal(size=FEATURES),
        beta=rng.normal(size=FEATURES),
    )


def new_head() -> Head:
    rng = np.random.default_rng(1)
    return Head(rng.normal(size=(CLASSES, FEATURES)), rng.normal(size=CLASSES))


def in_torch(head: Head) -> nn.Linear:
    module = nn.Linear(FEATURES, CLASSES).double()
    module.load_state_dict({k: torch.tensor(v) for k, v in vars(head).items()})
    return module


def pixels(*shape: int) -> tuple[Array, Labels]:
    """Return images (N, ..., 3, S, S) uint8, black and white ones among them, and labels (N,)."""
    rng = np.random.default_rng(2)
    noise = rng.integers(-40, 296, size=(*shape, 3, SIZE, SIZE)).clip(0, 255)
    return noise.astype(np.uint8), rng.integers(0, CLASSES, size=shape[0])


def classifier(net: Network, head: Head, probe: Probe) -> Classifier:
    return Classifier(OneLayer(net), in_torch(head), probe)


# (a) The n-crop attack


def test_an_n_crop_attack_of_three_steps_perturbs_the_views_jointly_through_their_mean() -> None:
    net, head = network(), new_head()
    images, labels = pixels(20, VIEWS)
    stacks = images / 255
    expected = published_evaluation.ncrop_attack(net, head, stacks, labels, eps=EPS / 255, steps=3)
    attack = PgdAttack(eps=(EPS,), steps=3, step_size=STEP_SIZE)
    model = classifier(net, head, NcropProbe(n=VIEWS))
    actual = attack.perturb(
        model, torch.tensor(stacks), torch.tensor(labels), eps=EPS / 255, seed=0
    )
    assert_near(actual, expected, EXACT)
    logits = head.logits(published_evaluation.ncrop_features(net, expected))
    assert_near(model(actual).detach(), logits, EXACT)
    alone = published_evaluation.attack(net, head, stacks[:, 0], labels, eps=EPS / 255, steps=3)
    assert difference(expected[:, 0], alone) > CLEARLY_DIFFERENT  # each view for itself


@pytest.mark.parametrize("eps", [2, 8, 16])
def test_flags_of_an_n_crop_probe_are_those_of_the_attacked_mean(eps: float) -> None:
    net, head = network(), new_head()
    images, labels = pixels(60)
    probe, views = NcropProbe(n=VIEWS), Views(count=2)
    attack = PgdAttack(eps=(eps,), steps=3, step_size=STEP_SIZE)
    data = torch.tensor(images), torch.tensor(labels)
    flags = evaluate(classifier(net, head, probe), attack, *data, views=views, size=SIZE, seed=4)
    key = runtime.counter_key(4, "test")
    stacks = probe.inputs(data[0], torch.arange(60), views, size=SIZE, seed=key).double().numpy()
    attacked = published_evaluation.ncrop_attack(net, head, stacks, labels, eps=eps / 255, steps=3)
    for name, inputs in (("clean", stacks), (f"eps_{eps}", attacked)):
        logits = head.logits(published_evaluation.ncrop_features(net, inputs))
        expected = (logits.argmax(axis=1) == labels).astype(np.uint8)
        assert flags[name].tolist() == expected.tolist()
        assert 0 < expected.sum() < 60


# (b) r-LE, then PGD


def trained(probe: RobustLinearProbe, images: Array, labels: Labels, *, seed: int) -> nn.Module:
    """Return the product's head after one pass over the images, from `new_head`."""
    training = Training(
        torch.tensor(images),
        torch.tensor(labels),
        classes=CLASSES,
        views=Views(),
        size=SIZE,
        seed=seed,
    )
    encoder = OneLayer(network())
    head, _ = probe.train(encoder, training, start=in_torch(new_head()))
    return head


def test_a_robust_head_after_three_minibatches_and_its_accuracy_under_pgd() -> None:
    net, seed = network(), 3
    images, labels = pixels(60)
    order = runtime.permutation(60, seed, "probe", 0).numpy().reshape(3, 20)
    minibatches = [(images[index] / 255, labels[index]) for index in order]
    expected = robust_linear_evaluation(net, new_head(), minibatches)
    probe = RobustLinearProbe(epochs=1, batch_size=20)  # the defaults are those of the paper
    head = trained(probe, images, labels, seed=seed)
    for name, value in vars(expected).items():
        start = getattr(new_head(), name)
        moved, ours = value - start, head.get_parameter(name).detach().numpy() - start
        assert_near(ours, moved, ROUNDED, floor=0.0)
        assert np.abs(moved).max() > 6e-4  # more than two updates of Adam
    attack = PgdAttack(eps=(2, 4, 8), steps=20, step_size=STEP_SIZE)
    model = Classifier(OneLayer(net), head, LinearProbe())
    data = torch.tensor(images), torch.tensor(labels)
    flags = evaluate(model, attack, *data, views=Views(), size=SIZE, seed=0)
    for eps in (0, 2, 4, 8):
        x = images / 255
        attacked = published_evaluation.attack(net, expected, x, labels, eps=eps / 255, steps=20)
        ours = attack.perturb(model, torch.tensor(x), data[1], eps=eps / 255, seed=0)
        assert_near(ours, attacked, ROUNDED)
        right = expected.logits(net.features(attacked)).argmax(axis=1) == labels
        assert flags[f"eps_{eps}" if eps else "clean"].tolist() == right.tolist()
        assert 0 < right.sum() < 60


@pytest.mark.parametrize("wrong", [{"steps": 4}, {"eps": 4.0}, {"step_size": 2.0}, {"lr": 2.9e-4}])
def test_another_recipe_gives_another_head(wrong: dict[str, float]) -> None:
    images, labels = pixels(60)
    probe = RobustLinearProbe(epochs=1, batch_size=20)
    heads = [
        trained(each, images, labels, seed=3).weight.detach()
        for each in (probe, replace(probe, **wrong))
    ]
    assert difference(*heads) > CLEARLY_DIFFERENT
