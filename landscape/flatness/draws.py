"""Random directions for flatness metrics, and means over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from landscape.directions import random_directions
from landscape.flatness.measurement import Measurement
from landscape.parameters import Direction, Point

__all__ = ["draw_direction", "mean_and_standard_error", "mean_over_draws"]


def draw_direction(
    center: Point,
    seed: int,
    index: int,
    normalization: Literal["filter", "none"] = "none",
    ignore: Sequence[str] = (),
) -> Direction:
    """Draw number ``index`` of a seed: the same Gaussian numbers for every model with these parameters.

    It is made when it is needed: twenty directions of a large model would not fit into memory.
    """
    own_seed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
    (direction,) = random_directions(center, count=1, seed=own_seed, normalization=normalization, ignore=ignore)
    return direction


def mean_and_standard_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and its standard error from the spread of the values; NaN for one value, or if the mean is not finite."""
    mean = float(np.mean(values))
    if len(values) < 2 or not math.isfinite(mean):
        return mean, math.nan
    return mean, float(np.std(values, ddof=1) / math.sqrt(len(values)))


def mean_over_draws(values: Sequence[float], setting: Mapping[str, Any], detail: Mapping[str, Any]) -> Measurement:
    """The mean over draws as a measurement, which has converged if it is finite."""
    mean, error = mean_and_standard_error(values)
    return Measurement(mean, error, math.isfinite(mean), setting, detail, [float(value) for value in values])
