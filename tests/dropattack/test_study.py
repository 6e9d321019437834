"""Studies: what is read, what is trained, what is collected, and what the committed ones name."""

import concurrent.futures
import dataclasses
import inspect
import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from dropattack.checkpoint import load_run
from dropattack.cli import app
from dropattack.config import Named
from dropattack.data import DATASETS
from dropattack.data.dataset import Examples
from dropattack.methods import build_method
from dropattack.models import MODELS, build_model
from dropattack.study import (
    Row,
    Setting,
    Study,
    chosen_trials,
    compare_results,
    results,
    run_study,
    schedule,
    status,
    table_of_studies,
    time_left,
    trials,
    with_choices,
)
from dropattack.study.writing import write_results
from landscape import plots

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))

ORDERED = Examples.ordered

SHAPES = {"lenet5": (1, 28, 28), "vgg16": (3, 32, 32)}

TOML = """
seeds = [0, 1]
data = "mnist-5k"

[training]
epochs = 1

[methods]
standard = "standard"

[methods.gentle]
name = "sam"
rho = 0.01
"""


@pytest.fixture
def small(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(TOML.replace('data = "mnist-5k"', 'data = {name = "mnist-5k", examples = 100}'))
    return Study.from_toml(file)


def one_thread():
    return concurrent.futures.ThreadPoolExecutor(1)


def test_a_study_is_every_method_with_every_seed(tmp_path):
    (tmp_path / "digits.toml").write_text(TOML)
    study = Study.from_toml(tmp_path / "digits.toml")
    assert study.name == "digits"
    runs = study.runs()
    assert list(runs) == ["standard-seed0", "gentle-seed0", "standard-seed1", "gentle-seed1"]
    gentle = runs["gentle-seed1"]
    assert gentle.method == Named("sam", {"rho": 0.01})
    assert (gentle.training.seed, gentle.training.epochs, gentle.data.name) == (1, 1, "mnist-5k")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('seed = 3\n[methods]\nstandard = "standard"', r"study\.toml: unknown study key 'seed'; known: seeds"),
        ("seeds = [0]", r"\[methods\]: expected a table for each method"),
        ('seeds = 3\n[methods]\nstandard = "standard"', "seeds: expected a list of whole numbers, got 3"),
        ("[methods.mine]\nrho = 1", r"\[methods\.mine\]: expected a `name`, got rho"),
        ('[training]\nepoch = 1\n[methods]\ns = "standard"', r"unknown config key 'training\.epoch'"),
        ("methods = = 3", r"study\.toml: .*line 1"),
    ],
)
def test_a_bad_study_names_the_file_and_the_key(tmp_path, text, message):
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        Study.from_toml(tmp_path / "study.toml")


def test_what_is_missing_is_trained_and_collected(small, tmp_path, monkeypatch):
    table = run_study(small, tmp_path / "runs", executor=one_thread(), progress=False)
    assert list(zip(table["method"], table["seed"], strict=True)) == [
        ("standard", 0),
        ("standard", 1),
        ("gentle", 0),
        ("gentle", 1),
    ]
    assert list(table["passes_per_step"]) == [1, 1, 2, 2]
    assert table["best_test_accuracy"].between(0, 1).all()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "runs" / "results.csv"), table)

    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("metrics.json")}
    (tmp_path / "runs" / "gentle-seed1" / "metrics.json").unlink()
    assert len(results(small, tmp_path / "runs")) == 3
    (tmp_path / "runs" / "standard-seed1" / "history.csv").unlink()
    (tmp_path / "runs" / "standard-seed1" / "metrics.json").rename(tmp_path / "aside")
    states = {"standard-seed0": "finished", "gentle-seed0": "finished", "standard-seed1": "not begun"}
    assert status(small, tmp_path / "runs") == states | {"gentle-seed1": "1 of 1 epochs"}
    (tmp_path / "aside").rename(tmp_path / "runs" / "standard-seed1" / "metrics.json")
    trained = []
    monkeypatch.setattr("dropattack.study.schedule._train", lambda _, folder, *rest: trained.append(Path(folder).name))
    run_study(small, tmp_path / "runs", executor=one_thread(), progress=False)
    assert trained == ["gentle-seed1"]
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items() if path.exists())


def test_a_run_that_fails_stops_no_other(small, tmp_path):
    methods = {"broken": Row(Setting(Named("sam", {"rho": -1.0}))), **small.methods}
    study = Study("broken", small.base, methods)
    with pytest.raises(ValueError, match="rho: expected a finite number of at least 0"):
        run_study(study, tmp_path, executor=one_thread(), progress=False)
    assert list(results(study, tmp_path)["method"]) == ["standard", "gentle"]


def test_processes_train_as_the_caller_does(small, tmp_path):
    study = Study("one", small.base, {name: Row(Setting(Named("standard"))) for name in ("standard", "again")})
    table = run_study(study, tmp_path, progress=False)
    standard, again = table["best_train_loss"]
    assert standard == again


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_studies_name_models_methods_and_sites_that_exist(file):
    study = Study.from_toml(file)
    options = {"hidden": 4, "embedding_size": 4, "vocabulary": 20, "classes": 4, "width": 0.0625}
    base = study.base.model
    assert study.base.data.name in DATASETS
    taken = inspect.signature(MODELS[base.name]).parameters
    model = build_model(base.name, **{**base.options, **{k: v for k, v in options.items() if k in taken}})
    assert "standard" in study.methods or "original" in study.methods
    for name, row in study.methods.items():
        for setting in row.tried() or [study.setting(name, dict.fromkeys(study.methods, 0))]:
            build_method(setting.method.name, model, **setting.method.options)
    inputs = torch.randn(2, *SHAPES[base.name]) if base.name in SHAPES else torch.ones(2, 5, dtype=torch.int64)
    assert model(inputs).shape == (2, 4)


@pytest.mark.skipif("DROPATTACK_DATA" not in os.environ, reason="needs a data folder with all data sets")
@pytest.mark.parametrize("name", ["imdb", "pheme", "ag-news", "mnist", "cifar10"])
def test_every_data_set_trains_at_smoke_scale(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DROPATTACK_CACHE", str(tmp_path))
    study = Study.from_toml(next(file for file in STUDIES if file.stem == f"{name}-smoke"))
    table = run_study(study, tmp_path / "runs", executor=one_thread(), progress=False)
    assert list(table["method"]) == list(study.methods)
    assert np.isfinite(table["best_test_loss"]).all()


def test_the_command_line_runs_a_study_and_tells_how_far_it_is(tmp_path):
    runner = CliRunner()
    file, folder = tmp_path / "small.toml", tmp_path / "runs"
    file.write_text('data = {name = "mnist-5k", examples = 50}\n[training]\nepochs = 1\n[methods]\nplain = "standard"')
    before = runner.invoke(app, ["study", "status", str(file), "-o", str(folder)])
    assert before.output == "plain-seed0: not begun\n0 of 1 runs are finished\n"
    table = tmp_path / "tables" / "small.csv"
    run = runner.invoke(app, ["study", "run", str(file), "-o", str(folder), "--table", str(table)])
    assert run.exit_code == 0
    assert table.read_text() == (folder / "results.csv").read_text()
    assert "results.csv" in run.output
    after = runner.invoke(app, ["study", "status", str(file), "-o", str(folder)])
    assert after.output == "plain-seed0: finished\n1 of 1 runs are finished\n"
    missing = runner.invoke(app, ["study", "run", str(tmp_path / "no.toml")])
    assert missing.exit_code == 2
    assert "no.toml" in missing.output


TUNED = """
seeds = [0, 1]
tuning_seeds = [100]
data = {name = "mnist-5k", examples = 200, validation_examples = 100, test_examples = 100}

[training]
epochs = 2

[methods.original]
name = "standard"
seeds = [0, 1, 2]

[methods.longer]
name = "standard"
training = {epochs = 3}

[methods.sam]
name = "sam"
trials = [{rho = 0.0}, {rho = 50.0}]

[methods.dropattack]
name = "dropattack"
inputs = "input"
attack_probability = 0.5
trials = [{epsilon = 1000.0}, {epsilon = 0.1, training = {learning_rate = 0.002}}]
seeds = [0]

[methods.no-mask]
follows = "dropattack"
control = "no mask, p epsilon"
training = {keep_epochs = true}
seeds = [0]
"""


@pytest.fixture
def tuned(tmp_path):
    file = tmp_path / "tuned.toml"
    file.write_text(TUNED)
    return Study.from_toml(file)


def test_trials_come_first_and_the_best_on_validation_data_is_trained_with_new_seeds(tuned, tmp_path):
    assert list(tuned.trials()) == [
        "tuning/sam-0-seed100",
        "tuning/sam-1-seed100",
        "tuning/dropattack-0-seed100",
        "tuning/dropattack-1-seed100",
    ]
    fixed = [*(f"original-seed{seed}" for seed in (0, 1, 2)), "longer-seed0", "longer-seed1"]
    assert sorted(tuned.runs()) == sorted(fixed)  # the others' settings are not known yet
    states = status(tuned, tmp_path / "runs")
    assert states["tuning/sam-0-seed100"] == states["original-seed2"] == "not begun"
    assert states["sam-seed0"] == states["no-mask-seed0"] == "waits for its trials"

    table = run_study(tuned, tmp_path / "runs", executor=one_thread(), progress=False)
    # SAM at rho 0 is standard training; at 50 it learns nothing in four steps. The same for epsilon.
    assert chosen_trials(tuned, tmp_path / "runs") == {"sam": 0, "dropattack": 1}
    assert table.groupby("method", sort=False).size().to_dict() == {
        "original": 3,
        "longer": 2,
        "sam": 2,
        "dropattack": 1,
        "no-mask": 1,
    }
    settings = {method: json.loads(text) for method, text in zip(table["method"], table["setting"], strict=True)}
    assert settings["longer"] == {"name": "standard", "training": {"epochs": 3}}
    assert settings["sam"] == {"name": "sam", "rho": 0.0}
    rate = {"learning_rate": 0.002}
    dropattack = {"name": "dropattack", "inputs": "input", "attack_probability": 0.5, "epsilon": 0.1}
    assert settings["dropattack"] == dropattack | {"training": rate}
    unmasked = dropattack | {"attack_probability": 1.0, "attack_probability_weights": 1.0}
    unmasked |= {"epsilon": 0.05, "epsilon_weights": 0.05}
    assert settings["no-mask"] == unmasked | {"training": rate | {"keep_epochs": True}}
    of = {method: Path(tmp_path / "runs" / f"{method}-seed0") for method in ("longer", "no-mask")}
    assert len(pd.read_csv(of["longer"] / "history.csv")) == 3
    assert (of["no-mask"] / "epochs").is_dir()
    assert set(status(tuned, tmp_path / "runs").values()) == {"finished"}
    assert time_left(tuned, tmp_path / "runs") == 0


def test_a_trial_never_looks_at_test_data(tuned, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "dropattack.data.dataset.Examples.ordered",
        lambda self, *arguments: read.append(len(self)) or ORDERED(self, *arguments),
    )
    study = dataclasses.replace(tuned, methods={"sam": tuned.methods["sam"]})
    sizes = dataclasses.replace(study.base.data, options=study.base.data.options | {"test_examples": 77})
    study = dataclasses.replace(study, base=dataclasses.replace(study.base, data=sizes))
    run_study(study, tmp_path, executor=one_thread(), progress=False)
    tuning = trials(study, tmp_path)
    assert not [column for column in tuning if "test" in column]
    assert "best_test_accuracy" in results(study, tmp_path)
    # Two final runs, and each reads the test data for its best and for its last checkpoint.
    assert read.count(77) == 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('[methods.a]\nname = "sam"\ntrials = [{rho = 1}]', "same number for every method that has any, got sam 2, "),
        ('[methods.a]\nname = "sam"\nseeds = [100]', "seeds: 100 is a tuning seed, too"),
        ('[methods.a]\nfollows = "nobody"', "unknown row to follow 'nobody'"),
        ('[methods.a]\nfollows = "no-mask"', "no-mask follows a row itself"),
        ('[methods.a]\nfollows = "dropattack"\ncontrol = "no mask"', "unknown control 'no mask'; .*p epsilon"),
        ('[methods.a]\nfollows = "sam"\ncontrol = "epsilon 0"', "expected a setting of 'dropattack', got one of 'sam'"),
        ('[methods.a]\nfollows = "sam"\nname = "fgm"', "drop name and trials"),
        ('[methods.a]\nname = "sam"\ncontrol = "epsilon 0"', "control: needs follows"),
        ('[methods.a]\nname = "sam"\ntrials = 3', "trials: expected a list of tables, got 3"),
        ('[methods.a]\nname = "sam"\ntraining = 3', "training: expected a table, got 3"),
        ('[methods.a]\nname = "sam"\ntraining = {epoch = 3}', r"unknown config key 'training\.epoch'"),
        ('[methods.a]\nname = "sam"\ntrials = [{}, {training = {epoch = 3}}]', r"unknown config key 'training\.epoch'"),
        ('[methods.a]\nname = "sam"\nseeds = [true]', "seeds: expected a list of whole numbers"),
    ],
)
def test_what_would_be_unfair_or_could_not_run_is_refused_before_anything_is_trained(tmp_path, row, message):
    (tmp_path / "study.toml").write_text(TUNED + row)
    with pytest.raises(ValueError, match=message):
        Study.from_toml(tmp_path / "study.toml")


def test_the_better_loss_decides_between_equal_accuracies_and_then_the_first(tuned, tmp_path):
    def finished(trial, accuracy, loss):
        folder = tmp_path / f"tuning/sam-{trial}-seed100"
        folder.mkdir(parents=True, exist_ok=True)
        best = {"validation_accuracy": accuracy, "validation_loss": loss}
        (folder / "metrics.json").write_text(json.dumps({"best": best, "training_seconds": 10.0}))

    finished(0, 0.9, 0.4)
    assert chosen_trials(tuned, tmp_path) == {}
    finished(1, 0.9, 0.3)
    assert chosen_trials(tuned, tmp_path) == {"sam": 1}
    finished(1, 0.9, 0.4)
    assert chosen_trials(tuned, tmp_path) == {"sam": 0}
    assert list(with_choices(tuned, tmp_path)["chosen"]) == [True, False]
    # Eleven runs are missing (2 trials, 9 final), each as long as the two that are there, on two workers.
    assert time_left(tuned, tmp_path, workers=2) == pytest.approx(11 * 10 / 2)
    assert time_left(tuned, tmp_path / "elsewhere") is None


def test_a_study_that_is_killed_ten_times_ends_with_the_same_table(tmp_path):
    file = tmp_path / "killed.toml"
    file.write_text(TUNED.replace("epochs = 2", "epochs = 4"))
    undisturbed = run_study(Study.from_toml(file), tmp_path / "undisturbed", executor=one_thread(), progress=False)
    command = [sys.executable, "-m", "dropattack.cli", "study", "run", str(file), "-o", str(tmp_path / "killed")]
    moments = random.Random(0)
    for _ in range(10):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(1.0, 7.0))
        process.kill()
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    table = pd.read_csv(tmp_path / "killed" / "results.csv")
    timed = [column for column in table if column.endswith("seconds")]
    pd.testing.assert_frame_equal(table.drop(columns=timed), undisturbed.drop(columns=timed))


def test_methods_are_compared_over_the_seeds_that_they_share():
    # Differences in accuracy are 1, 2 and 3 points: mean 2, sd 1, t = 2 √3, two-sided p with 2 degrees of freedom
    # = 1 - t / √(t² + 2) = 1 - √(12 / 14).
    accuracy = {"original": [0.80, 0.81, 0.82, 0.60], "better": [0.81, 0.83, 0.85], "same": [0.80, 0.81]}
    table = pd.DataFrame(
        [
            {"method": method, "seed": seed, "best_test_accuracy": value, "passes_per_step": 1.0}
            for method, values in accuracy.items()
            for seed, value in enumerate(values)
        ]
    )
    found = compare_results(table, "original", {("better", "accuracy"): 88.0}).set_index("method")
    better, same, original = found.loc["better"], found.loc["same"], found.loc["original"]
    assert (better["difference"], better["pairs"], better["n"], original["n"]) == (pytest.approx(2), 3, 3, 4)
    assert better["mean"] == pytest.approx(83)
    assert better["sd"] == pytest.approx(2)
    half = 4.302652729911275 / math.sqrt(3)
    assert (better["low"], better["high"]) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert better["p_value"] == pytest.approx(1 - math.sqrt(12 / 14))
    assert better["p_holm"] == pytest.approx(better["p_value"])  # the only one that is tested
    assert (better["p_exact"], better["smallest_p"]) == (0.25, 0.25)
    assert (better["paper"], same["difference"]) == (88.0, 0)
    assert math.isnan(same["p_value"])
    assert math.isnan(original["difference"])
    assert set(found["metric"]) == {"accuracy"}


def test_what_is_worth_keeping_is_written(tuned, tmp_path, monkeypatch):
    drawn = []
    draw = plots.curve_panels
    monkeypatch.setattr(
        plots, "curve_panels", lambda curves, heading: drawn.append(list(curves)) or draw(curves, heading)
    )
    study = dataclasses.replace(tuned, methods={name: tuned.methods[name] for name in ("original", "sam")})
    run_study(study, tmp_path / "runs", executor=one_thread(), progress=False)
    compared = write_results(study, tmp_path / "runs", tmp_path / "tuned.toml", tmp_path / "kept")
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == [
        *("comparison.csv", "curves.png", "epochs.csv", "runs.csv", "study.toml", "tuning.csv")
    ]
    assert (tmp_path / "kept" / "study.toml").read_text() == TUNED
    assert list(compared["method"]) == ["original", "sam"]
    assert drawn == [["original", "sam"]]  # none of Figure 2's other rows is there: what there is, then
    epochs = pd.read_csv(tmp_path / "kept" / "epochs.csv")
    assert len(epochs) == 2 * (3 + 2)
    assert epochs.groupby(["method", "seed"])["epoch"].apply(list).map(lambda found: found == [1, 2]).all()
    tuning = pd.read_csv(tmp_path / "kept" / "tuning.csv")
    assert list(tuning["chosen"]) == [True, False]
    empty = write_results(study, tmp_path / "nothing", tmp_path / "tuned.toml", tmp_path / "empty")
    assert empty.empty
    assert [file.name for file in (tmp_path / "empty").iterdir()] == ["study.toml"]


def test_a_setting_that_two_rows_share_is_trained_once(tuned, tmp_path, monkeypatch):
    # The same run in another order of keys, and one that differs in how it is kept.
    other = Row(Setting(Named("sam", {"rho": 0.0})))
    kept = Row(Setting(Named("sam", {"rho": 0.0}), training={"keep_epochs": True}))
    study = dataclasses.replace(tuned, methods={"sam": tuned.methods["sam"], "other": other, "kept": kept})
    trained = []
    original = schedule._train

    def noted(tables, folder, *rest):
        trained.append(Path(folder).name)
        original(tables, folder, *rest)

    monkeypatch.setattr("dropattack.study.schedule._train", noted)
    table = run_study(study, tmp_path, executor=one_thread(), progress=False)
    assert sorted(trained) == [
        "kept-seed0",
        "kept-seed1",
        "other-seed0",
        "other-seed1",
        "sam-0-seed100",
        "sam-1-seed100",
    ]
    of = {method: rows.drop(columns=["method"]).reset_index(drop=True) for method, rows in table.groupby("method")}
    pd.testing.assert_frame_equal(of["sam"], of["other"])
    assert load_run(tmp_path / "sam-seed1").metrics == load_run(tmp_path / "other-seed1").metrics
    assert not list(tmp_path.glob(".*"))


def test_studies_side_by_side(tuned, tmp_path):
    row = {"metric": "accuracy", "method": "original", "mean": 97.798, "sd": 0.156, "n": 5, "low": math.nan}
    original = row | {"high": math.nan, "paper": 98.95}
    better = row | {"method": "fgm", "mean": 98.5, "low": 0.1, "high": 0.9, "paper": 99.15}
    open_ = better | {"method": "sam", "low": -0.1, "paper": math.nan}
    f1 = better | {"metric": "F1", "mean": 12.0}
    tables = {"mnist": pd.DataFrame([original, better, open_, f1]), "pheme": pd.DataFrame([original])}
    assert table_of_studies(tables).splitlines() == [
        "| Method | mnist | pheme |",
        "| --- | --- | --- |",
        "| original | 97.80 ± 0.16 (5) [98.95] | 97.80 ± 0.16 (5) [98.95] |",
        "| fgm | **98.50 ± 0.16 (5)** [99.15] |  |",
        "| sam | 98.50 ± 0.16 (5) |  |",
    ]
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "study.toml").write_text(TUNED)
    tables["mnist"].to_csv(folder / "comparison.csv", index=False)
    shown = CliRunner().invoke(app, ["study", "table", str(folder), "--metric", "F1"])
    assert shown.output.splitlines()[2] == "| fgm | **12.00 ± 0.16 (5)** [99.15] |"
