"""Flatness metrics by method: every training seed, the mean, and its interval."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.plots.captions import as_text, put_caption
from landscape.plots.looks import Look, looks
from landscape.plots.quantities import QUANTITY, check_columns, quantity_axis, quantity_label, text_columns
from landscape.statistics import Interval, mean_interval

__all__ = ["flatness_intervals", "flatness_panels"]

_COLUMNS = 3  # panels beside each other
_NEEDED = ("method", "training_seed", *QUANTITY, "value", "converged")
_TEXT = ("method", *QUANTITY)


def flatness_intervals(table: pd.DataFrame, ax: Axes, confidence: float = 0.95) -> Axes:
    """Draw one quantity: methods below each other, a faint dot a training seed, the mean with its t interval.

    The mean is hollow where a value has not converged. The axis is logarithmic where all values are positive and span
    more than a decade; an interval that goes on below half of the smallest value then ends in an arrowhead.

    Args:
        table: tidy flatness table of one checkpoint, split, metric and setting; any number of methods and seeds.
        ax: where to draw.
        confidence: of the interval over training seeds.

    Returns:
        ``ax``.

    Raises:
        ValueError: missing columns, several quantities, or several values of one model.
    """
    check_columns(table, _NEEDED)
    table = text_columns(table, _TEXT)
    quantity = _only(table)
    groups = {str(method): runs for method, runs in table.groupby("method", sort=False)}
    look = looks(groups)
    values = table["value"].to_numpy(dtype=np.float64)
    logarithmic = quantity_axis(ax, values)
    finite = values[np.isfinite(values)]
    lowest = float(finite.min()) / 2 if logarithmic else -math.inf
    labels = []
    for row, (method, runs) in enumerate(groups.items()):
        of_seeds = runs["value"].to_numpy(dtype=np.float64)
        interval = mean_interval(of_seeds, confidence)
        converged = runs["converged"].astype(str).eq("True").all()
        _draw_row(ax, row, of_seeds[np.isfinite(of_seeds)], interval, look[method], lowest, hollow=not converged)
        labels.append(f"{as_text(method)} (n = {interval.n})")
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)  # the first on top
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.08)
    ax.grid(axis="x", alpha=0.3)
    ax.set_xlabel(quantity_label(quantity))
    return ax


def flatness_panels(table: pd.DataFrame, confidence: float = 0.95, heading: str | None = None) -> Figure:
    """One panel for each checkpoint, split, metric and setting, on an axis of its own.

    Args:
        table: tidy flatness table.
        confidence: of the intervals.
        heading: of the figure.

    Raises:
        ValueError: missing columns, or several values of one model.
    """
    check_columns(table, _NEEDED)
    table = text_columns(table, _TEXT)
    groups = [group for _, group in table.groupby(list(QUANTITY), sort=False)]
    columns = min(_COLUMNS, len(groups))
    rows = math.ceil(len(groups) / columns)
    size = (1.6 + 3.0 * columns, 0.7 + rows * (0.75 + 0.32 * table["method"].nunique()))
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    differ = ["metric", *(part for part in ("split", "checkpoint") if len(set(table[part])) > 1)]
    for ax, group in zip(axes, groups, strict=False):
        flatness_intervals(group, ax, confidence)
        ax.set_xlabel(quantity_label(_only(group), differ))
    for ax in axes[len(groups) :]:
        ax.remove()
    _name_rows_once(list(axes[: len(groups)]), columns)
    put_caption(figure, _caption(table, confidence), _where(table, differ))
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure


def _only(table: pd.DataFrame) -> dict[str, str]:
    found = table[list(QUANTITY)].drop_duplicates().to_dict("records")
    if len(found) > 1:
        differing = [part for part in QUANTITY if len({one[part] for one in found}) > 1]
        choices = " & ".join(f"(table[{part!r}] == {found[0][part]!r})" for part in differing)
        raise ValueError(
            f"one panel is one quantity, got {len(found)}; choose table[{choices}], or draw flatness_panels"
        )
    if table.duplicated(["method", "training_seed"]).any():
        twice = table.loc[table.duplicated(["method", "training_seed"]), "method"].iloc[0]
        raise ValueError(
            f"{found[0]['metric']}: expected one value for each method and training seed, got two of {twice}"
        )
    return {str(part): str(value) for part, value in found[0].items()}


def _draw_row(
    ax: Axes, row: int, seeds: np.ndarray, interval: Interval, look: Look, lowest: float, hollow: bool
) -> None:
    ax.plot(seeds, np.full(len(seeds), row + 0.22), ".", color=look.color, alpha=0.55, markersize=5, markeredgewidth=0)
    if not math.isfinite(interval.value):
        ax.annotate(
            f"mean not finite ({interval.value:g})", (0.5, row), xycoords=("axes fraction", "data"), ha="center",
            va="center", fontsize=8, color="0.35",
        )  # fmt: skip
        return
    if math.isfinite(interval.low):
        _draw_bar(ax, row, max(interval.low, lowest), interval.high, look, cut=interval.low < lowest)
    ax.plot(
        interval.value, row, marker=look.marker, color=look.color, markersize=6, linestyle="none",
        markerfacecolor="white" if hollow else look.color,
    )  # fmt: skip


def _draw_bar(ax: Axes, row: int, low: float, high: float, look: Look, cut: bool) -> None:
    ax.plot([low, high], [row, row], color=look.color, linewidth=1.6, solid_capstyle="butt")
    ends = [(low, "<" if cut else "|"), (high, "|")]
    for end, marker in ends:
        ax.plot(end, row, marker=marker, color=look.color, markersize=5 if marker == "<" else 8, markeredgewidth=1.6)


def _name_rows_once(axes: list[Axes], columns: int) -> None:
    """Leave out the names of rows that the first panel of the line has already."""
    for place, ax in enumerate(axes):
        first = [text.get_text() for text in axes[place - place % columns].get_yticklabels()]
        if place % columns and [text.get_text() for text in ax.get_yticklabels()] == first:
            ax.set_yticklabels([])


def _caption(table: pd.DataFrame, confidence: float) -> str:
    parts = [
        "small dot: training seed",
        "large: mean",
        f"bar: {100 * confidence:g} % t interval over training seeds (arrowhead: it goes on)",
    ]
    if not table["converged"].astype(str).eq("True").all():
        parts.append("hollow: a value has not converged")
    return "   ".join(parts)


def _where(table: pd.DataFrame, differ: list[str]) -> str:
    """What all panels have in common, so that their labels leave it out."""
    common = [part for part in ("split", "checkpoint") if part not in differ and table[part].iloc[0]]
    return "; ".join(f"{part}: {as_text(table[part].iloc[0])}" for part in common)
