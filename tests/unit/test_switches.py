"""Every place where the paper (arXiv 2501.03507v1) and its code disagree is a switch of a study.

Each option declares what both do (`robustviews.options.switch`). `tests/reference` tests what a
value computes if the published code has it; the tests below cover the rest.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from robustviews import augment
from robustviews.attacks import ATTACKS, AutoAttack, PgdAttack, in_pixels, pgd
from robustviews.augment import Views
from robustviews.machine import runtime
from robustviews.methods import METHODS, SimClr
from robustviews.options import broken_bound, switches_of
from robustviews.probe import PROBES, LinearProbe, NcropProbe, RobustLinearProbe
from robustviews.regimes import REGIMES, Pgd, Standard
from robustviews.study import Optimizer, Run, load_study, plan
from robustviews.study.comparable import incomparable
from robustviews.study.schema import Row
from robustviews.study.switches import of_cell
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
TABLES = {"method": METHODS, "regime": REGIMES, "probes": PROBES, "attacks": ATTACKS}
KINDS = {cls: (block, kind) for block, table in TABLES.items() for kind, cls in table.items()}
KINDS |= {Run: ("run", ""), Views: ("views", ""), Optimizer: ("optimizer", "")}
KINDS |= {Row: ("tables", "")}
SWITCHES = [
    pytest.param(cls, option, found, id=f"{found.name}, {cls.__name__}")
    for cls in KINDS
    for option, found in switches_of(cls).items()
]
switches = pytest.mark.parametrize(("cls", "option", "switch"), SWITCHES)


def values_of(side):
    """Return the values of paper or code for all methods and regimes."""
    values = side if isinstance(side, tuple) else sum(side.values(), ())
    return list(dict.fromkeys(values))


@switches
def test_the_default_of_a_switch_is_a_value_of_the_paper_or_the_code(cls, option, switch):
    [field] = [each for each in dataclasses.fields(cls) if each.name == option]
    assert field.default in values_of(switch.code) + values_of(switch.paper)


@switches
def test_a_switch_names_only_legal_values_of_its_option(cls, option, switch):
    if switch.shown_as:
        return  # its values are descriptions
    kind = typing.get_type_hints(cls)[option]
    [field] = [each for each in dataclasses.fields(cls) if each.name == option]
    for value in values_of(switch.code) + values_of(switch.paper):
        if typing.get_origin(kind) is typing.Literal:
            assert value in typing.get_args(kind)
        else:
            assert type(value) is kind
            assert not broken_bound(value, field.metadata["bounds"])


def test_switches_distinguish_only_methods_and_regimes_that_exist():
    sides = [side for param in SWITCHES for side in (param.values[2].code, param.values[2].paper)]
    keys = {key for side in sides if not isinstance(side, tuple) for key in side}
    assert {part for key in keys for part in key.split("/")} <= {*METHODS, *REGIMES}


def test_every_switch_is_tested_here_or_against_the_published_code():
    here = [name.removeprefix("test_switch_") for name in globals() if "test_switch_" in name]
    there = [name.partition("=")[0] for name in IN_REFERENCE]
    there += ["delta_start"]  # a test of its own in tests/reference
    there += ["fab_steps"]  # a test of its own in tests/unit/test_attacks.py
    for switch in {param.values[2].name for param in SWITCHES}:
        assert [name for name in (*here, *there) if name.startswith(switch)], switch


# Reachable from a study file


def entry_of(cls, option, value):
    """Return the block of an option in a study, and an entry without its required keys."""
    run = {"method": "emp_ssl", "regime": "standard", "datasets": ["digits"], "epochs": 1}
    block, kind = KINDS[cls]
    if block == "attacks":
        return block, {"kind": kind, "eps": [8], option: value}
    if block == "probes":
        return block, {"kind": kind, option: value}
    if block == "tables":
        row = {"run": "plain", "probe": "central", option: value}
        return block, {"title": "-", "columns": ["digits/minutes"], "rows": {"only": row}}
    own = {option: value, **({"kind": kind} if kind else {})}
    return "runs", run | (own if cls is Run else {block: own})


def options_of(entry, cls):
    """Return the options of a class in an entry of a study."""
    names = ("method", "regime", "views", "optimizer")
    parts = [entry, *(getattr(entry, name, None) for name in names)]
    parts += getattr(entry, "rows", {}).values()
    [options] = [part for part in parts if type(part) is cls]
    return options


def test_every_value_of_every_switch_can_be_reached_from_a_study_file(tmp_path):
    study = {
        "study": "switches",
        "title": "Every value of every switch",
        "seeds": [0],
        "datasets": {"digits": "digits"},
        "runs": {"plain": entry_of(Run, "precision", "fp32")[1]},
        "probes": {"central": {"kind": "linear"}},
        "attacks": {},
        "tables": {},
    }
    expected = {}
    for number, (cls, option, switch) in enumerate(param.values for param in SWITCHES):
        values = values_of(switch.code) + values_of(switch.paper)
        for place, value in enumerate(dict.fromkeys(values)):
            reached = {"standard head": "central"}.get(value, value)
            block, content = entry_of(cls, option, reached)
            entry = f"switch{number}-{place}"
            if option == "steps":  # the code's two steps cannot reach the radius
                content["weak"] = "as the code"
            study[block][entry] = content
            expected[block, entry] = (cls, option, reached)
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


def test_switch_head_for_attack_is_the_robust_head_or_its_values_are_not_compared():
    study = load_study(STUDY.with_name("reference-code.yaml"))
    attacked = plan.cells(study, study.tables["table1-simclr-attacked"])
    reason = "head switch head_for_attack is standard (paper robust, code standard)"
    assert {incomparable(study, cell) for cell in attacked} == {reason}
    clean = plan.cells(study, study.tables["table1-simclr-clean"])
    assert {incomparable(study, cell) for cell in clean} == {""}
    ours = load_study(STUDY)
    for cell in plan.cells(ours, ours.tables["table1"]):
        names = [one.name for one in of_cell(ours, cell)]
        assert ("head_for_attack" in names) == (cell.eps is not None and cell.probe == "rle")


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


def test_switch_npatch_views_are_those_of_emp_ssl_or_of_the_training():
    def drawn(method, npatch_views, **crop):
        views = Views(count=2, augmentation=method, **crop)
        probe = NcropProbe(n=4, npatch_views=npatch_views)
        return probe.inputs(noise_images(), torch.arange(12), views, size=SIZE, seed=0)

    assert torch.equal(drawn("simclr", "emp_ssl"), drawn("emp_ssl", "pretraining"))
    assert not torch.equal(drawn("simclr", "pretraining"), drawn("simclr", "emp_ssl"))
    # The window stays that of the training.
    patches = drawn("simclr", "emp_ssl", scale=(0.25, 0.25), ratio=(1.0, 1.0))
    assert not torch.equal(patches, drawn("simclr", "emp_ssl"))


def test_switch_npatch_epochs_is_how_long_the_n_crop_head_is_trained():
    task = probe_task(noise_images(), labels_of())
    lengths = [len(NcropProbe(n=1, epochs=n).train(Pixels(), task)[1]) for n in (20, 100)]
    assert lengths == [20, 100]


def test_switch_npatch_schedule_ends_the_20_epochs_of_the_code_near_the_initial_rate():
    task = probe_task(noise_images(), labels_of())
    last = {}
    for schedule in ("epochs", "updates"):
        probe = NcropProbe(n=1, epochs=20, batch_size=5, npatch_schedule=schedule)
        history = probe.train(Pixels(), task)[1]  # 3 minibatches per epoch
        last[schedule] = history[-1]["lr"]
    assert last["epochs"] == pytest.approx(0.03 * (1 + math.cos(math.pi * 19 / 100)) / 2)
    assert last["epochs"] == pytest.approx(0.0274, abs=5e-5)
    assert last["updates"] < 1e-4


def test_switch_pgd_eps_of_the_comment_in_the_code_bounds_nothing_in_five_steps():
    images, reach = 0.25 + noise_images() / 510, {}
    for eps in (8, 64):
        delta = ascended(images, eps=eps / 255)
        reach[eps] = delta.abs().max().item() * 255
    assert reach[8] == pytest.approx(8, abs=1e-3)
    assert reach[64] == pytest.approx(5 * 2.55, abs=1e-3)


def ascended(images, *, eps):
    """Return what the attack of training adds to images if the loss is their sum."""
    adversarial = pgd(torch.sum, images, eps=eps, step_size=in_pixels(Pgd().step_size), steps=5)
    return adversarial - images


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
