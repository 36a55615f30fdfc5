"""Every place where the paper (arXiv 2501.03507v1) and its code disagree is a switch of a study.

The table lists them all: the option, the code's values and the other values. `tests/reference`
tests what a value computes if the published code has it; the tests below cover the rest.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from robustviews import augment
from robustviews.attacks import AutoAttack, PgdAttack
from robustviews.augment import Views
from robustviews.machine import runtime
from robustviews.methods import EmpSsl, SimClr
from robustviews.probe import LinearProbe, NcropProbe, RobustLinearProbe
from robustviews.regimes import Free, Pgd, Standard
from robustviews.study import Optimizer, Run, load_study
from tests.reference.test_training_steps import SWITCHES as IN_REFERENCE
from tests.unit.tiny_models import (
    SIZE,
    Noting,
    Pixels,
    labels_of,
    noise_images,
    note,
    probe_task,
    tiny_encoder,
    train,
    weights_of,
)

STUDY = Path(__file__).parents[2] / "studies" / "cf-amc-ssl.yaml"


@dataclass(frozen=True)
class Switch:
    """One switch.

    Attributes:
        option: dataclass and field.
        code: values of the code.
        others: values of the paper, or others worth a comparison.
        default: default of the field, if it is not the code's first value.
    """

    option: tuple[type, str]
    code: tuple
    others: tuple
    default: object = None


SWITCHES = {
    "pgd_weight_grads": Switch((Pgd, "pgd_weight_grads"), ("sum",), ("final",)),
    "schedule_horizon": Switch(
        (Optimizer, "schedule_horizon"),
        ("minibatches",),
        ("updates",),
    ),
    "free_step_size": Switch((Free, "step_size"), (2.55,), (8.0,)),
    "delta_lifetime": Switch((Free, "delta_lifetime"), ("run",), ("minibatch",)),
    "delta_start": Switch((Free, "delta_start"), ("zero",), ("uniform",)),
    "delta_first_clip": Switch((Free, "delta_first_clip"), (False,), (True,)),
    "epochs_meaning": Switch(
        (Run, "epochs_meaning"),
        ("passes",),
        ("replays", "views"),
    ),
    "emp_invariance": Switch(
        (EmpSsl, "emp_invariance"),
        ("cosine",),
        ("trace",),
    ),
    "emp_scale": Switch(
        (EmpSsl, "emp_scale"),
        ("weighted_mean",),
        ("unit_sum",),
    ),
    "tcr_eps": Switch((EmpSsl, "tcr_eps"), (0.2,), (0.04,)),
    "simclr_attack_pair": Switch(
        (SimClr, "simclr_attack_pair"),
        ("same_view",),
        ("train_pair",),
    ),
    "simclr_train_pair": Switch(
        (SimClr, "simclr_train_pair"),
        ("views",),
        ("same_view", "raw"),
    ),
    "simclr_clean_branch": Switch(
        (SimClr, "simclr_clean_branch"),
        ("recomputed",),
        ("once",),
    ),
    "simclr_temperature": Switch((SimClr, "simclr_temperature"), (0.07,), (0.5,)),
    "simclr_denominator": Switch(
        (SimClr, "simclr_denominator"),
        ("without_self",),
        ("with_self",),
    ),
    "simclr_augmentation": Switch(
        (Views, "augmentation"),
        ("simclr",),
        ("simclr_blur", "emp_ssl"),
    ),
    "attack_batchnorm": Switch(
        (Pgd, "attack_batchnorm"),
        ("updating",),
        ("frozen", "eval"),
    ),
    "probe_feature": Switch(
        (LinearProbe, "feature"),
        ("prefeature",),
        ("backbone",),
    ),
    "probe_epochs": Switch(
        (LinearProbe, "epochs"),
        (2, 20),
        (20,),
        default=20,
    ),
    "rle_start": Switch(
        (RobustLinearProbe, "rle_start"),
        ("central", "fresh"),
        ("fresh",),
        default="fresh",
    ),
    "rle_trailing_standard": Switch(
        (RobustLinearProbe, "rle_trailing_standard"),
        (2,),
        (0,),
        default=0,
    ),
    "test_pgd_steps": Switch(
        (PgdAttack, "steps"),
        (2, 20),
        (20,),
        default=20,
    ),
    "autoattack": Switch(
        (AutoAttack, "apgd_steps"),
        (10,),
        (100,),
        default=100,
    ),
    "npatch_augmentation": Switch(
        (NcropProbe, "npatch_augmentation"),
        ("full",),
        ("geometry",),
    ),
    "batch_size": Switch(
        (Run, "batch_size"),
        (100, 128, 512),
        (50, 256),
    ),
    "precision": Switch((Run, "precision"), ("fp32",), ("bf16",)),
}
switches = pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)


@switches
def test_the_default_of_a_switch_is_the_code_s_value_unless_another_one_is_stated(switch):
    cls, option = switch.option
    [field] = [each for each in dataclasses.fields(cls) if each.name == option]
    assert field.default == (switch.code[0] if switch.default is None else switch.default)
    assert field.default in switch.code + switch.others


def test_the_table_lists_every_switch_that_the_study_of_the_paper_decides():
    text = STUDY.read_text(encoding="utf-8")
    decided = set(re.findall(r"# (\w+): code ", text))
    assert decided | {"delta_start"} == set(SWITCHES)  # a part of delta_lifetime there


def test_every_switch_is_tested_here_or_against_the_published_code():
    here = [name.removeprefix("test_switch_") for name in globals() if "test_switch_" in name]
    there = [name.partition("=")[0] for name in IN_REFERENCE]
    for switch in SWITCHES:
        tested = [name for name in here if name.startswith(switch)]
        tested += [name for name in there if name.startswith(switch)]
        assert tested or switch == "delta_start", switch  # a test of its own in tests/reference


# Reachable from a study file


def block_of(cls, option, value):
    """Return the block of an option in a study, and an entry without its required keys."""
    run = {"method": "emp_ssl", "regime": "standard", "datasets": ["digits"], "epochs": 1}
    kinds = {Pgd: "pgd", Free: "free", EmpSsl: "emp_ssl", SimClr: "simclr"}
    kinds |= {LinearProbe: "linear", RobustLinearProbe: "robust_linear", NcropProbe: "ncrop"}
    kinds |= {PgdAttack: "pgd", AutoAttack: "autoattack"}
    own = {option: value}
    if cls is Run:
        return "runs", run | own
    if cls in (Views, Optimizer):
        return "runs", run | {cls.__name__.lower(): own}
    if cls in (Pgd, Free):
        return "runs", run | {"regime": {"kind": kinds[cls]} | own}
    if cls in (EmpSsl, SimClr):
        return "runs", run | {"method": {"kind": kinds[cls]} | own}
    if cls in (PgdAttack, AutoAttack):
        return "attacks", {"kind": kinds[cls], "eps": [8]} | own
    return "probes", {"kind": kinds[cls]} | own


def options_of(entry, cls):
    """Return the options of a class in an entry of a study."""
    parts = [
        entry,
        *(getattr(entry, name, None) for name in ("method", "regime", "views", "optimizer")),
    ]
    [options] = [part for part in parts if type(part) is cls]
    return options


def test_every_value_of_every_switch_can_be_reached_from_a_study_file(tmp_path):
    study = {
        "study": "switches",
        "title": "Every value of every switch",
        "seeds": [0],
        "datasets": {"digits": "digits"},
        "runs": {},
        "probes": {"central": {"kind": "linear"}},
        "attacks": {},
    }
    expected = {}
    for name, switch in SWITCHES.items():
        for number, value in enumerate((*switch.code, *switch.others)):
            block, content = block_of(*switch.option, value)
            entry = f"{name.replace('_', '-')}-{number}"
            study[block][entry] = content
            expected[block, entry] = (*switch.option, value)
    row = {"run": "precision-0", "probe": "central"}
    study["tables"] = {"main": {"title": "-", "columns": ["digits/minutes"], "rows": {"only": row}}}
    path = tmp_path / "switches.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    loaded = load_study(path)
    for (block, entry), (cls, option, value) in expected.items():
        options = options_of(getattr(loaded, block)[entry], cls)
        assert getattr(options, option) == value, entry


# What the values compute


def test_switch_schedule_horizon_rises_again_in_free_training_or_falls_once():
    rates = {}
    for horizon in ("minibatches", "updates"):
        optimizer = {"schedule_horizon": horizon, "lr": 0.3}
        _, notes = note(Noting(3), optimizer=optimizer)  # 6 minibatches, 18 updates
        rates[horizon] = notes.rates
    once = rates["updates"]
    assert once == sorted(once, reverse=True)
    assert once[-1] < 0.003
    again = rates["minibatches"]
    assert [again[i] for i in (0, 6, 12)] == pytest.approx([0.3, 0, 0.3], abs=1e-12)
    assert again[:7] == sorted(again[:7], reverse=True)
    assert again[6:13] == sorted(again[6:13])
    assert again[17] < 0.03  # m is odd
    _, even = note(Noting(2), optimizer={"schedule_horizon": "minibatches", "lr": 0.3})
    assert even.rates[-1] > 0.27


def test_switch_schedule_horizon_is_the_same_for_one_update_a_minibatch():
    optimizers = [{"schedule_horizon": horizon} for horizon in ("minibatches", "updates")]
    first, second = (note(optimizer=optimizer)[1].rates for optimizer in optimizers)
    assert first == second


@pytest.mark.parametrize(("meaning", "passes"), [("passes", 12), ("replays", 4), ("views", 2)])
def test_switch_epochs_meaning_divides_passes_by_replays_and_views(meaning, passes):
    progress, notes = note(
        Noting(3), epochs=12, epochs_meaning=meaning, views=Views(count=2), optimizer={"lr": 0.3}
    )
    assert progress.epoch == passes
    assert progress.update == passes * 3 * 3  # three minibatches of three replays
    assert len(notes.given) == passes * 3
    assert notes.rates[-1] < 0.02  # the schedule ends with the training


def views_of(augmentation, count=400):
    images = noise_images(1, size=16).expand(count, -1, -1, -1)
    recipe = Views(count=1, crop="none", augmentation=augmentation)
    key = runtime.counter_key("switch")
    return augment.make_views(images, recipe, size=16, key=key, counters=torch.arange(count))[0]


def roughness(views):
    """Return the mean difference of neighbouring pixels over the spread of pixels: (N,)."""
    differences = (views[..., 1:] - views[..., :-1]).abs().mean(dim=(1, 2, 3))
    return differences / views.flatten(1).std(dim=1)


def test_switch_simclr_augmentation_blurs_as_in_the_text_or_is_that_of_emp_ssl():
    code, text, controlled = (views_of(name) for name in ("simclr", "simclr_blur", "emp_ssl"))
    blurred = (text != code).flatten(1).any(dim=1)
    assert 0.06 < blurred.double().mean() < 0.15
    assert (roughness(text)[blurred] <= roughness(code)[blurred] + 1e-3).all()
    assert (roughness(text)[blurred] < 0.7 * roughness(code)[blurred]).double().mean() > 0.5
    # EMP-SSL also turns hues further, and solarizes.
    turned = (controlled != text).flatten(1).any(dim=1)
    assert turned.double().mean() > 0.6


def test_switch_probe_feature_is_the_layer_that_the_projector_reads_or_the_one_below():
    encoder = tiny_encoder(hidden=12).eval()
    heads = {}
    for feature in ("prefeature", "backbone"):
        probe = LinearProbe(epochs=1, feature=feature)
        heads[feature], _ = probe.train(encoder, probe_task(noise_images(), labels_of()))
    assert heads["prefeature"].in_features == encoder.projector[0].in_features == 12
    assert heads["backbone"].in_features == encoder.prefeature[0].in_features == 16


def test_switch_probe_epochs_is_how_long_the_head_is_trained():
    task = probe_task(noise_images(), labels_of())
    short, two = LinearProbe(epochs=2).train(Pixels(), task)
    long, twenty = LinearProbe(epochs=20).train(Pixels(), task)
    assert (len(two), len(twenty)) == (2, 20)
    assert twenty[:2] == two  # the shorter training is the beginning of the longer one
    assert twenty[-1]["loss"] < two[-1]["loss"]
    assert weights_of(short) != weights_of(long)


def test_switch_rle_start_is_the_standard_head_or_a_fresh_one(tmp_path):
    text = STUDY.read_text(encoding="utf-8")
    changed = text.replace("rle_start: fresh", "rle_start: central")
    assert changed != text
    path = tmp_path / "study.yaml"
    path.write_text(changed, encoding="utf-8")
    assert load_study(path).probes["rle"].starts_from == "central"
    assert load_study(STUDY).probes["rle"].starts_from is None

    task, encoder = probe_task(noise_images(), labels_of()), Pixels()
    standard, _ = LinearProbe(epochs=5, lr=0.01).train(encoder, task)
    expected = standard.weight.detach().clone()
    barely = RobustLinearProbe(epochs=1, lr=1e-9)
    from_standard, history = barely.train(encoder, task, start=standard)
    from_fresh, fresh_history = barely.train(encoder, task)
    torch.testing.assert_close(from_standard.weight, expected, rtol=0, atol=1e-6)
    assert (from_fresh.weight - expected).abs().max() > 0.01
    assert history[0]["loss"] < fresh_history[0]["loss"]


def test_switch_rle_trailing_standard_continues_with_clean_images():
    task, head = probe_task(noise_images(), labels_of()), {}
    for epochs in (0, 2):
        encoder = Pixels()
        probe = RobustLinearProbe(epochs=1, steps=1, batch_size=12, rle_trailing_standard=epochs)
        head[epochs], history = probe.train(encoder, task)
        assert len(history) == 1 + epochs
        # Each attacked minibatch is encoded twice; then clean images, once for all epochs.
        assert len(encoder.seen) == (2 if epochs == 0 else 3)
        clean = torch.equal(encoder.seen[-1], noise_images() / 255)
        assert clean == (epochs > 0)
    assert weights_of(head[0]) != weights_of(head[2])


@pytest.mark.parametrize(("steps", "reach"), [(2, 5.1), (20, 8.0)])
def test_switch_test_pgd_steps_decides_whether_8_of_255_can_be_reached(steps, reach):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 4))
    images = 0.25 + noise_images() / 510  # far enough from black and white
    attack = PgdAttack(eps=(8,), steps=steps)
    actual = attack.perturb(net, images, labels_of(), eps=8 / 255, seed=0)
    assert (actual - images).abs().max().item() * 255 == pytest.approx(reach, abs=1e-3)


def test_switch_autoattack_of_the_code_looks_ten_times_and_the_official_one_a_hundred():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    images = noise_images(30) / 255
    labels = net(images).argmax(dim=1)
    passes, right = {}, {}
    for steps in (10, 100):
        count = 0

        def model(x):
            nonlocal count
            count += 1
            return net(x)

        attack = AutoAttack(eps=(2,), version="custom", attacks=("apgd-ce",), apgd_steps=steps)
        actual = attack.perturb(model, images, labels, eps=2 / 255, seed=0)
        passes[steps] = count
        right[steps] = (net(actual).argmax(dim=1) == labels).sum()
    assert passes[100] - passes[10] == 90
    assert right[100] <= right[10]


def test_switch_npatch_augmentation_keeps_or_leaves_out_colour():
    def drawn(augmentation, **crop):
        views = Views(count=16, augmentation="emp_ssl", **crop)
        probe = NcropProbe(n=4, npatch_augmentation=augmentation)
        return probe.inputs(noise_images(), torch.arange(12), views, size=SIZE, seed=0)

    whole = (noise_images() / 255).unsqueeze(1)  # (12, 1, 3, S, S)
    same = {}
    for augmentation in ("full", "geometry"):
        views = drawn(augmentation, crop="none")
        kept, mirrored = (
            (views == image).flatten(2).all(dim=2) for image in (whole, whole.flip(-1))
        )
        same[augmentation] = (kept | mirrored).double().mean()
    assert same["geometry"] == 1
    assert same["full"] < 0.5
    # The window stays that of the pretraining.
    patches = drawn("geometry", scale=(0.25, 0.25), ratio=(1.0, 1.0))
    assert not torch.equal(patches, drawn("geometry"))


@pytest.mark.parametrize(("batch_size", "minibatches"), [(4, 3), (6, 2), (12, 1)])
def test_switch_batch_size_is_how_many_images_share_an_update(batch_size, minibatches):
    progress, notes = note(count=13, batch_size=batch_size)
    assert {len(batch.labels) for batch, _ in notes.given} == {batch_size}
    assert progress.update == 2 * minibatches


def test_switch_precision_is_that_of_matrix_products_in_training_alone():
    trained, inside = {}, {}
    for precision in ("fp32", "bf16"):
        encoder = tiny_encoder()
        kinds = inside[precision] = set()
        encoder.backbone.layer1[0].conv1.register_forward_hook(
            lambda *call, kinds=kinds: kinds.add(call[-1].dtype)
        )
        train(encoder, method=SimClr(), regime=Standard(), precision=precision, epochs=1)
        trained[precision] = encoder
    assert inside == {"fp32": {torch.float32}, "bf16": {torch.bfloat16}}
    weights = [encoder.state_dict() for encoder in trained.values()]
    assert {value.dtype for value in weights[1].values()} == {torch.float32, torch.int64}
    assert weights_of(trained["fp32"]) != weights_of(trained["bf16"])
    name = "backbone.layer1.0.conv1.weight"
    difference = (weights[0][name] - weights[1][name]).norm() / weights[0][name].norm()
    assert 0 < difference < 0.1
    encoder = trained["bf16"]
    inside["bf16"].clear()
    assert encoder.represent(noise_images() / 255).dtype == torch.float32
    assert inside["bf16"] == {torch.float32}
