"""The claims of the paper, each as a test on results: what was found, and where to look it up."""

from dropattack.claims.judge import judge, verdict_page
from dropattack.claims.statements import CLAIMS
from dropattack.claims.verdicts import (
    INCONCLUSIVE,
    NOT_SUPPORTED,
    NOT_TESTED,
    SUPPORTED,
    Claim,
    Finding,
    judge_interval,
    together,
)

__all__ = [
    "CLAIMS",
    "INCONCLUSIVE",
    "NOT_SUPPORTED",
    "NOT_TESTED",
    "SUPPORTED",
    "Claim",
    "Finding",
    "judge",
    "judge_interval",
    "together",
    "verdict_page",
]
