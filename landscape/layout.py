"""How points become the dataset of a surface, and how it gives them back."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr

from landscape.adaptive import Refined
from landscape.datasets import along_splits, assembled
from landscape.evaluation.values import SEPARATOR, Node, Values
from landscape.interpolation import DIMENSIONS, Interpolant, bounds_of, lattice_dimension, range_of

__all__ = ["adapted", "gridded", "points_of"]

_HELD_OUT = "held_out"


def gridded(values: Mapping[Node, Values], axes: Mapping[str, np.ndarray]) -> xr.Dataset:
    """The surface of which every point was evaluated, in row-major order."""
    surface = assembled(list(values.values()), axes)
    surface.attrs = {"evaluations": len(values), "converged": 1}
    return surface


def adapted(refined: Refined, known: Mapping[Node, Values], axes: Mapping[str, np.ndarray]) -> xr.Dataset:
    """The surface that is rendered from a refined lattice.

    Args:
        refined: the lattice.
        known: the values at all points that were evaluated. Those beside the fit tested it, now or at an earlier start.
        axes: where to render.
    """
    in_fit = set(
        itertools.compress(itertools.product(*map(np.ndarray.tolist, refined.axes)), refined.evaluated.ravel())
    )
    held_out = {node: known[node] for node in sorted(known.keys() - in_fit)}
    lattice = {lattice_dimension(name): axis for name, axis in zip(axes, refined.axes, strict=True)}
    splits: dict[str, dict[str, xr.Variable]] = {}
    for name, fit in refined.fits.items():
        split, _, column = name.rpartition(SEPARATOR)
        interpolant = Interpolant(refined.axes, fit.values, fit.form, bounds_of(column, fit.values))
        splits.setdefault(split, {}).update(
            {
                column: xr.Variable(tuple(axes), interpolant.on_grid(*axes.values())),
                f"node_{column}": xr.Variable(tuple(lattice), fit.values),
                f"{_HELD_OUT}_{column}": xr.Variable(_HELD_OUT, [row[split][column] for row in held_out.values()]),
                f"{column}_error_estimate": xr.Variable((), fit.error),
                f"{column}_transform": xr.Variable((), fit.form.transform),
                f"{column}_degree": xr.Variable((), fit.form.degree),
            }
        )
    places = np.array(list(held_out)).reshape(len(held_out), len(axes))
    coordinates = {f"{_HELD_OUT}_{name}": (_HELD_OUT, places[:, i]) for i, name in enumerate(axes)}
    surface = along_splits(
        {split: xr.Dataset(columns, coords=dict(axes) | lattice | coordinates) for split, columns in splits.items()}
    )
    surface["evaluated"] = (tuple(lattice), refined.evaluated)
    losses = [fit for name, fit in refined.fits.items() if name.endswith(f"{SEPARATOR}loss")]
    surface.attrs = {
        "evaluations": int(refined.evaluated.sum()) + len(held_out),
        "error_estimate": max(fit.error / range_of(fit.values) for fit in losses),
        "relative_error_estimate": refined.relative_error,
        "converged": int(refined.converged),
    }
    return surface


def points_of(surface: xr.Dataset) -> dict[Node, Values]:
    """The points of a surface that were evaluated: those of a grid, or the lattice and what was held out."""
    dimensions = [name for name in DIMENSIONS if name in surface.dims]
    if "evaluated" not in surface:
        nodes = itertools.product(*(surface[name].values.tolist() for name in dimensions))
        return _rows(surface, dict(enumerate(nodes)), "", dimensions)
    lattice = [lattice_dimension(name) for name in dimensions]
    places = itertools.product(*(surface[name].values.tolist() for name in lattice))
    evaluated = surface["evaluated"].transpose(*lattice).values.ravel()
    on_lattice = {i: node for i, node in enumerate(places) if evaluated[i]}
    held_out = zip(*(surface[f"{_HELD_OUT}_{name}"].values.tolist() for name in dimensions), strict=True)
    return _rows(surface, on_lattice, "node_", lattice) | _rows(
        surface, dict(enumerate(held_out)), f"{_HELD_OUT}_", [_HELD_OUT]
    )


def _rows(surface: xr.Dataset, nodes: Mapping[int, Node], prefix: str, dimensions: Iterable[str]) -> dict[Node, Values]:
    """Values at nodes, which are counted in row-major order of the dimensions, from the variables with a prefix."""
    dimensions = list(dimensions)
    columns = [
        str(name)
        for name, variable in surface.data_vars.items()
        if str(name).startswith(prefix) and set(dimensions) <= set(variable.dims) and name != "evaluated"
    ]
    found: dict[Node, Values] = {node: {} for node in nodes.values()}
    for split in surface["split"].values.tolist() if "split" in surface.dims else [""]:
        one = surface.sel(split=split) if split else surface
        values = {name.removeprefix(prefix): one[name].transpose(*dimensions).values.ravel() for name in columns}
        for i, node in nodes.items():
            found[node][split] = {column: float(flat_values[i]) for column, flat_values in values.items()}
    return found
