"""A difference map is the difference, its colors are centered on zero, and it refuses what cannot be compared."""

import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from landscape.plots import common_scale, difference, difference_panels
from landscape.plots.difference import SignedScale, signed_scale


def axes():
    return Figure(layout="constrained").add_subplot()


def rendered(figure):
    with io.BytesIO() as file:
        figure.savefig(file, dpi=40)
        return file.tell()


def sets_of(ax):
    """Colors, lines, and the dots on what may be an error."""
    sets = [one for one in ax.collections if isinstance(one, QuadContourSet)]
    colored = [one for one in sets if one.filled and not any(one.hatches)]
    return colored, [one for one in sets if not one.filled], [one for one in sets if any(one.hatches)]


def bowl(a, b):
    return 2 + a * a + b * b


def test_lines_are_where_the_first_is_above_the_second_by_their_level(plane):
    # (2 + a² + b² + a) − (2 + a² + b²) = a, so the line of level v is at alpha = v.
    ax = axes()
    assert difference(plane(lambda a, b: bowl(a, b) + a), plane(bowl), ax) is ax
    (_,), (lines,), _ = sets_of(ax)
    seen = 0
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        if len(path.vertices):
            np.testing.assert_allclose(path.vertices[:, 0], level, atol=1e-9)
            seen += 1
    assert seen >= 5
    assert ax.get_xlabel() == "alpha (filter norms)"
    assert ax.get_ylabel() == "beta (filter norms)"


def test_lines_below_zero_are_dashed_and_zero_is_bold(plane):
    ax = difference(plane(lambda a, b: bowl(a, b) + a), plane(bowl), axes())
    _, (lines,), _ = sets_of(ax)
    dashed = {
        level: pattern is not None for level, (_, pattern) in zip(lines.levels, lines.get_linestyle(), strict=True)
    }
    assert dashed == {level: level < 0 for level in lines.levels}
    assert lines.levels[np.argmax(lines.get_linewidth())] == 0


@pytest.mark.parametrize("steep", [1, 50], ids=["even", "logarithmic"])
def test_colors_are_centered_on_zero(plane, steep):
    # The difference lies between 0 and 2: the colors must reach as far on the empty side.
    a, b = plane(lambda a, b: 1 + steep * (a * a + b * b)), plane(lambda a, b: 1 + (steep - 1) * (a * a + b * b))
    ax = difference(a, b, axes())
    (colored,), _, _ = sets_of(ax)
    assert colored.norm.vmin == -colored.norm.vmax
    assert colored.norm.vmax >= 2
    assert colored.norm(0.0) == pytest.approx(0.5)
    assert signed_scale(a, b).logarithmic is (steep == 50)


@given(largest=st.floats(1e-9, 1e9), logarithmic=st.booleans())
def test_levels_are_symmetric_and_reach_the_largest(largest, logarithmic):
    levels = SignedScale(largest, logarithmic).levels
    np.testing.assert_array_equal(levels, -levels[::-1])
    assert (np.diff(levels) > 0).all()
    assert 0 in levels
    assert 5 <= len(levels) <= 21
    assert largest * (1 - 1e-8) <= levels[-1] <= 10 * largest
    if logarithmic:
        assert levels[levels > 0][0] <= largest / 30


def test_the_same_surface_twice(plane):
    figure = difference_panels({"one": plane(bowl), "again": plane(bowl)})
    assert rendered(figure) > 1000
    assert figure.axes[2].get_title() == "one − again\ncenter: 0"


ODD = {
    "infinite side": lambda a, b: math.inf if a > 0.5 else bowl(a, b),
    "nan side": lambda a, b: math.nan if b > 0.5 else bowl(a, b),
    "infinite in both": lambda a, b: math.inf if a > 0.2 else 1.0,
}


@pytest.mark.parametrize("shape", ODD)
def test_what_is_not_finite_in_either_is_left_to_the_hatching(plane, shape):
    bad = ODD[shape]
    figure = difference_panels({"a": plane(bad), "b": plane(ODD["infinite in both"])})
    ax = figure.axes[2]
    (colored,), _, _ = sets_of(ax)
    xs = np.concatenate([path.vertices for path in colored.get_paths() if len(path.vertices)])[:, 0]
    assert xs.max() <= 0.2
    assert ax.patch.get_hatch() == "///"
    assert rendered(figure) > 1000


def test_no_point_where_both_are_finite(plane):
    with pytest.raises(ValueError, match="no point where both losses are finite"):
        difference(plane(lambda a, b: 1 if a > 0 else math.inf), plane(lambda a, b: math.inf if a > 0 else 1), axes())


def test_panels_share_axes_and_levels(plane):
    # One has the lowest loss, the other the highest: the levels of neither would do.
    surfaces = {"standard": plane(lambda a, b: 1 + a * a + b * b), "other": plane(lambda a, b: 1.5 + a * a + 3 * b * b)}
    figure = difference_panels(surfaces, heading="two models")
    rendered(figure)
    first, second, third = figure.axes[:3]
    scale = common_scale(surfaces.values())
    for ax in (first, second):
        (colored,), _, _ = sets_of(ax)
        np.testing.assert_array_equal(colored.levels, scale.levels)
    (colored,), _, _ = sets_of(third)
    np.testing.assert_array_equal(colored.levels, signed_scale(*surfaces.values()).levels)
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in (first, second, third)}) == 1
    assert first.get_title() == "standard\ncenter: loss 1, accuracy 87.50%"
    assert third.get_title() == "standard − other\ncenter: −0.5"
    assert [ax.get_ylabel() for ax in figure.axes[3:]] == ["loss (nats)", "difference in loss (nats)"]
    assert figure.get_suptitle() == "two models"


@pytest.mark.parametrize("other", [{}, {"seed": 4}], ids=["same", "different"])
def test_the_caption_says_whether_the_draws_were_the_same(plane, other):
    text = difference_panels({"one": plane(bowl), "two": plane(bowl, **other)}).get_supxlabel()
    assert ("the same draws for all panels" in text) is (not other)
    assert ("DIFFERENT draws" in text) is bool(other)


def test_other_directions_of_one_seed_are_other_draws(plane):
    def about(*indices):
        return json.dumps([{"kind": "random", "seed": 3, "index": index} for index in indices])

    figure = difference_panels({"one": plane(bowl, directions=about(0, 1)), "two": plane(bowl, directions=about(2, 3))})
    assert "DIFFERENT draws in the panels" in figure.get_supxlabel()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ((9, 5), "same beta, got 7 points from -1 to 1 and 5 points from -1 to 1"),
        ((5, 7), "same alpha, got 9 points from -1 to 1 and 5 points from -1 to 1"),
    ],
)
@pytest.mark.parametrize("panels", [False, True])
def test_other_axes_are_refused(plane, points, message, panels):
    a, b = plane(bowl), plane(bowl, points=points)
    with pytest.raises(ValueError, match=f"{message}; evaluate both with the same span and points"):
        _ = difference_panels({"a": a, "b": b}) if panels else difference(a, b, axes())


def test_another_span_is_refused(plane):
    a, b = plane(bowl), plane(bowl)
    with pytest.raises(ValueError, match="9 points from -1 to 1 and 9 points from -2 to 2"):
        difference(a, b.assign_coords(alpha=2 * b["alpha"]), axes())


def test_another_normalization_is_refused(plane):
    with pytest.raises(ValueError, match="directions of one normalization for both, got filter and layer"):
        difference(plane(bowl), plane(bowl, normalization="layer"), axes())


@pytest.mark.parametrize("count", [1, 3])
def test_a_difference_is_between_two(plane, count):
    with pytest.raises(ValueError, match=f"between two models, got {count}: "):
        difference_panels({str(i): plane(bowl) for i in range(count)})


def test_what_may_be_an_error_of_the_interpolation_is_dotted(plane):
    # The difference is alpha; the errors add up to 0.3; so the dots end at alpha = ± 0.3.
    adaptive = {"method": "adaptive", "evaluations": 97, "error_estimate": 0.004}
    a = plane(lambda a, b: bowl(a, b) + a, **adaptive).assign(loss_error_estimate=0.1)
    b = plane(bowl, **adaptive).assign(loss_error_estimate=0.2)
    figure = difference_panels({"a": a, "b": b})
    _, _, (dotted,) = sets_of(figure.axes[2])
    xs = np.concatenate([path.vertices for path in dotted.get_paths()])[:, 0]
    assert (xs.min(), xs.max()) == pytest.approx((-0.3, 0.3))
    assert "dotted: within the estimated errors" in figure.get_supxlabel()
    assert rendered(figure) > 1000


def test_grids_have_no_error_of_interpolation(plane):
    figure = difference_panels({"a": plane(lambda a, b: bowl(a, b) + a), "b": plane(bowl)})
    assert sets_of(figure.axes[2])[2] == []
    assert "dotted" not in figure.get_supxlabel()


def test_names_are_text_and_not_formulas(plane):
    figure = difference_panels({r"$\lost$": plane(bowl), "5$": plane(bowl)})
    assert figure.axes[2].get_title().startswith(r"\$\lost\$ − 5\$")
    assert rendered(figure) > 1000
