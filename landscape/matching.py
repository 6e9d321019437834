"""Weights of several runs at one training loss: an under-fitted model looks flat, so flatness is compared there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from scipy.optimize import brentq
from tqdm.auto import tqdm

from landscape.combinations import combined
from landscape.evaluation.batch_norm import batch_norm_layers
from landscape.parameters import Point
from landscape.risk import EmpiricalRisk
from landscape.trajectories import Checkpoint, loaded

__all__ = ["Match", "match_training_loss"]

Key = TypeVar("Key", bound=Hashable)

_BETWEEN = (0.25, 0.5, 0.75)  # where a segment between two checkpoints is looked at for a barrier


@dataclasses.dataclass(frozen=True)
class Match:
    """One run at the common training loss.

    Attributes:
        loss: that was reached; NaN if none was.
        point: the weights; None if the run is refused.
        place: position among the checkpoints: 3 is the fourth, 3.4 lies on the straight line from it to the fifth.
        refused: why there is no point; empty if there is one.
    """

    loss: float
    point: Point | None = None
    place: float = math.nan
    refused: str = ""


def match_training_loss(
    risks: Mapping[Key, EmpiricalRisk],
    checkpoints: Mapping[Key, Sequence[Checkpoint]],
    loss: float | None = None,
    tolerance: float = 0.02,
    progress: bool = True,
) -> dict[Key, Match]:
    """For each run, its weights at a common training loss.

    The first checkpoint whose training loss is that, within the tolerance; otherwise the first two in a row with the
    common loss between theirs, and the point on the straight line between them at which it is met. The loss there is
    evaluated, not interpolated. A run is refused, with the reason, if it never comes down to the common loss, if it
    begins below it, or if the loss rises above both ends on that line: then weights between two checkpoints are no
    stage of the training.

    Cost: one forward pass over the data for each checkpoint, and about ten for a run that needs a line.

    Args:
        risks: run to the risk on training data, the same for all runs.
        checkpoints: run to its weights in the order of training, or functions that load them.
        loss: the common one; None: the lowest that every run reaches, which is the largest of the runs' lowest losses.
        tolerance: relative difference from the common loss that counts as equal.
        progress: show a progress bar on standard error.

    Raises:
        ValueError: no runs, a run without checkpoints, a loss or tolerance that is not positive, or a model with
            BatchNorm whose statistics belong to other weights: build the risk with ``statistics=``.
    """
    if not risks:
        raise ValueError("risks: expected at least one run, got none")
    for name, number in {"loss": 1.0 if loss is None else loss, "tolerance": tolerance}.items():
        if not (math.isfinite(number) and number > 0):
            raise ValueError(f"{name}: expected a positive number, got {number}")
    for run, risk in risks.items():
        if not checkpoints.get(run):
            raise ValueError(f"checkpoints: expected some of every run, got none of {run!r}")
        if batch_norm_layers(risk.model) and "batch_norm" not in risk.options:
            raise ValueError(
                f"run {run!r}: BatchNorm's statistics belong to the weights in the model, and not to earlier ones; "
                "build the risk with EmpiricalRisk(..., statistics=training_batches)"
            )
    losses: dict[Key, list[float]] = {}
    count = sum(len(checkpoints[run]) for run in risks)
    with tqdm(total=count, desc="training losses", unit="checkpoint", disable=not progress) as bar:
        for run, risk in risks.items():
            losses[run] = []
            for checkpoint in checkpoints[run]:
                losses[run].append(risk(loaded(checkpoint)).loss)
                bar.update()
    common = max(min(found) for found in losses.values()) if loss is None else loss
    return {run: _matched(risk, checkpoints[run], losses[run], common, tolerance) for run, risk in risks.items()}


def _matched(
    risk: EmpiricalRisk, checkpoints: Sequence[Checkpoint], losses: Sequence[float], common: float, tolerance: float
) -> Match:
    roles = risk.parameters().roles
    for place, loss in enumerate(losses):
        if abs(loss - common) <= tolerance * common:
            return Match(loss, Point(loaded(checkpoints[place]), roles), place)
        if loss < common:
            break
    else:
        lowest = min(losses)
        return Match(math.nan, refused=f"its training loss comes down to {lowest:.4g} only, not to {common:.4g}")
    if place == 0:
        return Match(
            math.nan, refused=f"its first checkpoint has a training loss of {losses[0]:.4g}, below {common:.4g}"
        )
    ends = [loaded(checkpoints[index]) for index in (place - 1, place)]

    def excess(share: float) -> float:
        return risk(combined(ends, [1 - share, share])).loss - common

    highest = max(excess(share) for share in _BETWEEN)
    if not highest + common <= losses[place - 1] * (1 + tolerance):
        return Match(
            math.nan,
            refused=f"between checkpoints {place - 1} and {place} the training loss rises to {highest + common:.4g}, "
            f"above both ends ({losses[place - 1]:.4g} and {losses[place]:.4g})",
        )
    share = float(brentq(excess, 0, 1, xtol=1e-4))
    point = Point(combined(ends, [1 - share, share]), roles)
    loss = risk(point).loss
    if abs(loss - common) > tolerance * common:
        return Match(math.nan, refused=f"the nearest point between its checkpoints has a training loss of {loss:.4g}")
    return Match(loss, point, place - 1 + share)
