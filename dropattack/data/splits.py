"""Who belongs to which split, decided by the examples themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from dropattack.data.dataset import SPLIT_SEED

__all__ = ["drawn"]


def drawn(
    keys: Sequence[bytes], sizes: Sequence[int], ties: Sequence[Hashable] | None = None
) -> list[NDArray[np.int64]]:
    """Draw splits so that examples with equal keys are in one of them, each in shuffled order.

    The order is that of a hash of the key with the fixed seed. So it depends neither on the order of rows in a file,
    which differs between copies of one data set, nor on the version of a random generator.

    Args:
        keys: what makes two examples the same, such as the normalized text.
        sizes: examples in each split. The first split takes what does not fit elsewhere: sizes are exact unless groups
            of equal keys are large against the splits.
        ties: for equal keys, what orders them; None: their order in the file.

    Returns:
        For each size, the indices of its examples.
    """
    groups: dict[bytes, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    room = list(sizes)
    chosen: list[list[tuple[bytes, int]]] = [[] for _ in sizes]
    for key in sorted(groups, key=lambda key: _rank(key, 0)):
        members = groups[key]
        if ties is not None and len(members) > 1:
            members.sort(key=lambda index: repr(ties[index]))
        # Later splits are filled first: they are the small ones, and the first takes all that is left.
        split = next((place for place in reversed(range(len(sizes))) if room[place] >= len(members)), 0)
        room[split] -= len(members)
        # A second hash for each member, so that twins are not neighbors in the split.
        chosen[split] += [(_rank(key, number + 1), index) for number, index in enumerate(members)]
    return [np.array([index for _, index in sorted(members)], dtype=np.int64) for members in chosen]


def _rank(key: bytes, number: int) -> bytes:
    return hashlib.blake2b(
        key, digest_size=16, salt=number.to_bytes(8, "big"), person=str(SPLIT_SEED).encode()
    ).digest()
