"""What lies in a folder, and reading it; what is not there is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from landscape.report import Picture

__all__ = ["Kind", "kind_of", "picture", "read", "studies_in"]

Kind = Literal["results", "study", "run"]

# Any of these makes a folder that of a study: what dropattack study … --results and dropattack penalty write.
_OF_A_STUDY = (
    *("comparison.csv", "runs.csv", "tuning.csv", "epochs.csv", "study.toml", "verdicts.csv", "differences.csv"),
    *("surfaces.nc", "surface_differences.csv", "fair.csv"),
)
_ROOMS = ("", "flatness", "surfaces", "checks")


def kind_of(folder: Path) -> Kind:
    """What a folder holds.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing that a report could be about.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    if (folder / "config.json").is_file() and (folder / "history.csv").is_file():
        return "run"
    if _is_study(folder):
        return "study"
    if studies_in(folder):
        return "results"
    raise ValueError(
        f"{folder}: expected a run (config.json, history.csv), results of a study ({', '.join(_OF_A_STUDY[:5])}, …), "
        "or a folder of such results, got none of them; write some with dropattack study run FILE --results FOLDER"
    )


def studies_in(folder: Path) -> list[Path]:
    """The folders of studies in a folder of results, by name."""
    return sorted(inner for inner in folder.iterdir() if inner.is_dir() and _is_study(inner))


def read(file: Path, needed: Sequence[str] = ()) -> pd.DataFrame | None:
    """A table; None if it is not there or has no rows.

    Raises:
        ValueError: not a table, or without a column that is needed.
    """
    if not file.is_file():
        return None
    try:
        table = pd.read_csv(file)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: expected a table, got {error}; write it anew, or delete it") from error
    missing = [column for column in needed if column not in table]
    if missing:
        found = ", ".join(map(str, table.columns))
        raise ValueError(f"{file}: expected the column {missing[0]}, got {found}; write it anew, or delete it")
    return table if len(table) else None


def picture(
    places: Sequence[Path],
    name: str,
    alt: str,
    caption: str,
    draw: Callable[[], Any] | None = None,
    folded: bool = False,
) -> list[Picture]:
    """A stored picture, or one drawn from the tables; none where there is neither.

    Args:
        places: folders where it may be.
        name: of the file.
        alt: what it shows.
        caption: below it.
        draw: draws it; None: there is nothing to draw it from.
        folded: as for :class:`landscape.report.Picture`.
    """
    for place in places:
        if (place / name).is_file():
            return [Picture((place / name).read_bytes(), alt, caption, folded)]
    return [] if draw is None else [Picture(draw(), alt, caption, folded)]


def _is_study(folder: Path) -> bool:
    return any((folder / room / name).is_file() for room in _ROOMS for name in _OF_A_STUDY)
