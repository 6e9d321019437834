"""Surfaces by hand that are not symmetric in alpha and beta, with two splits and an accuracy."""

import numpy as np
import pytest
import xarray as xr


def loss(alpha, beta, steep, lowest):
    return lowest + steep * (3 * (alpha - 0.25) ** 2 + (beta + 0.5) ** 2)


@pytest.fixture
def model():
    """Makes a surface as ``loss_surface`` returns it for a dictionary of risks.

    The train loss is ``lowest + steep (3 (alpha - 1/4)² + (beta + 1/2)²)``, the test loss 0.25 more, and the accuracy
    ``1 / (1 + |loss|)``. The polynomial is one that cubic splines interpolate without an error.
    """

    def make(steep=1.0, lowest=0.5, points=(9, 9), span=1.0, splits=("train", "test"), **attrs):
        alpha, beta = (np.linspace(-span, span, count) for count in points)
        places = np.meshgrid(alpha, beta, indexing="ij")
        losses = np.stack([loss(*places, steep, lowest + 0.25 * index) for index in range(2)])
        centers = np.array([loss(0.0, 0.0, steep, lowest + 0.25 * index) for index in range(2)])
        surface = xr.Dataset(
            {
                "loss": (("split", "alpha", "beta"), losses),
                "loss_standard_error": (("split", "alpha", "beta"), 0 * losses + 0.01),
                "accuracy": (("split", "alpha", "beta"), 1 / (1 + np.abs(losses))),
                "center_loss": ("split", centers),
                "center_accuracy": ("split", 1 / (1 + np.abs(centers))),
            },
            coords={"split": ["train", "test"], "alpha": alpha, "beta": beta},
            attrs={"normalization": "filter", "seed": 3, "ignored": "0.bias", "method": "grid"} | attrs,
        )
        return surface.sel(split=list(splits)) if splits else surface.sel(split="train", drop=True)

    return make
