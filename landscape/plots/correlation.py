"""Flatness against generalization: each trained model as a point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.plots.captions import as_text, put_caption
from landscape.plots.looks import looks
from landscape.plots.quantities import QUANTITY, check_columns, quantity_axis, quantity_label, text_columns
from landscape.statistics import generalization_gaps, rank_correlations

__all__ = ["gap_panels", "gap_scatter"]

_COLUMNS = 3  # panels beside each other
_NEEDED = ("method", "training_seed", *QUANTITY, "value")
_TEXT = ("method", *QUANTITY)
_MODEL = ["method", "training_seed", "checkpoint"]
_GAPS = {"loss": "test loss − train loss", "accuracy": "train accuracy − test accuracy"}


def gap_scatter(
    table: pd.DataFrame,
    metric: str,
    setting: str,
    ax: Axes,
    split: str | None = None,
    checkpoint: str | None = None,
    gap: str = "loss",
    correlations: pd.DataFrame | None = None,
) -> Axes:
    """Draw one metric against the generalization gap: one color and marker a method, a point a training seed.

    The title has Kendall's τ over all of them, and the granulated ones.

    Args:
        table: tidy flatness table with rows on the splits ``"train"`` and ``"test"``.
        metric: which one.
        setting: as in the table.
        ax: where to draw.
        split: where the metric was measured; None: on the only split that has it.
        checkpoint: None: the only one.
        gap: ``"loss"`` or ``"accuracy"``.
        correlations: from :func:`landscape.statistics.rank_correlations`, with this gap; None: computed here.

    Returns:
        ``ax``.

    Raises:
        ValueError: missing columns, no such metric, several splits or checkpoints to choose from, or another gap.
    """
    check_columns(table, _NEEDED)
    _check_gap(gap)
    table = text_columns(table, _TEXT)
    quantity = _chosen(table, {"metric": metric, "setting": setting, "split": split, "checkpoint": checkpoint})
    if correlations is None:
        correlations = rank_correlations(table, gap)
    points = _points(table, quantity, gap)
    look = looks(dict.fromkeys(table["method"]))
    for method, of_method in points.groupby("method", sort=False):
        color, marker = look[str(method)]
        ax.plot(
            of_method["value"], of_method["gap"], linestyle="none", marker=marker, color=color, markersize=5.5,
            alpha=0.85, markeredgecolor="white", markeredgewidth=0.5, label=as_text(method),
        )  # fmt: skip
    quantity_axis(ax, points["value"].to_numpy(dtype=np.float64))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    ax.grid(alpha=0.3)
    ax.set(xlabel=quantity_label(quantity), ylabel=_GAPS[gap])
    ax.set_title(_title(_row(text_columns(correlations, QUANTITY), quantity, gap)), fontsize=7.5)
    return ax


def gap_panels(
    table: pd.DataFrame,
    gap: str = "loss",
    split: str | None = "train",
    checkpoint: str | None = None,
    heading: str | None = None,
) -> Figure:
    """One panel for each metric and setting, with a common vertical axis and one legend.

    Args:
        table: tidy flatness table with rows on the splits ``"train"`` and ``"test"``.
        gap: ``"loss"`` or ``"accuracy"``.
        split: where the metrics were measured.
        checkpoint: None: the only one.
        heading: of the figure.

    Raises:
        ValueError: as for :func:`gap_scatter`.
    """
    check_columns(table, _NEEDED)
    _check_gap(gap)
    table = text_columns(table, _TEXT)
    correlations = rank_correlations(table, gap)
    chosen = table if split is None else table[table["split"] == split]
    if checkpoint is not None:
        chosen = chosen[chosen["checkpoint"] == checkpoint]
    check_columns(chosen, _NEEDED, f"table on split {split!r} and checkpoint {checkpoint!r}")
    quantities = [(str(one[0]), str(one[1])) for one in chosen[["metric", "setting"]].drop_duplicates().to_numpy()]
    columns = min(_COLUMNS, len(quantities))
    rows = math.ceil(len(quantities) / columns)
    figure = Figure(figsize=(1.9 + 2.9 * columns, 0.7 + 2.8 * rows), layout="constrained", dpi=150)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for place, (ax, (metric, setting)) in enumerate(zip(axes, quantities, strict=False)):
        gap_scatter(table, metric, setting, ax, split, checkpoint, gap, correlations)
        if place % columns:
            ax.set_ylabel("")
    for ax in axes[len(quantities) :]:
        ax.remove()
    _legend(figure, list(axes[: len(quantities)]))
    put_caption(figure, _CAPTION, _where(chosen))
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure


_CAPTION = (
    "point: trained model   τ: Kendall's rank correlation over all of them, [95 % interval over methods]   "
    "p: whole methods exchanged, after Holm's correction   "
    "methods: mean of τ across methods, each training seed by itself   "
    "seeds: mean of τ across training seeds, each method by itself"
)


def _check_gap(gap: str) -> None:
    if gap not in _GAPS:
        raise ValueError(f"gap: expected 'loss' or 'accuracy', got {gap!r}")


def _chosen(table: pd.DataFrame, wanted: Mapping[str, str | None]) -> dict[str, str]:
    """The one quantity that is wanted."""
    known = table[list(QUANTITY)].drop_duplicates()
    found = known
    for part, value in wanted.items():
        if value is not None:
            found = found[found[part] == value]
    if found.empty:
        asked = ", ".join(f"{part} {value!r}" for part, value in wanted.items() if value is not None)
        have = "; ".join(", ".join(filter(None, map(str, one))) for one in known.to_numpy())
        raise ValueError(f"expected one of the table's quantities, {have}; got {asked}")
    if len(found) > 1:
        part = next(part for part in ("split", "checkpoint") if len(set(found[part])) > 1)
        choices = ", ".join(map(repr, dict.fromkeys(found[part])))
        raise ValueError(f"{part}: expected one of {choices} for {wanted['metric']}, got none; choose {part}=…")
    return {str(part): str(value) for part, value in found.iloc[0].items()}


def _points(table: pd.DataFrame, quantity: Mapping[str, str], gap: str) -> pd.DataFrame:
    is_quantity = np.logical_and.reduce([table[part] == value for part, value in quantity.items()])
    gaps = generalization_gaps(table)[[*_MODEL, f"{gap}_gap"]].rename(columns={f"{gap}_gap": "gap"})
    seeds = table["training_seed"].astype("Int64")
    return table.assign(training_seed=seeds)[is_quantity].merge(gaps, on=_MODEL, how="left")


def _row(correlations: pd.DataFrame, quantity: Mapping[str, str], gap: str) -> dict[str, float]:
    is_quantity = np.logical_and.reduce(
        [correlations[part] == value for part, value in [*quantity.items(), ("gap", gap)]]
    )
    if not is_quantity.any():
        raise ValueError(f"correlations: expected a row for {quantity['metric']} with gap {gap!r}, got none")
    row = correlations[is_quantity].iloc[0]
    return {name: float(row[name]) for name in _NUMBERS}


_NUMBERS = ("tau", "low", "high", "n", "missing", "p_holm", "psi_methods", "psi_seeds")


def _title(found: Mapping[str, float]) -> str:
    interval = f" [{_signed(found['low'])}, {_signed(found['high'])}]" if math.isfinite(found["low"]) else ""
    p_value = f"p = {found['p_holm']:.2g}; " if math.isfinite(found["p_holm"]) else ""
    missing = f" ({found['missing']:.0f} missing)" if found["missing"] else ""
    return (
        f"τ = {_signed(found['tau'])}{interval}, n = {found['n']:.0f}{missing}\n"
        f"{p_value}methods {_signed(found['psi_methods'])}, seeds {_signed(found['psi_seeds'])}"
    )


def _signed(number: float) -> str:
    return "none" if math.isnan(number) else f"{number:+.2f}".replace("-", "−")


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One entry for each method of any panel."""
    entries: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(str(label), handle)
    figure.legend(list(entries.values()), list(entries), loc="outside right upper", fontsize=8, frameon=False)


def _where(table: pd.DataFrame) -> str:
    common = [(part, table[part].iloc[0]) for part in ("split", "checkpoint") if len(set(table[part])) == 1]
    return "; ".join(f"{part}: {as_text(value)}" for part, value in common if value)
