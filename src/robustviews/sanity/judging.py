"""Judgements of recorded checks of any head, without torch; a stage calls those of its own task."""

from __future__ import annotations

from collections.abc import Mapping

from robustviews.sanity import checks, dense, flags, information, metrics
from robustviews.sanity.flags import Flags
from robustviews.sanity.options import Sanity
from robustviews.tasks.classification import CLASSIFICATION
from robustviews.tasks.detection import DETECTION
from robustviews.tasks.protocol import Task
from robustviews.tasks.segmentation import SEGMENTATION

# By the dimensions of what is stored of labels, which no two tasks share.
_TASKS: dict[int, Task] = {1: CLASSIFICATION, 2: SEGMENTATION, 3: DETECTION}


def measures_of(rows: Flags) -> dict[str, float]:
    """Return what the rows of a head say: how many images withstand each attack, or its metric.

    Args:
        rows: of one head, as `of_head` returns them.
    """
    task = _TASKS[rows["labels"].ndim]
    return flags.counts_of(rows) if task is CLASSIFICATION else metrics.measures_of(rows, task)


def failed(measures: Mapping[str, float], options: Sanity) -> dict[str, str]:
    """Return the failed checks, each with what is wrong.

    Args:
        measures: of all checks of a head; those of a dense head name its metric.
        options: with which they were measured.
    """
    judge = dense.failed if metrics.metric_of(measures) else checks.failed
    return judge(measures, options)


def described(measures: Mapping[str, float], options: Sanity) -> dict[str, str]:
    """Return what attacks at the radius `eps` leave, by attack; arguments as in `failed`."""
    if metrics.metric_of(measures):
        return dense.described(measures, options)
    return information.described(measures, options)
