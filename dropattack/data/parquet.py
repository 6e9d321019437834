"""Named columns of a Parquet file, or of the same data set on the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from dropattack.data.catalog import Entry

__all__ = ["Part", "checked_labels", "open_part", "stop"]

# What happens on a broken row: loading stops at the first; verification notes them all.
OnProblem = Callable[[str], object]


def stop(message: str) -> NoReturn:
    """Raise on the first problem.

    Raises:
        ValueError: always.
    """
    raise ValueError(message)


@dataclasses.dataclass(frozen=True)
class Part:
    """One file of a data set, or one split on the hub; nothing is read before it is asked for.

    Attributes:
        origin: what error messages call it: the file's path, or the name on the hub.
        path: the file; None for the hub.
        hub: name and split on the hub; None for a file.
    """

    origin: str
    path: Path | None = None
    hub: tuple[str, str] | None = None

    def checksum(self) -> str:
        """SHA-256 of the file's bytes; of the hub's split, its fingerprint there, which changes with its contents."""
        if self.path is None:
            return f"hub {self._hub_table._fingerprint}"
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def columns(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """The values of some columns, row by row.

        Raises:
            ValueError: not a Parquet file, a truncated one, or a column is missing.
        """
        table = self._hub_columns(names) if self.path is None else self._file_columns(self.path, names)
        return {name: table[name].to_pylist() for name in names}

    @functools.cached_property
    def _hub_table(self) -> Any:
        from datasets import Image, load_dataset

        assert self.hub is not None
        name, split = self.hub
        table = load_dataset(name, split=split)
        for column, feature in table.features.items():
            if isinstance(feature, Image):
                table = table.cast_column(column, Image(decode=False))
        return table

    def _hub_columns(self, names: Sequence[str]) -> Any:
        self._check_columns(names, self._hub_table.column_names)
        return self._hub_table.select_columns(list(names)).with_format("arrow")[:]

    def _file_columns(self, path: Path, names: Sequence[str]) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self._check_columns(names, pq.read_schema(path).names)
            return pq.read_table(path, columns=list(names))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path}: expected a Parquet file, but it cannot be read ({error})") from error

    def _check_columns(self, names: Sequence[str], found: Sequence[str]) -> None:
        for name in names:
            if name not in found:
                raise ValueError(f"{self.origin}: expected a column {name!r}, got {', '.join(found)}")


def open_part(entry: Entry, part: str, data_dir: Path | None) -> Part:
    """A part of a data set in a folder, or on the hub where no folder is given.

    Raises:
        FileNotFoundError: the file is missing, or the data set is not on the hub.
    """
    if data_dir is None:
        if entry.hub is None:
            raise FileNotFoundError(
                f"{entry.folder} is not on the Hugging Face hub in a canonical form: give a data folder (--data-dir, "
                f"or DROPATTACK_DATA) that holds {entry.folder}/{part}.parquet, or the raw release below "
                f"{entry.folder}/"
            )
        return Part(f"{entry.hub} ({part})", hub=(entry.hub, part))
    path = data_dir / entry.folder / f"{part}.parquet"
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {path}: expected the data folder (--data-dir, or DROPATTACK_DATA) to hold "
            f"{entry.folder}/{part}.parquet"
        )
    return Part(str(path), path=path)


def checked_labels(labels: Sequence[Any], classes: int, origin: str, on_problem: OnProblem = stop) -> list[int]:
    """Labels that are classes; a row that is not is a problem, and gets class 0 if that does not raise."""
    checked = []
    for row, label in enumerate(labels):
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < classes:
            on_problem(f"{origin}, row {row}: expected a label from 0 to {classes - 1}, got {label!r}")
            label = 0
        checked.append(label)
    return checked
