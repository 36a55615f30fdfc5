"""What the verbs of stages write beside the results of a stage."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from robustviews.attacks.detection import DetectionPgd
from robustviews.cli import stages
from robustviews.datasets import DataError
from robustviews.probe.dense import DetectionProbe


def test_attacked_images_without_an_object_are_refused_by_name():
    arguments = {"probe": DetectionProbe(), "attack": DetectionPgd(eps=(4.0,))}
    job = SimpleNamespace(name="run/detect/pgd", arguments=arguments)
    found, labels = torch.zeros(3, 50, 6), torch.zeros(3, 2, 5)
    found[..., 5] = labels[..., 4] = -1
    flags = {"index": torch.arange(3), "labels": labels, "clean": found, "eps_4": found}
    words = "run/detect/pgd: none of the 3 attacked images has an object, so it has no AP50"
    with pytest.raises(DataError, match=words):
        stages._accuracies(job, flags)
    labels[0, 0] = torch.tensor([0, 0, 4, 4, 0])
    assert stages._accuracies(job, flags) == {"n": 3, "clean": 0, "eps": {"4": 0}}
