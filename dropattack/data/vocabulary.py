"""Which words have an id."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping

__all__ = ["PADDING", "UNKNOWN", "Vocabulary"]

PADDING, UNKNOWN = 0, 1


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Words and their ids: 0 is padding, 1 an unknown word, then words by frequency.

    Attributes:
        words: the word of each id from 2 on.
    """

    words: tuple[str, ...]

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], size: int | None = None) -> Vocabulary:
        """The words that occur, the most frequent first and equally frequent ones in alphabetical order.

        Args:
            counts: occurrences of each word; those of 0 are left out.
            size: keep only so many words.

        Example:
            >>> Vocabulary.from_counts({"b": 2, "a": 2, "c": 5, "d": 0}).words
            ('c', 'a', 'b')
        """
        seen = sorted((word for word, count in counts.items() if count), key=lambda word: (-counts[word], word))
        return cls(tuple(seen[:size]))

    def __len__(self) -> int:
        """Ids, padding and unknown included: the rows of an embedding."""
        return len(self.words) + 2

    @functools.cached_property
    def ids(self) -> Mapping[str, int]:
        """The id of each word."""
        return {word: index for index, word in enumerate(self.words, start=2)}

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """The ids of some tokens."""
        return [self.ids.get(token, UNKNOWN) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words of some ids; padding is left out."""
        return ["<unknown>" if index == UNKNOWN else self.words[index - 2] for index in ids if index != PADDING]
