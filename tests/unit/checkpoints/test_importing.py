"""Checkpoints of every layout: the same features, nothing partial, and none of the known traps."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models
from torchvision.transforms.functional import normalize

from robustviews import artifacts, attack, import_checkpoint
from robustviews.checkpoints import CATALOGUE, CheckpointError, bring
from robustviews.checkpoints.layouts import LAYOUTS
from tests.unit.checkpoints import synthetic
from tests.unit.checkpoints.synthetic import AMBIGUOUS, CASES, FEATURES, IMAGENET, IMAGES
from tests.unit.tiny_models import tiny_encoder


def saved(folder, tree, name="checkpoint.pth", **options):
    torch.save(tree, folder / name, **options)
    return folder / name


def file_of(folder, name, **options):
    """Save the checkpoint of a case; return its path, its network, and the other network in it."""
    case = CASES[name]
    good, other = (synthetic.source(seed, **case.options) for seed in (1, 2))
    tree = case.tree(good.state_dict(), other.state_dict())
    return saved(folder, tree, **options), good, other


def close(actual, expected):
    return (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", CASES)
def test_an_imported_network_has_the_features_of_its_own_program(name, zipped, tmp_path):
    case = CASES[name]
    path, good, other = file_of(tmp_path, name, _use_new_zipfile_serialization=zipped)
    imported = bring(path, **case.needed)
    encoder = imported.network()
    features = encoder.represent(IMAGES, "backbone")
    assert close(features, case.features(good, IMAGES))
    assert not close(features, case.features(other, IMAGES))
    assert imported.found.layout.name == case.layout
    assert imported.container == ("torch zip" if zipped else "torch legacy")
    assert (encoder.classifier is not None) == case.kept
    if case.kept:
        fc = synthetic.linear()
        assert close(encoder(IMAGES), features @ fc["fc.weight"].T + fc["fc.bias"])


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_file_with_two_networks_asks_which(name, tmp_path):
    case = CASES[name]
    path, _, _ = file_of(tmp_path, name)
    needed = {key: value for key, value in case.needed.items() if key != "weights"}
    plain = case.needed["weights"]
    with pytest.raises(CheckpointError, match=rf"holds 2 networks: .*\b{plain} \(.*--weights"):
        bring(path, **needed)
    with pytest.raises(CheckpointError, match="holds 2 networks"):
        bring(path, **needed, weights="best")


def test_every_layout_of_the_table_has_a_case():
    assert {layout.name for layout in LAYOUTS} == {case.layout for case in CASES.values()}


def test_the_other_of_two_networks_is_imported_when_it_is_named(tmp_path):
    path, _, student = file_of(tmp_path, "dino-full")
    features = bring(path, weights="student").network().represent(IMAGES, "backbone")
    assert close(features, CASES["dino-full"].features(student, IMAGES))


def test_the_only_network_may_be_named_but_not_as_another_one(tmp_path):
    path, good, other = file_of(tmp_path, "dino-full")
    tree = CASES["dino-full"].tree(good.state_dict(), other.state_dict())
    del tree["student"]
    path = saved(tmp_path, tree)
    assert bring(path, weights="teacher").found.place == "teacher:module.backbone."
    with pytest.raises(CheckpointError, match=r"one network, at teacher:.*leave out --weights"):
        bring(path, weights="student")


def test_what_the_import_drops_is_listed(tmp_path):
    path, _, _ = file_of(tmp_path, "moco-v3")
    assert bring(path, weights="base").dropped == [
        "module.base_encoder.fc.* (1)",
        "module.momentum_encoder.* (120)",
        "module.predictor.* (1)",
        "epoch",
        "arch",
        "optimizer",
    ]
    path, _, _ = file_of(tmp_path, "acl")
    dropped = bring(path).dropped
    assert "*.bn_list.0.* (100)" in dropped
    assert "fc.* (1)" in dropped


# What tensors do not tell


@pytest.mark.parametrize("name", ["torchvision", "solo-learn-older", "own-program"])
def test_an_unknown_normalisation_is_asked_for(name, tmp_path):
    path, _, _ = file_of(tmp_path, name)
    needed = {key: value for key, value in CASES[name].needed.items() if key != "normalise"}
    with pytest.raises(CheckpointError, match="add --normalise imagenet"):
        bring(path, **needed)


def test_an_unknown_padding_is_asked_for(tmp_path):
    path, _, _ = file_of(tmp_path, "own-program")
    with pytest.raises(CheckpointError, match=r"add --padding 1 .* or --padding 2"):
        bring(path, normalise="cifar10")


@pytest.mark.parametrize("name", ["solo-learn-older", "deacl", "own-program"])
def test_padding_2_is_another_network_than_padding_1(name, tmp_path):
    path, good, _ = file_of(tmp_path, name)
    settings = CASES[name].needed | {"padding": 1}
    features = bring(path, **settings).network().represent(IMAGES, "backbone")
    expected = CASES[name].features(good, IMAGES)
    assert (features - expected).norm() > 0.01 * expected.norm()


def test_the_std_of_swav_is_not_that_of_others(tmp_path):
    path, good, _ = file_of(tmp_path, "swav")
    features = bring(path).network().represent(IMAGES, "backbone")
    with torch.no_grad():
        others = good(normalize(IMAGES, *IMAGENET))
    assert (features - others).abs().max() > 1e-4


def test_a_padding_for_a_stem_of_7x7_is_refused(tmp_path):
    path, _, _ = file_of(tmp_path, "swav")
    with pytest.raises(CheckpointError, match="leave out --padding"):
        bring(path, padding=2)


def test_a_normalisation_beside_that_of_the_network_is_refused(tmp_path):
    path, _, _ = file_of(tmp_path, "deacl")
    assert bring(path, normalise="imagenet").options["normalise"] == (
        tuple(IMAGENET[0]),
        tuple(IMAGENET[1]),
    )
    with pytest.raises(CheckpointError, match="itself normalises by imagenet; leave out"):
        bring(path, normalise="none")


def test_a_normalisation_can_be_given_in_numbers(tmp_path):
    path, good, _ = file_of(tmp_path, "barlow-twins")
    encoder = bring(path, normalise="0.5,0.4,.3/0.2,0.3,0.25").network()
    with torch.no_grad():
        expected = good(normalize(IMAGES, [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]))
    assert close(encoder(IMAGES), expected)
    for wrong in ("imagnet", "0.5/0.2", "0.5,0.4,.3/0.2,0.3,0", "1,1,1/nan,1,1"):
        with pytest.raises(CheckpointError, match="normalise: expected none, imagenet"):
            bring(path, normalise=wrong)


def test_a_layer_fc_beside_a_momentum_encoder_is_no_classifier(tmp_path):
    states = [synthetic.source(seed).state_dict() | synthetic.linear() for seed in (1, 2)]
    path = saved(tmp_path, dict(zip(("online", "target"), states, strict=True)))
    imported = bring(path, weights="online", normalise="none")
    assert imported.classes is None
    assert "fc.* (2)" in imported.dropped


def test_a_classifier_can_be_left_out(tmp_path):
    path, _, _ = file_of(tmp_path, "simclr-1x")
    assert bring(path, normalise="none", classifier=False).classes is None


def test_counters_that_are_missing_are_not_counted_as_matched(tmp_path):
    path, _, _ = file_of(tmp_path, "byol")
    found = bring(path, normalise="imagenet").found
    assert (found.matched, len(found.weights)) == (100, 120)


# Other networks, partial and damaged ones


def missing(*endings):
    return lambda state: {n: v for n, v in state.items() if not n.endswith(endings)}


def reshaped(state):
    return state | {"layer3.0.conv2.weight": torch.ones(3, 3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            missing("layer4.1.bn2.bias"),
            r"nearest is resnet18: 1 names missing, such as layer4.1.bn2.bias",
        ),
        (
            missing("running_mean", "running_var"),
            r"the batch-norm statistics are missing \(40, such",
        ),
        (missing("bn1.running_var"), r"the batch-norm statistics are missing \(9, such"),
        (reshaped, "1 of another shape, such as layer3.0.conv2.weight"),
        (
            lambda s: s | {"layer3.5.conv1.weight": torch.ones(1)},
            "1 names too many, such as layer3.5",
        ),
        (
            lambda s: s | {"layer1.0.se.weight": torch.ones(1)},
            "1 names too many, such as layer1.0.se",
        ),
        (
            lambda s: s | {"conv1.weight": torch.ones(4, 3, 5, 5)},
            r"first convolution .* \(4, 3, 5, 5\)",
        ),
        (lambda s: s | {"conv1.weight": torch.ones(4, 1, 7, 7)}, "1 of another shape"),
        (
            lambda s: s | {"layer1.0.conv1.weight": s["layer1.0.conv1.weight"].int()},
            "floating-point",
        ),
        (lambda s: s | {"bn1.bias": torch.full((4,), torch.nan)}, "bn1.bias: NaN or infinite"),
        (
            lambda s: s | {"bn1.running_var": torch.full((4,), torch.inf)},
            "bn1.running_var: NaN or inf",
        ),
        (
            missing("conv1.weight"),
            "another network; expected ResNet-18, .*; its first tensors: bn1",
        ),
        (
            lambda _: {"cls_token": torch.ones(1), "patch_embed.proj.weight": torch.ones(1)},
            "another or an incomplete vision transformer at the top level; expected ViT-S/16",
        ),
        (lambda s: list(s.values()), "holds no tensors by name"),
        (lambda _: {"epoch": 3}, "holds no tensors by name; expected the weights of ResNet-18"),
        (
            lambda s: s | {"layer2.0.shortcut.0.weight": s["layer2.0.downsample.0.weight"]},
            r"two tensors for one layer: layer2\.0\.downsample\.0\.weight and layer2\.0\.short",
        ),
    ],
)
def test_another_partial_or_damaged_network_is_refused_in_one_line(change, message, tmp_path):
    path = saved(tmp_path, change(synthetic.source().state_dict()))
    with pytest.raises(CheckpointError, match=message) as error:
        bring(path, normalise="imagenet")
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("network", ["resnet34", "resnet50", "resnet101"])
def test_deeper_networks_are_recognised_although_they_contain_the_names_of_others(
    network, tmp_path
):
    good = synthetic.source(backbone=network)
    path = saved(tmp_path, good.state_dict())
    imported = bring(path, normalise="none")
    assert imported.found.backbone == network
    with torch.no_grad():
        assert close(imported.network()(IMAGES), good(IMAGES))


@pytest.mark.parametrize("network", ["wide_resnet50_2", "resnext50_32x4d", "resnet152"])
def test_relatives_of_supported_networks_are_refused(network, tmp_path):
    with torch.device("meta"):
        state = getattr(models, network)().state_dict()
    empty = {name: torch.zeros(()).expand(value.shape) for name, value in state.items()}
    with pytest.raises(CheckpointError, match="another or an incomplete network"):
        bring(saved(tmp_path, empty), normalise="imagenet")


def test_a_mapping_inside_itself_does_no_harm(tmp_path):
    tree = {"model": synthetic.source().state_dict()}
    tree["again"] = tree
    assert bring(saved(tmp_path, tree), normalise="none").found.place == "model:"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_weights_of_another_precision_become_float32(dtype, tmp_path):
    state = {n: v.to(dtype) for n, v in synthetic.source().state_dict().items()}
    weights = bring(saved(tmp_path, state), normalise="none").weights
    assert weights["backbone.conv1.weight"].dtype == torch.float32
    assert torch.equal(weights["backbone.conv1.weight"], state["conv1.weight"].float())


# Whole networks


def test_logits_are_those_of_torchvision_s_preprocessing_and_resnet50(tmp_path):
    torch.manual_seed(0)
    theirs = models.resnet50()
    images = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        theirs(normalize(images, *IMAGENET))  # statistics of some images
        path = saved(tmp_path, theirs.state_dict())
        encoder = import_checkpoint(path, normalise="imagenet")
        expected = theirs.eval()(normalize(images, *IMAGENET))
        logits = encoder(images)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.1
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    bare = encoder(normalize(images, *IMAGENET))
    assert (bare - expected).abs().max() > 0.1, "normalised twice"


def test_an_imported_network_is_attacked_in_pixels(tmp_path):
    path, _, _ = file_of(tmp_path, "torchvision")
    encoder = import_checkpoint(path, normalise="imagenet")
    attacked = attack(encoder, IMAGES, encoder(IMAGES).argmax(dim=1), eps=4, steps=5)
    assert attacked.clean.all()
    assert (attacked.images - IMAGES).abs().max() <= 4 / 255 + 1e-6


def test_an_imported_backbone_has_no_pre_feature(tmp_path):
    path, _, _ = file_of(tmp_path, "barlow-twins")
    encoder = import_checkpoint(path, normalise="imagenet")
    assert torch.equal(encoder(IMAGES), encoder.represent(IMAGES, "backbone"))
    assert encoder.width_of("backbone") == FEATURES
    with pytest.raises(ValueError, match="imported backbone has no pre-feature; probe"):
        encoder.represent(IMAGES)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_an_encoder_of_this_project_is_imported_whole(stem, tmp_path):
    encoder = synthetic.randomise(tiny_encoder(stem=stem), seed=3)
    path = tmp_path / "encoder.safetensors"
    artifacts.write_tensors(path, encoder.state_dict())
    imported = bring(path)
    assert imported.dropped == []
    again = imported.network()
    assert close(again(IMAGES), encoder(IMAGES))
    assert close(again.represent(IMAGES), encoder.represent(IMAGES))


def test_a_supervised_encoder_of_this_project_keeps_its_classifier_and_asks_the_rest(tmp_path):
    encoder = synthetic.randomise(tiny_encoder(supervised=True), seed=3)
    path = tmp_path / "encoder.safetensors"
    artifacts.write_tensors(path, encoder.state_dict())
    with pytest.raises(CheckpointError, match=r"--normalise .*; .*--padding"):
        bring(path)
    again = bring(path, normalise="none", padding=1).network()
    assert close(again(IMAGES), encoder(IMAGES))


def test_an_incomplete_encoder_of_this_project_is_refused(tmp_path):
    state = tiny_encoder().state_dict()
    del state["projector.1.running_mean"]
    path = tmp_path / "encoder.safetensors"
    artifacts.write_tensors(path, state)
    with pytest.raises(CheckpointError, match=r"incomplete encoder .* projector\.1\.running_mean"):
        bring(path)


@pytest.mark.parametrize("name", ["deacl", "torchvision", "moco-v2", "advcl", "simclr-1x"])
def test_an_import_can_be_imported_again_without_a_question(name, tmp_path):
    path, good, _ = file_of(tmp_path, name)
    first = bring(path, **CASES[name].needed)
    again = tmp_path / "encoder.safetensors"
    artifacts.write_tensors(again, first.weights, first.metadata)
    second = bring(again)
    assert (second.options, second.classes) == (first.options, first.classes)
    features = second.network().represent(IMAGES, "backbone")
    assert close(features, CASES[name].features(good, IMAGES))


def test_weights_in_safetensors_are_imported(tmp_path):
    good = synthetic.source()
    save_file(good.state_dict(), tmp_path / "model.safetensors")
    imported = bring(tmp_path / "model.safetensors", normalise="imagenet")
    assert imported.container == "safetensors"
    assert close(imported.network()(IMAGES), CASES["barlow-twins"].features(good, IMAGES))


# The catalogue


def test_torchvision_s_entries_are_those_of_torchvision():
    for name, weights in {
        "torchvision-resnet50-v1": models.ResNet50_Weights.IMAGENET1K_V1,
        "torchvision-resnet50-v2": models.ResNet50_Weights.IMAGENET1K_V2,
        "torchvision-resnet18": models.ResNet18_Weights.IMAGENET1K_V1,
    }.items():
        entry = CATALOGUE[name]
        assert entry.address == weights.url
        assert entry.top1 == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        transforms = weights.transforms()
        assert (transforms.mean, transforms.std) == IMAGENET


def test_every_entry_names_a_page_a_layout_and_a_normalisation():
    layouts = {layout.name: layout for layout in LAYOUTS}
    for name, entry in CATALOGUE.items():
        assert entry.page.startswith("https://"), name
        known = layouts[entry.layout].normalise
        assert known is None or known == entry.normalise, name
        assert entry.address == "" or entry.sha256, name
