"""The texts of all splits, tokenized once: what the cache keeps, before any option is applied."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dropattack.data.cache import Arrays
from dropattack.data.dataset import SPLITS, Split
from dropattack.data.duplicates import exact_groups, near_groups, normalized
from dropattack.data.tokens import LINK, USER, tokenize

__all__ = ["FORMAT", "Corpus", "Labelled"]

# Changes when the same texts would be tokenized, split or grouped otherwise.
FORMAT = 2

# Texts and labels of a split, in its order.
Labelled = tuple[Sequence[str], Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Tokenized texts of the three splits, one after the other.

    Attributes:
        types: every different token.
        tokens: indices into ``types``, int32.
        offsets: where each text begins in ``tokens``, and the end; int64, one more than there are texts.
        labels: int64.
        sizes: texts in each split.
        exact: group of equal texts; see :func:`~dropattack.data.duplicates.exact_groups`.
        near: group of near duplicates; see :func:`~dropattack.data.duplicates.near_groups`.
        sha256: of the texts and labels of each split, in its order.
    """

    types: tuple[str, ...]
    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    sizes: tuple[int, int, int]
    exact: NDArray[np.int32]
    near: NDArray[np.int32]
    sha256: tuple[str, str, str]

    @classmethod
    def tokenized(cls, splits: Mapping[Split, Labelled]) -> Corpus:
        """Tokenize texts and find their duplicates."""
        indices = _Indices()
        pieces = [
            np.fromiter((indices[token] for token in tokenize(text)), dtype=np.int32)
            for split in SPLITS
            for text in splits[split][0]
        ]
        types = tuple(indices)
        exact = exact_groups(normalized(text) for split in SPLITS for text in splits[split][0])
        tells = np.array([token not in (LINK, USER) and not token.isdigit() for token in types] or [True])
        offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64)
        return cls(
            types=types,
            tokens=np.concatenate([*pieces, np.empty(0, dtype=np.int32)]),
            offsets=offsets,
            labels=np.array([label for split in SPLITS for label in splits[split][1]], dtype=np.int64),
            sizes=(len(splits["train"][0]), len(splits["validation"][0]), len(splits["test"][0])),
            exact=exact,
            near=near_groups([piece[tells[piece]] for piece in pieces], exact),
            sha256=(_sha256(*splits["train"]), _sha256(*splits["validation"]), _sha256(*splits["test"])),
        )

    def slice(self, split: Split) -> slice:
        """Where the texts of a split are."""
        ends = np.cumsum((0, *self.sizes)).tolist()
        place = SPLITS.index(split)
        return slice(ends[place], ends[place + 1])

    def to_arrays(self) -> Arrays:
        """For the cache; the inverse of :meth:`from_arrays`."""
        text = "\n".join(self.types).encode("utf-8", "surrogatepass")
        return {
            "types": np.frombuffer(text, dtype=np.uint8),
            "tokens": self.tokens,
            "offsets": self.offsets,
            "labels": self.labels,
            "sizes": np.array(self.sizes),
            "exact": self.exact,
            "near": self.near,
            "sha256": np.array(self.sha256),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Corpus:
        """From the cache."""
        text = arrays["types"].tobytes().decode("utf-8", "surrogatepass")
        train, validation, test = arrays["sizes"].tolist()
        return cls(
            types=tuple(text.split("\n")) if text else (),
            tokens=arrays["tokens"],
            offsets=arrays["offsets"],
            labels=arrays["labels"],
            sizes=(train, validation, test),
            exact=arrays["exact"],
            near=arrays["near"],
            sha256=tuple(arrays["sha256"].tolist()),
        )


class _Indices(dict[str, int]):
    """Gives each new key the next number."""

    def __missing__(self, key: str) -> int:
        self[key] = index = len(self)
        return index


def _sha256(texts: Sequence[str], labels: Sequence[int]) -> str:
    digest = hashlib.sha256()
    for text, label in zip(texts, labels, strict=True):
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0" + str(label).encode() + b"\n")
    return digest.hexdigest()
