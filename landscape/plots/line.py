"""Loss along a line: a direction, the way between checkpoints, or a curve that connects two minima."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from landscape.plots.captions import as_text, axis_labels, made_how, put_caption
from landscape.plots.looks import Look, looks
from landscape.plots.scale import common_scale, logarithmic_axis

__all__ = ["line", "line_panels"]

Lines = xr.Dataset | Mapping[str, xr.Dataset]

Style = Literal["-", "--", ":", "-."]

_STYLES: dict[str, Style] = {"train": "-", "test": "--", "validation": ":"}
_GREY = "0.3"
_HANDLE, _CHARACTER, _ROW = 0.6, 0.065, 0.17  # sizes in the legend (inches)


def line(
    lines: Lines,
    ax: Axes,
    variable: str = "loss",
    second: str | None = None,
    logarithmic: bool | None = None,
    legend: bool = True,
) -> Axes:
    """Draw a quantity along a line: one color and marker a model, one line style a split.

    Training is solid, test dashed. Over a dimension ``pair`` (several directions) the mean is drawn, in a band of ± one
    standard deviation over the pairs; without one, in a band of ± ``<variable>_standard_error``, where there is such a
    variable. Where a value is not finite, the curve has a gap and a cross at the top. Markers tell models apart;
    there are more points than these.

    Args:
        lines: with dimension ``alpha`` or ``t``, and perhaps ``split`` and ``pair``, from :func:`landscape.loss_line`
            and its like; several models as a dictionary of names. The curve of a :class:`landscape.Connection` alone is
            drawn with the straight line beside it.
        ax: where to draw.
        variable: what to draw on the left axis.
        second: what to draw on an axis of its own on the right, such as ``"accuracy"``: thinner, with hollow markers.
        logarithmic: the left axis; None: where a loss that is positive spans a factor of 8.
        legend: above the axes.

    Returns:
        ``ax``.

    Raises:
        ValueError: dimensions that are not those of a line, or not the same line for all.
    """
    named = _named(lines)
    variables = [variable] if second is None else [variable, second]
    along = _along(named, variables)
    look = looks(named)
    if logarithmic is None:
        logarithmic = variable == "loss" and common_scale(named.values(), variable).logarithmic
    if logarithmic:
        logarithmic_axis(ax)
    for axes, quantity in zip([ax] if second is None else [ax, ax.twinx()], variables, strict=True):
        for row, (name, one) in enumerate(named.items()):
            _draw(one, axes, quantity, along, look[name], row, hollow=axes is not ax)
        _label(axes, quantity)
    ax.set_xlabel(axis_labels(next(iter(named.values())), [along])[0])
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    ax.grid(alpha=0.3)
    if legend:
        _legend(ax, _entries(named, variables, look, second))
    return ax


def line_panels(lines: Lines, variables: Sequence[str] | None = None, heading: str | None = None) -> Figure:
    """Several quantities of the same lines above each other, over one axis.

    Args:
        lines: as for :func:`line`.
        variables: None: the loss, and the accuracy if all lines have it.
        heading: of the figure.
    """
    named = _named(lines)
    if variables is None:
        both = all("accuracy" in one for one in named.values())
        variables = ("loss", "accuracy") if both else ("loss",)
    figure = Figure(figsize=(6.4, 0.9 + 2.7 * len(variables)), layout="constrained", dpi=150)
    axes = figure.subplots(len(variables), 1, sharex=True, squeeze=False)[:, 0]
    for ax, variable in zip(axes, variables, strict=True):
        line(named, ax, variable, legend=False)
        ax.label_outer()
    rows = _legend(axes[0], _entries(named, variables, looks(named)))
    figure.set_figheight(figure.get_figheight() + _ROW * rows)
    put_caption(figure, made_how(named, variables[0], "lines"))
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure


def _named(lines: Lines) -> dict[str, xr.Dataset]:
    """By name; a trained curve alone is shown beside the straight line that came with it."""
    if not isinstance(lines, xr.Dataset):
        return dict(lines)
    straight = {str(name): str(name).removeprefix("straight_") for name in lines if str(name).startswith("straight_")}
    if not straight:
        return {"": lines}
    return {"Bézier curve": lines, "straight line": lines[list(straight)].rename(straight)}


def _along(lines: Mapping[str, xr.Dataset], variables: Sequence[str]) -> str:
    if not lines:
        raise ValueError("lines: expected at least one, got none")
    found = set()
    for name, one in lines.items():
        for variable in variables:
            if variable not in one:
                raise ValueError(f"line {name!r} has no {variable!r}; it has {', '.join(map(str, one.data_vars))}")
            dims = [str(dim) for dim in one[variable].dims if dim not in ("split", "pair")] or ["none"]
            if dims not in (["alpha"], ["t"]):
                raise ValueError(
                    f"line {name!r}: expected one dimension, alpha or t (and split, pair), got {', '.join(dims)}; "
                    "choose along the others first, as in surface.sel(beta=0)"
                )
            found.add(dims[0])
    if len(found) > 1:
        raise ValueError(
            "lines along alpha and along t are not on one axis: line.rename(alpha='t') if they are the same"
        )
    return found.pop()


def _draw(line: xr.Dataset, ax: Axes, variable: str, along: str, look: Look, row: int, hollow: bool) -> None:
    for split, one in _splits(line):
        middle, spread = _middle_and_spread(one, variable)
        x, y = one[along].values, middle.values
        finite = np.isfinite(y)
        shown = np.where(finite, y, np.nan)
        ax.plot(
            x, shown, color=look.color, linestyle=_style(line, split), linewidth=1.0 if hollow else 1.8,
            marker=look.marker, markersize=5, markerfacecolor="white" if hollow else look.color,
            markevery=sorted({round(index) for index in np.linspace(0, len(x) - 1, 9)}),
        )  # fmt: skip
        if spread is not None:
            low, high = shown - spread.values, shown + spread.values
            ax.fill_between(x, low, high, color=look.color, alpha=0.2, linewidth=0)
        if not finite.all():
            top = np.full((~finite).sum(), 0.97 - 0.04 * row)
            ax.plot(x[~finite], top, "x", color=look.color, markersize=5, transform=ax.get_xaxis_transform())


def _middle_and_spread(line: xr.Dataset, variable: str) -> tuple[xr.DataArray, xr.DataArray | None]:
    values = line[variable]
    if "pair" in values.dims:
        several = values.sizes["pair"] > 1
        middle = values.mean("pair", skipna=False)
        return middle, values.std("pair", ddof=1, skipna=False) if several else None
    return values, line.get(f"{variable}_standard_error")


def _splits(line: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    if "split" not in line.dims:
        return [("", line)]
    return [(str(split), line.sel(split=split)) for split in line["split"].values]


def _style(line: xr.Dataset, split: str) -> Style:
    """Solid, dashed … : by the split's name if it is a usual one, else by its place."""
    names = [name for name, _ in _splits(line)]
    if all(name in _STYLES for name in names):
        return _STYLES[split]
    styles: tuple[Style, ...] = ("-", "--", ":", "-.")
    return styles[names.index(split) % len(styles)]


def _label(ax: Axes, variable: str) -> None:
    ax.set_ylabel("loss (nats)" if variable == "loss" else variable)
    if variable.endswith("accuracy"):
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))


def _entries(
    lines: Mapping[str, xr.Dataset], variables: Sequence[str], look: Mapping[str, Look], second: str | None = None
) -> list[tuple[Line2D | Patch, str]]:
    entries: list[tuple[Line2D | Patch, str]] = [
        (Line2D([], [], color=look[name].color, marker=look[name].marker, markersize=5), as_text(name))
        for name in lines
        if name
    ]
    styles = {split: _style(one, split) for one in lines.values() for split, _ in _splits(one) if split}
    entries += [(Line2D([], [], color=_GREY, linestyle=style), as_text(split)) for split, style in styles.items()]
    if second is not None:
        entries.append((Line2D([], [], color=_GREY, marker="o", markersize=5), f"{as_text(variables[0])} (left)"))
        hollow = Line2D([], [], color=_GREY, linewidth=1, marker="o", markersize=5, markerfacecolor="white")
        entries.append((hollow, f"{as_text(second)} (right)"))
    entries += [(Patch(color=_GREY, alpha=0.2, linewidth=0), text) for text in _bands(lines, variables)]
    if any(not np.isfinite(one[variable].values).all() for one in lines.values() for variable in variables):
        entries.append((Line2D([], [], color=_GREY, marker="x", linestyle="none", markersize=5), "not finite"))
    return entries


def _legend(ax: Axes, entries: Sequence[tuple[Line2D | Patch, str]]) -> int:
    """Above the axes, in as many columns as fit; returns the number of its rows."""
    if not entries:
        return 0
    lengths = [len(text) for _, text in entries]
    available = ax.bbox.width / ax.figure.dpi
    columns = next(
        (count for count in range(min(4, len(entries)), 1, -1) if _legend_width(lengths, count) <= available), 1
    )
    ax.legend(
        *zip(*entries, strict=True), ncols=columns, fontsize=8, frameon=False, loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
    )  # fmt: skip
    return math.ceil(len(entries) / columns)


def _legend_width(lengths: Sequence[int], columns: int) -> float:
    """In inches; Matplotlib fills one column after the other."""
    return sum(
        _HANDLE + _CHARACTER * max(int(length) for length in column)
        for column in np.array_split(np.array(lengths), columns)
    )


def _bands(lines: Mapping[str, xr.Dataset], variables: Sequence[str]) -> list[str]:
    texts: dict[str, None] = {}  # in order, each once
    for one in lines.values():
        for variable in variables:
            if _middle_and_spread(one, variable)[1] is not None:
                pairs = one[variable].sizes.get("pair")
                texts[f"± 1 sd over {pairs} pairs" if pairs else "± 1 standard error"] = None
    return list(texts)
