"""The paper's own numbers, and what they say without any training: can they be, and do they bear out the text?"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from dropattack.paper.ascent_steps import ascent_steps
from dropattack.paper.depth import depth
from dropattack.paper.gains import gains, half_the_data
from dropattack.paper.granularity import even_last_digits, even_share, granularity, possible_mean
from dropattack.paper.input_and_weights import input_and_weights
from dropattack.paper.printed import TARGET_TABLES, paper_table
from dropattack.paper.sampling import binomial_standard_error, examples_tested
from dropattack.paper.selection import selection
from dropattack.paper.two_way import best_attack_probability, two_way_anova, two_way_means

__all__ = [
    "CHECKS",
    "TARGET_TABLES",
    "ascent_steps",
    "best_attack_probability",
    "binomial_standard_error",
    "depth",
    "even_last_digits",
    "even_share",
    "examples_tested",
    "gains",
    "granularity",
    "half_the_data",
    "input_and_weights",
    "paper_table",
    "possible_mean",
    "selection",
    "two_way_anova",
    "two_way_means",
]

CHECKS: dict[str, Callable[[], pd.DataFrame]] = {
    "granularity": granularity,
    "even last digits": even_last_digits,
    "gains": gains,
    "half the data": half_the_data,
    "two-way analysis of variance": two_way_anova,
    "two-way means": two_way_means,
    "best attack probability": best_attack_probability,
    "input and weights": input_and_weights,
    "ascent steps": ascent_steps,
    "depth": depth,
    "selection": selection,
}
"""Every check of the printed numbers by name; each returns a table with a column ``place``, the place in the paper."""
