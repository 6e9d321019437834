"""Loss scaling, autocast and activation checkpointing change nothing but rounding."""

import contextlib

import pytest
import torch
from networks import WIDTH, build
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from dropattack.methods import DropAttack

EPSILON = 0.7


def method_for(network, **options):
    return DropAttack(
        network.module, inputs=network.site, weights=network.weights, epsilon=EPSILON, attack_probability=1, **options
    )


def gradients(module):
    return {name: parameter.grad for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("options", [{}, {"clean_weight": 0}, {"reduction": "mean", "ascent_steps": 2}], ids=str)
def test_loss_scaling_scales_the_gradient_and_not_the_perturbation(options):
    scaled, plain = build("mlp"), build("mlp")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    optimizer = torch.optim.SGD(scaled.module.parameters(), lr=0.1)
    method, expected = method_for(scaled, **options), method_for(plain, **options)
    loss = method.backward(scaled.closure, backward=lambda loss: scaler.scale(loss).backward())
    assert scaled.module.decoder.bias.grad.norm() > 2**8  # still multiplied by 2^16
    scaler.unscale_(optimizer)
    assert_close(loss, expected.backward(plain.closure))
    assert_close(method.last.perturbations, expected.last.perturbations)
    assert_close(gradients(scaled.module), gradients(plain.module))


AUTOCAST = {
    "off": (False, False),
    "in the closure": (True, False),
    "around backward": (False, True),
    "both": (True, True),
}


def run_wide(in_closure, around_backward):
    """Wide enough that the 8 bits of a bfloat16 average out."""

    def autocast(wanted):
        return torch.autocast("cpu", dtype=torch.bfloat16) if wanted else contextlib.nullcontext()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 3))
    x, y = torch.randn(32, 16), torch.randint(3, (32,))
    method = DropAttack(model, inputs="1", weights=("*.weight",), epsilon=EPSILON, attack_probability=1)

    def closure():
        with autocast(in_closure):
            return nn.functional.cross_entropy(model(x).float(), y)

    with autocast(around_backward):
        method.backward(closure)
    return model, method.last


@pytest.mark.parametrize("where", [name for name in AUTOCAST if name != "off"])
def test_autocast_agrees_with_float32(where):
    # Autocast keeps its bfloat16 copies of the weights until the outermost block ends: around backward, that is
    # longer than a pass, and a copy made before an attack must not be used in it.
    model, record = run_wide(*AUTOCAST[where])
    expected, exact = run_wide(*AUTOCAST["off"])
    assert record.perturbations["1"].dtype == torch.bfloat16  # the network did run in low precision
    for site, perturbation in record.perturbations.items():
        norm = perturbation.float().flatten(1).norm(dim=1) if site == "1" else perturbation.norm()
        # Two roundings to bfloat16, 2^-9 of an entry each: the direction, and epsilon times it.
        assert_close(norm, torch.full_like(norm, EPSILON), rtol=2**-8, atol=0)
    for attack, losses in exact.adversarial_losses.items():
        gain = losses[0] - exact.clean_loss
        assert gain > 0.1
        assert_close(record.adversarial_losses[attack][0] - record.clean_loss, gain, rtol=0.1, atol=0)
    reference = gradients(expected)
    for name, gradient in gradients(model).items():
        assert torch.isfinite(gradient).all()
        assert (gradient - reference[name]).norm() < 0.05 * reference[name].norm(), name


class Checkpointed(nn.Module):
    """The attacked module lies inside a segment that is run again in the backward pass."""

    def __init__(self, use_reentrant):
        super().__init__()
        self.use_reentrant = use_reentrant
        self.before = nn.Linear(WIDTH, WIDTH)
        self.attacked = nn.Linear(WIDTH, WIDTH)
        self.decoder = nn.Linear(WIDTH, 3)

    def segment(self, x):
        return torch.tanh(self.attacked(torch.tanh(x)))

    def forward(self, x):
        x = self.before(x)
        if self.use_reentrant is None:
            return self.decoder(self.segment(x))
        return self.decoder(checkpoint(self.segment, x, use_reentrant=self.use_reentrant))


@pytest.mark.parametrize("relative_epsilon", [False, True], ids=["absolute", "relative"])
@pytest.mark.parametrize("use_reentrant", [False, True], ids=["saved-tensor hooks", "reentrant"])
def test_checkpointing_gives_the_same_gradient(use_reentrant, relative_epsilon):
    results = []
    for choice in (None, use_reentrant):
        torch.manual_seed(0)
        model, x, y = Checkpointed(choice), torch.randn(5, WIDTH), torch.randint(3, (5,))
        method = DropAttack(
            model,
            inputs="attacked",
            weights=("attacked.weight",),
            epsilon=EPSILON,
            attack_probability=1,
            ascent_steps=2,
            relative_epsilon=relative_epsilon,
        )
        method.backward(lambda model=model, x=x, y=y: nn.functional.cross_entropy(model(x), y))
        results.append((gradients(model), method.last.perturbations))
    assert_close(results[1], results[0])
