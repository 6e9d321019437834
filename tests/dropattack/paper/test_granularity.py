from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal

import pytest

from dropattack.paper import even_last_digits, even_share, granularity, possible_mean


def printed(correct, answers, decimals, roundings=(ROUND_HALF_UP, ROUND_HALF_DOWN)):
    """The ways to print 100 correct / answers; 50 digits are exact enough for so few answers."""
    mean = 100 * Decimal(correct) / Decimal(answers)
    return {mean.quantize(Decimal(1).scaleb(-decimals), rounding) for rounding in roundings}


def every_mean(examples, runs, decimals, *roundings):
    answers = examples * runs
    return set().union(*(printed(k, answers, decimals, *roundings) for k in range(answers + 1)))


@pytest.mark.parametrize(("examples", "runs"), [(1, 1), (3, 1), (7, 1), (8, 1), (16, 1), (7, 5), (13, 10), (640, 1)])
@pytest.mark.parametrize("decimals", [0, 1, 2])
def test_possible_means_are_those_that_enumeration_finds(examples, runs, decimals):
    possible = every_mean(examples, runs, decimals)
    unit = Decimal(1).scaleb(-decimals)
    for step in range(100 * 10**decimals + 1):
        value = step * unit
        assert possible_mean(float(value), examples, runs, decimals) == (value in possible), value


@pytest.mark.parametrize(("examples", "runs"), [(7, 1), (16, 1), (643, 1)])
def test_slack_of_a_whole_unit_lets_pass_what_was_cut_off_or_rounded_up(examples, runs):
    # Within 0.01 of a mean, both ends included. Next to cut off and rounded up, the latter are the neighbors of a mean
    # that itself has two decimals.
    possible = every_mean(examples, runs, 2, (ROUND_FLOOR, ROUND_CEILING))
    unit = Decimal("0.01")
    exact = {v for v in possible if (v * examples * runs) % 100 == 0}
    possible |= {v + d for v in exact for d in (-unit, unit)}
    for step in range(10_001):
        value = step * unit
        assert possible_mean(float(value), examples, runs, slack=0.01) == (value in possible), value


def test_slack_below_half_a_unit_changes_nothing():
    values = [step / 100 for step in range(8000, 9000)]
    plain = [possible_mean(value, 637, 5) for value in values]
    assert [possible_mean(value, 637, 5, slack=0.004) for value in values] == plain
    assert [possible_mean(value, 637, 5, slack=0.006) for value in values] != plain


def test_a_number_with_three_decimals():
    # 85.185 = 23/27: a multiple of 27 examples can print it, and no size of PHEME's test data.
    assert [n for n in (567, 594, 621, 637, 643, 648, 675) if possible_mean(85.185, n, 1, decimals=3)] == [
        *(567, 594, 621, 648, 675)
    ]


def test_what_no_mean_can_be():
    with pytest.raises(ValueError, match=r"expected a number with 2 decimals, got 85\.185"):
        possible_mean(85.185, 637, 5)
    for examples, runs in ((0, 1), (5, 0)):
        with pytest.raises(ValueError, match=f"at least one example and one run, got {examples} and {runs}"):
            possible_mean(50, examples, runs)
    # In steps of 0.01 these would be the next ones, but no share is outside 0 to 100 %.
    assert not possible_mean(100.01, 10_000, 1)
    assert not possible_mean(-0.01, 10_000, 1)
    assert possible_mean(100, 10, 1)
    assert possible_mean(0, 10, 1)


def test_pheme():
    table = granularity().query("dataset == 'pheme'")
    assert set(table["place"]) == {"Tables 2, 4, 6"}
    assert set(table["numbers"]) == {23}
    found = table.set_index(["test_examples", "runs", "slack"])["impossible"]
    assert (found[637, 5, 0.0], found[643, 5, 0.0]) == (18, 13)
    assert (found[637, 5, 0.01], found[643, 5, 0.01]) == (12, 5)
    assert (found[637, 10, 0.0], found[643, 10, 0.0]) == (9, 8)
    assert (found[637, 10, 0.01], found[643, 10, 0.01]) == (0, 0)
    assert (found[637, 1, 0.0], found[643, 1, 0.0]) == (23, 17)


def test_what_chance_would_do():
    table = granularity().set_index(["place", "test_examples", "runs", "slack"])["impossible_by_chance"]
    # Means of five runs are 100/3185 = 0.0314 apart, so that 0.01/0.0314 of two-decimal numbers are one of them.
    assert table["Tables 2, 4, 6", 637, 5, 0.0] == pytest.approx(23 * (1 - 0.3185), abs=0.2)
    # Counted: the 397 numbers from 83.40 to 87.36, less those that a mean prints.
    means = [value for value in every_mean(637, 5, 2) if Decimal("83.40") <= value <= Decimal("87.36")]
    assert table["Tables 2, 4, 6", 637, 5, 0.0] == pytest.approx(23 * (1 - len(means) / 397))
    # Of ten: 0.0157 apart, less than twice the slack of 0.01, so that every number passes.
    assert table["Tables 2, 4, 6", 637, 10, 0.01] == 0
    assert table["Table 3", 5000, 1, 0.0] == pytest.approx(8, abs=0.01)  # every second number


def test_imdb():
    table = granularity([0.0]).query("dataset == 'imdb'").set_index(["place", "runs"])
    assert table.loc[("Table 3", 1), ["numbers", "impossible"]].tolist() == [16, 0]
    assert table.loc[("Table 10", 1), ["numbers", "impossible"]].tolist() == [33, 5]
    assert table.loc[("Table 10", 5), ["impossible", "impossible_by_chance"]].tolist() == [0, 0]


@pytest.mark.parametrize(("examples", "runs"), [(5000, 1), (5000, 5), (637, 5), (7, 3)])
def test_even_share_is_that_of_all_means(examples, runs):
    answers = examples * runs
    digits = [printed(k, answers, 2, (ROUND_HALF_UP,)).pop().as_tuple().digits[-1] for k in range(answers)]
    assert even_share(examples, runs) == sum(digit % 2 == 0 for digit in digits) / answers


def test_even_last_digits():
    table = even_last_digits().set_index("place")
    assert list(table.index) == ["Table 2", "Table 3", "Table 4", "Table 5", "Table 10"]
    assert table["numbers"].tolist() == [11, 16, 5, 12, 42]
    assert table["even"].tolist() == [8, 16, 4, 10, 37]
    assert set(table["even_share_of_five_runs"]) == {0.6}
    assert set(table["even_share_of_one_run"]) == {1.0}
    assert table["runs_stated"].tolist() == ["5", "not stated", "5", "not stated", "not stated"]
    # All 16 even: 0.6^16. Four or five of five: 5 x 0.6^4 x 0.4 + 0.6^5.
    assert table.loc["Table 3", "p_value"] == pytest.approx(0.6**16, rel=1e-9)
    assert table.loc["Table 4", "p_value"] == pytest.approx(5 * 0.6**4 * 0.4 + 0.6**5)
    assert table.loc["Table 3", "p_value"] == pytest.approx(3e-4, abs=5e-5)
    assert table.loc["Table 10", "p_value"] == pytest.approx(7e-5, abs=5e-6)
