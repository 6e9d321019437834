"""Heat maps of the eigenvalue ratio: cells, common colors, and marks on what is not to be trusted."""

import io

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from landscape.plots import eigenvalue_ratio, eigenvalue_ratio_panels


def axes():
    return Figure(layout="constrained").add_subplot()


def rendered(figure):
    with io.BytesIO() as file:
        figure.savefig(file, dpi=40)
        return file.tell()


def made(smallest, converged=lambda a, b: True, largest=4.0, points=(5, 7)):
    """Alpha has five points and beta seven, so that neither can be taken for the other."""
    alpha, beta = (np.linspace(-1, 1, count) for count in points)
    grid = [[(a, b) for b in beta] for a in alpha]
    low = np.array([[smallest(a, b) for a, b in row] for row in grid])
    holds = np.array([[converged(a, b) for a, b in row] for row in grid])
    variables = {
        "ratio": np.abs(low / largest),
        "smallest_eigenvalue": low,
        "largest_eigenvalue": np.full(low.shape, largest),
        "converged": holds,
    }
    return xr.Dataset(
        {name: (("alpha", "beta"), values) for name, values in variables.items()},
        coords={"alpha": alpha, "beta": beta},
        attrs={"method": "grid", "normalization": "filter", "seed": 3, "ignored": "0.bias"},
    )


def mesh_of(ax):
    (mesh,) = [one for one in ax.collections if isinstance(one, QuadMesh)]
    return mesh


def test_each_cell_is_the_ratio_at_its_middle():
    surface = made(lambda a, b: 2 + a + b / 2)
    ax = axes()
    assert eigenvalue_ratio(surface, ax) is ax
    mesh = mesh_of(ax)
    corners = mesh.get_coordinates()
    middles = (corners[:-1, :-1] + corners[1:, 1:]) / 2
    np.testing.assert_allclose(
        mesh.get_array(), (2 + middles[..., 0] + middles[..., 1] / 2) / 4, rtol=1e-9
    )  # right is alpha, up is beta
    assert mesh.get_array().shape == (7, 5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("alpha (filter norms)", "beta (filter norms)")


def test_the_color_scale_starts_at_zero_and_holds_the_largest():
    mesh = mesh_of(eigenvalue_ratio(made(lambda a, b: 2 + a), axes()))
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0, 0.75)


def crosses_of(ax):
    return {tuple(at) for one in ax.lines if one.get_marker() == "x" for at in one.get_xydata()}


def test_points_that_have_not_converged_are_crossed():
    ax = eigenvalue_ratio(made(lambda a, b: 2 + a, converged=lambda a, b: a < 1 or b > -1 / 2 or b == -1), axes())
    np.testing.assert_allclose(list(crosses_of(ax)), [(1.0, -2 / 3)])
    assert {one.get_color() for one in ax.lines} == {"black", "white"}  # seen on dark and on bright cells


def test_where_all_have_converged_nothing_is_crossed():
    assert crosses_of(eigenvalue_ratio(made(lambda a, b: 2 + a), axes())) == set()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_hatched_and_not_crossed(bad):
    surface = made(lambda a, b: bad if a == 1 else 2 + a, converged=lambda a, b: a < 1)
    ax = eigenvalue_ratio(surface, axes())
    np.testing.assert_array_equal(np.ma.getmaskarray(mesh_of(ax).get_array()), [[False] * 4 + [True]] * 7)
    assert ax.patch.get_hatch() == "///"
    assert crosses_of(ax) == set()
    assert rendered(ax.figure) > 1000


def test_the_line_is_where_the_smallest_eigenvalue_changes_its_sign():
    ax = eigenvalue_ratio(made(lambda a, b: a - 0.25), axes())
    lines = [one for one in ax.collections if isinstance(one, QuadContourSet)]
    assert lines
    for one in lines:
        np.testing.assert_allclose(np.concatenate([path.vertices for path in one.get_paths()])[:, 0], 0.25)


@pytest.mark.parametrize("shift", [3, -3], ids=["convex everywhere", "nowhere"])
def test_no_line_where_the_sign_stays(shift):
    ax = eigenvalue_ratio(made(lambda a, b: shift + a), axes())
    assert not [one for one in ax.collections if isinstance(one, QuadContourSet)]


def test_panels_share_colors_and_count_what_converged():
    surfaces = {
        "standard": made(lambda a, b: 2 + a, converged=lambda a, b: a < 1),
        "5$": made(lambda a, b: 6 + a),
    }
    figure = eigenvalue_ratio_panels(surfaces, heading="two models")
    assert rendered(figure) > 1000
    panels = figure.axes[:2]
    assert {(mesh_of(ax).norm.vmin, mesh_of(ax).norm.vmax) for ax in panels} == {(0, 1.75)}
    assert [ax.get_title() for ax in panels] == [
        "standard\n28 of 35 points converged",
        "5\\$\n35 of 35 points converged",
    ]
    assert "5×7 points, each evaluated" in figure.get_supxlabel()
    assert "× eigenvalues not converged" in figure.get_supxlabel()
    assert figure.get_suptitle() == "two models"


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="no finite ratio on any surface"):
        eigenvalue_ratio(made(lambda a, b: np.nan), axes())


def test_a_ratio_of_zero_everywhere_can_be_drawn():
    assert rendered(eigenvalue_ratio_panels({"flat": made(lambda a, b: 0.0)})) > 1000


def test_a_split_must_be_chosen_first():
    surface = xr.concat([made(lambda a, b: 1.0)] * 2, "split").assign_coords(split=["train", "test"])
    with pytest.raises(ValueError, match=r"choose along split first: surface.sel\(split='train'\)"):
        eigenvalue_ratio(surface, axes())
