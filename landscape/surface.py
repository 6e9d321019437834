"""Loss lines, surfaces and volumes: the risk at points around a center."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from landscape.adaptive import Tolerance, refine
from landscape.datasets import attributes_of, write
from landscape.interpolation import DIMENSIONS
from landscape.journal import Journal
from landscape.layout import SEPARATOR, adapted, flat, gridded, points_of_file, with_center
from landscape.parameters import fingerprint
from landscape.totals import Node, Values
from landscape.walk import Risks, Walk, as_they_come, named

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

    ``"adaptive"`` evaluates a few hundred points and interpolates; it predicts points before it evaluates them, refines
    where a prediction missed, and reports the largest error that it saw (times 1.5, as it saw few). ``"grid"``
    evaluates every point. From either, :func:`landscape.interpolant` gives the smooth function at any resolution.

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
        - ``held_out_<variable>``: the points that tested the predictions;
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
    return _surface("a surface", risk, directions, spans, counts, how)


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
    return _surface("a line", risk, [direction], (span,), (points,), how)


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
    return _surface("a volume", risk, directions, spans, counts, how)


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
        raise ValueError(f"directions: {what} takes {_NUMBERS[len(spans)]}, got {len(directions)}")
    tolerance = how.checked_tolerance()
    names = DIMENSIONS[: len(spans)]
    axes = {name: _axis(name, span, count) for name, span, count in zip(names, spans, counts, strict=True)}
    walk = Walk(named(risk), directions)
    path = None if how.path is None else Path(how.path)
    identity: dict[str, Any] = {}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)  # before the long part, not after it
        identity = _identity(walk, spans, counts, how.method)
    attributes = attributes_of(walk) | {"method": how.method}
    with Journal(path, identity) as journal, tqdm(desc=what, unit="point", disable=not how.progress) as bar:
        if path is not None and path.exists():
            journal.values |= points_of_file(path, identity)
        points = _Points(walk, journal, how.executor, bar)
        center = (0.0,) * len(spans)
        at_center = points.at([center])[center]
        if how.method == "grid":
            surface = gridded(points.at(itertools.product(*axes.values())), axes)
        else:
            refined = refine(points.rows, spans, tolerance, _is_loss)
            surface = adapted(refined, points.at(refined.held_out), axes)
            surface.attrs |= {"tolerance": tolerance.of_range, "relative_tolerance": tolerance.of_value}
        surface = with_center(surface, at_center)
        surface.attrs = attributes | surface.attrs
        if path is not None:
            surface.attrs["identity"] = json.dumps(identity)
            write(surface, path)
    journal.delete()
    return surface


class _Points:
    """The points of one surface: those that are known, and a way to the others."""

    def __init__(
        self, walk: Walk, journal: Journal, executor: concurrent.futures.Executor | None, bar: tqdm[NoReturn]
    ) -> None:
        self._walk = walk
        self._journal = journal
        self._executor = executor
        self._bar = bar
        if journal.values:
            self._check_loss()

    def at(self, nodes: Iterable[Node]) -> dict[Node, Values]:
        """The values at points; those that are not known yet are evaluated, and kept as they come."""
        nodes = list(nodes)
        known = self._journal.values
        missing = [node for node in nodes if node not in known]
        with contextlib.closing(as_they_come(self._walk, missing, self._executor)) as arriving:
            for node, values in arriving:
                self._journal.add(node, values)
                self._bar.update()
        return {node: known[node] for node in nodes}

    def rows(self, nodes: Iterable[Node]) -> dict[Node, dict[str, float]]:
        """As :meth:`at`, in one row of names that hold split and column."""
        return {node: flat(values) for node, values in self.at(nodes).items()}

    def _check_loss(self) -> None:
        """A loss function has no fingerprint, but a value: compare what was found with what is found here."""
        dimensions = len(self._walk.directions)
        center = (0.0,) * dimensions
        if center not in self._journal.values:
            return
        with self._walk.begun() as values:
            here = values([center])[0]
        for split, columns in self._journal.values[center].items():
            if not math.isclose(columns["loss"], here[split]["loss"], rel_tol=1e-4, abs_tol=1e-9):
                raise ValueError(
                    f"the points that are already there have the loss {columns['loss']:.8g} at the center, but it is "
                    f"{here[split]['loss']:.8g} now: they belong to another loss function; delete the file, or choose "
                    "another path"
                )


def _identity(walk: Walk, spans: Sequence[float], counts: Sequence[int], method: str) -> dict[str, Any]:
    """What points belong to. Tolerance and resolution of an adaptive surface may change: its points stay true."""
    model = walk.first.model.state_dict()
    return {
        "weights": fingerprint({name: value for name, value in model.items() if isinstance(value, Tensor)}),
        "data": {split: risk.fingerprint() for split, risk in walk.risks.items()},
        "directions": [fingerprint(direction) for direction in walk.directions],
        "metrics": {split: risk.metric_names for split, risk in walk.risks.items()},
        "options": {split: risk.options for split, risk in walk.risks.items()},
        "method": method,
        "span": list(spans),
    } | ({"points": list(counts)} if method == "grid" else {})


def _is_loss(name: str) -> bool:
    return name.partition(SEPARATOR)[2] == "loss"


def _axis(name: str, span: float, count: int) -> np.ndarray:
    if not (np.isfinite(span) and span > 0):
        raise ValueError(f"span: expected a positive number for {name}, got {span}")
    if count < 2 or count != int(count):
        raise ValueError(f"points: expected a whole number of at least 2 along {name}, got {count}")
    # Built from the middle outwards, so that center and ends are exact and the axis is exactly symmetric.
    half = (count - 1) / 2
    return span * ((np.arange(count) - half) / half)
