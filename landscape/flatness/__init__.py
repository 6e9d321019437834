"""Flatness metrics and the table that compares minima by them.

``metrics.py`` lists them; ``measurement.py`` says what one is. Each family has a file: curvature, worst case, average
case, invariant, planes, first order.
"""

from landscape.flatness.average_case import basin_radius, filter_normalized_rise, isotropic_rise, pac_bayes_sigma
from landscape.flatness.curvature import gauss_newton_metrics, hessian_metrics
from landscape.flatness.first_order import gradient_norm_metrics
from landscape.flatness.invariant import filter_normalized_trace, fisher_rao_norm, relative_flatness
from landscape.flatness.measurement import Measurement, Metric
from landscape.flatness.metrics import METRICS
from landscape.flatness.planes import plane_metrics
from landscape.flatness.table import flatness_table
from landscape.flatness.verdict import flatness_verdicts
from landscape.flatness.worst_case import adaptive_sharpness, epsilon_sharpness, m_sharpness, sam_sharpness

__all__ = [
    "METRICS",
    "Measurement",
    "Metric",
    "adaptive_sharpness",
    "basin_radius",
    "epsilon_sharpness",
    "filter_normalized_rise",
    "filter_normalized_trace",
    "fisher_rao_norm",
    "flatness_table",
    "flatness_verdicts",
    "gauss_newton_metrics",
    "gradient_norm_metrics",
    "hessian_metrics",
    "isotropic_rise",
    "m_sharpness",
    "pac_bayes_sigma",
    "plane_metrics",
    "relative_flatness",
    "sam_sharpness",
]
