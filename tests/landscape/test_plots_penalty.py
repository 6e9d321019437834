"""Plots of penalty checks: points and lines at the numbers, what is shaded and greyed, captions."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from landscape.plots.penalty import penalty, penalty_panels

EPSILONS = np.array([0.01, 0.1, 1.0, 5.0])
RISE, FIRST, BOTH, RANDOM, EQ_12 = "#000000", "#0072b2", "#e69f00", "#009e73", "#cc79a7"


def axes():
    return Figure(layout="constrained").add_subplot()


def rendered(figure):
    with io.BytesIO() as file:
        figure.savefig(file, dpi=40)
        return file.tell()


def made(site="conv.weight", random=1e-3, noise=1e-7, **columns):
    """rise = e + e^2 / 2, whose first-order term is e."""
    quantities = {
        "rise": EPSILONS + EPSILONS**2 / 2,
        "first_order": EPSILONS,
        "first_and_second_order": EPSILONS + EPSILONS**2 / 2,
        "eq_12": 1.4 * EPSILONS,
        "random_rise": random * EPSILONS,
        "rise_noise": np.full(len(EPSILONS), noise),
        "rise / first_order": 1 + EPSILONS / 2,
    }
    rows = [
        {"epsilon": epsilon, "quantity": quantity, "value": value, "low": 0.9 * value, "high": 1.1 * value, "n": 8}
        for quantity, values in quantities.items()
        for epsilon, value in zip(EPSILONS, values, strict=True)
    ]
    settings = {"attack_probability": 0.5, "mask_then_normalize": False, "relative_epsilon": False, "seed": 3}
    return pd.DataFrame(rows).assign(site=site, kind="parameter", **settings, examples=2000, **columns)


def lines_of(ax, color, marker=None):
    return [
        line
        for line in ax.lines
        if to_hex(line.get_color()) == color and (marker is None or line.get_marker() == marker)
    ]


def points(ax, color, marker, face):
    """What is drawn with this face."""
    (line,) = [one for one in lines_of(ax, color, marker) if to_hex(one.get_markerfacecolor()) == face]
    values = np.asarray(line.get_ydata(), dtype=float)
    return dict(zip(np.asarray(line.get_xdata())[np.isfinite(values)], values[np.isfinite(values)], strict=True))


def words(figure):
    return " ".join(figure.get_supxlabel().replace(";", "").split())


def test_measured_points_and_computed_lines():
    ax = axes()
    assert penalty(made(), ax) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("ε", "change of the loss")
    assert points(ax, RISE, "o", RISE) == pytest.approx(dict(zip(EPSILONS, EPSILONS + EPSILONS**2 / 2, strict=True)))
    assert points(ax, RANDOM, "^", RANDOM) == pytest.approx(dict(zip(EPSILONS, 1e-3 * EPSILONS, strict=True)))
    expected = {FIRST: EPSILONS, BOTH: EPSILONS + EPSILONS**2 / 2, EQ_12: 1.4 * EPSILONS}
    for color, values in expected.items():
        (line,) = lines_of(ax, color)
        assert line.get_ydata() == pytest.approx(values)


def bars(ax, color):
    return {
        line.get_xdata()[0]: tuple(line.get_ydata())
        for line in lines_of(ax, color, "None")
        if len(line.get_xdata()) == 2
    }


def test_intervals():
    ax = penalty(made(), axes())
    rise = EPSILONS + EPSILONS**2 / 2
    found = bars(ax, RISE)
    for epsilon, value in zip(EPSILONS, rise, strict=True):
        assert found[epsilon] == pytest.approx((0.9 * value, 1.1 * value))


def test_a_fall_is_hollow():
    summary = made(random=-1e-3)
    is_random = summary["quantity"] == "random_rise"
    summary.loc[is_random, ["low", "high"]] = summary.loc[is_random, ["high", "low"]].to_numpy()
    ax = penalty(summary, axes())
    assert points(ax, RANDOM, "^", RANDOM) == {}
    assert points(ax, RANDOM, "^", "#ffffff") == pytest.approx(dict(zip(EPSILONS, 1e-3 * EPSILONS, strict=True)))
    assert bars(ax, RANDOM)[1.0] == pytest.approx((0.9e-3, 1.1e-3))


def test_an_interval_that_holds_zero_goes_on_below_the_axis():
    summary = made()
    summary.loc[summary["quantity"] == "random_rise", "low"] = -1.0
    ax = penalty(summary, axes())
    low, high = bars(ax, RANDOM)[1.0]
    assert 0 < low < ax.get_ylim()[0]
    assert high == pytest.approx(1.1e-3)


def test_a_negative_term_is_not_drawn():
    summary = made()
    summary.loc[(summary["quantity"] == "first_and_second_order") & (summary["epsilon"] == 5.0), "value"] = -2.0
    (line,) = lines_of(penalty(summary, axes()), BOTH)
    assert np.isnan(line.get_ydata()).tolist() == [False, False, False, True]


def shaded(ax):
    """Where the shading begins and ends."""
    return [
        (path.vertices[:, 0].min(), path.vertices[:, 0].max()) for one in ax.collections for path in one.get_paths()
    ]


def test_where_the_first_order_describes_the_rise_is_shaded():
    # 1 + e / 2 between the epsilons, linear in log e: 1.05 at 0.1 and 1.5 at 1, so 1.1 at 0.1 * 10^(0.05 / 0.45).
    ((low, high),) = shaded(penalty(made(), axes()))
    assert (low, high) == (pytest.approx(0.01), pytest.approx(0.1 * 10 ** (0.05 / 0.45), rel=0.01))
    ((_, wider),) = shaded(penalty(made(), axes(), tolerance=0.5))
    assert wider == pytest.approx(1.0, rel=0.01)


def test_what_rounding_hides_is_grey_and_not_shaded():
    ax = penalty(made(noise=0.005), axes())
    (band,) = ax.patches
    assert band.get_y() + band.get_height() == pytest.approx(0.005)
    assert to_hex(band.get_facecolor()) == "#d9d9d9"
    # a tenth of the first-order term at 0.01 is below the noise
    ((low, _),) = shaded(ax)
    assert low == pytest.approx(0.1)
    assert ax.get_ylim()[0] == pytest.approx(0.0025)


def test_marks():
    for marks in ((5.0,), (1.0, 5.0), ()):
        ax = penalty(made(), axes(), marks=marks)
        assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "-."] == list(marks)


def test_a_rise_that_is_not_finite_is_a_triangle_at_the_top():
    summary = made()
    lost = (summary["quantity"] == "rise") & (summary["epsilon"] == 5.0)
    summary.loc[lost, ["value", "low", "high"]] = [np.inf, np.nan, np.nan]
    ax = penalty(summary, axes())
    assert [line.get_xdata()[0] for line in ax.lines if line.get_gid() == "not finite"] == [5.0]
    assert 5.0 not in points(ax, RISE, "o", RISE)
    figure = penalty_panels(summary)
    assert words(figure).count("▲ at the top: not finite") == 1
    assert "▲" not in words(penalty_panels(made()))
    assert rendered(figure) > 1000


def test_a_site_without_a_gradient():
    summary = made()
    summary.loc[summary["quantity"] != "rise_noise", ["value", "low", "high"]] = 0.0
    ax = penalty(summary.assign(value=summary["value"].where(summary["quantity"] != "rise / first_order")), axes())
    assert ax.get_ylim() == pytest.approx((5e-8, 1e-5))
    assert rendered(ax.figure) > 1000


def test_panels_have_common_axes_and_one_legend():
    other = made("fc.weight")
    other.loc[other["quantity"] == "rise", "value"] *= 100
    figure = penalty_panels(pd.concat([made(), other]), heading="LeNet-5")
    assert rendered(figure) > 1000
    first, second = figure.axes
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[1] >= 100 * (5 + 12.5)
    assert [ax.get_title() for ax in figure.axes] == ["conv.weight", "fc.weight"]
    assert (first.get_ylabel(), second.get_ylabel()) == ("change of the loss", "")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "rise, masked gradient", "rise, random direction", "+ second order: ½ rᵀHr", "first order: ⟨g, r⟩",
        "eq. 12: ε‖M∘g‖",
    ]  # fmt: skip
    assert figure.get_suptitle() == "LeNet-5"


def test_the_lowest_panels_name_the_axis():
    figure = penalty_panels(pd.concat([made(site) for site in "abcd"]))
    assert [bool(ax.get_xlabel()) for ax in figure.axes] == [False, True, True, True]


def test_models_have_panels_of_their_own():
    figure = penalty_panels(pd.concat([made(model="standard"), made(model="dropattack")]))
    assert [ax.get_title() for ax in figure.axes] == ["conv.weight\nmodel standard", "conv.weight\nmodel dropattack"]


def test_the_caption():
    assert words(penalty_panels(made(), marks=(1.0, 5.0))) == (
        "point: mean bar: 95 % t interval over masks or directions hollow: a fall "
        "shaded: rise within 10 % of first order grey: below rounding noise vertical: ε = 1, 5 "
        "P(an entry is attacked) = 0.5 normalized, then masked 8 masks 8 random directions 2,000 examples seed 3"
    )
    other = made().assign(mask_then_normalize=True, relative_epsilon=True)
    caption = words(penalty_panels(other, marks=(), tolerance=0.2))
    assert "masked, then normalized ε relative to the norm of what is perturbed" in caption
    assert "within 20 %" in caption
    assert "vertical" not in caption


def test_names_are_text_and_not_formulas():
    figure = penalty_panels(made(r"$\lost$"))
    assert figure.axes[0].get_title() == r"\$\lost\$"
    assert rendered(figure) > 1000


def test_without_random_directions():
    summary = made().query("quantity != 'random_rise'")
    figure = penalty_panels(summary)
    assert "random" not in words(figure).replace("masks or directions", "")
    assert len(figure.legends[0].get_texts()) == 4


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        (made().drop(columns="low"), "summary: expected the columns .*, but low is missing"),
        (made().iloc[:0], "summary: expected at least one row, got none"),
        (pd.concat([made(), made("other")]), r"choose summary\[summary\['site'\] == 'conv.weight'\]"),
        (pd.concat([made(model="a"), made(model="b")]), r"choose summary\[summary\['model'\] == 'a'\]"),
        (pd.concat([made(), made()]), "expected one row for each epsilon and quantity, got several"),
    ],
)
def test_refusals(summary, message):
    with pytest.raises(ValueError, match=message):
        penalty(summary, axes())
