"""What the rows of a dense head say: its metric under each attack; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from robustviews.attacks.worst_case import worst
from robustviews.sanity.flags import Flags, tries_of
from robustviews.tasks.detection import DETECTION
from robustviews.tasks.segmentation import SEGMENTATION

if TYPE_CHECKING:
    from robustviews.tasks.protocol import Task

BETTER = 0.01  # DS3: quality of an image under SEA above that under one of its parts
_METRICS = {task.metrics[0] for task in (SEGMENTATION, DETECTION)}


def metric_of(measures: Mapping[str, float]) -> str:
    """Return the metric that the measures of a dense head name; empty for those of a classifier."""
    return next(iter(_METRICS.intersection(measures)), "")


def measures_of(rows: Flags, task: Task) -> dict[str, float]:
    """Return the metric under each attack, and the numbers of images that contradict a check.

    Args:
        rows: of a head: `index`, `labels`, `clean`, and answers (n, ...) of each try.
        task: of the head.
    """
    truth, once = rows["labels"], np.ones((1, len(rows["index"])))
    answers = {name: worst(every, truth, task) for name, every in tries_of(rows).items()}
    found: dict[str, float] = {"n": len(truth)}
    for name, one in answers.items():
        value = float(task.score(one, truth, once)[0])
        # Without an object there is no precision. Rounding may differ between machines.
        found[task.metrics[0] if name == "clean" else name] = round(float(np.nan_to_num(value)), 6)
    changed = (answers["pgd_0"] != answers["clean"]).reshape(len(truth), -1).any(axis=1)
    found["changed"] = int(changed.sum())
    if "sea" in answers:
        whole, part = (task.quality(answers[name], truth) for name in ("sea", "sea_part"))
        found["sea_better"] = int((whole > part + BETTER).sum())
    return found
