"""Batches of any structure: tuples, dictionaries, packed sequences, the batches of tokenizers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

__all__ = ["are_ready", "fingerprint_of_batches", "moved"]


def moved(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors on the device, in the same structure."""
    if hasattr(batch, "to"):  # tensors, packed sequences, the batches of Hugging Face tokenizers
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(value, device) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(moved(value, device) for value in batch)
    return batch


def are_ready(batches: Iterable[Any], device: torch.device) -> bool:
    """Whether reading the batches again costs nothing: they are in memory, on the device."""
    return isinstance(batches, tuple | list) and all(
        tensor.device == device for batch in batches for tensor in _leaves(batch) if isinstance(tensor, Tensor)
    )


def fingerprint_of_batches(batches: Iterable[Any]) -> str:
    """A short hash of the bits of all tensors, their shapes and order; of other things, what ``repr`` shows.

    How the examples are divided into batches counts too: it decides the order of sums.
    """
    digest = hashlib.blake2b(digest_size=16)
    for batch in batches:
        digest.update(b"batch")
        for leaf in _leaves(batch):
            if isinstance(leaf, Tensor):
                digest.update(f"{tuple(leaf.shape)} {leaf.dtype}".encode())
                digest.update(leaf.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
            else:
                digest.update(repr(leaf).encode() if isinstance(leaf, str | int | float | bytes | None) else b"object")
    return digest.hexdigest()


def _leaves(batch: Any) -> Iterator[Any]:
    if isinstance(batch, PackedSequence):
        yield from (batch.data, batch.batch_sizes)
        if batch.unsorted_indices is not None:
            yield batch.unsorted_indices
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield str(key)
            yield from _leaves(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from _leaves(value)
    else:
        yield batch
