"""Flatness by method: seeds, means and intervals where they belong; what has not converged or is not finite."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from landscape.plots.flatness import flatness_intervals, flatness_panels
from landscape.statistics import mean_interval

VALUES = {"standard": [4.0, 5.0, 6.0], "other": [1.0, 2.0, 4.0]}


def axes():
    return Figure(layout="constrained").add_subplot()


def rendered(figure):
    with io.BytesIO() as file:
        figure.savefig(file, dpi=40)
        return file.tell()


@pytest.fixture
def table():
    return pd.DataFrame(
        [
            (method, seed, "selected", "train", "sharpness", "rho=0.05", value, True)
            for method, values in VALUES.items()
            for seed, value in enumerate(values)
        ],
        columns=["method", "training_seed", "checkpoint", "split", "metric", "setting", "value", "converged"],
    )


def means_of(ax):
    """Row to the value of its large dot."""
    large = [one for one in ax.lines if one.get_marker() in "osD^v" and len(one.get_xdata()) == 1]
    return {int(one.get_ydata()[0]): float(one.get_xdata()[0]) for one in large}


def bars_of(ax):
    bars = [one for one in ax.lines if one.get_marker() == "None" and len(one.get_xdata()) == 2]
    return {int(one.get_ydata()[0]): tuple(map(float, one.get_xdata())) for one in bars}


def seeds_of(ax):
    dots = [one for one in ax.lines if one.get_marker() == "."]
    return {int(one.get_ydata()[0]): list(map(float, one.get_xdata())) for one in dots if len(one.get_xdata())}


def rows_of(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_seeds_means_and_intervals(table):
    ax = axes()
    assert flatness_intervals(table, ax) is ax
    assert seeds_of(ax) == {0: VALUES["standard"], 1: VALUES["other"]}
    assert means_of(ax) == {0: 5.0, 1: pytest.approx(7 / 3)}
    for row, values in enumerate(VALUES.values()):
        assert bars_of(ax)[row] == pytest.approx(mean_interval(values)[1:3])
    assert rows_of(ax) == ["standard (n = 3)", "other (n = 3)"]
    assert ax.get_xlabel() == "sharpness (rho=0.05)"
    assert ax.get_xscale() == "linear"
    bottom, top = ax.get_ylim()
    assert bottom > top  # the first method is on top


def test_the_confidence(table):
    ax = flatness_intervals(table, axes(), confidence=0.5)
    assert bars_of(ax)[0] == pytest.approx(mean_interval(VALUES["standard"], 0.5)[1:3])


def test_methods_differ_in_color_and_marker(table):
    lines = [one for one in flatness_intervals(table, axes()).lines if one.get_marker() in "os"]
    assert len({one.get_color() for one in lines}) == len({one.get_marker() for one in lines}) == 2


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 2.0, 9.9, 3.0, 3.0, 3.0], "linear"),  # less than a decade
        ([1.0, 2.0, 11.0, 3.0, 3.0, 3.0], "log"),
        ([0.0, 2.0, 11.0, 3.0, 3.0, 3.0], "linear"),  # not positive
        ([-1.0, 2.0, 11.0, 3.0, 3.0, 3.0], "linear"),
        ([np.nan, 1.0, 11.0, 3.0, 3.0, 3.0], "log"),  # of those that are finite
        ([np.nan] * 6, "linear"),
    ],
)
def test_the_axis_is_logarithmic_over_more_than_a_decade(table, values, scale):
    ax = flatness_intervals(table.assign(value=values), axes())
    assert ax.get_xscale() == scale
    assert rendered(ax.figure) > 1000


def test_an_interval_that_leaves_a_logarithmic_axis_ends_in_an_arrowhead(table):
    # 1, 2, 90: mean 31, and Student's interval begins below zero; 30, 31, 32 stays on the axis.
    ax = flatness_intervals(table.assign(value=[1.0, 2.0, 90.0, 30.0, 31.0, 32.0]), axes())
    assert mean_interval([1.0, 2.0, 90.0]).low < 0
    assert bars_of(ax)[0][0] == 0.5  # half of the smallest value
    assert bars_of(ax)[1] == pytest.approx(mean_interval([30.0, 31.0, 32.0])[1:3])
    heads = [one for one in ax.lines if one.get_marker() == "<"]
    assert [(one.get_xdata()[0], one.get_ydata()[0]) for one in heads] == [(0.5, 0)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mean_that_is_not_finite_is_said_and_its_seeds_are_drawn(table, value):
    table.loc[1, "value"] = value
    ax = flatness_intervals(table, axes())
    assert means_of(ax) == {1: pytest.approx(7 / 3)}
    assert seeds_of(ax)[0] == [4.0, 6.0]
    assert [text.get_text() for text in ax.texts] == [f"mean not finite ({value:g})"]


def test_one_seed_has_no_bar(table):
    ax = flatness_intervals(table[table["training_seed"] == 0], axes())
    assert means_of(ax) == {0: 4.0, 1: 1.0}
    assert bars_of(ax) == {}


@pytest.mark.parametrize("as_read", [bool, str])
def test_a_mean_with_a_value_that_has_not_converged_is_hollow(table, as_read):
    table.loc[1, "converged"] = False
    table["converged"] = table["converged"].map(as_read).astype(object)
    large = [one for one in flatness_intervals(table, axes()).lines if one.get_marker() in "os"]
    assert [one.get_markerfacecolor() == "white" for one in large] == [True, False]
    assert "hollow: a value has not converged" in flatness_panels(table).get_supxlabel()


def test_a_panel_for_each_quantity(table):
    wide = table.assign(metric="trace", setting="", value=table["value"] * 100)
    figure = flatness_panels(pd.concat([table, wide]), heading="flatness")
    assert rendered(figure) > 1000
    first, second = figure.axes
    assert (first.get_xlabel(), second.get_xlabel()) == ("sharpness (rho=0.05)", "trace")
    assert means_of(second)[0] == 500
    assert (rows_of(first), rows_of(second)) == (["standard (n = 3)", "other (n = 3)"], ["", ""])
    assert figure.get_suptitle() == "flatness"
    caption = " ".join(figure.get_supxlabel().split())
    assert "95 % t interval over training seeds" in caption
    assert "split: train; checkpoint: selected" in caption
    assert "hollow" not in caption


def test_where_a_number_was_measured_is_in_the_label_if_it_differs(table):
    figure = flatness_panels(pd.concat([table, table.assign(split="test")]))
    labels = [" ".join(ax.get_xlabel().split()) for ax in figure.axes]
    assert labels == ["sharpness (rho=0.05), train", "sharpness (rho=0.05), test"]
    assert "split: " not in figure.get_supxlabel()


def test_names_of_rows_stay_where_they_differ(table):
    fewer = table.assign(metric="trace")[:5]
    _, second = flatness_panels(pd.concat([table, fewer])).axes
    assert rows_of(second) == ["standard (n = 3)", "other (n = 2)"]


def test_many_panels_and_long_names_do_not_overlap(table):
    parts = [table.assign(metric=f"a_rather_long_name_of_a_metric_{place}", setting="a=1, b=2") for place in range(7)]
    figure = flatness_panels(pd.concat(parts))
    assert rendered(figure) > 1000
    assert len(figure.axes) == 7
    boxes = [ax.xaxis.label.get_window_extent() for ax in figure.axes]
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    assert figure.get_figwidth() < 12


def test_gaps_of_a_file_are_empty_text(table):
    ax = flatness_intervals(table.assign(setting=np.nan), axes())
    assert ax.get_xlabel() == "sharpness"


def test_names_are_text_and_not_formulas(table):
    figure = flatness_panels(table.replace({"standard": r"$\lost$", "sharpness": "5$ $_{"}))
    assert rows_of(figure.axes[0])[0] == r"\$\lost\$ (n = 3)"
    assert rendered(figure) > 1000


@pytest.mark.parametrize("draw", [lambda table: flatness_intervals(table, axes()), flatness_panels])
@pytest.mark.parametrize("column", ["method", "training_seed", "split", "value", "converged"])
def test_a_missing_column_is_named(table, draw, column):
    with pytest.raises(ValueError, match=f"but {column} is missing; it has "):
        draw(table.drop(columns=column))


def test_one_panel_is_one_quantity(table):
    both = pd.concat([table, table.assign(split="test")])
    with pytest.raises(ValueError, match=r"got 2; choose table\[\(table\['split'\] == 'train'\)\], or draw"):
        flatness_intervals(both, axes())


def test_a_model_has_one_value(table):
    with pytest.raises(ValueError, match="one value for each method and training seed, got two of standard"):
        flatness_intervals(pd.concat([table, table[:1]]), axes())


def test_an_empty_table(table):
    with pytest.raises(ValueError, match="expected at least one row, got none"):
        flatness_panels(table[:0])
