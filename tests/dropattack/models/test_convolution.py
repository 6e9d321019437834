"""The first convolution against ``nn.Conv2d``: the same layer, whoever computes its gradients."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dropattack.models.convolution import FirstConv2d

GEOMETRIES = {
    "as in LeNet-5": {"in_channels": 1, "out_channels": 6, "kernel_size": 5, "padding": 2},
    "oblong": {"in_channels": 2, "out_channels": 5, "kernel_size": (2, 5), "padding": (1, 0)},
    "padded beyond the kernel": {"in_channels": 1, "out_channels": 3, "kernel_size": 2, "padding": 3},
    "many channels": {"in_channels": 1, "out_channels": 16, "kernel_size": 3, "padding": 1},
    "as in VGG": {"in_channels": 3, "out_channels": 8, "kernel_size": 3, "padding": 1},
    "strided, dilated": {"in_channels": 2, "out_channels": 4, "kernel_size": 3, "stride": 2, "dilation": 2},
    "grouped": {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "groups": 2},
    "without a bias": {"in_channels": 1, "out_channels": 3, "kernel_size": (3, 5), "bias": False},
    "padded by its name": {"in_channels": 1, "out_channels": 3, "kernel_size": 3, "padding": "same"},
    "reflected": {"in_channels": 1, "out_channels": 3, "kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
}


def pair(geometry, dtype):
    torch.manual_seed(0)
    ours = FirstConv2d(**GEOMETRIES[geometry], dtype=dtype)
    plain = nn.Conv2d(**GEOMETRIES[geometry], dtype=dtype)
    plain.load_state_dict(ours.state_dict())
    images = torch.randn(3, ours.in_channels, 11, 12, dtype=dtype)
    return ours, plain, images


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_outputs_and_gradients_are_those_of_a_convolution(geometry, dtype, frozen):
    ours, plain, images = pair(geometry, dtype)
    results = []
    for layer in (ours, plain):
        layer.requires_grad_(not frozen)
        attacked = images.clone().requires_grad_()
        output = layer(attacked)
        (output.cos() * output).sum().backward()
        results.append([output.detach(), attacked.grad, *(parameter.grad for parameter in layer.parameters())])
    for one, other in zip(*results, strict=True):
        assert_close(one, other)
    assert (results[0][2] is None) == frozen


@pytest.mark.parametrize("geometry", ["as in LeNet-5", "many channels", "strided, dilated", "grouped"])
def test_it_can_be_differentiated_twice(geometry):
    ours, _, images = pair(geometry, torch.float64)
    images = images[:1, :, :7, :7].requires_grad_()
    assert torch.autograd.gradcheck(ours, (images,))
    assert torch.autograd.gradgradcheck(ours, (images,))


def test_onednn_is_as_it_was_after_a_backward_pass_that_fails():
    layer, images = FirstConv2d(1, 2, 3), torch.randn(2, 1, 6, 6, requires_grad=True)
    enabled = torch._C._get_mkldnn_enabled()
    output = layer(images)
    with torch.no_grad():
        layer.weight.add_(1.0)  # the graph is stale
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
    assert torch._C._get_mkldnn_enabled() == enabled


def test_under_autocast_it_is_the_plain_layer():
    layer, images = FirstConv2d(1, 2, 3), torch.randn(2, 1, 6, 6, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(images)
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert images.grad.dtype == torch.float32


def test_it_compiles():
    layer = FirstConv2d(1, 2, 3)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    images = torch.randn(2, 1, 6, 6)
    grads = []
    for module in (layer, compiled):
        attacked = images.clone().requires_grad_()
        module(attacked).square().sum().backward()
        grads.append(attacked.grad)
    assert_close(*grads)
