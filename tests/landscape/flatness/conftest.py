"""What the tests of flatness metrics share: a small network, and the same function written by hand."""

import types

import numpy as np
import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk


@pytest.fixture
def by_hand():
    """A float64 risk of a tanh network with 26 weights, and its loss as a function of one vector."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # so that it bends
    x, y = torch.randn(10, 3, dtype=torch.float64), torch.randint(2, (10,))
    risk = EmpiricalRisk(model, list(zip(x.split(4), y.split(4), strict=True)))

    def losses(theta, x=x, y=y):
        hidden = torch.tanh(x @ theta[:12].reshape(4, 3).T + theta[12:16])
        scores = hidden @ theta[16:24].reshape(2, 4).T + theta[24:]
        return torch.logsumexp(scores, 1) - scores[torch.arange(len(y)), y]

    def loss(theta):
        return losses(theta).mean()

    def value_and_gradient(vector):
        theta = torch.tensor(np.asarray(vector), requires_grad=True)
        value = loss(theta)
        (gradient,) = torch.autograd.grad(value, theta)
        return value.item(), gradient.numpy()

    def flat(tensors):
        """A direction as one vector, with zeros where it does not move."""
        parts = {name: torch.zeros_like(tensor) for name, tensor in risk.parameters().items()}
        return torch.cat([tensor.flatten() for tensor in (parts | dict(tensors)).values()]).numpy()

    theta = flat(risk.parameters())
    return types.SimpleNamespace(
        risk=risk,
        model=model,
        x=x,
        y=y,
        theta=theta,
        losses=losses,
        loss=loss,
        value=lambda vector: loss(torch.as_tensor(vector)).item(),
        value_and_gradient=value_and_gradient,
        flat=flat,
    )


@pytest.fixture
def relu():
    """Makes the risk of a ReLU network: its first layer times ``factor``, the second divided by it, one function."""

    def make(factor=1.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).double()
        batches = [(torch.randn(30, 3, dtype=torch.float64), torch.randint(0, 2, (30,)))]
        with torch.no_grad():
            model[0].weight.mul_(factor)
            model[0].bias.mul_(factor)
            model[2].weight.div_(factor)
        return EmpiricalRisk(model, batches)

    return make


@pytest.fixture
def valley():
    """Makes a risk whose loss is a function of a vector of weights, the same for each of five examples."""

    def make(function, start):
        model = nn.Module()
        model.weight = nn.Parameter(torch.tensor([start], dtype=torch.float64))
        batches = [torch.zeros(3), torch.zeros(2)]
        return EmpiricalRisk(model, batches, loss=lambda model, batch: function(model.weight[0]).expand(len(batch)))

    return make
