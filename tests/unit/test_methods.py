"""Methods: the views that each uses, what an adversary perturbs, and the passes of a loss.

Losses and switches are compared with the published code in `tests/reference`.
"""

from __future__ import annotations

import math

import pytest
import torch

from robustviews import losses
from robustviews.methods import METHODS, Batch, EmpSsl, SimClr, Supervised
from robustviews.methods.protocol import across
from robustviews.network import build_network
from tests.unit.tiny_models import CLASSES, SIZE, VIEWS, encoder_for, labels_of, small_method

B = 6
methods = pytest.mark.parametrize("name", METHODS)


def batch_of(count, seed=0):
    """Return a minibatch of noise with `count` views."""
    generator = torch.Generator().manual_seed(seed)
    shape = (B, 3, SIZE, SIZE)
    images, views = (
        torch.rand(shape, generator=generator),
        torch.rand(count, *shape, generator=generator),
    )
    return Batch(images, views, labels_of(B))


def network(name):
    return build_network(encoder_for(name), small_method(name)).train()


class Watched:
    """A network that records its inputs, and whether gradients were enabled."""

    def __init__(self, name):
        self.net = network(name)
        self.shown, self.with_gradient = [], []

    def __call__(self, images):
        self.shown.append(images.detach().clone())
        out = self.net(images)
        self.with_gradient.append(out.requires_grad)
        return out


# Views


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("emp_ssl", 1, "emp_ssl needs at least 2 views, found count: 1"),
        ("simclr", 1, "simclr takes exactly 2 views, found count: 1"),
        ("simclr", 3, "simclr takes exactly 2 views, found count: 3"),
        ("supervised", 2, "supervised takes exactly 1 view, found count: 2"),
        ("byol", 1, "this method needs at least 2 views, found count: 1"),
    ],
)
def test_a_wrong_number_of_views_is_refused_with_the_expected_number(name, wrong, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        METHODS[name]().check_views(wrong)


@methods
def test_the_right_number_of_views_passes(name):
    METHODS[name]().check_views(VIEWS[name])
    EmpSsl().check_views(16)


@pytest.mark.parametrize("name", ["barlow_twins", "vicreg", "simsiam"])
def test_the_loss_of_many_views_is_the_mean_over_pairs(name):
    method, net, batch = small_method(name), network(name).eval(), batch_of(4)
    actual = method.train_loss(net, batch, method.target(batch))
    pairs = [batch._replace(views=batch.views[[i, j]]) for i in range(4) for j in range(i)]
    expected = [method.train_loss(net, pair, method.target(pair)) for pair in pairs]
    torch.testing.assert_close(actual, torch.stack(expected).mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["byol", "moco_v3", "swav", "dino"])
def test_the_student_alone_sees_further_views(name):
    method, net = small_method(name), network(name).eval()
    batch = batch_of(4)
    loss = method.train_loss(net, batch, method.target(batch))
    swapped = batch._replace(views=batch.views[[0, 1, 3, 2]])
    torch.testing.assert_close(method.train_loss(net, swapped, method.target(swapped)), loss)
    other = batch._replace(views=batch.views[[2, 1, 0, 3]])
    assert not torch.isclose(method.train_loss(net, other, method.target(other)), loss, atol=1e-4)


def test_each_target_meets_the_predictions_of_all_other_views():
    met = []
    mean = across([1, 2], [10, 20, 30], lambda *pair: met.append(pair) or math.prod(pair))
    assert met == [(1, 20), (1, 30), (2, 10), (2, 30)]
    assert mean == (20 + 30 + 20 + 60) / 4


def test_an_adversary_perturbs_all_views_of_emp_ssl_and_one_image_of_the_others():
    many, pair, one = batch_of(3), batch_of(2), batch_of(1)
    assert EmpSsl().target(many) is many.views
    assert torch.equal(SimClr().target(pair), pair.views[1])
    same_view, raw = SimClr(simclr_train_pair="same_view"), SimClr(simclr_train_pair="raw")
    assert torch.equal(same_view.target(pair), pair.views[1])
    assert torch.equal(raw.target(pair), pair.images)
    assert torch.equal(Supervised().target(one), one.views[0])


# Losses


@methods
def test_loss_is_a_scalar_with_gradient_for_every_parameter_and_every_perturbed_image(name):
    method, net, batch = small_method(name), network(name), batch_of(VIEWS[name])
    adversarial = method.target(batch).clone().requires_grad_()
    loss = method.train_loss(net, batch, adversarial)
    assert loss.shape == ()
    assert loss.isfinite()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
    assert (adversarial.grad.flatten(-3).abs().sum(-1) > 0).all()


@methods
def test_an_adversary_maximises_the_training_loss_unless_its_pair_differs(name):
    method = SimClr(simclr_attack_pair="train_pair") if name == "simclr" else small_method(name)
    net, batch = network(name).eval(), batch_of(VIEWS[name])
    moved = method.target(batch) + 0.01
    expected = method.train_loss(net, batch, moved)
    assert torch.equal(method.attack_loss(net, batch)(moved), expected)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "supervised"])
def test_self_supervised_losses_never_use_labels(name):
    method, net, batch = small_method(name), network(name).eval(), batch_of(VIEWS[name])
    target = method.target(batch)
    blind = batch._replace(labels=None)
    assert torch.equal(method.train_loss(net, blind, target), method.train_loss(net, batch, target))


def test_emp_ssl_is_200_invariances_and_a_coding_rate_of_projections_by_view():
    net, batch = network("emp_ssl").eval(), batch_of(3)
    z = losses.unit(torch.stack([net(view) for view in batch.views]))  # (V, B, D)
    expected = 200 * losses.invariance(z) + losses.total_coding_rate(z)
    actual = EmpSsl().train_loss(net, batch, batch.views)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


def test_unit_scale_sums_both_terms_over_views():
    net, batch = network("emp_ssl").eval(), batch_of(3)
    z = losses.unit(torch.stack([net(view) for view in batch.views]))
    for kind in ("cosine", "trace"):
        method = EmpSsl(emp_scale="unit_sum", emp_invariance=kind, tcr_eps=0.04)
        one_by_one = losses.invariance(z, kind=kind) + losses.total_coding_rate(z, eps=0.04)
        actual = method.train_loss(net, batch, batch.views)
        torch.testing.assert_close(actual, 3 * one_by_one, rtol=1e-6, atol=1e-5)


def test_all_views_of_emp_ssl_share_one_pass_and_so_one_batch_norm():
    watched, batch = Watched("emp_ssl"), batch_of(3)
    EmpSsl().train_loss(watched, batch, batch.views)
    [shown] = watched.shown
    assert torch.equal(shown, batch.views.flatten(0, 1))


def test_each_view_of_simclr_has_a_pass_of_its_own():
    watched, batch = Watched("simclr"), batch_of(2)
    SimClr().train_loss(watched, batch, batch.views[1] + 0.1)
    assert len(watched.shown) == 2
    assert torch.equal(watched.shown[0], batch.views[0])
    assert torch.equal(watched.shown[1], batch.views[1] + 0.1)


@pytest.mark.parametrize(
    ("attack_pair", "train_pair", "clean"),
    [
        ("same_view", "views", "second"),
        ("same_view", "raw", "raw"),
        ("train_pair", "views", "first"),
        ("train_pair", "raw", "first"),
        ("train_pair", "same_view", "second"),
    ],
)
def test_the_adversary_of_simclr_sees_the_clean_image_that_its_pair_names(
    attack_pair, train_pair, clean
):
    watched, batch = Watched("simclr"), batch_of(2)
    method = SimClr(simclr_attack_pair=attack_pair, simclr_train_pair=train_pair)
    method.attack_loss(watched, batch)(method.target(batch) + 0.1)
    expected = {"first": batch.views[0], "second": batch.views[1], "raw": batch.images}[clean]
    assert torch.equal(watched.shown[0], expected)
    assert torch.equal(watched.shown[1], method.target(batch) + 0.1)


@pytest.mark.parametrize(
    ("branch", "passes", "with_gradient"),
    [("recomputed", 6, [True] * 6), ("once", 4, [False, True, True, True])],
)
def test_a_clean_branch_is_encoded_in_every_step_or_once_without_gradient(
    branch, passes, with_gradient
):
    watched, batch = Watched("simclr"), batch_of(2)
    loss = SimClr(simclr_clean_branch=branch).attack_loss(watched, batch)
    for step in range(3):
        loss(batch.views[1] + 0.1 * step)
    assert len(watched.shown) == passes
    assert watched.with_gradient == with_gradient


def test_supervised_loss_is_the_mean_of_minus_log_probabilities_of_the_labels():
    net, batch = network("supervised").eval(), batch_of(1)
    logits = net(batch.views[0]).double()
    log_sums = logits.exp().sum(dim=1).log()
    expected = (log_sums - logits[torch.arange(B), batch.labels]).mean().item()
    actual = Supervised().train_loss(net, batch, batch.views[0]).item()
    assert actual == pytest.approx(expected, rel=1e-6)


def test_supervised_loss_is_small_for_right_logits_and_large_for_wrong_ones():
    batch = batch_of(1)
    right = 10 * torch.nn.functional.one_hot(batch.labels, CLASSES).float()
    loss = [
        Supervised().train_loss(lambda _, x=x: x, batch, batch.views[0]) for x in (right, -right)
    ]
    assert loss[0] < 0.01
    assert loss[1] > math.log(CLASSES)
