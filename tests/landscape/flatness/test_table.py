"""The flatness table: its columns, what it takes, tasks on workers, rows that are kept, and matched training loss."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from landscape import METRICS, EmpiricalRisk, Measurement, Metric, flatness_table, process_pool, sam_sharpness
from landscape.flatness.table import COLUMNS, with_types

SPECTRUM = [-1.0, 0.5, 1.0, 2.0, 4.0, 9.0]
CHEAP = {
    "sam_sharpness": METRICS["sam_sharpness"].with_options(radii=(0.1,), steps=(1,)),
    "hessian_trace": METRICS["hessian_trace"],
}


def test_a_table_of_everything_about_a_quadratic(bowl, symmetric):
    quadratic = bowl(symmetric(SPECTRUM))
    # no layer is linear, and a quadratic has neither inputs with gradients nor predictions
    chosen = ["largest_eigenvalue", "smallest_eigenvalue", "hessian_trace", "hessian_frobenius_norm", "sam_sharpness"]
    metrics = {name: METRICS[name] for name in [*chosen, "convex_share"]}
    table = flatness_table({"bowl": quadratic.risk}, metrics, seed=5, progress=False)
    assert list(table.columns) == list(COLUMNS)
    assert list(dict.fromkeys(table["metric"])) == list(metrics)
    rows = table.set_index(["metric", "setting"])
    assert rows.loc[("largest_eigenvalue", "rank=1"), "value"] == pytest.approx(9.0, rel=1e-9)
    assert rows.loc[("largest_eigenvalue", "rank=3"), "value"] == pytest.approx(2.0, rel=1e-9)
    assert rows.loc[("smallest_eigenvalue", ""), "value"] == pytest.approx(-1.0, rel=1e-9)
    assert rows.loc[("hessian_trace", ""), "value"] == pytest.approx(sum(SPECTRUM), rel=1e-9)
    assert rows.loc[("hessian_frobenius_norm", ""), "value"] == pytest.approx(np.linalg.norm(SPECTRUM), rel=1e-9)
    found = sam_sharpness(quadratic.risk, 5)
    expected = {f"rho={one.setting['rho']:g}, steps={one.setting['steps']}": one.value for one in found}
    assert dict(rows.loc["sam_sharpness"]["value"]) == expected
    assert len(json.loads(rows.loc["convex_share", "draws"].iloc[0])) == 3
    np.testing.assert_allclose(table["loss"], quadratic.losses(quadratic.theta).mean())
    assert set(table["seed"]) == {5}
    assert set(table["examples"]) == {7}
    assert set(table["checkpoint"]) == {"selected"}
    assert table["training_seed"].isna().all()


def test_methods_seeds_and_splits(bowl, symmetric):
    models = {("sam", 3): {"train": bowl(symmetric(SPECTRUM), seed=1).risk, "test": bowl(np.eye(6)).risk}}
    models["standard", 4] = {"train": bowl(2 * np.eye(6)).risk, "test": bowl(np.eye(6)).risk}
    table = flatness_table(models, CHEAP, progress=False)
    found = table[["method", "training_seed", "split", "metric"]].to_numpy().tolist()
    assert found == [
        [method, seed, split, metric]
        for method, seed in (("sam", 3), ("standard", 4))
        for split in ("train", "test")
        for metric in CHEAP
    ]
    assert str(table["training_seed"].dtype) == "Int64"


def test_a_round_trip_through_csv(bowl, tmp_path):
    table = flatness_table({("a", 0): bowl(np.eye(6)).risk, ("b", 0): bowl(2 * np.eye(6)).risk}, CHEAP, progress=False)
    table.to_csv(tmp_path / "table.csv", index=False)
    pd.testing.assert_frame_equal(with_types(pd.read_csv(tmp_path / "table.csv")), table)


def test_metrics_of_the_risk_are_columns_beside_the_loss(network):
    risk = EmpiricalRisk(network.model, network.batches)
    table = flatness_table({"net": risk}, CHEAP, progress=False)
    assert list(table.columns)[-4:] == ["loss", "accuracy", "examples", "seed"]
    assert set(table["accuracy"]) == {risk().metrics["accuracy"]}


def test_functions_that_find_several_metrics_are_called_once_for_one_setting(bowl):
    calls = []

    def both(risk, seed, scale=1.0):
        calls.append(scale)
        return {"one": Measurement(scale), "two": [Measurement(2 * scale, setting={"k": 1})]}

    def metric(part, **options):
        return Metric(both, "", "", "sharper", "", "changes", part, options)

    metrics = {"one": metric("one"), "two": metric("two"), "other": metric("two", scale=5.0)}
    table = flatness_table({"bowl": bowl(np.eye(6)).risk}, metrics, progress=False)
    assert calls == [1.0, 5.0]
    assert list(table["value"]) == [1.0, 2.0, 10.0]


def test_two_functions_of_one_name_are_two(bowl):
    def returning(value):
        return Metric(lambda risk, seed: Measurement(value), "", "", "sharper", "", "changes")

    table = flatness_table({"b": bowl(np.eye(6)).risk}, {"x": returning(1.0), "y": returning(2.0)}, progress=False)
    assert list(table["value"]) == [1.0, 2.0]


def test_plain_functions_are_metrics_too(bowl):
    own = {"own": lambda risk, seed: Measurement(float(seed), 0.25, False, {"note": "mine"}, {"tries": 3}, (1.0, 2.0))}
    row = flatness_table({"bowl": bowl(np.eye(6)).risk}, own, seed=7, progress=False).iloc[0]
    assert (row["value"], row["standard_error"], row["converged"], row["setting"]) == (7.0, 0.25, False, "note=mine")
    assert json.loads(row["detail"]) == {"tries": 3}
    assert json.loads(row["draws"]) == [1.0, 2.0]


def test_models_share_their_draws(bowl):
    # The same bowl twice as steep: with the same draws each rise doubles, so the means do, exactly.
    risks = {"one": bowl(np.eye(6)).risk, "two": bowl(2 * np.eye(6)).risk}
    table = flatness_table(risks, ["isotropic_rise"], progress=False)
    one, two = (table.loc[table["method"] == method, "value"].to_numpy() for method in risks)
    np.testing.assert_allclose(two, 2 * one, rtol=1e-12)


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        (["depth"], ValueError, "unknown metric 'depth'; known: largest_eigenvalue, smallest_eigenvalue"),
        ("hessian_trace", TypeError, r"expected a sequence, got the string 'hessian_trace'; write \['hessian_trace'\]"),
        (
            {"own": lambda risk, seed: 1.0},
            TypeError,
            "metric 'own': expected a Measurement or a list of them, got float",
        ),
        ({"own": lambda risk, seed: [1.0]}, TypeError, "metric 'own': expected a Measurement"),
        (
            {"own": Metric(lambda risk, seed: Measurement(1.0), "", "", "sharper", "", "changes", part="top")},
            TypeError,
            "metric 'own': expected its function to return a dictionary with 'top'",
        ),
    ],
)
def test_wrong_metrics(bowl, metrics, error, message):
    with pytest.raises(error, match=message):
        flatness_table({"bowl": bowl(np.eye(6)).risk}, metrics, progress=False)


def test_wrong_models(bowl):
    with pytest.raises(ValueError, match="models: expected at least one, got none"):
        flatness_table({}, CHEAP)
    risk = bowl(np.eye(6)).risk
    with pytest.raises(ValueError, match=r"model 'b': expected the splits of 'a', \['train'\], got \['test'\]"):
        flatness_table({"a": {"train": risk}, "b": {"test": risk}}, CHEAP)


@pytest.fixture
def nets():
    """Two small trained networks, with all that they were on the way."""
    inputs, labels = torch.randn(24, 3, dtype=torch.float64), torch.randint(2, (24,))
    batches = list(zip(inputs.split(9), labels.split(9), strict=True))
    risks, checkpoints = {}, {}
    for seed, rate in ((0, 0.05), (1, 0.6)):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        history = []
        for _ in range(12):
            history.append({name: tensor.detach().clone() for name, tensor in model.named_parameters()})
            for _ in range(10):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
        risks["sgd", seed] = EmpiricalRisk(model.eval(), batches)
        checkpoints["sgd", seed] = history
    return risks, checkpoints


def test_workers_find_the_same_bits(nets):
    risks, _ = nets
    here = flatness_table(risks, CHEAP, progress=False)
    with process_pool(1) as executor:
        there = flatness_table(risks, CHEAP, executor=executor, progress=False)
    pd.testing.assert_frame_equal(here, there)


def test_rows_are_kept_and_not_measured_again_unless_something_differs(nets, tmp_path):
    risks, _ = nets
    calls = []

    def counted(risk, seed):
        calls.append(seed)
        return Measurement(math.nan, converged=False, detail={"why": "counted"})

    first = flatness_table(risks, {"own": counted}, folder=tmp_path, progress=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["sgd-0-selected.json", "sgd-1-selected.json"]
    again = flatness_table(risks, {"own": counted}, folder=tmp_path, progress=False)
    assert len(calls) == 2
    pd.testing.assert_frame_equal(first, again)
    flatness_table(risks, {"own": counted}, seed=1, folder=tmp_path, progress=False)
    assert len(calls) == 4
    (tmp_path / "sgd-0-selected.json").write_text('{"identity": "torn')
    flatness_table(risks, {"own": counted}, seed=1, folder=tmp_path, progress=False)
    assert len(calls) == 5
    with torch.no_grad():
        risks["sgd", 0].model[0].bias.add_(0.01)  # other weights
    flatness_table(risks, {"own": counted}, seed=1, folder=tmp_path, progress=False)
    assert len(calls) == 6


def test_names_cannot_leave_the_folder(bowl, tmp_path):
    flatness_table({"../<b>": bowl(np.eye(6)).risk}, CHEAP, folder=tmp_path / "kept", progress=False)
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["..%2F%3Cb%3E-selected.json"]


def test_matched_training_loss(nets):
    risks, checkpoints = nets
    table = flatness_table(risks, CHEAP, checkpoints=checkpoints, progress=False)
    assert set(table["checkpoint"]) == {"selected", "matched"}
    matched = table[table["checkpoint"] == "matched"]
    losses = matched.groupby("training_seed")["loss"].first()
    assert losses[0] == pytest.approx(losses[1], rel=0.04)
    selected = table[table["checkpoint"] == "selected"].groupby("training_seed")["loss"].first()
    assert abs(selected[0] - selected[1]) > 0.1 * selected.min()  # they differ where the runs ended
    # the numbers are those of the weights there, and the models are as they were
    from landscape import match_training_loss

    match = match_training_loss(risks, checkpoints, progress=False)["sgd", 1]
    with risks["sgd", 1].at(match.point):
        expected = sam_sharpness(risks["sgd", 1], radii=(0.1,), steps=(1,))[0].value
    found = matched[(matched["training_seed"] == 1) & (matched["metric"] == "sam_sharpness")]["value"].item()
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_run_that_is_refused_is_a_row_that_says_so(nets):
    risks, checkpoints = nets
    table = flatness_table(risks, CHEAP, checkpoints=checkpoints, matched_loss=1e-6, progress=False)
    refused = table[table["checkpoint"] == "matched"]
    assert len(refused) == 4
    assert refused["value"].isna().all()
    assert not refused["converged"].any()
    assert "its training loss comes down to" in json.loads(refused["detail"].iloc[0])["refused"]
