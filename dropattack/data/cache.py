"""Arrays that were expensive to make, kept on disk."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CACHE_VARIABLE", "Arrays", "cache_folder", "cached", "key_of"]

CACHE_VARIABLE = "DROPATTACK_CACHE"

Arrays = Mapping[str, NDArray[Any]]

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The folder that ``DROPATTACK_CACHE`` names, else ``~/.cache/dropattack``; it can be deleted at any time."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "dropattack"


def key_of(*parts: object) -> str:
    """A name for all that decides the contents of some arrays: checksums, settings and the version of the code."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()[:32]


def cached(name: str, key: str, make: Callable[[], Arrays], *, use: bool = True) -> Arrays:
    """The arrays called ``name`` and ``key``, from the cache folder or made now and kept there.

    A file that cannot be read whole is made anew. A folder that cannot be written costs time, not the result.

    Args:
        name: begins the file's name.
        key: from :func:`key_of`.
        make: makes the arrays.
        use: False leaves the folder alone.
    """
    if not use:
        return make()
    path = cache_folder() / f"{name}-{key}.npz"
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return {array: stored[array] for array in stored.files}  # reading to the end checks the CRC
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile) as error:
        _log.warning("%s: the cache file is broken (%s) and is made anew", path, error)
    arrays = make()
    try:
        _write(path, arrays)
    except OSError as error:
        _log.warning("%s: the cache file cannot be written (%s)", path, error)
    return arrays


def _write(path: Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
