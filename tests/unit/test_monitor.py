"""What a training measures beside its loss: neighbours, spread, and a warning of a collapse."""

from __future__ import annotations

import logging

import pytest
import torch

from robustviews.machine import feed
from robustviews.methods import SimClr
from robustviews.monitor import Monitor, neighbours_accuracy, spread
from robustviews.network import build_network
from tests.unit.tiny_models import (
    SIZE,
    inventory,
    labels_of,
    noise_images,
    small_method,
    tiny_encoder,
)


def test_neighbours_leave_an_image_itself_out():
    far = torch.eye(4).repeat_interleave(3, dim=0) + 0.01 * torch.rand(12, 4)
    assert neighbours_accuracy(far, torch.arange(4).repeat_interleave(3)) == 1
    alone = torch.arange(12)  # an image that voted for itself would be right
    assert neighbours_accuracy(far, alone) == 0


def test_spread_is_that_of_random_directions_and_zero_for_equal_ones():
    random = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
    assert spread(random) == pytest.approx(0.25, rel=0.03)
    assert spread(7 * random) == pytest.approx(spread(random))
    assert spread(torch.ones(5, 16)) == 0


@pytest.mark.parametrize("name", ["simclr", "dino", "supervised"])
def test_measuring_changes_nothing(name):
    method = small_method(name)
    net = build_network(tiny_encoder(supervised=method.supervised), method).train()
    before, taught = inventory(net), inventory(net.teacher)
    measured = Monitor(feed.Resident(noise_images()), labels_of(), method, size=SIZE)(net)
    assert (inventory(net), inventory(net.teacher)) == (before, taught)
    assert measured.keys() == ({"knn"} if method.supervised else {"knn", "z_std"})


def test_a_collapse_is_reported_once_until_it_is_over(caplog):
    encoder = tiny_encoder()
    net = build_network(encoder, SimClr()).train()
    monitor = Monitor(feed.Resident(noise_images()), labels_of(), SimClr(), size=SIZE)
    last = encoder.projector[-1]
    weight = last.weight.detach().clone()
    with caplog.at_level(logging.WARNING), torch.no_grad():
        for scale in (0.0, 0.0, 1.0, 0.0):
            last.weight.copy_(scale * weight)
            last.bias.fill_(1 - scale)
            monitor(net)
    assert caplog.text.count("the projections have collapsed") == 2
