"""The same examples in batches of another size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

__all__ = ["resplit"]

_INSTEAD = "leave examples_a_batch=None to use the risk's own batches"


def resplit(batches: Iterable[Any], size: int) -> Iterator[Any]:
    """Batches of ``size`` examples, in the order in which they come; the last one may be smaller.

    Args:
        batches: tuples, lists or dictionaries, also nested, of tensors that share their first dimension.
        size: examples in each.

    Yields:
        Batches of the same structure.

    Raises:
        TypeError: something in a batch is not a tensor with one entry for each example.
        ValueError: batches that cannot be joined, as when they are padded to different lengths.
    """
    waiting: list[Any] = []
    have = 0
    for batch in batches:
        first, count = 0, _examples(batch)
        while first < count:
            taken = min(size - have, count - first)
            waiting.append(_mapped(_cut(first, first + taken), [batch]))
            first, have = first + taken, have + taken
            if have == size:
                yield _joined(waiting)
                waiting, have = [], 0
    if waiting:
        yield _joined(waiting)


def _cut(first: int, end: int) -> Callable[[Sequence[Tensor]], Tensor]:
    return lambda tensors: tensors[0][first:end]


def _joined(parts: Sequence[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    try:
        return _mapped(lambda tensors: torch.cat(list(tensors)), parts)
    except RuntimeError as error:
        raise ValueError(
            f"examples_a_batch: expected batches that can be joined, but: {error}. Pad all of them to one length, or "
            f"{_INSTEAD}"
        ) from error


def _examples(batch: Any) -> int:
    sizes: set[int] = set()

    def measure(tensors: Sequence[Tensor]) -> Tensor:
        sizes.add(len(tensors[0]) if tensors[0].ndim else -1)
        return tensors[0]

    _mapped(measure, [batch])
    if len(sizes) != 1 or -1 in sizes:
        raise TypeError(
            "examples_a_batch: expected the tensors of a batch to share their first dimension, one entry for each "
            f"example; got sizes {sorted(sizes)}; {_INSTEAD}"
        )
    return sizes.pop()


def _mapped(function: Callable[[Sequence[Tensor]], Tensor], batches: Sequence[Any]) -> Any:
    """One batch whose tensors are a function of the tensors in the same place of several batches."""
    first = batches[0]
    if isinstance(first, Tensor):
        return function(batches)
    if isinstance(first, Mapping):
        return {key: _mapped(function, [batch[key] for batch in batches]) for key in first}
    if isinstance(first, tuple | list) and not isinstance(first, PackedSequence):
        parts = [_mapped(function, column) for column in zip(*batches, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    raise TypeError(
        "examples_a_batch: expected batches that are tuples, lists or dictionaries of tensors, got a "
        f"{type(first).__name__}; {_INSTEAD}"
    )
