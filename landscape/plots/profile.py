"""The loss over the distance from the center: what many surfaces have in common, in one curve a model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.plots.captions import as_text, put_caption
from landscape.plots.looks import looks

__all__ = ["profile", "profile_panels"]

_LABELS = {"loss": "mean loss on the circle (nats)", "loss_rise": "rise of the mean loss (nats)"}


def profile(bands: Mapping[str, xr.Dataset], ax: Axes, variable: str = "loss_rise") -> Axes:
    """One line a model, with its interval as a band; lines differ in color, marker and dash.

    Args:
        bands: model name to a profile from :func:`landscape.radial_profile_band`, with the dimension ``radius`` alone.
        ax: where to draw.
        variable: ``"loss_rise"``, ``"loss"``, or a metric.

    Returns:
        ``ax``.
    """
    for number, (name, look) in enumerate(looks(bands).items()):
        band = bands[name]
        radius = band["radius"].values
        ax.fill_between(
            radius, band[f"{variable}_low"].values, band[f"{variable}_high"].values,
            color=look.color, alpha=0.18, linewidth=0,
        )  # fmt: skip
        ax.plot(
            radius, band[variable].values, color=look.color, linestyle=("-", "--", "-.", ":")[number % 4],
            marker=look.marker, markersize=4, markevery=max(1, len(radius) // 8), label=as_text(name),
        )  # fmt: skip
    ax.set(xlabel="distance from the center (filter norms)", ylabel=_LABELS.get(variable, variable))
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8, frameon=False)
    return ax


def profile_panels(
    panels: Mapping[str, Mapping[str, xr.Dataset]],
    heading: str | None = None,
    variable: str = "loss_rise",
    columns: int | None = None,
) -> Figure:
    """Several comparisons side by side; those in one row share their vertical axis.

    Args:
        panels: title to what :func:`profile` draws there.
        heading: of the figure.
        variable: as for :func:`profile`.
        columns: panels in a row; None: all in one.
    """
    columns = columns or len(panels)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns + 0.4, 3.6 * rows + 0.6), layout="constrained", dpi=150)
    axes = figure.subplots(rows, columns, sharex=True, sharey="row", squeeze=False).ravel()
    for ax, (title, bands) in zip(axes, panels.items(), strict=False):
        profile(bands, ax, variable)
        ax.set_title(as_text(title), fontsize=10)
        ax.label_outer()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    drawn = [band for each in panels.values() for band in each.values()]
    has_interval = any(np.isfinite(band[f"{variable}_low"].values).any() for band in drawn)
    confidence = drawn[0].attrs.get("confidence", 0.95)
    put_caption(figure, f"bands: {confidence:.0%} intervals of the mean" if has_interval else "no interval")
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure
