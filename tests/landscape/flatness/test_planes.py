"""Flatness of planes: ellipses of a quadratic in closed form, and a network on a fine grid."""

import math

import numpy as np
import pytest
import torch

from landscape import random_directions
from landscape.flatness.planes import plane_metrics

CONVEX = [0.5, 1.0, 2.0, 3.0, 4.0, 9.0]


def planes(subject, seed, pairs):
    for pair in range(pairs):
        directions = random_directions(subject.risk.parameters(), seed=seed + pair)
        yield np.array([subject.flat(direction) for direction in directions])


def test_planes_of_a_quadratic(bowl, symmetric):
    # On a plane f = f(0) + b'x + x'Hx / 2: the lowest point is -H^-1 b, b'H^-1 b / 2 below the center, and
    # f < f(0) + rise is an ellipse of area 2 pi (rise + that depth) / sqrt(det H).
    quadratic = bowl(symmetric(CONVEX))
    found = plane_metrics(quadratic.risk, seed=4, pairs=3, span=8.0, rise=0.5, tolerance=1e-3)
    expected = {name: [] for name in found}
    for d in planes(quadratic, 4, 3):
        b, h = d @ quadratic.gradient, d @ quadratic.matrix @ d.T
        lowest = -np.linalg.solve(h, b)
        depth = -b @ lowest / 2
        expected["plane_curvature"].append(np.linalg.eigvalsh(h).mean())
        expected["area_below"].append(2 * math.pi * (0.5 + depth) / math.sqrt(np.linalg.det(h)))
        expected["minimum_offset"].append(np.linalg.norm(lowest))
        expected["convex_share"].append(1.0)
    for name, tolerance in {"plane_curvature": 1e-10, "area_below": 1e-3, "minimum_offset": 1e-6}.items():
        np.testing.assert_allclose(found[name].draws, expected[name], rtol=tolerance, err_msg=name)
        assert found[name].value == pytest.approx(np.mean(expected[name]), rel=tolerance)
        error = np.std(expected[name], ddof=1) / math.sqrt(3)
        assert found[name].standard_error == pytest.approx(error, rel=10 * tolerance)
        assert found[name].converged
    assert list(found["convex_share"].draws) == expected["convex_share"]
    assert found["area_below"].setting == {"span": 8.0, "rise": 0.5}
    assert found["area_below"].detail["at_border"] == 0
    assert found["plane_curvature"].setting == {}


def test_planes_of_a_network_on_a_fine_grid(by_hand):
    found = plane_metrics(by_hand.risk, seed=1, pairs=2, rise=0.1, tolerance=1e-3)
    hessian = torch.autograd.functional.hessian(by_hand.loss, torch.from_numpy(by_hand.theta)).numpy()
    axis = (np.arange(200) + 0.5) / 100 - 1  # the middles of 200 cells
    for pair, d in enumerate(planes(by_hand, 1, 2)):
        assert found["plane_curvature"].draws[pair] == pytest.approx(np.trace(d @ hessian @ d.T) / 2, rel=1e-9)
        a, b = np.meshgrid(axis, axis, indexing="ij")
        places = by_hand.theta + a[..., None] * d[0] + b[..., None] * d[1]
        losses = torch.vmap(by_hand.loss)(torch.from_numpy(places.reshape(-1, 26))).numpy().reshape(200, 200)
        below = 4 * (losses < by_hand.value(by_hand.theta) + 0.1).mean()
        assert found["area_below"].draws[pair] == pytest.approx(below, abs=0.02)
        lowest = np.unravel_index(losses.argmin(), losses.shape)
        offset = math.hypot(axis[lowest[0]], axis[lowest[1]])
        assert found["minimum_offset"].draws[pair] == pytest.approx(offset, abs=0.05)
        # Second differences on the grid: the share where both eigenvalues are above 0.
        aa, bb = (np.diff(losses, 2, axis=k)[_inner(1 - k)] for k in (0, 1))
        ab = (losses[2:, 2:] - losses[2:, :-2] - losses[:-2, 2:] + losses[:-2, :-2]) / 4
        convex = ((aa > 0) & (aa * bb > ab**2)).mean()
        assert 0 < convex < 1
        assert found["convex_share"].draws[pair] == pytest.approx(convex, abs=0.04)


def _inner(axis):
    return tuple(slice(1, -1) if k == axis else slice(None) for k in (0, 1))


def test_a_rescaling_between_relu_layers_is_not_seen(relu):
    before, after = (plane_metrics(relu(factor), pairs=2, tolerance=0.1) for factor in (1.0, 4.0))
    for name, found in before.items():
        np.testing.assert_allclose(after[name].draws, found.draws, rtol=1e-6, atol=1e-9, err_msg=name)


def test_one_plane_has_no_standard_error(bowl):
    found = plane_metrics(bowl(np.eye(6)).risk, pairs=1)
    assert math.isnan(found["area_below"].standard_error)
    assert found["area_below"].detail["evaluations"][0] >= 81


def test_settings_that_cannot_be(bowl):
    risk = bowl(np.eye(6)).risk
    with pytest.raises(ValueError, match="pairs: expected at least 1, got 0"):
        plane_metrics(risk, pairs=0)
    with pytest.raises(ValueError, match="rise: expected a positive number, got -1"):
        plane_metrics(risk, rise=-1)
