"""How values are written in a table, and what the table is sorted by."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from landscape.report.parts import Badge, Cell, Column, Link, Table

__all__ = ["ShownCell", "ShownColumn", "shown_cell", "shown_columns", "shown_number", "shown_rows"]

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_TEXT, _SENTENCE = 24, 60  # letters; more are broken into lines
_MINUS = "\N{MINUS SIGN}"


class ShownCell(NamedTuple):
    """One cell.

    Attributes:
        text: what is shown.
        sort: what it is sorted by: a number as JavaScript reads it, or the text; empty: missing, goes last.
        is_number: whether ``sort`` is a number.
        tone: of a badge; empty: it is none.
        anchor: of a link; empty: it is none.
    """

    text: str
    sort: str
    is_number: bool = False
    tone: str = ""
    anchor: str = ""

    @property
    def needs_key(self) -> bool:
        """Whether the table can be sorted only if ``sort`` is written beside the text."""
        return self.sort != self.text


class ShownColumn(NamedTuple):
    """The head of a column.

    Attributes:
        heading: what is shown.
        unit: of its numbers.
        look: ``"number"`` where all cells that are not missing are numbers, which are sorted and aligned as such;
            ``"text"`` or ``"long"`` where a cell is so long that it may be broken into lines; empty otherwise.
    """

    heading: str
    unit: str
    look: str


def shown_number(value: float, spec: str = ".4g") -> str:
    """A number with a real minus sign, powers of ten written out, and ∞."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    mantissa, e, exponent = format(value, spec).partition("e")
    power = f" × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}" if e else ""
    return mantissa.replace("-", _MINUS) + power


def shown_cell(value: object, spec: str = ".4g") -> ShownCell:
    """One value of a table.

    Args:
        value: a number, text, a boolean, something missing, a badge, a link, or a cell.
        spec: of numbers that are not whole by their type.
    """
    if isinstance(value, Badge):
        return ShownCell(value.text, value.text, tone=value.tone)
    if isinstance(value, Link):
        return ShownCell(value.text, value.text, anchor=value.anchor)
    if isinstance(value, Cell):
        return ShownCell(value.text, _key(value.sort), is_number=True)
    if isinstance(value, bool | np.bool_):
        word = "yes" if value else "no"
        return ShownCell(word, word)
    if isinstance(value, numbers.Integral):
        return ShownCell(str(int(value)).replace("-", _MINUS), str(int(value)), is_number=True)
    if isinstance(value, numbers.Real) and not math.isnan(value):
        return ShownCell(shown_number(float(value), spec), _key(float(value)), is_number=True)
    if value is None or bool(pd.isna(value)):  # type: ignore[call-overload]
        return ShownCell("–", "")
    return ShownCell(str(value), str(value))


def shown_rows(table: Table) -> list[list[ShownCell]]:
    """All cells, row by row.

    Raises:
        ValueError: a column that the frame does not have.
    """
    columns = _columns(table)
    unknown = [column.name for column in columns if column.name not in table.frame]
    if unknown:
        known = ", ".join(map(str, table.frame.columns))
        raise ValueError(f"table {table.caption!r}: no column {unknown[0]!r}; the frame has {known}")
    shown = [[shown_cell(value, column.format) for value in table.frame[column.name]] for column in columns]
    return [list(row) for row in zip(*shown, strict=True)]


def shown_columns(table: Table, rows: Sequence[Sequence[ShownCell]]) -> list[ShownColumn]:
    """The heads of a table's columns.

    Args:
        table: whose.
        rows: of :func:`shown_rows`.
    """
    found = []
    for place, column in enumerate(_columns(table)):
        cells = [row[place] for row in rows if row[place].sort]
        longest = max((len(cell.text) for cell in cells), default=0)
        look = "long" if longest > _SENTENCE else "text" if longest > _TEXT else ""
        if cells and all(cell.is_number for cell in cells):
            look = "number"
        heading = column.name.replace("_", " ") if column.heading is None else column.heading
        found.append(ShownColumn(heading, column.unit, look))
    return found


def _columns(table: Table) -> Sequence[Column]:
    return [Column(str(name)) for name in table.frame.columns] if table.columns is None else table.columns


def _key(value: float) -> str:
    """As JavaScript's ``Number`` reads it, with more digits than a table shows; empty for NaN."""
    if math.isnan(value):
        return ""
    return format(value, ".7g") if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
