"""Flatness of random filter-normalized planes through the minimum, as they are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from landscape.curvature import plane_hessian
from landscape.directions import random_directions
from landscape.flatness.draws import mean_and_standard_error
from landscape.flatness.measurement import Measurement
from landscape.flatness.settings import at_least, positive_number
from landscape.level_sets import area_below
from landscape.readouts import convex_share, minimum
from landscape.risk import EmpiricalRisk
from landscape.surface import loss_surface

__all__ = ["plane_metrics"]


def plane_metrics(
    risk: EmpiricalRisk,
    seed: int = 0,
    pairs: int = 3,
    span: float = 1.0,
    rise: float = 0.1,
    tolerance: float = 0.01,
) -> dict[str, Measurement]:
    r"""Numbers read off loss surfaces along pairs of filter-normalized Gaussian directions.

    Li, Xu, Taylor, Studer and Goldstein, "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, draw such
    surfaces :math:`f(\alpha, \beta) = L(\theta + \alpha d_1 + \beta d_2)`; here they are measured:

    - ``"plane_curvature"``: :math:`\mathrm{tr} \, \nabla^2 f(0) / 2`, the mean curvature at the center over the
      headings in the plane, from Hessian-vector products (:func:`landscape.plane_hessian`). Larger is sharper.
    - ``"area_below"``: of :math:`f < f(0) + \mathrm{rise}` within the span (:func:`landscape.level_sets.area_below`).
      Larger is FLATTER. A region that reaches the border is larger than what is seen.
    - ``"minimum_offset"``: distance of the plane's lowest point from the center (:func:`landscape.readouts.minimum`).
      It says how well the minimum was reached, and is large in a wide valley too: larger is flatter only where the
      depth is alike, which ``detail`` has.
    - ``"convex_share"``: of the plane (:func:`landscape.readouts.convex_share`). Larger is flatter in the sense of
      fewer ridges.

    Each is the mean over planes, with its standard error. Cost: for each plane two Hessian-vector products and the
    evaluations of an adaptive surface, 81 to some thousand forward passes.

    A rescaling that leaves the function alone changes none of them.

    Args:
        risk: the function.
        seed: plane k has the directions of ``random_directions(parameters, seed=seed + k)``, those of
            :func:`landscape.compare_surfaces`.
        pairs: number of planes.
        span: both coordinates run from ``-span`` to ``span``.
        rise: of the loss above the center's, in its unit.
        tolerance: of the surfaces, as for :func:`landscape.loss_surface`.

    Returns:
        The four parts. ``converged``: all surfaces have (curvatures are exact). ``detail``: for surfaces
        ``error_estimates`` and ``evaluations`` of each; ``at_border``, planes whose region or minimum reaches the
        border; ``depths`` of the minima below the center.
    """
    at_least("pairs", pairs, 1)
    positive_number("rise", rise)
    center = risk.parameters()
    curvatures, surfaces = [], []
    for pair in range(pairs):
        directions = random_directions(center, count=2, seed=seed + pair)
        curvatures.append(float(np.trace(plane_hessian(risk, directions))) / 2)
        surfaces.append(loss_surface(risk, directions, span=span, tolerance=tolerance, progress=False))
    areas = [area_below(surface, float(surface["center_loss"]) + rise) for surface in surfaces]
    lowest = [minimum(surface) for surface in surfaces]
    within = {"span": float(span)}
    return {
        "plane_curvature": _mean(curvatures, True, {}, {}),
        "area_below": _of_surfaces(
            surfaces,
            [area.area for area in areas],
            within | {"rise": float(rise)},
            {"at_border": sum(area.reaches_border for area in areas)},
        ),
        "minimum_offset": _of_surfaces(
            surfaces,
            [one.offset for one in lowest],
            within,
            {"at_border": sum(one.on_border for one in lowest), "depths": [one.depth for one in lowest]},
        ),
        "convex_share": _of_surfaces(surfaces, [convex_share(surface) for surface in surfaces], within, {}),
    }


def _of_surfaces(
    surfaces: list[xr.Dataset], values: list[float], setting: Mapping[str, Any], detail: Mapping[str, Any]
) -> Measurement:
    attributes = {
        "error_estimates": [float(surface.attrs["error_estimate"]) for surface in surfaces],
        "evaluations": [int(surface.attrs["evaluations"]) for surface in surfaces],
    }
    return _mean(values, all(surface.attrs["converged"] for surface in surfaces), setting, {**attributes, **detail})


def _mean(values: list[float], converged: bool, setting: Mapping[str, Any], detail: Mapping[str, Any]) -> Measurement:
    mean, error = mean_and_standard_error(values)
    return Measurement(mean, error, converged, setting, detail, values)
