"""What can be chosen about a data set, checked before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from dropattack.data.dataset import SPLITS, Split
from dropattack.names import unknown

__all__ = ["Options", "TextOptions"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What can be chosen about every data set.

    Attributes:
        examples: keep only the first so many training examples. Training splits are in shuffled order, so smaller
            samples are prefixes of larger ones, as in the paper's Table 3.
        validation_examples: the same for the validation split.
        test_examples: the same for the test split.
        cache: keep what was decoded or tokenized in the cache folder, and take it from there.
    """

    examples: int | None = None
    validation_examples: int | None = None
    test_examples: int | None = None
    cache: bool = True

    @classmethod
    def read(cls, name: str, given: Mapping[str, Any]) -> Self:
        """Check the options given for the data set called ``name``.

        Raises:
            ValueError: an unknown option (the message names the nearest known ones), or a value out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in given:
            if key not in known:
                raise ValueError(unknown("data option", key, known, owner=name))
        return cls(**given)

    def __post_init__(self) -> None:
        for name in ("examples", "validation_examples", "test_examples"):
            self._check_count(name, smallest=1)
        if not isinstance(self.cache, bool):
            raise ValueError(f"cache: expected true or false, got {self.cache!r}")

    def limit(self, split: Split) -> int | None:
        """How many examples of a split to keep; None for all."""
        return {"train": self.examples, "validation": self.validation_examples, "test": self.test_examples}[split]

    def check_sizes(self, name: str, sizes: Mapping[Split, int]) -> None:
        """Refuse limits larger than the splits.

        Raises:
            ValueError: more examples are asked for than there are.
        """
        for split, option in zip(SPLITS, ("examples", "validation_examples", "test_examples"), strict=True):
            limit = self.limit(split)
            if limit is not None and limit > sizes[split]:
                raise ValueError(f"{option}: expected at most {sizes[split]}, the {split} split of {name}, got {limit}")

    def given(self) -> dict[str, Any]:
        """The options that change what is in the splits and differ from the defaults; never a path."""
        left_out = {"cache", "vectors"}
        fields = [field for field in dataclasses.fields(self) if field.name not in left_out]
        return {field.name: value for field in fields if (value := getattr(self, field.name)) != field.default}

    def _check_count(self, name: str, smallest: int) -> None:
        value = getattr(self, name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < smallest):
            raise ValueError(f"{name}: expected a whole number of at least {smallest}, got {value!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextOptions(Options):
    """What can be chosen about a data set of texts.

    Attributes:
        max_length: keep the first so many tokens of a text, after stop words are taken out; None: all. The authors'
            code keeps 256.
        vocabulary: keep so many of the most frequent words, besides padding and unknown; None: all.
        stop_words: True takes out frequent words without content, but no negation; ``"all"`` takes out ``not``, ``no``
            and ``n't`` too, as the authors' code does.
        vectors: file of word vectors, in GloVe's text format or as ``.npz`` with ``words`` and ``vectors``; a relative
            path is looked for in the data folder first.
        vocabulary_from: ``"train"`` counts words in the training examples that are kept; ``"all"`` in all three splits,
            as the authors' code does, so that words of test texts get vectors.
    """

    max_length: int | None = 256
    vocabulary: int | None = 20_000
    stop_words: bool | str = False
    vectors: str | Path | None = None
    vocabulary_from: str = "train"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("max_length", smallest=1)
        self._check_count("vocabulary", smallest=1)
        if not isinstance(self.stop_words, bool) and self.stop_words != "all":
            raise ValueError(f'stop_words: expected true, false or "all", got {self.stop_words!r}')
        if self.vocabulary_from not in ("train", "all"):
            raise ValueError(f"vocabulary_from: expected train or all, got {self.vocabulary_from!r}")
