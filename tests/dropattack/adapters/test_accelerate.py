"""Accelerate needs no adapter: its ``backward`` and ``no_sync`` are handed over."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from by_hand import EPSILON, backward_fgm, gradients, loss_on, make_batches, make_model, weights
from torch.testing import assert_close

from dropattack.methods import FGM, L2, DropAttack, Standard

METHODS = {
    "standard": Standard,
    "fgm": lambda model: FGM(model, "embedding", epsilon=EPSILON),
    "dropattack": lambda model: DropAttack(model, "embedding", ("hidden.weight",), epsilon=EPSILON),
    "l2": lambda model: L2(model, 0.1),
}


@pytest.fixture(autouse=True)
def one_accelerator():
    """Accelerate shares its state between all accelerators of a process; each test begins without."""
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def train(accelerator, make_method, batches, around, *, learning_rate=0.5):
    """The loop of Accelerate's documentation; ``around`` says whether the method is built before or after wrapping."""
    model = make_model(dropout=0.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    method = make_method(model) if around == "raw" else None
    model, optimizer = accelerator.prepare(model, optimizer)
    method = method or make_method(model)
    torch.manual_seed(1)
    for batch in batches:
        with accelerator.accumulate(model):
            for _ in method.steps(
                lambda batch=batch: loss_on(model, batch),
                backward=accelerator.backward,
                no_sync=lambda: accelerator.no_sync(model),
            ):
                optimizer.step()
                optimizer.zero_grad()
    return weights(accelerator.unwrap_model(model))


def train_plainly(make_method, batches, every):
    model = make_model(dropout=0.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    method = make_method(model)
    torch.manual_seed(1)
    for number, batch in enumerate(batches, start=1):
        method.backward(lambda batch=batch: loss_on(model, batch), backward=lambda loss: (loss / every).backward())
        if number % every == 0:
            optimizer.step()
            optimizer.zero_grad()
    return weights(model)


@pytest.mark.parametrize("around", ["raw", "prepared"])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_weights_are_those_of_the_plain_loop(name, every, around):
    batches = make_batches(4)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=every)
    actual = train(accelerator, METHODS[name], batches, around)
    assert_close(actual, train_plainly(METHODS[name], batches, every), rtol=0, atol=0)


def test_gradient_of_fgm_is_that_of_plain_hooks():
    model, expected = make_model(), make_model()
    (batch,) = make_batches(1)
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(model)
    loss = FGM(model, "embedding", epsilon=EPSILON).backward(
        lambda: loss_on(model, batch), backward=accelerator.backward, no_sync=lambda: accelerator.no_sync(model)
    )
    assert_close(loss, backward_fgm(expected.embedding, lambda: loss_on(expected, batch)))
    assert_close(gradients(model), gradients(expected))


def test_mixed_precision_agrees_with_float32():
    # Accelerate sets `forward` on the instance, which an attack on the input stands in for.
    batches = make_batches(1, size=64)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    method = METHODS["fgm"]
    actual = train(accelerator, method, batches, "prepared")
    expected, start = train_plainly(method, batches, 1), weights(make_model())
    for name, weight in actual.items():
        change = expected[name] - start[name]
        assert (weight - expected[name]).norm() < 0.05 * change.norm(), name
    assert any((actual[name] != expected[name]).any() for name in actual)  # it did run in low precision
