import numpy as np
import pandas as pd
import pytest
from scipy.stats import f as f_distribution

from dropattack.paper import best_attack_probability, paper_table, two_way_anova, two_way_means


def residual_sum_of_squares(y, *factors):
    """Of least squares on an intercept and dummy variables, one for each level of a factor but its first."""
    columns = [np.ones(len(y))]
    columns += [factor == level for factor in factors for level in np.unique(factor)[1:]]
    design = np.column_stack(columns).astype(float)
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return residual @ residual


def f_test(y, dropped, kept):
    """F of a factor: what the fit loses without it, against the residual of the full fit, per degree of freedom."""
    full, reduced = residual_sum_of_squares(y, dropped, kept), residual_sum_of_squares(y, kept)
    freedom = len(np.unique(dropped)) - 1
    left = len(y) - 1 - freedom - (len(np.unique(kept)) - 1)
    ratio = (reduced - full) / freedom / (full / left)
    return ratio, f_distribution.sf(ratio, freedom, left)


def test_table_10():
    found = two_way_anova().set_index("source")
    assert found["degrees_of_freedom"].to_dict() == {"attack_probability": 5, "epsilon": 6, "residual": 30}
    assert found["F"].round(1).tolist()[:2] == [13.9, 1.5]
    assert found.loc["attack_probability", "p_value"] < 1e-6
    assert found.loc["epsilon", "p_value"] == pytest.approx(0.217, abs=5e-4)
    assert set(found["place"]) == {"Table 10"}


def test_table_10_by_least_squares():
    table = paper_table(10).query("attack_probability > 0")
    y, p, epsilon = (table[name].to_numpy() for name in ("accuracy", "attack_probability", "epsilon"))
    found = two_way_anova().set_index("source")
    assert found.loc["attack_probability", ["F", "p_value"]].tolist() == pytest.approx(f_test(y, p, epsilon))
    assert found.loc["epsilon", ["F", "p_value"]].tolist() == pytest.approx(f_test(y, epsilon, p))
    assert found.loc["residual", "sum_of_squares"] == pytest.approx(residual_sum_of_squares(y, p, epsilon))
    assert found.loc["residual", ["F", "p_value"]].isna().all()


def test_any_cells_by_least_squares():
    draws = np.random.default_rng(0)
    y = draws.standard_normal((4, 3)) + np.arange(4)[:, None]
    rows, columns = (index.ravel() for index in np.indices(y.shape))
    found = two_way_anova(pd.DataFrame(y)).set_index("source")
    assert list(found.index) == ["rows", "columns", "residual"]
    assert found.loc["rows", ["F", "p_value"]].tolist() == pytest.approx(f_test(y.ravel(), rows, columns))
    assert found.loc["columns", ["F", "p_value"]].tolist() == pytest.approx(f_test(y.ravel(), columns, rows))
    # Sums of squares about the mean add up.
    assert found["sum_of_squares"].sum() == pytest.approx(((y - y.mean()) ** 2).sum())
    assert set(found["place"]) == {""}


def test_cells_that_cannot_be_analyzed():
    for cells in ([[1.0, 2.0]], [[1.0], [2.0]], [[1.0, np.nan], [2.0, 3.0]]):
        with pytest.raises(ValueError, match="expected at least 2 by 2 finite numbers"):
            two_way_anova(pd.DataFrame(cells))


def test_cells_without_residual():
    # Values are sums of powers of two, so that the residual is exactly 0.
    found = two_way_anova(pd.DataFrame([[0.0, 0.0], [2.0, 2.0]])).set_index("source")
    assert found["F"].iloc[0] == np.inf
    assert found["p_value"].iloc[0] == 0
    assert found["F"].iloc[1:].isna().all()


def test_means():
    table = two_way_means()
    by_probability = table[table["factor"] == "attack_probability"].set_index("level")
    by_epsilon = table[table["factor"] == "epsilon"].set_index("level")
    assert by_probability["cells"].tolist() == [7] * 6
    assert by_epsilon["cells"].tolist() == [6] * 7
    # (89.60 + 89.78 + 89.40 + 88.74 + 89.30 + 88.88 + 89.26) / 7
    assert by_probability.loc[0.1, "mean"] == pytest.approx(624.96 / 7)
    # (88.74 + 90.10 + 90.25 + 90.20 + 89.22 + 89.40) / 6
    assert by_epsilon.loc[3, "mean"] == pytest.approx(537.91 / 6)
    assert by_epsilon.loc[3, ["lowest", "highest"]].tolist() == [88.74, 90.25]
    assert by_probability["mean"].idxmax() == 0.7
    # All means over epsilon lie within one standard error of a single run, 100 sqrt(0.9 x 0.1 / 5000) = 0.42 points.
    assert by_epsilon["standard_error_of_one_run"].to_numpy() == pytest.approx(0.42, abs=0.02)
    assert np.ptp(by_epsilon["mean"]) < by_epsilon["standard_error_of_one_run"].min()
    assert np.ptp(by_probability["mean"]) > by_probability["standard_error_of_one_run"].max()


def test_text_of_figure_5():
    table = best_attack_probability().set_index("epsilon")
    assert table["best_attack_probability"].to_dict() == {0.01: 0.7, 0.1: 0.7, 1: 0.7, 3: 0.5, 5: 0.5, 7: 0.7, 9: 0.9}
    assert list(table.index[table["rises_to_0.7"]]) == [0.01, 0.1, 7, 9]
    assert list(table.index[table["falls_from_0.7"]]) == [0.1, 1, 5, 7]
    assert list(table.index[~table["between_0.5_and_0.7"]]) == [9]
    assert table.loc[7, "accuracy"] == 90.36
    assert table["lead"].tolist() == [0.04, 0.10, 0.02, 0.05, 0.03, 0.06, 0.04]
    # 90.36 % and 90.30 % of 5,000.
    error = 100 * np.sqrt((0.9036 * 0.0964 + 0.9030 * 0.0970) / 5000)
    assert table.loc[7, "standard_error"] == pytest.approx(error)
