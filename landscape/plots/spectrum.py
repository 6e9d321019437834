"""How the eigenvalues of a curvature matrix are distributed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter

from landscape.plots.captions import as_text, put_caption
from landscape.plots.looks import looks
from landscape.plots.scale import only

__all__ = ["spectrum", "spectrum_panels"]

_COLUMNS = 2  # panels beside each other
_BULK = 0.9  # share of the eigenvalues within a twentieth of the largest magnitude, from which the axis is symlog
_FLOOR = 0.1  # of the height of one eigenvalue


def spectrum(density: xr.Dataset, ax: Axes, title: str | None = None, color: str | None = None) -> Axes:
    r"""Draw a spectral density on a logarithmic axis, with its interval over probes.

    The dashed line is the height of *one* eigenvalue, :math:`1 / (n \sigma \sqrt{2 \pi})` for n parameters and a
    Gaussian of standard deviation σ; below a tenth of it the axis ends. Ticks inside the axis are the smallest and the
    largest node of each probe. The eigenvalues are on a symlog axis where at least 90 % of them lie within 5 % of the
    largest magnitude, linear up to the Gaussian's width.

    Args:
        density: ``density``, ``density_low`` and ``density_high`` on (eigenvalue), ``node`` and ``weight`` on (probe,
            step); attributes ``matrix``, ``size`` (n) and ``bandwidth`` (σ).
        ax: where to draw.
        title: None for none.
        color: of the line; None: that of the first model.

    Returns:
        ``ax``.

    Raises:
        ValueError: missing variables or attributes, or no finite density.
    """
    _check(density)
    color = color or next(iter(looks([""]).values())).color
    single = _single(density)
    floor = _FLOOR * single
    values = only(density, "density", ["eigenvalue"], "density")
    eigenvalue = values["eigenvalue"].values
    low, high = (density[name].values for name in ("density_low", "density_high"))
    known = np.isfinite(low) & np.isfinite(high)
    ax.fill_between(
        eigenvalue, np.maximum(low, floor / 10), np.maximum(high, floor / 10), where=known, color=color, alpha=0.25,
        linewidth=0,
    )  # fmt: skip
    ax.plot(eigenvalue, np.maximum(values.values, floor / 10), color=color, linewidth=1.4)
    ax.axhline(single, color="0.4", linewidth=1, linestyle="--", zorder=0)
    smallest, largest = _extremes(density)
    for ends in (smallest, largest):
        ax.plot(
            ends, np.full(len(ends), 0.02), "|", transform=ax.get_xaxis_transform(), color="black", markersize=8,
            markeredgewidth=0.9,
        )  # fmt: skip
    ax.set_yscale("log")
    ax.set_ylim(floor, _top([density]))
    _horizontal([density], ax)
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.3)
    ax.set(xlabel=f"eigenvalue ({as_text(density.attrs['matrix'])})", ylabel="density")
    if title is not None:
        ax.set_title(title, fontsize=9)
    return ax


def spectrum_panels(densities: Mapping[str, xr.Dataset], heading: str | None = None) -> Figure:
    """Several spectra on common axes.

    Args:
        densities: model name to what :func:`spectrum` draws.
        heading: of the figure.

    Raises:
        ValueError: none, or what :func:`spectrum` refuses.
    """
    if not densities:
        raise ValueError("densities: expected at least one, got none")
    ones = list(densities.values())
    for one in ones:
        _check(one)
    look = looks(densities)
    columns = min(_COLUMNS, len(ones))
    rows = math.ceil(len(ones) / columns)
    figure = Figure(figsize=(0.6 + 3.9 * columns, 0.8 + 2.5 * rows), layout="constrained", dpi=150)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for ax in axes[len(ones) :]:
        ax.remove()
    for place, (ax, (name, one)) in enumerate(zip(axes, densities.items(), strict=False)):
        spectrum(one, ax, _title(name, one), look[name].color)
        if place % columns:
            ax.set_ylabel("")
        if place + columns < len(ones):
            ax.set_xlabel("")
        else:
            ax.tick_params(axis="x", labelbottom=True)  # a panel of the last but one line may be the lowest
    axes[0].set_ylim(_FLOOR * min(map(_single, ones)), _top(ones))
    _horizontal(ones, axes[0])
    has_interval = any(np.isfinite(one["density_high"].values).any() for one in ones)
    shaded = "shaded: pointwise 95 % t interval over probes   " if has_interval else ""
    put_caption(figure, f"{shaded}dashed: height of one eigenvalue   ticks: extreme nodes", _made_how(densities))
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure


def _check(density: xr.Dataset) -> None:
    for name in ("density", "density_low", "density_high", "node", "weight"):
        if name not in density:
            raise ValueError(f"density: expected the variable {name!r}, got {', '.join(map(str, density.data_vars))}")
    if "matrix" not in density.attrs:
        raise ValueError("density: expected the attribute 'matrix', got none")
    for name in ("size", "bandwidth"):
        if not float(density.attrs.get(name, math.nan)) > 0:
            raise ValueError(f"density: expected a positive attribute {name!r}, got {density.attrs.get(name)}")
    if not np.isfinite(density["density"].values).any():
        raise ValueError("density: expected finite values, got none")


def _single(density: xr.Dataset) -> float:
    """The density at an eigenvalue that stands alone."""
    return 1 / (float(density.attrs["size"]) * float(density.attrs["bandwidth"]) * math.sqrt(2 * math.pi))


def _top(densities: Iterable[xr.Dataset]) -> float:
    values = np.concatenate([one[name].values for one in densities for name in ("density", "density_high")])
    return 2 * float(values[np.isfinite(values)].max())


def _extremes(density: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest node of each probe; an iteration that ended early has no node at its last steps."""
    nodes = only(density, "node", ["probe", "step"], "density").values
    nodes = nodes[np.isfinite(nodes).any(1)]
    return np.nanmin(nodes, axis=1), np.nanmax(nodes, axis=1)


def _horizontal(densities: Iterable[xr.Dataset], ax: Axes) -> None:
    """Limits and scale of the axis of eigenvalues, for all of these spectra."""
    ones = list(densities)
    low, high = (edge(float(edge(one["eigenvalue"].values)) for one in ones) for edge in (min, max))
    if any(map(_is_concentrated, ones)):
        threshold = 2 * min(float(one.attrs["bandwidth"]) for one in ones)
        ax.set_xscale("symlog", linthresh=threshold, linscale=0.6)
        ax.xaxis.set_major_locator(FixedLocator(_decades(low, high, threshold)))
        ax.xaxis.set_minor_formatter(NullFormatter())
        low, high = low - 0.15 * abs(low), high + 0.15 * abs(high)  # room for the ticks of the nodes
    else:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    ax.set_xlim(low, high)


def _decades(low: float, high: float, threshold: float) -> list[float]:
    """Zero, and powers of ten on both sides that lie well outside the linear part, at most four on either."""
    ticks = [0.0]
    for end, sign in ((low, -1), (high, 1)):
        exponents = range(math.ceil(math.log10(3 * threshold)), math.floor(math.log10(max(sign * end, threshold))) + 1)
        stride = max(1, math.ceil(len(exponents) / 4))
        ticks += [sign * 10.0**exponent for exponent in exponents[::stride]]
    return sorted(ticks)


def _is_concentrated(density: xr.Dataset) -> bool:
    nodes, weights = (only(density, name, ["probe", "step"], "density").values for name in ("node", "weight"))
    there = np.isfinite(nodes) & np.isfinite(weights)
    nodes, weights = np.abs(nodes[there]), weights[there]
    return bool(weights[nodes <= 0.05 * nodes.max()].sum() >= _BULK * weights.sum())


def _title(name: str, density: xr.Dataset) -> str:
    smallest, largest = _extremes(density)
    extremes = f"nodes {smallest.min():.3g} to {largest.max():.3g}".replace("-", "−")
    missed = "" if _converged(density) else "   NOT CONVERGED"
    return f"{as_text(name)}\n{extremes}{missed}"


def _converged(density: xr.Dataset) -> bool:
    return bool(density.attrs.get("converged", 0))


def _made_how(densities: Mapping[str, xr.Dataset]) -> str:
    """What the spectra have in common, and where they differ."""
    ones = list(densities.values())
    parts = [
        "stochastic Lanczos quadrature",
        *(_shared(ones, *fact) for fact in _FACTS),
    ]
    missed = [as_text(name) for name, one in densities.items() if not _converged(one)]
    if missed:
        parts.append("NOT CONVERGED" if len(missed) == len(ones) else f"NOT CONVERGED: {', '.join(missed)}")
    return "; ".join(part for part in parts if part)


# Attribute, how its value is written, and the words around the values.
_FACTS = (
    ("matrix", "{}", "", ""),
    ("size", "{:,}", "", " parameters"),
    ("examples", "{:,}", "", " examples"),
    ("probes", "{}", "", " probes"),
    ("steps", "{}", "", " steps"),
    ("products", "{:,}", "", " products"),
    ("bandwidth", "{:.2g}", "Gaussian of standard deviation ", ""),
    ("seed", "{}", "seed ", ""),
)


def _shared(densities: Iterable[xr.Dataset], name: str, form: str, before: str, after: str) -> str:
    found = list(dict.fromkeys(form.format(one.attrs[name]) for one in densities if name in one.attrs))
    return f"{before}{' / '.join(found)}{after}" if found else ""
