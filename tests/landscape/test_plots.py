"""Plots draw what they are given where they are told, on scales that hold everything; no picture is compared."""

import io
import itertools
import math

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from landscape.plots import (
    Scale,
    common_scale,
    contour,
    contour_panels,
    curve_panels,
    curves,
    relief,
    relief_panels,
)

PANELS = {"contour": contour_panels, "relief": relief_panels}


def rendered(figure):
    """Draw it: many errors of Matplotlib only show then."""
    with io.BytesIO() as file:
        figure.savefig(file, dpi=40)
        return file.tell()


def axes_of(kind):
    return Figure().add_subplot(projection="3d" if kind == "relief" else None)


def draw(kind, surface, *args, **kwargs):
    ax = axes_of(kind)
    assert {"contour": contour, "relief": relief}[kind](surface, ax, *args, **kwargs) is ax
    return ax


@pytest.fixture(autouse=True)
def no_pyplot_figures():
    yield
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def values(*numbers):
    return xr.Dataset({"loss": ("alpha", np.array(numbers, dtype=float))})


def test_a_common_scale_holds_the_finite_values_of_all():
    scale = common_scale([values(2.0, 3.0, np.inf), values(np.nan, 1.5, 2.5)])
    assert (scale.low, scale.high, scale.logarithmic) == (1.5, 3.0, False)


@pytest.mark.parametrize(
    ("numbers", "asked", "expected"),
    [
        ([1.0, 7.9], None, False),
        ([1.0, 8.0], None, True),
        ([0.0, 8.0], None, False),
        ([-1.0, 80.0], None, False),
        ([1.0, 2.0], True, True),
        ([1.0, 800.0], False, False),
    ],
    ids=["narrow", "wide", "zero", "negative", "asked for", "declined"],
)
def test_when_a_scale_is_logarithmic(numbers, asked, expected):
    scale = common_scale([values(*numbers)], logarithmic=asked)
    assert scale.logarithmic is expected
    assert isinstance(scale.norm, LogNorm) is expected


def test_another_variable():
    surface = xr.Dataset({"loss": ("alpha", [1.0, 2.0]), "accuracy": ("alpha", [0.25, 0.75])})
    assert common_scale([surface], "accuracy") == Scale(0.25, 0.75, False)


@pytest.mark.parametrize(
    ("numbers", "logarithmic", "message"),
    [
        ([np.inf, np.nan], None, "no finite loss on any surface"),
        ([0.0, 1.0], True, "logarithmic scale: expected positive values, but the smallest loss is 0"),
    ],
    ids=["nothing finite", "logarithm of zero"],
)
def test_no_scale(numbers, logarithmic, message):
    with pytest.raises(ValueError, match=message):
        common_scale([values(*numbers)], logarithmic=logarithmic)


def assert_good_levels(scale):
    levels = scale.levels
    assert 4 <= len(levels) <= 20
    assert (np.diff(levels) > 0).all()
    # Round numbers may fall short of the range by no more than rounding.
    slack = (scale.low, scale.high) if scale.logarithmic else (scale.high - scale.low,) * 2
    assert levels[0] <= scale.low + 1e-8 * slack[0]
    assert levels[-1] >= scale.high - 1e-8 * slack[1]
    norm = scale.norm
    assert (norm.vmin, norm.vmax) == (levels[0], levels[-1])


# Losses of float32 models: up to 3.4e38, and differences that float32 can tell.
@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-6, 1e6))
def test_even_levels(low, width):
    assert_good_levels(common_scale([values(low, low + max(width, 1e-6 * abs(low)))], logarithmic=False))


@example(low=1e-8, ratio=1e40)
@given(low=st.floats(1e-12, 1e3), ratio=st.floats(8.0, 1e30))
def test_logarithmic_levels(low, ratio):
    scale = common_scale([values(low, low * ratio * 1.000001)])
    assert scale.logarithmic
    assert_good_levels(scale)


@given(value=st.floats(-1e6, 1e6))
def test_levels_of_a_constant(value):
    assert_good_levels(common_scale([values(value, value)]))


def test_heights():
    losses = np.array([1.0, 100.0, np.inf, np.nan])
    np.testing.assert_array_equal(Scale(1.0, 100.0, True).height(losses), [0.0, 2.0, np.nan, np.nan])
    np.testing.assert_array_equal(Scale(1.0, 100.0, False).height(losses), [1.0, 100.0, np.nan, np.nan])


def lowest_marker(ax):
    (line,) = [line for line in ax.lines if line.get_marker() == "o"]
    return float(line.get_xdata()[0]), float(line.get_ydata()[0])


def valley(a, b):
    """Lowest at alpha = 0.5, beta = -1/3: the grid of 9 by 7 points has that point, and its mirror images."""
    return 1 + (a - 0.5) ** 2 + 2 * (b + 1 / 3) ** 2


def test_alpha_is_to_the_right_and_beta_upwards(plane):
    ax = draw("contour", plane(valley))
    assert lowest_marker(ax) == pytest.approx((0.5, -1 / 3))
    assert ax.get_xlabel() == "alpha (filter norms)"
    assert ax.get_ylabel() == "beta (filter norms)"


@pytest.mark.parametrize("variable", ["alpha", "beta"])
def test_contours_of_one_coordinate_are_straight_lines(plane, variable):
    # A surface of alpha alone varies along x: each line of a level has one x and all y. And the reverse for beta.
    surface = plane(lambda a, b: 2 + (a if variable == "alpha" else b))
    ax = draw("contour", surface)
    lines = next(artist for artist in ax.collections if isinstance(artist, QuadContourSet) and not artist.filled)
    points = [path.vertices for path in lines.get_paths() if len(path.vertices)]
    assert points
    fixed, free = (0, 1) if variable == "alpha" else (1, 0)
    for path in points:
        assert np.ptp(path[:, fixed]) == pytest.approx(0, abs=1e-9)
    assert max(np.ptp(path[:, free]) for path in points) > 1  # the whole side, but for the gap of a label


def test_a_level_is_drawn_where_the_surface_has_it(plane):
    # loss = 2 + alpha, so the line of level v is at x = v - 2.
    ax = draw("contour", plane(lambda a, b: 2 + a))
    lines = next(artist for artist in ax.collections if isinstance(artist, QuadContourSet) and not artist.filled)
    seen = 0
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        if len(path.vertices):
            np.testing.assert_allclose(path.vertices[:, 0], level - 2, atol=1e-9)
            seen += 1
    assert seen >= 4


def heights_of(surface):
    """Where a relief draws the surface: its x, y and z."""
    ax, drawn = axes_of("relief"), []
    plot_surface = ax.plot_surface

    def spy(x, y, z, **kwargs):
        drawn.append((x, y, z))
        return plot_surface(x, y, z, **kwargs)

    ax.plot_surface = spy
    relief(surface, ax)
    ((x, y, z),) = drawn
    return ax, x, y, z


def test_a_relief_has_the_losses_as_heights(plane):
    _, x, y, z = heights_of(plane(valley))
    np.testing.assert_allclose(z, valley(x, y), rtol=1e-9)
    assert (np.ptp(x), np.ptp(y)) == (2.0, 2.0)


def test_a_logarithmic_relief_has_logarithms_as_heights_and_losses_as_labels(plane):
    ax, x, _, z = heights_of(plane(lambda a, b: math.exp(3 * a)))
    np.testing.assert_allclose(z, 3 * x / math.log(10), rtol=1e-9, atol=1e-12)
    for tick, label in zip(ax.get_zticks(), ax.get_zticklabels(), strict=True):
        assert float(label.get_text()) == pytest.approx(10**tick, rel=1e-5)


def test_dimensions_in_another_order_are_the_same_surface(plane):
    surface, other = plane(valley), plane(valley).transpose("beta", "alpha")
    assert lowest_marker(draw("contour", other)) == lowest_marker(draw("contour", surface))
    np.testing.assert_array_equal(heights_of(other)[1:], heights_of(surface)[1:])


ODD = {
    "infinite side": lambda a, b: np.inf if a > 0.5 else 1 + a * a + b * b,
    "nan side": lambda a, b: np.nan if b > 0.5 else 1 + a * a + b * b,
    "both, and a wall": lambda a, b: np.inf if a > 0.8 else np.nan if a < -0.8 else math.exp(9 * a * a),
    "finite at the center only": lambda a, b: 1.0 if a == b == 0 else np.inf,
    "constant": lambda a, b: 0.7,
    "zero": lambda a, b: 0.0,
    "negative": lambda a, b: a + b - 3,
}


@pytest.mark.parametrize("kind", PANELS)
@pytest.mark.parametrize("shape", ODD)
def test_odd_surfaces_can_be_drawn(plane, kind, shape):
    surface = plane(ODD[shape])
    assert rendered(PANELS[kind]({"model": surface})) > 1000


@pytest.mark.parametrize("kind", PANELS)
def test_the_smallest_grid_can_be_drawn(plane, kind):
    assert rendered(draw(kind, plane(lambda a, b: 2 + a + b / 2, points=(2, 2))).figure) > 1000


@pytest.mark.parametrize("kind", PANELS)
@pytest.mark.parametrize("flat", [0.7, 1.0, np.inf], ids=["between levels", "at a level", "nowhere finite"])
def test_a_flat_minimum_beside_a_sharp_one(plane, kind, flat):
    surfaces = {"sharp": plane(lambda a, b: 0.7 + 9 * (a * a + b * b)), "flat": plane(lambda a, b: flat)}
    assert rendered(PANELS[kind](surfaces)) > 1000


def test_a_surface_between_levels_has_no_lines(plane):
    scale = Scale(0.0, 10.0, False)
    ax = draw("contour", plane(lambda a, b: 0.1 + 0.01 * a), scale)
    lines = next(artist for artist in ax.collections if isinstance(artist, QuadContourSet) and not artist.filled)
    assert set(lines.levels) <= set(scale.levels)


@pytest.mark.parametrize("logarithmic", [False, True], ids=["even", "logarithmic"])
def test_panels_share_axes_levels_and_colors(plane, logarithmic):
    steep = 30 if logarithmic else 2
    surfaces = {"one": plane(valley), "two": plane(lambda a, b: 1.5 + steep * a * a + b * b)}
    figure = contour_panels(surfaces, heading="two models")
    rendered(figure)
    panels = figure.axes[: len(surfaces)]
    sets = [[one for one in ax.collections if isinstance(one, QuadContourSet)] for ax in panels]
    filled = [next(one for one in those if one.filled) for those in sets]
    scale = common_scale(surfaces.values())
    assert scale.logarithmic is logarithmic
    for one in filled:
        np.testing.assert_array_equal(one.levels, scale.levels)
        assert (one.norm.vmin, one.norm.vmax) == (scale.norm.vmin, scale.norm.vmax)
        assert type(one.norm) is type(scale.norm)
        assert one.get_cmap() == filled[0].get_cmap()
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in panels}) == 1
    assert figure.get_suptitle() == "two models"


def test_reliefs_share_heights_and_camera(plane):
    figure = relief_panels({"one": plane(valley), "two": plane(lambda a, b: 1.5 + 2 * a * a + b * b)}, "two models")
    rendered(figure)
    assert len(figure.axes) == 2
    assert len({(ax.get_xlim(), ax.get_ylim(), ax.get_zlim(), ax.elev, ax.azim) for ax in figure.axes}) == 1
    assert len({tuple(ax.get_zticks()) for ax in figure.axes}) == 1
    assert figure.get_suptitle() == "two models"


@pytest.mark.parametrize("columns", [1, 2])
def test_the_caption_of_reliefs_is_below_their_labels(plane, columns):
    figure = relief_panels({"one": plane(valley), "two": plane(valley)}, columns=columns)
    FigureCanvasAgg(figure).draw()
    caption = next(text for text in figure.texts if text.get_text() == figure.get_supxlabel())
    labels = [label for ax in figure.axes for label in (ax.xaxis.label, ax.yaxis.label)]
    assert caption.get_window_extent().y1 < min(label.get_window_extent().y0 for label in labels)


@pytest.mark.parametrize("kind", PANELS)
def test_titles_hold_the_name_and_the_center(plane, kind):
    figure = PANELS[kind]({"standard": plane(lambda a, b: 0.12345 + a * a)})
    assert figure.axes[0].get_title() == "standard\ncenter: loss 0.1235, accuracy 87.50%"


@pytest.mark.parametrize("kind", PANELS)
def test_titles_without_accuracy(plane, kind):
    figure = PANELS[kind]({"standard": plane(valley).drop_vars("center_accuracy")})
    assert figure.axes[0].get_title().endswith("center: loss 1.472")


@pytest.mark.parametrize("kind", PANELS)
@pytest.mark.parametrize("name", ["a < b", "costs 5$", r"$\lost$", "100%_^{", "π"])
def test_names_are_text_and_not_formulas(plane, kind, name):
    figure = PANELS[kind]({name: plane(valley)})
    assert rendered(figure) > 1000


@pytest.mark.parametrize("draws", [3, 4], ids=["same", "different"])
def test_captions_tell_whether_draws_are_shared(plane, draws):
    figure = contour_panels({"one": plane(valley), "two": plane(valley, seed=draws)})
    text = figure.get_supxlabel()
    assert ("seed 3, the same draws for all panels" in text) is (draws == 3)
    assert ("DIFFERENT draws" in text) is (draws == 4)
    assert "9×7 points" in text


@pytest.mark.parametrize(
    "draw_it",
    [
        lambda surface: draw("contour", surface),
        lambda surface: draw("relief", surface),
        lambda surface: contour_panels({"model": surface}),
        lambda surface: relief_panels({"model": surface}),
    ],
    ids=["contour", "relief", "contour panels", "relief panels"],
)
def test_a_split_must_be_chosen_first(plane, draw_it):
    surface = xr.concat([plane(valley), plane(valley)], pd.Index(["train", "test"], name="split"))
    with pytest.raises(ValueError, match=r"choose along split first: surface.sel\(split='train'\)"):
        draw_it(surface)


def test_settings_of_matplotlib_are_left_alone(plane):
    def settings():
        return {key: value for key, value in mpl.rcParams.items() if key != "backend"}  # found out at first use

    before = settings()
    contour_panels({"one": plane(valley)})
    relief_panels({"one": plane(valley)})
    assert settings() == before


@pytest.fixture
def histories():
    epochs = np.arange(3)
    return {
        name: pd.DataFrame(
            {
                "epoch": epochs,
                "train_accuracy": 0.5 + 0.1 * epochs + shift,
                "validation_accuracy": 0.4 + 0.1 * epochs + shift,
                "train_loss": np.exp(-epochs - shift),
                "validation_loss": np.exp(-epochs + shift),
            }
        )
        for name, shift in (("standard", 0.0), ("other", 0.05))
    }


@pytest.mark.parametrize("quantity", ["accuracy", "loss"])
def test_curves_draw_each_method_on_each_split(histories, quantity):
    ax = axes_of("curves")
    assert curves(histories, ax, quantity) is ax
    drawn = {tuple(np.round(line.get_ydata(), 9)) for line in ax.lines if len(line.get_xdata())}
    expected = {
        tuple(np.round(table[f"{split}_{quantity}"], 9))
        for table, split in itertools.product(histories.values(), ("train", "validation"))
    }
    assert drawn == expected
    assert ax.get_yscale() == ("log" if quantity == "loss" else "linear")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"standard", "other", "train", "validation"} <= set(texts)
    rendered(ax.figure)


def test_training_is_dashed_and_validation_is_not(histories):
    ax = curves({"standard": histories["standard"]}, axes_of("curves"))
    styles = {tuple(np.round(line.get_ydata(), 9)): line.is_dashed() for line in ax.lines if len(line.get_xdata())}
    assert styles == {(0.5, 0.6, 0.7): True, (0.4, 0.5, 0.6): False}


def test_curve_panels_have_accuracy_and_loss(histories):
    figure = curve_panels(histories, heading="training")
    assert [ax.get_ylabel() for ax in figure.axes] == ["accuracy", "loss (nats)"]
    assert figure.get_suptitle() == "training"
    assert rendered(figure) > 1000
