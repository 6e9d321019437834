"""What every data set is: three splits of labelled examples, and what a model must know about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from dropattack.data.vocabulary import Vocabulary

__all__ = ["SPLITS", "SPLIT_SEED", "Dataset", "Examples", "Split"]

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

# Which examples belong to which split is part of a data set, not of a run: one fixed seed for all runs.
SPLIT_SEED = 2108_12805


class Examples(Protocol):
    """Labelled examples of one split, in memory. A kind of examples says how a batch of them is made.

    Attributes:
        labels: ``(n,)``, int64.
    """

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Inputs and labels ``(n,)`` of the examples at ``indices``, in that order."""
        ...

    def description(self) -> dict[str, Any]:
        """Counts and checksum, in types that JSON has."""
        ...

    def batches(self, size: int = 500, limit: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """All examples in order, prepared once: what ``landscape.EmpiricalRisk`` takes.

        Args:
            size: examples a batch; the last one may be smaller. A few hundred fit the processor's cache.
            limit: take only so many examples from the start; splits are stored in shuffled order.
        """
        count = len(self) if limit is None else min(limit, len(self))
        return list(self.ordered(size, count))

    def ordered(self, size: int = 500, count: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The first ``count`` examples (None: all) in order, one batch in memory at a time."""
        count = len(self) if count is None else count
        for start in range(0, count, size):
            yield self.batch(slice(start, min(start + size, count)))

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of training batches in an order drawn from ``generator``."""
        order = torch.randperm(len(self), generator=generator)
        for start in range(0, len(self), size):
            yield self.batch(order[start : start + size])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The three splits of a data set.

    Attributes:
        name: its key in ``DATASETS``.
        source: in words, where the examples were read from (never a path).
        train: what is trained on, in shuffled order: its first n examples are a random sample.
        validation: what choices are made on.
        test: what is reported.
        classes: their names, in the order of the labels.
        model_options: what a model must know: ``classes``, their number, and for text ``vocabulary``, the number of
            rows of an embedding, and ``vectors``, its first values ``(vocabulary, dimensions)`` or None.
        notes: what else was found while reading, for :meth:`description`.
        vocabulary: the words behind the ids, for text.
    """

    name: str
    source: str
    train: Examples
    validation: Examples
    test: Examples
    classes: tuple[str, ...] = ()
    model_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    vocabulary: Vocabulary | None = None

    def __getitem__(self, split: Split) -> Examples:
        examples: Examples = getattr(self, split)
        return examples

    def description(self) -> dict[str, Any]:
        """What was found, for the run's configuration; in types that JSON has."""
        splits = {split: self[split].description() for split in SPLITS}
        return {"name": self.name, "source": self.source} | splits | dict(self.notes)
