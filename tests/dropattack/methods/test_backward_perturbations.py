"""Norms, support and randomness of the perturbations, where the gradient is zero, tiny, huge or not a number."""

import pytest
import torch
from networks import PADDING, WIDTH, build
from torch import nn
from torch.testing import assert_close

from dropattack.methods import DropAttack

EPSILON = 0.7


def run(network, closure=None, **options):
    options = {"attack_probability": 1.0, "epsilon": EPSILON, "batch_dim": network.batch_dim, **options}
    method = DropAttack(network.module, inputs=network.site, weights=network.weights, **options)
    method.backward(closure or network.closure)
    return method.last


def in_float32(network):
    network.module.float()
    return network


def example_norms(perturbation):
    return perturbation.flatten(1).norm(dim=1)


@pytest.mark.parametrize("seeds", [(1, 1), (1, 2)], ids=["same seed", "other seed"])
def test_generator_decides_the_masks(seeds):
    grads = []
    for seed in seeds:
        network = build("mlp")
        run(network, attack_probability=0.5, generator=torch.Generator().manual_seed(seed))
        grads.append(network.module.hidden.weight.grad)
    assert torch.equal(*grads) == (seeds[0] == seeds[1])


def test_masks_are_drawn_anew_at_each_step():
    network = build("mlp")
    method = DropAttack(network.module, inputs="embedding", weights=network.weights, epsilon=0.1)
    masks = []
    for _ in range(2):
        method.backward(network.closure)
        masks.append(method.last.masks)
    assert all(not torch.equal(masks[0][site], masks[1][site]) for site in masks[0])


@pytest.mark.parametrize("direction", ["gradient", "random"])
@pytest.mark.parametrize("option", [{}, {"mask_then_normalize": True}, {"relative_epsilon": True}], ids=str)
@pytest.mark.parametrize("why", ["loss times zero", "loss without the site"])
def test_zero_gradient_gives_no_perturbation(why, option, direction):
    network = build("mlp")

    def closure():
        loss = network.closure()
        return loss * 0 if why == "loss times zero" else network.module.decoder.bias.square().sum()

    record = run(network, closure, direction=direction, ascent_steps=2, **option)
    assert all(not perturbation.any() for perturbation in record.perturbations.values())
    # Clean + 2 attacks at an unchanged point; d(sum b^2)/db = 2b.
    expected = 3 * 2 * network.module.decoder.bias.detach() * (why == "loss without the site")
    assert_close(network.module.decoder.bias.grad, expected)


@pytest.mark.parametrize("direction", ["gradient", "random"])
def test_only_the_example_without_gradient_is_spared(direction):
    network = build("mlp")
    importance = torch.tensor([1.0, 2.0, 0.0, 3.0, 1.0], dtype=torch.float64)

    def closure():
        losses = nn.functional.cross_entropy(network.module(network.inputs), network.targets, reduction="none")
        return (importance * losses).sum()

    actual = example_norms(run(network, closure, direction=direction).perturbations["embedding"])
    assert_close(actual, EPSILON * (importance > 0).double())


@pytest.mark.parametrize("mask_then_normalize", [False, True])
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_broken_loss_gives_no_perturbation(factor, mask_then_normalize):
    network = build("mlp")
    record = run(network, lambda: network.closure() * factor, mask_then_normalize=mask_then_normalize)
    assert all(torch.equal(r, torch.zeros_like(r)) for r in record.perturbations.values())


def test_only_the_broken_example_is_spared():
    torch.manual_seed(0)
    model, x, y = nn.Linear(WIDTH, 3), torch.randn(5, WIDTH), torch.randint(3, (5,))
    x[2] = float("nan")
    method = DropAttack(model, inputs="input", epsilon=EPSILON, attack_probability=1)
    method.backward(lambda: nn.functional.cross_entropy(model(x), y))
    assert_close(example_norms(method.last.perturbations["input"]), EPSILON * torch.tensor([1.0, 1, 0, 1, 1]))


@pytest.mark.parametrize("weight_norm", ["tensor", "global"])
@pytest.mark.parametrize("factor", [1e-30, 1e25], ids=["squares vanish", "squares overflow"])
def test_extreme_gradients_give_the_usual_perturbation(factor, weight_norm):
    network = in_float32(build("mlp"))
    usual = run(network, network.closure, weight_norm=weight_norm).perturbations
    extreme = run(network, lambda: network.closure() * factor, weight_norm=weight_norm).perturbations
    assert_close(extreme, usual, rtol=1e-4, atol=1e-6)
    weights = [r.norm() for site, r in extreme.items() if site != "embedding"]
    joint = torch.stack(weights).norm() if weight_norm == "global" else weights[0]
    assert_close(joint, torch.tensor(EPSILON), rtol=1e-5, atol=0)
    assert_close(example_norms(extreme["embedding"]), torch.full((5,), EPSILON), rtol=1e-5, atol=0)


def test_random_direction_keeps_norm_and_support():
    random, plain = (run(build("mlp"), direction=d).perturbations for d in ("random", "gradient"))
    assert random.keys() == plain.keys()
    for site in random:
        assert_close(random[site].norm(), plain[site].norm())
        assert torch.equal(random[site] != 0, plain[site] != 0), site
        cosine = nn.functional.cosine_similarity(random[site].flatten(), plain[site].flatten(), dim=0)
        assert cosine.abs() < 0.9
    assert not random["embedding.weight"][PADDING].any()


def test_padded_positions_are_perturbed_at_the_output_but_not_in_the_table():
    # The activation at a padded position influences the loss; the table's padding row never gets a gradient.
    record, padded = run(build("mlp")), build("mlp").inputs == PADDING
    assert record.perturbations["embedding"][padded].any()
    assert not record.perturbations["embedding.weight"][PADDING].any()


def test_relative_epsilon_is_of_the_activation_before_later_layers_change_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
    x, y = torch.randn(5, WIDTH), torch.randint(3, (5,))
    method = DropAttack(model, inputs="0", epsilon=EPSILON, attack_probability=1, relative_epsilon=True)
    method.backward(lambda: nn.functional.cross_entropy(model(x), y))
    actual = example_norms(method.last.perturbations["0"])
    assert_close(actual, EPSILON * model[0](x).detach().norm(dim=1))


@pytest.mark.parametrize("factor", [1.0, 8.0], ids=["plain", "scaled"])
def test_recorded_gradient_norms_are_those_of_the_clean_gradient(factor):
    network, plain = build("mlp"), build("mlp")
    record = run(network, lambda: factor * network.closure(), clean_weight=0)
    plain.closure().backward()
    for name in network.weights:
        assert_close(record.gradient_norms[name], factor * plain.module.get_parameter(name).grad.norm())
    assert record.gradient_norms["embedding"].shape == (len(network.targets),)
