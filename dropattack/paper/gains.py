"""Table 3, training sets of several sizes: its gains, and what is said of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import norm

from dropattack.paper.printed import paper_table
from dropattack.paper.sampling import binomial_standard_error, examples_tested

__all__ = ["gains", "half_the_data"]


def gains(confidence: float = 0.95) -> pd.DataFrame:
    """The gains of Table 3, computed again, and the claim that each is "more than 2%".

    The standard error is that of the difference of two single runs on different samples of test data, from the binomial
    variance alone; :func:`~dropattack.paper.sampling.binomial_standard_error` says what that leaves out on either side.

    Args:
        confidence: of the intervals.

    Returns:
        One row for each size: ``place``, ``examples``, ``standard``, ``dropattack``, ``printed_gain``, ``gain``
        (recomputed), ``misprinted``, ``standard_error``, ``low``, ``high`` (a normal interval), ``more_than_2`` (the
        recomputed gain is), and ``p_value``: one-sided, of a gain this large if the true one were 2.
    """
    table = paper_table(3)
    # The difference of two numbers with two decimals has two, which floating-point subtraction does not know.
    gain = (table["dropattack"] - table["standard"]).round(2)
    error = _standard_error(table["dropattack"], table["standard"])
    reach = norm.isf((1 - confidence) / 2) * error
    table.insert(0, "place", "Table 3")
    return table.assign(
        gain=gain,
        misprinted=gain != table["printed_gain"],
        standard_error=error,
        low=gain - reach,
        high=gain + reach,
        more_than_2=gain > 2,
        p_value=norm.sf((gain - 2) / error),
    )


def half_the_data() -> pd.DataFrame:
    """The claim that DropAttack with half of the training data is as good as standard training with all.

    Returns:
        One row for each size of Table 3 whose half is in the table, too: ``place``, ``examples`` (all),
        ``standard`` (with all), ``half`` (examples), ``dropattack`` (with half), ``difference`` (DropAttack minus
        standard training), ``standard_error`` (as in :func:`gains`) and ``holds``.
    """
    table = paper_table(3)
    halves = table[["examples", "dropattack"]].rename(columns={"examples": "half"})
    whole = table[["examples", "standard"]].assign(half=table["examples"] / 2)
    pairs = whole.merge(halves, on="half").astype({"half": int})
    pairs.insert(0, "place", "Table 3")
    difference = (pairs["dropattack"] - pairs["standard"]).round(2)
    return pairs.assign(
        difference=difference,
        standard_error=_standard_error(pairs["dropattack"], pairs["standard"]),
        holds=difference >= 0,
    )


def _standard_error(a: pd.Series, b: pd.Series) -> np.ndarray:
    """Of differences of accuracies on the test data of the IMDB."""
    examples = examples_tested("imdb")
    return np.hypot(binomial_standard_error(a, examples), binomial_standard_error(b, examples))
