"""Whether a difference in flatness may be a difference of scale only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from landscape.flatness.measurement import Metric
from landscape.flatness.metrics import METRICS

__all__ = ["flatness_verdicts"]

_GROUP = ["checkpoint", "split", "method", "baseline"]
_KINDS = {"unmoved": "unchanged", "moved": "changes"}  # column to the metric's `rescaling`
_FOUND = ("flatter", "sharper", "mixed", "undecided")


def flatness_verdicts(
    differences: pd.DataFrame,
    metrics: Mapping[str, Metric] | None = None,
    by: Literal["interval", "p_holm"] = "interval",
    level: float = 0.05,
) -> pd.DataFrame:
    """Whether metrics that a rescaling of the weights moves, and those that it does not, tell the same.

    Two networks can be one function at two scales, which only metrics of the first kind tell apart. So a difference
    that only these show may be one of scale. A metric counts once, however many settings it has: as flatter if at least
    one setting shows the method flatter than the baseline and none sharper; as mixed if settings contradict each other.
    A kind is flatter if at least one of its metrics is and none is sharper or mixed. The counts belong to the verdict:
    of many metrics with intervals of 95 %, some exclude zero by chance.

    Args:
        differences: from :func:`landscape.statistics.compare_methods`, with method minus baseline.
        metrics: name to metric, for what a larger number means and what a rescaling does. None: ``METRICS``.
        by: a row shows a difference if its interval excludes zero, or if its p-value after Holm's correction is below
            the level. (With five pairs no exact p-value is below 0.0625.)
        level: for ``"p_holm"``.

    Returns:
        One row for each ``checkpoint``, ``split``, ``method`` and ``baseline``, with counts of metrics that no
        rescaling moves (``unmoved_flatter``, ``unmoved_sharper``, ``unmoved_mixed``, ``unmoved_undecided``) and of
        those that one moves (``moved_…``), the ``verdict``, and a ``sentence`` with both.

    Raises:
        ValueError: missing columns, an unknown metric, or another rule.
    """
    if by not in ("interval", "p_holm"):
        raise ValueError(f"by: expected 'interval' or 'p_holm', got {by!r}")
    needed = [*_GROUP, "metric", *(["low", "high"] if by == "interval" else ["difference", "p_holm"])]
    if missing := [column for column in needed if column not in differences.columns]:
        raise ValueError(f"differences: expected the columns of compare_methods, but {missing[0]!r} is missing")
    known = METRICS if metrics is None else metrics
    if unknown := sorted(set(differences["metric"]) - set(known)):
        raise ValueError(f"unknown metric {unknown[0]!r}: give metrics={{{unknown[0]!r}: Metric(...), …}} that name it")
    table = differences.assign(shows=_shown(differences, known, by, level))
    table[_GROUP] = table[_GROUP].fillna("").astype(str)  # no split has a name, and none after CSV
    rows = [_judged(rows, known) for _, rows in table.groupby(_GROUP, sort=False)]
    return pd.DataFrame(rows, columns=[*_GROUP, *(f"{k}_{f}" for k in _KINDS for f in _FOUND), "verdict", "sentence"])


def _shown(differences: pd.DataFrame, known: Mapping[str, Metric], by: str, level: float) -> np.ndarray:
    """What each row shows: ``"flatter"``, ``"sharper"`` or ``""``."""
    if by == "interval":
        below, above = differences["high"] < 0, differences["low"] > 0  # false where there is no interval
    else:
        is_shown = differences["p_holm"] < level
        below, above = is_shown & (differences["difference"] < 0), is_shown & (differences["difference"] > 0)
    larger_is_flatter = np.array([known[metric].larger == "flatter" for metric in differences["metric"]], dtype=bool)
    flatter, sharper = np.where(larger_is_flatter, above, below), np.where(larger_is_flatter, below, above)
    return np.where(flatter, "flatter", np.where(sharper, "sharper", ""))


def _judged(rows: pd.DataFrame, known: Mapping[str, Metric]) -> dict[str, int | str]:
    counts = {kind: dict.fromkeys(_FOUND, 0) for kind in _KINDS}
    kind_of = {rescaling: kind for kind, rescaling in _KINDS.items()}
    for metric, shows in rows.groupby("metric")["shows"]:
        seen = set(shows) - {""}
        found = "mixed" if len(seen) > 1 else seen.pop() if seen else "undecided"
        counts[kind_of[known[str(metric)].rescaling]][found] += 1
    verdict = _verdict(_direction(counts["unmoved"]), _direction(counts["moved"]))
    keys = {column: str(rows[column].iloc[0]) for column in _GROUP}
    unmoved, moved = _in_words(counts["unmoved"]), _in_words(counts["moved"])
    return {
        **keys,
        **{f"{kind}_{found}": count for kind in _KINDS for found, count in counts[kind].items()},
        "verdict": verdict,
        "sentence": f"{keys['method']} against {keys['baseline']}: {verdict}. "
        f"Metrics that no rescaling moves: {unmoved}; that one moves: {moved}.",
    }


def _direction(counts: Mapping[str, int]) -> str:
    if counts["mixed"] or (counts["flatter"] and counts["sharper"]):
        return "mixed"
    return "flatter" if counts["flatter"] else "sharper" if counts["sharper"] else "none"


def _verdict(unmoved: str, moved: str) -> str:
    match unmoved, moved:
        case "none", "none":
            return "no difference shown"
        case ("mixed", _) | (_, "mixed") | ("flatter", "sharper") | ("sharper", "flatter"):
            return "contradictory"
        case "none", direction:
            return f"{direction} only by metrics that a rescaling moves: this may be a difference of scale only"
        case direction, "none":
            return f"{direction} only by metrics that no rescaling moves"
    return f"{unmoved} by both kinds"


def _in_words(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    parts = [f"{count} {found}" for found, count in counts.items() if count and found != "undecided"]
    return f"{' and '.join(parts) or 'none differs'} of {total}" if total else "none was measured"
