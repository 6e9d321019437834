"""Matplotlib plots, one file each: labelled data in, drawn on the axes they are given.

Functions named ``…_panels`` arrange several models in one new figure, on common axes, levels and colors.
"""

from landscape.plots.contour import contour, contour_panels
from landscape.plots.curves import curve_panels, curves
from landscape.plots.relief import relief, relief_panels
from landscape.plots.scale import Scale, common_scale

__all__ = [
    "Scale",
    "common_scale",
    "contour",
    "contour_panels",
    "curve_panels",
    "curves",
    "relief",
    "relief_panels",
]
