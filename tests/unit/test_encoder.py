"""Encoders: torchvision's residual networks with other heads, reproducible and strict."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from robustviews.encoder import build_encoder, fold_batchnorm_
from robustviews.resnet import BACKBONES, LAYOUTS, ResNet
from tests.unit.tiny_models import CLASSES, HIDDEN, PROJECTION, WIDTH, tiny_encoder

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
EXPANSION = {"resnet18": 1, "resnet34": 1, "resnet50": 4, "resnet101": 4}


def torchvision_network(backbone, stem):
    """Return torchvision's network in float64, its batch norm with random weights."""
    from torchvision import models

    net = getattr(models, backbone)(weights=None)
    net.fc = torch.nn.Identity()
    if stem == "cifar":
        net.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        net.maxpool = torch.nn.Identity()
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            torch.nn.init.normal_(module.bias, generator=generator)
    return net.double()


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbone_is_torchvisions_network(backbone, stem):
    theirs = torchvision_network(backbone, stem)
    ours = ResNet(*BACKBONES[backbone], width=64, stem=stem).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    size = 16 if stem == "cifar" else 64  # 2x2 at the end, for batch norm
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        for mode in (True, False):  # statistics of the batch first, then the running ones
            torch.testing.assert_close(
                ours.train(mode)(images), theirs.train(mode)(images), rtol=0, atol=1e-10
            )
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_features_and_projections_have_the_requested_widths(backbone, stem):
    encoder = tiny_encoder(backbone=backbone, stem=stem).eval()
    backbone_width = 8 * WIDTH * EXPANSION[backbone]
    assert encoder.represent(IMAGES, "backbone").shape == (3, backbone_width)
    assert encoder.represent(IMAGES).shape == (3, HIDDEN)
    assert encoder(IMAGES).shape == (3, PROJECTION)
    assert encoder.width_of("backbone") == backbone_width
    assert encoder.width_of("prefeature") == HIDDEN


def test_standard_network_has_the_paper_s_widths():
    with torch.device("meta"):
        encoder = build_encoder()
    assert encoder.width_of("backbone") == 512
    assert encoder.width_of("prefeature") == 4096
    shapes = [tuple(layer.weight.shape) for layer in encoder.projector[::3]]
    assert shapes == [(4096, 4096), (1024, 4096)]
    assert tuple(encoder.backbone.conv1.weight.shape) == (64, 3, 3, 3)


@pytest.mark.parametrize(("stem", "sides"), [("cifar", (16, 16, 2)), ("imagenet", (8, 4, 1))])
def test_only_the_imagenet_stem_makes_images_smaller(stem, sides):
    backbone = tiny_encoder(stem=stem).backbone
    actual = []
    for name in ("conv1", "maxpool", "layer4"):
        backbone.get_submodule(name).register_forward_hook(
            lambda *call: actual.append(call[-1].shape[-1])
        )
    backbone(IMAGES)
    assert tuple(actual) == sides


def test_a_padding_of_2_makes_the_maps_of_a_cifar_stem_larger_and_keeps_all_shapes():
    narrow, padded = tiny_encoder().eval(), tiny_encoder(padding=2).eval()
    padded.load_state_dict(narrow.state_dict(), strict=True)
    sides = [encoder.backbone.conv1(IMAGES).shape[-1] for encoder in (narrow, padded)]
    assert sides == [16, 18]
    assert not torch.allclose(padded(IMAGES), narrow(IMAGES), atol=0.01)


def test_normalisation_is_part_of_the_network_and_of_its_weights():
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    plain, normalised = tiny_encoder(), tiny_encoder(normalise=(mean, std))
    weights = normalised.state_dict()
    buffers = {name: weights.pop(f"backbone.normalise.{name}") for name in ("mean", "std")}
    assert buffers["mean"].flatten().tolist() == pytest.approx(mean)
    assert buffers["std"].flatten().tolist() == pytest.approx(std)
    assert all(torch.equal(weights[name], value) for name, value in plain.state_dict().items())
    assert len(weights) == len(plain.state_dict())
    for feature in ("prefeature", "backbone"):
        torch.testing.assert_close(
            normalised.eval().represent(IMAGES, feature),
            plain.eval().represent((IMAGES - buffers["mean"]) / buffers["std"], feature),
        )
    parameters = [name for name, _ in normalised.named_parameters()]
    assert not [name for name in parameters if "normalise" in name]


def test_a_backbone_alone_returns_its_features_and_has_no_pre_feature():
    encoder = tiny_encoder(hidden=None).eval()
    assert {name.partition(".")[0] for name in encoder.state_dict()} == {"backbone"}
    assert torch.equal(encoder(IMAGES), encoder.represent(IMAGES, "backbone"))
    with pytest.raises(ValueError, match="imported backbone has no pre-feature; probe"):
        encoder.represent(IMAGES)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("mode", [True, False])
def test_projections_are_float32_and_not_normalised(precision, mode):
    encoder = tiny_encoder().train(mode)
    encoder.precision = precision
    z = encoder(IMAGES)
    assert z.dtype == torch.float32
    assert ((z.norm(dim=1) - 1).abs() > 1e-3).all()


def test_the_layout_changes_no_weight_and_no_feature_but_for_rounding():
    networks = {name: tiny_encoder(layout=name).double() for name in LAYOUTS}
    weights = [network.state_dict() for network in networks.values()]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    images = IMAGES.double()
    z = [network(images) for network in networks.values()]
    torch.testing.assert_close(z[0], z[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_and_activations_have_the_requested_memory_format(layout):
    encoder, actual = tiny_encoder(layout=layout), []
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d) and module.in_channels > 1:
            module.register_forward_hook(lambda m, x, y: actual.extend((m.weight, *x, y)))
    encoder(IMAGES)
    assert len(actual) == 3 * 20
    whole = [tensor for tensor in actual if tensor.untyped_storage().nbytes() == tensor.nbytes]
    assert len(whole) == len(actual) - 3  # each shortcut reads a slice, which has gaps
    assert all(tensor.is_contiguous(memory_format=LAYOUTS[layout]) for tensor in whole)


def test_a_probe_sees_neither_the_projector_nor_the_precision_of_training():
    encoder = tiny_encoder().eval()
    exact, z = encoder.represent(IMAGES), encoder(IMAGES)
    encoder.precision = "bf16"
    assert torch.equal(encoder.represent(IMAGES), exact)
    assert not torch.equal(encoder(IMAGES), z)
    torch.nn.init.zeros_(encoder.projector[0].weight)
    assert torch.equal(encoder.represent(IMAGES), exact)


@pytest.mark.parametrize("feature", ["prefeature", "backbone"])
def test_features_in_bf16_are_near_those_in_float32_and_are_float32(feature):
    encoder = tiny_encoder().eval()
    exact, rounded = (
        encoder.represent(IMAGES, feature, precision=precision) for precision in ("fp32", "bf16")
    )
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05 * exact.std().item())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_folded_batch_norms_give_the_same_features_and_logits(backbone, dtype, tolerance):
    encoder = tiny_encoder(backbone=backbone).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            torch.nn.init.normal_(module.bias, std=0.1, generator=generator)
    images = IMAGES.to(dtype)
    encoder(images)  # running statistics
    head = torch.nn.Linear(HIDDEN, CLASSES).to(dtype)
    with torch.no_grad():
        exact = head(encoder.eval().represent(images))
        weight = encoder.backbone.layer2[0].conv1.weight.clone()
        fold_batchnorm_(encoder)
        folded = head(encoder.represent(images))
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in encoder.modules())
    assert encoder.backbone.layer2[0].conv1.weight.stride() == weight.stride()  # channels_last
    assert (folded - exact).norm() <= tolerance * exact.norm()


def test_the_prefeature_is_computed_from_the_backbone_feature():
    encoder = tiny_encoder().eval()
    h = encoder.represent(IMAGES, "backbone")
    assert torch.equal(encoder.represent(IMAGES), encoder.prefeature(h))
    assert encoder.represent(IMAGES).min() == 0  # after its ReLU


def test_images_do_not_affect_each_other_in_eval_mode():
    encoder = tiny_encoder().eval()
    torch.testing.assert_close(encoder(IMAGES)[1:2], encoder(IMAGES[1:2]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("supervised", [False, True])
def test_the_same_seed_gives_the_same_weights_and_another_one_none_of_them(supervised):
    weights = tiny_encoder(supervised=supervised, seed=3).state_dict()
    again = tiny_encoder(supervised=supervised, seed=3).state_dict()
    other = tiny_encoder(supervised=supervised, seed=4).state_dict()
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    matrices = [name for name, value in weights.items() if value.dim() > 1]
    assert not [name for name in matrices if torch.equal(other[name], weights[name])]


def test_building_an_encoder_does_not_use_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tiny_encoder(seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_convolutions_start_as_torchvision_s_do():
    conv = tiny_encoder(width=16).backbone.layer4[1].conv2  # (128, 128, 3, 3)
    expected = math.sqrt(2 / (128 * 9))  # He et al. 2015, fan out
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert abs(conv.weight.mean().item()) < 0.001


def test_a_supervised_network_has_a_classifier_on_its_backbone_and_nothing_else():
    encoder = tiny_encoder(supervised=True).eval()
    parts = {name.partition(".")[0] for name, _ in encoder.named_parameters()}
    assert parts == {"backbone", "classifier"}
    logits = encoder(IMAGES)
    assert logits.shape == (3, CLASSES)
    assert torch.equal(logits, encoder.classifier(encoder.represent(IMAGES, "backbone")))
    assert not torch.allclose(logits.norm(dim=1), torch.ones(3))


def test_a_supervised_network_refuses_a_request_for_the_pre_feature():
    with pytest.raises(ValueError, match="no pre-feature; probe feature: backbone"):
        tiny_encoder(supervised=True).represent(IMAGES)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_logits_are_float32(precision):
    encoder = tiny_encoder(supervised=True)
    encoder.precision = precision
    assert encoder(IMAGES).dtype == torch.float32


def test_weights_under_a_wrong_prefix_are_refused():
    weights = tiny_encoder().state_dict()
    wrong = {f"module.{name}": value for name, value in weights.items()}
    with pytest.raises(RuntimeError, match=r"(?s)Missing key.*Unexpected key"):
        tiny_encoder().load_state_dict(wrong)
    del weights["prefeature.0.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*prefeature\.0\.weight"):
        tiny_encoder().load_state_dict(weights)


# In its own process, since a write outside of memory would end it.
_NARROW = """
import torch
from torch import nn
from robustviews.encoder import build_encoder, fold_batchnorm_
from robustviews.resnet import Shortcut

torch.manual_seed(0)
for width in (4, 8, 12, 16):
    for size in (32, 48, 64, 96):
        network = build_encoder(width=width, hidden=8, projection=4)
        network(torch.rand(4, 3, size, size)).sum().backward()
        shortcut = Shortcut(width, 2 * width, 2)
        shortcut[1] = nn.Identity()
        x = torch.rand(4, width, size, size).contiguous(memory_format=torch.channels_last)
        upstream = torch.rand(4, 2 * width, size // 2, size // 2)
        (got,) = torch.autograd.grad(shortcut(x), shortcut[0].weight, upstream)
        exact = torch.einsum("bihw,bohw->oi", x[..., ::2, ::2].double(), upstream.double())
        error = (got[..., 0, 0] - exact).abs().max() / exact.abs().max()
        print(width, size, "ok" if error < 1e-5 else error.item())
"""


@pytest.mark.slow
def test_narrow_networks_train_on_large_images_without_writing_outside_of_memory():
    done = subprocess.run(
        [sys.executable, "-c", _NARROW], capture_output=True, text=True, check=False
    )
    lines = [f"{width} {size} ok" for width in (4, 8, 12, 16) for size in (32, 48, 64, 96)]
    assert (done.returncode, done.stdout.splitlines()) == (0, lines), done.stderr
