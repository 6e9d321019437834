"""Columns of tables as the sections write them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from landscape.report import Cell, Column, shown_number

__all__ = ["cells", "filled", "interval_cell", "interval_cells", "per_cent"]


def interval_cell(low: float, high: float, spec: str) -> Cell:
    """An interval, sorted by its lower end; a dash without one."""
    if math.isnan(low + high):
        return Cell("–", math.nan)
    return Cell(f"{shown_number(low, spec)} to {shown_number(high, spec)}", low)


def interval_cells(table: pd.DataFrame, spec: str) -> pd.Series:
    """The intervals from the columns ``low`` and ``high``."""
    return cells(table, (interval_cell(*ends, spec) for ends in zip(table["low"], table["high"], strict=True)))


def cells(table: pd.DataFrame, values: Iterable[object]) -> pd.Series:
    """A column for a table, of anything that a report can show."""
    return pd.Series(list(values), index=table.index, dtype=object)


def filled(table: pd.DataFrame, columns: Sequence[Column]) -> list[Column]:
    """Those columns that the table has, and not only as missing values."""
    return [column for column in columns if column.name in table and not table[column.name].isna().all()]


def per_cent(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its accuracies as percentages."""
    shares = [str(name) for name in table if str(name).endswith("_accuracy")]
    return table.assign(**{name: 100 * table[name] for name in shares})
