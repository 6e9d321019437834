"""Other tools that draw loss surfaces: losses (alpha, beta) on the plane that they are asked for."""

from __future__ import annotations

import copy
import importlib
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from workloads import Batches, Directions, Workload, axis, mean_loss


def loss_landscapes(work: Workload, points: int) -> np.ndarray:
    """``planar_interpolation`` from the plane's corner to the ends of both axes, read as its documentation says."""
    interpolation = importlib.import_module("loss_landscapes").planar_interpolation
    # Points are start + i / steps * (end - start) for i = 0 ... steps - 1.
    ends = []
    for alpha, beta in ((0, 0), (points, 0), (0, points)):
        step, model = 2 * work.span / (points - 1), copy.deepcopy(work.model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                for coordinate, direction in zip((alpha, beta), work.directions, strict=True):
                    if name in direction:
                        parameter.add_(direction[name], alpha=coordinate * step - work.span)
        ends.append(model)
    return np.asarray(interpolation(*ends, lambda wrapper: mean_loss(wrapper.modules[0], work.batches), steps=points))


def landscaper(work: Workload, points: int) -> np.ndarray:
    """``compute_loss_landscape`` along our directions, which it rescales (see :func:`landscaper_directions`)."""
    compute = importlib.import_module("landscaper.compute").compute_loss_landscape
    directions = [list(work.full(direction).values()) for direction in work.directions]
    settings = {"steps": points, "distance": work.span, "dim": 2, "device": "cpu"}
    losses, _ = compute(copy.deepcopy(work.model), work.batches, directions, mean_loss, **settings)
    return np.asarray(losses)


def landscaper_directions(work: Workload) -> Directions:
    """What a unit of landscaper's axes stands for: each tensor of norm sqrt(size), the whole as long as the weights."""
    length = torch.sqrt(sum(p.detach().double().square().sum() for p in work.model.parameters()))
    rescaled = []
    for direction in work.directions:
        each = {name: d.double() * d.numel() ** 0.5 / d.double().norm() for name, d in direction.items()}
        whole = torch.sqrt(sum(d.square().sum() for d in each.values()))
        rescaled.append({name: d * length / whole for name, d in each.items()})
    return rescaled


def loss_landscape_3d(work: Workload, points: int) -> np.ndarray:
    """``LossLandscapeCalculator.calculate``."""
    calculator = importlib.import_module("loss_landscape_3d").LossLandscapeCalculator
    model, coordinates = copy.deepcopy(work.model), axis(work.span, points)
    center = {name: value.clone() for name, value in model.state_dict().items()}
    directions = [dict(direction) for direction in work.directions]
    calculate = calculator(model, work.batches, nn.functional.cross_entropy).calculate
    return np.asarray(calculate(coordinates, coordinates, *directions, center))


def losscape(work: Workload, points: int) -> np.ndarray:
    """``create_3D_losscape``, without the picture that it draws at the end."""
    module = importlib.import_module("losscape.create_landscape")
    directions = [list(work.full(direction).values()) for direction in work.directions]
    ends = dict.fromkeys(("x_min", "y_min"), -work.span) | dict.fromkeys(("x_max", "y_max"), work.span)
    settings = {"num_batches": len(work.batches), "save_only": True, "output_h5": False, "num_points": points} | ends
    with mock.patch.object(module, "plt"):
        _, _, losses = module.create_3D_losscape(
            copy.deepcopy(work.model), work.batches, directions=directions, **settings
        )
    return np.asarray(losses).T


def nngeom(work: Workload, points: int) -> np.ndarray:
    """``plane_slice_2d``; a batch is the list of ours."""
    ng = importlib.import_module("nngeom")

    def loss(model: nn.Module, batches: Batches) -> Tensor:
        return torch.tensor(mean_loss(model, batches), dtype=torch.float64)

    flat = [np.concatenate([d.numpy().ravel() for d in work.full(direction).values()]) for direction in work.directions]
    model = ng.Model(copy.deepcopy(work.model), loss_fn=loss)
    return np.asarray(ng.plane_slice_2d(model, work.batches, work.span, points, directions=flat).losses).T
