"""Whatever is asked of a model, it is bit for bit the same afterwards, also when its loss raises in the middle."""

import pytest
import torch
from torch import nn

from landscape import (
    EmpiricalRisk,
    flatness_table,
    gradient_norms,
    hessian_eigenvalues,
    hessian_trace,
    loss_line,
    loss_surface,
    random_directions,
    spectral_density,
)


def surface(risk):
    loss_surface(risk, random_directions(risk.parameters()), points=3, progress=False)


def line(risk):
    loss_line(risk, random_directions(risk.parameters(), count=1)[0], points=3, progress=False)


def elsewhere(risk):
    return {name: tensor + 1 for name, tensor in risk.parameters().items()}


CALLS = {
    "construction": lambda risk: EmpiricalRisk(risk.model, risk.batches, loss=risk._loss),
    "value": lambda risk: risk(),
    "value elsewhere": lambda risk: risk(elsewhere(risk)),
    "gradient": lambda risk: risk.gradient(),
    "gradient elsewhere": lambda risk: risk.gradient(elsewhere(risk)),
    "hessian product": lambda risk: risk.hessian_product(risk.parameters()),
    "surface": surface,
    "line": line,
    "eigenvalues": hessian_eigenvalues,
    "trace": hessian_trace,
    "density": lambda risk: spectral_density(risk, steps=4),
    "Gauss-Newton product": lambda risk: risk.gauss_newton_products([risk.parameters()]),
    "directional derivatives": lambda risk: risk.directional_derivatives(risk.parameters()),
    "flatness": lambda risk: flatness_table({"model": risk}, ["adaptive_sharpness", "fisher_rao_norm"], progress=False),
    "gradient norms": lambda risk: gradient_norms(risk, ["input", "0", "3", "*"]),
}
ONE_PASS = {"value", "value elsewhere", "gradient", "gradient elsewhere", "hessian product", "Gauss-Newton product",
            "directional derivatives"}  # fmt: skip


class Fuse:
    """Cross-entropy that raises at the call it is set to."""

    left = 10**9

    def __call__(self, model, batch):
        output = model(batch[0])
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("the fuse has blown")
        return nn.functional.cross_entropy(output, batch[1], reduction="none")


class Counter(nn.Module):
    """Counts its calls in a buffer, in evaluation mode too: in place, or in a new tensor."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, values):
        if self.in_place:
            self.calls += 1
        else:
            self.calls = self.calls + 1
        return values


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "new tensor"])
@pytest.mark.parametrize("call", ["value", "gradient", "surface"])
def test_buffers_that_change_in_evaluation_mode(network, unchanged, call, in_place):
    network.model.append(Counter(in_place))
    with unchanged(network.model):
        CALLS[call](EmpiricalRisk(network.model, network.batches))


@pytest.fixture
def untidy(network):
    """The network with mixed training flags, gradients that someone still needs, and a frozen parameter."""
    model = network.model
    model.train()
    model[3].eval()
    model[3].bias.requires_grad_(False)
    model[0].weight.grad = torch.randn_like(model[0].weight)
    return network


@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_left_behind(untidy, unchanged, call):
    with unchanged(untidy.model):
        risk = EmpiricalRisk(untidy.model, untidy.batches)
        CALLS[call](risk)


@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_left_behind_by_an_exception(untidy, unchanged, call):
    fuse = Fuse()
    risk = EmpiricalRisk(untidy.model, untidy.batches, loss=fuse)
    # The third of four batches, of the second pass where there is one.
    fuse.left = 3 if call in ONE_PASS else 7
    with unchanged(untidy.model), pytest.raises(RuntimeError, match="the fuse has blown"):
        CALLS[call](risk)


def test_the_hook_that_feeds_metrics_goes_with_an_exception(untidy, unchanged):
    def metric(output, batch):
        raise RuntimeError("no such metric")

    with unchanged(untidy.model), pytest.raises(RuntimeError, match="no such metric"):
        EmpiricalRisk(untidy.model, untidy.batches, metrics={"broken": metric})


def test_weights_come_back_when_the_block_around_a_move_raises(network, unchanged):
    risk = EmpiricalRisk(network.model, network.batches)

    def stopped():
        with risk.along(random_directions(risk.parameters())) as move:
            move([0.3, -0.2])
            raise KeyError("stop")

    with unchanged(network.model), pytest.raises(KeyError, match="stop"):
        stopped()


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_a_data_loader_leaves_the_global_generator_alone(network, unchanged, shuffle):
    dataset = torch.utils.data.TensorDataset(*network.data)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, shuffle=shuffle)
    with unchanged(network.model):
        risk = EmpiricalRisk(network.model, loader)
    with unchanged(network.model):
        risk()
        risk.gradient()


def test_a_forward_pass_after_a_surface_sees_the_weights_that_were_put_back(network):
    # Inside one autocast block, casts of weights are cached: those of the moved weights must not outlive the moves.
    model, inputs = network.model.float(), network.data[0].float()
    batches = [(inputs, network.data[1])]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = model(inputs)
        surface(EmpiricalRisk(model, batches))
        torch.testing.assert_close(model(inputs), before, rtol=0, atol=0)


@pytest.mark.parametrize("call", ["gradient elsewhere", "gradient norms"])
def test_a_forward_pass_after_gradients_sees_the_weights_that_were_put_back(network, call):
    # With gradients enabled autocast caches the casts of weights, which then hold what they were moved to.
    model, inputs = network.model.float(), network.data[0].float()
    batches = [(inputs, network.data[1])]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = model(inputs)
        CALLS[call](EmpiricalRisk(model, batches))
        torch.testing.assert_close(model(inputs), before, rtol=0, atol=0)
