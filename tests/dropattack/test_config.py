"""Configurations: round trips, and errors that name the key."""

import json

import pytest

from dropattack.config import Config, Named, Training

TOML = """
data = "mnist-5k"

[model]
name = "lenet5"
classes = 10

[method]
name = "dropattack"
inputs = "input"
weights = ["conv1.weight"]
epsilon = 5.0

[training]
epochs = 3
seed = 7
"""


def test_toml_and_json_round_trips(tmp_path):
    (tmp_path / "run.toml").write_text(TOML)
    config = Config.from_toml(tmp_path / "run.toml")
    assert config.method == Named("dropattack", {"inputs": "input", "weights": ["conv1.weight"], "epsilon": 5.0})
    assert config.training == Training(epochs=3, seed=7)
    assert Config.from_tables(json.loads(json.dumps(config.to_tables()))) == config


def test_a_list_is_the_same_from_every_source(tmp_path):
    (tmp_path / "run.toml").write_text('[training]\ngradient_norms = ["input", "*"]')
    config = Config.from_toml(tmp_path / "run.toml")
    assert config == Config(training=Training(gradient_norms=("input", "*")))
    assert Config.from_tables(json.loads(json.dumps(config.to_tables()))) == config
    assert config.differences(Config()) == ["training.gradient_norms (['input', '*'] and [])"]


def test_a_name_alone_is_a_table_without_options():
    config = Config.from_tables({"data": "mnist", "model": "lenet5", "method": {"name": "sam"}})
    assert (config.data, config.model, config.method) == (Named("mnist"), Named("lenet5"), Named("sam"))


def test_defaults_are_the_papers_where_it_names_them():
    # Section 4.2: batch size 128, Adam with learning rate 0.001.
    assert Config().training.batch_size == 128
    assert Config().training.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"trianing": {}}, r"unknown config key 'trianing'; known: training"),
        ({"training": {"epoch": 3}}, r"unknown config key 'training\.epoch'; known: training\.epochs"),
        ({"training": {"epochs": 0}}, r"training\.epochs: expected a whole number of at least 1, got 0"),
        ({"training": {"epochs": 2.5}}, r"training\.epochs: expected a whole number"),
        ({"training": {"batch_size": -1}}, r"training\.batch_size: expected"),
        ({"training": {"average_from": 1.0}}, r"training\.average_from: expected a share of the epochs in \[0, 1\)"),
        (
            {"training": {"average_from": 0.5, "average_learning_rate": -1}},
            "average_learning_rate: expected a positive",
        ),
        ({"training": {"average_learning_rate": 0.1}}, r"average_learning_rate: needs training\.average_from"),
        ({"training": {"learning_rate": 0}}, r"training\.learning_rate: expected a positive number, got 0"),
        ({"training": {"learning_rate": float("nan")}}, r"training\.learning_rate: expected a positive number"),
        ({"training": {"seed": -1}}, r"training\.seed: expected"),
        ({"training": {"gradient_norms": "input"}}, r"training\.gradient_norms: expected a list .*, got 'input'"),
        ({"training": {"gradient_norms": [1]}}, r"training\.gradient_norms: expected a list .*, got \[1\]"),
        ({"training": {"gradient_norms": True}}, r"training\.gradient_norms: expected a list .*, got True"),
        ({"training": 3}, r"\[training\]: expected a table, got 3"),
        ({"data": 3}, r"\[data\]: expected a table or a name, got 3"),
        ({"method": {"epsilon": 5}}, r"\[method\]: expected a `name`, got epsilon"),
        ({"method": ["sam"]}, r"\[method\]: expected a table or a name, got \['sam'\]"),
    ],
)
def test_bad_tables_name_the_key(tables, message):
    with pytest.raises(ValueError, match=message):
        Config.from_tables(tables)


def test_a_file_that_is_not_toml_is_named(tmp_path):
    (tmp_path / "run.toml").write_text("epochs = = 3")
    with pytest.raises(ValueError, match=r"run\.toml: .*line 1"):
        Config.from_toml(tmp_path / "run.toml")


def test_differences_are_listed_with_both_values():
    other = Config(method=Named("dropattack", {"epsilon": 1.0}), training=Training(seed=1))
    assert sorted(Config().differences(other)) == [
        "method.epsilon (None and 1.0)",
        "method.name ('standard' and 'dropattack')",
        "training.seed (0 and 1)",
    ]
    assert Config().differences(Config()) == []
