"""Loss lines and loss surfaces: the risk on a grid of points around the center."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from landscape.parameters import fingerprint, inner_product, norm
from landscape.risk import EmpiricalRisk, RiskValue

__all__ = ["loss_line", "loss_surface", "open_surface"]

Risks = EmpiricalRisk | Mapping[str, EmpiricalRisk]


def loss_surface(
    risk: Risks,
    directions: Sequence[Mapping[str, Tensor]],
    span: float | tuple[float, float] = 1.0,
    points: int | tuple[int, int] = 51,
    method: str = "grid",
    path: str | Path | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""The risk :math:`L(\theta^* + \alpha d_1 + \beta d_2)` on a grid, every point evaluated.

    Args:
        risk: what to evaluate, or a dictionary such as ``{"train": …, "test": …}`` of risks of one model; these share
            one walk over the points.
        directions: two of them, from :func:`landscape.random_directions`.
        span: alpha runs from ``-span`` to ``span``, and beta too; or one span for each.
        points: along each axis, or one number for each; odd numbers have the center on the grid.
        method: ``"grid"``.
        path: also write the result there as netCDF, atomically.
        progress: show a progress bar on standard error.

    Returns:
        A dataset with dimensions ``alpha`` and ``beta`` (before them ``split``, if risks were named): ``loss``,
        ``loss_standard_error`` and each metric; ``center_loss`` and ``center_<metric>``, evaluated at the center
        itself. Losses that are not finite are kept. ``attrs`` say how it was made.

    Raises:
        ValueError: not two directions, a span that is not positive, too few points, or risks of different models.
    """
    if method != "grid":
        raise ValueError(f"method: expected 'grid', got {method!r}")
    if len(directions) != 2:
        raise ValueError(f"directions: a surface takes two, got {len(directions)}")
    spans = span if isinstance(span, tuple) else (span, span)
    counts = points if isinstance(points, tuple) else (points, points)
    axes = {"alpha": (spans[0], counts[0]), "beta": (spans[1], counts[1])}
    return _grid(risk, directions, axes, path, progress)


def loss_line(
    risk: Risks,
    direction: Mapping[str, Tensor],
    span: float = 1.0,
    points: int = 51,
    path: str | Path | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The risk along one direction; arguments and result as for :func:`loss_surface`, with one dimension ``alpha``."""
    return _grid(risk, [direction], {"alpha": (span, points)}, path, progress)


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


def _grid(
    risk: Risks,
    directions: Sequence[Mapping[str, Tensor]],
    axes: Mapping[str, tuple[float, int]],
    path: str | Path | None,
    progress: bool,
) -> xr.Dataset:
    risks = dict(risk) if isinstance(risk, Mapping) else {"": risk}
    first = _common_model(risks)
    coordinates = {name: _axis(name, span, count) for name, (span, count) in axes.items()}
    shape = tuple(len(values) for values in coordinates.values())
    nodes = list(itertools.product(*coordinates.values()))
    examples = {split: each.count for split, each in risks.items()}
    attributes = _attributes(directions, first.parameters(), examples) | {"evaluations": len(nodes)}
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)  # before the long part, not after it
    at_center = {split: each() for split, each in risks.items()}
    values: dict[str, list[RiskValue]] = {split: [] for split in risks}
    with first.along(directions) as move, tqdm(nodes, desc="surface", unit="point", disable=not progress) as bar:
        for node in bar:
            move(node)
            for split, each in risks.items():
                values[split].append(each())
    datasets = [
        _dataset(found, at_center[split], coordinates, shape).expand_dims({"split": [split]} if split else {})
        for split, found in values.items()
    ]
    surface = xr.concat(datasets, "split") if len(datasets) > 1 else datasets[0]
    surface.attrs = attributes
    if path is not None:
        _write(surface, Path(path))
    return surface


def _dataset(
    values: Sequence[RiskValue], center: RiskValue, coordinates: Mapping[str, np.ndarray], shape: tuple[int, ...]
) -> xr.Dataset:
    dims = tuple(coordinates)
    columns = {
        "loss": [value.loss for value in values],
        "loss_standard_error": [value.standard_error for value in values],
    } | {metric: [value.metrics[metric] for value in values] for metric in center.metrics}
    at_center = {"center_loss": center.loss} | {f"center_{name}": value for name, value in center.metrics.items()}
    return xr.Dataset(
        {name: (dims, np.asarray(column).reshape(shape)) for name, column in columns.items()}
        | {name: ((), value) for name, value in at_center.items()},
        coords=dict(coordinates),
    )


def _axis(name: str, span: float, count: int) -> np.ndarray:
    if not (np.isfinite(span) and span > 0):
        raise ValueError(f"span: expected a positive number for {name}, got {span}")
    if count < 2 or count != int(count):
        raise ValueError(f"points: expected a whole number of at least 2 along {name}, got {count}")
    # Built from the middle outwards, so that center and ends are exact and the axis is exactly symmetric.
    half = (count - 1) / 2
    return span * ((np.arange(count) - half) / half)


def _common_model(risks: Mapping[str, EmpiricalRisk]) -> EmpiricalRisk:
    if not risks:
        raise ValueError("risk: expected at least one, got an empty dictionary")
    first = next(iter(risks.values()))
    for split, risk in risks.items():
        if risk.model is not first.model:
            raise ValueError(f"risk {split!r} has another model: one walk over the points moves one model")
    return first


def _attributes(
    directions: Sequence[Mapping[str, Tensor]], center: Mapping[str, Tensor], examples: Mapping[str, int]
) -> dict[str, Any]:
    about = [dict(getattr(direction, "about", {})) for direction in directions]
    shared = {key: about[0][key] for key in about[0] if all(one.get(key) == about[0][key] for one in about)}
    attributes: dict[str, Any] = {
        "method": "grid",
        "converged": 1,
        "center_fingerprint": fingerprint(center),
        "center_norm": norm(center),
        "direction_norms": [norm(direction) for direction in directions],
        "examples": list(examples.values()),
        "directions": json.dumps(about),
        "torch": str(torch.__version__),
        "landscape": importlib.metadata.version("dropattack"),
    }
    for key in ("seed", "normalization", "reference"):
        if key in shared:
            attributes[key] = shared[key]
    if "ignored" in shared:
        attributes["ignored"] = ", ".join(shared["ignored"])
    if len(directions) == 2:
        norms = attributes["direction_norms"]
        attributes["direction_cosine"] = inner_product(*directions) / (norms[0] * norms[1])
    return attributes


def _write(surface: xr.Dataset, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        surface.to_netcdf(temporary, engine="h5netcdf")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
