"""Views against torchvision's functions on float images: each sample alone, same parameters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms
from torchvision.transforms import functional

from robustviews import augment
from robustviews.augment import AUGMENTATIONS, Change, Colour, Views, Window
from robustviews.machine import runtime
from robustviews.recipes import SECOND

TOLERANCE = {"rtol": 0, "atol": 1e-5}
TAPS = 13  # of the blur, for a largest sigma of 2
PARTS = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
)
JITTER = Colour(jitter=1.0)
NO_FACTORS = (1.0, 1.0, 1.0, 0.0)


def pictures(count, height=32, width=32, seed=0):
    """Return noise of bytes with many gray, black, white, pure and nearly gray pixels."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    pure = rng.integers(0, 2, pixels.shape, dtype=np.uint8) * 255
    gray = np.repeat(pixels[:, :1], 3, axis=1)
    near = np.clip(gray.astype(int) + rng.integers(-1, 2, pixels.shape), 0, 255)
    kind = rng.integers(0, 6, (count, 1, height, width))
    mixed = np.select([kind == 0, kind == 1, kind == 2], [pure, gray, near], pixels)
    return torch.from_numpy(mixed.astype(np.uint8))


def change(count, *, order=(0, 1, 2, 3), factors=NO_FACTORS, gray=False, sigma=0.0, solarize=False):
    """Return the same change for each of `count` images with one view."""
    ones = torch.ones(count, 1)
    return Change(
        order=torch.tensor(order).expand(count, 1, 4),
        factors=torch.tensor(factors).expand(count, 1, 4),
        gray=ones.bool() & gray,
        sigma=ones * sigma,
        solarize=ones.bool() & solarize,
    )


def changed(images, colour, **values):
    return augment.apply_change(images[:, None], change(len(images), **values), colour)[:, 0]


def expected_jitter(image, order, factors):
    for part in order:
        image = PARTS[part](image, factors[part])
    return image


# Crop, resize, flip


@pytest.mark.parametrize(
    ("shape", "size"),
    [((32, 32), 32), ((8, 8), 32), ((48, 48), 16), ((20, 41), 24), ((64, 64), 7)],
)
def test_window_equals_resized_crop_and_flip(shape, size):
    height, width = shape
    images = pictures(40, height, width) / 255
    rng = np.random.default_rng(1)
    heights, widths = rng.integers(1, height + 1, 40), rng.integers(1, width + 1, 40)
    tops, lefts = rng.integers(0, height - heights + 1), rng.integers(0, width - widths + 1)
    flips = rng.integers(0, 2, 40).astype(bool)
    places = (tops, lefts, heights, widths, flips)
    window = Window(*(torch.from_numpy(place)[:, None] for place in places))
    views = augment.apply_window(images, window, size=size)
    for number, (top, left, high, wide, flip) in enumerate(zip(*places, strict=True)):
        expected = functional.resized_crop(
            images[number], top, left, high, wide, [size, size], antialias=True
        )
        expected = functional.hflip(expected) if flip else expected
        torch.testing.assert_close(views[number, 0], expected, **TOLERANCE)


def test_whole_window_of_the_same_size_is_the_image_itself():
    images = pictures(4) / 255
    views = Views(count=1, crop="none", augmentation="geometry")
    window = augment.draw_window(torch.full((4, 1, 23), 0.9), views, shape=(32, 32))
    assert torch.equal(augment.apply_window(images, window, size=32)[:, 0], images)


@pytest.mark.parametrize("size", [16, 50])
def test_to_float_equals_resize(size):
    images = pictures(5)
    expected = functional.resize(images / 255, [size, size], antialias=True)
    torch.testing.assert_close(augment.to_float(images, size), expected, **TOLERANCE)


# Colour


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 3.0])
@pytest.mark.parametrize("part", [0, 1, 2], ids=["brightness", "contrast", "saturation"])
def test_part_of_a_jitter_equals_its_function(part, factor):
    images = pictures(6) / 255
    factors = tuple(factor if number == part else NO_FACTORS[number] for number in range(4))
    expected = torch.stack([PARTS[part](image, factor) for image in images])
    actual = changed(images, JITTER, factors=factors)
    torch.testing.assert_close(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("shift", [-0.5, -0.2, -0.01, 0.0, 0.1, 1 / 3, 0.5])
def test_hue_equals_its_function(shift):
    images = pictures(6) / 255
    expected = torch.stack([functional.adjust_hue(image, shift) for image in images])
    actual = changed(images, JITTER, factors=(1.0, 1.0, 1.0, shift))
    torch.testing.assert_close(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_jitter_keeps_the_order_of_its_changes(order):
    images = pictures(3, 12, 12) / 255
    for factors in ((1.4, 0.6, 1.3, 0.15), (0.7, 1.4, 0.6, -0.2)):
        expected = torch.stack([expected_jitter(image, order, factors) for image in images])
        actual = changed(images, JITTER, order=order, factors=factors)
        torch.testing.assert_close(actual, expected, **TOLERANCE)


def test_images_of_one_batch_have_orders_of_their_own():
    images = pictures(24, 12, 12) / 255
    orders = list(itertools.permutations(range(4)))
    factors = (1.4, 0.6, 1.3, 0.15)
    mixed = change(24, factors=factors)._replace(order=torch.tensor(orders)[:, None])
    actual = augment.apply_change(images[:, None], mixed, JITTER)[:, 0]
    pairs = zip(images, orders, strict=True)
    expected = torch.stack([expected_jitter(image, order, factors) for image, order in pairs])
    torch.testing.assert_close(actual, expected, **TOLERANCE)


def test_grayscale_equals_its_function():
    images = pictures(6) / 255
    expected = functional.rgb_to_grayscale(images, 3)
    actual = changed(images, Colour(grayscale=1.0), gray=True)
    torch.testing.assert_close(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("size", [7, 8, 32, 45])
@pytest.mark.parametrize("sigma", [0.1, 0.33, 1.0, 2.0])
def test_blur_equals_its_function(sigma, size):
    images = pictures(4, size, size) / 255
    expected = functional.gaussian_blur(images, [TAPS, TAPS], [sigma, sigma])
    actual = changed(images, Colour(blur=1.0), sigma=sigma)
    torch.testing.assert_close(actual, expected, **TOLERANCE)


def test_solarize_equals_its_function_and_that_of_pil_on_bytes():
    ramp = torch.arange(256, dtype=torch.uint8).view(16, 16).expand(1, 3, 16, 16)
    actual = changed(ramp / 255, Colour(solarize=1.0), solarize=True)
    torch.testing.assert_close(actual, functional.solarize(ramp / 255, 0.5), **TOLERANCE)
    picture = Image.fromarray(ramp[0].permute(1, 2, 0).numpy())
    expected = np.asarray(ImageOps.solarize(picture, 128)).transpose(2, 0, 1)
    np.testing.assert_array_equal((actual[0] * 255).round().byte().numpy(), expected)


@pytest.mark.parametrize("colour", list(AUGMENTATIONS.values()), ids=list(AUGMENTATIONS))
def test_values_for_no_change_change_nothing(colour):
    images = pictures(4) / 255
    torch.testing.assert_close(changed(images, colour), images, rtol=0, atol=1e-6)


# All together


def expected_view(image, window, what, border, size):
    """Make one view with torchvision; `window` and `what` are the parameters of this view."""
    image = functional.pad(image, [border] * 4)
    place = [int(value) for value in window[:4]]
    view = functional.resized_crop(image, *place, [size, size], antialias=True)
    view = functional.hflip(view) if window.flip else view
    view = expected_jitter(view, what.order.tolist(), what.factors.tolist())
    view = functional.rgb_to_grayscale(view, 3) if what.gray else view
    sigma = float(what.sigma)
    view = functional.gaussian_blur(view, [TAPS, TAPS], [sigma, sigma]) if sigma else view
    return functional.solarize(view, 0.5) if what.solarize else view


@pytest.mark.parametrize("crop", ["resized", "padded", "none"])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_views_equal_a_pipeline_of_torchvision(augmentation, crop):
    images, key, size = pictures(30), runtime.counter_key(3, "views", 1), 24
    views = Views(count=4, crop=crop, padding=6, augmentation=augmentation)
    counters = torch.arange(30) * 7
    actual = augment.make_views(images, views, size=size, key=key, counters=counters)

    numbers = runtime.counter_uniform(key, counters, 4 * 36).view(30, 4, 36)
    window = augment.draw_window(numbers[..., :23], views, shape=(32, 32))
    first = AUGMENTATIONS[augmentation]
    recipes = first, SECOND.get(augmentation, first)
    drawn = [augment.draw_change(numbers[..., 23:], recipe) for recipe in recipes]
    border = 6 if crop == "padded" else 0
    for sample, view in itertools.product(range(30), range(4)):
        expected = expected_view(
            images[sample] / 255,
            Window(*(value[sample, view] for value in window)),
            Change(*(value[sample, view] for value in drawn[view % 2])),
            border,
            size,
        )
        torch.testing.assert_close(actual[view, sample], expected, **TOLERANCE)
    only = augment.make_views(
        images, views, size=size, key=key, counters=counters, only=slice(1, 3)
    )
    torch.testing.assert_close(only, actual[1:3], rtol=0, atol=1e-6)


# Distributions


def frequencies(values, bins):
    return np.histogram(values, bins=bins)[0] / len(values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "scale", "ratio"),
    [
        ((32, 32), (0.08, 1.0), (0.75, 4 / 3)),
        ((32, 32), (0.25, 0.25), (1.0, 1.0)),
        ((32, 32), (0.9, 1.0), (0.3, 0.4)),  # few or no tries fit: the central window
        ((20, 60), (0.5, 1.0), (0.75, 4 / 3)),
        ((60, 20), (0.5, 1.0), (0.75, 4 / 3)),
        ((40, 40), (0.5, 1.0), (2.0, 3.0)),
    ],
)
def test_windows_are_distributed_as_those_of_random_resized_crop(shape, scale, ratio):
    torch.manual_seed(0)
    count = 6000
    image = torch.zeros(3, *shape)
    draw = transforms.RandomResizedCrop.get_params
    expected = np.array([draw(image, list(scale), list(ratio)) for _ in range(count)])
    numbers = runtime.counter_uniform(1, torch.arange(count), 23)[:, None]
    window = augment.draw_window(numbers, Views(scale=scale, ratio=ratio), shape=shape)
    actual = torch.stack(window[:4], dim=-1)[:, 0].numpy()  # (count, 4)
    for column in range(4):
        bins = np.linspace(-0.5, max(shape) + 0.5, 12)
        gap = frequencies(actual[:, column], bins) - frequencies(expected[:, column], bins)
        assert np.abs(gap).max() < 0.035  # 4 standard deviations at 1/2
    whole = actual[:, :2] + actual[:, 2:]
    assert (actual[:, :2] >= 0).all()
    assert (actual[:, 2:] > 0).all()
    assert (whole <= shape).all()


def test_central_window_is_that_of_random_resized_crop_when_nothing_fits():
    for shape, ratio in (((32, 32), (4.0, 5.0)), ((32, 32), (0.1, 0.2)), ((30, 61), (0.9, 1.1))):
        numbers = torch.zeros(1, 1, 23) + 0.999  # the largest area never fits beside such a ratio
        window = augment.draw_window(numbers, Views(scale=(1.0, 1.0), ratio=ratio), shape=shape)
        image = torch.zeros(3, *shape)
        expected = transforms.RandomResizedCrop.get_params(image, [1.0, 1.0], list(ratio))
        assert tuple(int(value) for value in window[:4]) == expected


def test_jitter_factors_have_the_range_of_color_jitter():
    colour = AUGMENTATIONS["emp_ssl"]
    numbers = runtime.counter_uniform(2, torch.arange(20_000), 13)[:, None]
    what = augment.draw_change(numbers, colour)
    peer = transforms.ColorJitter(0.4, 0.4, 0.4, 0.2)
    ranges = (peer.brightness, peer.contrast, peer.saturation, peer.hue)
    for part, (low, high) in enumerate(ranges):
        values = what.factors[:, 0, part]
        drawn = values[values != NO_FACTORS[part]]
        torch.testing.assert_close(
            drawn.quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])),
            torch.linspace(low, high, 5),
            rtol=0,
            atol=0.03 * (high - low),
        )
        assert drawn.min() >= low
        assert drawn.max() <= high


def test_saturation_has_a_strength_of_its_own():
    numbers = torch.rand(4000, 1, 13, generator=torch.Generator().manual_seed(0))
    both = [Colour(jitter=1.0, saturation=strength) for strength in (None, 0.2)]
    usual, weak = (augment.draw_change(numbers, colour).factors[:, 0] for colour in both)
    assert torch.equal(usual[:, [0, 1, 3]], weak[:, [0, 1, 3]])
    torch.testing.assert_close(weak[:, 2] - 1, (usual[:, 2] - 1) / 2, rtol=0, atol=1e-6)


def test_every_second_view_of_the_asymmetric_recipe_is_solarized():
    views, counters = Views(count=4, augmentation="asymmetric", crop="none"), torch.arange(400)
    images = torch.full((400, 3, 8, 8), 255, dtype=torch.uint8)
    made = augment.make_views(images, views, size=8, key=5, counters=counters)
    solarized = (made.flatten(2).amax(-1) < 0.5).double().mean(dim=1)
    assert solarized[::2].tolist() == [0, 0]
    assert solarized[1::2].tolist() == pytest.approx([0.2, 0.2], abs=0.06)
