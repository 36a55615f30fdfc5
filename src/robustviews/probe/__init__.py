"""Probes: how a frozen encoder becomes a classifier, and the heads that they train."""

from robustviews.probe.probes import (
    OWN_HEAD,
    PROBES,
    History,
    LinearProbe,
    NcropProbe,
    OwnHead,
    Probe,
    RobustLinearProbe,
    Task,
    frozen_features,
    represent,
)

__all__ = [
    "OWN_HEAD",
    "PROBES",
    "History",
    "LinearProbe",
    "NcropProbe",
    "OwnHead",
    "Probe",
    "RobustLinearProbe",
    "Task",
    "frozen_features",
    "represent",
]
