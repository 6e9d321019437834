"""The path of a training run, seen in the plane in which it moves most."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from torch import Tensor

from landscape.combinations import at_combinations, warn_of_running_statistics
from landscape.datasets import assembled, attributes_of, write
from landscape.directions import check_same_parameters
from landscape.evaluation.walk import Risks, Walk, evaluate, named
from landscape.interpolation import DIMENSIONS
from landscape.parameters import Direction, Point, fingerprint, inner_product, norm
from landscape.risk import EmpiricalRisk

__all__ = ["Checkpoint", "Trajectory", "load_point", "load_points", "loaded", "trajectory", "trajectory_path"]

Checkpoint = Mapping[str, Tensor] | Callable[[], Mapping[str, Tensor]]

_CHECKPOINTS_A_WALK = 8  # held in memory at once, here and by each worker


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A run's checkpoints in the plane of their principal components.

    Attributes:
        directions: orthonormal, the one of the largest variance first. A coordinate is a distance in weight space.
        center: the point with coordinates 0.
        coordinates: ``(checkpoints, directions)``, of each checkpoint's projection on the plane.
        distances: ``(checkpoints,)``, of each checkpoint from the plane.
        explained_variance: ``(directions,)``, shares of the checkpoints' variance around their mean.
        checkpoints: what the coordinates belong to.
    """

    directions: tuple[Direction, ...]
    center: Point
    coordinates: np.ndarray
    distances: np.ndarray
    explained_variance: np.ndarray
    checkpoints: Sequence[Checkpoint]

    def span(self, margin: float = 0.1) -> tuple[float, ...]:
        """For each direction, the span of a surface around the center that holds the whole path.

        Args:
            margin: added on each side, as a share of the largest coordinate.
        """
        return tuple((1 + margin) * float(reach) for reach in np.abs(self.coordinates).max(axis=0))


def trajectory(
    checkpoints: Sequence[Checkpoint], center: Mapping[str, Tensor] | None = None, count: int = 2
) -> Trajectory:
    r"""The principal components of a run's checkpoints (Li et al. 2018, section 7).

    With checkpoints :math:`\theta_i` and their mean :math:`\bar\theta`, the components come from the eigenvectors of
    the small matrix of inner products :math:`\langle \theta_i - \bar\theta, \theta_j - \bar\theta \rangle`, in
    float64. That matrix comes from the distances between pairs, so that two checkpoints at a time are enough.

    Principal components of a random walk in many dimensions look like smooth arcs too, with most of the variance in the
    first two (Antognini and Sohl-Dickstein, "PCA of High Dimensional Random Walks with Comparison to Neural Network
    Training", 2018): the shape of a path alone says nothing about the loss.

    Args:
        checkpoints: in the order of the run, weights or functions that load them, such as
            ``functools.partial(load_point, path, risk)``: each of n is loaded about n / 2 times.
        center: the point that the plane goes through; None: the last checkpoint.
        count: number of directions, 1 to 3.

    Raises:
        ValueError: too few checkpoints, checkpoints that differ in fewer dimensions, or with other parameters.
    """
    if not 1 <= count <= len(DIMENSIONS):
        raise ValueError(f"count: expected 1 to {len(DIMENSIONS)}, got {count}")
    if len(checkpoints) <= count:
        raise ValueError(f"checkpoints: expected at least {count + 1} for {count} directions, got {len(checkpoints)}")
    center = loaded(checkpoints[-1]) if center is None else center
    for index, point in enumerate(map(loaded, checkpoints)):
        check_same_parameters(f"checkpoint {index}", point, center)
    mixtures, explained = _principal_components(_squared_distances(checkpoints), count)
    roles = center.roles if isinstance(center, Point) else None
    about = {"kind": "trajectory", "checkpoints": len(checkpoints), "center": fingerprint(center)}
    directions = tuple(
        Direction(tensors, roles, about | {"index": index, "explained_variance": float(share)})
        for index, (tensors, share) in enumerate(zip(_mixed(checkpoints, mixtures, center), explained, strict=True))
    )
    coordinates, distances = _projected(checkpoints, directions, center)
    return Trajectory(directions, Point(center, roles), coordinates, distances, explained, checkpoints)


def trajectory_path(
    risk: Risks,
    trajectory: Trajectory,
    executor: concurrent.futures.Executor | None = None,
    progress: bool = True,
    path: str | Path | None = None,
) -> xr.Dataset:
    """The risk at each checkpoint, and at its projection on the plane.

    A surface on the plane passes through the projections, not through the checkpoints: ``loss`` is what the run had,
    and ``projected_loss`` what the surface has below it.

    Args:
        risk: what to evaluate, or several of one model by split.
        trajectory: of its checkpoints.
        executor: evaluate there; None: in this process.
        progress: show a progress bar on standard error.
        path: also write the result there as netCDF, atomically.

    Returns:
        A dataset with the dimension ``checkpoint``, 0, 1, 2 … (before it ``split``, if risks were named): ``loss``,
        ``loss_standard_error`` and each metric at the checkpoint's own weights; the same with the prefix ``projected_``
        on the plane. Without ``split``: ``alpha``, ``beta`` (and ``gamma``), the coordinates; ``distance`` from the
        plane; ``explained_variance`` by ``component``.
    """
    warn_of_running_statistics(risk)
    every = range(0, len(trajectory.checkpoints), _CHECKPOINTS_A_WALK)
    own = []
    for start in every:
        points = [loaded(one) for one in trajectory.checkpoints[start : start + _CHECKPOINTS_A_WALK]]
        own += at_combinations(risk, points, np.eye(len(points)), executor, progress, "checkpoints")
    nodes = [tuple(map(float, row)) for row in trajectory.coordinates]
    walk = Walk(named(risk), trajectory.directions, trajectory.center)
    found = evaluate(walk, nodes, executor, progress, "projections")
    index = {"checkpoint": np.arange(len(nodes))}
    projected = assembled([found[node] for node in nodes], index)
    losses = assembled(own, index).assign({f"projected_{name}": values for name, values in projected.items()})
    places = {axis: ("checkpoint", values) for axis, values in zip(DIMENSIONS, trajectory.coordinates.T, strict=False)}
    result = losses.assign(
        places
        | {
            "distance": ("checkpoint", trajectory.distances),
            "explained_variance": ("component", trajectory.explained_variance),
        }
    )
    result.attrs = attributes_of(walk) | {"method": "trajectory", "evaluations": 2 * len(nodes)}
    if path is not None:
        write(result, Path(path))
    return result


def load_point(path: str | Path, risk: EmpiricalRisk) -> Point:
    """The parameters of a risk from a safetensors file, in the types and on the device of the model.

    The file has them under their own names, or under ``model.<name>`` beside other things. What else is in it is not
    read; buffers such as BatchNorm's statistics are not parameters. Nothing is unpickled.

    Args:
        path: of the file.
        risk: says which parameters, and their shapes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, or without a parameter of this shape.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights {path}")
    like = risk.parameters()
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            prefix = next((p for p in ("", "model.") if all(p + name in names for name in like)), None)
            if prefix is None:
                missing = [name for name in like if not {name, f"model.{name}"} & names]
                raise ValueError(
                    f"{path}: expected the parameters {', '.join(like)} (or each as model.<name>), but "
                    f"{', '.join(missing) or 'some of either'} is missing; it has {', '.join(sorted(names)) or 'none'}"
                )
            tensors = {name: file.get_tensor(prefix + name) for name in like}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or not a safetensors file ({error}); files of torch.save could run code when opened "
            "and never are: write the weights with safetensors.torch.save_file"
        ) from error
    for name, tensor in tensors.items():
        if tensor.shape != like[name].shape:
            raise ValueError(
                f"{path}: parameter {name!r} has shape {tuple(tensor.shape)}, expected {tuple(like[name].shape)}"
            )
    return Point({name: tensor.to(like[name]) for name, tensor in tensors.items()}, like.roles)


def load_points(paths: Sequence[str | Path], risk: EmpiricalRisk) -> list[Point]:
    """The parameters of a risk from each of several files; see :func:`load_point`."""
    if isinstance(paths, str | Path):
        raise TypeError(f"paths: expected a sequence, got {paths!r}; write [{paths!r}]")
    return [load_point(path, risk) for path in paths]


def loaded(checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    """The weights, which may have to be loaded first."""
    return checkpoint() if callable(checkpoint) else checkpoint


def _difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: a[name].double() - tensor.to(a[name].device).double() for name, tensor in b.items()}


def _squared_distances(checkpoints: Sequence[Checkpoint]) -> np.ndarray:
    squares = np.zeros((len(checkpoints), len(checkpoints)))
    for i, first in enumerate(checkpoints):
        point = loaded(first)
        for j in range(i):
            squares[i, j] = squares[j, i] = norm(_difference(point, loaded(checkpoints[j]))) ** 2
    return squares


def _principal_components(squared_distances: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the checkpoints in each unit component ``(count, checkpoints)``, and shares of the variance."""
    size = len(squared_distances)
    centering = np.eye(size) - 1 / size
    variances, vectors = np.linalg.eigh(-0.5 * centering @ squared_distances @ centering)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    dimensions = int(np.sum(variances > 1e-12 * max(variances[0], 0.0)))
    if dimensions < count:
        raise ValueError(
            f"the checkpoints differ in {dimensions} dimensions, expected at least {count}; "
            + (f"ask for count={dimensions}" if dimensions else "they are all the same")
        )
    kept = vectors[:, :count]
    # The checkpoint that is farthest out has a positive coordinate: eigenvectors have no sign.
    kept = kept * np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(count)])
    return (kept / np.sqrt(variances[:count])).T, variances[:count] / variances.clip(min=0).sum()


def _mixed(
    checkpoints: Sequence[Checkpoint], mixtures: np.ndarray, center: Mapping[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Sums of the checkpoints' offsets, made orthonormal, in the types of the center."""
    sums = [{name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in center.items()} for _ in mixtures]
    for checkpoint, weights in zip(checkpoints, mixtures.T, strict=True):
        offset = _difference(loaded(checkpoint), center)
        for total, weight in zip(sums, weights, strict=True):
            for name, tensor in offset.items():
                total[name] += weight * tensor.to(total[name].device)
    for index, total in enumerate(sums):
        for earlier in sums[:index]:
            overlap = inner_product(total, earlier)
            for name, tensor in total.items():
                tensor -= overlap * earlier[name]
        length = norm(total)
        for tensor in total.values():
            tensor /= length
        yield {name: tensor.to(center[name].dtype) for name, tensor in total.items()}


def _projected(
    checkpoints: Sequence[Checkpoint], directions: Sequence[Direction], center: Mapping[str, Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the checkpoints on the plane, and their distances from it."""
    coordinates, distances = np.zeros((len(checkpoints), len(directions))), np.zeros(len(checkpoints))
    for index, checkpoint in enumerate(checkpoints):
        rest = _difference(center, loaded(checkpoint))
        for axis, direction in enumerate(directions):
            coordinates[index, axis] = -inner_product(rest, direction)
            for name, tensor in rest.items():
                tensor += coordinates[index, axis] * direction[name].double()
        distances[index] = norm(rest)
    return coordinates, distances
