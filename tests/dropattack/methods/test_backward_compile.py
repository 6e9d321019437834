"""A compiled model gives the eager result, and is compiled no more once it has seen a step."""

import pytest
import torch
from networks import build
from torch import nn
from torch.testing import assert_close

from dropattack.methods import DropAttack

# The compiler itself looks at .grad of any activation that enters a compiled region, with or without an attack.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

ATTACKS = {
    "input": ("cnn", {"inputs": "input"}),
    "module": ("cnn", {"inputs": "norm"}),
    "module of tokens": ("mlp", {"inputs": "embedding"}),
    "weights": ("cnn", {"weights": ("conv.weight", "decoder.*")}),
    "both": ("cnn", {"inputs": "conv", "weights": ("conv.weight",)}),
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("built_on", ["compiled", "original"])
@pytest.mark.parametrize(("name", "attack"), ATTACKS.values(), ids=ATTACKS)
def test_compiled_equals_eager(name, attack, built_on):
    network, eager = build(name), build(name)
    compiled = torch.compile(network.module, backend="aot_eager")
    options = {"epsilon": 0.7, "attack_probability": 0.5, "ascent_steps": 2, **attack}
    method = DropAttack(compiled if built_on == "compiled" else network.module, **options)
    expected = DropAttack(eager.module, **options)

    def closure():
        return nn.functional.cross_entropy(compiled(network.inputs), network.targets)

    for step in range(4):
        network.module.zero_grad()
        eager.module.zero_grad()
        with torch._dynamo.config.patch(error_on_recompile=step >= 2):
            loss = method.backward(closure)
        assert_close(loss, expected.backward(eager.closure), rtol=0, atol=1e-10)
        assert_close(method.last.perturbations, expected.last.perturbations, rtol=0, atol=1e-10)
        actual = {key: parameter.grad for key, parameter in network.module.named_parameters()}
        assert_close(actual, {key: p.grad for key, p in eager.module.named_parameters()}, rtol=0, atol=1e-10)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # something was compiled at all


def test_plain_passes_do_not_recompile_between_steps():
    # Evaluation and training steps alternate: both versions stay compiled.
    network = build("cnn")
    compiled = torch.compile(network.module, backend="aot_eager")
    method = DropAttack(compiled, inputs="norm", weights=("conv.weight",), epsilon=0.7)

    def closure():
        return nn.functional.cross_entropy(compiled(network.inputs), network.targets)

    for step in range(4):
        with torch._dynamo.config.patch(error_on_recompile=step >= 2):
            method.backward(closure)
            loss = closure()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert_close(loss, network.closure(), rtol=0, atol=1e-10)
