"""Scenes side by side: what is in them, on which scales, and that each entry of the menu shows what it says."""

import json
import math

import numpy as np
import plotly.graph_objects as go
import pytest

from landscape.interactive import overlay, surfaces

DRAWERS = {"surfaces": surfaces, "overlay": overlay}
HOSTILE = "<script>alert(1)</script> & <b>$x$</b>"
CHOICES = [
    f"{split} {what}"
    for split in ("train", "test")
    for what in ("loss, linear", "loss, logarithmic", "accuracy, linear")  # a share has no logarithm
]


def after(figure, label):
    """The figure once an entry of the menu was chosen: its restyle and relayout, done by hand."""
    (button,) = [one for one in figure.layout.updatemenus[0].buttons if one.label == label]
    assert button.method == "update"
    changed = go.Figure(figure)
    restyled, relaid = button.args
    assert list(restyled) == ["visible"]
    assert len(restyled["visible"]) == len(changed.data)
    for trace, visible in zip(changed.data, restyled["visible"], strict=True):
        trace.visible = visible
    for key, value in relaid.items():
        changed.layout[key] = value
    return changed


def seen(figure, kind="surface"):
    return [trace for trace in figure.data if trace.visible is True and trace.type == kind]


def same(first, second):
    """Whether both are written alike; the order of keys means nothing."""
    return json.loads(first.to_json()) == json.loads(second.to_json())


def scenes(figure):
    return [name for name in figure.to_plotly_json()["layout"] if name.startswith("scene")]


def strings(value):
    """All texts in a figure, wherever they are."""
    if isinstance(value, dict):
        return [text for one in value.values() for text in strings(one)]
    if isinstance(value, (list, tuple)):
        return [text for one in value for text in strings(one)]
    return [value] if isinstance(value, str) else []


def with_lattice(surface, values):
    """The surface as an adaptive one, with these values on the lattice under it."""
    lattice = values.rename(alpha="alpha_node", beta="beta_node")
    found = surface[["loss", "center_loss"]].assign(
        node_loss=lattice, loss_transform="none", loss_degree=1, evaluated=lattice > 0
    )
    return found.assign_coords(alpha_node=surface["alpha"].values, beta_node=surface["beta"].values)


@pytest.fixture
def pair(model):
    return {"standard": model(2.0), "dropattack": model(0.5, 0.75)}


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 1), (4, 2)])
def test_one_scene_for_each_model(model, count, rows):
    figure = surfaces({f"model {index}": model(1.0 + index) for index in range(count)})
    names = scenes(figure)
    assert len(names) == count
    assert [trace.scene for trace in seen(figure)] == names
    assert len({figure.layout[name].domain.y for name in names}) == rows


def test_heights_are_those_of_the_surface(model):
    # The train loss 0.5 + 3 (alpha - 1/4)² + (beta + 1/2)² at alpha = 1, beta = -1/2 is 0.5 + 27/16 = 2.1875; rows of
    # heights go with y, which is beta, and columns with x. At 5 points a side alpha = 1 is the last, beta = -1/2 the
    # second. Exchanged, at alpha = -1/2, beta = 1, it is 0.5 + 27/16 + 9/4.
    (trace,) = seen(surfaces({"one": model()}, resolution=5, logarithmic=False))
    assert (trace.x[4], trace.y[1]) == (1.0, -0.5)
    assert trace.z[1, 4] == pytest.approx(2.1875, rel=1e-6)
    assert trace.z[4, 1] == pytest.approx(4.4375, rel=1e-6)


def test_finer_than_the_surface(model):
    # Between the points of a lattice of 9 a side, at 0.125 (of 17 a side): 2 + 3/64 + 25/64.
    (trace,) = seen(surfaces({"one": model(lowest=2.0)}, resolution=17, logarithmic=False))
    assert trace.z.shape == (17, 17)
    assert trace.z[9, 9] == pytest.approx(2.4375, rel=1e-6)


def test_a_cliff_makes_no_pits(model):
    # Through the values themselves a cubic spline rings: beside a rise to a million it is negative.
    surface = model(splits=(), points=(17, 17))
    plain = surface["loss"].values.T.copy()
    surface["loss"][0, 0] = 1e6
    (trace,) = seen(surfaces({"one": surface}, resolution=33))
    heights = trace.z
    assert heights.min() > np.log10(0.45)
    np.testing.assert_allclose(heights[::2, ::2][1:, 1:], np.log10(plain[1:, 1:]), atol=1e-6)


@pytest.mark.parametrize("label", CHOICES)
@pytest.mark.parametrize("order", [1, -1], ids=["the steeper first", "the steeper last"])
def test_common_scales(pair, label, order):
    figure = after(surfaces(dict(list(pair.items())[::order]), resolution=9), label)
    first, second = seen(figure)
    assert (first.cmin, first.cmax) == (second.cmin, second.cmax)
    axes = [figure.layout[name].zaxis for name in scenes(figure)]
    assert axes[0] == axes[1]
    heights = np.concatenate([first.z.ravel(), second.z.ravel()])
    assert axes[0].range[0] < first.cmin <= heights.min() + 1e-6
    assert axes[0].range[1] == first.cmax >= heights.max() - 1e-6
    assert first.colorscale == second.colorscale
    assert (first.showscale, second.showscale) == (True, False)


def test_another_split_keeps_the_axis(pair):
    figure = surfaces(pair, resolution=9)
    train, test = (after(figure, f"{split} loss, linear") for split in ("train", "test"))
    assert train.layout.scene.zaxis.range == test.layout.scene.zaxis.range
    assert seen(train)[0].cmax == seen(test)[0].cmax
    assert train.layout.scene.zaxis.title.text == "train loss (nats)"
    assert test.layout.scene.zaxis.title.text == "test loss (nats)"


@pytest.mark.parametrize("drawer", DRAWERS)
@pytest.mark.parametrize("label", CHOICES)
def test_each_entry_shows_what_it_says(pair, drawer, label):
    figure = DRAWERS[drawer](pair, resolution=9)
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == CHOICES
    split, quantity = label.partition(",")[0].split()
    changed = after(figure, label)
    drawn = seen(changed)
    assert len(drawn) == len(seen(changed, "scatter3d")) == len(pair)
    for trace, surface in zip(drawn, pair.values(), strict=True):
        expected = surface[quantity].sel(split=split).transpose("beta", "alpha").values
        expected = np.log10(expected) if label.endswith("logarithmic") else expected
        np.testing.assert_allclose(trace.z, expected, rtol=1e-5, atol=1e-6)
    text = changed.layout.annotations[0].text
    assert f"center: loss {float(pair['standard']['center_loss'].sel(split=split)):.4g}" in text
    assert f"accuracy {float(pair['standard']['center_accuracy'].sel(split=split)):.2%}" in text


@pytest.mark.parametrize("drawer", DRAWERS)
def test_entries_lead_back(pair, drawer):
    figure = DRAWERS[drawer](pair, resolution=9)
    active = figure.layout.updatemenus[0].active
    start = figure.layout.updatemenus[0].buttons[active].label
    elsewhere = after(figure, "test accuracy, linear")
    assert not same(elsewhere, figure)
    assert same(after(elsewhere, start), figure)


@pytest.mark.parametrize("drawer", DRAWERS)
@pytest.mark.parametrize(
    ("asked", "label"),
    [
        ({}, "train loss, logarithmic"),  # the largest loss is more than 8 times the smallest
        ({"logarithmic": False}, "train loss, linear"),
        ({"split": "test", "quantity": "accuracy"}, "test accuracy, linear"),  # that of accuracies too
    ],
    ids=["nothing", "linear", "accuracy"],
)
def test_what_is_seen_first(pair, drawer, asked, label):
    figure = DRAWERS[drawer](pair, resolution=9, **asked)
    menu = figure.layout.updatemenus[0]
    assert menu.buttons[menu.active].label == label
    assert same(after(figure, label), figure)


def test_without_splits_and_metrics(model):
    figure = surfaces({"one": model(splits=()).drop_vars(["accuracy", "center_accuracy"])})
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == ["loss, linear", "loss, logarithmic"]
    assert after(figure, "loss, linear").layout.annotations[0].text == "one<br>center: loss 0.9375"


@pytest.mark.parametrize(("shift", "kinds"), [(0.0, ["linear"]), (1.0, ["linear", "logarithmic"]), (-0.5, ["linear"])])
def test_logarithms_are_of_what_is_positive_and_no_share(model, shift, kinds):
    surface = model()
    surface["accuracy"] = surface["accuracy"] + shift
    labels = [button.label for button in surfaces({"one": surface}, resolution=9).layout.updatemenus[0].buttons]
    assert [label for label in labels if "train accuracy" in label] == [f"train accuracy, {kind}" for kind in kinds]


def test_no_logarithm_of_a_negative_loss(model):
    with pytest.raises(ValueError, match="logarithmic scale: expected positive values, but the smallest loss is -"):
        surfaces({"one": model(lowest=-1.0)}, logarithmic=True)
    with pytest.raises(ValueError, match="logarithmic: accuracy is a share, from 0 to 1; expected None or False"):
        surfaces({"one": model()}, quantity="accuracy", logarithmic=True)


def test_hover_tells_coordinates_and_values(pair):
    # Plotly looks custom data up by the index of alpha first: at alpha = 1, beta = -1/2 (of 5 a side) that is [4, 1].
    # The loss there is 0.5 + 2 · 27/16 = 3.875, the accuracy 1 / 4.875.
    figure = surfaces(pair, resolution=5)
    linear, logarithmic, accuracy = (
        seen(after(figure, f"train {what}"))[0] for what in ("loss, linear", "loss, logarithmic", "accuracy, linear")
    )
    coordinates = "alpha %{x:.3f}<br>beta %{y:.3f}<br>"
    assert linear.hovertemplate == f"{coordinates}loss %{{z:.4g}}<br>accuracy %{{customdata[0]:.2%}}"
    assert linear.customdata[4, 1] == pytest.approx([1 / 4.875], rel=1e-4)
    assert logarithmic.hovertemplate == (f"{coordinates}loss %{{customdata[0]:.4g}}<br>accuracy %{{customdata[1]:.2%}}")
    assert logarithmic.customdata[4, 1] == pytest.approx([3.875, 1 / 4.875], rel=1e-4)
    assert accuracy.hovertemplate == f"{coordinates}loss %{{customdata[0]:.4g}}<br>accuracy %{{z:.2%}}"
    assert accuracy.customdata[4, 1] == pytest.approx([3.875], rel=1e-4)


@pytest.mark.parametrize("label", ["train loss, linear", "train loss, logarithmic"])
def test_the_center_is_marked(model, label):
    figure = after(surfaces({"one": model()}), label)
    (mark,) = seen(figure, "scatter3d")
    (surface,) = seen(figure)
    floor, top = figure.layout.scene.zaxis.range
    assert set(mark.x) == set(mark.y) == {0.0}
    assert mark.z[0] == floor
    # 0.5 + 3/16 + 1/4, a little above it so that the surface does not cover the mark
    height = math.log10(0.9375) if label.endswith("logarithmic") else 0.9375
    assert height < mark.z[1] < height + 0.02 * (top - floor)
    assert surface.z[32, 32] == pytest.approx(height, abs=1e-6)
    assert "loss 0.9375" in mark.hovertemplate


@pytest.mark.parametrize("label", CHOICES)
def test_contours_on_the_floor(pair, label):
    for trace in seen(after(surfaces(pair, resolution=9), label)):
        lines = trace.contours.z
        assert lines.show
        assert lines.project.z
        assert (lines.start, lines.end) == pytest.approx((trace.cmin, trace.cmax), abs=0.5 * (trace.cmax - trace.cmin))
        assert 4 <= (lines.end - lines.start) / lines.size <= 20


def test_ticks_say_losses_where_heights_are_logarithms(pair):
    axis = after(surfaces(pair, resolution=9), "train loss, logarithmic").layout.scene.zaxis
    assert [10**height for height in axis.tickvals] == pytest.approx([float(word) for word in axis.ticktext])
    assert len(axis.tickvals) >= 3


@pytest.mark.parametrize("drawer", DRAWERS)
def test_hostile_names_are_text(model, drawer):
    surface = model().assign_coords(split=["<i>train</i>", "test"])
    surface = surface.rename({"accuracy": "<u>hits</u>", "center_accuracy": "center_<u>hits</u>"})
    content = DRAWERS[drawer]({HOSTILE: surface, "plain": surface}, heading=HOSTILE).to_plotly_json()
    del content["layout"]["meta"]  # plain text, escaped when it is written into a page
    found = strings(content)
    assert (
        sum("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;&#36;x&#36;&lt;/b&gt;" in text for text in found) > 4
    )
    assert any("&lt;i&gt;train&lt;/i&gt; &lt;u&gt;hits&lt;/u&gt;" in text for text in found)
    for text in found:
        assert not [tag for tag in ("<script", "<b>", "<i>", "<u>", "$") if tag in text], text


@pytest.mark.parametrize("drawer", DRAWERS)
def test_what_is_not_finite_is_a_gap_with_a_note(model, drawer):
    # At 9 points a side the corner cell of the lattice is one of its points: 2 of 81 are not finite.
    surface = model(splits=())
    surface["loss"][0, 0], surface["loss"][0, 1] = np.inf, np.nan
    figure = DRAWERS[drawer]({"good": model(splits=()), "bad": surface}, resolution=9)
    good, bad = seen(figure)
    assert np.isfinite(good.z).all()
    assert np.argwhere(np.isnan(bad.z)).tolist() == [[0, 0], [1, 0]]
    assert not np.isinf(bad.z).any()
    assert np.isfinite([bad.cmin, bad.cmax]).all()
    words = " ".join(note.text for note in figure.layout.annotations)
    assert words.count("2.5 % of the points not finite: gaps") == 1
    json.loads(figure.to_json())


@pytest.mark.parametrize("drawer", DRAWERS)
def test_a_model_that_is_nowhere_finite(model, drawer):
    surface = model()
    surface["loss"][:], surface["center_loss"][:] = np.nan, np.nan
    figure = DRAWERS[drawer]({"bad": surface, "good": model()})
    bad, good = seen(figure)
    assert bad.z is None  # plotly.js fails where all heights are gaps
    assert good.z is not None
    bad_mark, good_mark = seen(figure, "scatter3d")
    assert (len(bad_mark.z), len(good_mark.z)) == (1, 2)  # on the floor alone; a scene must not be empty
    words = " ".join(note.text for note in figure.layout.annotations)
    assert "no point finite: nothing to draw, the center among them" in words
    if drawer == "surfaces":  # the color bar is with the model that is drawn
        assert (bad.showscale, good.showscale) == (False, True)


def test_a_split_that_is_nowhere_finite(model):
    surface = model()
    surface["loss"][1] = np.nan
    labels = [button.label for button in surfaces({"one": surface}).layout.updatemenus[0].buttons]
    assert labels == [label for label in CHOICES if not label.startswith("test loss")]
    with pytest.raises(ValueError, match="no finite loss of split 'test' on any surface: choose another split"):
        surfaces({"one": surface}, split="test")


@pytest.mark.parametrize("is_adaptive", [False, True], ids=["grid", "adaptive"])
def test_beyond_what_a_graphics_card_holds(model, is_adaptive):
    surface = model(splits=())
    surface["loss"][0, 0] = 1e300
    drawn = with_lattice(surface, surface["loss"]) if is_adaptive else surface
    (trace,) = seen(surfaces({"one": drawn}, resolution=9))
    assert np.argwhere(np.isnan(trace.z)).tolist() == [[0, 0]]


def test_a_value_too_large_is_as_good_as_infinite(model):
    # Between the points too: no spline goes through it.
    large, infinite = model(splits=()), model(splits=())
    large["loss"][0, 0], infinite["loss"][0, 0] = 1e300, np.inf
    first, second = seen(surfaces({"large": large, "infinite": infinite}, resolution=17))
    np.testing.assert_array_equal(first.z, second.z)
    assert np.isfinite(second.z).sum() > 280  # of 289


def with_span(model, span):
    return {"small": model(), "large": model(span=span)}


@pytest.mark.parametrize("drawer", DRAWERS)
def test_unequal_axes(model, drawer):
    with pytest.raises(
        ValueError,
        match="model 'large': expected common alpha and beta, but alpha goes from -2 to 2, and from -1 to 1 for "
        "'small'; use loss_surface with the same span",
    ):
        DRAWERS[drawer](with_span(model, 2.0))


def test_unequal_beta_alone(model):
    moved = model().assign_coords(beta=np.linspace(-1, 1.5, 9))
    with pytest.raises(ValueError, match=r"but beta goes from -1 to 1\.5, and from -1 to 1 for 'one'"):
        surfaces({"one": model(), "other": moved})


def test_other_points_on_the_same_plane_are_no_hindrance(model):
    # Also where the ends differ by rounding: an interpolant refuses points outside its lattice.
    figure = surfaces(
        {"coarse": model(lowest=2.0, points=(5, 9)), "fine": model(lowest=2.0, span=1.0 - 1e-12, points=(17, 17))},
        resolution=9,
    )
    coarse, fine = seen(figure)
    np.testing.assert_allclose(coarse.z, fine.z, rtol=1e-5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"quantity": "perplexity"}, "quantity: expected one of loss, accuracy, got 'perplexity'"),
        ({"split": "validation"}, "split: expected one of train, test, got 'validation'"),
        ({"resolution": 1}, "resolution: expected a whole number of at least 2, got 1"),
        ({"resolution": 9.5}, "resolution: expected a whole number of at least 2, got 9.5"),
    ],
    ids=["quantity", "split", "too few points", "half a point"],
)
def test_what_cannot_be_drawn(model, asked, message):
    with pytest.raises(ValueError, match=message):
        surfaces({"one": model()}, **asked)


def test_no_split_to_choose(model):
    with pytest.raises(ValueError, match="split: expected None, as the surfaces have none, got 'train'"):
        surfaces({"one": model(splits=())}, split="train")


def test_no_models():
    with pytest.raises(ValueError, match="models: expected a dictionary of surfaces, got an empty one"):
        surfaces({})


def test_more_scenes_than_a_browser_draws(model):
    with pytest.raises(ValueError, match="expected at most 16 scenes in a figure, got 17; use overlay"):
        surfaces(dict.fromkeys(map(str, range(17)), model(splits=())))


def test_other_splits(model):
    with pytest.raises(ValueError, match=r"model 'b': expected the splits of 'a', \['train', 'test'\], got \['test'\]"):
        surfaces({"a": model(), "b": model(splits=("test",))})


def test_no_surface(model):
    with pytest.raises(ValueError, match="model 'a': expected a surface with center_loss, as landscape"):
        surfaces({"a": model().drop_vars("center_loss")})
    with pytest.raises(ValueError, match="model 'a': loss: expected the dimensions beta, alpha, got alpha"):
        surfaces({"a": model(splits=()).isel(beta=0, drop=True)})
    with pytest.raises(ValueError, match=r"model 'a': .*choose along pair first: surface.sel\(pair=0\)"):
        surfaces({"a": model(splits=()).expand_dims(pair=[0, 1])})


def test_nothing_finite(model):
    surface = model()
    surface["loss"][:] = np.nan
    with pytest.raises(ValueError, match="no finite loss on any surface: nothing to draw"):
        surfaces({"one": surface})


def test_how_it_was_made(pair):
    words = surfaces(pair).layout.annotations[-1].text.replace("<br>", " ")
    assert "filter-normalized random directions; seed 3, the same draws for all panels" in words
    assert "9×9 points, each evaluated" in words
    assert words.endswith("drawn at 65×65 points")
    assert surfaces(pair, resolution=9).layout.scene.xaxis.title.text == "alpha (filter norms)"


def test_small_enough_to_send(pair):
    # Two models, two splits, two quantities: 12 surfaces of 65 × 65 heights, as the loss has logarithms too, each with
    # one or two more values a point. In float32 as base64 a value takes 16/3 bytes.
    figure = surfaces(pair)
    assert len(seen(figure)[0].z) == 65
    assert len([trace for trace in figure.data if trace.type == "surface"]) == 12
    assert len(figure.to_json()) < 1_000_000


def test_an_adaptive_surface_is_drawn_from_its_lattice(model):
    # The lattice says otherwise than the rendered points, so that one sees which of them was drawn.
    surface = model(splits=())
    surface = with_lattice(surface, surface["loss"] + 1)
    (trace,) = seen(surfaces({"one": surface}, resolution=5, logarithmic=False))
    assert trace.z[1, 4] == pytest.approx(3.1875, rel=1e-6)
