"""Two methods on the same random draws: over directions, and over training seeds and directions."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd

from landscape.statistics.crossed import crossed_interval
from landscape.statistics.intervals import mean_interval
from landscape.statistics.tables import QUANTITY, choose, one_each, tidy

__all__ = ["compare_draws"]

_FEWEST = 3  # training seeds and draws for an interval over both
_COLUMNS = [
    *(*QUANTITY, "training_seed", "method", "baseline", "over", "difference", "low", "high"),
    *("seeds", "draws", "converged", "unpaired"),
]


def compare_draws(table: pd.DataFrame, method: str, baseline: str, confidence: float = 0.95) -> pd.DataFrame:
    """Differences of one method and the baseline, paired by random draw.

    Draw i of two models that were measured with one ``seed`` is the same draw, so that what is particular to a
    direction cancels. What an interval speaks of is in the column ``over``:

    - ``"draws"``: Student's t over the draws, of two trained models. It says how well the difference between *these
      trained models* is known, over all directions that could have been drawn; not what other training seeds would
      give.
    - ``"training seeds and draws"``: :func:`~landscape.statistics.crossed_interval` of the table of seeds × draws. It
      says what *other training seeds and other directions* would give, and is the one to compare the methods by. It
      takes at least 3 training seeds and 3 draws; otherwise the ends are NaN.

    Args:
        table: tidy flatness table with the columns ``draws`` and ``seed``.
        method: the one.
        baseline: the one that is subtracted.
        confidence: of the intervals.

    Returns:
        For each quantity that has draws, one row a training seed that both have, and one over all of them if there are
        several (``training_seed`` is then <NA>): ``checkpoint``, ``split``, ``metric``, ``setting``, ``training_seed``,
        ``method``, ``baseline``, ``over``, ``difference`` (the mean of method − baseline over draws, which for a metric
        that is no mean of its draws is not the difference of its values), ``low``, ``high``, ``seeds`` and ``draws``
        (their numbers), ``converged``, and ``unpaired`` (training seeds of either without a partner, left out).

    Raises:
        ValueError: missing columns, an unknown method, rows that repeat, nothing that has draws, no training seed in
            common, or draws that are not the same: other seeds or numbers.
    """
    table = tidy(table, ["method", "training_seed", *QUANTITY, "converged", "draws", "seed"])
    if method == baseline:
        raise ValueError(f"method: expected another than the baseline, got {method!r} twice")
    choose(table, baseline, [method])
    table = table[table["method"].isin([method, baseline])]
    one_each(table)
    drawn = table[~table["draws"].isin(["", "[]"])]
    if drawn.empty:
        raise ValueError(f"draws: expected a metric with random draws for {method} and {baseline}, got none")
    parts = [
        _compared(group, method, baseline, confidence).assign(**dict(zip(QUANTITY, map(str, quantity), strict=True)))
        for quantity, group in drawn.groupby(QUANTITY, sort=False)
    ]
    parts = [part for part in parts if not part.empty]
    if not parts:
        raise ValueError(
            f"training_seed: expected some that {method} and {baseline} both have, got "
            f"{_seeds(drawn, method)} and {_seeds(drawn, baseline)}"
        )
    found = pd.concat(parts, ignore_index=True).assign(method=method, baseline=baseline)
    return found[_COLUMNS]


def _compared(group: pd.DataFrame, method: str, baseline: str, confidence: float) -> pd.DataFrame:
    # Models that have a name and no training seed are at most one of each method, and partners: <NA> is a key as well.
    runs, against = (group[group["method"] == one].set_index("training_seed") for one in (method, baseline))
    shared = runs.index.intersection(against.index).sort_values()
    runs_alone = len(runs) + len(against) - 2 * len(shared)
    if shared.empty:
        return pd.DataFrame()
    runs, against = runs.loc[shared], against.loc[shared]
    differences = _differences(runs, against)
    converged = (runs["converged"] & against["converged"]).to_numpy()
    draws = differences.shape[1]
    rows = [
        (seed, "draws", *mean_interval(values, confidence)[:3], 1, draws, both)
        for seed, values, both in zip(shared, differences, converged, strict=True)
    ]
    if len(shared) > 1:
        ends = math.nan, math.nan
        if min(differences.shape) >= _FEWEST:
            ends = crossed_interval(differences, confidence)[1:3]
        over = "training seeds and draws"
        with np.errstate(invalid="ignore"):
            mean = float(differences.mean())
        rows.append((pd.NA, over, mean, *ends, len(shared), draws, converged.all()))
    columns = ["training_seed", "over", "difference", "low", "high", "seeds", "draws", "converged"]
    return pd.DataFrame(rows, columns=columns).astype({"training_seed": "Int64"}).assign(unpaired=runs_alone)


def _differences(runs: pd.DataFrame, against: pd.DataFrame) -> np.ndarray:
    """Method − baseline, (training seeds, draws)."""
    both = pd.concat([runs, against])
    what = ", ".join(str(both[column].iloc[0]) for column in QUANTITY if both[column].iloc[0])
    if len(set(both["seed"])) > 1:
        raise ValueError(
            f"seed: expected one seed of the draws of {what}, got {', '.join(map(str, sorted(set(both['seed']))))}: "
            "draws of different seeds are no pairs; measure all models with one seed"
        )
    draws = [_parsed(text) for text in both["draws"]]
    if len(lengths := {len(one) for one in draws}) > 1:
        raise ValueError(
            f"draws: expected as many for each model, got {', '.join(map(str, sorted(lengths)))} of {what}; measure "
            "all models with one number of draws"
        )
    values = np.array(draws)
    with np.errstate(invalid="ignore"):
        return values[: len(runs)] - values[len(runs) :]


def _parsed(text: str) -> np.ndarray:
    try:
        return np.array([math.nan if one is None else one for one in json.loads(text)], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"draws: expected a JSON list of numbers, got {text[:60]!r}") from error


def _seeds(table: pd.DataFrame, method: str) -> str:
    return ", ".join(map(str, table.loc[table["method"] == method, "training_seed"].unique())) or "none"
