"""The training curves of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.study import folders, plan
from robustviews.study.schema import Study


def read(study: Study, root: Path = Path()) -> dict[str, list[dict[str, Any]]]:
    """Return the training curve of each finished pretraining, by run name.

    Raises:
        ArtifactError: a file is damaged.
    """
    paths = {
        run: root / folders.job_folder(study, "pretrain", run) / folders.CURVE
        for run in plan.pretrainings(study)
    }
    return {run: _history(path) for run, path in paths.items() if path.exists()}


def _history(path: Path) -> list[dict[str, Any]]:
    rows = artifacts.read_jsonl(path)
    for row in rows:
        if not all(isinstance(row.get(name), int | float) for name in ("epoch", "loss")):
            raise ArtifactError(
                f"{path}: expected epoch and loss in each line; make it again:", path
            )
    return rows
