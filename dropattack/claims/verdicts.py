"""What a claim is, what is found about it, and how an interval becomes a verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

__all__ = [
    "INCONCLUSIVE",
    "NOT_SUPPORTED",
    "NOT_TESTED",
    "SUPPORTED",
    "VERDICTS",
    "Claim",
    "Finding",
    "judge_interval",
    "together",
]

SUPPORTED = "supported"
NOT_SUPPORTED = "not supported"
INCONCLUSIVE = "inconclusive at this scale"
NOT_TESTED = "not yet tested"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE, NOT_TESTED)


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one piece of evidence says of a claim.

    Attributes:
        where: data set, table, or comparison.
        verdict: one of ``VERDICTS``.
        evidence: file in the folder of results, or the command that prints it.
        what: the effect in words, such as "DropAttack-(I&W) minus DropAttack-(I)".
        effect: its size; NaN where it is none.
        low: lower end of its 95 % interval; NaN without one.
        high: upper end.
        unit: of the effect.
        n: observations, most often training seeds.
    """

    where: str
    verdict: str
    evidence: str
    what: str
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    unit: str = "points"
    n: int = 0

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict: expected one of {', '.join(VERDICTS)}, got {self.verdict!r}")


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement of the paper, and how it is tested.

    Attributes:
        statement: in the paper's sense, in our words.
        place: where the paper says it.
        support: what would count as support, said before looking.
        test: how it is tested.
        find: from the folder of results to findings; none where there is no evidence.
        printed: findings on the paper's own printed numbers, if it has any on this.
    """

    statement: str
    place: str
    support: str
    test: str
    find: Callable[[Path], Sequence[Finding]]
    printed: Callable[[], Sequence[Finding]] | None = None


def judge_interval(low: float, high: float, beyond: float = 0.0) -> str:
    """Whether an effect is larger than ``beyond``, judged by its confidence interval.

    Supported if the interval lies above, not supported if it lies below, inconclusive if it holds the number or there
    is none.

    Args:
        low: lower end; NaN without an interval.
        high: upper end.
        beyond: what the effect must exceed.
    """
    if low > beyond:
        return SUPPORTED
    return NOT_SUPPORTED if high < beyond else INCONCLUSIVE


def together(verdicts: Iterable[str]) -> str:
    """The verdict on a claim that is about all of its cases.

    One case that speaks against it is enough; it is supported only where every case supports it.

    Args:
        verdicts: of the cases.
    """
    found = list(verdicts)
    if not found:
        return NOT_TESTED
    if NOT_SUPPORTED in found:
        return NOT_SUPPORTED
    return SUPPORTED if set(found) == {SUPPORTED} else INCONCLUSIVE
