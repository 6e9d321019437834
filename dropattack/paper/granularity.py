"""Can the printed accuracies be means over several runs? What their last digits say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pandas as pd
from scipy.stats import binom

from dropattack.paper.printed import TARGET_TABLES, paper_table
from dropattack.paper.sampling import examples_tested

__all__ = ["even_last_digits", "even_share", "granularity", "possible_mean"]

# Tables whose numbers are tested together, and sizes of test data: Table 1 and, for PHEME, the authors' files.
_TESTED = (("imdb", (3,), (5000,)), ("imdb", (10,), (5000,)), ("pheme", (2, 4, 6), (637, 643)))
_RUNS = (1, 5, 10)
_RUNS_STATED = {2: "5", 4: "5"}  # by table; the captions of the others say nothing


def possible_mean(value: float, examples: int, runs: int, decimals: int = 2, slack: float = 0.0) -> bool:
    """Whether a printed percentage can be the mean of the accuracies of some runs (the GRIM test).

    The runs answer ``examples * runs`` questions in all, so that their mean is a whole number of correct answers
    divided by that. The printed number is possible if such a mean rounds to it; halves may go either way. Computed in
    exact fractions.

    Args:
        value: the percentage, as printed.
        examples: in the test data.
        runs: how many accuracies were averaged.
        decimals: that were printed.
        slack: percentage points by which the printed number may be off, if that is more than half a unit of the last
            digit. One whole unit (0.01) also lets pass numbers that were cut off, or rounded up.

    Raises:
        ValueError: ``value`` has more decimals than ``decimals``, or ``examples`` or ``runs`` are not positive.

    Source:
        N. J. L. Brown and J. A. J. Heathers, The GRIM Test: A Simple Technique Detects Numerous Anomalies in the
        Reporting of Results in Psychology, Social Psychological and Personality Science 8(4), 2017, pp. 363-369.

    Example:
        >>> possible_mean(66.67, examples=3, runs=1), possible_mean(66.66, examples=3, runs=1)
        (True, False)
    """
    if examples < 1 or runs < 1:
        raise ValueError(f"expected at least one example and one run, got {examples} and {runs}")
    printed, unit = Fraction(str(value)), Fraction(1, 10**decimals)
    if (printed / unit).denominator != 1:
        raise ValueError(f"value: expected a number with {decimals} decimals, got {value}; pass the decimals it has")
    allowed = max(unit / 2, Fraction(str(slack)))
    answers = examples * runs
    fewest = math.ceil(max(printed - allowed, Fraction(0)) * answers / 100)
    most = math.floor(min(printed + allowed, Fraction(100)) * answers / 100)
    return fewest <= most


def granularity(slacks: Sequence[float] = (0.0, 0.01)) -> pd.DataFrame:
    """How many of the printed accuracies on the IMDB and PHEME cannot be means of 1, 5 or 10 runs.

    Of Table 10, the row of attack probability 0 is left out: it is one number, copied. A number that is printed more
    than once is tested once. The test has no power where means of so many runs lie closer together than the printed
    digits do, as with five runs on the 5,000 examples of the IMDB, or with ten runs on PHEME and a slack of 0.01.

    Args:
        slacks: of :func:`possible_mean`, in percentage points.

    Returns:
        One row for each group of tables, size of the test data, number of runs and slack: ``place``, ``dataset``,
        ``test_examples``, ``runs``, ``slack``, ``numbers`` (different ones), ``impossible`` (of them), and
        ``impossible_by_chance``: so many would be if the numbers, each between the smallest and the largest of them,
        had nothing to do with the size of the test data. 0 are, where all numbers are what they are said to be.
    """
    rows = []
    for dataset, tables, sizes in _TESTED:
        values = sorted({value for table in tables for value in _accuracies(table, dataset)})
        between = np.arange(round(100 * values[0]), round(100 * values[-1]) + 1) / 100
        place = f"Table{'s' if len(tables) > 1 else ''} {', '.join(map(str, tables))}"
        for examples, runs, slack in ((n, r, s) for n in sizes for r in _RUNS for s in slacks):
            impossible = sum(not possible_mean(value, examples, runs, slack=slack) for value in values)
            share = np.mean([not possible_mean(value, examples, runs, slack=slack) for value in between])
            row = {"place": place, "dataset": dataset, "test_examples": examples, "runs": runs, "slack": slack}
            row |= {"numbers": len(values), "impossible": impossible, "impossible_by_chance": share * len(values)}
            rows.append(row)
    return pd.DataFrame(rows)


def even_share(examples: int, runs: int) -> float:
    """The share of all possible means that are printed, with two decimals, with an even last digit.

    One run on 5,000 examples moves in steps of 0.02 points: always even. The mean of five moves in steps of 0.004, of
    which .000, .004 and .016 are printed as .00, .00 and .02, and .008 and .012 as .01: three in five.

    Args:
        examples: in the test data.
        runs: how many accuracies were averaged.

    Example:
        >>> even_share(5000, 1), even_share(5000, 5)
        (1.0, 0.6)
    """
    answers = examples * runs
    correct = range(answers)  # all correct is left out: 100.00 begins the next period
    # 10,000 k / answers in hundredths, rounded half up in whole numbers.
    return sum((20_000 * k + answers) // (2 * answers) % 2 == 0 for k in correct) / answers


def even_last_digits() -> pd.DataFrame:
    """Last digits of the IMDB's accuracies: means of five runs, or single runs?

    With 5,000 test examples a single run can only be printed with an even last digit, and the mean of five is in three
    cases of five (see :func:`even_share`). Captions speak of five runs at Tables 2 and 4 only. The tables share some
    numbers (Table 5 has two cells of Table 10, for instance), so that the rows are not independent of each other. Of
    Table 10, the row of attack probability 0 is left out: it is one number, copied.

    Returns:
        One row for each table: ``place``, ``dataset``, ``runs_stated``, ``numbers`` (cells), ``even`` (of them),
        ``even_share_of_one_run``, ``even_share_of_five_runs``, and ``p_value``: the binomial probability of at least so
        many even ones, if all were means of five runs.
    """
    examples = examples_tested("imdb")
    one, five = even_share(examples, 1), even_share(examples, 5)
    rows = []
    for table in (2, 3, 4, 5, 10):
        values = _accuracies(table, "imdb")
        even = sum(round(100 * value) % 2 == 0 for value in values)
        row: dict[str, object] = {"place": f"Table {table}", "dataset": "imdb"}
        row |= {"runs_stated": _RUNS_STATED.get(table, "not stated"), "numbers": len(values), "even": even}
        row |= {"even_share_of_one_run": one, "even_share_of_five_runs": five}
        rows.append(row | {"p_value": float(binom.sf(even - 1, len(values), five))})
    return pd.DataFrame(rows)


def _accuracies(number: int, dataset: str) -> list[float]:
    """The accuracies that a table prints for a data set, repetitions included."""
    table = paper_table(number)
    if number in (2, 4):
        table = table[table["dataset"] == dataset]
    elif number == 3:
        return [*table["standard"], *table["dropattack"]]
    elif number == 10:
        table = table[table["attack_probability"] > 0]
    else:
        assert TARGET_TABLES[number] == dataset
    return list(table["accuracy"])
