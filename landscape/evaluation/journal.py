"""Points kept as they come, so that a killed job goes on where it stopped.

Beside the file of a surface, ``surface.nc``, lies ``surface.nc.points`` while it is made: a line of JSON that says what
the points belong to, and then one line for each point. A kill can tear the last line at most, which is then left out.
When the surface is complete its own file holds the points, and the journal is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from landscape.evaluation.values import Node, Values

__all__ = ["Identity", "Journal", "check_same"]

Identity = Mapping[str, Any]  # what points belong to: a word for each thing, and a value that JSON holds


class Journal:
    """The points of one surface, by coordinates.

    Args:
        path: of the surface's file; None: points are kept in memory only.
        identity: what the points belong to.

    Attributes:
        path: of the journal; None if nothing is kept.
        values: of each point.

    Raises:
        ValueError: the file belongs to something else; the message says what differs.
    """

    def __init__(self, path: Path | None, identity: Identity) -> None:
        self.values: dict[Node, Values] = {}
        self._identity = identity
        self._file: TextIO | None = None
        self.path = None if path is None else path.with_name(f"{path.name}.points")
        if self.path is not None and self.path.is_file():
            self._read(self.path)

    def close(self) -> None:
        """Close the file; what was added is on disk already."""
        if self._file is not None:
            self._file.close()

    def add(self, node: Node, values: Values) -> None:
        """Keep the values of a point; on disk when this returns."""
        self.values[node] = values
        if self.path is not None:
            if self._file is None:
                self._file = self._begun(self.path)
            self._write(self._file, {"at": node, "values": values})

    def delete(self) -> None:
        """Delete the file, as another one holds the points now."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _begun(self, path: Path) -> TextIO:
        is_new = not path.exists()
        file = path.open("a", encoding="utf-8")
        if is_new:
            self._write(file, {"identity": dict(self._identity)})
        return file

    @staticmethod
    def _write(file: TextIO, record: Mapping[str, Any]) -> None:
        file.write(json.dumps(record) + "\n")
        file.flush()

    def _read(self, path: Path) -> None:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            path.unlink()  # a kill while the first line was written
            return
        try:
            header, *records = (json.loads(line) for line in whole.decode().splitlines())
            found = dict(header["identity"])
            values = {tuple(record["at"]): record["values"] for record in records}
        except (KeyError, TypeError, ValueError) as error:  # what is no JSON or no text is a ValueError
            raise ValueError(f"{path} is damaged ({error}); delete it to start anew") from error
        check_same(path, found, self._identity)
        self.values |= values
        if len(whole) < len(content):  # torn by a kill: what is written next must begin on a line of its own
            with path.open("r+b") as file:
                file.truncate(len(whole))


def check_same(path: Path, found: Identity, expected: Identity) -> None:
    """Refuse points of other weights, data or settings.

    Args:
        path: where they are.
        found: what they belong to.
        expected: what they should belong to.

    Raises:
        ValueError: saying what differs.
    """
    expected = json.loads(json.dumps(expected))
    differing = [key for key in {**expected, **found} if found.get(key) != expected.get(key)]
    if differing:
        details = "; ".join(
            f"{key}: {_brief(found.get(key))} there, {_brief(expected.get(key))} here" for key in differing
        )
        raise ValueError(
            f"{path} belongs to other {', '.join(differing)} ({details}); delete it, or choose another path"
        )


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
