"""What the README shows runs as it is printed."""

import re
import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

import dropattack
import landscape
from dropattack.config import Config
from dropattack.study import Study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = {kind: re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL) for kind in ("python", "toml", "console", "")}


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 4)
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.fc = nn.Linear(5, 2)

    def forward(self, tokens):
        return self.fc(self.lstm(self.embedding(tokens))[0][:, -1])


def test_the_training_loop_trains(tmp_path):
    torch.manual_seed(0)
    model = Classifier()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    names = {
        "model": model,
        "loader": [(torch.randint(0, 20, (8, 6)), torch.randint(0, 2, (8,))) for _ in range(3)],
        "optimizer": torch.optim.Adam(model.parameters()),
    }
    exec(compile(BLOCKS["python"][0], "README.md", "exec"), names)
    assert names["method"].cost.forwards == 3
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_the_analysis_analyses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    batches = [(torch.randn(20, 3), torch.randint(0, 2, (20,)))]
    other_risk = landscape.EmpiricalRisk(nn.Linear(3, 2), batches)
    names = {"model": nn.Linear(3, 2), "batches": batches, "other_risk": other_risk}
    exec(compile(BLOCKS["python"][1].replace("pairs=5", "pairs=2"), "README.md", "exec"), names)
    assert names["comparison"].models == ["mine", "other"]
    assert "checks passed" in capsys.readouterr().out
    assert (tmp_path / "contours.png").stat().st_size > 1000


def test_the_comparison_compares(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    batches = [(torch.randn(20, 3), torch.randint(0, 2, (20,)))]
    runs, epochs = {}, {}
    for method in ("standard", "dropattack"):
        for seed in range(2):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
            risk = landscape.EmpiricalRisk(model, batches)
            runs[method, seed] = {"train": risk, "test": landscape.EmpiricalRisk(model, batches)}
            epochs[method, seed] = [risk.parameters()]
    block = BLOCKS["python"][2].replace("epochs)", "epochs, metrics=['fisher_rao_norm', 'sam_sharpness'])")
    names = {"ls": landscape, "runs": runs, "epochs": epochs, "risk": risk}
    exec(compile(block.replace("(risk))", "(risk, ['sam_sharpness']))"), "README.md", "exec"), names)
    assert (names["table"]["checkpoint"] == "selected").sum() == 4 * 2 * 8
    assert "sam_sharpness" in capsys.readouterr().out
    assert {file.name for file in tmp_path.iterdir()} == {"differences.png", "spectrum.png"}


def test_the_configurations_are_valid(tmp_path):
    run, study = BLOCKS["toml"]
    (tmp_path / "study.toml").write_text(study)
    tuned = Study.from_toml(tmp_path / "study.toml")
    runs = tuned.trials() | tuned.runs(dict.fromkeys(tuned.methods, 0))
    assert len(runs) == 2 * 2 + 3 * 3
    for config in [Config.from_tables(tomllib.loads(run)), *runs.values()]:
        assert config.data.name in dropattack.DATASETS
        method = config.method
        model = dropattack.build_model(config.model.name, vocabulary=20, classes=2, **config.model.options)
        dropattack.build_method(method.name, model, **method.options)


@pytest.mark.parametrize(
    "names",
    [dropattack.METHODS, landscape.METRICS, dropattack.DATASETS, dropattack.MODELS],
    ids=["methods", "metrics", "data", "models"],
)
def test_every_name_that_can_be_chosen_is_in_the_readme(names):
    for name in names:
        assert f"`{name}`" in README or f'"{name}"' in README, name


def test_every_file_that_is_named_is_there():
    for path in re.findall(
        r"\]\(((?!https?:)[^)#]+)\)|`((?:dropattack|landscape|tests|figures|notebooks)/[\w/.]*)`", README
    ):
        named = next(filter(None, path))
        assert (ROOT / named).exists(), named


def test_every_flatness_metric_is_in_the_table_as_it_describes_itself():
    for name, metric in landscape.METRICS.items():
        formula = metric.formula.replace("|", "\\|")
        row = f"| `{name}` | {formula} | {metric.reference} | {metric.larger} | {metric.cost} | {metric.rescaling} |"
        assert row in README
