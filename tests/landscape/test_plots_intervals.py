"""Read-outs with intervals: numbers where they belong, one axis a quantity, differences against zero."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from landscape.plots import difference_intervals, readout_intervals, readout_panels


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
            ("standard", "curvature", 4.0, 3.0, 6.0, 10),
            ("other", "curvature", 2.0, 1.5, 2.25, 9),
            ("standard", "radius", 0.3, 0.2, 0.4, 10),
            ("other", "radius", 0.5, 0.45, 0.6, 10),
        ],
        columns=["model", "readout", "value", "low", "high", "n"],
    )


@pytest.fixture
def differences():
    return pd.DataFrame(
        [("curvature", -2.0, -3.5, -0.5, 9), ("radius", 0.2, -0.1, 0.5, 10)],
        columns=["readout", "difference", "low", "high", "n"],
    )


def only(table, readout):
    return table[table["readout"] == readout]


def dots_of(ax):
    """Row to the value of its dot."""
    return {float(one.get_ydata()[0]): float(one.get_xdata()[0]) for one in ax.lines if len(one.get_xdata()) == 1}


def bars_of(ax):
    """Row to the ends of its bar; the line at zero has no row."""
    bars = [one for one in ax.lines if one.get_marker() == "|"]
    return {float(one.get_ydata()[0]): tuple(map(float, one.get_xdata())) for one in bars}


def rows_of(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_dots_are_at_the_means_and_bars_from_low_to_high(table):
    ax = axes()
    assert readout_intervals(only(table, "curvature"), ax) is ax
    assert dots_of(ax) == {0: 4.0, 1: 2.0}
    assert bars_of(ax) == {0: (3.0, 6.0), 1: (1.5, 2.25)}
    assert rows_of(ax) == ["standard (n = 10)", "other (n = 9)"]
    assert ax.get_xlabel() == "curvature"
    bottom, top = ax.get_ylim()
    assert bottom > top  # the first model is on top


def test_models_differ_in_color_and_marker(table):
    ax = readout_intervals(only(table, "curvature"), axes())
    dots = [one for one in ax.lines if len(one.get_xdata()) == 1]
    assert len({one.get_color() for one in dots}) == len({one.get_marker() for one in dots}) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mean_that_is_not_finite_is_said_and_not_drawn(table, value):
    one = only(table, "curvature").assign(value=[value, 2.0])
    ax = readout_intervals(one, axes())
    assert dots_of(ax) == {1: 2.0}
    assert [text.get_text() for text in ax.texts] == [f"not finite ({value:g})"]
    assert rows_of(ax) == ["standard (n = 10)", "other (n = 9)"]
    assert rendered(ax.figure) > 1000


def test_without_an_interval_there_is_a_dot_alone(table):
    one = only(table, "curvature").assign(low=[np.nan, 1.5], high=[np.nan, 2.25])
    ax = readout_intervals(one, axes())
    assert dots_of(ax) == {0: 4.0, 1: 2.0}
    assert set(bars_of(ax)) == {1}


@pytest.mark.parametrize(("readout", "hollow"), [("curvature", False), ("radius", True)])
def test_a_difference_whose_interval_holds_zero_is_hollow(differences, readout, hollow):
    ax = axes()
    row = only(differences, readout)
    assert difference_intervals(row, ax, "other − standard") is ax
    ((low, high),) = bars_of(ax).values()
    assert (low, high) == (row["low"].item(), row["high"].item())
    (dot,) = [one for one in ax.lines if len(one.get_xdata()) == 1]
    assert float(dot.get_xdata()[0]) == row["difference"].item()
    assert (dot.get_markerfacecolor() == "white") is hollow
    (zero,) = [one for one in ax.lines if one.get_linestyle() == "--"]
    assert list(zero.get_xdata()) == [0, 0]
    left, right = ax.get_xlim()
    assert left < 0 < right
    assert rows_of(ax) == [f"other − standard (n = {row['n'].item()})"]
    assert ax.get_xlabel() == f"difference in {readout}"


def test_each_readout_has_a_panel_and_an_axis_of_its_own(table, differences):
    figure = readout_panels(table, differences, "other − standard", "95 % interval", heading="read-outs")
    assert rendered(figure) > 1000
    first, second, third, fourth = figure.axes
    assert [dots_of(ax) for ax in (first, second)] == [{0: 4.0, 1: 2.0}, {0: 0.3, 1: 0.5}]
    assert [dots_of(ax) for ax in (third, fourth)] == [{0: -2.0}, {0: 0.2}]
    assert first.get_xlim() != second.get_xlim()
    assert figure.get_supxlabel().startswith("dot: mean   bar: 95 % interval")
    assert "hollow: the interval holds zero" in figure.get_supxlabel()
    assert figure.get_suptitle() == "read-outs"


def test_names_of_rows_are_left_out_only_where_they_repeat(table, differences):
    figure = readout_panels(table, differences)
    first, second, third, _ = figure.axes
    assert rows_of(first) == ["standard (n = 10)", "other (n = 9)"]
    assert rows_of(second) == ["standard (n = 10)", "other (n = 10)"]  # another n
    assert rows_of(third) == ["difference (n = 9)"]
    figure = readout_panels(table.assign(n=10))
    assert [rows_of(ax) for ax in figure.axes] == [["standard (n = 10)", "other (n = 10)"], ["", ""]]


def test_many_readouts_go_on_below(table, differences):
    names = [f"read-out {number}" for number in range(6)]
    many = pd.concat([only(table, "radius").assign(readout=name, value=place) for place, name in enumerate(names)])
    against = pd.concat([only(differences, "radius").assign(readout=name) for name in names])
    figure = readout_panels(many, against)
    assert rendered(figure) > 1000
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert sorted(labels) == sorted([*names, *(f"difference in {name}" for name in names)])
    assert {label: dots_of(ax)[0] for label, ax in zip(labels, figure.axes, strict=True) if label in names} == {
        name: place for place, name in enumerate(names)
    }
    assert figure.get_figwidth() < 15
    left = min(figure.axes, key=lambda ax: ax.get_position().x0).get_position().x0
    for ax in figure.axes:
        assert any(rows_of(ax)) == (ax.get_position().x0 < left + 1e-3)  # the first column names the rows


def test_without_differences_there_is_one_row_and_no_word_of_them(table):
    figure = readout_panels(table)
    assert len(figure.axes) == 2
    assert "hollow" not in figure.get_supxlabel()


def test_long_names_of_readouts_do_not_run_into_each_other(table, differences):
    long = {
        "curvature": "mean curvature at the center along both directions (nats)",
        "radius": "largest radius at which the loss is 0.1 nats higher (filter norms)",
    }
    figure = readout_panels(table.replace(long), differences.replace(long))
    rendered(figure)
    assert max(len(row) for ax in figure.axes for row in ax.get_xlabel().split("\n")) <= 30
    for left, right in ((figure.axes[0], figure.axes[1]), (figure.axes[2], figure.axes[3])):
        assert left.xaxis.label.get_window_extent().x1 <= right.xaxis.label.get_window_extent().x0


def test_names_are_text_and_not_formulas(table, differences):
    strange = {"standard": r"$\lost$", "radius": "at $x$"}
    figure = readout_panels(table.replace(strange), differences.replace(strange), label="5$ − $_^{")
    assert figure.axes[1].get_xlabel() == r"at \$x\$"
    assert rendered(figure) > 1000


@pytest.mark.parametrize("column", ["model", "readout", "value", "low", "high", "n"])
@pytest.mark.parametrize(
    "draw", [lambda table: readout_intervals(table, axes()), readout_panels], ids=["one", "panels"]
)
def test_a_missing_column_is_named(table, column, draw):
    with pytest.raises(ValueError, match=f"but {column} is missing; it has "):
        draw(only(table, "radius").drop(columns=column))


def test_one_panel_is_one_readout(table, differences):
    with pytest.raises(ValueError, match=r"got curvature, radius; choose table\[table\['readout'\] == 'curvature'\]"):
        readout_intervals(table, axes())
    with pytest.raises(ValueError, match="one panel is one read-out"):
        difference_intervals(differences, axes())


def test_a_model_has_one_row(table):
    twice = pd.concat([table, table])
    with pytest.raises(ValueError, match="radius: expected one row for each model, got standard, other, standard"):
        readout_intervals(only(twice, "radius"), axes())


def test_a_difference_has_one_row(differences):
    twice = pd.concat([differences, differences])
    with pytest.raises(ValueError, match="radius: expected one row, the difference of one pair of models, got 2"):
        difference_intervals(only(twice, "radius"), axes())


def test_a_split_must_be_chosen_first(table, differences):
    both = [pd.concat([one.assign(split=split) for split in ("train", "test")]) for one in (table, differences)]
    for draw in (lambda: readout_panels(both[0]), lambda: readout_panels(table, both[1])):
        with pytest.raises(ValueError, match=r"choose a split, as in table\[table\['split'\] == 'train'\]"):
            draw()
    figure = readout_panels(*(one[one["split"] == "test"] for one in both))
    assert dots_of(figure.axes[0]) == {0: 4.0, 1: 2.0}


def test_every_readout_needs_its_difference(table, differences):
    with pytest.raises(ValueError, match="differences: expected a row for each read-out, but radius is missing"):
        readout_panels(table, only(differences, "curvature"))


def test_an_empty_table(table):
    with pytest.raises(ValueError, match="expected at least one row, got none"):
        readout_panels(table[:0])
