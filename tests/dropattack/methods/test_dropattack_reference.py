"""DropAttack.backward against an independent float64 reference, for every network and every option."""

import pytest
import torch
from networks import BUILDERS, build
from points import SITE
from reference import dropattack
from torch.testing import assert_close

from dropattack.methods import DropAttack

EXACT = {"rtol": 0, "atol": 1e-10}


def compare(name, *, inputs=True, weights=True, attack_probability=1.0, attack_probability_weights=None, **options):
    """Run both on the same batch; ``inputs`` is True for the network's own site, or the name of a parameter."""
    network = build(name)
    where = network.site if inputs is True else inputs or None
    names = network.weights if weights is True else weights or ()
    options = {"epsilon": 0.7, "batch_dim": network.batch_dim, **options}
    generator = torch.Generator().manual_seed(1)
    method = DropAttack(
        network.module,
        inputs=where,
        weights=names,
        attack_probability=attack_probability,
        attack_probability_weights=attack_probability_weights,
        generator=generator,
        **options,
    )
    loss = method.backward(network.closure)

    variables = {SITE if site == network.site else site: site for site in method.last.masks}
    expected = dropattack(
        network,
        {variable: method.last.masks[site] for variable, site in variables.items()},
        inputs=SITE if where == network.site else where,
        weights=names,
        **options,
    )
    assert_close(loss, expected.clean_loss, **EXACT)
    assert_close(method.last.clean_loss, expected.clean_loss, **EXACT)
    assert_close(method.last.adversarial_losses, expected.adversarial_losses, **EXACT)
    perturbations = {variable: method.last.perturbations[site] for variable, site in variables.items()}
    assert_close(perturbations, expected.perturbations, **EXACT)
    trained = {n: p.grad for n, p in network.module.named_parameters() if p.requires_grad}
    assert_close(trained, {n: expected.gradient[n] for n in trained}, **EXACT)
    return method


@pytest.mark.parametrize("name", BUILDERS)
def test_equations_agree_with_the_module(name):
    network = build(name)
    p = network.parameters()
    by_hand = network.logits(p, network.activation(p, network.inputs))
    assert_close(by_hand, network.module(network.inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("attack_probability", [1.0, 0.5])
@pytest.mark.parametrize("ascent_steps", [1, 2, 3])
@pytest.mark.parametrize(
    ("inputs", "weights"), [(True, False), (False, True), (True, True)], ids=["inputs", "weights", "both"]
)
@pytest.mark.parametrize("name", BUILDERS)
def test_every_network(name, inputs, weights, ascent_steps, attack_probability):
    compare(name, inputs=inputs, weights=weights, ascent_steps=ascent_steps, attack_probability=attack_probability)


OPTIONS = {
    "no clean gradient": {"clean_weight": 0},
    "no clean gradient, weights only": {"clean_weight": 0, "inputs": False},
    "double clean gradient": {"clean_weight": 2},
    "mask then normalize": {"mask_then_normalize": True},
    "accumulate": {"accumulate": True, "ascent_steps": 3},
    "one norm for the batch": {"input_norm": "tensor"},
    "one norm for the weights": {"weight_norm": "global"},
    "one norm for the masked weights": {"weight_norm": "global", "mask_then_normalize": True},
    "relative": {"relative_epsilon": True},
    "relative, one step": {"relative_epsilon": True, "ascent_steps": 1},
    "relative, weights only": {"relative_epsilon": True, "inputs": False},
    "relative, one norm for all": {"relative_epsilon": True, "input_norm": "tensor", "weight_norm": "global"},
    "relative, accumulated": {"relative_epsilon": True, "accumulate": True},
    "mean": {"reduction": "mean"},
    "mean without clean gradient": {"reduction": "mean", "clean_weight": 0},
    "mean of one attack and a double clean gradient": {"reduction": "mean", "clean_weight": 2, "weights": False},
    "another epsilon for weights": {"epsilon_weights": 0.1},
    "no perturbation of the weights": {"epsilon_weights": 0.0},
    "another probability for weights": {"attack_probability_weights": 0.9},
    "everything": {
        "clean_weight": 0.5,
        "mask_then_normalize": True,
        "accumulate": True,
        "ascent_steps": 3,
        "weight_norm": "global",
        "relative_epsilon": True,
        "reduction": "mean",
        "epsilon_weights": 0.2,
    },
}


@pytest.mark.parametrize("name", ["tied_mlp", "time_major_gru"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_option(name, options):
    compare(name, **{"ascent_steps": 2, "attack_probability": 0.5, **options})


@pytest.mark.parametrize("weights", [False, ("hidden.weight",)], ids=["alone", "beside another weight"])
@pytest.mark.parametrize("input_norm", ["example", "tensor"])
@pytest.mark.parametrize("name", ["mlp", "tied_mlp"])
def test_a_parameter_as_the_input_is_normalized_as_a_whole(name, input_norm, weights):
    compare(
        name, inputs="embedding.weight", weights=weights, input_norm=input_norm, attack_probability=0.5, ascent_steps=2
    )


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [((1.0, None), (1, 1)), ((1.0, 0.0), (1, 0)), ((0.0, 1.0), (0, 1)), ((0.0, None), (0, 0))],
    ids=["shared", "inputs only", "weights only", "none"],
)
def test_mask_follows_its_own_probability(probabilities, expected):
    method = compare("mlp", attack_probability=probabilities[0], attack_probability_weights=probabilities[1])
    shares = {site: mask.double().mean().item() for site, mask in method.last.masks.items()}
    assert shares == {"embedding": expected[0], "hidden.weight": expected[1], "embedding.weight": expected[1]}


def test_mask_keeps_the_given_share_of_elements():
    # 120 + 16 + 28 independent draws at p = 0.25: mean 41, standard deviation sqrt(164 * 0.25 * 0.75) = 5.5.
    method = compare("mlp", attack_probability=0.25)
    assert abs(sum(int(mask.sum()) for mask in method.last.masks.values()) - 41) < 4 * 5.5
