"""What runs on the workers of an executor.

A walk (model, data, directions) is large, and an executor says neither how many workers it has nor which of them a
task will reach. So a task carries the walk's key alone. A worker that does not hold that walk answers None, and the
task is sent again with the walk in it. Each worker thus receives a walk about once, also one that replaces a dead one.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import cloudpickle
import torch
from torch import Tensor

from landscape.evaluation.values import Node, Values

__all__ = ["Answer", "Parcel", "Walkable", "call", "packed", "work"]


class Walkable(Protocol):
    """What workers hold: inside ``begun()``, a function from points to their values."""

    def begun(self) -> AbstractContextManager[Callable[[Sequence[Node]], list[Values]]]:
        """Begin."""


class Answer(NamedTuple):
    """The values at each point of a task, and how long they took."""

    values: list[Values]
    seconds: float


class Parcel:
    """A walk on its way to other processes.

    It is packed with cloudpickle, so that losses and models that were defined in a notebook travel too. Only this
    process's own bytes are ever unpacked, never a file.

    Raises:
        TypeError: something in the walk cannot be packed.
    """

    def __init__(self, walk: Walkable) -> None:
        self.key = secrets.token_hex(8)
        self.packed = packed((os.getpid(), walk))


def packed(thing: object) -> bytes:
    """Something on its way to a worker of ours, in memory.

    Raises:
        TypeError: it cannot be packed.
    """
    stream = io.BytesIO()
    try:
        _Pickler(stream).dump(thing)
    except Exception as error:  # whatever an object's own pickling raises
        raise TypeError(
            f"the model, the data or the loss cannot be sent to another process ({error}); use executor=None"
        ) from error
    return stream.getvalue()


def call(task: bytes) -> Any:
    """On a worker: call a function without arguments, as :func:`packed` made it, and return what it returns."""
    failed: Exception | None = None
    try:
        return cloudpickle.loads(task)()
    except Exception as error:
        failed = error
    raise _sendable(failed)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it ships no types
    """Packs a tensor that is a part of a larger one (a batch of ``data.split(50)``) without the rest of it."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is Tensor and obj.layout is torch.strided and obj.untyped_storage().nbytes() > obj.nbytes:
            return obj.detach().clone(memory_format=torch.contiguous_format).__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return super().reducer_override(obj)


_held = threading.local()  # a thread pool's workers need a model each


def work(key: str, packed: bytes | None, nodes: Sequence[Node]) -> Answer | None:
    """The values at some points, or None if the walk of this key is not here and was not sent along."""
    if getattr(_held, "key", None) != key:
        if packed is None:
            return None
        _take(key, packed)
    start = time.perf_counter()
    failed: Exception | None = None
    try:
        with _held.begun() as values:
            found = values(nodes)
    except Exception as error:
        failed = error
    if failed is not None:
        raise _sendable(failed)
    return Answer(found, time.perf_counter() - start)


def _take(key: str, packed: bytes) -> None:
    _held.key = None
    if hasattr(_held, "stack"):
        _held.stack.close()
    _held.stack = contextlib.ExitStack()
    sender, walk = cloudpickle.loads(packed)
    if sender == os.getpid():  # a thread, whose process's random stream and mode are not ours for longer than a task
        with walk.begun():
            pass  # a walk that cannot begin is not held
        _held.begun = walk.begun
    else:
        torch.set_num_threads(1)
        values = _held.stack.enter_context(walk.begun())
        _held.begun = lambda: contextlib.nullcontext(values)
    _held.key = key


def _sendable(error: Exception) -> Exception:
    """The error; or its text, if a pool's plain pickle could not send it back, which would break the pool."""
    sent = io.BytesIO()
    pickler = pickle.Pickler(sent)
    pickler.dispatch_table = {}  # not what some libraries teach it, and the other process may not know
    try:
        pickler.dump(error)
        pickle.loads(sent.getvalue())  # noqa: S301 - our own bytes
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
