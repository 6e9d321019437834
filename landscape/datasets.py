"""Datasets of what was found along directions: their making, their files."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from landscape.evaluation.values import Values
from landscape.evaluation.walk import Walk
from landscape.files import replaced
from landscape.interpolation import DIMENSIONS
from landscape.parameters import fingerprint, inner_product, norm

__all__ = [
    "along_splits",
    "assembled",
    "attributes_of",
    "center_of",
    "grid_axes",
    "open_surface",
    "with_center",
    "write",
]


def grid_axes(spans: Sequence[float], counts: Sequence[int]) -> dict[str, np.ndarray]:
    """Coordinates from minus to plus each span.

    Raises:
        ValueError: a span that is not positive, or fewer than two points.
    """
    axes = {}
    for name, span, count in zip(DIMENSIONS, spans, counts, strict=False):
        if not (np.isfinite(span) and span > 0):
            raise ValueError(f"span: expected a positive number for {name}, got {span}")
        if count < 2 or count != int(count):
            raise ValueError(f"points: expected a whole number of at least 2 along {name}, got {count}")
        # Built from the middle outwards, so that center and ends are exact and the axis is exactly symmetric.
        half = (count - 1) / 2
        axes[name] = span * ((np.arange(count) - half) / half)
    return axes


def assembled(values: Sequence[Values], coordinates: Mapping[str, np.ndarray]) -> xr.Dataset:
    """A variable for each column, on the product of the coordinates in row-major order; ``split`` first if named."""
    shape = tuple(len(each) for each in coordinates.values())
    dimensions = tuple(coordinates)
    return along_splits(
        {
            split: xr.Dataset(
                {
                    column: (dimensions, np.array([value[split][column] for value in values]).reshape(shape))
                    for column in columns
                },
                coords=dict(coordinates),
            )
            for split, columns in values[0].items()
        }
    )


def along_splits(datasets: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """One dataset of several splits; the split ``""`` has no dimension."""
    named = [data.expand_dims({"split": [split]} if split else {}) for split, data in datasets.items()]
    return xr.concat(named, "split") if len(named) > 1 else named[0]


def attributes_of(walk: Walk) -> dict[str, Any]:
    """What every result says of its making: directions, center, examples, options, versions."""
    about = [dict(getattr(direction, "about", {})) for direction in walk.directions]
    shared = {key: about[0][key] for key in about[0] if all(one.get(key) == about[0][key] for one in about)}
    center = walk.first.parameters() | dict(walk.center or {})
    attributes: dict[str, Any] = {
        "center_fingerprint": fingerprint(center),
        "center_norm": norm(center),
        "direction_norms": [norm(direction) for direction in walk.directions],
        "examples": [risk.count for risk in walk.risks.values()],
        "directions": json.dumps(about),
        "torch": str(torch.__version__),
        "landscape": importlib.metadata.version("dropattack"),
    }
    options = {split: risk.options for split, risk in walk.risks.items()}
    for key in dict.fromkeys(itertools.chain.from_iterable(options.values())):
        words = {split: found.get(key, "all as it is") for split, found in options.items()}
        shared_word = set(words.values())
        attributes[key] = shared_word.pop() if len(shared_word) == 1 else "; ".join(map(": ".join, words.items()))
    for key in ("seed", "normalization", "reference"):
        if key in shared:
            attributes[key] = shared[key]
    if "ignored" in shared:
        attributes["ignored"] = ", ".join(shared["ignored"])
    if len(walk.directions) == 2:
        lengths = math.prod(attributes["direction_norms"])
        attributes["direction_cosine"] = inner_product(*walk.directions) / lengths if lengths else math.nan
    return attributes


def with_center(surface: xr.Dataset, center: Values) -> xr.Dataset:
    """The surface, with ``center_loss`` and ``center_<metric>``."""
    at_center = along_splits(
        {
            split: xr.Dataset({f"center_{k}": number for k, number in columns.items() if k != "loss_standard_error"})
            for split, columns in center.items()
        }
    )
    return surface.merge(at_center, combine_attrs="override")


def center_of(surface: xr.Dataset) -> Values:
    """The values at the center of a surface."""
    names = [str(name) for name in surface.data_vars if str(name).startswith("center_")]
    splits = surface["split"].values.tolist() if "split" in surface.dims else [""]
    return {
        split: {
            name.removeprefix("center_"): float(surface[name].sel(split=split) if split else surface[name])
            for name in names
        }
        for split in splits
    }


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset as netCDF, atomically."""
    with replaced(path) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf")


def open_surface(path: str | Path) -> xr.Dataset:
    """Read what ``path=`` wrote, into memory.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a netCDF file, or without a loss.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no surface {path}")
    try:
        surface = xr.load_dataset(path, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is truncated or not a netCDF file ({error})") from error
    if "loss" not in surface:
        raise ValueError(f"{path}: expected a variable 'loss', got {', '.join(map(str, surface.data_vars))}")
    return surface
