"""Lightning Fabric needs no adapter: its ``backward`` and ``no_backward_sync`` are handed over."""

import pytest
import torch
from by_hand import EPSILON, backward_fgm, gradients, loss_on, make_batches, make_model
from lightning.fabric import Fabric
from torch.testing import assert_close

from dropattack.methods import FGM, L2, DropAttack, Standard

METHODS = {
    "standard": Standard,
    "fgm": lambda model: FGM(model, "embedding", epsilon=EPSILON),
    "dropattack": lambda model: DropAttack(model, "embedding", ("hidden.weight",), epsilon=EPSILON),
    "l2": lambda model: L2(model, 0.1),
}


def accumulated(make_method, batches, around, precision="32-true"):
    """Gradients of all batches together; the method is built on the user's module or on what Fabric makes of it."""
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    raw = make_model(dropout=0.3)
    optimizer = torch.optim.SGD(raw.parameters(), lr=0.5)
    model, _ = fabric.setup(raw, optimizer)
    method = make_method(raw if around == "raw" else model)
    torch.manual_seed(1)
    for index, batch in enumerate(batches):
        with fabric.no_backward_sync(model, enabled=index < len(batches) - 1):
            method.backward(
                lambda batch=batch: loss_on(model, batch),
                backward=lambda loss: fabric.backward(loss / len(batches)),
                no_sync=lambda: fabric.no_backward_sync(model),
            )
    return gradients(raw)


def accumulated_plainly(make_method, batches):
    model = make_model(dropout=0.3)
    method = make_method(model)
    torch.manual_seed(1)
    for batch in batches:
        method.backward(
            lambda batch=batch: loss_on(model, batch), backward=lambda loss: (loss / len(batches)).backward()
        )
    return gradients(model)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_gradient_is_that_of_the_plain_loop(name, count):
    batches = make_batches(count)
    actual = accumulated(METHODS[name], batches, "raw")
    assert_close(actual, accumulated_plainly(METHODS[name], batches), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["fgm", "dropattack"])
def test_method_on_the_wrapped_module(name):
    batches = make_batches(2)
    actual = accumulated(METHODS[name], batches, "wrapped")
    assert_close(actual, accumulated_plainly(METHODS[name], batches), rtol=0, atol=0)


def test_gradient_of_fgm_is_that_of_plain_hooks():
    fabric = Fabric(accelerator="cpu", devices=1)
    raw, expected = make_model(), make_model()
    model = fabric.setup(raw)
    (batch,) = make_batches(1)
    loss = FGM(raw, "embedding", epsilon=EPSILON).backward(lambda: loss_on(model, batch), backward=fabric.backward)
    assert_close(loss, backward_fgm(expected.embedding, lambda: loss_on(expected, batch)))
    assert_close(gradients(raw), gradients(expected))


def test_mixed_precision_agrees_with_float32():
    batches = make_batches(1, size=64)
    actual = accumulated(METHODS["fgm"], batches, "raw", precision="bf16-mixed")
    for name, expected in accumulated_plainly(METHODS["fgm"], batches).items():
        assert (actual[name] - expected).norm() < 0.05 * expected.norm(), name
        assert (actual[name] != expected).any()  # it did run in low precision
