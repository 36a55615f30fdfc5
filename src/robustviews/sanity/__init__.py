"""Is the attack on a head established? Checks of gradients, of weaker and of stronger attacks.

An attack that fails for a reason of its own (no gradient, too short, pointed the wrong way) reports
robustness that does not exist. The checks ask each attacked head for symptoms of such failures.

Source: Athalye, Carlini, Wagner 2018, section 3.1; Carlini et al. 2019, section 5.
"""

from robustviews.sanity.checks import CHECKS, disagrees, effort
from robustviews.sanity.flags import of_head
from robustviews.sanity.information import INFORMATION
from robustviews.sanity.judging import described, failed, measures_of
from robustviews.sanity.options import Sanity
from robustviews.sanity.reach import Stepwise, leapt, unreached

__all__ = [
    "CHECKS",
    "INFORMATION",
    "Sanity",
    "Stepwise",
    "described",
    "disagrees",
    "effort",
    "failed",
    "leapt",
    "measures_of",
    "of_head",
    "unreached",
]
