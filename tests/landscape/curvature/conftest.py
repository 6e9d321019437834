"""Matrices with a known spectrum, and small networks whose Hessian is written out by another road."""

import types
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from landscape import EmpiricalRisk
from landscape.curvature.matrix import CurvatureMatrix

SPECTRA = {
    "network": [54, 44, 41, 38, 30, 22, 15, 9, 6, *np.geomspace(3, 1e-3, 191)],
    "network with negative curvature": [
        *(10, 6, 4, 3),
        *np.geomspace(0.5, 1e-4, 150),
        *-np.geomspace(0.3, 1e-4, 46),
    ],
    "low rank": [5, 4, 3, 2, 1, *np.zeros(195)],
    "indefinite": np.linspace(-1, 1.3, 200),
    "uniform": np.linspace(0, 1, 200),
}


class KnownMatrix(CurvatureMatrix):
    """A symmetric matrix with the given eigenvalues in place of a risk's."""

    def __init__(self, eigenvalues, dtype=torch.float64, seed=0):
        rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(eigenvalues),) * 2))
        dense = rotation @ np.diag(eigenvalues) @ rotation.T
        self.dense = torch.tensor((dense + dense.T) / 2, dtype=dtype)
        self.eigenvalues = np.sort(np.asarray(eigenvalues, dtype=float))[::-1]
        self.size, self.dtype, self.device, self.spent = len(eigenvalues), dtype, torch.device("cpu"), 0

    def times(self, vectors):
        self.spent += len(vectors)
        return [self.dense @ vector for vector in vectors]


@pytest.fixture
def known():
    """Makes a matrix from its eigenvalues, or from the name of a spectrum."""

    def make(spectrum, **settings) -> KnownMatrix:
        return KnownMatrix(SPECTRA[spectrum] if isinstance(spectrum, str) else spectrum, **settings)

    return make


class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolve, self.normalize, self.decode = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(12, 3)

    def forward(self, images):
        hidden = torch.tanh(self.normalize(self.convolve(images)))
        return self.decode(nn.functional.avg_pool2d(hidden, 2).flatten(1))


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolve, self.decode = nn.Conv2d(1, 3, 3), nn.Linear(12, 3)

    def forward(self, images):
        return self.decode(nn.functional.max_pool2d(torch.relu(self.convolve(images)), 2).flatten(1))


class Words(nn.Module):
    """Means of word vectors, of which some occur several times and some never."""

    def __init__(self):
        super().__init__()
        self.embedding, self.decode = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, tokens):
        return self.decode(torch.tanh(self.embedding(tokens).mean(1)))


class Tied(nn.Module):
    """Embedding and decoder are one tensor."""

    def __init__(self):
        super().__init__()
        self.embedding, self.mix, self.decode = nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6)
        self.decode.weight = self.embedding.weight

    def forward(self, tokens):
        return self.decode(torch.tanh(self.mix(self.embedding(tokens).mean(1))))


class Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.recurrent, self.decode = layer(2, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, values):
        return self.decode(self.recurrent(values)[0].mean(1))


class Packed(Recurrent):
    def forward(self, values, lengths):
        packed = pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
        hidden = self.recurrent(packed)[1]
        return self.decode((hidden[0] if isinstance(hidden, tuple) else hidden)[-1])


def layers(activation):
    return nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, 3))


NETWORKS: dict[str, tuple[Callable, Callable]] = {
    "linear": (lambda: nn.Linear(4, 3), lambda: (torch.randn(8, 4),)),
    "ReLU": (lambda: layers(nn.ReLU), lambda: (torch.randn(8, 4),)),
    "tanh": (lambda: layers(nn.Tanh), lambda: (torch.randn(8, 4),)),
    "max pooling": (Pooled, lambda: (torch.randn(8, 1, 6, 6),)),
    "BatchNorm": (Normalized, lambda: (torch.randn(8, 1, 6, 6),)),
    "embedding": (Words, lambda: (torch.randint(8, (8, 5)),)),
    "tied weights": (Tied, lambda: (torch.randint(6, (8, 5)),)),
    "LSTM": (lambda: Recurrent(nn.LSTM), lambda: (torch.randn(8, 4, 2),)),
    "GRU": (lambda: Recurrent(nn.GRU), lambda: (torch.randn(8, 4, 2),)),
    "packed LSTM": (lambda: Packed(nn.LSTM), lambda: (torch.randn(8, 4, 2), torch.tensor([4, 1, 3, 2, 4, 4, 2, 1]))),
    "packed GRU": (lambda: Packed(nn.GRU), lambda: (torch.randn(8, 4, 2), torch.tensor([4, 1, 3, 2, 4, 4, 2, 1]))),
}
BY_DIFFERENCES = {"LSTM", "GRU", "packed LSTM", "packed GRU"}
STEP = 1e-5  # of central differences in float64: their error is about its square


def cross_entropy(model, batch):
    return nn.functional.cross_entropy(model(*batch[:-1]), batch[-1], reduction="none")


class Network:
    """A float64 network, its risk over batches of uneven size, and its matrices written out.

    Autograd's own Hessian and Jacobian of a loss written by hand over all examples at once; for recurrent layers,
    central differences of gradients and outputs.
    """

    def __init__(self, name):
        torch.manual_seed(3)
        build, draw = NETWORKS[name]
        self.model = build().double()
        inputs = tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in draw())
        if name == "BatchNorm":
            self.model.train()(*inputs)  # running statistics that are not the initial ones
            nn.init.normal_(self.model.normalize.weight)
        self.model.eval()
        self.inputs, self.labels = inputs, torch.randint(3, (8,))
        self.batches = list(zip(*(tensor.split([3, 4, 1]) for tensor in (*inputs, self.labels)), strict=True))
        self.risk = EmpiricalRisk(self.model, self.batches, cross_entropy)
        self.shapes = {name: parameter.shape for name, parameter in self.model.named_parameters()}
        self.center = self.flat(dict(self.model.named_parameters())).detach()
        self._by_differences = name in BY_DIFFERENCES

    def flat(self, tensors):
        return torch.cat([tensors[name].flatten() for name in self.shapes])

    def by_name(self, vector):
        parts = vector.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def places(self, *names):
        """Indices of parameters in the flat vector."""
        return np.concatenate([np.flatnonzero(self.flat(self.by_name_of(name)).numpy()) for name in names])

    def by_name_of(self, name):
        return {other: torch.full(shape, float(other == name)) for other, shape in self.shapes.items()}

    def logits(self, flat):
        return torch.func.functional_call(self.model, self.by_name(flat), self.inputs)

    def losses(self, flat):
        """Cross-entropy of each example, by hand."""
        logits = self.logits(flat)
        return torch.logsumexp(logits, 1) - logits[torch.arange(len(self.labels)), self.labels]

    def hessian(self):
        if not self._by_differences:
            return torch.autograd.functional.hessian(lambda flat: self.losses(flat).mean(), self.center).numpy()

        def gradient(flat):
            flat = flat.requires_grad_()
            return torch.autograd.grad(self.losses(flat).mean(), flat)[0]

        hessian = self._differences(gradient)
        return (hessian + hessian.T) / 2

    def jacobian(self, function):
        """Of a function of the flat vector: its outputs by the parameters."""
        if self._by_differences:
            with torch.no_grad():
                return self._differences(lambda flat: function(flat).flatten()).T
        return torch.autograd.functional.jacobian(lambda flat: function(flat).flatten(), self.center).numpy()

    def gauss_newton(self):
        # Cross-entropy with probabilities p has the second derivatives diag(p) - p p' by the logits.
        probabilities = torch.softmax(self.logits(self.center), 1).detach().numpy()
        jacobian = self.jacobian(self.logits).reshape(*probabilities.shape, -1)
        return sum(
            slopes.T @ (np.diag(p) - np.outer(p, p)) @ slopes / len(probabilities)
            for p, slopes in zip(probabilities, jacobian, strict=True)
        )

    def _differences(self, function):
        units = torch.eye(len(self.center), dtype=torch.float64)
        return np.stack(
            [
                (function(self.center + STEP * unit) - function(self.center - STEP * unit)).numpy() / (2 * STEP)
                for unit in units
            ]
        )


@pytest.fixture(params=NETWORKS)
def network_case(request):
    return Network(request.param)


@pytest.fixture
def network_named():
    return Network


@pytest.fixture
def risk_of():
    """A risk of one parameter vector under any function of it, for two batches of uneven size."""

    class Function(nn.Module):
        def __init__(self, function, start, dtype):
            super().__init__()
            self.function, self.w = function, nn.Parameter(torch.tensor(start, dtype=dtype))

        def forward(self, batch):
            return self.function(self.w).expand(len(batch))

    def make(function, start, dtype=torch.float64) -> types.SimpleNamespace:
        model = Function(function, start, dtype)
        return EmpiricalRisk(model, [torch.zeros(3), torch.zeros(2)], loss=lambda model, batch: model(batch))

    return make
