"""What runs on the workers of an executor.

A walk (model, data, directions) is large, and an executor says neither how many workers it has nor which of them a
task will reach. So a task carries the walk's key alone. A worker that does not hold that walk answers None, and the
task is sent again with the walk in it. Each worker thus receives a walk about once, also one that replaces a dead one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import cloudpickle
import torch

from landscape.totals import Node, Values

__all__ = ["Answer", "Parcel", "Walkable", "work"]


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
    """

    def __init__(self, walk: Walkable) -> None:
        self.key = secrets.token_hex(8)
        try:
            self.packed: bytes = cloudpickle.dumps((os.getpid(), walk))
        except Exception as error:  # whatever an object's own pickling raises
            raise TypeError(
                f"the model, the data or the loss cannot be sent to another process ({error}); use executor=None"
            ) from error


_held = threading.local()  # a thread pool's workers need a model each


def work(key: str, packed: bytes | None, nodes: Sequence[Node]) -> Answer | None:
    """The values at some points, or None if the walk of this key is not here and was not sent along."""
    if getattr(_held, "key", None) != key:
        if packed is None:
            return None
        _take(key, packed)
    start = time.perf_counter()
    values = _held.values(nodes)
    return Answer(values, time.perf_counter() - start)


def _take(key: str, packed: bytes) -> None:
    if hasattr(_held, "stack"):
        _held.key = None
        _held.stack.close()
    sender, walk = cloudpickle.loads(packed)
    if sender != os.getpid():
        torch.set_num_threads(1)  # one thread a process; a thread pool keeps the threads of its process
    _held.stack = contextlib.ExitStack()
    _held.values = _held.stack.enter_context(walk.begun())
    _held.key = key
