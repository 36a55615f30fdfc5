"""Views: what the views of a sample depend on, and how often each change is applied."""

from __future__ import annotations

import subprocess
import sys
import typing
from collections import Counter
from pathlib import Path

import pytest
import torch

from robustviews import augment
from robustviews.augment import AUGMENTATIONS, Colour, Views, make_views, to_float
from robustviews.machine import runtime

CROPS = ("resized", "padded", "none")
KEY = runtime.counter_key(0, "views", 3)


def images(count=12, size=16, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=noise)


def make(pictures, counters=None, *, key=KEY, size=16, **options):
    views = Views(**{"count": 3, "augmentation": "emp_ssl"} | options)
    counters = torch.arange(len(pictures)) if counters is None else counters
    return make_views(pictures, views, size=size, key=key, counters=counters)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


# Options


def test_importing_imports_neither_torch_nor_runtime():
    slow = "torch", "torchvision", "numpy", "robustviews.machine.runtime"
    code = f"import sys, robustviews.augment; sys.exit(str(sys.modules.keys() & {slow!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(Path(augment.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize("name", ["scale", "ratio"])
def test_range_with_swapped_ends_is_refused_with_the_right_order(name):
    with pytest.raises(ValueError, match=rf"{name}: .* found \[0.9, 0.2\]; write .* \[0.2, 0.9\]"):
        Views(**{name: (0.9, 0.2)})


def test_every_augmentation_that_a_study_can_name_has_a_recipe():
    names = typing.get_args(typing.get_type_hints(Views)["augmentation"])
    assert set(names) == set(AUGMENTATIONS)


def test_recipes_are_those_of_the_reference_code():
    emp, simclr = AUGMENTATIONS["emp_ssl"], AUGMENTATIONS["simclr"]
    assert (emp.jitter, emp.strength, emp.hue, emp.grayscale) == (0.8, 0.4, 0.2, 0.2)
    assert (emp.blur, emp.sigma, emp.solarize) == (0.1, (0.1, 2.0), 0.1)
    assert (simclr.jitter, simclr.strength, simclr.hue, simclr.grayscale) == (0.8, 0.4, 0.1, 0.2)
    assert (simclr.blur, simclr.solarize) == (0.0, 0.0)


# Shapes and ranges


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("size", [8, 16, 20])
def test_views_are_floats_in_the_unit_interval(crop, augmentation, size):
    white_and_noise = torch.cat((images(), torch.full_like(images(), 255)))
    views = make(white_and_noise, crop=crop, augmentation=augmentation, size=size, count=2)
    assert views.shape == (2, 24, 3, size, size)
    assert views.dtype == torch.float32
    assert views.is_contiguous()
    assert 0 <= views.min() <= views.max() <= 1


def test_bytes_and_floats_of_the_same_images_give_the_same_views():
    close(make(images() / 255), make(images()))


def test_whole_image_as_floats_is_bytes_over_255():
    assert torch.equal(to_float(images(), 16), images() / 255)
    assert torch.equal(to_float(images() / 255, 16), images() / 255)
    assert to_float(images(), 8).shape == (12, 3, 8, 8)


@pytest.mark.parametrize(
    ("pictures", "counters"),
    [
        (torch.zeros(4, 1, 8, 8), torch.arange(4)),
        (torch.zeros(3, 8, 8), torch.arange(3)),
        (torch.zeros(4, 3, 8, 8), torch.arange(5)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(pictures, counters):
    with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\) and \(B,\), found"):
        make(pictures, counters, size=8)


# What views depend on


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_views_of_a_sample_do_not_depend_on_its_batch(augmentation):
    pictures, counters = images(), torch.arange(12) + 1000
    together = make(pictures, counters, augmentation=augmentation)
    order = torch.tensor([7, 0, 11, 3])
    close(make(pictures[order], counters[order], augmentation=augmentation), together[:, order])
    close(make(pictures[5:6], counters[5:6], augmentation=augmentation), together[:, 5:6])


@pytest.mark.parametrize("chunk", [1, 3 * 16 * 16 * 3 * 5])
def test_views_do_not_depend_on_the_batch_size(chunk, monkeypatch):
    together = make(images())
    monkeypatch.setattr(augment, "_CPU_CHUNK", chunk)
    close(make(images()), together)


def test_first_views_do_not_depend_on_how_many_follow():
    close(make(images(), count=2), make(images(), count=5)[:2])


def test_same_key_and_counters_give_the_same_bits():
    assert torch.equal(make(images()), make(images()))


def test_another_key_counter_or_view_gives_another_view():
    same = images()[:1].expand(6, -1, -1, -1)
    views = make(same, count=4).flatten(0, 1)
    other_key = make(same, count=4, key=KEY + 1).flatten(0, 1)
    everything = torch.cat((views, other_key)).flatten(1)
    assert torch.pdist(everything).min() > 0.1


def test_global_generator_is_not_used():
    before = torch.random.get_rng_state()
    make(images())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_views_are_computed_in_full_float32_at_any_training_precision(monkeypatch):
    allowed, original = [], augment.apply_window

    def noting(*arguments, **options):
        allowed.append(torch.backends.cudnn.allow_tf32)
        return original(*arguments, **options)

    monkeypatch.setattr(augment, "apply_window", noting)
    with runtime.tf32(allowed=True):
        make(images())
        assert torch.backends.cudnn.allow_tf32
    assert set(allowed) == {False}


def test_autocast_of_the_caller_does_not_reach_the_views():
    plain = make(images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = make(images())
    assert inside.dtype == torch.float32
    assert torch.equal(inside, plain)


def test_images_are_not_changed():
    pictures = images() / 255
    kept = pictures.clone()
    for crop in CROPS:
        make(pictures, crop=crop)
    assert torch.equal(pictures, kept)


@pytest.mark.parametrize("colour", list(AUGMENTATIONS.values()), ids=list(AUGMENTATIONS))
@pytest.mark.parametrize("crop", CROPS)
def test_no_step_waits_for_values(crop, colour):
    # A meta tensor has no values: copying one to the host raises.
    numbers = torch.rand(4, 3, 36, device="meta")
    window = augment.draw_window(numbers[..., :23], Views(crop=crop), shape=(16, 16))
    change = augment.draw_change(numbers[..., 23:], colour)
    views = augment.apply_window(torch.rand(4, 3, 16, 16, device="meta"), window, size=16)
    assert augment.apply_change(views, change, colour).shape == (4, 3, 3, 16, 16)


# Geometry


def test_without_a_crop_a_view_is_the_image_or_its_mirror_image():
    pictures = images(40) / 255
    views = make(pictures, crop="none", augmentation="geometry", count=2)
    straight = (views == pictures).flatten(2).all(-1)
    mirrored = (views == pictures.flip(-1)).flatten(2).all(-1)
    assert (straight ^ mirrored).all()
    assert 0.3 < mirrored.float().mean() < 0.7


def test_padded_crop_is_a_shifted_image_on_black():
    pictures = images(60) / 255
    views = make(pictures, crop="padded", padding=2, augmentation="geometry", count=1)[0]
    border = torch.nn.functional.pad(pictures, [2] * 4)
    shifts = Counter()
    for number, view in enumerate(views):
        matches = [
            (top, left)
            for top in range(5)
            for left in range(5)
            for window in [border[number, :, top : top + 16, left : left + 16]]
            if torch.equal(view, window) or torch.equal(view, window.flip(-1))
        ]
        assert len(matches) == 1
        shifts.update(matches)
    assert {top for top, _ in shifts} == {left for _, left in shifts} == set(range(5))


def test_padded_crop_without_a_border_is_the_image_or_its_mirror_image():
    padded = make(images(), crop="padded", padding=0)
    assert torch.equal(padded, make(images(), crop="none"))


def test_every_shift_of_a_padded_crop_is_equally_likely():
    numbers = runtime.counter_uniform(KEY, torch.arange(9000), 23)[:, None]
    window = augment.draw_window(numbers, Views(crop="padded", padding=4), shape=(16, 16))
    for start in (window.top, window.left):
        assert start.min() == 0
        counts = torch.bincount(start.flatten()) / 9000
        torch.testing.assert_close(counts, torch.full((9,), 1 / 9), rtol=0, atol=0.014)


# How often


def rate(values):
    return values.float().mean().item()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_changes_have_the_frequencies_of_the_recipe(name):
    colour = AUGMENTATIONS[name]
    numbers = runtime.counter_uniform(KEY, torch.arange(20_000), 36)[:, None]
    change = augment.draw_change(numbers[..., 23:], colour)
    none = torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert rate((change.factors != none).all(-1)) == pytest.approx(colour.jitter, abs=0.012)
    assert rate((change.factors == none).all(-1)) == pytest.approx(1 - colour.jitter, abs=0.012)
    assert rate(change.gray) == pytest.approx(colour.grayscale, abs=0.012)
    assert rate(change.sigma > 0) == pytest.approx(colour.blur, abs=0.01)
    assert rate(change.solarize) == pytest.approx(colour.solarize, abs=0.01)
    flip = augment.draw_window(numbers[..., :23], Views(), shape=(16, 16)).flip
    assert rate(flip) == pytest.approx(0.5, abs=0.015)
    together = rate((change.sigma > 0) & change.solarize)  # one does not imply the other
    assert together == pytest.approx(colour.blur * colour.solarize, abs=0.005)


def test_sigma_is_uniform_in_its_range():
    numbers = runtime.counter_uniform(KEY, torch.arange(20_000), 13)[:, None]
    sigma = augment.draw_change(numbers, AUGMENTATIONS["emp_ssl"]).sigma
    drawn = sigma[sigma > 0]
    assert 0.1 <= drawn.min() < 0.15
    assert 1.95 < drawn.max() <= 2.0
    assert rate(drawn) == pytest.approx(1.05, abs=0.05)


def test_every_order_of_a_jitter_is_equally_likely():
    numbers = runtime.counter_uniform(KEY, torch.arange(24_000), 13)[:, None]
    orders = augment.draw_change(numbers, AUGMENTATIONS["emp_ssl"]).order[:, 0]
    counts = Counter(tuple(order.tolist()) for order in orders)
    assert len(counts) == 24
    assert max(abs(count - 1000) for count in counts.values()) < 150


def test_the_draws_for_a_view_are_independent():
    numbers = runtime.counter_uniform(KEY, torch.arange(20_000), 36)[:, None]
    colour = Colour(jitter=0.7, grayscale=0.5, blur=0.5, solarize=0.5)
    window = augment.draw_window(numbers[..., :23], Views(crop="padded"), shape=(16, 16))
    change = augment.draw_change(numbers[..., 23:], colour)
    jittered = change.factors[..., 0] != 1
    columns = (
        window.top, window.left, window.flip, jittered, change.gray, change.sigma > 0,
        change.solarize, *change.factors.unbind(-1), *change.order[..., :3].unbind(-1),
    )  # fmt: skip
    table = torch.stack([column.flatten().double() for column in columns])  # (14, 20000)
    correlation = torch.corrcoef(table).tril(-1)
    correlation[-3:, -3:] = 0  # positions in one order exclude each other
    assert correlation.abs().max() < 0.035  # 5 standard deviations


def test_sigma_does_not_follow_from_whether_to_blur():
    numbers = runtime.counter_uniform(KEY, torch.arange(20_000), 13)[:, None]
    sigma = augment.draw_change(numbers, Colour(blur=0.5)).sigma
    drawn = sigma[sigma > 0]
    quarters = torch.histc(drawn, 4, 0.1, 2.0) / len(drawn)
    torch.testing.assert_close(quarters, torch.full((4,), 0.25), rtol=0, atol=0.02)
