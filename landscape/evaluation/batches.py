"""Batches of any structure: tuples, dictionaries, packed sequences, the batches of tokenizers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

__all__ = ["are_ready", "fingerprint_of_batches", "leaves", "moved"]


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
        tensor.device == device for batch in batches for tensor in leaves(batch) if isinstance(tensor, Tensor)
    )


def fingerprint_of_batches(batches: Iterable[Any]) -> str:
    """A short hash of the bits of all tensors and arrays, their shapes and order; of other objects, their type alone.

    How the examples are divided into batches counts too: it decides the order of sums.
    """
    digest = hashlib.blake2b(digest_size=16)
    for batch in batches:
        digest.update(b"\0batch")
        for leaf in leaves(batch):
            digest.update(b"\0")
            for part in _bytes(leaf):
                digest.update(part)
    return digest.hexdigest()


def _bytes(leaf: Any) -> Iterator[bytes]:
    if isinstance(leaf, Tensor):
        dense = leaf.detach().cpu()
        if dense.layout is not torch.strided:
            dense = dense.to_dense()
        if dense.is_quantized:
            dense = dense.dequantize()
        yield f"{leaf.layout} {tuple(leaf.shape)} {leaf.dtype}".encode()
        yield dense.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(leaf, np.ndarray | np.generic):
        yield f"{leaf.shape} {leaf.dtype}".encode()
        yield repr(leaf.tolist()).encode() if leaf.dtype.hasobject else leaf.tobytes()
    elif isinstance(leaf, str | int | float | bytes | None):
        yield repr(leaf).encode()
    else:
        yield type(leaf).__qualname__.encode()


def leaves(batch: Any) -> Iterator[Any]:
    """All that is neither a mapping nor a sequence, in order, and the keys of mappings."""
    if isinstance(batch, PackedSequence):
        yield from (batch.data, batch.batch_sizes)
        if batch.unsorted_indices is not None:
            yield batch.unsorted_indices
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield str(key)
            yield from leaves(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from leaves(value)
    else:
        yield batch
