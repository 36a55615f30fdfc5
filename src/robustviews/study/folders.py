"""Where the results of each job lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

from robustviews.study.schema import Study
from robustviews.study.specs import data_spec, to_json


def results_folder(study: Study) -> Path:
    """Return results/<study>."""
    return Path("results") / study.study


def state_folder(study: Study) -> Path:
    """Return the folder of the states that interrupted jobs of a study resume from."""
    return Path("results/.state") / study.study


def data_folder(study: Study, dataset: str) -> Path:
    """Return the folder of a prepared data set; its name holds a hash of what made it."""
    key = hashlib.sha256(to_json(data_spec(study, dataset)).encode()).hexdigest()[:8]
    return Path("data") / f"{dataset}-{key}"


def pretrain_folder(study: Study, run: str) -> Path:
    """Return the folder of a pretraining."""
    return results_folder(study) / "pretrain" / run


def probe_folder(study: Study, run: str, probe: str) -> Path:
    """Return the folder of a trained head."""
    return results_folder(study) / "probe" / run / probe


def attack_folder(study: Study, run: str, probe: str, attack: str) -> Path:
    """Return the folder of an evaluation."""
    return results_folder(study) / "attack" / run / probe / attack
