"""Probes: how a frozen encoder becomes a classifier, and the heads that they train."""

from robustviews.probe.own import OWN_HEAD, OwnHead
from robustviews.probe.probes import PROBES, LinearProbe, NcropProbe, RobustLinearProbe
from robustviews.probe.protocol import Probe

__all__ = [
    "OWN_HEAD",
    "PROBES",
    "LinearProbe",
    "NcropProbe",
    "OwnHead",
    "Probe",
    "RobustLinearProbe",
]
