"""What lies between minima: straight lines, barriers, and trained curves that go around them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import itertools
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from landscape.combinations import (
    at_combinations,
    combined,
    walk_of_combinations,
    warn_of_running_statistics,
)
from landscape.datasets import assembled, attributes_of, write
from landscape.directions import check_same_parameters, direction_between
from landscape.evaluation.points import Points
from landscape.evaluation.values import Values
from landscape.evaluation.walk import Risks, Walk, named
from landscape.parameters import Point
from landscape.risk import EmpiricalRisk

__all__ = ["Connection", "barrier", "connect", "loss_between", "loss_through"]


def loss_between(
    risk: Risks,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    points: int = 51,
    margin: float | tuple[float, float] = 0.0,
    executor: concurrent.futures.Executor | None = None,
    progress: bool = True,
    path: str | Path | None = None,
) -> xr.Dataset:
    r"""The risk on the straight line :math:`(1 - \alpha) a + \alpha b` (Goodfellow et al. 2015).

    Both ends are evaluated at their exact weights. A model with BatchNorm needs ``statistics=`` in its risk, as the
    running statistics of one end are wrong at the other.

    Args:
        risk: what to evaluate, or several of one model by split.
        a: a checkpoint; what it does not name stays as it is in the model.
        b: another, with the same parameters.
        points: from ``a`` to ``b``, both included.
        margin: how far the line goes on beyond ``a`` and ``b``, as a share of their distance, in steps as long as those
            between them; or one for each side.
        executor: evaluate there; None: in this process.
        progress: show a progress bar on standard error.
        path: write the result there as netCDF, atomically; points are kept beside it as they come.

    Returns:
        A dataset with the dimension ``alpha``, 0 at ``a`` and 1 at ``b`` (before it ``split``, if risks were named):
        ``loss``, ``loss_standard_error`` and each metric; ``center_loss`` and ``center_<metric>``, those of ``a``.

    Raises:
        ValueError: fewer than two points, a negative margin, or checkpoints with other parameters.
    """
    below, above = margin if isinstance(margin, tuple) else (margin, margin)
    for side in (below, above):
        if not 0 <= side < math.inf:
            raise ValueError(f"margin: expected a number of at least 0, got {side}")
    _check_points(points)
    warn_of_running_statistics(risk)
    steps = points - 1
    before, after = (math.ceil(side * steps - 1e-9) for side in (below, above))
    return _line(risk, [a, b], np.arange(-before, points + after) / steps, executor, progress, path)


def loss_through(
    risk: Risks,
    checkpoints: Sequence[Mapping[str, Tensor]],
    points: int = 51,
    executor: concurrent.futures.Executor | None = None,
    progress: bool = True,
    path: str | Path | None = None,
) -> xr.Dataset:
    """The risk along straight legs from each checkpoint to the next.

    Args:
        risk: what to evaluate, or several of one model by split.
        checkpoints: at least two, with the same parameters.
        points: on each leg, both of its ends included.
        executor: evaluate there; None: in this process.
        progress: show a progress bar on standard error.
        path: also write the result there as netCDF, atomically.

    Returns:
        A dataset as from :func:`loss_between`; ``alpha`` is 0, 1, 2 … at the checkpoints. ``direction_norms`` are the
        lengths of the legs.

    Raises:
        ValueError: fewer than two checkpoints or points, or checkpoints with other parameters.
    """
    if len(checkpoints) < 2:
        raise ValueError(f"checkpoints: expected at least 2, got {len(checkpoints)}")
    _check_points(points)
    warn_of_running_statistics(risk)
    steps = points - 1
    alpha = np.arange((len(checkpoints) - 1) * steps + 1) / steps
    return _line(risk, checkpoints, alpha, executor, progress, path)


def barrier(curve: xr.Dataset, variable: str = "loss", ends: tuple[float, float] = (0.0, 1.0)) -> float:
    r"""The largest excess of the loss over the straight interpolation of its end values.

    :math:`\max_t \, L(\phi(t)) - [(1 - t) L(a) + t L(b)]` over the points of the curve between the ends (Entezari et
    al., "The Role of Permutation Invariance in Linear Mode Connectivity of Neural Networks", 2022). For ends of one
    loss it is the error barrier of Frankle et al. ("Linear Mode Connectivity and the Lottery Ticket Hypothesis", 2020),
    who subtract the mean of the end values. It is never negative; NaN if a loss is.

    Args:
        curve: from :func:`loss_between`, :func:`loss_through` or :func:`connect`; of one split.
        variable: which one; ``"straight_loss"`` for the straight line beside a trained curve.
        ends: coordinates of the two minima; ``(1, 2)`` is the second leg through several checkpoints.

    Raises:
        ValueError: more than one dimension, no such variable, or an end that is not a point of the curve.
    """
    if variable not in curve:
        raise ValueError(f"variable: expected one of {', '.join(map(str, curve.data_vars))}, got {variable!r}")
    values = curve[variable]
    if values.ndim != 1:
        hint = "; choose a split, as in curve.sel(split='test')" if "split" in values.dims else ""
        raise ValueError(f"{variable}: expected one dimension, got {', '.join(map(str, values.dims))}{hint}")
    along = values[values.dims[0]].values
    start, end = ends
    for place in ends:
        if place not in along:
            raise ValueError(f"ends: {place} is not a point of the curve, which goes from {along[0]} to {along[-1]}")
    if not start < end:
        raise ValueError(f"ends: expected the smaller coordinate first, got {ends}")
    inside = (along >= start) & (along <= end)
    between, share = values.values[inside], (along[inside] - start) / (end - start)
    with np.errstate(invalid="ignore"):  # losses that are not finite
        return float(np.max(between - ((1 - share) * between[0] + share * between[-1])))


@dataclasses.dataclass(frozen=True)
class Connection:
    """A curve between two minima.

    Attributes:
        curve: dimension ``t`` (before it ``split``, if risks were named): the variables of :func:`loss_between` on the
            curve, and the same with the prefix ``straight_`` on the straight line. ``attrs`` say how it was trained.
        controls: the control points: first minimum, bends, second minimum.
        barrier: of the curve, by :func:`barrier`, on the split that it was trained on.
        straight_barrier: of the straight line.
    """

    curve: xr.Dataset
    controls: tuple[Point, ...]
    barrier: float
    straight_barrier: float

    @property
    def bends(self) -> tuple[Point, ...]:
        """The control points between the two minima."""
        return self.controls[1:-1]

    def at(self, t: float) -> Point:
        """The point of the curve at ``t``, from 0 to 1."""
        (weights,) = _bernstein(np.array([t]), len(self.controls) - 1)
        return Point(combined(self.controls, weights), self.controls[0].roles)


def connect(
    risk: Risks,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    bends: int = 1,
    steps: int = 1000,
    learning_rate: float = 1e-2,
    seed: int = 0,
    points: int = 21,
    checks: int = 5,
    executor: concurrent.futures.Executor | None = None,
    progress: bool = True,
    path: str | Path | None = None,
) -> Connection:
    r"""Train a Bézier curve of low loss from one minimum to another.

    Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs", 2018; see also Draxler et al.,
    "Essentially No Barriers in Neural Network Energy Landscape", 2018. The control points between the minima, the
    bends, minimize :math:`\mathbb{E}_{t \sim U(0, 1)} L(\phi(t))`: each step of Adam takes the gradient on one batch at
    one random t, with the model in evaluation mode, and the learning rate falls to zero along a cosine.

    The bends start at equal distances on the straight line, where the curve *is* that line. A few times the whole curve
    is evaluated, and the best by its mean loss over t is returned, so that it is never worse than the straight line.
    Where the risk is symmetric about the straight line, all gradients lie along it, and the curve cannot leave it.

    A model with BatchNorm needs ``statistics=`` in its risk; they are estimated anew for every step, so a few batches
    are better than all.

    Cost: a forward-and-backward pass over one batch a step, and ``(checks + 1) * points`` passes over the data.

    Args:
        risk: what to minimize; of several by split, the first is minimized and all are evaluated.
        a: the first minimum; what it does not name stays as it is in the model.
        b: the second, with the same parameters.
        bends: control points between the two; 0 is the straight line.
        steps: of Adam. Batches are taken in the order in which they come, again and again.
        learning_rate: of Adam at the start.
        seed: of the draws of t.
        points: at which the curve is evaluated, equally spaced in t from 0 to 1.
        checks: how often it is evaluated during training, the end included.
        executor: evaluate there (training is in this process); None: in this process.
        progress: show progress bars on standard error.
        path: also write the evaluated curve there as netCDF, atomically.

    Raises:
        ValueError: settings out of range, checkpoints with other parameters, or a loss that is not finite in training.
    """
    least = {"bends": (bends, 0), "steps": (steps, 0), "checks": (checks, 1)}
    for name, (value, bound) in least.items():
        if value < bound:
            raise ValueError(f"{name}: expected at least {bound}, got {value}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate: expected a positive number, got {learning_rate}")
    _check_points(points)
    check_same_parameters("b", b, a)
    warn_of_running_statistics(risk)
    first_split, first = next(iter(named(risk).items()))
    steps = steps if bends else 0
    t = np.arange(points) / (points - 1)
    controls = [combined([a, b], [1 - share, share]) for share in np.arange(bends + 2) / (bends + 1)]

    def evaluated(weights: np.ndarray) -> list[Values]:
        return at_combinations(risk, controls, weights, executor, progress, "curve")

    def mean_loss(values: Sequence[Values]) -> float:
        mean = float(np.trapezoid([value[first_split]["loss"] for value in values], t))
        return math.inf if math.isnan(mean) else mean

    weights = _bernstein(t, bends + 1)
    straight = best = evaluated(weights)
    best_controls, best_step, means = _copies(controls), 0, {0: mean_loss(straight)}
    for step in _training(first, controls, steps, learning_rate, seed, checks, progress):
        found = evaluated(weights)
        means[step] = mean_loss(found)
        if means[step] < means[best_step]:
            best, best_controls, best_step = found, _copies(controls), step
    beside = assembled(straight, {"t": t})
    curve = assembled(best, {"t": t}).assign({f"straight_{name}": values for name, values in beside.items()})
    of_training = curve.sel(split=first_split) if first_split else curve
    roles = a.roles if isinstance(a, Point) else first.parameters().roles
    connection = Connection(
        curve,
        tuple(Point(control, roles) for control in best_controls),
        barrier(of_training),
        barrier(of_training, "straight_loss"),
    )
    curve.attrs = attributes_of(Walk(named(risk), [direction_between(a, b)], a)) | {
        "method": "Bezier curve",
        "bends": bends,
        "steps": steps,
        "learning_rate": learning_rate,
        "seed": seed,
        "best_step": best_step,
        "checked_steps": list(means),
        "checked_mean_losses": list(means.values()),
        "barrier": connection.barrier,
        "straight_barrier": connection.straight_barrier,
        "evaluations": points * len(means),
    }
    if path is not None:
        write(curve, Path(path))
    return connection


def _check_points(points: int) -> None:
    if points < 2:
        raise ValueError(f"points: expected at least 2, got {points}")


def _line(
    risk: Risks,
    checkpoints: Sequence[Mapping[str, Tensor]],
    alpha: np.ndarray,
    executor: concurrent.futures.Executor | None,
    progress: bool,
    path: str | Path | None,
) -> xr.Dataset:
    legs = len(checkpoints) - 1
    leg = np.clip(np.floor(alpha).astype(int), 0, legs - 1)
    weights = np.zeros((len(alpha), len(checkpoints)))
    rows = np.arange(len(alpha))
    weights[rows, leg], weights[rows, leg + 1] = 1 - (alpha - leg), alpha - leg
    walk = walk_of_combinations(risk, checkpoints)
    directions = [direction_between(start, end) for start, end in itertools.pairwise(checkpoints)]
    settings = {"method": "grid", "alpha": alpha.tolist()}
    nodes = [tuple(row) for row in weights.tolist()]
    with Points(walk, path, settings, executor, progress, "line") as known:
        if known.finished is not None:
            return known.finished
        found = known.at(nodes)
        line = assembled([found[node] for node in nodes], {"alpha": alpha})
        at_start = line.sel(alpha=0.0, drop=True).drop_vars("loss_standard_error")
        line = line.assign({f"center_{name}": value for name, value in at_start.items()})
        about = attributes_of(Walk(named(risk), directions, checkpoints[0]))
        line.attrs = about | {"method": "grid", "converged": 1, "evaluations": len(alpha)}
        return known.finish(line)


def _bernstein(t: np.ndarray, degree: int) -> np.ndarray:
    """Weights ``(len(t), degree + 1)`` of the control points of a Bézier curve."""
    return np.stack([math.comb(degree, k) * t**k * (1 - t) ** (degree - k) for k in range(degree + 1)], axis=1)


def _copies(points: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{name: tensor.clone() for name, tensor in point.items()} for point in points]


def _training(
    risk: EmpiricalRisk,
    controls: list[dict[str, Tensor]],
    steps: int,
    learning_rate: float,
    seed: int,
    checks: int,
    progress: bool,
) -> Iterator[int]:
    """Train all but the first and the last control point, in place; yields the number of steps at each check."""
    if not steps:
        return
    stops = {math.ceil(steps * check / checks) for check in range(1, checks + 1)}
    start, *bends, end = controls
    # In at least float32: bfloat16 would swallow small steps.
    trained = [
        {name: tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True) for name, tensor in bend.items()}
        for bend in bends
    ]
    optimizer = torch.optim.Adam([tensor for bend in trained for tensor in bend.values()], lr=learning_rate)
    parameters = dict(risk.modules()["input"].named_parameters())
    arguments = [parameters[name] for name in start]
    draws = np.random.default_rng(seed)
    with (
        contextlib.closing(_batches_forever(risk)) as batches,
        tqdm(total=steps, desc="training the curve", unit="step", disable=not progress) as bar,
    ):
        for step in range(steps):
            t = draws.random()
            (weights,) = _bernstein(np.array([t]), len(controls) - 1)
            with risk.at(combined([start, *trained, end], weights)), risk.differentiable():
                loss = next(batches).mean()
                gradients = torch.autograd.grad(loss, arguments, materialize_grads=True)
            if not math.isfinite(float(loss.detach())):
                raise ValueError(
                    f"step {step}: the loss on the curve is {float(loss.detach())} at t = {t:.3g}; lower learning_rate"
                )
            for bend, weight in zip(trained, weights[1:-1], strict=True):
                for tensor, gradient in zip(bend.values(), gradients, strict=True):
                    tensor.grad = gradient.to(tensor.dtype) * weight
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.step()
            bar.update()
            if step + 1 in stops:
                for bend, wide in zip(bends, trained, strict=True):
                    for name, tensor in bend.items():
                        tensor.copy_(wide[name])
                yield step + 1


def _batches_forever(risk: EmpiricalRisk) -> Generator[Tensor]:
    while True:
        yield from risk.example_losses()
