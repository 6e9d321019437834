"""Examples that are in two splits: equal ones, and texts that nearly are."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dropattack.data.dataset import SPLITS, Split

__all__ = ["exact_groups", "near_groups", "normalized", "overlaps"]

# Two texts of which nine in ten three-word sequences are common: a retweet, an edited copy.
SIMILARITY = 0.9
SHINGLE = 3
# Fewer words say too little to call two texts the same: "breaking news".
FEWEST_WORDS = 3
# Counts of hashed shingles; a collision costs a comparison, never a result.
_BUCKETS = 1 << 24

_NO_LETTER = re.compile(r"[\W_]+")


def normalized(text: str) -> bytes:
    """The letters and digits of a text in lower case: equal for copies that differ in spaces and punctuation."""
    return (_NO_LETTER.sub("", text.lower()) or text).encode("utf-8", "surrogatepass")


def exact_groups(keys: Iterable[bytes]) -> NDArray[np.int32]:
    """For each example the index of the first one with the same key."""
    first: dict[bytes, int] = {}
    digests = (hashlib.blake2b(key, digest_size=16).digest() for key in keys)
    return np.array([first.setdefault(digest, index) for index, digest in enumerate(digests)], dtype=np.int32)


def near_groups(words: Sequence[NDArray[np.int32]], exact: NDArray[np.int32]) -> NDArray[np.int32]:
    """For each text the smallest index in its group of near duplicates.

    Two texts are near duplicates when they are exact ones, have the same set of at least three words, or have a Jaccard
    similarity of at least 0.9 between their sets of three-word sequences. Groups are connected components. All pairs
    above the similarity are found, by prefix filtering (Chaudhuri, Ganti and Kaushik 2006).

    Args:
        words: for each text the ids of its words, without links, names of users and numbers.
        exact: from :func:`exact_groups`.
    """
    parent = list(range(len(words)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    def join(one: int, other: int) -> None:
        low, high = sorted((root(one), root(other)))
        parent[high] = low

    sets: dict[bytes, int] = {}
    sequences: dict[bytes, int] = {}
    for index, ids in enumerate(words):
        join(index, int(exact[index]))
        distinct = np.unique(ids)
        if len(distinct) >= FEWEST_WORDS:
            join(index, sets.setdefault(distinct.tobytes(), index))
            sequences.setdefault(ids.tobytes(), index)  # so that many copies of one text are not compared in pairs
    for one, other in _similar_pairs({index: _shingles(words[index]) for index in sequences.values()}):
        join(one, other)
    return np.array([root(index) for index in range(len(words))], dtype=np.int32)


def overlaps(groups: Mapping[str, Mapping[Split, NDArray[np.int32]]]) -> dict[str, dict[str, int]]:
    """For each two splits, how many examples of the second have a duplicate in the first, by kind of duplicate.

    Args:
        groups: by kind, such as ``exact``: for each split, the group of each example.
    """
    return {
        f"{one}/{other}": {kind: int(np.isin(of[other], of[one]).sum()) for kind, of in groups.items()}
        for one, other in itertools.combinations(SPLITS, 2)
    }


def _shingles(ids: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Hashes of the different three-word sequences of a text, in ascending order."""
    wide = ids.astype(np.uint64)
    hashed = np.zeros(len(wide) - SHINGLE + 1, dtype=np.uint64)
    for offset in range(SHINGLE):
        # Multiplicative hashing modulo 2**64: odd constant near 2**64 over the golden ratio.
        hashed = (hashed ^ wide[offset : offset + len(hashed)]) * np.uint64(0x9E3779B97F4A7C15)
        hashed ^= hashed >> np.uint64(29)
    return np.unique(hashed)


def _similar_pairs(shingles: Mapping[int, NDArray[np.uint64]]) -> Iterable[tuple[int, int]]:
    """All pairs of sets with a Jaccard similarity of at least ``SIMILARITY``."""
    counts = np.zeros(_BUCKETS, dtype=np.int32)
    for hashes in shingles.values():
        counts[hashes % _BUCKETS] += 1
    # Nine in ten shingles of such a text are in another one too, which is rare enough to leave few texts.
    shared = {
        index: set(hashes.tolist())
        for index, hashes in shingles.items()
        if (counts[hashes % _BUCKETS] > 1).mean() >= SIMILARITY
    }
    frequency = Counter(itertools.chain.from_iterable(shared.values()))
    holders: dict[int, list[int]] = {}
    for index, own in shared.items():
        # Two similar sets share one of their rarest: the first n - ceil(0.9 n) + 1 in a common order.
        rarest = sorted(own, key=lambda shingle: (frequency[shingle], shingle))
        prefix = rarest[: len(own) - int(np.ceil(SIMILARITY * len(own))) + 1]
        for candidate in {other for shingle in prefix for other in holders.get(shingle, ())}:
            common = len(own & shared[candidate])
            if common >= SIMILARITY * (len(own) + len(shared[candidate]) - common):
                yield candidate, index
        for shingle in prefix:
            holders.setdefault(shingle, []).append(index)
