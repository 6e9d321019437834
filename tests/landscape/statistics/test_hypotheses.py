"""Tests of paired differences: by hand, against SciPy, and their level."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from landscape.statistics import holm, permutation_test, wilcoxon_test


def test_by_hand():
    # 1, 2, -1: the sums of the 8 sign patterns are ±4, ±2 (twice), ±0 … : |4| twice, |2| four times, |0| twice.
    # The observed sum is 2: six of the eight are at least as far from zero.
    assert permutation_test([1.0, 2.0, -1.0]) == (6 / 8, 0.25, 3, True)


@pytest.mark.parametrize(("n", "smallest"), [(1, 1.0), (2, 0.5), (5, 0.0625), (6, 0.03125), (10, 2 / 1024)])
def test_the_smallest_p_is_reached_where_all_signs_agree(n, smallest):
    found = permutation_test(np.arange(1.0, n + 1))
    assert (found.p_value, found.smallest_p) == (smallest, smallest)
    assert permutation_test(-np.arange(1.0, n + 1)).p_value == smallest


@pytest.mark.parametrize("n", [2, 5, 9, 12])
def test_against_scipy(n):
    values = np.random.default_rng(n).normal(0.5, 1, n)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert permutation_test(values).p_value == pytest.approx(expected.pvalue)


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=7))
def test_ties_are_not_lost_to_rounding(tenths):
    # Tenths are no binary numbers: sums that are equal on paper differ in the last digit.
    exact = [abs(sum(Fraction(s * v, 10) for s, v in zip(signs, tenths, strict=True)))
             for signs in itertools.product((-1, 1), repeat=len(tenths))]  # fmt: skip
    observed = abs(Fraction(sum(tenths), 10))
    expected = sum(one >= observed for one in exact) / len(exact)
    assert permutation_test([value / 10 for value in tenths]).p_value == expected


def test_random_flips_come_near_the_exact_p():
    # n = 18, all patterns counted here by the convolution of the sums' distribution: differences are whole numbers.
    values = np.array([3, -1, 2, 5, -2, 1, 4, -3, 2, 1, -1, 3, 2, -4, 1, 2, 5, -2])
    counts = {0: 1}
    for value in values:
        longer = {}
        for total, count in counts.items():
            for sign in (-1, 1):
                longer[total + sign * value] = longer.get(total + sign * value, 0) + count
        counts = longer
    expected = sum(count for total, count in counts.items() if abs(total) >= values.sum()) / 2**18
    found = permutation_test(values)
    assert not found.exact
    assert found.p_value == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 9999) ** 0.5)
    assert found == permutation_test(values)
    assert found.p_value != permutation_test(values, seed=1).p_value


def test_random_flips_never_give_zero():
    found = permutation_test(np.arange(1.0, 41), flips=99)
    assert found == (0.01, 0.01, 40, False)


def test_the_level_is_held():
    # Under the null hypothesis P(p <= 1/16) is 1/16 for 5 continuous differences, by symmetry.
    samples = np.random.default_rng(0).standard_t(3, (4000, 5))
    rejected = np.mean([permutation_test(sample).p_value <= 0.0625 for sample in samples])
    assert rejected == pytest.approx(1 / 16, abs=4 * (1 / 16 * 15 / 16 / 4000) ** 0.5)


@pytest.mark.parametrize("test", [permutation_test, wilcoxon_test])
@pytest.mark.parametrize("values", [[], [1.0, np.nan, 2.0], [1.0, np.inf]])
def test_no_p_without_finite_differences(test, values):
    found = test(values)
    assert np.isnan(found.p_value)
    assert found.n == len(values)


@pytest.mark.parametrize("n", [4, 7, 25])
def test_wilcoxon_against_the_sum_of_ranks(n):
    # Without ties: the number of subsets of {1 … n} with each sum, by the recursion over its largest member.
    values = np.random.default_rng(n).normal(0.4, 1, n)
    ranks = stats.rankdata(np.abs(values))
    counts = np.zeros(n * (n + 1) // 2 + 1)
    counts[0] = 1
    for rank in range(1, n + 1):
        counts[rank:] += counts[:-rank].copy()
    smaller = int(min(ranks[values > 0].sum(), ranks[values < 0].sum()))
    expected = min(1.0, 2 * counts[: smaller + 1].sum() / 2**n)
    found = wilcoxon_test(values)
    assert found.p_value == pytest.approx(expected)
    assert found.exact


def test_wilcoxon_with_ties_and_zeros():
    # 1, 1, -1, 3 (0 is left out): ranks 2, 2, 2, 4; the sum with signs is 6. Patterns with |sum| >= 6:
    # ±10 (2 of 16), and ±6: one of the three 2s turned (2 * 3 of 16); 4 turned leaves 2. p = 8 / 16.
    assert wilcoxon_test([1.0, 1.0, 0.0, -1.0, 3.0]) == (0.5, 0.125, 4, True)


def test_wilcoxon_where_no_pair_differs():
    assert wilcoxon_test([0.0, 0.0, 0.0]) == (1.0, 1.0, 0, True)


def test_wilcoxon_is_not_moved_by_the_size_of_the_largest():
    assert wilcoxon_test([1.0, 2.0, 3.0, -4.0]).p_value == wilcoxon_test([1.0, 2.0, 3.0, -4e9]).p_value


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5, which is monotone.
    assert holm([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    # 0.02 * 2 = 0.04, and 0.03 * 1 must not be below it; 0.8 * 2 is cut at 1.
    assert holm([0.02, 0.03]) == pytest.approx([0.04, 0.04])
    assert holm([0.8, 0.9]) == pytest.approx([1.0, 1.0])


def test_holm_does_not_count_nan():
    assert holm([0.01, np.nan, 0.04]) == pytest.approx([0.02, np.nan, 0.04], nan_ok=True)
    assert np.isnan(holm([np.nan, np.nan])).all()
    assert len(holm([])) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_is_the_definition(p_values):
    # Reject step by step, from the smallest, while p <= level / (tests that are left): the adjusted p of a hypothesis
    # is the smallest level at which it is rejected.
    adjusted = holm(p_values)
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for step, place in enumerate(order):
        needed = max(p_values[other] * (len(p_values) - k) for k, other in enumerate(order[: step + 1]))
        assert adjusted[place] == pytest.approx(min(1, needed))


def test_holm_keeps_the_chance_of_any_error():
    # 20 true null hypotheses; without a correction, one is rejected at 5 % in 64 % of the studies.
    studies = np.random.default_rng(0).uniform(size=(4000, 20))
    assert (studies.min(1) < 0.05).mean() > 0.6
    wrong = np.mean([holm(study).min() < 0.05 for study in studies])
    assert wrong <= 0.05 + 4 * (0.05 * 0.95 / 4000) ** 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: permutation_test(np.zeros((2, 2))), "differences: expected one dimension, got 2"),
        (lambda: permutation_test([1.0], flips=0), "flips: expected at least 1, got 0"),
        (lambda: wilcoxon_test(np.zeros((2, 2))), "differences: expected one dimension, got 2"),
        (lambda: holm([0.5, 1.5]), r"between 0 and 1, got \[0.5, 1.5\]"),
        (lambda: holm([[0.5]]), "p_values: expected one dimension, got 2"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
