"""Duplicates against brute force, and splits that keep equal examples together."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dropattack.data.duplicates import exact_groups, near_groups, normalized, overlaps
from dropattack.data.splits import drawn


def test_copies_differ_in_spaces_case_and_punctuation_only():
    assert normalized("A good\nfilm!") == normalized("a  GOOD film") != normalized("a good film 2")
    assert normalized("?!") != normalized("...")  # nothing but punctuation is not all the same
    assert exact_groups([b"a", b"b", b"a", b"c", b"b"]).tolist() == [0, 1, 0, 3, 1]


def brute_force(words, exact):
    """The definition in the docstring, over all pairs."""

    def shingles(ids):
        return {tuple(ids[place : place + 3]) for place in range(len(ids) - 2)}

    groups = list(range(len(words)))
    for one, other in itertools.combinations(range(len(words)), 2):
        sets = set(words[one]), set(words[other])
        pieces = shingles(words[one]), shingles(words[other])
        is_long = min(map(len, sets)) >= 3
        is_near = (
            exact[one] == exact[other]
            or (is_long and sets[0] == sets[1])
            or (is_long and len(pieces[0] & pieces[1]) >= 0.9 * len(pieces[0] | pieces[1]))
        )
        if is_near:
            old, new = groups[other], groups[one]
            groups = [min(old, new) if group in (old, new) else group for group in groups]
    return groups


@st.composite
def families(draw):
    """Long texts, and copies of them with a few words changed, cut or turned round."""
    size = draw(st.integers(3, 45))
    origin = draw(st.lists(st.integers(0, 60), min_size=size, max_size=size))
    texts = [origin]
    for _ in range(draw(st.integers(1, 4))):
        copy = list(draw(st.sampled_from(texts)))
        for place in draw(st.lists(st.integers(0, size - 1), max_size=2)):
            copy[place % len(copy)] = draw(st.integers(0, 60))
        texts.append(copy[draw(st.integers(0, 2)) :] or copy)
    return texts


@settings(max_examples=150, deadline=None)
@given(st.lists(families(), min_size=1, max_size=3), st.lists(st.lists(st.integers(0, 4), max_size=5), max_size=4))
def test_near_duplicates_are_those_of_all_pairs(long, short):
    texts = [*itertools.chain.from_iterable(long), *short]
    words = [np.array(text, dtype=np.int32) for text in texts]
    exact = exact_groups(text.tobytes() for text in words)
    assert near_groups(words, exact).tolist() == brute_force(texts, exact.tolist())


def test_overlaps_count_examples_of_the_second_split():
    groups = {
        "train": np.array([0, 1, 2], dtype=np.int32),
        "validation": np.array([1, 1, 9], dtype=np.int32),
        "test": np.array([9, 8], dtype=np.int32),
    }
    assert overlaps({"exact": groups}) == {
        "train/validation": {"exact": 2},
        "train/test": {"exact": 0},
        "validation/test": {"exact": 1},
    }


@given(st.lists(st.binary(max_size=1), min_size=1, max_size=60), st.integers(0, 10), st.integers(0, 10))
def test_every_example_is_in_one_split_with_its_equals(keys, validation, test):
    validation, test = (min(size, len(keys) // 3) for size in (validation, test))
    splits = drawn(keys, (len(keys) - validation - test, validation, test))
    assert sorted(np.concatenate(splits).tolist()) == list(range(len(keys)))
    found = [{keys[index] for index in split.tolist()} for split in splits]
    for one, other in itertools.combinations(found, 2):
        assert not one & other
    assert len(splits[1]) <= validation
    assert len(splits[2]) <= test


def test_different_examples_give_exact_sizes_in_shuffled_order():
    keys = [str(number).encode() for number in range(1000)]
    splits = drawn(keys, (800, 120, 80))
    assert [len(split) for split in splits] == [800, 120, 80]
    # The mean of 80 of the numbers 0 to 999 without replacement has a standard error of 31.
    assert abs(splits[2].mean() - 499.5) < 4 * 31
    assert abs(np.corrcoef(splits[0], np.arange(800))[0, 1]) < 4 / np.sqrt(800)


def test_ties_make_the_split_independent_of_the_order_of_rows():
    rows = [("a", 0), ("a", 1), ("b", 0), ("a", 2), ("c", 0)]

    def arranged(rows):
        splits = drawn([key.encode() for key, _ in rows], (4, 1), ties=rows)
        return [[rows[index] for index in split.tolist()] for split in splits]

    for order in itertools.permutations(rows):
        assert arranged(list(order)) == arranged(rows)
