"""Flatness of a study's runs, at smoke scale, through the command line."""

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from dropattack.cli import app
from dropattack.minima import measure_runs, without_single_weights
from dropattack.study import Study

STUDY = """
seeds = [0, 1]

[data]
name = "mnist-5k"
examples = 300

[model]
name = "lenet5"

[training]
epochs = 2
keep_epochs = true

[methods.standard]
name = "standard"

[methods.fgm]
name = "fgm"
inputs = "input"
epsilon = 0.5
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("minima")
    (folder / "tiny.toml").write_text(STUDY)
    words = ["study", "flatness", str(folder / "tiny.toml"), "-o", str(folder / "runs"), "--examples", "60"]
    words += ["--metric", "relative_flatness", "--metric", "fisher_rao_norm", "--workers", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return folder, result, words


def test_tables_and_pictures(measured):
    folder, result, _ = measured
    found = {file.name for file in (folder / "runs" / "flatness").iterdir() if file.is_file()}
    assert found == {
        "flatness.csv", "differences.csv", "verdicts.csv", "correlations.csv", "flatness.png", "differences.png",
        "gap.png",
    }  # fmt: skip
    table = pd.read_csv(folder / "runs" / "flatness" / "flatness.csv")
    runs = table.groupby(["method", "training_seed", "checkpoint", "split"]).size()
    assert set(runs) == {3}  # one layer, and two Fisher matrices
    assert {label[:2] for label in runs.index} == {(m, s) for m in ("standard", "fgm") for s in (0, 1)}
    assert {label[2:] for label in runs.index} == {
        (checkpoint, split) for checkpoint in ("selected", "matched") for split in ("train", "test")
    }
    for line in pd.read_csv(folder / "runs" / "flatness" / "verdicts.csv")["sentence"]:
        assert line in result.stdout


def test_the_losses_are_those_of_the_run(measured):
    folder, _, _ = measured
    table = pd.read_csv(folder / "runs" / "flatness" / "flatness.csv")
    from dropattack.checkpoint import load_run
    from dropattack.data import load_dataset
    from dropattack.training import evaluate

    run = load_run(folder / "runs" / "fgm-seed1")
    expected = evaluate(run.model, load_dataset("mnist-5k", examples=300).test.batches(limit=60))
    rows = table[
        (table["method"] == "fgm") & (table["training_seed"] == 1)
        & (table["split"] == "test") & (table["checkpoint"] == "selected")
    ]  # fmt: skip
    assert rows["loss"].iloc[0] == pytest.approx(expected["loss"], rel=1e-6)
    assert rows["accuracy"].iloc[0] == pytest.approx(expected["accuracy"])


def test_started_again_it_measures_nothing(measured, monkeypatch):
    folder, _, _ = measured
    study = Study.from_toml(folder / "tiny.toml")
    monkeypatch.setattr("landscape.flatness.table.measured", lambda *_: pytest.fail("measured again"))
    metrics = ["relative_flatness", "fisher_rao_norm"]
    again = measure_runs(study, folder / "runs", metrics=metrics, examples=60, progress=False)
    assert len(again) == 4 * 4 * 3


def test_runs_of_other_data_are_refused(measured):
    folder, _, _ = measured
    file = folder / "runs" / "fgm-seed0" / "config.json"
    text = file.read_text()
    file.write_text(json.dumps(json.loads(text) | {"data": {"name": "other"}}))
    with pytest.raises(ValueError, match="was trained on other data"):
        measure_runs(Study.from_toml(folder / "tiny.toml"), folder / "runs", examples=60, progress=False)
    file.write_text(text)


def test_pictures_show_the_gradient_norm_of_all_weights_for_those_of_each():
    table = pd.DataFrame(
        {
            "metric": ["filter_normalized_rise", "weight_gradient_norm", "weight_gradient_norm", "input_gradient_norm"],
            "setting": ["radius=0.5", "site=fc1.weight", "site=*", "site=input"],
        }
    )
    assert list(without_single_weights(table)["setting"]) == ["radius=0.5", "site=*", "site=input"]
    chosen = table[table["setting"] != "site=*"]  # only some weights were asked for
    assert without_single_weights(chosen).equals(chosen)
