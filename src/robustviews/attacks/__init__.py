"""Attacks: the projected-gradient primitive, and the attacks of an evaluation."""

from robustviews.attacks.autoattack import AutoAttack
from robustviews.attacks.detection import DetectionPgd
from robustviews.attacks.primitive import Judged, Norm, ascend, length, pgd
from robustviews.attacks.projected_gradient import ATTACKS, PgdAttack
from robustviews.attacks.protocol import Attack, Model
from robustviews.attacks.radii import flag_name, fraction, in_pixels, to_pixels
from robustviews.attacks.segmentation import Sea, SegmentationPgd
from robustviews.attacks.worst_case import WorstOf

__all__ = [
    "ATTACKS",
    "Attack",
    "AutoAttack",
    "DetectionPgd",
    "Judged",
    "Model",
    "Norm",
    "PgdAttack",
    "Sea",
    "SegmentationPgd",
    "WorstOf",
    "ascend",
    "flag_name",
    "fraction",
    "in_pixels",
    "length",
    "pgd",
    "to_pixels",
]
