"""The empirical risk is an exact mean over examples, in evaluation mode, as a function of chosen parameters."""

import collections
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader, TensorDataset

from landscape import EmpiricalRisk, hessian_eigenvalues, loss_line, loss_surface, random_directions


def by_hand(model, inputs, labels):
    """Loss, its standard error and accuracy in one batch, by numpy; of a model in evaluation mode."""
    logits = model(inputs).detach().double().numpy()
    labels = labels.numpy()
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    error = losses.std(ddof=1) / math.sqrt(len(labels))
    return losses.mean(), error, (logits.argmax(1) == labels).mean()


def linear(weight=(0.0,)):
    """A linear model without bias of one input."""
    model = nn.Linear(1, len(weight), bias=False).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor(weight)[:, None])
    return model


def output_is_loss(model, batch):
    return model(batch).squeeze(1)


@pytest.mark.parametrize("size", [1, 3, 4, 10])
def test_means_over_examples(network, size):
    inputs, labels = network.data
    risk = EmpiricalRisk(network.model, list(zip(inputs.split(size), labels.split(size), strict=True)))
    loss, error, accuracy = by_hand(network.model, inputs, labels)
    value = risk()
    assert value.loss == pytest.approx(loss, rel=1e-13)
    assert value.standard_error == pytest.approx(error, rel=1e-10)
    assert value.metrics == {"accuracy": pytest.approx(accuracy, rel=1e-14)}
    assert value.count == 10
    assert risk.count == value.count


def test_the_standard_error_survives_a_large_mean():
    # Losses of 1e9 and more, a spread of 1: the squares themselves would leave no digit of it.
    spread = torch.randn(20, 1, dtype=torch.float64)
    risk = EmpiricalRisk(linear([1.0]), list((1e9 + spread).split(6)), output_is_loss)
    expected = (1e9 + spread).numpy().std(ddof=1) / math.sqrt(20)
    assert risk().standard_error == pytest.approx(expected, rel=1e-6)


def test_one_example_has_no_standard_error():
    assert math.isnan(EmpiricalRisk(linear([1.0]), [torch.ones(1, 1).double()], output_is_loss)().standard_error)


@pytest.mark.parametrize("weight", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_is_kept(weight):
    risk = EmpiricalRisk(linear([1.0]), [torch.ones(2, 1).double(), torch.ones(1, 1).double()], output_is_loss)
    value = risk({"weight": torch.tensor([[weight]])})
    assert str(value.loss) == str(weight)
    assert math.isnan(value.standard_error)


def test_one_infinite_example_makes_the_mean_infinite():
    batches = list(torch.tensor([[1.0], [0.0], [1e100]], dtype=torch.float64).split(2))
    weight = torch.tensor([[1e300]], dtype=torch.float64)
    assert EmpiricalRisk(linear([1.0]), batches, output_is_loss)({"weight": weight}).loss == math.inf


def test_a_huge_finite_loss_is_kept():
    # Its square overflows, but the mean does not.
    batches = [torch.tensor([[1.0], [3.0]]).double(), torch.tensor([[5.0]]).double()]
    value = EmpiricalRisk(linear([1.0]), batches, output_is_loss)(
        {"weight": torch.tensor([[1e200]], dtype=torch.float64)}
    )
    assert value.loss == pytest.approx(3e200)


def test_metrics_cost_no_forward_pass(network):
    calls = []
    network.model.register_forward_hook(lambda *_: calls.append(1))
    risk = EmpiricalRisk(network.model, network.batches)
    calls.clear()
    risk()
    assert len(calls) == len(network.batches)


def test_own_metrics_see_the_output_and_the_batch(network):
    metrics = {
        "margin": lambda output, batch: (output[:, 0] - output[:, 1]).abs(),
        "positive": lambda output, batch: batch[1] == 1,
    }
    risk = EmpiricalRisk(network.model, network.batches, metrics=metrics)
    output = network.model(network.data[0]).detach().numpy()
    assert risk().metrics == {
        "margin": pytest.approx(np.abs(output[:, 0] - output[:, 1]).mean(), rel=1e-12),
        "positive": pytest.approx(float((network.data[1] == 1).double().mean())),
    }


def test_own_loss_has_no_metrics_unless_they_are_named(network):
    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    assert EmpiricalRisk(network.model, network.batches, loss)().metrics == {}
    assert EmpiricalRisk(network.model, network.batches, metrics={})().metrics == {}


def test_a_data_loader(network):
    loader = DataLoader(TensorDataset(*network.data), batch_size=4, shuffle=True)  # a mean knows no order
    expected = EmpiricalRisk(network.model, network.batches)()
    assert EmpiricalRisk(network.model, loader)().loss == pytest.approx(expected.loss, rel=1e-12)


Pair = collections.namedtuple("Pair", "inputs labels")

BATCHES = {
    "dict": (lambda x, y: {"x": x, "y": y}, lambda batch: (batch["x"], batch["y"])),
    "named tuple": (Pair, lambda batch: (batch.inputs, batch.labels)),
    "nested, with text": (lambda x, y: [("note", {"x": [x]}), y], lambda batch: (batch[0][1]["x"][0], batch[1])),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_of_any_structure(network, kind):
    pack, unpack = BATCHES[kind]

    def loss(model, batch):
        inputs, labels = unpack(batch)
        return nn.functional.cross_entropy(model(inputs), labels, reduction="none")

    risk = EmpiricalRisk(network.model, [pack(*batch) for batch in network.batches], loss)
    assert risk().loss == pytest.approx(by_hand(network.model, *network.data)[0], rel=1e-13)


def test_packed_sequences():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.states, self.decoder = nn.GRU(2, 3), nn.Linear(3, 2)

        def forward(self, sequences):
            assert isinstance(sequences, PackedSequence)
            return self.decoder(self.states(sequences)[1][0])

    model = Reader().double().eval()
    sequences = [torch.randn(length, 2, dtype=torch.float64) for length in (4, 2, 1)]
    labels = torch.tensor([0, 1, 1])
    risk = EmpiricalRisk(model, [(pack_sequence(sequences), labels)])
    with torch.no_grad():
        logits = torch.cat([model(pack_sequence([sequence])) for sequence in sequences])
    assert risk().loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-12)
    assert set(risk.hessian_product(risk.parameters())) == set(risk.parameters())


def test_evaluation_mode_whatever_mode_the_model_is_in(network):
    expected = by_hand(network.model.eval(), *network.data)[0]
    risk = EmpiricalRisk(network.model.train(), network.batches)
    assert risk().loss == pytest.approx(expected, rel=1e-13)
    network.model.eval()
    flat = torch.cat([tensor.flatten() for tensor in risk.gradient().values()])
    loss = nn.functional.cross_entropy(network.model(network.data[0]), network.data[1])
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.model.parameters()))])
    torch.testing.assert_close(flat, expected)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (None, ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight"]),  # 3.bias is frozen
        (["*.weight"], ["0.weight", "1.weight", "3.weight"]),
        (["3.*", "0.bias"], ["0.bias", "3.weight"]),
    ],
    ids=["all", "pattern", "two patterns"],
)
def test_which_parameters_are_arguments(network, patterns, expected):
    network.model[3].bias.requires_grad_(False)
    risk = EmpiricalRisk(network.model, network.batches, parameters=patterns)
    assert list(risk.parameters()) == expected
    assert list(risk.gradient()) == expected
    assert risk.matching_parameters("*") == expected


def test_the_risk_elsewhere(bowl, symmetric):
    quadratic = bowl(symmetric([-1.0, 0.5, 1.0, 2.0, 4.0, 9.0]))
    moved = {"weight": torch.tensor([[1.0, -2.0], [0.5, 3.0]])}  # shift stays where it is
    theta = np.concatenate([[1.0, -2.0, 0.5, 3.0], quadratic.theta[4:]])
    losses = quadratic.losses(theta)
    assert quadratic.risk(moved).loss == pytest.approx(losses.mean(), rel=1e-12)
    assert quadratic.risk(moved).standard_error == pytest.approx(losses.std(ddof=1) / math.sqrt(7), rel=1e-10)
    # The gradient is linear: A (theta' - c) = A (theta - c) + A (theta' - theta).
    expected = quadratic.gradient + quadratic.matrix @ (theta - quadratic.theta)
    np.testing.assert_allclose(quadratic.flat(quadratic.risk.gradient(moved)), expected, rtol=1e-11, atol=1e-12)


def test_derivatives_of_a_quadratic(bowl, symmetric):
    quadratic = bowl(symmetric([-1.0, 0.5, 1.0, 2.0, 4.0, 9.0]))
    np.testing.assert_allclose(quadratic.flat(quadratic.risk.gradient()), quadratic.gradient, rtol=1e-12)
    vector = {name: torch.randn_like(tensor) for name, tensor in quadratic.risk.parameters().items()}
    product = quadratic.flat(quadratic.risk.hessian_product(vector))
    np.testing.assert_allclose(product, quadratic.matrix @ quadratic.flat(vector), rtol=1e-11, atol=1e-12)


def test_a_parameter_that_the_loss_does_not_reach_has_derivatives_of_zero():
    model = nn.ModuleDict({"used": linear([1.0]), "unused": linear([1.0])})
    risk = EmpiricalRisk(model, [torch.ones(2, 1).double()], lambda model, batch: output_is_loss(model["used"], batch))
    zero = torch.zeros(1, 1, dtype=torch.float64)
    assert torch.equal(risk.gradient()["unused.weight"], zero)
    product = risk.hessian_product(risk.parameters())  # of a linear loss, at that
    assert all(torch.equal(part, zero) for part in product.values())


def test_present_weights_are_copies(network):
    risk = EmpiricalRisk(network.model, network.batches)
    point = risk.parameters()
    before = network.model[0].weight.detach().clone()
    point["0.weight"].zero_()
    assert torch.equal(network.model[0].weight, before)
    assert not point["0.weight"].requires_grad


def test_moves_start_from_the_center_each_time(network):
    risk = EmpiricalRisk(network.model, network.batches)
    center = risk.parameters()
    direction = {"0.weight": torch.randn_like(center["0.weight"])}
    with risk.along([direction]) as move:
        for _ in range(100):
            move([0.1])
        expected = center["0.weight"] + 0.1 * direction["0.weight"]
        torch.testing.assert_close(network.model[0].weight.detach(), expected, rtol=1e-15, atol=1e-16)
        move([0.0])
        assert torch.equal(network.model[0].weight, center["0.weight"])


class Half(nn.Module):
    """Not one of torch's own modules, whose calls the compiler may skip."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, inputs):
        return torch.tanh(self.linear(inputs))


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Half(2, 3), Half(3, 2)

    def forward(self, inputs):
        return self.second(self.first(inputs))


def compiled(model):
    return torch.compile(model, backend="aot_eager")


def compiled_in_place(model):
    model.compile(backend="aot_eager")
    return model


def compiled_in_part(model):
    model.first.compile(backend="aot_eager")
    return model


@pytest.mark.parametrize("how", [compiled, compiled_in_place, compiled_in_part])
def test_a_compiled_model(how):
    # aot_eager traces a backward pass as every real backend does, and so has no second one.
    model = Whole().double().eval()
    batches = [(torch.randn(4, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0]))] * 2
    eager = EmpiricalRisk(model, batches)
    directions = random_directions(eager.parameters())
    surface, top = loss_surface(eager, directions, points=3, progress=False), hessian_eigenvalues(eager)
    torch.compiler.reset()
    risk = EmpiricalRisk(how(model), batches)
    assert set(risk.parameters()) == set(eager.parameters())
    again = loss_surface(risk, directions, points=3, progress=False)
    np.testing.assert_allclose(again["loss"], surface["loss"], rtol=1e-10)
    np.testing.assert_array_equal(again["accuracy"], surface["accuracy"])
    np.testing.assert_allclose(hessian_eigenvalues(risk).eigenvalues, top.eigenvalues, rtol=1e-6)


def test_an_outer_autocast_block_does_not_hide_the_moves():
    # Autocast caches casts of weights and does not see them change in place.
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
    batches = [(torch.randn(20, 3), torch.randint(2, (20,)))]
    with torch.no_grad():
        model[2].weight.mul_(4)  # so that moves change the loss by much more than bfloat16's rounding
    direction = random_directions(EmpiricalRisk(model, batches).parameters(), 1)[0]
    wide = loss_line(EmpiricalRisk(model, batches), direction, points=5, progress=False)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        risk = EmpiricalRisk(model, batches)
        narrow = []
        with risk.along([direction]) as move:
            for alpha in wide["alpha"].values:
                model(batches[0][0])  # fills the cache
                move([alpha])
                narrow.append(risk().loss)
    assert float(wide.max() - wide.min()) > 0.1
    np.testing.assert_allclose(narrow, wide, atol=0.02)
    assert not np.array_equal(narrow, wide)  # so autocast was at work


def test_a_model_in_bfloat16():
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
    inputs, labels = torch.randn(300, 3), torch.randint(2, (300,))
    wide = EmpiricalRisk(model, [(inputs, labels)])()
    narrow = EmpiricalRisk(model.bfloat16(), [(inputs.bfloat16(), labels)])
    # Sums are in float64: in bfloat16 a sum of 300 losses of 0.7 could not grow beyond its 8 bits.
    assert narrow().loss == pytest.approx(wide.loss, abs=0.01)
    surface = loss_surface(narrow, random_directions(narrow.parameters()), points=3, progress=False)
    center = float(surface["center_loss"])
    assert float(surface["loss"][1, 1]) == pytest.approx(center, rel=1e-12)
    assert center < float(surface["loss"].max())


def test_a_gradient_in_bfloat16_is_the_mean_of_its_batches():
    # 512 equal terms of 1/512: bfloat16 stops at 0.5, where half a unit in the last place is 1/512.
    model = linear([1.0]).bfloat16()
    risk = EmpiricalRisk(model, [torch.ones(1, 1, dtype=torch.bfloat16)] * 1024, output_is_loss)
    assert float(risk.gradient()["weight"]) == pytest.approx(1.0, rel=0.01)


def good_batches():
    return [(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))]


class AlwaysDropped(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(3, 2)

    def forward(self, inputs):
        return self.decoder(nn.functional.dropout(inputs, 0.5, training=True))


class Unstable:
    """Data that differ from pass to pass."""

    def __init__(self, grow):
        self.passes, self.grow = 0, grow

    def __iter__(self):
        self.passes += 1
        count = 4 + (self.passes if self.grow else 0)
        generator = torch.Generator().manual_seed(self.passes)
        yield torch.randn(count, 3, generator=generator), torch.zeros(count, dtype=torch.long)


class DroppedRNN(nn.LSTM):
    def forward(self, inputs):
        return super().forward(inputs)[0]


def classifier():
    return nn.Linear(3, 2).eval()


def frozen():
    return classifier().requires_grad_(False)


WRONG = {
    "iterator": (classifier, lambda: iter(good_batches()), {}, TypeError, "batches: .* got a list_iterator"),
    "generator": (classifier, lambda: (b for b in good_batches()), {}, TypeError, "used up after one pass"),
    "no batches": (classifier, list, {}, ValueError, "batches: expected at least one batch, got none"),
    "no examples": (classifier, lambda: [(torch.ones(0, 3), torch.ones(0).long())], {}, ValueError, "batches: "),
    "dropout": (
        lambda: nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.3)).train(),
        good_batches,
        {},
        ValueError,
        "the model is stochastic: 1 has dropout 0.3 and is in training mode",
    ),
    "dropout of an LSTM": (
        lambda: DroppedRNN(3, 2, num_layers=2, dropout=0.25).train(),
        good_batches,
        {},
        ValueError,
        "the model is stochastic: DroppedRNN has dropout 0.25",
    ),
    "dropout that is always on": (AlwaysDropped, good_batches, {}, ValueError, "two passes over the data disagree"),
    "random data": (classifier, lambda: Unstable(grow=False), {}, ValueError, "two passes over the data disagree"),
    "growing data": (
        classifier,
        lambda: Unstable(grow=True),
        {},
        TypeError,
        "first pass gave . examples, the second .",
    ),
    "NaN at the center": (
        classifier,
        lambda: [(torch.full((2, 3), math.nan), torch.tensor([0, 1]))],
        {},
        ValueError,
        "the loss at the center is nan",
    ),
    "infinity at the center": (
        classifier,
        good_batches,
        {"loss": lambda model, batch: model(batch[0]).sum(1) / 0},
        ValueError,
        "the loss at the center is (inf|nan|-inf)",
    ),
    "scalar loss": (
        classifier,
        good_batches,
        {"loss": lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1])},
        TypeError,
        r"loss: expected one value for each example, shape \(n,\), got shape \(\)",
    ),
    "loss that is a number": (classifier, good_batches, {"loss": lambda *_: 1.0}, TypeError, "loss: .* got float"),
    "metric of wrong shape": (
        classifier,
        good_batches,
        {"metrics": {"top": lambda output, batch: output}},
        TypeError,
        r"metric 'top': expected one value for each example, shape \(n,\), got shape \(4, 2\)",
    ),
    "dict for the default loss": (
        classifier,
        lambda: [{"x": 1}],
        {},
        TypeError,
        r"batches: the default loss expects \(inputs, labels\), got dict",
    ),
    "three for the default loss": (classifier, lambda: [(1, 2, 3)], {}, TypeError, "default loss expects"),
    "nothing to train": (frozen, good_batches, {}, ValueError, "no parameter of the model requires a gradient"),
    "no such parameter": (
        classifier,
        good_batches,
        {"parameters": ["weight", "head.*"]},
        ValueError,
        r"parameters: 'head.\*' matches none of weight, bias",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case):
    model, batches, arguments, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        EmpiricalRisk(model(), batches(), **arguments)


def test_dropout_in_evaluation_mode_is_welcome():
    model = nn.Sequential(nn.Dropout(0.5), DroppedRNN(3, 2, num_layers=2, dropout=0.25)).eval()
    assert EmpiricalRisk(model, good_batches())().count == 4


@pytest.mark.parametrize("call", ["value", "gradient"])
@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"head": torch.ones(2)}, "unknown parameter 'head'; the risk is a function of weight, bias"),
        ({"bias": torch.ones(3)}, r"parameter 'bias': expected shape \(2,\), got \(3,\)"),
        ({"weight": torch.ones(3)}, r"parameter 'weight': expected shape \(2, 3\), got \(3,\)"),  # it would broadcast
    ],
    ids=["name", "shape", "shape that broadcasts"],
)
def test_wrong_points(point, message, call):
    risk = EmpiricalRisk(classifier(), good_batches())
    with pytest.raises(ValueError, match=message):
        (risk if call == "value" else risk.gradient)(point)


def test_a_direction_of_another_model():
    risk = EmpiricalRisk(classifier(), good_batches(), parameters=["weight"])
    with pytest.raises(ValueError, match="unknown parameter 'bias'; the risk is a function of weight"):
        loss_line(risk, {"bias": torch.ones(2)}, progress=False)


def test_a_direction_of_another_shape():
    risk = EmpiricalRisk(classifier(), good_batches())
    with pytest.raises(ValueError, match=r"weight.* \(2, 3\).* \(1, 3\)"):
        loss_line(risk, {"weight": torch.ones(1, 3)}, points=3, progress=False)  # it would broadcast
