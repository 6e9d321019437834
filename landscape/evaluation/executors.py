"""Where points are evaluated: worker processes here, or a Dask cluster. Any other executor works as well."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator

__all__ = ["chosen_executor", "dask_executor", "process_pool"]


def process_pool(workers: int | None = None) -> concurrent.futures.ProcessPoolExecutor:
    """Processes with one PyTorch thread each, which is the fastest way to use the cores for small models.

    They end when the process that made them does, even if it was killed.

    Args:
        workers: how many; None: one a core.
    """
    context = multiprocessing.get_context("spawn")  # a forked PyTorch may hang
    return concurrent.futures.ProcessPoolExecutor(
        workers or os.cpu_count() or 1, mp_context=context, initializer=_begin_worker
    )


@contextlib.contextmanager
def dask_executor(scheduler: str) -> Iterator[concurrent.futures.Executor]:
    """The workers of a running Dask scheduler; give each of them one thread (``dask worker --nthreads 1``).

    A worker that dies is no harm: the scheduler sends its points to another one. This package must be installed where
    the workers run.

    Args:
        scheduler: its address, such as ``tcp://10.0.0.1:8786``.

    Raises:
        ValueError: ``distributed`` is not installed, or nobody answers at the address.
    """
    try:
        import distributed
    except ImportError as error:
        raise ValueError("scheduler: needs Dask; pip install 'dropattack[dask]'") from error
    try:
        client = distributed.Client(scheduler)
    except (OSError, ValueError) as error:
        raise ValueError(f"scheduler: expected the address of a running one, got {scheduler!r} ({error})") from error
    with client, client.get_executor() as executor:
        yield executor


@contextlib.contextmanager
def chosen_executor(workers: int = 0, scheduler: str | None = None) -> Iterator[concurrent.futures.Executor | None]:
    """The executor of a command line.

    Args:
        workers: processes on this machine; 0: none, this process does the work.
        scheduler: address of a Dask scheduler instead.

    Raises:
        ValueError: both, or a negative number.
    """
    if scheduler is not None and workers:
        raise ValueError("workers and scheduler: expected one of the two, got both")
    if workers < 0:
        raise ValueError(f"workers: expected at least 0, got {workers}")
    if scheduler is not None:
        with dask_executor(scheduler) as executor:
            yield executor
    elif workers:
        with process_pool(workers) as executor:
            yield executor
    else:
        yield None


def _begin_worker() -> None:
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this, the workers of a killed process would go on, and wait for it forever."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
