"""The package from Python: lazily imported, any network attacked, every file checked."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import robustviews
from robustviews import attack
from robustviews.artifacts import ArtifactError
from robustviews.study import folders, plan
from tests.unit.results_tree import small_study, write_tree

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 4


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 4)
    ).train()


def test_importing_the_package_imports_no_torch():
    code = "import sys, robustviews; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_name_of_the_package_exists_and_others_are_refused():
    for name in robustviews.__all__:
        assert getattr(robustviews, name)
    assert set(robustviews.__all__) <= set(dir(robustviews))
    with pytest.raises(AttributeError, match="load_model"):
        _ = robustviews.load_model


def test_an_attack_stays_in_its_ball_and_does_not_change_the_network(model):
    model[1].eval()
    buffers = [value.clone() for value in model.buffers()]
    attacked = attack(model, IMAGES, LABELS, eps=4, steps=3, batch=4)
    assert attacked.images.shape == IMAGES.shape
    assert 0 < (attacked.images - IMAGES).abs().max() <= 4 / 255 + 1e-6
    assert attacked.images.min() >= 0
    assert attacked.images.max() <= 1
    assert model.training
    assert not model[1].training, "frozen before, and still"
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(map(torch.equal, model.buffers(), buffers))


def test_flags_are_those_of_the_images_before_and_after(model):
    attacked = attack(model, IMAGES, LABELS, eps=64, steps=10, step_size=16)
    model.eval()
    assert torch.equal(attacked.clean, model(IMAGES).argmax(dim=1) == LABELS)
    assert torch.equal(attacked.robust, model(attacked.images).argmax(dim=1) == LABELS)


def test_the_same_seed_gives_the_same_images_and_another_seed_others(model):
    first, again, other = (
        attack(model, IMAGES, LABELS, eps=8, steps=1, random_start=True, seed=seed).images
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pdg"}, "no attack 'pdg'; did you mean `pgd`"),
        ({"images": IMAGES * 255}, r"expected values in \[0, 1\]"),
        ({"images": IMAGES.index_fill(0, torch.tensor(2), torch.nan)}, r"in \[0, 1\], found \[nan"),
        ({"images": IMAGES[0]}, r"expected \(N, 3, H, W\) float and \(N,\) int64"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"found \(0, 3, 8, 8\) torch.float32"),
        (
            {"labels": LABELS + 1},
            "expected labels from 0 to 3, as the classifier has 4 logits; found",
        ),
        ({"labels": LABELS - 1}, "found labels from -1 to 2"),
        ({"labels": LABELS.float()}, r"\(N,\) int64, found .* and \(6,\) torch.float32"),
        ({"labels": LABELS.unsqueeze(1)}, r"and \(6, 1\) torch.int64"),
        ({"eps": 8 / 255, "norm": "linf"}, r"expected a radius in 1/255 such as 8, found 0\.03"),
        ({"eps": 8 / 255}, r"expected a radius in 1/255 such as 8, found 0\.03"),
        ({"steps": 0}, "steps: must be at least 1, found 0"),
        ({"labels": LABELS[:2]}, r"expected \(N, 3, H, W\) float and \(N,\)"),
    ],
)
def test_inputs_that_cannot_be_attacked_are_refused_with_the_expected_form(changes, message, model):
    given = {"images": IMAGES, "labels": LABELS} | changes
    with pytest.raises(ValueError, match=message):
        attack(model, **given)


def test_a_network_without_logits_for_each_image_is_refused():
    segmentation = nn.Conv2d(3, 4, 1)
    message = r"expected logits \(B, classes\), found \(6, 4, 8, 8\) for 6 images"
    with pytest.raises(ValueError, match=message):
        attack(segmentation, IMAGES, LABELS)


def test_images_are_read_only_if_they_are_the_recorded_bytes(tmp_path):
    study = small_study()
    write_tree(tmp_path, study)
    run = next(iter(plan.pretrainings(study)))
    images, labels = robustviews.load_images(tmp_path / folders.job_folder(study, "pretrain", run))
    assert (images.shape[1:], images.dtype, len(images)) == ((3, 8, 8), torch.float32, len(labels))
    path = tmp_path / folders.data_folder(study, "digits") / "test_images.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ArtifactError, match=r"test_images\.npy: expected sha256:"):
        robustviews.load_images(tmp_path / folders.job_folder(study, "pretrain", run))
