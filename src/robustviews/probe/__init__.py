"""Probes: how an encoder becomes a classifier, and the heads that they train."""

from robustviews.probe.dense import DetectionProbe, SegmentationProbe
from robustviews.probe.finetune import FinetuneProbe
from robustviews.probe.knn import KnnProbe
from robustviews.probe.logistic import LogisticProbe
from robustviews.probe.probes import (
    OWN_HEAD,
    PROBES,
    LinearProbe,
    NcropProbe,
    OwnHead,
    RobustLinearProbe,
)
from robustviews.probe.protocol import Probe

__all__ = [
    "OWN_HEAD",
    "PROBES",
    "DetectionProbe",
    "FinetuneProbe",
    "KnnProbe",
    "LinearProbe",
    "LogisticProbe",
    "NcropProbe",
    "OwnHead",
    "Probe",
    "RobustLinearProbe",
    "SegmentationProbe",
]
