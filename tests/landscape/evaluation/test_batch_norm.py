"""BatchNorm's statistics, estimated anew at each point."""

import copy
import types

import numpy as np
import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk, hessian_eigenvalues, loss_line, loss_surface, random_directions
from landscape.evaluation.batch_norm import batch_norm_layers, reestimate


@pytest.fixture
def perceptron():
    """One hidden layer before a BatchNorm, in float64, and batches of 3, 4 and 2 for its statistics."""
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)).double()
    with torch.no_grad():
        model[1].weight.uniform_(0.5, 2.0)
        model[1].bias.uniform_(-1.0, 1.0)
    model.train()(torch.randn(8, 3, dtype=torch.float64))  # running statistics that are not the initial ones
    model.eval()
    batches = [(torch.randn(n, 3, dtype=torch.float64), torch.randint(2, (n,))) for n in (6, 5)]
    statistics = [(1 + 2 * torch.randn(n, 3, dtype=torch.float64), torch.randint(2, (n,))) for n in (3, 4, 2)]
    return types.SimpleNamespace(model=model, batches=batches, statistics=statistics)


@pytest.fixture
def convolutional():
    """Two BatchNorm layers, one after the other, with images of different sizes in the batches."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Flatten(2)
    ).double()
    model.train()(torch.randn(4, 1, 6, 6, dtype=torch.float64))
    return model.eval(), [torch.randn(n, 1, *size, dtype=torch.float64) for n, size in ((2, (6, 6)), (3, (5, 7)))]


def averaged(activations):
    """Mean and variance of ``(n, channels, ...)`` batches: each batch's own, weighted by its number of values."""
    values = [batch.transpose(0, 1).flatten(1).detach().numpy() for batch in activations]  # (channels, count)
    counts = np.array([each.shape[1] for each in values])
    means = np.array([each.mean(1) for each in values])
    variances = np.array([each.var(1, ddof=1) for each in values])
    return counts @ means / counts.sum(), counts @ variances / counts.sum()


def normalized(layer, batch):
    """A BatchNorm layer in training mode, by its formula."""
    dimensions = [0, *range(2, batch.ndim)]
    mean = batch.mean(dimensions, keepdim=True)
    variance = batch.var(dimensions, correction=0, keepdim=True)
    shape = [1, -1] + [1] * (batch.ndim - 2)
    scaled = (batch - mean) / torch.sqrt(variance + layer.eps)
    return scaled * layer.weight.reshape(shape) + layer.bias.reshape(shape)


def passes(model, batches):
    return [lambda batch=batch: model(batch) for batch in batches]


@pytest.mark.parametrize("momentum", [0.1, 0.9, None])
def test_statistics_are_means_weighted_by_the_number_of_values(perceptron, momentum):
    model = perceptron.model
    model[1].momentum = momentum
    inputs = [batch for batch, _ in perceptron.statistics]
    mean, variance = averaged([model[0](batch) for batch in inputs])
    reestimate(model, passes(model, inputs))
    np.testing.assert_allclose(model[1].running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(model[1].running_var, variance, rtol=1e-12)
    # Not the plain mean of the three batches, and not what the layer had before.
    plain = np.mean([model[0](batch).detach().numpy().mean(0) for batch in inputs], axis=0)
    assert np.abs(plain - mean).max() > 1e-3
    assert model[1].momentum == momentum
    assert not model[1].training


def test_layers_behind_others_see_their_normalized_values(convolutional):
    model, batches = convolutional
    first = [model[0](batch) for batch in batches]
    second = [model[3](normalized(model[1], batch).relu()) for batch in first]
    expected = averaged(first), averaged(second)
    reestimate(model, passes(model, batches))
    for layer, (mean, variance) in zip((model[1], model[4]), expected, strict=True):
        np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(layer.running_var, variance, rtol=1e-10)


def test_values_of_a_sequence_count_one_by_one():
    layer = nn.BatchNorm1d(3).double().eval()
    batches = [torch.randn(n, 3, length, dtype=torch.float64) for n, length in ((2, 5), (4, 1))]
    mean, variance = averaged(batches)
    reestimate(layer, passes(layer, batches))
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, variance, rtol=1e-12)


def test_a_layer_that_is_used_twice():
    layer = nn.BatchNorm1d(3).double()
    model = nn.Sequential(layer, nn.ReLU(), layer).eval()
    batch = torch.randn(6, 3, dtype=torch.float64)
    mean, variance = averaged([batch, normalized(layer, batch).relu()])
    reestimate(model, passes(model, [batch]))
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, variance, rtol=1e-12)


def test_the_order_of_batches_does_not_matter(perceptron):
    inputs = [batch for batch, _ in perceptron.statistics]
    found = []
    for order in (inputs, inputs[::-1]):
        reestimate(perceptron.model, passes(perceptron.model, order))
        found.append(perceptron.model[1].running_var.clone())
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


def test_what_was_there_before_does_not_matter(perceptron):
    inputs = [batch for batch, _ in perceptron.statistics]
    found = []
    for start in (0.0, 1e9, torch.nan):
        perceptron.model[1].running_mean.fill_(start)
        perceptron.model[1].running_var.fill_(start)
        reestimate(perceptron.model, passes(perceptron.model, inputs))
        found.append(perceptron.model[1].running_var.clone())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


class Named(nn.Module):
    """Calls its BatchNorm layer with a keyword."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3).double()

    def forward(self, inputs):
        return self.norm(input=inputs)


def test_a_layer_that_is_called_with_a_keyword():
    model = Named().eval()
    batches = [torch.randn(n, 3, dtype=torch.float64) for n in (5, 2)]
    mean, _ = averaged(batches)
    reestimate(model, passes(model, batches))
    np.testing.assert_allclose(model.norm.running_mean, mean, rtol=1e-12)


def test_layers_without_running_statistics_are_left_out():
    keeping = nn.BatchNorm2d(2)
    model = nn.Sequential(
        nn.BatchNorm1d(2, track_running_stats=False), nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.InstanceNorm1d(2), keeping
    )
    assert batch_norm_layers(model) == [keeping]


def dense(setting, model=None, batches=None):
    """The risk with statistics estimated anew, by hand: loss and accuracy."""
    model = model or setting.model
    mean, variance = averaged([model[0](batch) for batch, _ in setting.statistics])
    losses, hits = [], []
    for inputs, labels in batches or setting.batches:
        hidden = (model[0](inputs).detach().numpy() - mean) / np.sqrt(variance + model[1].eps)
        hidden = torch.tensor(hidden) * model[1].weight + model[1].bias
        logits = model[3](hidden.tanh()).detach().numpy()
        losses += (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels.numpy()]).tolist()
        hits += (logits.argmax(1) == labels.numpy()).tolist()
    return np.mean(losses), np.mean(hits)


def test_the_risk_is_that_of_the_new_statistics(perceptron):
    risk = EmpiricalRisk(perceptron.model, perceptron.batches, statistics=perceptron.statistics)
    loss, accuracy = dense(perceptron)
    assert risk().loss == pytest.approx(loss, rel=1e-12)
    assert risk().metrics["accuracy"] == pytest.approx(accuracy)
    assert risk().count == 11
    assert EmpiricalRisk(perceptron.model, perceptron.batches)().loss != pytest.approx(loss, rel=1e-3)


def test_moved_weights_have_other_statistics(perceptron):
    risk = EmpiricalRisk(perceptron.model, perceptron.batches, statistics=perceptron.statistics)
    point = {name: value + 0.3 * torch.randn_like(value) for name, value in risk.parameters().items()}
    moved = copy.deepcopy(perceptron.model)
    moved.load_state_dict(point, strict=False)
    assert risk(point).loss == pytest.approx(dense(perceptron, moved)[0], rel=1e-12)


def test_statistics_of_other_data_are_other_numbers(perceptron):
    losses = {
        EmpiricalRisk(perceptron.model, perceptron.batches, statistics=statistics)().loss
        for statistics in (None, perceptron.statistics, perceptron.statistics[:1], perceptron.batches)
    }
    assert len(losses) == 4


@pytest.fixture
def deep_state():
    """All that a re-estimation might leave behind in a model."""

    def state(model):
        return {
            name: (layer.momentum, layer.training, int(layer.num_batches_tracked), len(layer._forward_pre_hooks))
            for name, layer in model.named_modules()
            if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        }

    return state


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_unchanged_after_each_use(perceptron, unchanged, deep_state, training):
    model = perceptron.model.train(training)
    before = deep_state(model)
    assert before["1"][2] == 1
    with unchanged(model):
        risk = EmpiricalRisk(model, perceptron.batches, statistics=perceptron.statistics)
        directions = random_directions(risk.parameters())
        risk()
        risk({"0.weight": torch.zeros(5, 3, dtype=torch.float64)})
        risk.gradient()
        risk.hessian_product(directions[0] | {name: torch.zeros_like(v) for name, v in risk.parameters().items()})
        loss_line(risk, directions[0], points=3, method="grid", progress=False)
        loss_surface(risk, directions, points=3, progress=False)
    assert deep_state(model) == before


@pytest.mark.parametrize("bad_batch", [0, 2])
def test_the_model_is_unchanged_after_an_exception(perceptron, unchanged, deep_state, bad_batch):
    fail = []

    def loss(model, batch):
        if (
            fail
            and batch is not None
            and model[1].training
            and len(batch[0]) == len(perceptron.statistics[bad_batch][0])
        ):
            raise RuntimeError("stop")
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    risk = EmpiricalRisk(perceptron.model, perceptron.batches, loss, statistics=perceptron.statistics)
    direction = random_directions(risk.parameters(), 1)[0]
    fail.append(True)
    before = deep_state(perceptron.model)
    uses = (
        risk,
        risk.gradient,
        lambda: risk.hessian_product(risk.parameters()),
        lambda: loss_line(risk, direction, progress=False),
    )
    for use in uses:
        with unchanged(perceptron.model), pytest.raises(RuntimeError, match="stop"):
            use()
        assert deep_state(perceptron.model) == before


def scaled(point, factor):
    """The weights and bias before the BatchNorm layer, times a factor."""
    return {"0.weight": factor * point["0.weight"], "0.bias": factor * point["0.bias"]}


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_scale_before_the_layer_changes_nothing_when_statistics_are_estimated_anew(perceptron, factor):
    perceptron.model[1].eps = 1e-30  # the only thing that has a scale
    fresh = EmpiricalRisk(perceptron.model, perceptron.batches, statistics=perceptron.statistics)
    kept = EmpiricalRisk(perceptron.model, perceptron.batches)
    assert fresh(scaled(fresh.parameters(), factor)).loss == pytest.approx(fresh().loss, rel=1e-11)
    assert kept(scaled(kept.parameters(), factor)).loss != pytest.approx(kept().loss, rel=1e-3)


def test_surfaces_are_invariant_to_that_scale(perceptron):
    perceptron.model[1].eps = 1e-30
    rescaled = copy.deepcopy(perceptron.model)
    with torch.no_grad():
        rescaled[0].weight.mul_(4)
        rescaled[0].bias.mul_(4)
    for statistics, same in ((perceptron.statistics, True), (None, False)):
        first, second = (
            loss_line(
                risk,
                random_directions(risk.parameters(), 1, ignore=("norm",))[0],
                points=9,
                method="grid",
                progress=False,
            )["loss"].values
            for risk in (
                EmpiricalRisk(model, perceptron.batches, statistics=statistics)
                for model in (perceptron.model, rescaled)
            )
        )
        # Filter normalization scales the steps of the layer with its weights.
        assert np.allclose(first, second, rtol=1e-9) == same


def test_a_shift_before_the_layer_changes_nothing_either(perceptron):
    risk = EmpiricalRisk(perceptron.model, perceptron.batches, statistics=perceptron.statistics)
    kept = EmpiricalRisk(perceptron.model, perceptron.batches)
    shifted = {"0.bias": risk.parameters()["0.bias"] + 5.0}
    assert risk(shifted).loss == pytest.approx(risk().loss, rel=1e-11)
    assert kept(shifted).loss != pytest.approx(kept().loss, rel=1e-3)


def differences(risk, name, step=1e-5):
    """The gradient of the loss by a parameter, by central differences, at frozen statistics of the center."""
    center = risk.parameters()[name]
    gradient = torch.zeros_like(center)
    for index in np.ndindex(*center.shape):
        sides = []
        for sign in (1, -1):
            moved = center.clone()
            moved[index] += sign * step
            sides.append(risk({name: moved}).loss)
        gradient[index] = (sides[0] - sides[1]) / (2 * step)
    return gradient


@pytest.fixture
def frozen(perceptron):
    """The risk of the same model, whose running statistics are those that would be estimated."""
    model = copy.deepcopy(perceptron.model)
    reestimate(model, passes(model, [batch for batch, _ in perceptron.statistics]))
    return EmpiricalRisk(model, perceptron.batches)


def test_the_gradient_is_that_of_the_new_statistics(perceptron, frozen):
    risk = EmpiricalRisk(perceptron.model, perceptron.batches, statistics=perceptron.statistics)
    stale = EmpiricalRisk(perceptron.model, perceptron.batches)
    found, expected, wrong = risk.gradient(), frozen.gradient(), stale.gradient()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-12)
    assert (found["3.weight"] - wrong["3.weight"]).abs().max() > 1e-3
    # Behind the layer the statistics do not move with the weights: true derivatives of the risk.
    torch.testing.assert_close(found["3.weight"], differences(risk, "3.weight"), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found["1.weight"], differences(risk, "1.weight"), rtol=1e-6, atol=1e-8)


def test_the_gradient_elsewhere_has_the_statistics_of_there(perceptron):
    risk = EmpiricalRisk(perceptron.model, perceptron.batches, statistics=perceptron.statistics)
    point = {name: value + 0.3 * torch.randn_like(value) for name, value in risk.parameters().items()}
    moved = copy.deepcopy(perceptron.model)
    moved.load_state_dict(point, strict=False)
    reestimate(moved, passes(moved, [batch for batch, _ in perceptron.statistics]))
    expected = EmpiricalRisk(moved, perceptron.batches).gradient()
    for name, found in risk.gradient(point).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-10, atol=1e-12)


def test_the_hessian_is_that_of_the_new_statistics(perceptron, frozen):
    risk = EmpiricalRisk(perceptron.model, perceptron.batches, statistics=perceptron.statistics)
    stale = EmpiricalRisk(perceptron.model, perceptron.batches)
    vector = {name: torch.randn_like(value) for name, value in risk.parameters().items()}
    found, expected = risk.hessian_product(vector), frozen.hessian_product(vector)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-11)
    assert (found["3.weight"] - stale.hessian_product(vector)["3.weight"]).abs().max() > 1e-3
    top = [hessian_eigenvalues(each).eigenvalues for each in (risk, frozen)]
    np.testing.assert_allclose(*top, rtol=1e-5)


def test_surfaces_have_the_statistics_of_every_point(perceptron):
    risk = EmpiricalRisk(perceptron.model, perceptron.batches, statistics=perceptron.statistics)
    kept = EmpiricalRisk(perceptron.model, perceptron.batches)
    directions = random_directions(risk.parameters())
    surface = loss_surface(risk, directions, points=3, method="grid", progress=False)
    center = risk.parameters()
    for alpha in (-1.0, 0.0, 1.0):
        for beta in (-1.0, 0.0, 1.0):
            point = dict(center)
            for coordinate, direction in zip((alpha, beta), directions, strict=True):
                point |= {name: point[name] + coordinate * step for name, step in direction.items()}
            here = surface.sel(alpha=alpha, beta=beta)
            assert float(here["loss"]) == pytest.approx(risk(point).loss, rel=1e-11)
            assert float(here["accuracy"]) == risk(point).metrics["accuracy"]
    assert float(surface["center_loss"]) == pytest.approx(dense(perceptron)[0], rel=1e-12)
    assert float(surface["center_loss"]) != pytest.approx(kept().loss, rel=1e-3)
    assert surface.attrs["batch_norm"] == risk.options["batch_norm"] == "statistics estimated anew at each point"
    without = loss_surface(kept, directions, points=3, method="grid", progress=False)
    assert "batch_norm" not in without.attrs


@pytest.mark.parametrize("order", [("fresh", "kept", "other"), ("kept", "other", "fresh")], ids=" ".join)
def test_every_split_has_statistics_of_its_own(perceptron, order):
    model, batches = perceptron.model, perceptron.batches
    risks = {
        "fresh": EmpiricalRisk(model, batches, statistics=perceptron.statistics),
        "kept": EmpiricalRisk(model, batches),
        "other": EmpiricalRisk(model, batches, statistics=batches),
    }
    risks = {split: risks[split] for split in order}
    direction = random_directions(risks["kept"].parameters(), 1)[0]
    both = loss_line(risks, direction, points=5, method="grid", progress=False)
    for split, risk in risks.items():
        alone = loss_line(risk, direction, points=5, method="grid", progress=False)
        np.testing.assert_array_equal(both["loss"].sel(split=split), alone["loss"], err_msg=split)


def test_statistics_of_a_data_loader(perceptron):
    inputs = torch.cat([batch for batch, _ in perceptron.statistics])
    labels = torch.cat([batch for _, batch in perceptron.statistics])
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, labels), batch_size=9)
    expected = EmpiricalRisk(perceptron.model, perceptron.batches, statistics=[(inputs, labels)])
    found = EmpiricalRisk(perceptron.model, perceptron.batches, statistics=loader)
    assert found().loss == expected().loss
    assert not found.rereading_is_free
    assert expected.rereading_is_free


def test_other_statistics_are_other_data(perceptron):
    """A file of points must not go on with statistics of other batches."""
    fingerprints = {
        EmpiricalRisk(perceptron.model, perceptron.batches, statistics=statistics).fingerprint()
        for statistics in (perceptron.statistics, perceptron.statistics[:1])
    }
    assert len(fingerprints) == 2


def test_a_model_without_such_layers():
    model = nn.Linear(3, 2).eval()
    batches = [(torch.randn(4, 3), torch.randint(2, (4,)))]
    with pytest.raises(ValueError, match="statistics: the model has no BatchNorm layer with running statistics"):
        EmpiricalRisk(model, batches, statistics=batches)
    untracked = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False)).eval()
    with pytest.raises(ValueError, match="statistics: the model has no BatchNorm layer with running statistics"):
        EmpiricalRisk(untracked, batches, statistics=batches)


def test_statistics_that_are_used_up(perceptron):
    with pytest.raises(TypeError, match=r"statistics: expected batches that can be read again and again; .*list"):
        EmpiricalRisk(perceptron.model, perceptron.batches, statistics=iter(perceptron.statistics))


def test_no_statistics(perceptron):
    # Means of 0 and variances of 1 are nobody's statistics.
    with pytest.raises(ValueError, match="statistics: expected at least one batch, got none"):
        EmpiricalRisk(perceptron.model, perceptron.batches, statistics=[])


def test_a_batch_of_one_value_has_no_variance(perceptron, unchanged):
    inputs, labels = perceptron.batches[0]
    with (
        unchanged(perceptron.model),
        pytest.raises(ValueError, match="statistics: a batch of one value a channel has no variance"),
    ):
        EmpiricalRisk(perceptron.model, perceptron.batches, statistics=[(inputs[:1], labels[:1])])
