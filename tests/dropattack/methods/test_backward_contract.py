"""What backward leaves behind besides the gradient: nothing, whatever happens."""

import copy
import dataclasses

import pytest
import torch
from networks import BUILDERS, WIDTH, build
from points import SITE, clean_point
from reference import dropattack
from torch import nn
from torch.testing import assert_close

from dropattack.methods import DropAttack


def build_method(network, **options):
    options = {"epsilon": 0.7, "attack_probability": 1.0, "batch_dim": network.batch_dim, **options}
    return DropAttack(network.module, inputs=network.site, weights=network.weights, **options)


def gradients(module):
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


def plain_gradients(network):
    module = copy.deepcopy(network.module)
    module.zero_grad()
    dataclasses.replace(network, module=module).closure().backward()
    return gradients(module)


def snapshot(module):
    """Everything but ``.grad`` that backward must leave as it was."""
    tensors = [*module.parameters(), *module.buffers()]
    return {
        "values": {name: value.clone() for name, value in module.state_dict().items()},
        "storage": [(id(tensor), tensor.data_ptr(), tensor.requires_grad) for tensor in tensors],
        "training": [child.training for child in module.modules()],
        "attributes": [sorted(child.__dict__) for child in module.modules()],
        "hooks": [len(child._forward_hooks) + len(child._forward_pre_hooks) for child in module.modules()],
    }


def assert_unchanged(module, before):
    after = snapshot(module)
    for name, value in before.pop("values").items():
        assert torch.equal(after["values"][name], value), name
    after.pop("values")
    assert after == before
    assert not any("forward" in child.__dict__ for child in module.modules())


@pytest.mark.parametrize("name", BUILDERS)
def test_epsilon_zero_repeats_the_clean_gradient_exactly(name):
    # 1 clean pass + 2 attacks at the clean point: g + g is exact, and (2g) + g rounds 3g once, as 3 * g does.
    network = build(name)
    plain = plain_gradients(network)
    build_method(network, epsilon=0.0).backward(network.closure)
    actual = gradients(network.module)
    assert actual.keys() == plain.keys()
    assert all(torch.equal(actual[key], 3 * plain[key]) for key in plain)


@pytest.mark.parametrize("clean_weight", [0, 1])
@pytest.mark.parametrize("name", BUILDERS)
def test_module_is_unchanged(name, clean_weight):
    network = build(name)
    network.module.decoder.eval()
    expected = copy.deepcopy(network.module)
    expected(network.inputs)  # buffers: as one plain forward pass leaves them
    before = {**snapshot(network.module), "values": snapshot(expected)["values"]}
    build_method(network, ascent_steps=2, clean_weight=clean_weight).backward(network.closure)
    assert_unchanged(network.module, before)


class InterruptedStepError(Exception):
    """Raised by the test in the middle of a step."""


@pytest.mark.parametrize("during", ["forward", "backward"])
@pytest.mark.parametrize("failing_pass", [0, 1, 2])
def test_module_is_unchanged_when_a_pass_raises(failing_pass, during):
    network = build("cnn")
    network.module.decoder.eval()
    method = build_method(network)
    passes = {"forward": 0, "backward": 0}

    def interrupt(kind):
        passes[kind] += 1
        if kind == during and passes[kind] == failing_pass + 1:
            raise InterruptedStepError(kind)

    def closure():
        loss = network.closure()
        interrupt("forward")
        return loss

    def backward(loss):
        loss.backward()
        interrupt("backward")

    before, random_state = snapshot(network.module), torch.get_rng_state()
    with pytest.raises(InterruptedStepError, match=during):
        method.backward(closure, backward=backward)
    assert_unchanged(network.module, before)
    assert torch.equal(torch.get_rng_state(), random_state)

    network.module.zero_grad()
    method.backward(network.closure)
    fresh = build("cnn")
    build_method(fresh).backward(fresh.closure)
    assert_close(gradients(network.module), gradients(fresh.module), rtol=0, atol=0)


def test_frozen_parameters_keep_no_gradient():
    network = build("frozen_mlp")
    build_method(network, ascent_steps=2).backward(network.closure)
    assert gradients(network.module).keys() == {"hidden.weight", "hidden.bias", "decoder.weight"}


@pytest.mark.parametrize("clean_weight", [0, 1, 2])
@pytest.mark.parametrize("name", ["mlp", "tied_mlp", "lstm"])
def test_micro_batches_accumulate(name, clean_weight):
    first = build(name)
    inputs, targets = first.inputs.flip(1).roll(1, 0), first.targets.roll(2)
    second = dataclasses.replace(first, inputs=inputs, targets=targets)
    masks = {key: torch.ones_like(value) for key, value in clean_point(first).items()}
    options = {"epsilon": 0.7, "ascent_steps": 2, "clean_weight": clean_weight}
    expected = [
        dropattack(network, masks, inputs=SITE, weights=network.weights, **options).gradient
        for network in (first, second)
    ]
    method = build_method(first, **options)
    method.backward(first.closure)
    method.backward(second.closure)
    total = {key: expected[0][key] + expected[1][key] for key in expected[0]}
    assert_close(gradients(first.module), total, rtol=0, atol=1e-10)


@pytest.mark.parametrize("clean_weight", [0, 1])
def test_direction_ignores_what_grad_held_before(clean_weight):
    network, fresh = build("mlp"), build("mlp")
    for parameter in network.module.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    holders = [parameter.grad for parameter in network.module.parameters()]
    method, expected = (build_method(n, ascent_steps=2, clean_weight=clean_weight) for n in (network, fresh))
    method.backward(network.closure)
    expected.backward(fresh.closure)
    assert_close(method.last.perturbations, expected.last.perturbations, rtol=0, atol=1e-12)
    # 1e6 has a float64 spacing of 1.2e-10, lost at each of the five additions.
    gained = {name: gradient - 1e6 for name, gradient in gradients(network.module).items()}
    assert_close(gained, gradients(fresh.module), rtol=0, atol=1e-9)
    assert all(p.grad is held for p, held in zip(network.module.parameters(), holders, strict=True))


@pytest.mark.parametrize("ascent_steps", [1, 3])
@pytest.mark.parametrize("attacks", [("inputs",), ("weights",), ("inputs", "weights")], ids="+".join)
def test_cost_counts_the_passes_that_are_run(attacks, ascent_steps):
    network = build("mlp")
    options = {"inputs": network.site, "weights": network.weights}
    method = DropAttack(
        network.module, **{a: options[a] for a in attacks}, epsilon=0.1, ascent_steps=ascent_steps, clean_weight=0
    )
    forwards, backwards = [], []

    def count(_module, _args, logits):
        forwards.append(1)
        logits.register_hook(lambda _: backwards.append(1))

    network.module.register_forward_hook(count)
    method.backward(network.closure)
    assert (len(forwards), len(backwards)) == (method.cost.forwards, method.cost.backwards)
    assert method.cost.forwards == 1 + ascent_steps * len(attacks)


@pytest.mark.parametrize("momentum", [0.1, None], ids=["exponential average", "plain average"])
def test_batch_statistics_count_each_batch_once(momentum):
    network, plain = build("cnn"), build("cnn")
    method = build_method(network, ascent_steps=2)
    for n in (network, plain):
        n.module.norm.momentum = momentum
    for _ in range(2):  # with momentum None the second update depends on num_batches_tracked
        method.backward(network.closure)
        plain.closure()
    assert network.module.norm.num_batches_tracked == 2
    for (name, actual), (_, expected) in zip(network.module.named_buffers(), plain.module.named_buffers(), strict=True):
        assert torch.equal(actual, expected), name


class RunningMean(nn.Module):
    """Rebinds its buffer instead of changing it in place, as much hand-written code does."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(WIDTH, 3)
        self.register_buffer("center", torch.zeros(WIDTH))

    def forward(self, x):
        self.center = 0.5 * self.center + 0.5 * x.detach().mean(0)
        return self.decoder(x - self.center)


def test_a_buffer_that_is_rebound_is_updated_once():
    torch.manual_seed(0)
    model, x, y = RunningMean(), torch.randn(5, WIDTH), torch.randint(3, (5,))
    method = DropAttack(model, weights=("decoder.weight",), epsilon=0.5, ascent_steps=2)
    method.backward(lambda: nn.functional.cross_entropy(model(x), y))
    assert_close(model.center, 0.5 * x.mean(0))


@pytest.mark.parametrize("direction", ["gradient", "random"])
def test_dropout_is_the_same_in_every_pass(direction):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 32), nn.Dropout(0.5), nn.Linear(32, 3))
    x, y = torch.randn(5, WIDTH), torch.randint(3, (5,))
    start = torch.get_rng_state()
    nn.functional.cross_entropy(model(x), y).backward()
    plain, end = gradients(model), torch.get_rng_state()

    model.zero_grad()
    torch.set_rng_state(start)
    method = DropAttack(
        model, inputs="input", weights=("0.*",), epsilon=0.0, attack_probability=0.5, direction=direction
    )
    method.backward(lambda: nn.functional.cross_entropy(model(x), y))
    actual = gradients(model)
    assert all(torch.equal(actual[name], 3 * plain[name]) for name in plain)
    # One plain forward pass drew one dropout mask; attack masks and random directions have their own generator.
    assert torch.equal(torch.get_rng_state(), end)


CLOSURES = {
    "per-example losses": (lambda loss: loss.expand(5), "expected a scalar loss, got shape"),
    "a number": (lambda loss: loss.item(), "expected the loss as a tensor, got float"),
    "nothing": (lambda loss: None, "expected the loss as a tensor, got NoneType"),
    "no graph": (lambda loss: loss.detach(), "the loss has no graph"),
}


@pytest.mark.parametrize(("spoil", "message"), CLOSURES.values(), ids=CLOSURES)
def test_closure_must_return_a_scalar_with_a_graph(spoil, message):
    network = build("mlp")
    before = snapshot(network.module)
    with pytest.raises(TypeError, match=message):
        build_method(network).backward(lambda: spoil(network.closure()))
    assert_unchanged(network.module, before)


def test_site_must_be_reached():
    network = build("mlp")
    other = dataclasses.replace(network, module=copy.deepcopy(network.module))
    with pytest.raises(RuntimeError, match="site 'embedding' was not reached"):
        build_method(network).backward(other.closure)


def test_site_must_be_reached_only_once():
    network = build("mlp")
    before = snapshot(network.module)
    with pytest.raises(RuntimeError, match="site 'embedding' was reached 2 times"):
        build_method(network).backward(lambda: network.closure() + network.closure())
    assert_unchanged(network.module, before)


def test_a_weight_may_be_reached_twice():
    # Two identical halves: every gradient doubles, every unit direction stays, so .grad doubles.
    once, twice = build("mlp"), build("mlp")
    for network, closure in ((once, once.closure), (twice, lambda: twice.closure() + twice.closure())):
        DropAttack(network.module, weights=network.weights, epsilon=0.7, attack_probability=1).backward(closure)
    doubled = {name: 2 * gradient for name, gradient in gradients(once.module).items()}
    assert_close(gradients(twice.module), doubled, rtol=0, atol=1e-12)
