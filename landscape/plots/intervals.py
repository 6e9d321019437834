"""Numeric read-outs with their intervals, a dot a model; and paired differences against zero."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.plots.captions import as_text, put_caption
from landscape.plots.looks import Look, looks

__all__ = ["difference_intervals", "readout_intervals", "readout_panels"]

_COLUMNS = 4  # read-outs beside each other
_LABEL = 30  # characters of an axis label below a panel three inches wide


def readout_intervals(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw one read-out: models below each other, a dot at the mean, a bar over the interval.

    Args:
        table: columns ``model``, ``readout``, ``value`` (the mean), ``low``, ``high`` and ``n``; one row a model.
        ax: where to draw.

    Returns:
        ``ax``.

    Raises:
        ValueError: missing columns, several read-outs, or several rows for one model.
    """
    _check(table, ("model", "readout", "value", "low", "high", "n"))
    readout = _only_readout(table)
    models = [str(model) for model in table["model"]]
    if len(set(models)) < len(models):
        raise ValueError(f"{readout}: expected one row for each model, got {', '.join(models)}{_hint(table)}")
    look = looks(models)
    for row, (model, value, low, high) in enumerate(
        zip(models, table["value"], table["low"], table["high"], strict=True)
    ):
        _interval(ax, row, value, low, high, look[model])
    _rows(ax, [f"{as_text(model)} (n = {n})" for model, n in zip(models, table["n"], strict=True)])
    ax.set_xlabel(_wrapped(readout))
    return ax


def difference_intervals(table: pd.DataFrame, ax: Axes, label: str = "difference") -> Axes:
    """Draw one paired difference beside a line at zero; the dot is hollow where the interval holds zero.

    Args:
        table: columns ``readout``, ``difference``, ``low``, ``high`` and ``n``; one row.
        ax: where to draw.
        label: of the row, such as ``"dropattack − standard"``.

    Returns:
        ``ax``.

    Raises:
        ValueError: missing columns, or several read-outs.
    """
    _check(table, ("readout", "difference", "low", "high", "n"))
    readout = _only_readout(table)
    if len(table) > 1:
        raise ValueError(
            f"{readout}: expected one row, the difference of one pair of models, got {len(table)}{_hint(table)}"
        )
    difference, low, high, n = (table[column].iloc[0] for column in ("difference", "low", "high", "n"))
    ax.axvline(0, color="0.4", linewidth=1, linestyle="--", zorder=0)
    _interval(ax, 0, difference, low, high, Look("black", "o"), hollow=not (low > 0 or high < 0))
    _rows(ax, [f"{as_text(label)} (n = {n})"])
    ax.set_xlabel(_wrapped(f"difference in {readout}"))
    return ax


def readout_panels(
    table: pd.DataFrame,
    differences: pd.DataFrame | None = None,
    label: str = "difference",
    interval: str = "interval",
    heading: str | None = None,
) -> Figure:
    """One panel a read-out, each on an axis of its own; below them, if given, the paired differences.

    Args:
        table: as for :func:`readout_intervals`, any number of read-outs.
        differences: as for :func:`difference_intervals`, a row for each of these read-outs.
        label: of the differences.
        interval: what the bars are, for the caption, such as ``"95 % t interval over direction pairs"``.
        heading: of the figure.

    Raises:
        ValueError: missing columns, or a read-out without its difference.
    """
    _check(table, ("model", "readout", "value", "low", "high", "n"))
    readouts = list(dict.fromkeys(table["readout"]))
    heights = [0.5 + 0.32 * table["model"].nunique()]
    if differences is not None:
        _check(differences, ("readout", "difference", "low", "high", "n"))
        missing = [str(readout) for readout in readouts if readout not in set(differences["readout"])]
        if missing:
            raise ValueError(f"differences: expected a row for each read-out, but {', '.join(missing)} is missing")
        heights.append(0.82)
    columns = min(_COLUMNS, len(readouts))
    blocks = math.ceil(len(readouts) / columns)
    size = (1.8 + 3.0 * columns, 0.9 + blocks * (sum(heights) + 0.5 * len(heights)))
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    axes = figure.subplots(blocks * len(heights), columns, squeeze=False, height_ratios=heights * blocks)
    for place in range(blocks * columns):
        block, column = divmod(place, columns)
        mine = axes[block * len(heights) : (block + 1) * len(heights), column]
        if place >= len(readouts):
            for ax in mine:
                ax.remove()
            continue
        readout_intervals(table[table["readout"] == readouts[place]], mine[0])
        if differences is not None:
            difference_intervals(differences[differences["readout"] == readouts[place]], mine[1], label)
    for row in axes:
        _label_once([ax for ax in row if ax.get_figure() is not None])
    hollow = "" if differences is None else "   dashed line: no difference   hollow: the interval holds zero"
    put_caption(figure, f"dot: mean   bar: {as_text(interval)}{hollow}")
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure


def _check(table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(
            f"table: expected the columns {', '.join(columns)}, but {', '.join(missing)} is missing; "
            f"it has {', '.join(map(str, table.columns)) or 'none'}"
        )
    if table.empty:
        raise ValueError("table: expected at least one row, got none")


def _only_readout(table: pd.DataFrame) -> str:
    readouts = list(dict.fromkeys(table["readout"]))
    if len(readouts) > 1:
        raise ValueError(
            f"one panel is one read-out, got {', '.join(map(str, readouts))}; "
            f"choose table[table['readout'] == {readouts[0]!r}], or draw readout_panels"
        )
    return str(readouts[0])


def _hint(table: pd.DataFrame) -> str:
    splits = list(dict.fromkeys(table["split"])) if "split" in table else []
    return f"; choose a split, as in table[table['split'] == {splits[0]!r}]" if len(splits) > 1 else ""


def _interval(ax: Axes, row: int, value: float, low: float, high: float, look: Look, hollow: bool = False) -> None:
    if not math.isfinite(value):
        ax.annotate(
            f"not finite ({value:g})", (0.5, row), xycoords=("axes fraction", "data"), ha="center", va="center",
            fontsize=8, color="0.35",
        )  # fmt: skip
        return
    if np.isfinite([low, high]).all():
        ax.plot([low, high], [row, row], color=look.color, linewidth=1.6, marker="|", markersize=8, markeredgewidth=1.6)
    ax.plot(
        value, row, marker=look.marker, color=look.color, markersize=7, linestyle="none",
        markerfacecolor="white" if hollow else look.color,
    )  # fmt: skip


def _rows(ax: Axes, labels: Sequence[str]) -> None:
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)  # the first on top
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 2.5, 5, 10]))
    ax.margins(x=0.08)
    ax.grid(axis="x", alpha=0.3)


def _wrapped(label: str) -> str:
    return "\n".join(as_text(row) for row in textwrap.wrap(label, _LABEL))


def _label_once(row: Sequence[Axes]) -> None:
    """Leave out the names of rows that the first panel has already."""
    first = [text.get_text() for text in row[0].get_yticklabels()]
    for ax in row[1:]:
        if [text.get_text() for text in ax.get_yticklabels()] == first:
            ax.set_yticklabels([])
