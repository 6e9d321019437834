"""The path of a run: every checkpoint where it is, with its own loss, and axes that say what they explain."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from landscape.plots import common_scale, trajectory, trajectory_panels

PRINCIPAL = json.dumps([{"kind": "principal", "index": 0}, {"kind": "principal", "index": 1}])


def axes():
    return Figure(layout="constrained").add_subplot()


def rendered(figure):
    with io.BytesIO() as file:
        figure.savefig(file, dpi=40)
        return file.tell()


@pytest.fixture
def surface(plane):
    one = plane(lambda a, b: 1 + a * a + b * b, directions=PRINCIPAL, normalization="none")
    return one.drop_vars("center_accuracy")


SPLIT = pd.Index(["train", "test"], name="split")


def way(alpha=(0.9, 0.5, 0.2, 0.0), beta=(-0.5, 0.4, 0.1, 0.0), loss=(3.0, 2.0, 1.5, 1.1), **attrs):
    return xr.Dataset(
        {
            "alpha": ("checkpoint", list(alpha)),
            "beta": ("checkpoint", list(beta)),
            "loss": ("checkpoint", list(loss)),
            "distance": ("checkpoint", [0.1 * i for i, _ in enumerate(loss)]),
        },
        coords={"checkpoint": np.arange(len(loss)) * 10},
        attrs={"explained_variance": [0.91, 0.064]} | attrs,
    )


def points_of(ax):
    """Positions and losses of the markers, checkpoints between, first, last."""
    scatters = [one for one in ax.collections if isinstance(one, PathCollection) and one.get_array() is not None]
    return [(one.get_offsets(), one.get_array()) for one in scatters], scatters


def test_the_path_goes_through_the_checkpoints_in_order(surface):
    ax = axes()
    path = way()
    assert trajectory(surface, path, ax) is ax
    (line,) = [one for one in ax.lines if len(one.get_xdata()) == 4]
    np.testing.assert_array_equal(line.get_xydata(), np.stack([path["alpha"], path["beta"]], axis=1))


def test_first_and_last_are_marked_and_markers_have_the_own_loss(surface):
    ax = trajectory(surface, way(), axes())
    (between, first, last), scatters = points_of(ax)
    np.testing.assert_array_equal(first[0], [[0.9, -0.5]])
    np.testing.assert_array_equal(last[0], [[0.0, 0.0]])
    np.testing.assert_array_equal(between[0], [[0.5, 0.4], [0.2, 0.1]])
    assert [list(values) for _, values in (first, between, last)] == [[3.0], [2.0, 1.5], [1.1]]
    assert len({one.get_paths()[0].vertices.shape for one in scatters}) == 3  # three kinds of marker


def test_one_scale_holds_the_plane_and_the_path(surface):
    path = way(loss=(30.0, 2.0, 1.5, 1.1))  # far above the plane, which ends at 3
    ax = trajectory(surface, path, axes())
    scale = common_scale([surface, path])
    assert scale.high == 30
    for scatter in points_of(ax)[1]:
        assert (scatter.norm.vmin, scatter.norm.vmax) == (scale.norm.vmin, scale.norm.vmax)


@pytest.mark.parametrize("as_variable", [False, True])
def test_axes_say_how_much_they_explain(surface, as_variable):
    path = way()
    if as_variable:
        path = path.assign(explained_variance=("component", path.attrs.pop("explained_variance")))
    ax = trajectory(surface, path, axes())
    assert ax.get_xlabel() == "alpha (first principal component,\n91 % of the variance)"
    assert ax.get_ylabel() == "beta (second principal component,\n6.4 % of the variance)"


def test_axes_without_shares(surface):
    path = way()
    del path.attrs["explained_variance"]
    ax = trajectory(surface, path, axes())
    assert ax.get_xlabel() == "alpha (first principal component)"


def test_a_checkpoint_beyond_the_plane_stays_in_view(surface):
    figure = trajectory_panels(surface, way(alpha=(1.7, 0.5, 0.2, 0.0)))
    assert figure.axes[0].get_xlim()[1] > 1.7
    assert "hatched: not evaluated" in figure.get_supxlabel()
    assert "hatched" not in trajectory_panels(surface, way()).get_supxlabel()


def test_a_checkpoint_whose_loss_is_not_finite_is_drawn_hatched(surface):
    figure = trajectory_panels(surface, way(loss=(np.inf, 2.0, np.nan, 1.1)))
    ax = figure.axes[0]
    shown = np.concatenate([offsets for offsets, _ in points_of(ax)[0] if len(offsets)])
    np.testing.assert_array_equal(sorted(shown[:, 0]), [0.0, 0.5])
    hatched = [one for one in ax.collections if isinstance(one, PathCollection) and one.get_hatch()]
    drawn = np.concatenate([one.get_offsets() for one in hatched])
    np.testing.assert_array_equal(sorted(drawn[:, 0]), [0.2, 0.9])
    assert rendered(figure) > 1000


@pytest.mark.parametrize(("factor", "aspect"), [(1.0, 1.0), (0.1, "auto")])
def test_a_strip_is_not_drawn_to_one_scale(surface, factor, aspect):
    narrow = surface.assign_coords(beta=surface["beta"] * factor)
    path = way(beta=np.array([-0.5, 0.4, 0.1, 0.0]) * factor)
    assert trajectory(narrow, path, axes()).get_aspect() == aspect


def test_panels_show_loss_and_distance_of_each_checkpoint(surface):
    figure = trajectory_panels(surface, way(), heading="a run")
    rendered(figure)
    panels = {ax.get_ylabel(): ax for ax in figure.axes}
    for label, expected in (("loss (nats)", [3.0, 2.0, 1.5, 1.1]), ("distance from the plane", [0, 0.1, 0.2, 0.3])):
        curves = [ax.lines[0] for ax in figure.axes if ax.get_ylabel() == label and ax.lines]
        (curve,) = curves
        np.testing.assert_allclose(curve.get_xdata(), [0, 10, 20, 30])
        np.testing.assert_allclose(curve.get_ydata(), expected)
    assert panels["distance from the plane"].get_ylim()[0] == 0
    assert panels["distance from the plane"].get_xlabel() == "checkpoint"
    assert "principal components of the checkpoints" in figure.get_supxlabel()
    assert "seed" not in figure.get_supxlabel()  # nothing was drawn
    assert figure.get_suptitle() == "a run"


def test_panels_show_the_loss_on_the_plane_below(surface):
    path = way().assign(projected_loss=("checkpoint", [2.5, 1.9, np.inf, 1.1]))
    figure = trajectory_panels(surface, path)
    (upper,) = [ax for ax in figure.axes if ax.get_legend()]
    own, below = upper.lines
    np.testing.assert_allclose(own.get_ydata(), [3.0, 2.0, 1.5, 1.1])
    np.testing.assert_allclose(below.get_ydata(), [2.5, 1.9, np.nan, 1.1])
    assert below.is_dashed()
    assert [text.get_text() for text in upper.get_legend().get_texts()] == ["checkpoint", "its projection"]
    assert not [ax for ax in trajectory_panels(surface, way()).axes if ax.get_legend()]


@pytest.mark.parametrize("draw", [lambda s, p: trajectory(s, p, axes()), trajectory_panels], ids=["axes", "panels"])
def test_a_split_of_the_path_must_be_chosen_first(surface, draw):
    path = way()
    path = path.assign(loss=xr.concat([path["loss"], path["loss"]], SPLIT))
    with pytest.raises(ValueError, match=r"choose along split first: path.sel\(split='train'\)"):
        draw(surface, path)


@pytest.mark.parametrize("count", [1, 2])
def test_short_runs(surface, count):
    path = way().isel(checkpoint=slice(count))
    figure = trajectory_panels(surface, path)
    markers = np.concatenate([offsets for offsets, _ in points_of(figure.axes[0])[0] if len(offsets)])
    assert {tuple(at) for at in markers} == {(0.9, -0.5), (0.5, 0.4)} - ({(0.5, 0.4)} if count == 1 else set())
    assert rendered(figure) > 1000


@pytest.mark.parametrize("draw", [lambda s, p: trajectory(s, p, axes()), trajectory_panels], ids=["axes", "panels"])
def test_a_path_without_its_variables(surface, draw):
    with pytest.raises(ValueError, match=r"alpha, beta, loss and distance over checkpoint, but distance is missing"):
        draw(surface, way().drop_vars("distance"))
