"""Table 2: is it better to attack input and weights than the input alone?"""

from __future__ import annotations

import math

import pandas as pd

from dropattack.paper.printed import paper_table
from dropattack.paper.sampling import binomial_standard_error, examples_tested

__all__ = ["input_and_weights"]


def input_and_weights() -> pd.DataFrame:
    """The claim that DropAttack-(I&W) is better than DropAttack-(I) "on all five datasets", number by number.

    Returns:
        One row for each data set and measure of Table 2: ``place``, ``dataset``, ``measure``, ``input``,
        ``input_and_weights``, ``difference``, ``standard_error`` (of a difference of two single runs, binomial; NaN for
        F1, which is no share of examples) and ``holds``.
    """
    table = paper_table(2).set_index(["dataset", "method"])
    rows = []
    for dataset in dict.fromkeys(table.index.get_level_values("dataset")):
        alone, both = table.loc[(dataset, "dropattack-i")], table.loc[(dataset, "dropattack-iw")]
        errors = binomial_standard_error([alone["accuracy"], both["accuracy"]], examples_tested(dataset))
        for measure in ("accuracy", "f1"):
            if not math.isnan(alone[measure]):
                difference = round(both[measure] - alone[measure], 2)
                row = {"place": "Table 2", "dataset": dataset, "measure": measure}
                row |= {"input": alone[measure], "input_and_weights": both[measure], "difference": difference}
                row |= {"standard_error": math.hypot(*errors) if measure == "accuracy" else math.nan}
                rows.append(row | {"holds": difference > 0})
    return pd.DataFrame(rows)
