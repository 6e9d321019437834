"""Slices of a volume: the right plane of it, on the right axes, on common levels."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from landscape.plots import Scale, common_scale, volume, volume_panels


def axes():
    return Figure(layout="constrained").add_subplot()


def rendered(figure):
    with io.BytesIO() as file:
        figure.savefig(file, dpi=40)
        return file.tell()


def made(function, points=(5, 7, 9), **attrs):
    axes = [np.linspace(-1, 1, count) for count in points]
    loss = np.array([[[function(a, b, c) for c in axes[2]] for b in axes[1]] for a in axes[0]], dtype=float)
    return xr.Dataset(
        {"loss": (("alpha", "beta", "gamma"), loss), "center_loss": 1.0},
        coords=dict(zip(("alpha", "beta", "gamma"), axes, strict=True)),
        attrs={"method": "grid", "normalization": "filter", "seed": 3, "ignored": "0.bias"} | attrs,
    )


def lines_of(ax):
    (lines,) = [one for one in ax.collections if isinstance(one, QuadContourSet) and not one.filled]
    return lines


@pytest.mark.parametrize(
    ("across", "right", "up"), [("gamma", "alpha", "beta"), ("beta", "alpha", "gamma"), ("alpha", "beta", "gamma")]
)
def test_a_slice_has_the_two_other_coordinates(across, right, up):
    # The loss is a sum of the coordinates with weights that tell them apart, and much more of what is held at zero.
    weights = {"alpha": 1.0, "beta": 2.0, "gamma": 3.0}
    held = weights | {across: 100.0}
    surface = made(lambda a, b, c: 500 + held["alpha"] * a + held["beta"] * b + held["gamma"] * c)
    ax = axes()
    assert volume(surface, ax, across, Scale(490.0, 510.0, False)) is ax
    assert ax.get_title() == f"{across} = 0"
    assert (ax.get_xlabel(), ax.get_ylabel()) == (f"{right} (filter norms)", f"{up} (filter norms)")
    lines, seen = lines_of(ax), 0
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        if len(path.vertices):
            x, y = path.vertices.T
            np.testing.assert_allclose(500 + weights[right] * x + weights[up] * y, level)
            seen += 1
    assert seen >= 2


def test_without_a_point_at_zero_the_nearest_slice_is_named():
    surface = made(lambda a, b, c: 2 + a + c, points=(5, 5, 3)).assign_coords(gamma=[-1.25, -0.25, 0.75])
    assert volume(surface, axes()).get_title() == "gamma = −0.25"


def test_panels_are_three_slices_on_the_levels_of_the_volume():
    surface = made(lambda a, b, c: 1 + a * a + 2 * b * b + 3 * c * c)
    figure = volume_panels(surface, heading="one model")
    assert rendered(figure) > 1000
    panels = figure.axes[:3]
    assert [ax.get_title() for ax in panels] == ["gamma = 0", "beta = 0", "alpha = 0"]
    scale = common_scale([surface])
    for ax in panels:
        (filled,) = [one for one in ax.collections if isinstance(one, QuadContourSet) and one.filled]
        np.testing.assert_array_equal(filled.levels, scale.levels)
    assert "5×7×9 points, each evaluated" in figure.get_supxlabel()
    assert "○ lowest point of the slice" in figure.get_supxlabel()
    assert figure.get_suptitle() == "one model"


def test_the_circle_is_the_lowest_point_of_the_slice():
    # Lowest in the volume far from gamma = 0; on that slice lowest at alpha = 0.5, beta = -1/3.
    ax = volume(made(lambda a, b, c: 5 + (a - 0.5) ** 2 + (b + 1 / 3) ** 2 - 3 * c * a), axes())
    (circle,) = [one for one in ax.lines if one.get_marker() == "o"]
    np.testing.assert_allclose(circle.get_xydata(), [[0.5, -1 / 3]])


def test_captions_of_adaptive_volumes():
    surface = made(lambda a, b, c: 1 + a * a, method="adaptive", evaluations=512, error_estimate=0.004, converged=0)
    text = volume_panels(surface).get_supxlabel()
    assert "512 points evaluated, interpolated, largest error about 0.4 % of the range" in text
    assert "NOT CONVERGED" in text
    assert "each evaluated" not in text


def test_labels_are_those_of_the_volume_and_not_of_the_slice():
    kinds = [{"kind": "hessian", "eigenvalue": 4.0}, {"kind": "between"}, {"kind": "random"}]
    surface = made(lambda a, b, c: 2 + a + b + c, directions=json.dumps(kinds))
    ax = volume(surface, axes(), "alpha")
    assert ax.get_xlabel() == "beta (between checkpoints, 0 to 1)"
    assert ax.get_ylabel() == "gamma (filter norms)"


def test_what_is_not_finite_is_hatched():
    surface = made(lambda a, b, c: np.inf if a > 0.2 else 1 + a * a)
    figure = volume_panels(surface)
    (filled,) = [one for one in figure.axes[0].collections if isinstance(one, QuadContourSet) and one.filled]
    assert max(path.vertices[:, 0].max() for path in filled.get_paths() if len(path.vertices)) <= 0.2
    assert figure.axes[0].patch.get_hatch() == "///"
    assert rendered(figure) > 1000


def test_an_unknown_coordinate():
    with pytest.raises(ValueError, match="across: expected one of alpha, beta, gamma, got 'delta'"):
        volume(made(lambda a, b, c: 1 + a), axes(), "delta")


def test_a_plane_is_not_a_volume(plane):
    with pytest.raises(ValueError, match="loss: expected the dimensions alpha, beta, gamma, got alpha, beta"):
        volume_panels(plane(lambda a, b: 1.0))


def test_a_split_must_be_chosen_first():
    one = made(lambda a, b, c: 1 + a)
    surface = xr.concat([one, one], pd.Index(["train", "test"], name="split"))
    with pytest.raises(ValueError, match=r"choose along split first: surface.sel\(split='train'\)"):
        volume(surface, axes())
