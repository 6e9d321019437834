"""Table 4: do more ascent steps help?"""

from __future__ import annotations

import math

import pandas as pd

from dropattack.paper.printed import paper_table
from dropattack.paper.sampling import binomial_standard_error, examples_tested

__all__ = ["ascent_steps"]


def ascent_steps() -> pd.DataFrame:
    """The claim that "multiple iterative calculations can indeed further improve the generalization".

    Returns:
        One row for each data set and measure of Table 4: ``place``, ``dataset``, ``measure``, ``one_step`` (the
        number with one ascent step), ``best``, ``best_ascent_steps`` (the fewest, of equal ones), ``range`` (from the
        lowest to the highest over one to five steps), ``standard_error_of_one_run`` (binomial, at one step; NaN for F1)
        and ``range_in_standard_errors``.
    """
    long = paper_table(4).melt(["ascent_steps", "dataset"], ["accuracy", "f1"], "measure").dropna()
    rows = []
    for (dataset, measure), group in long.groupby(["dataset", "measure"], sort=False):
        values = group.set_index("ascent_steps")["value"]
        one, best, spread = float(values.loc[1]), float(values.max()), round(float(values.max() - values.min()), 2)
        binomial = float(binomial_standard_error(one, examples_tested(str(dataset))))
        error = binomial if measure == "accuracy" else math.nan
        row = {"place": "Table 4", "dataset": dataset, "measure": measure, "one_step": one, "best": best}
        row |= {"best_ascent_steps": int(values.index[int(values.argmax())]), "range": spread}
        rows.append(row | {"standard_error_of_one_run": error, "range_in_standard_errors": spread / error})
    return pd.DataFrame(rows)
