"""The check of equations 8 to 13 on the folders of runs, at smoke scale, through the command line."""

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import dropattack as da
import landscape as ls
from dropattack.cli import app
from dropattack.regularization import check_runs, setting_of, updates_through_training

ATTACK = {"inputs": "input", "weights": ("conv1.weight",), "epsilon": 1.0, "attack_probability": 0.7}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regularization")
    data = da.load_dataset("mnist-5k", examples=200)
    for name, method in {"standard": da.Named("standard"), "attacked": da.Named("dropattack", ATTACK)}.items():
        config = da.Config(
            data=da.Named("mnist-5k", {"examples": 200}),
            method=method,
            training=da.Training(epochs=2, keep_epochs=True),
        )
        da.train(config, folder / name, dataset=data, progress=False)
    return folder


@pytest.fixture(scope="module")
def checked(runs):
    words = ["penalty", str(runs / "standard"), str(runs / "attacked"), "-o", str(runs / "checks")]
    result = CliRunner().invoke(app, [*words, "--examples", "20", "--draws", "2"])
    assert result.exit_code == 0, result.output
    return runs / "checks", result


def test_files(checked):
    folder, result = checked
    assert {file.name for file in folder.iterdir()} == {
        "penalty.csv", "summary.csv", "fair.csv", "updates.csv", "readings.csv", "masks.csv",
        "penalty-standard.png", "penalty-attacked.png",
    }  # fmt: skip
    assert "largest epsilon up to which the rise is described within 10 %" in result.stdout
    for name in ("penalty", "updates", "readings", "masks"):
        assert set(pd.read_csv(folder / f"{name}.csv")["model"]) == {"standard", "attacked"}


def test_the_setting_is_that_of_the_run_with_dropattack(checked, runs):
    table = pd.read_csv(checked[0] / "penalty.csv")
    assert set(table["site"]) == {"input", "conv1.weight"}
    assert set(table["attack_probability"]) == {0.7}
    with pytest.raises(ValueError, match=r"no run was trained with dropattack \(but standard\); say what is attacked"):
        setting_of([da.load_run(runs / "standard")])
    with pytest.raises(ValueError, match="runs: expected at least one folder, got none"):
        check_runs([], runs / "nothing")


def test_the_penalty_is_that_of_the_run_on_held_out_examples(checked, runs):
    risk = ls.EmpiricalRisk(
        da.load_run(runs / "attacked").model, da.load_dataset("mnist-5k", examples=200).validation.batches(limit=20)
    )
    expected = ls.penalty_check(risk, ("input", "conv1.weight"), attack_probability=0.7)
    found = pd.read_csv(checked[0] / "penalty.csv").query("model == 'attacked'")
    assert found["first_order"].to_numpy() == pytest.approx(expected["first_order"].to_numpy(), rel=1e-6)


def test_updates_at_stages_of_the_training(runs):
    run = da.load_run(runs / "attacked")
    data = da.load_dataset("mnist-5k", examples=200)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    table = updates_through_training(runs / "attacked", run, data, ATTACK, draws=1, epsilons=(0.1,))
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())
    assert table["epoch"].dropna().unique().tolist() == [0, 1, 2]
    # the selected weights are those of one of the epochs, and so are the numbers
    selected = table[table["epoch"].isna()]["cosine"].to_numpy()
    epochs = [table[table["epoch"] == epoch]["cosine"].to_numpy() for epoch in range(3)]
    assert any(selected == pytest.approx(one, rel=1e-6) for one in epochs)
    assert selected != pytest.approx(epochs[0], rel=1e-3)
