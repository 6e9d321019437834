"""What the plots of flatness tables share: one quantity of a table, its label, and the scale of its axis."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from landscape.plots.captions import as_text

__all__ = ["QUANTITY", "check_columns", "quantity_axis", "quantity_label", "text_columns"]

QUANTITY = ("checkpoint", "split", "metric", "setting")

_LABEL = 32  # characters of an axis label below a panel three inches wide
_DECADE = 10.0  # a logarithmic axis where positive values span more


def check_columns(table: pd.DataFrame, columns: Sequence[str], called: str = "table") -> None:
    """Refuse a table without these columns, or without a row.

    Raises:
        ValueError: a column is missing, or there is no row.
    """
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(
            f"{called}: expected the columns {', '.join(columns)}, but {', '.join(missing)} is missing; "
            f"it has {', '.join(map(str, table.columns)) or 'none'}"
        )
    if table.empty:
        raise ValueError(f"{called}: expected at least one row, got none")


def text_columns(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """A copy with text in these columns, empty where CSV leaves a gap."""
    return table.assign(
        **{column: table[column].astype(object).where(table[column].notna(), "").astype(str) for column in columns}
    )


def quantity_label(quantity: Mapping[str, str], parts: Sequence[str] = ("metric",), width: int = _LABEL) -> str:
    """The metric with its setting, and on which split and checkpoint where ``parts`` say so; broken into lines."""
    setting = f" ({quantity['setting']})" if quantity["setting"] else ""
    where = [quantity[part] for part in ("split", "checkpoint") if part in parts and quantity[part]]
    label = f"{quantity['metric']}{setting}" + (f", {', '.join(where)}" if where else "")
    return "\n".join(as_text(row) for row in textwrap.wrap(label, width, break_long_words=False))


def quantity_axis(ax: Axes, values: np.ndarray) -> bool:
    """Set the horizontal axis for these values: logarithmic where all are positive and span more than a decade.

    Returns:
        Whether it is logarithmic.
    """
    finite = values[np.isfinite(values)]
    logarithmic = len(finite) > 0 and bool(finite.min() > 0) and bool(finite.max() / finite.min() > _DECADE)
    if not logarithmic:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
        return False
    ax.set_xscale("log")
    decades = np.log10(finite.max() / finite.min())
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if decades < 2 else (1.0,), numticks=5))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    return True
