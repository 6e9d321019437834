"""Methods against a baseline, paired by training seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from landscape.statistics.effects import cohen_d_z, rank_biserial
from landscape.statistics.hypotheses import holm, permutation_test
from landscape.statistics.intervals import mean_interval
from landscape.statistics.tables import QUANTITY, choose, one_each, tidy

__all__ = ["compare_methods"]

_FOUND = [
    *("difference", "low", "high", "n", "ratio", "p_value", "smallest_p", "p_holm"),
    *("effect_size", "rank_biserial", "converged", "unpaired"),
]


def compare_methods(
    table: pd.DataFrame, baseline: str, methods: Sequence[str] | None = None, confidence: float = 0.95
) -> pd.DataFrame:
    """Every metric of every method minus that of the baseline, paired by training seed.

    The pairs share a training seed (initialization, order of the data) and the metric's random draws, which cancel as
    far as they act alike. Interval and test speak of other training seeds, with these draws and this data.

    Args:
        table: tidy flatness table, one row a model and quantity.
        baseline: the method that is subtracted.
        methods: which ones; None: all others.
        confidence: of the intervals.

    Returns:
        One row for each ``checkpoint``, ``split``, ``metric``, ``setting`` and ``method``, with

        - ``baseline``;
        - ``difference``: mean of method − baseline; ``low``, ``high``: its Student's t interval, NaN for fewer than two
          pairs; ``n``: pairs;
        - ``ratio``: geometric mean of method / baseline, NaN unless all values are positive and finite;
        - ``p_value``: of the exact sign-flip test, two-sided; ``smallest_p``: the smallest that n pairs can reach
          (0.0625 for 5); ``p_holm``: corrected for all rows that are tested (with two pairs or more);
        - ``effect_size``: Cohen's d_z with Hedges' correction; ``rank_biserial``;
        - ``converged``: whether all values are; ``unpaired``: runs of either that have no partner, which are left out.

        A value that is NaN makes its row NaN.

    Raises:
        ValueError: missing columns, an unknown method, rows that repeat, or models without a training seed.
    """
    table = tidy(table, ["method", "training_seed", *QUANTITY, "value", "converged"])
    chosen = choose(table, baseline, methods)
    table = table[table["method"].isin([baseline, *chosen])]
    if table["training_seed"].isna().any():
        unseeded = list(dict.fromkeys(table.loc[table["training_seed"].isna(), "method"]))
        raise ValueError(
            f"training_seed: expected a training seed for each model, got none for {', '.join(unseeded)}; to compare "
            "single models over their random draws, use compare_draws"
        )
    one_each(table)
    rows = []
    for quantity, group in table.groupby(QUANTITY, sort=False):
        runs = {name: runs.set_index("training_seed") for name, runs in group.groupby("method", sort=False)}
        nothing = group[:0].set_index("training_seed")
        for method in chosen:
            found = _compared(runs.get(method, nothing), runs.get(baseline, nothing), confidence)
            rows.append(dict(zip(QUANTITY, quantity, strict=True)) | {"method": method, "baseline": baseline} | found)
    compared = pd.DataFrame(rows)
    compared["p_holm"] = holm(compared["p_value"].to_numpy())
    return compared[[*QUANTITY, "method", "baseline", *_FOUND]]


def _compared(runs: pd.DataFrame, against: pd.DataFrame, confidence: float) -> dict[str, object]:
    seeds = runs.index.intersection(against.index)
    pairs, partners = runs.loc[seeds], against.loc[seeds]
    values, others = (one["value"].to_numpy(dtype=np.float64) for one in (pairs, partners))
    with np.errstate(invalid="ignore"):
        differences = values - others
    n = len(seeds)
    mean, low, high, _ = mean_interval(differences, confidence) if n else (math.nan, math.nan, math.nan, 0)
    test = permutation_test(differences)
    return {
        "difference": mean,
        "low": low,
        "high": high,
        "n": n,
        "ratio": _geometric_mean_ratio(values, others),
        "p_value": test.p_value if n > 1 else math.nan,
        "smallest_p": test.smallest_p,
        "effect_size": cohen_d_z(differences),
        "rank_biserial": rank_biserial(differences),
        "converged": bool(pairs["converged"].all() and partners["converged"].all()),
        "unpaired": len(runs) + len(against) - 2 * n,
    }


def _geometric_mean_ratio(values: np.ndarray, others: np.ndarray) -> float:
    both = np.concatenate([values, others])
    if not len(both) or not ((both > 0) & np.isfinite(both)).all():
        return math.nan
    return math.exp(float((np.log(values) - np.log(others)).mean()))
