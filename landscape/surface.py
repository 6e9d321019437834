"""Loss lines, surfaces and volumes: the risk at points around a center."""

from __future__ import annotations

import concurrent.futures
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
from torch import Tensor

from landscape.adaptive import Tolerance, refine
from landscape.datasets import grid_axes, with_center
from landscape.evaluation.points import Points
from landscape.evaluation.values import SEPARATOR, Node, Values, flat
from landscape.evaluation.walk import Risks, Walk, named
from landscape.layout import adapted, gridded, points_of

__all__ = ["loss_line", "loss_surface", "loss_volume"]

_NUMBERS = {1: "one", 2: "two", 3: "three"}


def loss_surface(
    risk: Risks,
    directions: Sequence[Mapping[str, Tensor]],
    span: float | tuple[float, float] = 1.0,
    points: int | tuple[int, int] = 51,
    method: str = "adaptive",
    tolerance: float = 0.01,
    relative_tolerance: float | None = None,
    executor: concurrent.futures.Executor | None = None,
    path: str | Path | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""The risk :math:`L(\theta^* + \alpha d_1 + \beta d_2)` over a plane.

    ``"adaptive"`` evaluates a few hundred points and interpolates (:mod:`landscape.adaptive`): it predicts points
    before it evaluates them, refines where a prediction missed, and reports the largest error that it saw (times 1.5,
    as it saw few). Second derivatives of the interpolation are less exact than its values: for curvature at the center,
    :func:`landscape.plane_hessian`. ``"grid"`` evaluates every point. From either, :func:`landscape.interpolant` gives
    the smooth function at any resolution.

    Args:
        risk: what to evaluate, or a dictionary such as ``{"train": …, "test": …}`` of risks of one model; these share
            one walk over the points.
        directions: two of them, from :func:`landscape.random_directions` and its relatives.
        span: alpha runs from ``-span`` to ``span``, and beta too; or one span for each.
        points: along each axis, or one number for each; odd numbers have the center on the grid. For an adaptive
            surface this is the resolution at which it is rendered, and costs nothing.
        method: ``"adaptive"`` or ``"grid"``.
        tolerance: of an adaptive surface: the largest error, as a share of the range of the loss.
        relative_tolerance: and as a share of the loss itself, so that the basin is resolved beside a high wall; None:
            ten times ``tolerance``; infinity: no such limit.
        executor: any executor: a process pool, a thread pool, Dask's ``client.get_executor()``. Workers are given the
            model and the data once, and use one thread each. None: in this process. The values have the same bits
            either way, if this process uses one thread too.
        path: write the result there as netCDF, atomically. Points are kept beside it as they come: a second start after
            a kill evaluates only what is missing, and a second start with another tolerance or resolution of an
            adaptive surface goes on from what is there.
        progress: show a progress bar on standard error.

    Returns:
        A dataset with dimensions ``alpha`` and ``beta`` (before them ``split``, if risks were named): ``loss``,
        ``loss_standard_error`` and each metric; ``center_loss`` and ``center_<metric>``, evaluated at the center
        itself. Losses that are not finite are kept. ``attrs`` say how it was made. An adaptive surface also has

        - ``<variable>_error_estimate``, in the variable's unit (accuracy is a step function: its error is larger, and
          does not count for ``converged``), and ``<variable>_transform`` and ``<variable>_degree``, how it was
          interpolated;
        - the lattice under it: ``node_<variable>`` on ``alpha_node`` and ``beta_node``, and ``evaluated``, false where
          a coarser lattice predicted the value;
        - ``held_out_<variable>``: the points that were evaluated and are not in the fit, as they tested predictions;
        - in ``attrs``: ``error_estimate`` as a share of the range, ``relative_error_estimate`` as a share of the loss,
          ``evaluations``, and ``converged``, 0 where the finest lattice was not fine enough.

    Raises:
        ValueError: not two directions, a span that is not positive, too few points, risks of different models, or a
            file of other weights, data, directions or settings; the message says which.
        RuntimeError: a worker died.
    """
    spans = span if isinstance(span, tuple) else (span, span)
    counts = points if isinstance(points, tuple) else (points, points)
    how = _How(method, tolerance, relative_tolerance, executor, path, progress)
    return _surface("surface", risk, directions, spans, counts, how)


def loss_line(
    risk: Risks,
    direction: Mapping[str, Tensor],
    span: float = 1.0,
    points: int = 51,
    method: str = "adaptive",
    tolerance: float = 0.01,
    relative_tolerance: float | None = None,
    executor: concurrent.futures.Executor | None = None,
    path: str | Path | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The risk along one direction; arguments and result as for :func:`loss_surface`, with one dimension ``alpha``."""
    how = _How(method, tolerance, relative_tolerance, executor, path, progress)
    return _surface("line", risk, [direction], (span,), (points,), how)


def loss_volume(
    risk: Risks,
    directions: Sequence[Mapping[str, Tensor]],
    span: float | tuple[float, float, float] = 1.0,
    points: int | tuple[int, int, int] = 33,
    method: str = "adaptive",
    tolerance: float = 0.01,
    relative_tolerance: float | None = None,
    executor: concurrent.futures.Executor | None = None,
    path: str | Path | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The risk along three directions; as :func:`loss_surface`, with dimensions ``alpha``, ``beta`` and ``gamma``."""
    spans = span if isinstance(span, tuple) else (span, span, span)
    counts = points if isinstance(points, tuple) else (points, points, points)
    how = _How(method, tolerance, relative_tolerance, executor, path, progress)
    return _surface("volume", risk, directions, spans, counts, how)


class _How(NamedTuple):
    method: str
    tolerance: float
    relative_tolerance: float | None
    executor: concurrent.futures.Executor | None
    path: str | Path | None
    progress: bool

    def checked_tolerance(self) -> Tolerance:
        of_value = 10 * self.tolerance if self.relative_tolerance is None else self.relative_tolerance
        for name, value in (("tolerance", self.tolerance), ("relative_tolerance", of_value)):
            if not value > 0:
                raise ValueError(f"{name}: expected a positive number, got {value}")
        return Tolerance(self.tolerance, of_value)


def _surface(
    what: str,
    risk: Risks,
    directions: Sequence[Mapping[str, Tensor]],
    spans: Sequence[float],
    counts: Sequence[int],
    how: _How,
) -> xr.Dataset:
    if how.method not in ("adaptive", "grid"):
        raise ValueError(f"method: expected 'adaptive' or 'grid', got {how.method!r}")
    if len(directions) != len(spans):
        raise ValueError(f"directions: a {what} takes {_NUMBERS[len(spans)]}, got {len(directions)}")
    tolerance = how.checked_tolerance()
    axes = grid_axes(spans, counts)
    walk = Walk(named(risk), directions)
    settings: dict[str, Any] = {"method": how.method, "span": [float(span) for span in spans]}
    if how.method == "grid":  # tolerance and resolution of an adaptive surface may change: its points stay true
        settings["points"] = [int(count) for count in counts]
    center = (0.0,) * len(spans)
    with Points(walk, how.path, settings, how.executor, how.progress, what) as points:
        if points.finished is not None:
            points.know(points_of(points.finished))
        points.check_center(center)
        at_center = points.at([center])[center]
        if how.method == "grid":
            surface = gridded(points.at(itertools.product(*axes.values())), axes)
        else:
            refined = refine(lambda nodes: _flat(points.at(nodes)), spans, tolerance, _is_loss)
            surface = adapted(refined, points.known, axes)
            surface.attrs |= {"tolerance": tolerance.of_range, "relative_tolerance": tolerance.of_value}
        surface = with_center(surface, at_center)
        surface.attrs["method"] = how.method
        return points.finish(surface)


def _flat(values: Mapping[Node, Values]) -> dict[Node, dict[str, float]]:
    return {node: flat(found) for node, found in values.items()}


def _is_loss(name: str) -> bool:
    return name.rpartition(SEPARATOR)[2] == "loss"
