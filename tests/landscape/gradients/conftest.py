"""What the tests of gradients share: small float64 models whose derivatives are known or smooth."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk
from landscape.gradients.perturbations import Perturbations, Settings


def half_square(model, batch):
    return 0.5 * (model(batch[0]) - batch[1]).square().sum(1)


@pytest.fixture
def linear_regression():
    """Half of (w'x + b - y)^2, in uneven batches; the arrays that it is made of."""
    model = nn.Linear(4, 1).double()
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 1, dtype=torch.float64)
    risk = EmpiricalRisk(model, list(zip(x.split(4), y.split(4), strict=True)), half_square)
    return risk, x.numpy(), y.numpy()[:, 0], model.weight.detach().numpy()[0], model.bias.item()


@pytest.fixture
def logistic_regression():
    """Cross-entropy of W x + b with three classes."""
    model = nn.Linear(4, 3).double()
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.randint(3, (9,))
    risk = EmpiricalRisk(model, list(zip(x.split(4), y.split(4), strict=True)))
    return risk, x.numpy(), y.numpy(), model.weight.detach().numpy(), model.bias.detach().numpy()


class Texts(nn.Module):
    """An LSTM on packed sequences; id 0 is padding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 3, padding_idx=0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.output = nn.Linear(4, 2)

    def forward(self, tokens):
        lengths = (tokens > 0).sum(1)
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(tokens), lengths, True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        return self.output(last[0])


@pytest.fixture
def texts():
    tokens = torch.tensor([[1, 2, 3, 0], [4, 5, 1, 2], [3, 0, 0, 0], [2, 2, 5, 0], [5, 1, 0, 0]])
    labels = torch.tensor([0, 1, 1, 0, 1])
    model = Texts().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # so that it bends
    return EmpiricalRisk(model.eval(), list(zip(tokens.split(3), labels.split(3), strict=True)))


@pytest.fixture
def images():
    """A smooth convolutional network."""
    layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3)]
    model = nn.Sequential(*layers).double()
    model.train()(torch.randn(8, 1, 6, 6, dtype=torch.float64))  # running statistics that are not the initial ones
    data, labels = torch.randn(5, 1, 6, 6, dtype=torch.float64), torch.randint(3, (5,))
    return EmpiricalRisk(model.eval(), list(zip(data.split(3), labels.split(3), strict=True)))


@pytest.fixture
def directions():
    """Finds what a check with these options perturbs by, as NumPy arrays over epsilon: (kind, draw) to (rows, …)."""

    def find(site, gradient, value=None, **options):
        settings = {"epsilons": (1.0,), "attack_probability": 0.5, "masks": 8, "random_directions": 8, "seed": 0}
        settings |= {"mask_then_normalize": False, "relative_epsilon": False}
        gradient = torch.tensor(np.asarray(gradient))
        value = torch.ones_like(gradient) if value is None else torch.tensor(np.asarray(value))
        perturbations = Perturbations(site, Settings(**settings | options))
        return {(one.kind, one.draw): one.direction.numpy() for one in perturbations.of(gradient, value)}

    return find
