"""Mistaken arguments are refused when the method is built, with a message that says what to do."""

import pytest
import torch
from networks import build

from dropattack.methods import METHODS, DropAttack, Standard, build_method

MISTAKES = {
    "misspelled site": ({"inputs": "embeding"}, ValueError, "unknown site 'embeding'.*EmbeddingMLP has embedding"),
    "misspelled parameter": ({"weights": ("hiden.weight",)}, ValueError, "unknown parameter.*has hidden.weight"),
    "pattern without a match": ({"weights": ("hidden.*", "lstm.*")}, ValueError, r"unknown parameter 'lstm\.\*'"),
    "frozen weight": ({"weights": ("decoder.bias",)}, ValueError, "only frozen parameters"),
    "frozen weights by pattern": ({"weights": ("embed*",)}, ValueError, "only frozen parameters"),
    "frozen weight as the input": ({"inputs": "embedding.weight"}, ValueError, "frozen"),
    "probability above 1": ({"attack_probability": 1.1}, ValueError, "attack_probability: .*got 1.1"),
    "probability below 0": ({"attack_probability": -0.1}, ValueError, "attack_probability: .*got -0.1"),
    "probability not a number": ({"attack_probability": float("nan")}, ValueError, "attack_probability: .*got nan"),
    "probability of weights": (
        {"weights": ("hidden.*",), "attack_probability_weights": 2},
        ValueError,
        "attack_probability_weights: .*got 2",
    ),
    "negative epsilon": ({"epsilon": -1}, ValueError, "epsilon: .*got -1"),
    "epsilon not a number": ({"epsilon": float("nan")}, ValueError, "epsilon: .*got nan"),
    "infinite epsilon": ({"epsilon": float("inf")}, ValueError, "epsilon: .*got inf"),
    "negative epsilon of weights": (
        {"weights": ("hidden.*",), "epsilon_weights": -1},
        ValueError,
        "epsilon_weights: .*got -1",
    ),
    "no ascent": ({"ascent_steps": 0}, ValueError, "ascent_steps: .*got 0"),
    "half an ascent": ({"ascent_steps": 1.5}, ValueError, "ascent_steps: .*got 1.5"),
    "negative clean weight": ({"clean_weight": -1}, ValueError, "clean_weight: .*got -1"),
    "nothing to attack": ({"inputs": None}, ValueError, "nothing to attack"),
    "unknown input_norm": ({"input_norm": "batch"}, ValueError, "input_norm: expected one of 'example', 'tensor'"),
    "unknown weight_norm": ({"weight_norm": "row"}, ValueError, "weight_norm: expected one of 'tensor', 'global'"),
    "unknown direction": ({"direction": "sign"}, ValueError, "direction: expected one of 'gradient', 'random'"),
    "unknown reduction": ({"reduction": "none"}, ValueError, "reduction: expected one of 'sum', 'mean'"),
    "one weight in both attacks": (
        {"inputs": "hidden.weight", "weights": ("hidden.weight",)},
        ValueError,
        "'hidden.weight' is attacked both",
    ),
    "string for weights": ({"weights": "hidden.weight"}, TypeError, "weights: expected a sequence of names"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_explained(arguments, error, message):
    with pytest.raises(error, match=message):
        DropAttack(build("frozen_mlp").module, **{"inputs": "embedding", **arguments})


def test_one_tied_weight_under_two_names_is_one_weight():
    module = build("tied_mlp").module
    with pytest.raises(ValueError, match="is attacked both"):
        DropAttack(module, inputs="embedding.weight", weights=("decoder.weight",))


def test_overlapping_patterns_attack_each_weight_once():
    network = build("mlp")
    method = DropAttack(network.module, weights=("hidden.*", "*.weight"))
    method.backward(network.closure)
    assert list(method.last.masks) == ["embedding.weight", "hidden.weight", "hidden.bias", "decoder.weight"]


def test_patterns_skip_frozen_parameters():
    network = build("frozen_mlp")
    method = DropAttack(network.module, weights=("*",))
    method.backward(network.closure)
    assert list(method.last.masks) == ["hidden.weight", "hidden.bias", "decoder.weight"]


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("dropatack", {}, "unknown method 'dropatack'; known: dropattack"),
        ("dropattack", {"epsilom": 1}, "unknown hyperparameter 'epsilom'; dropattack has epsilon"),
        ("standard", {"epsilon": 1}, "unknown hyperparameter 'epsilon'; standard has none"),
    ],
    ids=["method", "hyperparameter", "hyperparameter of another method"],
)
def test_build_method_names_the_nearest(name, hyperparameters, message):
    module = build("mlp").module
    with pytest.raises(ValueError, match=message):
        build_method(name, module, **hyperparameters)


def test_build_method_passes_hyperparameters_on():
    module = build("mlp").module
    assert isinstance(build_method("standard", module), Standard)
    method = build_method("dropattack", module, inputs="embedding", ascent_steps=4)
    assert isinstance(method, METHODS["dropattack"])
    assert method.cost.forwards == 5


def test_standard_is_the_plain_gradient():
    network, plain = build("cnn"), build("cnn")
    method = Standard(network.module)
    loss = method.backward(network.closure)
    expected = plain.closure()
    expected.backward()
    assert torch.equal(loss, expected)
    assert all(
        torch.equal(p.grad, q.grad) for p, q in zip(network.module.parameters(), plain.module.parameters(), strict=True)
    )
    assert all(torch.equal(b, c) for b, c in zip(network.module.buffers(), plain.module.buffers(), strict=True))
    assert (method.cost.forwards, method.cost.backwards) == (1, 1)
