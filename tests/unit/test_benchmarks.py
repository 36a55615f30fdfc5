"""Benchmarks are fair: both sides do the same work, in turns, and records are complete."""

from __future__ import annotations

import argparse
import dataclasses
import json

import pytest
import torch

from benchmarks import (
    augmentation,
    coding_rate,
    estimate,
    evaluation,
    learning,
    methods,
    parts,
    precision,
    profile_step,
    published,
    ranks,
    record,
    rivals,
    rounds,
    scaling,
    step,
    table,
    verdicts,
)
from benchmarks.ours import OurStep
from benchmarks.published import PublishedStep
from benchmarks.recipe import Recipe, random_images
from robustviews import losses
from robustviews.encoder import build_encoder
from robustviews.methods import METHODS, Batch
from robustviews.network import build_network

CPU = torch.device("cpu")
TINY = Recipe(batch=4, crops=3, replays=2, size=8, hidden=16, projection=8)


@pytest.fixture(scope="module")
def pair():
    """Both steps in float64 with the same weights, after the same minibatch; their losses."""
    images = random_images(TINY.batch, TINY.size)
    ours = OurStep(images, TINY, device=CPU, precision="fp32")
    theirs = PublishedStep(images, TINY, device=CPU, workers=0)
    theirs.net.load_state_dict(ours.net.state_dict())
    for side in (ours, theirs):
        side.net.double()
    theirs.delta = theirs.delta.double()
    shape = (TINY.crops, TINY.batch, 3, TINY.size, TINY.size)
    views = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return ours, ours.train(views), theirs, theirs.train(list(views))


@pytest.fixture(scope="module")
def single():
    """Both steps by name, with one replay per minibatch."""
    images, recipe = random_images(TINY.batch, TINY.size), dataclasses.replace(TINY, replays=1)
    return {
        "ours": OurStep(images, recipe, device=CPU, precision="fp32"),
        "published": PublishedStep(images, recipe, device=CPU, workers=0),
    }


def test_both_steps_have_the_same_loss_in_every_replay(pair):
    _, ours, _, theirs = pair
    torch.testing.assert_close(torch.stack(ours), torch.tensor(theirs, dtype=torch.float64))


def test_both_steps_change_every_parameter_and_buffer_equally(pair):
    ours, _, theirs, _ = pair
    expected = ours.net.state_dict()
    assert set(theirs.net.state_dict()) == set(expected)
    for name, value in theirs.net.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=lambda text, name=name: name + text)


def test_both_steps_end_with_the_same_perturbation(pair):
    ours, _, theirs, _ = pair
    torch.testing.assert_close(theirs.delta.view_as(ours.delta), ours.delta)
    assert ours.delta.abs().max() > TINY.step_size


def test_the_published_coding_rate_is_the_negative_of_our_loss():
    z = torch.nn.functional.normalize(torch.randn(3, 5, 7), dim=-1)
    expected = -losses.total_coding_rate(z, eps=0.2)
    torch.testing.assert_close(published.coding_rate(list(z), eps=0.2), expected)


def test_the_published_loader_yields_every_image_in_crops_of_the_right_size():
    loader = PublishedStep(random_images(8, 8), TINY, device=CPU, workers=0).loader
    batches = list(loader)
    assert len(batches) == 2
    assert [crop.shape for crop in batches[0]] == [(TINY.batch, 3, 8, 8)] * TINY.crops
    assert 0 <= min(crop.min() for crop in batches[0]) < max(c.max() for c in batches[0]) <= 1


@pytest.mark.parametrize("side", [augmentation.pil, augmentation.torchvision, augmentation.ours])
def test_every_pipeline_makes_all_views_as_floats_in_range(side):
    check_views(side(random_images(4, 8), TINY))


def test_kornia_makes_all_views_as_floats_in_range():
    pytest.importorskip("kornia", reason="an extra of benchmarks")
    pipeline = augmentation.kornia(TINY)
    check_views(augmentation.in_chunks(pipeline, random_images(4, 8), TINY.crops))


def check_views(views):
    assert views.dtype == torch.float32
    assert views.flatten(0, -4).shape == (TINY.batch * TINY.crops, 3, 8, 8)
    assert views.min() >= 0
    assert 0.3 < views.max() <= 1


def test_sides_take_turns_and_change_their_order():
    called = []
    sides = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    seconds = rounds.interleave(sides, rounds=2, device=CPU)
    assert "".join(called) == "ababba"  # warm-up, then two rounds
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_taken_round_by_round():
    actual = rounds.ratio(slow=[2.0, 30.0, 4.0], fast=[1.0, 10.0, 4.0])
    assert actual == {"median": 2.0, "low": 1.0, "high": 3.0}


@pytest.mark.parametrize("kind", ["ours", "published"])
def test_all_parts_of_a_step_are_profiled_and_the_step_is_unchanged(single, kind):
    side = single[kind]
    net = side.net
    split = parts.split(side, CPU)
    assert set(split) == set(table.PARTS)
    assert min(split.values()) > 0
    assert side.net is net
    assert side.lap is published.silent


@pytest.mark.parametrize(
    "module", [augmentation, coding_rate, evaluation, precision, profile_step, ranks, scaling, step]
)
def test_every_benchmark_accepts_the_common_options(module):
    options = module.parse(["--device", "cuda", "--quick"])
    assert (options.device, options.quick) == ("cuda", True)
    assert module.parse([]).quick is False


def test_sizes_change_one_thing_at_a_time():
    options = argparse.Namespace(quick=True, device="cpu")
    (base, _), *others = scaling.sizes(options)
    for recipe, _ in others[:-1]:
        values = zip(dataclasses.astuple(base), dataclasses.astuple(recipe), strict=True)
        assert sum(a != b for a, b in values) == 1


def test_a_record_states_time_place_and_device_and_its_table_shows_the_ratio(tmp_path, capsys):
    options = record.arguments("step", "").parse_args(["--quick", "--out", str(tmp_path)])
    seconds = {"ours": [1.0, 1.0], "published": [2.0, 3.0]}
    row = record.comparison("work", seconds, ours="ours", rival="published", bar=2.0, note="why")
    skipped = {"work": "work", "rival": "kornia", "reason": "not installed"}
    measured = {"comparisons": [row], "skipped": [skipped]}
    path = record.write("step", measured, options=options, device=CPU)
    kept = json.loads(path.read_text())
    assert {"date", "commit", "device", "cores", "torch", "threads", "options"} <= set(kept)
    assert kept["comparisons"][0]["seconds"] == seconds
    table.main([str(path)])
    printed = capsys.readouterr().out
    assert "| work | ours | published | 1 | 2.5 | **2.50x** (2.00-3.00) | >= 2x | why |" in printed
    assert "| kornia |  |  | not measured |  | not installed |" in printed


def test_without_a_record_the_table_reports_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="make bench"):
        table.main([])


def test_the_simulation_of_verdicts_prints_a_line_per_number_of_seeds_and_spread(capsys):
    verdicts.main(["--tables", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        [f"| {seeds}", f"{spread}"] for seeds in (3, 5) for spread in (0.4, 0.8, 1.2)
    ]


def test_a_profile_names_operators_by_their_share(single):
    profiler = profile_step.profiled(single["ours"], CPU)
    actual = profile_step.operators(profiler.key_averages(), CPU)
    assert any("convolution" in row["name"] for row in actual)
    assert actual == sorted(actual, key=lambda row: -row["share"])
    assert 0.3 < sum(row["share"] for row in actual) <= 1.0001


def test_an_estimate_is_shown_beside_what_each_rule_and_the_whole_took(tmp_path):
    for name, stage, seconds in (("a", "data", 2), ("b", "pretrain", 10), ("b/c", "pretrain", 30)):
        record = dict(stage=stage, name=name, spec={}, inputs={}, outputs={}, study="demo", code={})
        record |= dict(environment={}, seed=0, started="2026-01-01T00:00:00Z", resumed=0)
        record |= dict(seconds=seconds, result={})
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(json.dumps(record), encoding="utf-8")
    took = estimate.timed(tmp_path)
    assert took == {"data": 2, "pretrain": 40}
    jobs = [("pretrain", 20.0), ("pretrain", 60.0), ("data", None), ("table", 3.0)]
    found = {
        "jobs": [{"rule": rule, "seconds": seconds} for rule, seconds in jobs],
        "seconds": 50.0,
        "at_once": 2,
    }
    shown = [line.split() for line in estimate.lines(found, took, 100.0)]
    assert ["pretrain", "1", "min", "20", "s", "40", "s", "2.00"] in shown
    assert shown[-1][-1] == "0.50"
    assert next(words for words in shown if words[0] == "table")[-1] == "-"


def test_a_method_learns_if_its_loss_falls_nothing_collapses_and_features_beat_pixels():
    good = learning.Learned("SimCLR", 2.0, 1.0, 0.9, (0.5,), 0.4)
    assert good.passes
    for wrong in ({"last": 2.5}, {"spread": 0.2}, {"features": (0.3,)}):
        assert not good._replace(**wrong).passes
    assert good._replace(spread=None).passes
    (row,) = learning.markdown("work", [good]).splitlines()[2:]
    assert row == "| SimCLR | 2.000 | 1.000 | 0.90 | 50.0 | 40.0 | yes |"
    both = learning.joined([good, good._replace(last=2.0, spread=0.2, features=(0.26,))])
    assert not both.passes
    (row,) = learning.markdown("work", [both]).splitlines()[2:]
    assert row == "| SimCLR | 2.000 | 1.500 | 0.20 | 38.0 (26.0-50.0) | 40.0 | no |"


@pytest.mark.parametrize("name", methods.OPTIONS)
def test_other_programs_lose_the_same_on_the_outputs_of_our_network(name):
    method = METHODS[name](**methods.OPTIONS[name])
    sides, _ = rivals.rivals(name, method)
    if not sides:
        pytest.skip(rivals.INSTALL)
    views = torch.rand(2, 8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batch = Batch(views[0], views, torch.zeros(8, dtype=torch.int64))
    net = build_network(build_encoder(width=4, hidden=None), method).train()
    ours = method.train_loss(net, batch, views[1]).item()
    for side in sides.values():
        assert side.loss(net, batch).item() == pytest.approx(ours, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("program", ["lightly", "solo-learn"])
def test_teachers_of_other_programs_move_as_ours(program):
    method = METHODS["byol"]()
    side = rivals.rivals("byol", method)[0].get(program)
    if side is None:
        pytest.skip(rivals.INSTALL)
    nets = [build_network(build_encoder(width=4, hidden=None), method) for _ in range(2)]
    for net in nets:
        with torch.no_grad():
            net.encoder.backbone.conv1.weight.add_(1)
    nets[0].follow(0.75)
    methods.move(nets[1], side, tau=0.75)
    for name, value in nets[0].teacher.state_dict().items():
        torch.testing.assert_close(nets[1].teacher.state_dict()[name], value)
