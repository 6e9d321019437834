"""Metrics by methods: colors about "no difference", numbers, marks, and cells without a number."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from landscape.plots.heat_map import metric_heat_map, metric_heat_map_panels


def axes():
    return Figure(layout="constrained").add_subplot()


def rendered(figure):
    with io.BytesIO() as file:
        figure.savefig(file, dpi=40)
        return file.tell()


@pytest.fixture
def table():
    """Two metrics of two methods: ratios 1/2 and 1, 2 and none."""
    rows = [
        ("sharpness", "rho=0.05", "a", 0.5, -3.0, -2.0, -0.5, 0.01, True),
        ("sharpness", "rho=0.05", "b", 1.0, 0.0, -1.0, 1.0, 0.5, True),
        ("trace", "", "a", 2.0, 1.5, 0.1, 5.0, 0.2, False),
        ("trace", "", "b", np.nan, 0.5, np.nan, np.nan, np.nan, True),
    ]
    columns = ["metric", "setting", "method", "ratio", "effect_size", "low", "high", "p_holm", "converged"]
    where = {"checkpoint": "selected", "split": "train", "baseline": "standard", "smallest_p": 2 / 2**8}
    return pd.DataFrame(rows, columns=columns).assign(**where)


def cells_of(ax):
    """(row, column) to the text in that cell."""
    return {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in ax.texts}


def frames_of(ax):
    """The cells with a frame."""
    boxes = [one for one in ax.patches if isinstance(one, Rectangle)]
    return {(round(one.get_y()), round(one.get_x())) for one in boxes}


def names_of(labels):
    return [text.get_text() for text in labels]


def test_rows_columns_and_numbers(table):
    ax = axes()
    assert metric_heat_map(table, ax) is ax
    assert names_of(ax.get_yticklabels()) == ["sharpness (rho=0.05)", "trace"]
    assert names_of(ax.get_xticklabels()) == ["a", "b"]
    assert cells_of(ax) == {(0, 0): "0.50*", (0, 1): "1.00", (1, 0): "2.00?", (1, 1): ""}
    assert ax.get_title() == "train, selected"
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert rendered(ax.figure) > 1000


def test_colors_are_binary_logarithms_about_no_difference(table):
    (mesh,) = metric_heat_map(table, axes()).collections
    assert mesh.get_array().filled(99).tolist() == [[-1, 0], [1, 99]]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-1, 1)
    mesh.update_scalarmappable()
    half, same, double = (np.array(mesh.to_rgba(value)[:3]) for value in (-1, 0, 1))
    assert same == pytest.approx([1, 1, 1], abs=0.05)  # no difference is white
    assert half[2] > half[0]  # blue
    assert double[0] > double[2]  # red


def test_effect_sizes(table):
    ax = metric_heat_map(table, axes(), color="effect_size")
    (mesh,) = ax.collections
    assert mesh.get_array().tolist() == [[-3, 0], [1.5, 0.5]]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-3, 3)
    assert cells_of(ax) == {(0, 0): "−3.0*", (0, 1): "+0.0", (1, 0): "+1.5?", (1, 1): "+0.5"}


def test_cells_whose_interval_excludes_zero_have_a_frame_and_bold_numbers(table):
    ax = metric_heat_map(table, axes())
    assert frames_of(ax) == {(0, 0), (1, 0)}
    bold = {text.get_text() for text in ax.texts if text.get_fontweight() == "bold"}
    assert bold == {"0.50*", "2.00?"}


def test_the_asterisk_is_below_five_percent(table):
    ax = metric_heat_map(table.assign(p_holm=[0.049, 0.05, 0.051, np.nan]), axes())
    assert [text.endswith("*") for text in cells_of(ax).values()] == [True, False, False, False]


def test_numbers_are_read_on_dark_and_on_light(table):
    ax = metric_heat_map(table, axes())
    colors = {text.get_text(): to_rgb(text.get_color()) for text in ax.texts}
    assert colors["0.50*"] == (1, 1, 1)
    assert colors["1.00"] == (0, 0, 0)


def test_a_limit_that_is_given(table):
    (mesh,) = metric_heat_map(table, axes(), limit=3).collections
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-3, 3)


@pytest.mark.parametrize(("color", "least"), [("ratio", 0.14), ("effect_size", 0.2)])
def test_small_differences_do_not_look_large(table, color, least):
    (mesh,) = metric_heat_map(table.assign(ratio=1.001, effect_size=0.01), axes(), color=color).collections
    assert mesh.norm.vmax == least


@pytest.mark.parametrize("value", [np.nan, 0.0, np.inf])
def test_a_table_without_a_finite_number(table, value):
    with np.errstate(divide="ignore"):
        figure = metric_heat_map_panels(table.assign(ratio=value))
    assert rendered(figure) > 1000
    assert "hatched: no number" in " ".join(figure.get_supxlabel().split())


def test_metrics_that_rescaling_moves_have_a_dagger(table):
    ax = metric_heat_map(table, axes(), rescaling={"sharpness": "unchanged", "trace": "changes"})
    assert names_of(ax.get_yticklabels()) == ["sharpness (rho=0.05)", "trace †"]
    ax = metric_heat_map(table, axes(), rescaling={"trace": "unchanged"})  # nothing is known of the other
    assert names_of(ax.get_yticklabels()) == ["sharpness (rho=0.05) †", "trace"]
    figure = metric_heat_map_panels(table, rescaling={})
    assert "† changes when weights are rescaled" in " ".join(figure.get_supxlabel().split())
    assert "†" not in metric_heat_map_panels(table).get_supxlabel()


def test_panels_have_common_colors_and_name_rows_once(table):
    test = table.assign(split="test", ratio=[8.0, 1.0, 1.0, 1.0])
    figure = metric_heat_map_panels(pd.concat([table, test]), heading="differences")
    assert rendered(figure) > 1000
    first, second, bar = figure.axes
    assert [ax.get_title() for ax in (first, second)] == ["train, selected", "test, selected"]
    assert [ax.collections[0].norm.vmax for ax in (first, second)] == [3, 3]
    assert names_of(first.get_yticklabels()) == ["sharpness (rho=0.05)", "trace"]
    assert names_of(second.get_yticklabels()) == ["", ""]
    assert bar.get_ylabel() == "ratio to standard"
    assert figure.get_suptitle() == "differences"


def test_the_color_bar_says_ratios(table):
    figure = metric_heat_map_panels(table)
    rendered(figure)
    formatter = figure.axes[-1].yaxis.get_major_formatter()
    assert [formatter(exponent) for exponent in (-1, 0, 1)] == ["×0.5", "×1", "×2"]
    assert metric_heat_map_panels(table, color="effect_size").axes[-1].get_ylabel() == "effect size against standard"


def test_the_caption_says_what_cannot_be(table):
    def words(table):
        return " ".join(metric_heat_map_panels(table).get_supxlabel().split())

    assert "cannot occur" not in words(table)
    assert "so few pairs give p ≥ 0.0625" in words(table.assign(smallest_p=0.0625))
    assert "? a value has not converged" in words(table)
    assert "not converged" not in words(table.assign(converged=True))
    assert "frame: interval excludes zero" in words(table)


def test_a_table_from_a_file(table, tmp_path):
    table.to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv")
    assert read["setting"].isna().any()
    one, other = (metric_heat_map(each, axes()) for each in (table, read))
    assert cells_of(one) == cells_of(other)
    assert names_of(one.get_yticklabels()) == names_of(other.get_yticklabels())


def test_labels_do_not_overlap_in_a_large_table(table):
    many = pd.concat([table.assign(metric=table["metric"] + f"_with_a_rather_long_name_{place}") for place in range(8)])
    figure = metric_heat_map_panels(many)
    rendered(figure)
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == 16
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda t: t, {"color": "difference"}, "expected 'ratio' or 'effect_size', got 'difference'"),
        (lambda t: t, {"limit": 0}, "limit: expected a positive number, got 0"),
        (lambda t: t.drop(columns="p_holm"), {}, "differences: .*but p_holm is missing"),
        (lambda t: pd.concat([t, t.assign(split="test")]), {}, r"one split, got 'train', 'test'; choose differences\["),
        (lambda t: pd.concat([t, t.assign(checkpoint="x")]), {}, "one panel is one checkpoint, got 'selected', 'x'"),
        (lambda t: pd.concat([t, t.assign(baseline="x")]), {}, "one baseline, got standard, x"),
        (lambda t: pd.concat([t, t]), {}, "one row for each cell, got two of sharpness, a"),
        (lambda t: t[:0], {}, "at least one row, got none"),
    ],
)
def test_refusals(table, change, settings, message):
    with pytest.raises(ValueError, match=message):
        metric_heat_map(change(table), axes(), **settings)
