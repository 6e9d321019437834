"""Table 10, attack probability by epsilon: which of the two matters, and where the best cells lie."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.stats import f as f_distribution

from dropattack.paper.printed import paper_table
from dropattack.paper.sampling import binomial_standard_error, examples_tested

__all__ = ["best_attack_probability", "two_way_anova", "two_way_means"]


def two_way_anova(cells: pd.DataFrame | None = None) -> pd.DataFrame:
    r"""Two-way analysis of variance without replication: do rows differ, do columns differ?

    The cell of row i and column j is taken to be :math:`\mu + \alpha_i + \beta_j` plus noise. With I rows, J columns
    and means :math:`\bar y_{i\cdot}`, :math:`\bar y_{\cdot j}`, :math:`\bar y`, the sums of squares are
    :math:`J \sum_i (\bar y_{i\cdot} - \bar y)^2`, :math:`I \sum_j (\bar y_{\cdot j} - \bar y)^2` and, for the residual,
    :math:`\sum_{ij} (y_{ij} - \bar y_{i\cdot} - \bar y_{\cdot j} + \bar y)^2` with (I − 1)(J − 1) degrees of freedom; F
    is a mean square divided by the residual one. One number a cell cannot tell noise from interaction: where there is
    interaction, the tests are conservative.

    Args:
        cells: any table of numbers, its two axes named. None: Table 10, rows by attack probability and columns by
            epsilon, without attack probability 0, whose row is one number, copied.

    Returns:
        One row for the rows, the columns and the residual: ``place`` (empty, if the cells were given), ``source``,
        ``sum_of_squares``, ``degrees_of_freedom``, ``mean_square``, ``F``, ``p_value`` (the last two NaN for
        the residual).

    Raises:
        ValueError: fewer than two rows or columns, or a cell that is not finite.

    Source:
        R. A. Fisher, Statistical Methods for Research Workers, 1925, chapter 8; H. Scheffé, The Analysis of Variance,
        1959, section 4.2.
    """
    place = "Table 10" if cells is None else ""
    cells = _table10() if cells is None else cells
    y = cells.to_numpy(dtype=np.float64)
    if min(y.shape) < 2 or not np.isfinite(y).all():
        raise ValueError(f"cells: expected at least 2 by 2 finite numbers, got shape {y.shape}; drop rows with gaps")
    row_effects, column_effects = y.mean(1, keepdims=True) - y.mean(), y.mean(0, keepdims=True) - y.mean()
    squares = [
        y.shape[1] * np.sum(row_effects**2),
        y.shape[0] * np.sum(column_effects**2),
        np.sum((y - y.mean() - row_effects - column_effects) ** 2),
    ]
    freedom = [y.shape[0] - 1, y.shape[1] - 1, (y.shape[0] - 1) * (y.shape[1] - 1)]
    names = [str(cells.index.name or "rows"), str(cells.columns.name or "columns"), "residual"]
    mean_squares = np.divide(squares, freedom)
    with np.errstate(divide="ignore", invalid="ignore"):  # no residual at all: infinite, or NaN
        ratios = np.append(mean_squares[:2] / mean_squares[2], np.nan)
    return pd.DataFrame(
        {
            "place": place,
            "source": names,
            "sum_of_squares": squares,
            "degrees_of_freedom": freedom,
            "mean_square": mean_squares,
            "F": ratios,
            "p_value": f_distribution.sf(ratios, freedom, freedom[2]),
        }
    )


def two_way_means() -> pd.DataFrame:
    """Means of Table 10 by attack probability and by epsilon, beside the standard error of one run.

    Attack probability 0 is left out, as in :func:`two_way_anova`.

    Returns:
        One row for each level of each factor: ``place``, ``factor``, ``level``, ``cells``, ``mean``, ``lowest``,
        ``highest``, and ``standard_error_of_one_run``: binomial, at the level's mean.
    """
    table = paper_table(10)
    table = table[table["attack_probability"] > 0]
    examples = examples_tested("imdb")
    parts = []
    for factor in ("attack_probability", "epsilon"):
        groups = table.groupby(factor)["accuracy"]
        means = groups.agg(cells="size", mean="mean", lowest="min", highest="max").rename_axis("level").reset_index()
        means.insert(0, "factor", factor)
        parts.append(means)
    found = pd.concat(parts, ignore_index=True)
    found.insert(0, "place", "Table 10")
    return found.assign(standard_error_of_one_run=binomial_standard_error(found["mean"], examples))


def best_attack_probability() -> pd.DataFrame:
    """What the text says of Figure 5, for each epsilon of Table 10.

    "The attack probability ranges from 0 to 0.7, and the performance of the model increases"; from 0.7 to 1 it
    "decreased instead"; "p is best to be between 0.5 and 0.7".

    Returns:
        One row for each epsilon: ``place``, ``epsilon``, ``best_attack_probability``, ``accuracy`` (there),
        ``lead`` (over the next best attack probability), ``standard_error`` (of a difference of two single runs,
        binomial), ``between_0.5_and_0.7`` (the best is), ``rises_to_0.7`` and ``falls_from_0.7`` (at every step).
    """
    examples = examples_tested("imdb")
    rows = []
    for epsilon, column in _table10(with_zero=True).items():
        ordered = column.sort_values(ascending=False, kind="stable")
        best, best_accuracy = float(ordered.index[0]), float(ordered.iloc[0])
        rows.append(
            {
                "place": "Table 10, Figure 5",
                "epsilon": epsilon,
                "best_attack_probability": best,
                "accuracy": best_accuracy,
                "lead": round(best_accuracy - float(ordered.iloc[1]), 2),
                "standard_error": math.hypot(*binomial_standard_error(ordered.iloc[:2], examples)),
                "between_0.5_and_0.7": 0.5 <= best <= 0.7,
                "rises_to_0.7": bool((column.loc[:0.7].diff().dropna() > 0).all()),
                "falls_from_0.7": bool((column.loc[0.7:].diff().dropna() < 0).all()),
            }
        )
    return pd.DataFrame(rows)


def _table10(*, with_zero: bool = False) -> pd.DataFrame:
    """Rows by attack probability, columns by epsilon, both ascending."""
    cells = paper_table(10).pivot_table("accuracy", index="attack_probability", columns="epsilon")  # one number a cell
    return cells if with_zero else cells[cells.index > 0]
