"""The table of a study: every method beside the baseline, paired by seed, and the paper's number."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import ttest_rel

from landscape.statistics import compare_methods, holm

__all__ = ["METRICS_COMPARED", "compare_results", "table_of_studies"]

_COLUMNS = [
    *("metric", "method", "mean", "sd", "n", "difference", "low", "high", "pairs"),
    *("p_value", "p_holm", "p_exact", "smallest_p", "passes", "paper"),
]

METRICS_COMPARED = {"accuracy": "best_test_accuracy", "macro F1": "best_test_macro_f1", "F1": "best_test_f1"}


def compare_results(
    results: pd.DataFrame,
    baseline: str,
    paper: Mapping[tuple[str, str], float] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Test accuracy (and F1) of each method, and its difference from the baseline over the seeds that both have.

    Interval and tests speak of other training seeds, on this data. That the test data is a sample, too, they leave out:
    a single accuracy of 90 % on 2,500 examples has a standard error of 0.6 points from that alone, which the two
    methods share in part.

    Args:
        results: of :func:`dropattack.study.results`.
        baseline: the method that is subtracted.
        paper: method and metric to the number the paper prints (%).
        confidence: of the intervals.

    Returns:
        One row for each metric (``accuracy``; with two classes also ``macro F1``, and ``F1`` of class 1) and method,
        all in per cent: ``mean``, ``sd`` and ``n`` over seeds; ``difference`` with its Student's t interval ``low``,
        ``high`` and ``pairs``; ``p_value`` of the paired t test, and ``p_holm``, corrected for all methods of the
        metric; ``p_exact`` of the sign-flip test, which assumes no distribution, and ``smallest_p``, the least that so
        many pairs can give; ``passes`` forward and backward a training step; ``paper``.

    Raises:
        ValueError: an unknown baseline, or no method beside it.
    """
    tables = []
    has_two_classes = "best_test_f1" in results and bool(results["best_test_f1"].notna().any())
    for metric, column in METRICS_COMPARED.items():
        if metric != "accuracy" and not has_two_classes:
            continue
        tidy = pd.DataFrame(
            {"method": results["method"], "training_seed": results["seed"], "checkpoint": "selected", "split": "test"}
            | {"metric": metric, "setting": "", "value": 100 * results[column], "converged": True}
        )
        against = compare_methods(tidy, baseline, confidence=confidence).set_index("method")
        values = {name: group.set_index("training_seed")["value"] for name, group in tidy.groupby("method", sort=False)}
        rows = []
        for name, mine in ((str(name), mine) for name, mine in values.items()):
            row: dict[str, object] = {"metric": metric, "method": name}
            row |= {"mean": mine.mean(), "sd": mine.std(ddof=1), "n": len(mine)}
            if name != baseline:
                found = against.loc[name]
                row |= {"difference": found["difference"], "low": found["low"], "high": found["high"]}
                row |= {"pairs": found["n"], "p_value": _t_test(mine, values[baseline])}
                row |= {"p_exact": found["p_value"], "smallest_p": found["smallest_p"]}
            row["passes"] = results.loc[results["method"] == name, "passes_per_step"].mean()
            row["paper"] = (paper or {}).get((name, metric), math.nan)
            rows.append(row)
        table = pd.DataFrame(rows)
        table["p_holm"] = holm(table["p_value"].to_numpy(dtype=float))
        tables.append(table[_COLUMNS])
    return pd.concat(tables, ignore_index=True)


def _t_test(mine: pd.Series, baseline: pd.Series) -> float:
    """Two-sided; NaN where there are fewer than two pairs or all differences are the same."""
    seeds = mine.index.intersection(baseline.index)
    if len(seeds) < 2 or np.ptp(mine[seeds] - baseline[seeds]) == 0:
        return math.nan
    return float(ttest_rel(mine[seeds], baseline[seeds]).pvalue)


def table_of_studies(comparisons: Mapping[str, pd.DataFrame], metric: str = "accuracy") -> str:
    """Several studies side by side, as a Markdown table: mean ± standard deviation, the difference, and the paper.

    Args:
        comparisons: name of a data set to what :func:`compare_results` returned, or its ``comparison.csv``.
        metric: which of its metrics.

    Returns:
        One line a method. A cell reads ``97.80 ± 0.16 (5) [98.95]``: mean, standard deviation and number of seeds, and
        the paper's number if it has one. Bold where the 95 % interval of the difference from the baseline excludes
        zero; empty where a study has no such row.
    """
    tables = {name: table[table["metric"] == metric].set_index("method") for name, table in comparisons.items()}
    methods = list(dict.fromkeys(method for table in tables.values() for method in table.index))
    lines = [f"| Method | {' | '.join(tables)} |", "| --- |" + " --- |" * len(tables)]
    for method in methods:
        cells = [_cell(table.loc[method]) if method in table.index else "" for table in tables.values()]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(row: pd.Series) -> str:
    text = f"{row['mean']:.2f} ± {row['sd']:.2f} ({row['n']:.0f})"
    if row["low"] > 0 or row["high"] < 0:
        text = f"**{text}**"
    return text if math.isnan(row["paper"]) else f"{text} [{row['paper']:.2f}]"
