"""Is a perturbation a gradient penalty? The measured rise of the loss beside the terms of its expansion."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from landscape.plots.captions import as_text, percent, put_caption
from landscape.plots.quantities import check_columns

__all__ = ["penalty", "penalty_panels"]

_COLUMNS = 3  # panels beside each other
_NEEDED = ("site", "epsilon", "quantity", "value", "low", "high", "n")
_RATIO = "rise / first_order"


class _Style(NamedTuple):
    label: str
    color: str
    line: str
    marker: str


# Okabe and Ito's colors, as in landscape.plots.looks; lines for what is computed, markers for what is measured.
_STYLES = {
    "eq_12": _Style("eq. 12: ε‖M∘g‖", "#CC79A7", ":", ""),
    "first_order": _Style("first order: ⟨g, r⟩", "#0072B2", "-", ""),
    "first_and_second_order": _Style("+ second order: ½ rᵀHr", "#E69F00", "--", ""),
    "random_rise": _Style("rise, random direction", "#009E73", "", "^"),
    "rise": _Style("rise, masked gradient", "#000000", "", "o"),
}


def penalty(
    summary: pd.DataFrame,
    ax: Axes,
    marks: Sequence[float] = (5.0,),
    tolerance: float = 0.1,
    title: str | None = None,
) -> Axes:
    r"""Draw one site of a penalty check: the rise of the loss against epsilon, both logarithmic.

    Points are measured (the mean over masks, or over random directions, with its interval; hollow: a fall, drawn at its
    size). Lines are the terms of the expansion; one that is negative is not drawn there. Shaded are the epsilons where
    the rise is within the tolerance of its first-order term, grey is what rounding hides. A triangle at the top is a
    rise that is not finite.

    Args:
        summary: from :func:`landscape.summarize_penalty`, one site.
        ax: where to draw.
        marks: vertical lines at these epsilons, such as the one that a model was trained with.
        tolerance: of the shading: largest distance of rise / first order from 1.
        title: None for none.

    Returns:
        ``ax``.

    Raises:
        ValueError: missing columns, or several sites or models.
    """
    check_columns(summary, _NEEDED, "summary")
    _check_one(summary)
    values = _by_quantity(summary, "value")
    ax.set(xscale="log", yscale="log", ylim=_vertical([values]), xlim=_horizontal([values]))
    _shade(ax, values, tolerance)
    for mark in marks:
        ax.axvline(mark, color="0.4", linewidth=1, linestyle="-.", zorder=0.5)
    lows, highs = (_by_quantity(summary, end) for end in ("low", "high"))
    for quantity, style in _STYLES.items():
        if quantity not in values:
            continue
        if style.line:
            shown = values[quantity].where(values[quantity] > 0)
            ax.plot(values.index, shown, style.line, color=style.color, linewidth=1.5, label=style.label)
        else:
            _draw_points(ax, values[quantity], lows[quantity], highs[quantity], style)
    ax.xaxis.set_major_locator(LogLocator(numticks=6))
    ax.yaxis.set_major_locator(LogLocator(numticks=7))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.3)
    ax.set(xlabel="ε", ylabel="change of the loss")
    if title is not None:
        ax.set_title(title, fontsize=9)
    return ax


def penalty_panels(
    summary: pd.DataFrame, marks: Sequence[float] = (5.0,), tolerance: float = 0.1, heading: str | None = None
) -> Figure:
    """One panel a site (and model, or setting), on common axes.

    Args:
        summary: from :func:`landscape.summarize_penalty`, any number of sites.
        marks: as for :func:`penalty`.
        tolerance: as for :func:`penalty`.
        heading: of the figure.

    Raises:
        ValueError: missing columns.
    """
    check_columns(summary, _NEEDED, "summary")
    keys = _keys(summary)
    groups = [group for _, group in summary.groupby(keys, sort=False, dropna=False)]
    columns = min(_COLUMNS, len(groups))
    rows = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(2.4 + 2.7 * columns, 0.8 + 2.4 * rows), layout="constrained", dpi=150)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for ax in axes[len(groups) :]:
        ax.remove()
    for place, (ax, group) in enumerate(zip(axes, groups, strict=False)):
        penalty(group, ax, marks, tolerance, _title(group, summary, keys))
        if place % columns:
            ax.set_ylabel("")
        if place + columns < len(groups):
            ax.set_xlabel("")
        else:
            ax.tick_params(axis="x", labelbottom=True)  # a panel of the last but one line may be the lowest
    all_values = [_by_quantity(group, "value") for group in groups]
    axes[0].set(ylim=_vertical(all_values), xlim=_horizontal(all_values))
    _legend(figure, list(axes[: len(groups)]))
    put_caption(figure, _caption(summary, marks, tolerance), _settings(summary, keys))
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure


def _keys(summary: pd.DataFrame) -> list[str]:
    """The columns that tell panels apart."""
    return [str(column) for column in summary.columns if column not in _NEEDED[1:]]


def _is_constant(column: pd.Series) -> bool:
    return len(column.drop_duplicates()) == 1


def _check_one(summary: pd.DataFrame) -> None:
    found = summary[_keys(summary)].drop_duplicates()
    if len(found) > 1:
        column = next(column for column in found if not _is_constant(found[column]))
        raise ValueError(
            f"one panel is one site of one model, got {len(found)}; choose "
            f"summary[summary[{column!r}] == {found[column].iloc[0]!r}], or draw penalty_panels"
        )
    if summary.duplicated(["epsilon", "quantity"]).any():
        raise ValueError("summary: expected one row for each epsilon and quantity, got several")


def _by_quantity(summary: pd.DataFrame, column: str) -> pd.DataFrame:
    return summary.pivot_table(
        index="epsilon", columns="quantity", values=column, aggfunc="first", sort=False, dropna=False
    ).sort_index()


def _vertical(panels: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """From half of what is smallest, or of the rounding noise if that is larger, to twice what is largest."""
    sizes = np.concatenate([values[[q for q in _STYLES if q in values]].abs().to_numpy().ravel() for values in panels])
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    noise = min((float(values["rise_noise"].min()) for values in panels if "rise_noise" in values), default=0.0)
    if not len(sizes):
        return (noise / 2, 100 * noise) if noise > 0 else (0.1, 10.0)
    low, high = max(float(sizes.min()), noise) / 2, 2 * float(sizes.max())
    return low, max(high, 10 * low)


def _horizontal(panels: Sequence[pd.DataFrame]) -> tuple[float, float]:
    epsilons = np.concatenate([values.index.to_numpy() for values in panels])
    return float(epsilons.min()) / 1.5, float(epsilons.max()) * 1.5


def _shade(ax: Axes, values: pd.DataFrame, tolerance: float) -> None:
    """Blue where the first order describes the rise, interpolated between epsilons; grey below the rounding noise."""
    noise = float(values["rise_noise"].iloc[0]) if "rise_noise" in values else 0.0
    if noise > 0:
        ax.axhspan(noise * 1e-9, noise, color="0.85", linewidth=0, zorder=0)
    if _RATIO not in values:
        return
    known = values["first_order"].abs() * tolerance >= noise
    ratios = values[_RATIO].where(known).to_numpy(dtype=np.float64)
    places = np.log(values.index.to_numpy(dtype=np.float64))
    dense = np.union1d(np.linspace(places[0], places[-1], 2001), places)
    within = np.abs(np.interp(dense, places, ratios) - 1) <= tolerance
    ax.fill_between(
        np.exp(dense), 0, 1, where=within, transform=ax.get_xaxis_transform(), color="#0072B2", alpha=0.1, linewidth=0,
        zorder=0,
    )  # fmt: skip


def _draw_points(ax: Axes, values: pd.Series, lows: pd.Series, highs: pd.Series, style: _Style) -> None:
    rows = zip(values.index, values, lows, highs, strict=True)
    bottom = ax.get_ylim()[0] * 1e-3  # an interval that holds zero goes on below the axis
    for epsilon, value, low, high in rows:
        if not math.isfinite(value):
            ax.plot(
                epsilon,
                0.97,
                "^",
                color=style.color,
                markersize=5,
                transform=ax.get_xaxis_transform(),
                gid="not finite",
            )
            continue
        if math.isfinite(low):
            ends = sorted((max(low, bottom), max(high, bottom)) if value >= 0 else (max(-high, bottom), -low))
            ax.plot([epsilon, epsilon], ends, color=style.color, linewidth=1.2, alpha=0.6)
    for sign, face in ((1, style.color), (-1, "white")):
        shown = (sign * values).where((sign * values > 0) & np.isfinite(values))
        ax.plot(
            values.index, shown, linestyle="none", marker=style.marker, color=style.color, markerfacecolor=face,
            markersize=5, label=style.label if sign > 0 else None,
        )  # fmt: skip


def _title(group: pd.DataFrame, summary: pd.DataFrame, keys: Sequence[str]) -> str:
    """The site, and what else tells panels apart."""
    others = [key for key in keys if key not in ("site", "kind") and not _is_constant(summary[key])]
    parts = [
        as_text(group["site"].iloc[0]),
        *(f"{key.replace('_', ' ')} {as_text(group[key].iloc[0])}" for key in others),
    ]
    return "\n".join(parts)


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    entries: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(str(label), handle)
    wanted = [style.label for style in reversed(_STYLES.values()) if style.label in entries]
    figure.legend([entries[label] for label in wanted], wanted, loc="outside right upper", fontsize=8, frameon=False)


def _caption(summary: pd.DataFrame, marks: Sequence[float], tolerance: float) -> str:
    parts = ["point: mean   bar: 95 % t interval over masks or directions   hollow: a fall"]
    parts.append(f"shaded: rise within {percent(tolerance)} of first order   grey: below rounding noise")
    if marks:
        parts.append(f"vertical: ε = {', '.join(f'{mark:g}' for mark in marks)}")
    if not np.isfinite(summary.loc[summary["quantity"].isin(["rise", "random_rise"]), "value"]).all():
        parts.append("▲ at the top: not finite")
    return "   ".join(parts)


def _settings(summary: pd.DataFrame, keys: Sequence[str]) -> str:
    """What all panels have in common."""
    same: Mapping[Hashable, object] = {key: summary[key].iloc[0] for key in keys if _is_constant(summary[key])}
    parts = []
    if "attack_probability" in same:
        parts.append(f"P(an entry is attacked) = {same['attack_probability']}")
    if "mask_then_normalize" in same:
        then_normalize = str(same["mask_then_normalize"]) == "True"
        parts.append("masked, then normalized" if then_normalize else "normalized, then masked")
    if str(same.get("relative_epsilon")) == "True":
        parts.append("ε relative to the norm of what is perturbed")
    masks = summary.loc[summary["quantity"] == "rise", "n"]
    directions = summary.loc[summary["quantity"] == "random_rise", "n"]
    parts += [
        f"{counts.iloc[0]:.0f} {what}"
        for counts, what in ((masks, "masks"), (directions, "random directions"))
        if len(counts)
    ]
    if "examples" in same:
        parts.append(f"{same['examples']:,} examples")
    if "seed" in same:
        parts.append(f"seed {same['seed']}")
    return "; ".join(parts)
