"""Loss surfaces in three dimensions to turn by hand, with plotly: figures that open in any browser, without a network.

The same data, scales and colors as the relief of :mod:`landscape.plots`.
"""

from landscape.interactive.cameras import LINKED_CAMERAS
from landscape.interactive.description import describe
from landscape.interactive.files import write_html
from landscape.interactive.overlay import overlay
from landscape.interactive.surfaces import surfaces

__all__ = ["LINKED_CAMERAS", "describe", "overlay", "surfaces", "write_html"]
