"""Attacks: the projected-gradient primitive, and the attacks of an evaluation."""

from robustviews.attacks.autoattack import AutoAttack
from robustviews.attacks.primitive import Judged, ascend, pgd
from robustviews.attacks.projected_gradient import ATTACKS, PgdAttack
from robustviews.attacks.protocol import Attack, Model, Precision
from robustviews.attacks.radii import flag_name, fraction, in_pixels

__all__ = [
    "ATTACKS",
    "Attack",
    "AutoAttack",
    "Judged",
    "Model",
    "PgdAttack",
    "Precision",
    "ascend",
    "flag_name",
    "fraction",
    "in_pixels",
    "pgd",
]
