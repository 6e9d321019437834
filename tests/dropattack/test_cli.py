"""The command line: every command runs, and bad input is one line."""

import json

import pytest
from typer.testing import CliRunner

from dropattack.cli import app


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", ["demo", "train", "evaluate"])
def test_each_command_explains_itself(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "--" in result.stdout


def test_train_then_evaluate_agree(tmp_path):
    (tmp_path / "run.toml").write_text('[method]\nname = "standard"\n[training]\nepochs = 3\n')
    result = run(
        "train", tmp_path / "run.toml", "-o", tmp_path / "run", "--set", "training.epochs=1",
        "--set", "method.name=dropattack", "--set", "method.inputs=input", "--set", "method.epsilon=0.5",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "test accuracy" in result.stdout
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["method"] == {"name": "dropattack", "inputs": "input", "epsilon": 0.5}
    assert config["training"]["epochs"] == 1
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    result = run("evaluate", tmp_path / "run")
    found = json.loads(result.stdout)
    assert found["accuracy"] == metrics["best"]["test_accuracy"]
    assert found["loss"] == pytest.approx(metrics["best"]["test_loss"], rel=1e-6)
    assert found["examples"] == 1000
    assert json.loads(run("evaluate", tmp_path / "run", "--split", "validation").stdout)["split"] == "validation"


BAD = {
    "no such config": (["train", "nowhere.toml"], "nowhere.toml"),
    "unknown key": (
        ["train", "--set", "training.epoch=1"],
        "unknown config key 'training.epoch'; known: training.epochs",
    ),
    "unknown data set": (["train", "--set", "data=mnits"], "unknown dataset 'mnits'; known: mnist"),
    "unknown method": (["train", "--set", "method.name=dropatack"], "unknown method 'dropatack'; known: dropattack"),
    "unknown model": (["train", "--set", "model.name=lenet"], "unknown model 'lenet'; known: lenet5"),
    "unknown model option": (
        ["train", "--set", "model.name=lenet5", "--set", "model.class=3"],
        "unknown model option 'class'; lenet5 has classes",
    ),
    "unknown hyperparameter": (
        ["train", "--set", "method.name=dropattack", "--set", "method.epsilom=3"],
        "unknown hyperparameter 'epsilom'; dropattack has epsilon",
    ),
    "bad probability": (
        ["train", "--set", "method.name=dropattack", "--set", "method.inputs=input", "--set",
         "method.attack_probability=1.5"],
        "attack_probability: expected a probability in [0, 1], got 1.5",
    ),
    "malformed setting": (["train", "--set", "epochs"], "--set epochs: expected KEY=VALUE"),
    "setting inside a value": (
        ["train", "--set", "data=x", "--set", "data.name=mnist"],
        "--set data.name=mnist: data is a value, not a table",
    ),
    "unknown scale": (["demo", "--scale", "deks"], "unknown scale 'deks'; known: desk"),
    "not a run": (["evaluate", "."], "expected a run's folder"),
    "unknown split": (["evaluate", ".", "--split", "tset"], "--split: expected one of train, validation, test"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in result.output
    if arguments[0] == "train":  # nothing may be left behind that a corrected call would trip over
        assert not (tmp_path / "runs").exists()
