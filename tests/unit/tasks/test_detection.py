"""A detector's losses and detections against torchvision, its scores against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS

from robustviews.tasks import fcos
from robustviews.tasks.average_precision import RECALLS
from robustviews.tasks.detection import Detection
from robustviews.tasks.protocol import Maps

TASK = Detection()
SIZE, CLASSES, GRID = (32, 32), 3, 8


def outputs(images, *, seed=0, dtype=torch.float32):
    """Return noise as outputs, whose distances are not negative, as those of the head."""
    noise = torch.randn(
        images, GRID**2, CLASSES + 5, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )
    noise[..., CLASSES:-1].relu_()
    return noise


def labels(images, objects, *, seed=0):
    """Return boxes that may overlap; the first image has none, and the second one fewer."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 20, (images, objects, 2), generator=generator)
    sides = torch.randint(3, 12, (images, objects, 2), generator=generator)
    sides[..., 0] += 4 * torch.arange(objects) * sides[..., 1]  # areas that float32 at 1e8 resolves
    classes = torch.randint(0, CLASSES, (images, objects, 1), generator=generator)
    rows = torch.cat([corners, corners + sides, classes], dim=2).float()
    rows[0], rows[1, 1:] = -1, -1
    return rows


@pytest.fixture(scope="module")
def published():
    """torchvision's detector, of which only losses and post-processing run."""
    backbone = nn.Identity()
    backbone.out_channels = 32
    anchors = AnchorGenerator(((8,),), ((1.0,),))
    return FCOS(
        backbone, CLASSES, anchor_generator=anchors, score_thresh=0.05, nms_thresh=0.5,
        detections_per_img=50,
    )  # fmt: skip


def as_dicts(out, rows):
    """Return outputs and labels of one image as torchvision has them."""
    answers = {
        "cls_logits": out[None, :, :CLASSES],
        "bbox_regression": out[None, :, CLASSES:-1],
        "bbox_ctrness": out[None, :, -1:],
    }
    rows = rows[rows[:, 4] >= 0].to(out.dtype)
    return answers, {"boxes": rows[:, :4], "labels": rows[:, 4].long()}


# The loss


@pytest.mark.parametrize("seed", range(5))
def test_each_image_of_a_batch_has_the_loss_that_torchvision_gives_it_alone(published, seed):
    out = outputs(6, seed=seed, dtype=torch.float64).requires_grad_()
    rows = labels(6, 3, seed=seed)
    parts = fcos.losses(out, fcos.assign(rows, out, SIZE), SIZE)
    assert (parts.box[1:] > 0).any()
    [own] = torch.autograd.grad(parts.total().sum(), out, retain_graph=True)
    cells = [fcos.cells(out, SIZE)]
    expected = []
    for image in range(6):
        answers, target = as_dicts(out[image], rows[image])
        found = published.compute_loss([target], answers, cells, [GRID**2])
        expected.append(torch.stack([found[name] for name in PARTS]))
    torch.testing.assert_close(torch.stack(parts, dim=1), torch.stack(expected), rtol=0, atol=1e-6)
    [reference] = torch.autograd.grad(sum(one.sum() for one in expected), out)
    torch.testing.assert_close(own, reference, rtol=0, atol=1e-6)
    assert torch.equal(TASK.loss(out, rows, None, SIZE), parts.total())


PARTS = ("classification", "bbox_regression", "bbox_ctrness")


def test_of_two_objects_a_location_answers_for_the_smaller_one():
    rows = torch.tensor([[[8, 8, 24, 24, 0], [9, 9, 24, 24, 2]]]).float()
    for flipped in (rows, rows.flip(1)):
        classes = fcos.assign(flipped, outputs(1), SIZE).classes
        assert sorted(set(classes.flatten().tolist())) == [-1, 2]


def test_labels_without_rows_are_those_of_images_without_objects():
    out = outputs(2)
    empty, padded = torch.zeros(2, 0, 5), torch.full((2, 3, 5), -1.0)
    actual = TASK.loss(out, empty, None, SIZE)
    assert torch.isfinite(actual).all()
    assert torch.equal(actual, TASK.loss(out, padded, None, SIZE))
    assert (fcos.losses(out, fcos.assign(empty, out, SIZE), SIZE).box == 0).all()


def test_the_loss_needs_a_square_grid():
    with pytest.raises(ValueError, match="a square grid of locations; found 63 locations"):
        TASK.loss(outputs(2)[:, 1:], labels(2, 3), None, SIZE)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((4, 4, 4, 9, 0), "image 1, object 2: a box needs x1 < x2 and y1 < y2"),
        ((4, 4, 9, float("nan"), 0), "image 1, object 2: a box needs"),
        ((4, 4, 9, 9, 3), "image 1, object 2: the class must be a whole number from 0 to 2"),
        ((4, 4, 9, 9, 0.5), "the class must be a whole number"),
    ],
)
def test_empty_boxes_and_unknown_classes_are_refused(row, message):
    rows = labels(4, 3)
    rows[1, 2] = torch.tensor(row)
    with pytest.raises(ValueError, match=message):
        TASK.class_weights(rows, CLASSES)
    with pytest.raises(ValueError, match=message):
        TASK.check(outputs(4), rows)


# The head


@pytest.mark.parametrize(
    ("shapes", "locations"),
    [
        (((8, 32), (16, 16), (32, 8), (64, 4)), 64),  # channels and side of each level
        (((192, 7),), 49),
        (((16, 15), (32, 8)), 225),
    ],
)
def test_a_head_answers_on_the_finer_of_the_coarsest_two_levels(shapes, locations):
    maps = Maps(tuple(torch.randn(2, count, side, side) for count, side in shapes), (30, 30))
    torch.manual_seed(0)
    head = TASK.head([count for count, _ in shapes], CLASSES)
    out = head(maps)
    assert out.shape == (2, locations, CLASSES + 5)
    assert (out[..., CLASSES:-1] >= 0).all()
    assert out[..., :CLASSES].sigmoid().mean().item() == pytest.approx(0.05, abs=0.03)
    out.sum().backward()
    assert all(weight.grad is not None for weight in head.parameters())
    torch.manual_seed(0)
    again = TASK.head([count for count, _ in shapes], CLASSES)
    assert all(map(torch.equal, head.parameters(), again.parameters()))


def test_a_head_refuses_images_that_are_not_square():
    with pytest.raises(ValueError, match="square images; found 30x40"):
        TASK.head([8], CLASSES)(Maps((torch.randn(2, 8, 6, 8),), (30, 40)))


# Detections


def test_detections_are_those_of_torchvision_inside_the_image(published):
    out = outputs(3, seed=1)
    found = TASK.answers(out, labels(3, 2), SIZE)
    assert found.shape == (3, 50, 6)
    assert found.dtype == torch.float32
    assert found[..., :4].min() >= 0
    assert found[..., :4].max() <= 32
    assert torch.equal(found, TASK.answers(out, labels(3, 2), SIZE))
    for image in range(3):
        answers, _ = as_dicts(out[image], labels(3, 2)[image])
        [expected] = published.postprocess_detections(
            {name: [part] for name, part in answers.items()}, [[fcos.cells(out, SIZE)]], [SIZE]
        )
        own = found[image][found[image, :, 5] >= 0]
        columns = expected["boxes"], expected["scores"][:, None], expected["labels"][:, None]
        torch.testing.assert_close(own, torch.cat(columns, dim=1), rtol=0, atol=1e-5)


def test_outputs_without_an_object_have_no_detection():
    out = outputs(2)
    out[..., :CLASSES] = -20
    assert (TASK.answers(out, labels(2, 2), SIZE)[..., 5] == -1).all()


# Scores


def scene(seed, *, images=20, objects=4, detections=8, levels=0):
    """Return detections and objects on a coarse grid; `levels` > 0 gives ties of scores.

    The first image has no object, the second one no detection.
    """
    random = np.random.default_rng(seed)

    def boxes(count):
        corners = random.integers(0, 6, (images, count, 2))
        return np.concatenate([corners, corners + random.integers(1, 5, corners.shape)], axis=-1)

    true, kinds = boxes(objects), random.integers(-1, CLASSES, (images, objects))
    found, guesses = boxes(detections), random.integers(-1, CLASSES, (images, detections))
    near = random.random((images, objects)) < 0.6
    found[:, :objects][near], guesses[:, :objects][near] = true[near], kinds[near]
    kinds[0], guesses[1] = -1, -1
    scores = random.random((images, detections))
    scores = np.ceil(scores * levels) / levels if levels else scores
    answers = np.concatenate([found, scores[..., None], guesses[..., None]], axis=-1)
    truth = np.concatenate([true, kinds[..., None]], axis=-1)
    return answers.astype(np.float32), truth.astype(np.float32)


def once(answers):
    return np.ones((1, len(answers)), dtype=np.int64)


@pytest.mark.parametrize("levels", [0, 5])
@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_pycocotools(seed, levels):
    detection = pytest.importorskip("torchmetrics.detection", reason="needs torchmetrics")
    pytest.importorskip("pycocotools", reason="needs pycocotools")
    answers, truth = scene(seed, levels=levels)
    metric = detection.MeanAveragePrecision(
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(), rec_thresholds=RECALLS.tolist()
    )
    for image, rows in zip(map(torch.tensor, answers), map(torch.tensor, truth), strict=True):
        image, rows = image[image[:, 5] >= 0], rows[rows[:, 4] >= 0]  # noqa: PLW2901
        found = {"boxes": image[:, :4], "scores": image[:, 4], "labels": image[:, 5].long()}
        metric.update([found], [{"boxes": rows[:, :4], "labels": rows[:, 4].long()}])
    expected = metric.compute()
    for name, key in (("AP50", "map_50"), ("AP", "map")):
        [actual] = TASK.score(answers, truth, once(answers), name)
        assert actual == pytest.approx(expected[key].item(), abs=1e-6)


def test_scores_of_a_scene_are_as_counted_by_hand():
    """Two objects; found one, nothing, other: precision 1 up to recall .5, then 2/3."""
    truth = np.array([[[0, 0, 4, 4, 0], [6, 6, 9, 9, 0]]], dtype=np.float32)
    found = [[0, 0, 4, 3, 0.9, 0], [20, 20, 24, 24, 0.8, 0], [6, 6, 9, 9, 0.7, 0]]
    answers = np.array([found], dtype=np.float32)
    [actual] = TASK.score(answers, truth, once(answers))
    assert actual == pytest.approx((51 + 50 * 2 / 3) / 101)
    wide, tight = (51 + 50 * 2 / 3) / 101, 51 / 3 / 101  # an overlap of .75 is enough up to .75
    [mean] = TASK.score(answers, truth, once(answers), "AP")
    assert mean == pytest.approx((6 * wide + 4 * tight) / 10)
    assert TASK.quality(answers, truth) == pytest.approx(actual)
    with pytest.raises(ValueError, match="metric: detection has AP50 and AP, found 'mAP'"):
        TASK.score(answers, truth, once(answers), "mAP")


def test_of_two_objects_at_the_same_distance_a_detection_takes_the_last_one():
    truth = np.array([[[0, 0, 4, 4, 0], [2, 0, 6, 4, 0]]], dtype=np.float32)
    found = [[1, 0, 5, 4, 0.9, 0], [0, 0, 4, 4, 0.8, 0]]  # the first one is as near to both
    assert TASK.score(np.array([found], dtype=np.float32), truth, np.ones((1, 1), int)) == [1]


def test_a_recall_is_reached_as_in_float64():
    """Seven objects of ten are .7, which is less than the 71st of the recalls in float64."""
    truth = np.array([[[9 * i, 0, 9 * i + 4, 4, 0] for i in range(10)]], dtype=np.float32)
    answers = np.insert(truth[:, :7], 4, 0.9, axis=2)
    assert TASK.score(answers, truth, once(answers)) == pytest.approx(70 / 101)


@pytest.mark.parametrize("metric", TASK.metrics)
def test_an_image_that_counts_twice_is_as_two_images(metric):
    answers, truth = scene(3)
    counts = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), size=4)
    expected = [
        TASK.score(repeated, truth.repeat(times, axis=0), once(repeated), metric)[0]
        for times in counts
        for repeated in (answers.repeat(times, axis=0),)
    ]
    np.testing.assert_allclose(TASK.score(answers, truth, counts, metric), expected, atol=1e-12)


def test_draws_are_scored_alike_in_parts_and_at_once(monkeypatch):
    answers, truth = scene(4)
    counts = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), size=7)
    whole = TASK.score(answers, truth, counts)
    monkeypatch.setattr("robustviews.tasks.average_precision._LARGEST", 100)
    assert np.array_equal(TASK.score(answers, truth, counts), whole)


def test_quality_is_the_score_of_an_image_alone():
    answers, truth = scene(5)
    alone = TASK.score(answers, truth, np.eye(20, dtype=np.int64))
    assert np.isnan(alone[0])  # no object: no average precision
    quality = TASK.quality(answers, truth)
    np.testing.assert_allclose(quality[1:], alone[1:], atol=1e-12)
    assert quality[0] == 0  # but detections
    assert quality[1] == 0  # no detection of its objects
    answers[0, :, 5] = -1
    assert TASK.quality(answers, truth)[0] == 1


def test_scores_of_nothing_are_defined():
    answers, truth = np.full((3, 50, 6), -1.0), np.full((3, 4, 5), -1.0)
    assert np.isnan(TASK.score(answers, truth, once(answers))).all()
    assert TASK.quality(answers, truth).tolist() == [1, 1, 1]
    assert TASK.quality(answers, truth[:, :0]).tolist() == [1, 1, 1]
