"""What a penalty check says: means over masks, ratios, and up to which epsilon an expansion is a fair description."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from landscape.statistics import Interval, mean_interval

__all__ = ["largest_epsilon_within", "summarize_penalty"]

_MEASURED = (
    "perturbation", "draw", "norm", "rise", "rise_noise", "first_order", "second_order", "eq_12",
    "expected_first_order",
)  # fmt: skip
_CONTROLS = {"gradient": "gradient_rise", "scaled gradient": "scaled_gradient_rise", "random": "random_rise"}
_DESCRIPTIONS = ("first_order", "first_and_second_order", "eq_12")


def summarize_penalty(check: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    r"""Means of a penalty check over masks, with intervals.

    Args:
        check: from :func:`landscape.penalty_check`; several, one below the other, with columns that tell them apart
            (a model's name, a training seed), are kept apart.
        confidence: of Student's t intervals over masks (over random directions for their rise). They say how well the
            mean over all masks is known, for these weights and examples.

    Returns:
        One row for each site, epsilon and ``quantity``, with ``value``, ``low``, ``high`` and ``n``; beside them the
        columns of the check that tell sites and settings apart. The quantities:

        - ``rise``, ``first_order``, ``second_order``, ``first_and_second_order`` (their sum), ``eq_12`` and
          ``expected_first_order`` of the masked perturbations; ``norm``, of the perturbation;
        - ``random_rise``; ``gradient_rise`` and ``scaled_gradient_rise``, of which there is one each;
        - ``rise_noise``;
        - ``rise / first_order``, ``rise / first_and_second_order`` and ``rise / eq_12``: ratios R of the means, which
          masks that hit nothing do not upset. Their interval is that of the mean of
          :math:`R + (a_j - R \, b_j) / \bar b`, linearized (Cochran, "Sampling Techniques", third edition, 1977,
          chapter 6). NaN where the denominator is zero.

    Raises:
        ValueError: missing columns, or no masked perturbation.
    """
    keys = _keys(check)
    rows = [
        about | {"quantity": quantity, **interval._asdict()}
        for about, group in _groups(check, keys)
        for quantity, interval in _quantities(group, confidence)
    ]
    return pd.DataFrame(rows, columns=[*keys, "quantity", "value", "low", "high", "n"])


def largest_epsilon_within(check: pd.DataFrame, tolerance: float = 0.1) -> pd.DataFrame:
    """Up to which epsilon the expansions, and equation 12, describe the measured rise.

    Args:
        check: from :func:`landscape.penalty_check`.
        tolerance: largest distance from 1 of the ratio between the mean rise and the mean of its description.

    Returns:
        One row for each site and ``description``: ``first_order``, ``first_and_second_order``, ``eq_12``. ``epsilon``
        is the largest one up to which all are within the tolerance, NaN if the smallest is not; ``next_epsilon`` is the
        one after it, the first that is not, NaN if all are. Epsilons at which rounding alone could move the ratio by
        the tolerance tell nothing and are passed over; ``epsilons`` is how many are left.

    Raises:
        ValueError: as for :func:`summarize_penalty`, or a tolerance that is not positive.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance: expected a positive share, such as 0.1, got {tolerance}")
    keys = [key for key in _keys(check) if key != "epsilon"]
    rows = []
    for about, group in _groups(check, keys):
        means = pd.DataFrame({epsilon: _means(part) for epsilon, part in group.groupby("epsilon")}).T.sort_index()
        for description in _DESCRIPTIONS:
            known = means[means["rise_noise"] <= tolerance * means[description].abs()]
            ratios = known["rise"] / known[description]
            within = ((ratios - 1).abs() <= tolerance).to_numpy()
            last = int(np.argmin(within)) if not within.all() else len(within)
            epsilons = [float("nan"), *map(float, known.index), float("nan")]
            rows.append(
                about
                | {"description": description, "epsilon": epsilons[last], "next_epsilon": epsilons[last + 1]}
                | {"epsilons": len(known)}
            )
    return pd.DataFrame(rows, columns=[*keys, "description", "epsilon", "next_epsilon", "epsilons"])


def _keys(check: pd.DataFrame) -> list[str]:
    """The columns that tell sites, epsilons and settings apart."""
    missing = [column for column in ("site", "epsilon", *_MEASURED) if column not in check]
    if missing:
        raise ValueError(f"check: expected what penalty_check returns, but {', '.join(missing)} is missing")
    if not (check["perturbation"] == "masked").any():
        raise ValueError("check: expected masked perturbations, got none")
    return [str(column) for column in check.columns if column not in _MEASURED]


def _groups(check: pd.DataFrame, keys: list[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    for values, group in check.groupby(keys, sort=False, dropna=False):
        yield dict(zip(keys, values, strict=True)), group


def _quantities(group: pd.DataFrame, confidence: float) -> Iterator[tuple[str, Interval]]:
    masked = _masked(group)
    for quantity in ("rise", *_DESCRIPTIONS, "second_order", "expected_first_order", "norm"):
        yield quantity, mean_interval(masked[quantity], confidence)
    for perturbation, quantity in _CONTROLS.items():
        rises = group.loc[group["perturbation"] == perturbation, "rise"].to_numpy()
        if len(rises):
            yield quantity, mean_interval(rises, confidence)
    yield "rise_noise", Interval(float(group["rise_noise"].iloc[0]), math.nan, math.nan, 1)
    for description in _DESCRIPTIONS:
        yield f"rise / {description}", _ratio(masked["rise"], masked[description], confidence)


def _masked(group: pd.DataFrame) -> Mapping[str, np.ndarray]:
    masked = group[group["perturbation"] == "masked"]
    columns = ("rise", "first_order", "second_order", "eq_12", "expected_first_order", "norm")
    found = {column: masked[column].to_numpy(dtype=np.float64) for column in columns}
    return found | {"first_and_second_order": found["first_order"] + found["second_order"]}


def _means(group: pd.DataFrame) -> dict[Hashable, float]:
    masked = _masked(group)
    means: dict[Hashable, float] = {name: float(masked[name].mean()) for name in ("rise", *_DESCRIPTIONS)}
    return means | {"rise_noise": float(group["rise_noise"].iloc[0])}


def _ratio(numerators: np.ndarray, denominators: np.ndarray, confidence: float) -> Interval:
    mean = denominators.mean()
    if mean == 0 or not np.isfinite([*numerators, mean]).all():
        return Interval(math.nan, math.nan, math.nan, len(numerators))
    ratio = numerators.mean() / mean
    return mean_interval(ratio + (numerators - ratio * denominators) / mean, confidence)
