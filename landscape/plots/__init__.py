"""Matplotlib plots, one file each: labelled data in, drawn on the axes they are given.

Functions named ``…_panels`` arrange several in one new figure: models on common axes, levels and colors, or the parts
of one picture.
"""

from landscape.plots.contour import contour, contour_panels
from landscape.plots.correlation import gap_panels, gap_scatter
from landscape.plots.curves import curve_panels, curves
from landscape.plots.difference import difference, difference_panels
from landscape.plots.eigenvalue_ratio import eigenvalue_ratio, eigenvalue_ratio_panels
from landscape.plots.files import save
from landscape.plots.flatness import flatness_intervals, flatness_panels
from landscape.plots.heat_map import metric_heat_map, metric_heat_map_panels
from landscape.plots.intervals import difference_intervals, readout_intervals, readout_panels
from landscape.plots.line import line, line_panels
from landscape.plots.penalty import penalty, penalty_panels
from landscape.plots.profile import profile, profile_panels
from landscape.plots.relief import relief, relief_panels
from landscape.plots.scale import Scale, common_scale
from landscape.plots.spectrum import spectrum, spectrum_panels
from landscape.plots.trajectory import trajectory, trajectory_panels
from landscape.plots.volume import volume, volume_panels

__all__ = [
    "Scale",
    "common_scale",
    "contour",
    "contour_panels",
    "curve_panels",
    "curves",
    "difference",
    "difference_intervals",
    "difference_panels",
    "eigenvalue_ratio",
    "eigenvalue_ratio_panels",
    "flatness_intervals",
    "flatness_panels",
    "gap_panels",
    "gap_scatter",
    "line",
    "line_panels",
    "metric_heat_map",
    "metric_heat_map_panels",
    "penalty",
    "penalty_panels",
    "profile",
    "profile_panels",
    "readout_intervals",
    "readout_panels",
    "relief",
    "relief_panels",
    "save",
    "spectrum",
    "spectrum_panels",
    "trajectory",
    "trajectory_panels",
    "volume",
    "volume_panels",
]
