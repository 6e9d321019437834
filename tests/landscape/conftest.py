"""What several test files need: risks in closed form, a small classifier, a guard around models, surfaces by hand."""

import contextlib
import types

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from landscape import EmpiricalRisk


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Bowl(nn.Module):
    """Half of (theta - c)' A (theta - c), where theta is a matrix and a vector, so that flattening is exercised."""

    def __init__(self, matrix, rows, start):
        super().__init__()
        self.register_buffer("matrix", torch.tensor(matrix))
        start = torch.tensor(start)
        self.weight = nn.Parameter(start[: 2 * rows].reshape(rows, 2))
        self.shift = nn.Parameter(start[2 * rows :])

    def forward(self, centers):
        offset = torch.cat([self.weight.flatten(), self.shift]) - centers
        return 0.5 * ((offset @ self.matrix) * offset).sum(1)


@pytest.fixture
def bowl():
    """Makes a risk with Hessian ``matrix``, gradient A (theta - mean of c), and everything needed to check that."""

    def make(matrix, rows=2, examples=7, seed=0):
        draws = np.random.default_rng(seed)
        matrix = np.asarray(matrix, dtype=np.float64)
        start, centers = draws.standard_normal(len(matrix)), draws.standard_normal((examples, len(matrix)))
        model = Bowl(matrix, rows, start)
        batches = list(torch.tensor(centers).split(3))  # the last one is smaller
        risk = EmpiricalRisk(model, batches, loss=lambda model, batch: model(batch))

        def losses(theta):
            return 0.5 * np.einsum("ij,jk,ik->i", theta - centers, matrix, theta - centers)

        def flat(point):
            """A direction as one vector, with zeros where it does not move."""
            parts = {"weight": np.zeros(2 * rows), "shift": np.zeros(len(matrix) - 2 * rows)}
            return np.concatenate(list((parts | {k: v.numpy().ravel() for k, v in point.items()}).values()))

        return types.SimpleNamespace(
            risk=risk,
            model=model,
            matrix=matrix,
            theta=start,
            gradient=matrix @ (start - centers.mean(0)),
            losses=losses,
            flat=flat,
        )

    return make


@pytest.fixture
def symmetric():
    """Makes a symmetric matrix with the given eigenvalues."""

    def make(eigenvalues, seed=0):
        size = len(eigenvalues)
        rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
        matrix = rotation @ np.diag(eigenvalues) @ rotation.T
        return (matrix + matrix.T) / 2

    return make


@pytest.fixture
def network():
    """A float64 classifier with everything that could be left behind, and batches of uneven size."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()
    model.train()(torch.randn(8, 3, dtype=torch.float64))  # running statistics that are not the initial ones
    model.eval()
    data = torch.randn(10, 3, dtype=torch.float64), torch.randint(2, (10,))
    batches = list(zip(*(tensor.split(3) for tensor in data), strict=True))
    return types.SimpleNamespace(model=model, batches=batches, data=data)


@pytest.fixture
def unchanged():
    """A block after which a model, and torch's generator, are bit for bit what they were."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

    def bits(tensor):
        if tensor is None:
            return None
        return tensor.data_ptr(), tensor.detach().clone().reshape(-1).view(torch.uint8).tolist()

    def state(model):
        return {
            "parameters": {n: (id(p), bits(p), p.requires_grad, bits(p.grad)) for n, p in model.named_parameters()},
            "buffers": {n: (id(b), bits(b)) for n, b in model.named_buffers()},
            "training": {n: m.training for n, m in model.named_modules()},
            "hooks": {n: [len(getattr(m, hook)) for hook in hooks] for n, m in model.named_modules()},
            "parameter hooks": {n: len(p._backward_hooks or ()) for n, p in model.named_parameters()},
            "generator": torch.get_rng_state().tolist(),
            "grad mode": torch.is_grad_enabled(),
        }

    @contextlib.contextmanager
    def guard(model):
        before = state(model)
        yield
        after = state(model)
        for what in before:
            assert after[what] == before[what], what

    return guard


@pytest.fixture
def plane():
    """Makes a surface, as ``loss_surface`` returns it, from a function of alpha and beta."""

    def make(function, points=(9, 7), **attrs):
        alpha, beta = (np.linspace(-1, 1, count) for count in points)
        loss = np.array([[function(a, b) for b in beta] for a in alpha], dtype=float)
        return xr.Dataset(
            {"loss": (("alpha", "beta"), loss), "center_loss": float(function(0.0, 0.0)), "center_accuracy": 0.875},
            coords={"alpha": alpha, "beta": beta},
            attrs={"normalization": "filter", "seed": 3, "ignored": "0.bias"} | attrs,
        )

    return make
