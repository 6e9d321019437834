"""Rescalings of the weights that leave the function alone, and which flatness metrics they move."""

from landscape.rescaling.check import describe_scale_check, scale_check
from landscape.rescaling.search import Rescaling, rescalings

__all__ = ["Rescaling", "describe_scale_check", "rescalings", "scale_check"]
