"""Radial profiles: closed forms on a quadratic, bands against the statistics they are made of, and the picture."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from landscape import plots, radial_profile, radial_profile_band
from landscape.statistics import crossed_interval, mean_interval


def quadratic(a=1.0, b=3.0, c=0.5, points=201, **dims):
    """The surface c + (a α² + b β²) / 2, whose mean over a circle of radius r is c + (a + b) r² / 4."""
    axis = np.linspace(-1, 1, points)
    alpha, beta = np.meshgrid(axis, axis, indexing="ij")
    loss = xr.DataArray(c + (a * alpha**2 + b * beta**2) / 2, dims=("alpha", "beta"))
    surface = xr.Dataset(
        {"loss": loss, "accuracy": 1 - loss / 10, "loss_standard_error": loss}, {"alpha": axis, "beta": axis}
    )
    return surface.expand_dims(dims) if dims else surface


def test_the_mean_over_a_circle_of_a_quadratic():
    profile = radial_profile(quadratic())
    radius = profile["radius"].values
    assert (radius[0], radius[-1], len(radius)) == (0, 1, 26)
    # Linear interpolation between 201 points a side errs by at most (a + b) h² / 8 with h = 0.01.
    np.testing.assert_allclose(profile["loss"], 0.5 + radius**2, atol=1e-4)
    np.testing.assert_allclose(profile["loss_rise"], radius**2, atol=1e-4)
    np.testing.assert_allclose(profile["accuracy"], 1 - (0.5 + radius**2) / 10, atol=1e-5)
    assert "loss_standard_error" not in profile  # the mean of standard errors is none of the mean


def test_chosen_radii_and_other_dimensions_stay():
    profile = radial_profile(quadratic(pair=[0, 1], split=["train"]), radii=[0.0, 0.5])
    assert profile["loss"].sizes == {"pair": 2, "split": 1, "radius": 2}
    np.testing.assert_allclose(profile["loss_rise"].sel(radius=0.5), 0.25, atol=1e-4)


def test_a_circle_that_meets_infinity_has_an_infinite_mean():
    surface = quadratic(points=21)
    surface["loss"][{"alpha": 20, "beta": 10}] = np.inf
    profile = radial_profile(surface, radii=[0.5, 1.0])
    assert np.isfinite(profile["loss"].values[0])
    assert not np.isfinite(profile["loss"].values[1])


@pytest.mark.parametrize("radii", [[-0.1], [0.5, 1.2]])
def test_radii_beyond_the_surface_are_refused(radii):
    with pytest.raises(ValueError, match="radii: expected numbers from 0 to 1, the edge of the surface, got"):
        radial_profile(quadratic(points=5), radii=radii)


def profiles(seeds, pairs):
    """Rises (1 + 0.1 seed) r² + 0.01 pair r."""
    each = [
        [
            radial_profile(quadratic(a=2 * (1 + 0.1 * seed) + 0.02 * pair, b=2 * (1 + 0.1 * seed)))
            for pair in range(pairs)
        ]
        for seed in range(seeds)
    ]
    return xr.concat([xr.concat(row, "pair") for row in each], "training_seed")


def test_bands_are_over_seeds_and_planes():
    found = profiles(4, 3)
    band = radial_profile_band(found, confidence=0.9)
    at = found["loss_rise"].sel(radius=1.0).transpose("training_seed", "pair").values
    expected = crossed_interval(at, 0.9)
    last = band.sel(radius=1.0)
    assert float(last["loss_rise"]) == pytest.approx(expected.value)
    assert float(last["loss_rise_low"]) == pytest.approx(expected.low)
    assert float(last["loss_rise_high"]) == pytest.approx(expected.high)
    assert band.attrs["confidence"] == 0.9


def test_with_few_planes_bands_are_over_seeds():
    for found in (profiles(3, 2), profiles(3, 1)):
        band = radial_profile_band(found).sel(radius=1.0)
        means = found["loss_rise"].sel(radius=1.0).mean("pair").values
        expected = mean_interval(means)
        assert float(band["loss_rise_low"]) == pytest.approx(expected.low)
        assert float(band["loss_rise_high"]) == pytest.approx(expected.high)


def test_the_picture_tells_models_apart_and_shares_axes_in_a_row():
    bands = {"standard": radial_profile_band(profiles(3, 3)), "drop$attack": radial_profile_band(profiles(3, 1))}
    figure = plots.profile_panels({"a": bands, "b": bands, "c": bands}, "heading", columns=2)
    axes = figure.axes
    assert [ax.get_title() for ax in axes[:3]] == ["a", "b", "c"]
    lines = axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}) == 2
    assert [line.get_label() for line in lines] == ["standard", r"drop\$attack"]
    np.testing.assert_allclose(lines[0].get_ydata(), bands["standard"]["loss_rise"])
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert not axes[3].axison
    assert "95% intervals" in figure.get_supxlabel()
    ax = Figure().subplots()
    assert plots.profile(bands, ax, "loss") is ax
    assert "nats" in ax.get_ylabel()


def test_surfaces_in_several_rows():
    names = ["one", "two", "three"]
    surfaces = {name: quadratic(points=9).assign(center_loss=0.5) for name in names}
    for draw in (plots.contour_panels, plots.relief_panels):
        figure = draw(surfaces, columns=2)
        titled = [ax for ax in figure.axes if ax.get_title()]
        assert [ax.get_title().split("\n")[0] for ax in titled] == names
        tops = [round(ax.get_position().y1, 2) for ax in titled]
        assert tops[0] == tops[1] > tops[2]
