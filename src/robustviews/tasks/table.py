"""The table of all tasks, for studies and reports; stages take a task from their probe."""

from __future__ import annotations

from robustviews.tasks.classification import CLASSIFICATION
from robustviews.tasks.detection import DETECTION
from robustviews.tasks.protocol import Task
from robustviews.tasks.segmentation import SEGMENTATION

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, SEGMENTATION, DETECTION)}


def task_of(options: object) -> Task:
    """Return the task of a data set, probe or attack; options that name none are of classification.

    Args:
        options: of a study; `task` is a task or the name of one.
    """
    stated = getattr(options, "task", CLASSIFICATION)
    return TASKS[stated] if isinstance(stated, str) else stated
