"""From a surface to a curve: the mean of the loss on circles around the center."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from landscape.statistics import crossed_band, mean_band

__all__ = ["radial_profile", "radial_profile_band"]

_OVER = ("training_seed", "pair")  # what a band is taken over


def radial_profile(surface: xr.Dataset, radii: Sequence[float] | None = None, rays: int = 180) -> xr.Dataset:
    """The mean of the loss, and of each metric, on circles around the center of a plane.

    Along filter-normalized directions a radius of 1 is a move about as long as the weights themselves. Between the
    points of the rendered surface the values are interpolated linearly.

    Args:
        surface: with dimensions ``alpha`` and ``beta``, and any others (``model``, ``pair``, ``split`` …), which stay.
        radii: in the units of alpha and beta; None: 26 from 0 to the edge.
        rays: points on each circle.

    Returns:
        ``loss``, each metric, and ``loss_rise``, the loss above that at radius 0, with the dimension ``radius`` in place
        of alpha and beta. A circle that meets a value that is not finite has a mean that is not.

    Raises:
        ValueError: a radius that is negative or goes beyond the surface.
    """  # noqa: E501 - the names of the result
    edge = min(float(abs(surface[axis]).max()) for axis in ("alpha", "beta"))
    chosen = np.linspace(0, edge, 26) if radii is None else np.asarray(radii, dtype=np.float64)
    if chosen.min() < 0 or chosen.max() > edge * (1 + 1e-9):
        raise ValueError(f"radii: expected numbers from 0 to {edge:g}, the edge of the surface, got {chosen.tolist()}")
    angles = np.linspace(0, 2 * np.pi, rays, endpoint=False)
    radius = xr.DataArray(np.minimum(chosen, edge), dims="radius", coords={"radius": chosen})
    angle = xr.DataArray(angles, dims="ray")
    names = [
        str(name)
        for name, values in surface.data_vars.items()
        if {"alpha", "beta"} <= set(values.dims) and name != "loss_standard_error"
    ]
    places = {"alpha": radius * np.cos(angle), "beta": radius * np.sin(angle)}
    found = (
        surface[names]
        .interp(places, method="linear")
        .mean("ray", skipna=False)
        .drop_vars(["alpha", "beta"], errors="ignore")
    )
    center = surface["loss"].interp(alpha=0.0, beta=0.0).drop_vars(["alpha", "beta"], errors="ignore")
    with np.errstate(invalid="ignore"):
        return found.assign(loss_rise=found["loss"] - center)


def radial_profile_band(profiles: xr.Dataset, confidence: float = 0.95) -> xr.Dataset:
    """The mean profile over training seeds and direction pairs, with its interval at each radius by itself.

    Args:
        profiles: from :func:`radial_profile`, with the dimension ``training_seed``, and ``pair`` if there are several.
        confidence: of each interval.

    Returns:
        Each variable, and ``<variable>_low`` and ``<variable>_high``. With at least three seeds and three pairs, the
        interval is for other training seeds and other planes (:func:`landscape.statistics.crossed_band`); otherwise it
        is for other training seeds and these planes, averaged.
    """
    found = {}
    for name, values in profiles.data_vars.items():
        if "pair" in values.dims and min(values.sizes["training_seed"], values.sizes["pair"]) < 3:
            values = values.mean("pair", skipna=False)  # too few to tell how much other planes would differ
        over = [dim for dim in ("training_seed", "pair") if dim in values.dims]
        rest = [dim for dim in values.dims if dim not in over]
        array = values.transpose(*rest, *over).values
        band = crossed_band(array, confidence) if len(over) == 2 else mean_band(array, -1, confidence)
        for suffix, part in zip(("", "_low", "_high"), band, strict=True):
            found[f"{name}{suffix}"] = xr.Variable(rest, part)
    kept = {name: values for name, values in profiles.coords.items() if values.dims == (name,) and name not in _OVER}
    return xr.Dataset(found, kept, profiles.attrs | {"confidence": confidence})
