"""A detector of one level: its head, what each location should answer, losses, and detections.

A location of a square grid answers with a logit of each class, four distances to the sides of a
box, and the logit of its centre-ness: how near the location is to the centre of that box. Source:
Tian et al. 2019 (FCOS), with the parts of torchvision 0.26.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import (
    batched_nms,
    clip_boxes_to_image,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from robustviews.machine import runtime
from robustviews.tasks import pyramid

if TYPE_CHECKING:
    from robustviews.tasks.protocol import Maps

Size = tuple[int, int]  # height and width of images, in pixels
DETECTIONS = 50  # kept for each image
_LEVELS = 2  # of the encoder, the coarsest
_WIDTH = 32  # channels between encoder and answers; GroupNorm of FCOSHead needs a multiple of 32
_PRIOR = 0.05  # initial probability of each class: with .01, as published, short trainings stall
_RADIUS = 1.5  # how far a location may be from the centre of its object, in sides of a cell
_LEAST_SCORE = 0.05
_CANDIDATES = 1000  # of an image, before non-maximum suppression
_MOST_OVERLAP = 0.5  # of two detections of a class


class Head(nn.Module):
    """Batch norm and 1x1 convolutions of the coarsest levels, summed, below FCOS's two towers."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.laterals = pyramid.laterals(channels[-_LEVELS:], _WIDTH)
        self.towers = FCOSHead(_WIDTH, 1, classes, num_convs=1)
        bias = self.towers.classification_head.cls_logits.bias
        nn.init.constant_(bias, math.log(_PRIOR / (1 - _PRIOR)))

    def forward(self, maps: Maps) -> Tensor:
        """Map levels of an encoder to outputs (B, A, classes + 5) at the A locations of a grid."""
        pairs = zip(self.laterals, maps.levels[-_LEVELS:], strict=True)
        fine, *coarse = (lateral(level) for lateral, level in pairs)
        if maps.size[0] != maps.size[1] or fine.shape[2] != fine.shape[3]:
            raise ValueError(f"detection needs square images; found {maps.size[0]}x{maps.size[1]}")
        for level in coarse:
            fine = fine + functional.interpolate(level, fine.shape[2:], mode="nearest")
        answers = self.towers([fine])
        parts = answers["cls_logits"], answers["bbox_regression"], answers["bbox_ctrness"]
        return runtime.widen(torch.cat(parts, dim=2))


class Targets(NamedTuple):
    """What the A locations of each image should answer.

    Attributes:
        classes: (B, A) int64, -1 for the background.
        boxes: (B, A, 4) in pixels; those of the background count nothing.
    """

    classes: Tensor
    boxes: Tensor


class Losses(NamedTuple):
    """Parts of the loss of each image (B,), over the number of its locations with an object."""

    classification: Tensor
    box: Tensor
    centre: Tensor

    def total(self) -> Tensor:
        """Return the sum (B,)."""
        return self.classification + self.box + self.centre


def cells(outputs: Tensor, size: Size) -> Tensor:
    """Return the cell (A, 4) around each location, whose side is the unit of the distances.

    The image has g x g equal cells, row by row; locations are their centres.

    Raises:
        ValueError: the number of locations is no square.
    """
    count = outputs.shape[1]
    grid = math.isqrt(count)
    if grid**2 != count:
        raise ValueError(f"detection needs a square grid of locations; found {count} locations")
    stride = size[0] / grid
    steps = (torch.arange(grid, device=outputs.device, dtype=outputs.dtype) + 0.5) * stride
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    half = stride / 2
    return torch.stack([x - half, y - half, x + half, y + half], dim=-1).view(-1, 4)


def assign(labels: Tensor, outputs: Tensor, size: Size) -> Targets:
    """Return the object of each location: the smallest that it is inside of and near the centre of.

    Args:
        labels: (B, M, 5), x1, y1, x2, y2 and class; class -1 marks rows without an object.
        outputs: (B, A, classes + 5).
        size: of the images.

    Source: `FCOS.compute_loss` of torchvision, which compares areas at a resolution of 8 square
    pixels, that of float32 at 1e8; here the smallest area decides.
    """
    around = cells(outputs, size)
    labels = functional.pad(labels.to(outputs.dtype), (0, 0, 0, 1), value=-1)  # at least one row
    boxes, classes = labels[..., :4], labels[..., 4]  # (B, M, 4), (B, M)
    points = _centres(around)[:, None]  # (A, 1, 2)
    first, last = boxes[:, None, :, :2], boxes[:, None, :, 2:]  # (B, 1, M, 2)
    inside = torch.minimum(points - first, last - points).amin(dim=-1) > 0  # (B, A, M)
    side = around[0, 2] - around[0, 0]
    near = (points - (first + last) / 2).abs().amax(dim=-1) < _RADIUS * side
    areas = (last - first).prod(dim=-1).expand(inside.shape)
    areas = areas.masked_fill(~(inside & near & (classes >= 0)[:, None]), torch.inf)
    least, chosen = areas.min(dim=2)  # (B, A)
    found = least < torch.inf
    return Targets(
        torch.where(found, classes.gather(1, chosen), -1).long(),
        torch.where(found[..., None], boxes.take_along_dim(chosen[..., None], dim=1), around),
    )


def losses(outputs: Tensor, targets: Targets, size: Size) -> Losses:
    """Return focal loss, generalised IoU and cross-entropy of centre-ness of each image.

    Args:
        outputs: (B, A, classes + 5).
        targets: of the same locations.
        size: of the images.

    Source: `FCOSHead.compute_loss` of torchvision, for a batch of one image: the company of an
    image in a batch changes nothing.
    """
    logits, distances, centre = _parts(outputs)
    around = cells(outputs, size)
    objects = (targets.classes >= 0).to(outputs.dtype)  # (B, A)
    count = objects.sum(dim=1).clamp_min(1)
    hot = functional.one_hot(targets.classes.clamp_min(0), logits.shape[2]) * objects[..., None]
    focal = sigmoid_focal_loss(logits, hot, reduction="none").sum(dim=(1, 2))
    box = generalized_box_iou_loss(_decoded(distances, around), targets.boxes)  # (B, A)
    points = _centres(around)
    sides = torch.stack([points - targets.boxes[..., :2], targets.boxes[..., 2:] - points])
    goal = (sides.amin(dim=0) / sides.amax(dim=0)).prod(dim=-1).sqrt()
    centre = functional.binary_cross_entropy_with_logits(centre, goal, reduction="none")
    return Losses(
        focal / count, (box * objects).sum(dim=1) / count, (centre * objects).sum(dim=1) / count
    )


def detect(outputs: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Return the detections of each image, best first, and the locations that they come from.

    Returns:
        Detections (B, 50, 6) float32, x1, y1, x2, y2 in the image, score, class; rows without a
        detection are 0, and have class -1. Locations (B, 50) int64.
    """
    logits, distances, centre = _parts(outputs.detach().float())
    boxes = clip_boxes_to_image(_decoded(distances, cells(distances, size)), size)
    scores = (logits.sigmoid() * centre.sigmoid()[..., None]).sqrt()  # (B, A, K)
    found = boxes.new_zeros(len(boxes), DETECTIONS, 6)
    found[..., 5] = -1
    locations = torch.zeros(found.shape[:2], dtype=torch.int64, device=boxes.device)
    for image, (places, own) in enumerate(zip(boxes, scores.flatten(1), strict=True)):
        order = own.sort(descending=True, stable=True).indices[:_CANDIDATES]
        order = order[own[order] > _LEAST_SCORE]
        where, label = order // logits.shape[2], order % logits.shape[2]
        kept = batched_nms(places[where], own[order], label, _MOST_OVERLAP)[:DETECTIONS]
        columns = places[where[kept]], own[order[kept], None], label[kept, None]
        found[image, : len(kept)] = torch.cat(columns, dim=1)
        locations[image, : len(kept)] = where[kept]
    return found, locations


def _parts(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (B, A, K), distances (B, A, 4) and logits of centre-ness (B, A)."""
    return outputs[..., :-5], outputs[..., -5:-1], outputs[..., -1]


def _decoded(distances: Tensor, around: Tensor) -> Tensor:
    """Return boxes (B, A, 4) in pixels whose sides have these distances from the locations."""
    points, distances = _centres(around), distances * (around[0, 2] - around[0, 0])
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def _centres(boxes: Tensor) -> Tensor:
    """Return the centres (A, 2) of boxes (A, 4)."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2
