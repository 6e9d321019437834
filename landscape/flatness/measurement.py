"""What a flatness metric is, and what it returns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

__all__ = ["Measurement", "Measurements", "Metric"]


class Measurement(NamedTuple):
    """One number about one minimum.

    Attributes:
        value: the number.
        standard_error: of the value, over the metric's own random draws; NaN where nothing is drawn.
        converged: false where an iteration stopped before its tolerance, or the value is only a bound.
        setting: what was asked for (a radius, a layer …): numbers of two models with one metric and one setting can be
            compared.
        detail: what was found on the way (iterations, residuals …), in types that JSON has.
        draws: where the value is a mean or a median over random draws, the value of each. Draw i is the same draw for
            every model that is measured with the same seed.
    """

    value: float
    standard_error: float = math.nan
    converged: bool = True
    setting: Mapping[str, Any] = {}
    detail: Mapping[str, Any] = {}
    draws: Sequence[float] = ()


Measurements = Measurement | Sequence[Measurement] | Mapping[str, Measurement | Sequence[Measurement]]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A flatness metric: how it is computed, and what a reader must know to compare two of its numbers.

    Attributes:
        measure: ``measure(risk, seed, **options)`` returns one measurement, or one for each setting; functions that
            find several metrics from the same passes return them by ``part``.
        formula: in words and symbols; θ are the weights, L the risk, g its gradient, H its Hessian, n the number of
            parameters, w_i a filter.
        reference: where it comes from.
        larger: what a larger number means: ``"sharper"`` or ``"flatter"``.
        cost: in passes over the data.
        rescaling: what a rescaling of the weights that leaves the function alone (two ReLU layers by c and 1/c, a
            layer before BatchNorm by c) does to the number: ``"unchanged"`` or ``"changes"``.
        part: the key of what ``measure`` returns; ``""`` if it returns nothing else.
        options: settings that differ from the function's defaults.
    """

    measure: Callable[..., Measurements]
    formula: str
    reference: str
    larger: Literal["sharper", "flatter"]
    cost: str
    rescaling: Literal["unchanged", "changes"]
    part: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def with_options(self, **options: Any) -> Metric:
        """The same metric with other settings, such as ``METRICS["sam_sharpness"].with_options(radii=(0.1, 0.5))``."""
        return dataclasses.replace(self, options={**self.options, **options})
