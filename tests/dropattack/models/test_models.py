"""All networks of the paper: sizes, attacks, curvature, options; and the two for images."""

import copy
import itertools

import numpy as np
import pytest
import torch
from paper_networks import CLASSES, IMAGE, LABELS, TEXT, TOKENS, image_network, images_for, text_network
from torch import nn
from torch.testing import assert_close

import landscape
from dropattack import DropAttack
from dropattack.methods import build_method
from dropattack.models import MODELS, VGG16, LeNet5, build_model
from dropattack.models.convolution import FirstConv2d
from dropattack.models.vgg import BLOCKS
from dropattack.models.width import scaled


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def recurrent(gates, inputs, states):
    """Parameters of one layer in one direction: two matrices and PyTorch's two biases."""
    return gates * states * (inputs + states + 2)


def linear(inputs, outputs):
    return (inputs + 1) * outputs


WORDS = 1000 * 300
VGG_CHANNELS = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
PARAMETERS = {
    "lenet5": 26 * 6 + (150 + 1) * 16 + linear(400, 120) + linear(120, 84) + linear(84, 10),
    "vgg16": sum((9 * a + 1) * b + 2 * b for a, b in itertools.pairwise(VGG_CHANNELS))
    + linear(512, 4096)
    + linear(4096, 4096)
    + linear(4096, 10),
    "lstm": WORDS + recurrent(4, 300, 300) + linear(300, 2),
    "bigru": WORDS + 2 * recurrent(3, 300, 300) + linear(600, 2),
    "bilstm": WORDS + 2 * recurrent(4, 300, 300) + linear(600, 2),
    "bigru2": WORDS + 2 * recurrent(3, 300, 300) + 2 * recurrent(3, 600, 300) + linear(600, 4),
    "bilstm2": WORDS + 2 * recurrent(4, 300, 300) + 2 * recurrent(4, 600, 300) + linear(600, 4),
    "textcnn": WORDS + sum((300 * width + 1) * 100 for width in (3, 4, 5)) + linear(300, 2),
    "textrcnn": WORDS + 2 * recurrent(4, 300, 300) + linear(900, 300) + linear(300, 2),
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_at_the_dimensions_of_the_paper(name):
    text = {"vocabulary": 1000, "classes": 4 if name.endswith("2") else 2}
    assert count(build_model(name, **({} if name in IMAGE else text))) == PARAMETERS[name]


def workload(name, dtype=torch.float32, count=4):
    """A small network, its inputs and labels, and the names of the input and of a weight to attack."""
    if name in IMAGE:
        labels = torch.tensor([3, 1, 7, 7])[:count]
        return image_network(name).to(dtype), images_for(name, count).to(dtype), labels, "input", "conv1.weight"
    model = text_network(name, dtype)
    weight = next(key for key, value in model.named_parameters() if "embedding" not in key and value.ndim > 1)
    return model, TOKENS, LABELS, "embedding", weight


@pytest.mark.parametrize("name", MODELS)
def test_dropattack_reaches_input_and_weights_once(name):
    model, inputs, labels, site, weight = workload(name)
    before = copy.deepcopy(model.state_dict())
    method = DropAttack(model, inputs=site, weights=[weight], epsilon=0.5, attack_probability=0.7)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    method.backward(lambda: nn.functional.cross_entropy(model(inputs), labels))
    assert len(passes) == 3
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    for offset in method.last.perturbations.values():
        assert offset.any()
    for key, value in model.named_parameters():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", TEXT)
def test_padding_changes_no_attack(name):
    results = []
    for width in (0, 6):
        model, tokens, labels, site, weight = workload(name)
        generator = torch.Generator().manual_seed(3)
        method = DropAttack(model, inputs=site, weights=[weight], epsilon=0.5, generator=generator)
        padded = nn.functional.pad(tokens, (0, width))
        method.backward(lambda model=model, x=padded, y=labels: nn.functional.cross_entropy(model(x), y))
        results.append([parameter.grad for parameter in model.parameters()])
    assert_close(*results, atol=0, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_the_explicit_penalty_differentiates_twice(name):
    model, inputs, labels, site, weight = workload(name)
    method = build_method("explicit-penalty", model, inputs=site, weights=[weight], epsilon=0.1)
    method.backward(lambda: nn.functional.cross_entropy(model(inputs), labels))
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_curvature_in_single_precision_is_that_in_double(name):
    """float32 takes the fast kernels, float64 others: both second derivatives must be those of the same function."""
    found = []
    for dtype in (torch.float32, torch.float64):
        if name in IMAGE:
            model = image_network(name, width=0.05).to(dtype)
            batch = images_for(name, 3).to(dtype), torch.tensor([3, 1, 7])
        else:
            model, batch = text_network(name, dtype, embedding_size=3, hidden=3), (TOKENS, LABELS)
        risk = landscape.EmpiricalRisk(model.eval(), [batch])
        gradient = torch.cat([value.flatten() for value in risk.gradient().values()])
        found.append([landscape.hessian_eigenvalues(risk).eigenvalues[0], float(gradient.norm())])
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_unknown_options_are_errors(name):
    with pytest.raises(ValueError, match=f"unknown model option 'depth'; {name} has "):
        build_model(name, depth=3)


@pytest.mark.parametrize("name", TEXT)
def test_missing_options_are_errors(name):
    with pytest.raises(ValueError, match=f"model '{name}' needs vocabulary and classes, got hidden"):
        build_model(name, hidden=3)
    with pytest.raises(ValueError, match=f"model '{name}' needs classes, got vocabulary"):
        build_model(name, vocabulary=3)


@pytest.mark.parametrize("name", TEXT)
def test_the_smallest_network_works(name):
    model = build_model(name, vocabulary=2, classes=1, embedding_size=1, hidden=1)
    assert model(torch.ones(1, 1, dtype=torch.int64)).shape == (1, 1)
    assert text_network(name)(TOKENS).shape == (len(TOKENS), CLASSES)


def vgg_by_hand(model, images):
    """Configuration D written out, in evaluation mode of its BatchNorm layers or in training mode."""
    hidden = images
    for number in range(1, 14):
        conv, norm = model.get_submodule(f"conv{number}"), model.get_submodule(f"norm{number}")
        hidden = nn.functional.conv2d(hidden, conv.weight, conv.bias, padding=1)
        if model.training:
            mean, variance = hidden.mean((0, 2, 3)), hidden.var((0, 2, 3), correction=0)
        else:
            mean, variance = norm.running_mean, norm.running_var
        scale = norm.weight / (variance + norm.eps).sqrt()
        hidden = (hidden - mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
        hidden = hidden.clamp(min=0)
        if number in (2, 4, 7, 10, 13):
            n, channels, height, width = hidden.shape
            hidden = hidden.reshape(n, channels, height // 2, 2, width // 2, 2).amax((3, 5))
    hidden = hidden.reshape(len(images), -1)
    for layer in (model.fc1, model.fc2):
        hidden = (hidden @ layer.weight.T + layer.bias).clamp(min=0)
    return hidden @ model.fc3.weight.T + model.fc3.bias


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_vgg_is_configuration_d_with_batchnorm(training):
    model = image_network("vgg16").double()
    images = images_for("vgg16").double()
    model(images)  # moves the running statistics
    model.train(training)
    expected = vgg_by_hand(model, images)
    assert_close(model(images), expected)
    channels = [model.get_submodule(f"conv{number}").out_channels for number in range(1, 14)]
    assert channels == [scaled(width, 0.1) for width in VGG_CHANNELS[1:]]
    assert [c for block in BLOCKS for c in block] == VGG_CHANNELS[1:]


def test_batchnorm_keeps_its_statistics_through_an_attack():
    """Only the clean pass of a step moves them, and evaluation not at all."""
    model = image_network("vgg16")
    plain = copy.deepcopy(model)
    images, labels = images_for("vgg16"), torch.tensor([3, 1, 7, 7])
    method = DropAttack(model, inputs="input", weights=["norm8.weight"], epsilon=0.5)
    method.backward(lambda: nn.functional.cross_entropy(model(images), labels))
    plain(images)
    for (key, one), other in zip(model.named_buffers(), plain.buffers(), strict=True):
        assert_close(one, other, msg=key)
    before = copy.deepcopy(dict(model.named_buffers()))
    model.eval()(images)
    assert_close(dict(model.named_buffers()), before, atol=0, rtol=0)


@pytest.mark.parametrize("name", IMAGE)
def test_image_networks_copy_save_and_drop_out(name):
    model, other = image_network(name, dropout=0.5), image_network(name, seed=1)
    images = images_for(name)
    assert not torch.equal(model(images), model(images))
    other.load_state_dict(model.state_dict())
    for twin in (copy.deepcopy(model), other):
        assert_close(twin.eval()(images), model.eval()(images), atol=0, rtol=0)
    assert isinstance(model.conv1, FirstConv2d)
    assert isinstance(model.conv2, nn.Conv2d)


@pytest.mark.parametrize("name", IMAGE)
def test_dropout_stands_after_the_hidden_linear_layers(name):
    model = image_network(name)
    seen = []
    model.dropout.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    model(images_for(name))
    assert seen == [model.fc1.out_features, model.fc2.out_features]


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("network", [LeNet5, VGG16])
def test_widths_are_above_zero(network, width):
    with pytest.raises(ValueError, match=f"width: expected a finite number above 0, got {width}"):
        network(width=width)


def test_lenet_scales():
    assert count(LeNet5(width=2.0)) == 26 * 12 + (300 + 1) * 32 + linear(800, 240) + linear(240, 168) + linear(168, 10)
    assert LeNet5(width=0.01)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
