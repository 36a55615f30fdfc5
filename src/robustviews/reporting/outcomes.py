"""What is known of a claim: its state, and the numbers on which the state rests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from robustviews.reporting.statistics import Interval
from robustviews.reporting.verdicts import ALPHA, NOT_ESTABLISHED, NOT_RUN

HOLDS, FAILS, UNDECIDED, NOT_ATTEMPTED = "holds", "fails", "undecided", "not attempted"
NOT_EVEN = "not even on the published numbers"
NARROWS, DEPENDS = "narrows", "depends on the statistic"
INFLUENCES, NO_INFLUENCE = "influences", "no relevant influence"
NETWORKS = "for these networks"  # ends the state of a claim about networks of one training each
Published = Literal["holds", "fails", "unavailable", "not published"]


@dataclass(frozen=True)
class Part:
    """One inequality in one column, or one weighted sum of rows.

    Numbers are percentage points, minutes or a ratio of passes.

    Attributes:
        text: the inequality with its column.
        ours: left side minus the right side without its offset; None without results.
        interval: 95 % interval of `ours`; None without a test.
        published: the same of the published values; None unless the paper has both.
        unavailable: whether the paper has a value that could not be read.
        is_published: whether the inequality is true of the published values; None if unknown.
        p_holds: p-value of the test that the inequality is true.
        p_fails: p-value of the test that it is false.
        missing: why there is no test.
    """

    text: str
    ours: float | None = None
    interval: Interval | None = None
    published: float | None = None
    unavailable: bool = False
    is_published: bool | None = None
    p_holds: float = 1.0
    p_fails: float = 1.0
    missing: str = ""

    @property
    def is_missing(self) -> bool:
        """Whether a cell has no result, or an attack that is not established."""
        return self.missing.startswith((NOT_RUN, NOT_ESTABLISHED))

    def __str__(self) -> str:
        """Return the inequality with the numbers on both of its sides."""
        numbers = []
        if self.ours is not None:
            spread = ""
            if self.interval is not None:
                spread = f" ({self.interval.low:+.3g} to {self.interval.high:+.3g})"
            numbers.append(f"difference {self.ours:+.3g}{spread}")
        if self.missing:
            numbers.append(self.missing)
        if self.published is not None:
            numbers.append(f"published {self.published:+.2f}")
        return f"{self.text}: {', '.join(numbers)}" if numbers else self.text


@dataclass(frozen=True)
class Outcome:
    """What is known of one claim.

    Attributes:
        name: of the claim.
        says: the claim in words.
        state: result of the test on our results, one of the words above.
        published: whether the published numbers themselves agree.
        parts: its comparisons; of other forms than inequalities the decisive one comes first.
        tests: the states that it may have, the first one preferred, each with its p-value.
        p: p-value of the decision, adjusted for the claims of the study.
    """

    name: str
    says: str
    state: str
    published: Published
    parts: tuple[Part, ...]
    tests: tuple[tuple[str, float], ...] = ()
    p: float = 1.0

    @property
    def is_incomplete(self) -> bool:
        """Whether some of its cells have no result."""
        return any(part.missing == NOT_RUN for part in self.parts)

    @property
    def smallest(self) -> float:
        """The smallest p-value of its tests, not adjusted."""
        return min((p for _, p in self.tests), default=1.0)

    @property
    def decisive(self) -> Part:
        """The comparison on which the state rests."""
        if self.state == NOT_EVEN:
            return next(part for part in self.parts if part.is_published is False)
        if self.state == NOT_ATTEMPTED:
            return next(part for part in self.parts if part.is_missing)
        if self.state == FAILS:
            return min(self.parts, key=lambda part: part.p_fails)
        return max(self.parts, key=lambda part: part.p_holds)

    def decided(self, p: float, claims: int) -> Outcome:
        """Return the outcome with the first state that is significant.

        Args:
            p: p-value, adjusted for the claims of the study.
            claims: number of claims that are tested.
        """
        times = p / self.smallest if self.smallest else claims
        significant = (state for state, own in self.tests if own * times < ALPHA)
        return replace(self, p=p, state=next(significant, UNDECIDED))
