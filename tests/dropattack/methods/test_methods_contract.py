"""What every method of the registry keeps, whatever its gradient: the laws of ``Method.backward``."""

import dataclasses

import pytest
import torch
from cases import EVERY, starts_off_the_clean_point
from networks import WIDTH, build
from test_backward_contract import assert_unchanged, gradients, snapshot
from torch import nn
from torch.testing import assert_close

EXACT = {"rtol": 0, "atol": 1e-10}
every = pytest.mark.parametrize("case", EVERY)

# A second backward differs from the first, by what the method draws or carries.
GOES_ON = ("dropattack", "freeat", "looksam", "sparse", "rwp", "pgd from", "freelb", "vat", "r3f", "smart", "scheduled")
GOES_ON += ("explicit",)


@every
@pytest.mark.parametrize("name", ["mlp", "lstm", "cnn"])
def test_it_leaves_the_module_alone_and_counts_its_passes(case, name):
    network = build(name)
    expected = build(name)
    expected.module(expected.inputs)  # buffers: as one plain forward pass leaves them
    if starts_off_the_clean_point(EVERY[case](network)) and name == "cnn":
        pytest.skip("running statistics come from the start, which is no plain forward pass")
    before = {**snapshot(network.module), "values": dict(expected.module.state_dict())}
    method = EVERY[case](network)
    announced = method.cost
    forwards, backwards = [], []

    def count(_module, _args, logits):
        forwards.append(1)
        if logits.requires_grad:
            logits.register_hook(lambda _: backwards.append(1))

    handle = network.module.register_forward_hook(count)
    method.backward(network.closure)
    handle.remove()
    assert (len(forwards), len(backwards)) == (announced.forwards, announced.backwards)
    assert_unchanged(network.module, before)


@every
@pytest.mark.parametrize("during", ["forward", "backward"])
def test_an_exception_in_any_pass_leaves_everything_as_it_was(case, during):
    network = build("cnn")
    method = EVERY[case](network)
    passes = method.cost.forwards if during == "forward" else 1
    for failing in range(passes):
        before, random_state, carried = snapshot(network.module), torch.get_rng_state(), method.state_dict()
        seen = []

        def interrupt(seen=seen, failing=failing):
            seen.append(1)
            if len(seen) > failing:
                raise ArithmeticError("out of memory")

        def closure(interrupt=interrupt):
            loss = network.closure()
            if during == "forward":
                interrupt()
            return loss

        def backward(loss, interrupt=interrupt):
            loss.backward()
            if during == "backward":
                interrupt()

        with pytest.raises(ArithmeticError, match="out of memory"):
            method.backward(closure, backward=backward)
        assert_unchanged(network.module, before)
        assert all(parameter.requires_grad for parameter in network.module.parameters())
        assert torch.equal(torch.get_rng_state(), random_state)
        assert method.state_dict().keys() == carried.keys()
    method.backward(network.closure)  # and it works


@every
def test_micro_batches_accumulate(case):
    network = build("mlp")
    other = dataclasses.replace(network, inputs=network.inputs.flip(0), targets=network.targets.roll(1))
    separate = []
    for batch in (network, other):
        network.module.zero_grad()
        method = EVERY[case](network)
        if case.startswith(GOES_ON) and separate:
            method.backward(network.closure)  # what it draws or carries is then what it has in the second micro-batch
            network.module.zero_grad()
        method.backward(batch.closure)
        separate.append({n: g.clone() for n, g in gradients(network.module).items()})
    network.module.zero_grad()
    method = EVERY[case](network)
    for batch in (network, other):
        method.backward(batch.closure)
    total = {n: separate[0][n] + separate[1][n] for n in separate[0]}
    assert_close(gradients(network.module), total, **EXACT)


@every
def test_a_loss_without_a_gradient_gives_no_nan(case):
    network = build("mlp")
    method = EVERY[case](network)
    for _ in range(2):
        method.backward(lambda: network.closure() * 0.0)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(network.module).values())


@every
def test_a_constant_prediction_gives_no_nan(case):
    # The logits do not depend on the input: no direction anywhere, and divergences that are zero.
    network = build("mlp")
    with torch.no_grad():
        network.module.decoder.weight.zero_()
    EVERY[case](network).backward(network.closure)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(network.module).values())


@every
def test_a_loss_scale_scales_the_gradient_alone(case):
    network, scaled = build("lstm"), build("lstm")
    EVERY[case](network).backward(network.closure)
    EVERY[case](scaled).backward(scaled.closure, backward=lambda loss: (loss * 1024.0).backward())
    unscaled = {name: gradient / 1024 for name, gradient in gradients(scaled.module).items()}
    assert_close(unscaled, gradients(network.module), **EXACT)


@every
def test_a_scaler_skips_the_step_when_a_gradient_overflows(case):
    network = build("mlp")
    network.module.float()
    optimizer = torch.optim.SGD(network.module.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    method = EVERY[case](network)
    method.backward(lambda: 8 * network.closure(), backward=lambda loss: scaler.scale(loss).backward())
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())
    assert scaler.get_scale() == 2.0**126
    optimizer.zero_grad()
    scaler.update(1024.0)
    method.backward(network.closure, backward=lambda loss: scaler.scale(loss).backward())
    scaler.step(optimizer)
    after = network.module.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert not torch.equal(after["decoder.weight"], before["decoder.weight"])


@every
def test_the_global_random_stream_is_left_alone_and_repeats(case):
    results = []
    for seed in (1, 2):  # of the global stream, which no method draws from
        network = build("cnn")
        method = EVERY[case](network)
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        for _ in range(2):
            method.backward(network.closure)
        assert torch.equal(torch.get_rng_state(), state)
        results.append(gradients(network.module))
    assert_close(results[0], results[1], rtol=0, atol=0)


class NoisyMLP(nn.Module):
    """Dropout between two layers, and a count of the masks that were drawn."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(WIDTH, 32)
        self.dropout = nn.Dropout(0.5)
        self.decoder = nn.Linear(32, 3)
        self.masks = []

    def forward(self, x):
        kept = self.dropout(torch.ones(len(x), 32, dtype=x.dtype))
        self.masks.append(kept != 0)
        return self.decoder(torch.tanh(self.embedding(x)) * kept)


@every
def test_dropout_masks_are_the_same_in_every_pass(case):
    torch.manual_seed(0)
    model, x, y = NoisyMLP().double(), torch.randn(5, WIDTH, dtype=torch.float64), torch.randint(3, (5,))
    network = dataclasses.replace(build("mlp"), module=model, inputs=x, targets=y, weights=("embedding.weight",))
    method = EVERY[case](network)
    for _ in range(2):
        model.masks.clear()
        method.backward(network.closure)
        assert all(torch.equal(mask, model.masks[0]) for mask in model.masks)
    previous = model.masks[0]
    model.masks.clear()
    method.backward(network.closure)
    assert not torch.equal(model.masks[0], previous)  # and others in the next step


@every
def test_batch_statistics_count_each_batch_once(case):
    network, plain = build("cnn"), build("cnn")
    method = EVERY[case](network)
    if starts_off_the_clean_point(method):
        pytest.skip("running statistics come from the start, which is no plain forward pass")
    for n in (network, plain):
        n.module.norm.momentum = None  # the second update then depends on num_batches_tracked
    for _ in range(2):
        method.backward(network.closure)
        plain.closure()
    if "freeat" in case:  # the second replay is at the perturbed input
        assert network.module.norm.num_batches_tracked == 2
        return
    for (name, actual), (_, expected) in zip(network.module.named_buffers(), plain.module.named_buffers(), strict=True):
        assert torch.equal(actual, expected), name


@every
def test_autocast_agrees_with_float32(case):
    if case.startswith("vat"):
        pytest.skip("at xi = 0.01 the divergence is below what bfloat16 resolves; the docstring says so")
    results = []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 3))
        x, y = torch.randn(32, 16), torch.randint(3, (32,))
        network = dataclasses.replace(
            build("mlp"), module=model, inputs=x, targets=y, site="0", weights=("0.weight", "2.weight")
        )

        def closure(model=model, x=x, y=y, enabled=enabled):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                return nn.functional.cross_entropy(model(x).float(), y)

        EVERY[case](network).backward(closure)
        results.append(gradients(model))
    for name, exact in results[0].items():
        assert results[1][name].dtype == torch.float32
        assert (results[1][name] - exact).norm() < 0.1 * exact.norm(), name


@every
def test_what_it_carries_comes_back(case):
    one, other = build("lstm"), build("lstm")
    method = EVERY[case](one)
    for _ in range(2):
        method.backward(one.closure)
    resumed = EVERY[case](other)
    resumed.load_state_dict({name: tensor.clone() for name, tensor in method.state_dict().items()})
    one.module.zero_grad()
    method.backward(one.closure)
    resumed.backward(other.closure)
    assert_close(gradients(other.module), gradients(one.module), rtol=0, atol=0)
    method.backward(one.closure)
    resumed.backward(other.closure)
    assert_close(gradients(other.module), gradients(one.module), rtol=0, atol=0)
