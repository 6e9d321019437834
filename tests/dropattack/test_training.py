"""Training runs: what is written, resuming after a kill at any moment, and isolation from the caller."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from dropattack import checkpoint
from dropattack.config import Config
from dropattack.training import evaluate, train

METHODS = {
    "standard": {"name": "standard"},
    "freeat": {"name": "freeat", "inputs": "input", "epsilon": 0.3, "replays": 2},
    "dropattack": {"name": "dropattack", "inputs": "input", "weights": ["fc1.weight"], "epsilon": 0.5},
    "looksam": {"name": "looksam", "every": 3},
    "sparse-sam": {"name": "sparse-sam", "refresh_every": 5, "fisher_examples": 7},
    "smart": {"name": "smart", "inputs": "input", "epsilon": 0.1, "step_size": 0.1, "start": 0.05},
    "scheduled": {
        "name": "scheduled",
        "every": 2,
        "warmup": {"inputs.epsilon": 6},
        "method": {
            "name": "compose",
            "inputs": {"name": "pgd", "inputs": "input", "epsilon": 0.2, "random_start": True},
            "weights": {"name": "rwp", "gamma": 0.1},
        },
    },
}


def config(method="dropattack", epochs=4, **training):
    return Config.from_tables(
        {
            "data": "tiny",
            "model": {"name": "tiny"},
            "method": METHODS[method],
            "training": {"epochs": epochs, "batch_size": 16, **training},
        }
    )


GRADIENT_NORMS = ["input", "fc1", "norm.*", "fc2.weight"]
EVERYTHING = {
    "average_from": 0.4,
    "average_learning_rate": 0.01,
    "keep_epochs": True,
    "gradient_norms": GRADIENT_NORMS,
}


def bits(folder):
    """Everything that a run left, but for the seconds it took."""
    tensors = {}
    for path in sorted(folder.rglob("*.safetensors")):
        found, _ = checkpoint.load(path)
        name = path.relative_to(folder)
        tensors |= {f"{name}.{key}": tensor for key, tensor in found.items()}
    state = checkpoint.load(folder / "last.safetensors")[1]
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in state["history"]]
    return tensors, rows


def assert_same_bits(one, other):
    (tensors, rows), (other_tensors, other_rows) = bits(one), bits(other)
    assert tensors.keys() == other_tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, other_tensors[name]), name
    assert rows == other_rows


class Killed(BaseException):
    """Not an Exception: nothing may catch it."""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("write", [1, 2, 3, 4, 5, 8, 11])  # four epochs write 5 epochs, 4 last, a best, the average
def test_a_run_killed_at_any_write_resumes_to_the_same_bits(
    method, write, tmp_path, tiny_model, tiny_data, monkeypatch
):
    train(config(method, **EVERYTHING), tmp_path / "whole", dataset=tiny_data, progress=False)
    real_save, calls = checkpoint.save, []

    def save_until_killed(path, tensors, state):
        calls.append(path)
        if len(calls) == write:
            path.with_name(f".{path.name}.part").write_bytes(b"half a checkpoint")
            raise Killed
        real_save(path, tensors, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_until_killed)
        with pytest.raises(Killed):
            train(config(method, **EVERYTHING), tmp_path / "killed", dataset=tiny_data, progress=False)
    assert not (tmp_path / "killed" / "metrics.json").exists()
    torch.rand(5)  # another process would have another global random state
    train(config(method, **EVERYTHING), tmp_path / "killed", dataset=tiny_data, progress=False)
    assert_same_bits(tmp_path / "whole", tmp_path / "killed")
    assert not list((tmp_path / "killed").rglob(".*"))


def test_the_weights_of_each_epoch_are_kept(tmp_path, tiny_model, tiny_data):
    run = train(config(keep_epochs=True, epochs=3), tmp_path / "run", dataset=tiny_data, progress=False)
    files = sorted((tmp_path / "run" / "epochs").iterdir())
    assert [file.name for file in files] == [f"{epoch:04}.safetensors" for epoch in range(4)]
    weights = [checkpoint.load(file)[0] for file in files]
    last, _ = checkpoint.load(tmp_path / "run" / "last.safetensors")
    assert all(torch.equal(tensor, last[name]) for name, tensor in weights[3].items())
    assert weights[0].keys() == {f"model.{name}" for name in run.model.state_dict()}
    assert all(
        not torch.equal(one["model.fc1.weight"], other["model.fc1.weight"])
        for one, other in itertools.pairwise(weights)
    )
    train(config(epochs=2), tmp_path / "other", dataset=tiny_data, progress=False)
    assert not (tmp_path / "other" / "epochs").exists()


def test_a_process_killed_in_the_middle_resumes_to_the_same_bits(tmp_path):
    command = [sys.executable, "-m", "dropattack.cli", "train", "--set", "training.epochs=3"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "-o", tmp_path / "whole"], env=environment, check=True, capture_output=True)
    with subprocess.Popen([*command, "-o", tmp_path / "killed"], env=environment, stderr=subprocess.DEVNULL) as job:
        while not (tmp_path / "killed" / "last.safetensors").exists():
            assert job.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        job.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed" / "metrics.json").exists()
    subprocess.run([*command, "-o", tmp_path / "killed"], env=environment, check=True, capture_output=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "killed")


def test_a_run_leaves_readable_files_and_metrics_last(tmp_path, tiny_model, tiny_data):
    run = train(config(epochs=3), tmp_path, dataset=tiny_data, progress=False)
    history = pd.read_csv(tmp_path / "history.csv")
    assert list(history["epoch"]) == [1, 2, 3]
    assert {"train_loss", "validation_accuracy", "seconds"} <= set(history)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == run.metrics
    assert metrics["passes_per_step"] == 3
    best = history.loc[history["validation_accuracy"].idxmax()]  # the first of equals
    assert metrics["best"]["epoch"] == best["epoch"]
    found = json.loads((tmp_path / "config.json").read_text())
    assert Config.from_tables(found["config"]) == config(epochs=3)
    assert found["data"]["train"]["examples"] == 50
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert max(written, key=written.get) == "metrics.json"


def test_the_returned_model_is_the_best_one_with_the_metrics_of_the_file(tmp_path, tiny_model, tiny_data):
    run = train(config(epochs=5), tmp_path, dataset=tiny_data, progress=False)
    loaded = checkpoint.load_run(tmp_path)
    for one in (run, loaded):
        test = evaluate(one.model, tiny_data.test.batches())
        assert test["accuracy"] == pytest.approx(run.metrics["best"]["test_accuracy"], abs=1e-12)
        assert not one.model.training
    last = checkpoint.load_run(tmp_path, "last")
    assert evaluate(last.model, tiny_data.test.batches())["loss"] == pytest.approx(run.metrics["last"]["test_loss"])


def test_a_finished_run_is_not_trained_again(tmp_path, tiny_model, tiny_data, monkeypatch):
    first = train(config(epochs=1), tmp_path, dataset=tiny_data, progress=False)
    monkeypatch.setattr("dropattack.training._State", None)  # training would need it
    assert train(config(epochs=1), tmp_path, dataset=tiny_data, progress=False).metrics == first.metrics


def test_methods_with_one_seed_start_from_the_same_weights_and_see_the_same_batches(
    tmp_path, tiny_model, tiny_data, monkeypatch
):
    seen = {}
    for method in METHODS:
        batches = seen.setdefault(method, [])
        original = type(tiny_data.train).batch

        def batch(self, indices, batches=batches, original=original):
            batches.append(indices)
            return original(self, indices)

        with monkeypatch.context() as patch:
            patch.setattr(type(tiny_data.train), "batch", batch)
            train(config(method, epochs=1, learning_rate=1e-30), tmp_path / method, dataset=tiny_data, progress=False)
    weights = [checkpoint.load(tmp_path / method / "last.safetensors")[0]["model.fc1.weight"] for method in METHODS]
    one, *others = weights
    assert all(torch.equal(one, other) for other in others)  # a learning rate of 1e-30 moves nothing in float32
    # Sparse SAM also reads single examples, for its Fisher, from a random stream of their own.
    one, *others = ([i for i in batches if isinstance(i, torch.Tensor) and len(i) > 1] for batches in seen.values())
    for other in others:
        assert len(one) == len(other)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_averaging_takes_the_mean_of_the_last_epochs_with_fresh_batch_statistics(
    tmp_path, tiny_model, tiny_data, monkeypatch
):
    real_save, epochs = checkpoint.save, []

    def save(path, tensors, state):
        if path.name == "last.safetensors":
            epochs.append({name: tensor.clone() for name, tensor in tensors.items()})
        real_save(path, tensors, state)

    monkeypatch.setattr(checkpoint, "save", save)
    run = train(config("standard", epochs=5, **EVERYTHING), tmp_path, dataset=tiny_data, progress=False)
    loaded = checkpoint.load_run(tmp_path, "averaged").model
    # 0.4 of 5 epochs is 2: the average is of the weights after epochs 3, 4 and 5.
    expected = sum(epoch["model.fc1.weight"].double() for epoch in epochs[2:]) / 3
    torch.testing.assert_close(loaded.fc1.weight.double(), expected, rtol=0, atol=1e-6)
    assert run.metrics["averaged"]["epochs"] == 3
    images = torch.cat([images for images, _ in tiny_data.train.batches()])
    torch.testing.assert_close(loaded.norm.running_mean, images.mean((0, 2, 3)))
    test = evaluate(loaded, tiny_data.test.batches())
    assert test["loss"] == pytest.approx(run.metrics["averaged"]["test_loss"])


def test_a_run_without_an_average_says_so(tmp_path, tiny_model, tiny_data):
    train(config("standard", epochs=1), tmp_path, dataset=tiny_data, progress=False)
    with pytest.raises(FileNotFoundError, match=r"averaged\.safetensors"):
        checkpoint.load_run(tmp_path, "averaged")


def test_passes_are_counted_where_they_vary(tmp_path, tiny_model, tiny_data):
    # 50 examples in batches of 16 are 4 steps an epoch. LookSAM every 3: 2 1 1 2 | 1 1 2 1, so 11 passes in 8 steps.
    run = train(config("looksam", epochs=2), tmp_path / "looksam", dataset=tiny_data, progress=False)
    assert run.metrics["passes_per_step"] == pytest.approx(11 / 8)
    run = train(config("freeat", epochs=2), tmp_path / "freeat", dataset=tiny_data, progress=False)
    assert run.metrics["passes_per_step"] == 1
    # Scheduled PGD of 3 steps and RWP at the perturbed input: 4 passes at every second step, 1 at the others.
    run = train(config("scheduled", epochs=2), tmp_path / "scheduled", dataset=tiny_data, progress=False)
    assert run.metrics["passes_per_step"] == (4 + 1) / 2


def test_dropout_changes_training_and_not_evaluation():
    from dropattack.models import build_model

    torch.manual_seed(0)
    plain = build_model("lenet5")
    torch.manual_seed(0)
    dropped = build_model("lenet5", dropout=0.5)
    images = torch.randn(4, 1, 28, 28)
    assert torch.equal(plain(images), dropped.eval()(images))
    assert not torch.equal(plain(images), dropped.train()(images))
    assert plain.state_dict().keys() == dropped.state_dict().keys()
    with pytest.raises(ValueError, match=r"dropout: expected a probability in \[0, 1\], got 1.5"):
        build_model("lenet5", dropout=1.5)


def test_training_leaves_the_callers_random_stream_alone(tmp_path, tiny_model, tiny_data):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(config(epochs=1), tmp_path, dataset=tiny_data, progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_a_folder_of_another_configuration_is_refused_with_the_difference(tmp_path, tiny_model, tiny_data):
    train(config(epochs=1), tmp_path, dataset=tiny_data, progress=False)
    with pytest.raises(ValueError, match=r"another configuration: training\.epochs \(1 and 2\)"):
        train(config(epochs=2), tmp_path, dataset=tiny_data, progress=False)


def test_a_folder_of_other_data_is_refused(tmp_path, tiny_model, tiny_data):
    train(config(epochs=1), tmp_path, dataset=tiny_data, progress=False)
    tiny_data.train.pixels[0, 0, 0, 0] ^= 1
    with pytest.raises(ValueError, match="trained on other data"):
        train(config(epochs=1), tmp_path, dataset=tiny_data, progress=False)


def test_a_truncated_checkpoint_stops_the_resumed_run_with_one_line(tmp_path, tiny_model, tiny_data):
    train(config(epochs=1), tmp_path, dataset=tiny_data, progress=False)
    (tmp_path / "metrics.json").unlink()
    file = tmp_path / "last.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="truncated or not a safetensors file"):
        train(config(epochs=1), tmp_path, dataset=tiny_data, progress=False)


@pytest.mark.parametrize("method", METHODS)
def test_measuring_gradient_norms_changes_nothing_else(method, tmp_path, tiny_model, tiny_data):
    train(config(method, epochs=2), tmp_path / "without", dataset=tiny_data, progress=False)
    train(config(method, epochs=2, gradient_norms=GRADIENT_NORMS), tmp_path / "with", dataset=tiny_data, progress=False)
    (tensors, rows), (measured_tensors, measured_rows) = bits(tmp_path / "without"), bits(tmp_path / "with")
    assert tensors.keys() == measured_tensors.keys()
    assert all(torch.equal(tensor, measured_tensors[name]) for name, tensor in tensors.items())
    columns = ["gradient_norm", *(f"gradient_norm_{s}" for s in ("input", "fc1", "norm.weight", "norm.bias"))]
    for row, measured in zip(rows, measured_rows, strict=True):
        found = {key: measured.pop(key) for key in [*columns, "gradient_norm_fc2.weight"]}
        assert measured == row
        assert all(norm > 0 for norm in found.values())


def test_gradient_norms_are_those_of_the_first_validation_examples_after_each_epoch(
    tmp_path, tiny_model, tiny_data, monkeypatch
):
    monkeypatch.setattr("dropattack.training._GRADIENT_NORM_EXAMPLES", 18)  # of 20; batches of 16
    train(
        config(epochs=2, keep_epochs=True, gradient_norms=["input", "fc2.weight"]),
        tmp_path,
        dataset=tiny_data,
        progress=False,
    )
    history = pd.read_csv(tmp_path / "history.csv")
    images, labels = tiny_data.validation.batch(slice(0, 18))
    for epoch in (1, 2):
        tensors, _ = checkpoint.load(tmp_path / "epochs" / f"{epoch:04}.safetensors")
        model = checkpoint.build_model(tiny_model).eval()
        model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
        images.requires_grad_().grad = None
        torch.nn.functional.cross_entropy(model(images), labels, reduction="sum").backward()
        row = history.iloc[epoch - 1]
        assert row["gradient_norm_input"] == pytest.approx(images.grad.flatten(1).norm(dim=1).mean().item(), rel=1e-5)
        assert row["gradient_norm_fc2.weight"] == pytest.approx(model.fc2.weight.grad.norm().item() / 18, rel=1e-5)


def test_an_unknown_site_stops_a_run_before_anything_is_written(tmp_path, tiny_model, tiny_data):
    with pytest.raises(ValueError, match="unknown site 'fc3'; TinyNet has fc2, fc1"):
        train(config(gradient_norms=["fc3"]), tmp_path / "run", dataset=tiny_data, progress=False)
    assert not (tmp_path / "run").exists()


def test_evaluation_is_an_exact_mean_in_evaluation_mode_and_puts_flags_back(tiny_model, tiny_data):
    from dropattack.models import build_model

    torch.manual_seed(0)
    model = build_model("tiny").train()
    model.drop.eval()  # mixed flags must come back mixed
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    uneven = evaluate(model, tiny_data.train.batches(7))
    whole = evaluate(model, tiny_data.train.batches(50))
    assert uneven["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert uneven["accuracy"] == whole["accuracy"]
    assert model.training
    assert not model.drop.training
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
