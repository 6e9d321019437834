"""Which metrics a rescaling moves that leaves the function alone, and by how much."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from landscape.flatness.measurement import Measurements, Metric
from landscape.flatness.table import chosen_metrics, measured
from landscape.rescaling import search
from landscape.rescaling.search import Rescaling
from landscape.risk import EmpiricalRisk

__all__ = ["describe_scale_check", "scale_check"]

_COLUMNS = {
    "rescaling": "str",
    "metric": "str",
    "setting": "str",
    "before": "float64",
    "after": "float64",
    "ratio": "float64",
    "standard_error": "float64",
    "loss_change": "float64",
    "converged": "bool",
    "moves": "boolean",
    "stated": "str",
    "agrees": "boolean",
}
_NONE_FOUND = (
    "No rescaling was found that leaves the function alone: no two neighboring layers trade a factor, as those around "
    "ReLU or before a normalization do. So this check says nothing about the metrics of this model."
)

Row = Mapping[str, Any]  # of the flatness table


def scale_check(
    risk: EmpiricalRisk,
    metrics: Sequence[str] | Mapping[str, Metric | Callable[[EmpiricalRisk, int], Measurements]] | None = None,
    factor: float = 4.0,
    seed: int = 0,
    tolerance: float = 0.01,
    rescalings: Sequence[Rescaling] | None = None,
) -> pd.DataFrame:
    """Measure a model before and after rescalings that leave its function alone.

    Two minima that are one function generalize alike, so a metric that moves can tell them apart by scale alone. The
    metrics' random draws are the same before and after.

    Cost: that of the metrics, once more than there are rescalings.

    Args:
        risk: the function.
        metrics: names of ``METRICS``; or own ones by name, each a :class:`Metric` or ``function(risk, seed)``. None:
            all of ``METRICS``.
        factor: what layers are multiplied by.
        seed: of the metrics' draws.
        tolerance: a metric moves if it changes by more than this share of the larger of its two values, and by more
            than three standard errors.
        rescalings: what to try; None: all that :func:`rescalings` finds.

    Returns:
        One row for each rescaling, metric and setting, with

        - ``before``, ``after``, ``ratio``: values, and after / before;
        - ``standard_error``: of after − before, over the draws: paired where both have the same number, zero where
          nothing is drawn;
        - ``loss_change``: what the rescaling itself changes; see :class:`Rescaling`;
        - ``converged``: whether both values are;
        - ``moves``: missing where a value is NaN;
        - ``stated``: what the metric's entry says that a rescaling does, ``""`` for a plain function;
        - ``agrees``: whether that is borne out. Missing where the entry says "changes" and nothing moved: another
          rescaling may move it.

        ``attrs["summary"]`` says in words what was found, also when no rescaling was and the table is empty.

    Raises:
        TypeError: one name instead of a sequence.
        ValueError: an unknown metric, or a factor that is not positive, or is 1.
    """
    chosen = chosen_metrics(metrics)
    stated = {name: metric.rescaling if isinstance(metric, Metric) else "" for name, metric in chosen.items()}
    found = search.rescalings(risk, factor) if rescalings is None else rescalings
    before = measured(risk, chosen, seed) if found else []
    rows = []
    for rescaling in found:
        with rescaling.applied(risk):
            after = {(row["metric"], row["setting"]): row for row in measured(risk, chosen, seed)}
        about = {"rescaling": rescaling.name, "loss_change": rescaling.loss_change}
        for row in before:
            absent = {**row, "value": math.nan, "converged": False, "draws": ""}  # an eigenvalue that was not found
            other = after.get((row["metric"], row["setting"]), absent)
            rows.append(about | _compared(row, other, stated[row["metric"]], tolerance))
    table = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)
    table.attrs["summary"] = describe_scale_check(table)
    return table


def describe_scale_check(table: pd.DataFrame) -> str:
    """What a scale check found, one line a metric.

    Args:
        table: from :func:`scale_check`, also after a round trip through CSV.
    """
    if table.empty:
        return _NONE_FOUND
    return "\n".join(_line(str(metric), rows) for metric, rows in table.groupby("metric", sort=False))


def _line(metric: str, rows: pd.DataFrame) -> str:
    moves, agrees = (rows[column].astype("boolean") for column in ("moves", "agrees"))  # objects, after CSV
    moved = rows[moves.fillna(False).astype(bool)]
    if moved.empty:
        what = f"not moved by any of {rows['rescaling'].nunique()} rescalings"
    else:
        ratios = moved["ratio"].dropna()
        by = f", by factors from {ratios.min():.3g} to {ratios.max():.3g}" if len(ratios) else ""
        what = f"moved by {moved['rescaling'].nunique()} of {rows['rescaling'].nunique()} rescalings{by}"
    unknown = " (some values are not numbers)" if moves.isna().any() else ""
    stated = next((one for one in rows["stated"] if isinstance(one, str) and one), "")
    said = f"; stated: {stated}" if stated else ""
    disagrees = "" if agrees.dropna().all() else "; THIS DISAGREES"
    return f"{metric}: {what}{unknown}{said}{disagrees}"


def _compared(before: Row, after: Row, stated: str, tolerance: float) -> dict[str, Any]:
    first, second = before["value"], after["value"]
    error = _standard_error(before, after)
    moves = _moves(first, second, error, tolerance)
    agrees = {"unchanged": None if moves is None else not moves, "changes": moves or None}.get(stated)
    return {
        "metric": before["metric"],
        "setting": before["setting"],
        "before": first,
        "after": second,
        "ratio": second / first if first else math.nan,
        "standard_error": error,
        "converged": before["converged"] and after["converged"],
        "moves": moves,
        "stated": stated,
        "agrees": agrees,
    }


def _moves(before: float, after: float, error: float, tolerance: float) -> bool | None:
    if math.isnan(before) or math.isnan(after):
        return None
    if math.isinf(before) or math.isinf(after):
        return before != after
    change = abs(after - before)
    return change > tolerance * max(abs(before), abs(after)) and not change <= 3 * error


def _standard_error(before: Row, after: Row) -> float:
    draws = [json.loads(row["draws"] or "[]") for row in (before, after)]
    if 1 < len(draws[0]) == len(draws[1]):
        with np.errstate(invalid="ignore"):  # two infinite draws
            changes = np.subtract(draws[1], draws[0])
            return float(np.std(changes, ddof=1) / math.sqrt(len(changes)))
    errors = [0.0 if math.isnan(row["standard_error"]) else row["standard_error"] for row in (before, after)]
    return math.hypot(*errors)
