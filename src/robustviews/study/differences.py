"""How two specs, or other plain JSON values, differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from robustviews.artifacts import Record
    from robustviews.study.jobs import Job


class _Absent:
    """Marks a missing value; None is a value."""

    def __str__(self) -> str:
        """Return the word for messages."""
        return "nothing"

    __repr__ = __str__


ABSENT: Final = _Absent()


class Difference(NamedTuple):
    """One way in which a record differs from what a study wants; prints as a phrase."""

    kind: str  # `foreign` (the record of another job or study), `code` or `options`
    key: str  # dotted name in the record
    recorded: Any  # value in the record, or ABSENT
    expected: Any  # value in the study, or ABSENT

    def __str__(self) -> str:
        """Return the difference for messages, such as `stale: epochs was 3, ...`."""
        if self.kind == "foreign":
            return f"foreign record: {self.key} is {self.recorded!r}, expected {self.expected!r}"
        if self.kind == "code":
            digests = f"its digest ({self.key}) was {self.recorded}, now it is {self.expected}"
            return f"stale: the code that decides it has changed since: {digests}"
        return f"stale: {self.key} was {self.recorded}, the study now says {self.expected}"


def of_record(record: Record, job: Job, study: str) -> list[Difference]:
    """Return how a record differs from the job of a study; whose files it hashes is not checked."""
    identity = {"stage": job.rule, "name": job.name, "study": study}
    if job.rule == "data":
        del identity["study"]  # studies share prepared data
    foreign = [
        Difference("foreign", key, getattr(record, key), expected)
        for key, expected in identity.items()
        if getattr(record, key) != expected
    ]
    stale = [
        Difference("code" if key.rpartition(".")[2] == "code" else "options", key, was, now)
        for key, was, now in differences(record.spec, job.spec)
    ]
    return foreign + stale


def differences(before: object, after: object, key: str = "") -> list[tuple[str, Any, Any]]:
    """Return how two specs, or other plain JSON values, differ.

    Returns:
        Dotted key, value before and value after of each leaf that differs. In a mapping `kind`
        comes first. ABSENT, printed as `nothing`, marks a missing value.
    """
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after else [(key, before, after)]
    return [
        difference
        for name in sorted({*before, *after}, key=lambda name: (name != "kind", name))
        for difference in differences(
            before.get(name, ABSENT), after.get(name, ABSENT), f"{key}.{name}" if key else name
        )
    ]
