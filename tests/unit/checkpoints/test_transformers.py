"""Vision transformers of timm, DINO and MoCo v3: found, checked, and run as their programs do."""

from __future__ import annotations

import argparse
import sys

import pytest
import torch
from safetensors.torch import save_file

from robustviews import vit
from robustviews.checkpoints import CheckpointError, bring
from robustviews.encoder import build_encoder
from tests.unit.checkpoints.synthetic import IMAGENET, under

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def small():
    """Weights of ViT-S/16, of which blocks, norms and positions all matter."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) * 0.1 + float(name.endswith("norm.weight"))
        for name, shape in vit.shapes("vit_small").items()
    }


def layouts(state):
    """Return what the programs save, with the arguments of the import and the number of heads."""
    projector = {"head.0.weight": torch.ones(8, 384), "head.2.weight": torch.ones(4, 8)}
    other = {name: value + 1 for name, value in state.items()}
    fixed = state | {"pos_embed": state["pos_embed"].clone()}
    fixed["pos_embed"][0, 0] = 0
    moco = {
        **under("module.base_encoder.", fixed | projector),
        **under("module.momentum_encoder.", other | projector),
    }
    dino = {
        "student": under("module.backbone.", other) | under("module.head.", projector),
        "teacher": under("backbone.", state) | under("head.", projector),
        "args": argparse.Namespace(arch="vit_small"),
    }
    return {
        "plain": (state, {"normalise": "imagenet"}, 6),
        "DINO": (dino, {"weights": "teacher"}, 6),
        "MoCo v3": ({"state_dict": moco, "epoch": 300}, {"weights": "base"}, 12),
        "MoCo v3, saved again": (fixed, {"normalise": "imagenet"}, 12),
    }


def saved(content, tmp_path):
    torch.save(content, tmp_path / "vit.pth")
    return tmp_path / "vit.pth"


@pytest.mark.slow
@pytest.mark.parametrize("name", layouts({"pos_embed": torch.zeros(1, 1, 1)}))
def test_features_are_the_class_token_of_timm(name, small, tmp_path):
    timm = pytest.importorskip("timm.models.vision_transformer", reason="timm is optional")
    content, arguments, heads = layouts(small)[name]
    imported = bring(saved(content, tmp_path), **arguments)
    assert imported.options["heads"] == heads
    assert imported.found.matched == 150
    weights = imported.found.weights
    theirs = timm.VisionTransformer(
        embed_dim=384, depth=12, num_heads=heads, num_classes=0, dynamic_img_size=True
    ).eval()
    theirs.load_state_dict({name.removeprefix("vit."): value for name, value in weights.items()})
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    with torch.no_grad():
        tokens = theirs.forward_features((IMAGES - mean) / std)
        features = imported.network().represent(IMAGES, "backbone")
        assert torch.allclose(features, tokens[:, 0], atol=1e-5)
        other = build_encoder("vit_small", heads=18 - heads, normalise=IMAGENET, hidden=None).eval()
        other.load_state_dict(imported.weights)
        assert not torch.allclose(other(IMAGES), features, atol=1e-2), "heads would not matter"
    with pytest.raises(ValueError, match="multiples of 16, found 64 x 60"):
        imported.network()(IMAGES[..., :60])


def test_a_trained_classifier_is_kept_and_a_projector_is_not(small, tmp_path):
    pytest.importorskip("timm.models.vision_transformer", reason="timm is optional")
    head = {"head.weight": torch.randn(10, 384), "head.bias": torch.randn(10)}
    imported = bring(saved(small | head, tmp_path), normalise="imagenet")
    assert imported.classes == 10
    network = imported.network()
    assert torch.allclose(
        network(IMAGES),
        network.represent(IMAGES, "backbone") @ head["head.weight"].T + head["head.bias"],
        atol=1e-4,
    )
    assert bring(saved(small | head, tmp_path), normalise="imagenet", classifier=False).dropped == [
        "head.* (2)"
    ]


@pytest.mark.parametrize("normalise", ["imagenet", "none"])
def test_an_import_can_be_imported_again_without_a_question(normalise, small, tmp_path):
    pytest.importorskip("timm.models.vision_transformer", reason="timm is optional")
    head = {"head.weight": torch.randn(10, 384), "head.bias": torch.randn(10)}
    first = bring(saved(small | head, tmp_path), normalise=normalise)
    save_file(first.weights, tmp_path / "encoder.safetensors", first.metadata)
    again = bring(tmp_path / "encoder.safetensors")
    assert (again.options, again.classes, again.dropped) == (first.options, 10, [])
    assert all(torch.equal(again.weights[name], value) for name, value in first.weights.items())


def test_without_timm_the_message_says_what_to_type(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.models", None)
    with pytest.raises(CheckpointError, match=r"type: pip install 'robustviews\[vit\]'"):
        bring(saved(small, tmp_path), normalise="imagenet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {n: v for n, v in s.items() if "blocks.11." not in n}, "12 names differ"),
        (lambda s: s | {"blocks.12.norm1.weight": torch.ones(384)}, "such as blocks.12.norm1"),
        (lambda s: s | {"pos_embed": torch.ones(1, 577, 384)}, "images of 224 pixels.*pos_embed"),
        (lambda s: s | {"norm.bias": torch.full((384,), torch.nan)}, "norm.bias: NaN or infinite"),
    ],
    ids=["a block missing", "a block too many", "another side", "NaN"],
)
def test_another_or_a_damaged_transformer_is_refused(change, message, small, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        bring(saved(change(small), tmp_path), normalise="imagenet")


def test_shapes_are_those_of_timm():
    timm = pytest.importorskip("timm.models.vision_transformer", reason="timm is optional")
    for kind, width in vit.WIDTHS.items():
        network = timm.VisionTransformer(embed_dim=width, depth=12, num_heads=6, num_classes=0)
        found = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        assert found == vit.shapes(kind)
