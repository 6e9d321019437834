"""Flatness against the generalization gap: points where they belong, and what the title says."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from landscape.plots.correlation import gap_panels, gap_scatter
from landscape.statistics import rank_correlations


def axes():
    return Figure(layout="constrained").add_subplot()


def rendered(figure):
    with io.BytesIO() as file:
        figure.savefig(file, dpi=40)
        return file.tell()


def made(values, gaps, metric="sharpness", setting="rho=0.05"):
    """A table of methods × training seeds; each model's test loss is its gap, as the training loss is zero."""
    rows = []
    for method, seed in np.ndindex(*np.shape(values)):
        model = {"method": f"method {method}", "training_seed": seed, "checkpoint": "selected", "converged": True}
        quantity = {"metric": metric, "setting": setting, "value": values[method][seed]}
        gap = gaps[method][seed]
        rows.append(model | quantity | {"split": "train", "loss": 0.0, "accuracy": 1.0})
        rows.append(
            model | quantity | {"metric": "trace", "setting": "", "split": "test", "loss": gap, "accuracy": 0.9}
        )
    return pd.DataFrame(rows).astype({"training_seed": "Int64"})


@pytest.fixture
def numbers():
    draws = np.random.default_rng(0)
    return draws.uniform(1, 5, (5, 3)), draws.normal(size=(5, 3))


@pytest.fixture
def table(numbers):
    return made(*numbers)


def points_of(ax):
    return {one.get_label(): np.column_stack(one.get_data()) for one in ax.lines}


def test_points_are_values_and_gaps(table, numbers):
    ax = axes()
    assert gap_scatter(table, "sharpness", "rho=0.05", ax) is ax
    points = points_of(ax)
    assert list(points) == [f"method {place}" for place in range(5)]
    for place, (values, gaps) in enumerate(zip(*numbers, strict=True)):
        assert points[f"method {place}"] == pytest.approx(np.column_stack([values, gaps]))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("sharpness (rho=0.05)", "test loss − train loss")
    assert len({(one.get_color(), one.get_marker()) for one in ax.lines}) == 5


def test_the_title_has_tau_and_its_parts(table):
    found = rank_correlations(table).set_index("metric").loc["sharpness"]
    expected = "τ = {:+.2f} [{:+.2f}, {:+.2f}], n = 15\np = {:.2g}; methods {:+.2f}, seeds {:+.2f}".format(
        *found[["tau", "low", "high", "p_holm", "psi_methods", "psi_seeds"]]
    ).replace("-", "−")
    assert gap_scatter(table, "sharpness", "rho=0.05", axes()).get_title() == expected
    given = rank_correlations(table).assign(tau=0.125)
    assert "τ = +0.12" in gap_scatter(table, "sharpness", "rho=0.05", axes(), correlations=given).get_title()


def test_what_is_not_known_is_not_in_the_title(numbers):
    values, gaps = (each[:3].copy() for each in numbers)
    values[1, 1] = np.nan
    title = gap_scatter(made(values, gaps), "sharpness", "rho=0.05", axes()).get_title()
    assert "n = 8 (1 missing)\nmethods" in title
    assert "[" not in title
    assert "p =" not in title


def test_the_gap_in_accuracy(table):
    table.loc[table["split"] == "test", "accuracy"] = np.linspace(0.5, 0.9, 15)
    ax = gap_scatter(table, "sharpness", "rho=0.05", axes(), gap="accuracy")
    assert ax.get_ylabel() == "train accuracy − test accuracy"
    assert points_of(ax)["method 0"][0, 1] == pytest.approx(0.5)


@pytest.mark.parametrize(("factor", "scale"), [(1, "linear"), (100, "log")])
def test_the_axis_is_logarithmic_over_more_than_a_decade(numbers, factor, scale):
    values, gaps = numbers
    values[0] *= factor
    assert gap_scatter(made(values, gaps), "sharpness", "rho=0.05", axes()).get_xscale() == scale


def test_a_method_has_one_look_in_all_panels(table, numbers):
    values, gaps = numbers
    fewer = made(values, gaps, "other")
    fewer = fewer[(fewer["split"] == "train") & (fewer["method"] != "method 0")]
    first, second = gap_panels(pd.concat([table, fewer])).axes
    looks = [{one.get_label(): (one.get_color(), one.get_marker()) for one in ax.lines} for ax in (first, second)]
    assert set(looks[0]) - set(looks[1]) == {"method 0"}
    assert all(looks[0][name] == looks[1][name] for name in looks[1])


def test_panels(table, numbers):
    values, gaps = numbers
    more = [made(10 * values, gaps, f"metric {place}") for place in range(3)]
    table = pd.concat([table, *(one[one["split"] == "train"] for one in more)])
    figure = gap_panels(table, heading="gaps")
    assert rendered(figure) > 1000
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "sharpness (rho=0.05)",
        *(f"metric {k} (rho=0.05)" for k in range(3)),
    ]
    assert [bool(ax.get_ylabel()) for ax in figure.axes] == [True, False, False, True]
    assert points_of(figure.axes[2])["method 1"] == pytest.approx(np.column_stack([10 * values[1], gaps[1]]))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"method {place}" for place in range(5)]
    caption = " ".join(figure.get_supxlabel().split())
    assert "whole methods exchanged, after Holm's correction" in caption
    assert "split: train; checkpoint: selected" in caption
    assert figure.get_suptitle() == "gaps"
    titles = [ax.title.get_window_extent() for ax in figure.axes]
    assert not any(one.overlaps(other) for place, one in enumerate(titles) for other in titles[:place])


def test_a_split_and_a_checkpoint_are_chosen(table):
    on_test = table[table["split"] == "train"].assign(split="test", value=7.0)
    on_test["loss"] = table.loc[table["split"] == "test", "loss"].to_numpy()
    on_test["accuracy"] = 0.9
    both = pd.concat([table, on_test])
    with pytest.raises(
        ValueError, match="split: expected one of 'train', 'test' for sharpness, got none; choose split=…"
    ):
        gap_scatter(both, "sharpness", "rho=0.05", axes())
    ax = gap_scatter(both, "sharpness", "rho=0.05", axes(), split="test")
    assert set(points_of(ax)["method 0"][:, 0]) == {7.0}
    twice = pd.concat([table, table.assign(checkpoint="matched", value=9.0)])
    with pytest.raises(ValueError, match="checkpoint: expected one of 'selected', 'matched' for sharpness"):
        gap_panels(twice)
    (panel,) = gap_panels(twice, checkpoint="matched").axes
    assert set(points_of(panel)["method 0"][:, 0]) == {9.0}


def test_a_table_from_a_file(table, tmp_path):
    table = table.assign(setting="")
    table.to_csv(tmp_path / "table.csv", index=False)
    one, other = (gap_scatter(each, "sharpness", "", axes()) for each in (table, pd.read_csv(tmp_path / "table.csv")))
    assert one.get_title() == other.get_title()
    assert points_of(one)["method 2"] == pytest.approx(points_of(other)["method 2"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda t: gap_scatter(t, "nothing", "", axes()),
            "one of the table's quantities, selected, train, sharpness.*got",
        ),
        (lambda t: gap_scatter(t, "sharpness", "rho=0.05", axes(), gap="error"), "expected 'loss' or 'accuracy'"),
        (lambda t: gap_panels(t, gap="error"), "expected 'loss' or 'accuracy'"),
        (lambda t: gap_panels(t, split="nowhere"), "table on split 'nowhere' .*at least one row, got none"),
        (lambda t: gap_panels(t[t["split"] == "train"]), "got none on 'test'"),
        (lambda t: gap_scatter(t.drop(columns="value"), "sharpness", "", axes()), "but value is missing"),
        (
            lambda t: gap_scatter(
                t, "sharpness", "rho=0.05", axes(), correlations=rank_correlations(t, gap="accuracy")
            ),
            "correlations: expected a row for sharpness with gap 'loss', got none",
        ),
    ],
)
def test_refusals(table, call, message):
    with pytest.raises(ValueError, match=message):
        call(table)
