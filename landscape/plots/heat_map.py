"""All metrics of all methods against one baseline, as a table of colors."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from landscape.plots.captions import as_text, put_caption
from landscape.plots.quantities import check_columns, quantity_label, text_columns

__all__ = ["metric_heat_map", "metric_heat_map_panels"]

Color = Literal["ratio", "effect_size"]

_COLORS = "RdBu_r"  # diverging, color-blind safe; in grey the number's sign tells the side
_NEEDED = (
    *("checkpoint", "split", "metric", "setting", "method", "baseline"),
    *("low", "high", "p_holm", "smallest_p", "ratio", "effect_size", "converged"),
)
_TEXT = ("checkpoint", "split", "metric", "setting", "method", "baseline")
_LEVEL = 0.05  # of the corrected test
_LABEL = 40  # characters of a row's name


def metric_heat_map(
    differences: pd.DataFrame,
    ax: Axes,
    color: Color = "ratio",
    limit: float | None = None,
    rescaling: Mapping[str, str] | None = None,
) -> Axes:
    """Draw a cell for each metric (rows) and method (columns), white where there is no difference to the baseline.

    A frame marks cells whose interval excludes zero, an asterisk those with p < 0.05 after Holm's correction, a
    question mark those with a value that has not converged; cells without a number are hatched grey.

    Args:
        differences: from :func:`landscape.statistics.compare_methods`, of one checkpoint and split.
        ax: where to draw.
        color: ``"ratio"`` to the baseline, colored by its binary logarithm, or ``"effect_size"``.
        limit: magnitude of the strongest color: a binary logarithm, or an effect size. None: the largest of
            these cells.
        rescaling: metric to ``"unchanged"`` where rescaling weights, as ReLU and normalization layers allow without
            another function, leaves it alone. All others get a dagger. None: no dagger.

    Returns:
        ``ax``.

    Raises:
        ValueError: missing columns, another ``color``, several checkpoints, splits or baselines, or a cell twice.
    """
    table = _checked(differences, color)
    one = _only(table)
    norm = _norm(table, color, limit)
    names = [
        quantity_label({"metric": metric, "setting": setting}, width=_LABEL) + _dagger(metric, rescaling)
        for metric, setting in zip(table["metric"], table["setting"], strict=True)
    ]
    table = table.assign(row=names)
    rows, methods = (list(dict.fromkeys(table[name])) for name in ("row", "method"))
    shown = np.full((len(rows), len(methods)), np.nan)
    for cell in table.to_dict("records"):
        shown[rows.index(cell["row"]), methods.index(cell["method"])] = cell["shown"]
    ax.patch.set(facecolor="0.85", hatch="///", edgecolor="0.6")
    ax.pcolormesh(np.ma.masked_invalid(shown), norm=norm, cmap=_COLORS, edgecolors="white", linewidth=1.5)
    for cell in table.to_dict("records"):
        _mark(ax, rows.index(cell["row"]), methods.index(cell["method"]), cell, color, norm)
    ax.set_xticks(np.arange(len(methods)) + 0.5, [as_text(method) for method in methods], rotation=30, ha="right")
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows)
    ax.set_ylim(len(rows), 0)  # the first on top
    ax.tick_params(length=0, labelsize=8)
    ax.set_title(one, fontsize=9)
    return ax


def metric_heat_map_panels(
    differences: pd.DataFrame,
    color: Color = "ratio",
    rescaling: Mapping[str, str] | None = None,
    heading: str | None = None,
) -> Figure:
    """One heat map for each checkpoint and split, with common colors.

    Args:
        differences: from :func:`landscape.statistics.compare_methods`.
        color: as for :func:`metric_heat_map`.
        rescaling: likewise.
        heading: of the figure.

    Raises:
        ValueError: as for :func:`metric_heat_map`.
    """
    table = _checked(differences, color)
    norm = _norm(table, color, None)
    groups = [group for _, group in table.groupby(["checkpoint", "split"], sort=False)]
    rows = max(len(group[["metric", "setting"]].drop_duplicates()) for group in groups)
    width = 0.4 + 0.62 * table["method"].nunique()
    with mpl.rc_context({"hatch.linewidth": 0.5}):
        figure = Figure(figsize=(4.2 + (width + 0.3) * len(groups), 1.7 + 0.34 * rows), layout="constrained", dpi=150)
        axes = figure.subplots(1, len(groups), squeeze=False)[0]
        for ax, group in zip(axes, groups, strict=True):
            metric_heat_map(group, ax, color, norm.vmax, rescaling)
            if ax is not axes[0] and _row_names(ax) == _row_names(axes[0]):
                ax.set_yticklabels([])
    name = "ratio to" if color == "ratio" else "effect size against"
    bar = figure.colorbar(ScalarMappable(norm, _COLORS), ax=list(axes), shrink=0.9, pad=0.02)
    bar.set_label(f"{name} {as_text(table['baseline'].iloc[0])}", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    if color == "ratio":
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda exponent, _: f"×{2.0**exponent:.3g}"))
    put_caption(figure, _caption(table, color, rescaling))
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure


def _checked(differences: pd.DataFrame, color: Color) -> pd.DataFrame:
    if color not in ("ratio", "effect_size"):
        raise ValueError(f"color: expected 'ratio' or 'effect_size', got {color!r}")
    check_columns(differences, _NEEDED, "differences")
    table = text_columns(differences, _TEXT)
    baselines = list(dict.fromkeys(table["baseline"]))
    if len(baselines) > 1:
        raise ValueError(f"differences: expected one baseline, got {', '.join(baselines)}; draw one figure for each")
    values = table[color].to_numpy(dtype=np.float64)
    return table.assign(shown=np.log2(values) if color == "ratio" else values)


def _only(table: pd.DataFrame) -> str:
    """The panel's title: where its numbers were measured."""
    for part in ("checkpoint", "split"):
        found = list(dict.fromkeys(table[part]))
        if len(found) > 1:
            raise ValueError(
                f"one panel is one {part}, got {', '.join(map(repr, found))}; choose "
                f"differences[differences[{part!r}] == {found[0]!r}], or draw metric_heat_map_panels"
            )
    if table.duplicated(["metric", "setting", "method"]).any():
        twice = table[table.duplicated(["metric", "setting", "method"])].iloc[0]
        raise ValueError(
            f"differences: expected one row for each cell, got two of {twice['metric']}, {twice['method']}"
        )
    return ", ".join(as_text(table[part].iloc[0]) for part in ("split", "checkpoint") if table[part].iloc[0])


def _norm(table: pd.DataFrame, color: Color, limit: float | None) -> Normalize:
    if limit is not None and not limit > 0:
        raise ValueError(f"limit: expected a positive number, got {limit}")
    finite = np.abs(table["shown"].to_numpy(dtype=np.float64))
    finite = finite[np.isfinite(finite)]
    # A table without differences must not look like one with: at least a tenth more, or a small effect.
    least = 0.14 if color == "ratio" else 0.2
    largest = max(float(finite.max(initial=0.0)), least) if limit is None else limit
    return Normalize(-largest, largest)


def _dagger(metric: str, rescaling: Mapping[str, str] | None) -> str:
    return "" if rescaling is None or rescaling.get(metric) == "unchanged" else " †"


def _mark(ax: Axes, row: int, column: int, cell: Mapping[Hashable, object], color: Color, norm: Normalize) -> None:
    shown, low, high, p_holm = (float(str(cell[name])) for name in ("shown", "low", "high", "p_holm"))
    has_number = bool(np.isfinite(shown))
    number = "" if not has_number else f"{2.0**shown:.2f}" if color == "ratio" else f"{shown:+.1f}".replace("-", "−")
    excludes_zero = low > 0 or high < 0
    marks = ("*" if p_holm < _LEVEL else "") + ("" if str(cell["converged"]) == "True" else "?")
    is_strong = has_number and abs(norm(shown) - 0.5) > 0.34
    text = ax.text(
        column + 0.5, row + 0.5, number + marks, ha="center", va="center", fontsize=7,
        color="white" if is_strong else "black", fontweight="bold" if excludes_zero else "normal",
    )  # fmt: skip
    if not has_number:  # on the hatching, letters need a ground
        text.set_bbox({"facecolor": "0.85", "edgecolor": "none", "pad": 0.5})
    if excludes_zero:
        ax.add_patch(Rectangle((column + 0.03, row + 0.04), 0.94, 0.92, fill=False, edgecolor="black", linewidth=1.2))


def _row_names(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_yticklabels()]


def _caption(table: pd.DataFrame, color: Color, rescaling: Mapping[str, str] | None) -> str:
    parts = ["effect size: Cohen's d_z, Hedges-corrected"] if color == "effect_size" else []
    parts += ["frame: interval excludes zero", f"* p < {_LEVEL:g} after Holm's correction"]
    smallest = table["smallest_p"].to_numpy(dtype=np.float64)
    smallest = smallest[np.isfinite(smallest)]
    if len(smallest) and smallest.min() >= _LEVEL:
        parts[-1] += f" (cannot occur: so few pairs give p ≥ {smallest.min():.3g})"
    if not table["converged"].astype(str).eq("True").all():
        parts.append("? a value has not converged")
    if not np.isfinite(table["shown"].to_numpy(dtype=np.float64)).all():
        parts.append("hatched: no number")
    if rescaling is not None:
        parts.append("† changes when weights are rescaled and the function is not")
    return "   ".join(parts)
