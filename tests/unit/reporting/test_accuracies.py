"""Metrics of dense tasks in a row of the frame, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from robustviews.reporting import accuracies, small_radii
from robustviews.tasks.detection import DETECTION

IMAGES, CLASSES, FOUND = 100, 20, 30


@pytest.fixture(scope="module")
def boxes():
    """Answers of an uninformed detector: draws of a bootstrap have a higher AP than the images."""
    generator = np.random.default_rng(0)
    truth = np.zeros((IMAGES, 1, 5), np.float32)
    truth[..., :4] = 0, 0, 40, 40
    truth[..., 4] = np.arange(IMAGES)[:, None] % CLASSES
    answers = np.zeros((IMAGES, FOUND, 6), np.float32)
    answers[..., :4] = truth[..., :4] + generator.normal(0, 10, (IMAGES, FOUND, 4))
    answers[..., 4] = np.sort(generator.uniform(0.05, 1, (IMAGES, FOUND)))[:, ::-1]
    answers[..., 5] = truth[..., 4]
    return answers, truth


def test_an_interval_is_that_of_images_with_the_error_of_a_bootstrap(boxes):
    answers, truth = boxes
    row = {"metric": "AP50"}
    accuracies.score(row, DETECTION, answers, truth)
    assert row["low"] < row["accuracy"] < row["high"]
    drawn = DETECTION.score(answers, truth, accuracies.draws(IMAGES).astype(float))
    error = np.sqrt(row["accuracy"] * (1 - row["accuracy"]) / row["weighs"])
    assert error == pytest.approx(drawn.std(), rel=0.01)
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert row["correct"] is None


@pytest.mark.parametrize("name", ["retained", "e50"])
def test_draws_of_a_statistic_lie_around_its_value(name, boxes):
    answers, truth = boxes
    clean = answers.copy()
    clean[:, 0, :4], clean[:, 1:, 5] = truth[:, 0, :4], -1
    found = accuracies.Answers(DETECTION, {0.0: clean, 4.0: answers, 8.0: answers}, truth)
    value, drawn = small_radii.statistic(name, found)
    assert drawn.mean() == pytest.approx(value, rel=0.01)
    low, high = small_radii.interval([value], drawn)
    assert 0 < low < value < high < 8


def test_a_draw_without_an_object_counts_as_all_images(boxes):
    answers, truth = (array.copy() for array in boxes)
    truth[1:, :, 4] = -1
    found = accuracies.Answers(DETECTION, {0.0: answers, 4.0: answers}, truth)
    value, drawn = small_radii.statistic("retained", found)
    assert value == pytest.approx(1)
    assert drawn == pytest.approx(1)
