"""Curves along a line: what is drawn, how splits and models are told apart, bands, and what is not finite."""

import io

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from landscape.plots import line, line_panels

ALPHA = np.linspace(-1, 1, 9)
ATTRS = {"method": "grid", "normalization": "filter", "seed": 3, "ignored": "0.bias"}


def along(function, dim="alpha", **others):
    values = np.array([function(at) for at in ALPHA], dtype=float)
    return xr.Dataset({"loss": (dim, values)} | others, coords={dim: ALPHA}, attrs=ATTRS)


def axes():
    return Figure(layout="constrained").add_subplot()


def rendered(figure):
    with io.BytesIO() as file:
        figure.savefig(file, dpi=40)
        return file.tell()


def curves_of(ax):
    """The curves, without crosses for what is not finite."""
    return [one for one in ax.lines if one.get_marker() != "x"]


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_curve_has_the_losses_and_the_axes_are_those_given():
    ax = axes()
    one = along(lambda a: 2 + a)
    assert line(one, ax) is ax
    (curve,) = curves_of(ax)
    np.testing.assert_array_equal(curve.get_xydata(), np.stack([ALPHA, 2 + ALPHA], axis=1))
    assert ax.get_xlabel() == "alpha (filter norms)"
    assert ax.get_ylabel() == "loss (nats)"
    assert ax.get_legend() is None  # one unnamed curve needs none
    assert len(ax.figure.axes) == 1


def test_models_differ_in_color_and_in_marker():
    ax = line({name: along(lambda a, shift=shift: 2 + a * a + shift) for shift, name in enumerate("abc")}, axes())
    assert len({to_rgba(one.get_color()) for one in curves_of(ax)}) == 3
    assert len({one.get_marker() for one in curves_of(ax)}) == 3
    assert legend_of(ax) == ["a", "b", "c"]
    for shift, curve in enumerate(curves_of(ax)):
        np.testing.assert_allclose(curve.get_ydata(), 2 + ALPHA**2 + shift)


def with_splits(*names):
    parts = [along(lambda a, place=place: 2 + a * a + place) for place, _ in enumerate(names)]
    return xr.concat(parts, pd.Index(names, name="split"))


def test_training_is_solid_and_test_is_dashed_whatever_their_order():
    for names in (("train", "test"), ("test", "train")):
        ax = line({"standard": with_splits(*names)}, axes())
        styles = {curve.get_ydata()[0] - 3: curve.get_linestyle() for curve in curves_of(ax)}
        assert styles == {float(place): {"train": "-", "test": "--"}[name] for place, name in enumerate(names)}
        assert legend_of(ax) == ["standard", *names]
        assert len({to_rgba(curve.get_color()) for curve in curves_of(ax)}) == 1


def test_splits_of_other_names_differ_in_style():
    ax = line(with_splits("seen", "unseen", "shifted"), axes())
    assert [curve.get_linestyle() for curve in curves_of(ax)] == ["-", "--", ":"]


def band_of(ax):
    """Lower and upper edge of the only band, over x."""
    (band,) = ax.collections
    x, y = band.get_paths()[0].vertices.T
    return np.array([y[np.isclose(x, at)].min() for at in ALPHA]), np.array(
        [y[np.isclose(x, at)].max() for at in ALPHA]
    )


def test_the_band_is_one_standard_error_on_either_side():
    ax = line(along(lambda a: 2 + a, loss_standard_error=("alpha", 0.1 * ALPHA**2 + 0.1)), axes())
    low, high = band_of(ax)
    np.testing.assert_allclose(low, 2 + ALPHA - 0.1 * ALPHA**2 - 0.1)
    np.testing.assert_allclose(high, 2 + ALPHA + 0.1 * ALPHA**2 + 0.1)
    assert legend_of(ax) == ["± 1 standard error"]


def test_over_pairs_the_mean_is_drawn_in_a_band_of_their_standard_deviation():
    # 1 a², 2 a² and 6 a² have mean 3 a², and standard deviation sqrt((4 + 1 + 9) / 2) a² = sqrt(7) a².
    parts = [along(lambda a, w=w: 2 + w * a * a, loss_standard_error=("alpha", ALPHA * 0 + 9.0)) for w in (1, 2, 6)]
    ax = line(xr.concat(parts, "pair"), axes())
    (curve,) = curves_of(ax)
    np.testing.assert_allclose(curve.get_ydata(), 2 + 3 * ALPHA**2)
    low, high = band_of(ax)
    np.testing.assert_allclose(high - low, 2 * np.sqrt(7) * ALPHA**2, atol=1e-12)
    assert legend_of(ax) == ["± 1 sd over 3 pairs"]


def test_a_single_pair_has_no_band():
    ax = line(along(lambda a: 2 + a).expand_dims("pair"), axes())
    assert not ax.collections
    np.testing.assert_allclose(curves_of(ax)[0].get_ydata(), 2 + ALPHA)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_where_a_loss_is_not_finite_there_is_a_gap_and_a_cross(bad):
    ax = line({"a": along(lambda a: bad if a > 0.6 else 2 + a), "b": along(lambda a: 3.0)}, axes())
    first, second = curves_of(ax)
    np.testing.assert_array_equal(np.isnan(first.get_ydata()), ALPHA > 0.6)
    assert np.isfinite(second.get_ydata()).all()
    (crosses,) = [one for one in ax.lines if one.get_marker() == "x"]
    np.testing.assert_array_equal(crosses.get_xdata(), ALPHA[ALPHA > 0.6])
    assert to_rgba(crosses.get_color()) == to_rgba(first.get_color())
    assert legend_of(ax) == ["a", "b", "not finite"]
    assert rendered(ax.figure) > 1000


def test_one_pair_that_diverges_is_not_averaged_away():
    parts = [along(lambda a: 2 + a), along(lambda a: np.nan if a < 0 else 2 + a)]
    ax = line(xr.concat(parts, "pair"), axes())
    (curve,) = curves_of(ax)
    np.testing.assert_array_equal(np.isnan(curve.get_ydata()), ALPHA < 0)


@pytest.mark.parametrize(
    ("steep", "asked", "expected"), [(1, None, "linear"), (50, None, "log"), (50, False, "linear"), (1, True, "log")]
)
def test_when_the_axis_is_logarithmic(steep, asked, expected):
    ax = line(along(lambda a: 1 + steep * a * a), axes(), logarithmic=asked)
    assert ax.get_yscale() == expected
    if expected == "log" and steep > 1:
        rendered(ax.figure)
        assert {"1", "3", "10", "30"} <= {text.get_text() for text in ax.get_yticklabels()}


def test_accuracy_on_an_axis_of_its_own():
    ax = line({"a": along(lambda a: 2 + a * a, accuracy=("alpha", 0.9 - 0.2 * ALPHA**2))}, axes(), second="accuracy")
    left, right = ax.figure.axes
    assert left is ax
    np.testing.assert_allclose(left.lines[0].get_ydata(), 2 + ALPHA**2)
    np.testing.assert_allclose(right.lines[0].get_ydata(), 0.9 - 0.2 * ALPHA**2)
    assert right.get_ylabel() == "accuracy"
    assert right.yaxis.get_major_formatter()(0.9) == "90.0%"
    assert right.lines[0].get_markerfacecolor() != left.lines[0].get_markerfacecolor()
    assert legend_of(ax) == ["a", "loss (left)", "accuracy (right)"]


def test_panels_have_one_legend_and_one_caption():
    lines = {
        name: along(lambda a: 2 + a * a, accuracy=("alpha", 0.9 - 0.2 * ALPHA**2)) for name in ("standard", "other")
    }
    figure = line_panels(lines, heading="two models")
    upper, lower = figure.axes
    assert [ax.get_ylabel() for ax in (upper, lower)] == ["loss (nats)", "accuracy"]
    assert legend_of(upper) == ["standard", "other"]
    assert lower.get_legend() is None
    assert (upper.get_xlabel(), lower.get_xlabel()) == ("", "alpha (filter norms)")
    assert "seed 3, the same draws for all lines" in figure.get_supxlabel()
    assert "9 points, each evaluated" in figure.get_supxlabel()
    assert figure.get_suptitle() == "two models"
    assert rendered(figure) > 1000


def test_without_accuracy_everywhere_there_is_one_panel():
    lines = {"a": along(lambda a: 2.0, accuracy=("alpha", ALPHA)), "b": along(lambda a: 2.0)}
    assert [ax.get_ylabel() for ax in line_panels(lines).axes] == ["loss (nats)"]


def test_many_long_names_leave_room_for_the_curves():
    lines = {f"a model with quite a long name, number {i}": along(lambda a, i=i: 2 + i * a * a) for i in range(12)}
    figure = line_panels(lines)
    rendered(figure)
    (ax,) = figure.axes
    box = ax.get_legend().get_window_extent()
    assert (box.x0 > 0, box.x1 < figure.bbox.width) == (True, True)
    assert ax.bbox.height > 1.5 * figure.dpi  # inches


def test_a_curve_between_minima():
    ax = line(along(lambda t: 2 + t, dim="t"), axes())
    assert ax.get_xlabel() == "t (share of the way along the curve)"
    np.testing.assert_allclose(curves_of(ax)[0].get_ydata(), 2 + ALPHA)


def test_a_trained_curve_is_shown_beside_the_straight_line():
    curve = along(lambda t: 2 + t, "t", straight_loss=("t", 5 - ALPHA), straight_accuracy=("t", ALPHA))
    ax = line(curve, axes())
    assert legend_of(ax) == ["Bézier curve", "straight line"]
    np.testing.assert_allclose([one.get_ydata() for one in curves_of(ax)], [2 + ALPHA, 5 - ALPHA])
    assert rendered(line_panels(curve)) > 1000


@pytest.mark.parametrize("name", ["a < b", "costs 5$", r"$\lost$", "100%_^{", "_hidden"])
def test_names_are_text_and_not_formulas(name):
    ax = line({name: along(lambda a: 2 + a)}, axes())
    assert [text.replace(r"\$", "$") for text in legend_of(ax)] == [name]
    assert rendered(ax.figure) > 1000


def test_a_surface_is_not_a_line(plane):
    with pytest.raises(ValueError, match=r"expected one dimension, alpha or t .* got alpha, beta; .*sel\(beta=0\)"):
        line({"a": plane(lambda a, b: a)}, axes())


def test_two_kinds_of_line_do_not_share_an_axis():
    with pytest.raises(ValueError, match=r"along alpha and along t are not on one axis: line.rename\(alpha='t'\)"):
        line({"straight": along(lambda a: 2 + a), "curve": along(lambda a: 2 + a, dim="t")}, axes())


def test_a_quantity_that_is_not_there():
    with pytest.raises(ValueError, match="line 'a' has no 'accuracy'; it has loss"):
        line({"a": along(lambda a: 2 + a)}, axes(), second="accuracy")


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="expected at least one, got none"):
        line({}, axes())
