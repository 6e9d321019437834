"""Maps of extreme eigenvalues where the Hessian is known at every point, or small enough to be written out."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from landscape import EmpiricalRisk, random_directions
from landscape.convexity import ExtremeEigenvalues, eigenvalue_ratio
from landscape.datasets import open_surface
from landscape.directions import hessian_directions


class Function(nn.Module):
    def __init__(self, function, start):
        super().__init__()
        self.function = function
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, batch):
        return self.function(self.w).expand(len(batch))


def risk_of(function, start):
    batches = [torch.zeros(3), torch.zeros(2)]
    return EmpiricalRisk(Function(function, start), batches, loss=lambda model, batch: model(batch))


def unit(size, *places):
    direction = torch.zeros(size, dtype=torch.float64)
    direction[list(places)] = 1
    return {"w": direction}


def wells(w):
    """A double well in each weight: the Hessian is diagonal, 12 w^2 - 4."""
    return (w.square() - 1).square().sum()


def test_a_quadratic_has_one_ratio_everywhere(bowl, symmetric):
    there = bowl(symmetric([-3.0, -0.5, 0.1, 1.0, 4.0, 9.0]))
    found = eigenvalue_ratio(there.risk, random_directions(there.risk.parameters()), points=3, progress=False)
    assert found["ratio"].dims == ("alpha", "beta")
    np.testing.assert_allclose(found["largest_eigenvalue"], 9, rtol=1e-9)
    np.testing.assert_allclose(found["smallest_eigenvalue"], -3, rtol=1e-9)
    np.testing.assert_allclose(found["ratio"], 1 / 3, rtol=1e-9)
    assert found["converged"].dtype == bool
    assert found["converged"].all()
    assert (found["largest_residual"] < 1e-9).all()
    assert (found["products"] > 0).all()


@pytest.mark.parametrize("size", [4, 30], ids=["small", "large"])
def test_a_map_that_varies(size):
    risk = risk_of(wells, np.linspace(0.5, 0.9, size))
    found = eigenvalue_ratio(
        risk, [unit(size, 0), unit(size, 1)], span=(1.0, 0.5), points=(5, 3), tolerance=1e-6, progress=False
    )
    np.testing.assert_allclose(found["alpha"], [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_allclose(found["beta"], [-0.5, 0, 0.5])
    for alpha in found["alpha"].values:
        for beta in found["beta"].values:
            w = np.linspace(0.5, 0.9, size)
            w[:2] += alpha, beta
            here = found.sel(alpha=alpha, beta=beta)
            curvatures = 12 * w**2 - 4
            assert float(here["largest_eigenvalue"]) == pytest.approx(curvatures.max(), rel=1e-5)
            assert float(here["smallest_eigenvalue"]) == pytest.approx(curvatures.min(), rel=1e-4)
            assert float(here["ratio"]) == pytest.approx(abs(curvatures.min() / curvatures.max()), rel=1e-4)
            assert float(here["loss"]) == pytest.approx(np.sum((w**2 - 1) ** 2), rel=1e-12)


def test_a_network_against_its_dense_hessian():
    model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    inputs, labels = torch.randn(7, 2, dtype=torch.float64), torch.randint(3, (7,))
    risk = EmpiricalRisk(model, list(zip(inputs.split(3), labels.split(3), strict=True)))
    directions = random_directions(risk.parameters(), seed=1)

    def by_hand(flat):
        first, shift, second, offset = flat.split([10, 5, 15, 3])
        logits = torch.tanh(inputs @ first.reshape(5, 2).T + shift) @ second.reshape(3, 5).T + offset
        return (torch.logsumexp(logits, 1) - logits[torch.arange(7), labels]).mean()

    found = eigenvalue_ratio(risk, directions, span=0.7, points=3, tolerance=1e-8, progress=False)
    center = risk.parameters()
    for alpha, beta in ((-0.7, 0.7), (0.0, 0.0), (0.7, 0.0)):
        moved = torch.cat(
            [
                (tensor + alpha * directions[0].get(name, 0) + beta * directions[1].get(name, 0)).flatten()
                for name, tensor in center.items()
            ]
        )
        values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(by_hand, moved)).numpy()
        here = found.sel(alpha=alpha, beta=beta)
        assert float(here["largest_eigenvalue"]) == pytest.approx(values[-1], rel=1e-6)
        assert float(here["smallest_eigenvalue"]) == pytest.approx(values[0], rel=1e-4)


def test_all_parameters_count_also_those_that_do_not_move():
    risk = risk_of(wells, [2.0, 0.1, 1.0])
    found = eigenvalue_ratio(risk, [unit(3, 2)], span=0.1, points=3, progress=False)
    assert found["ratio"].dims == ("alpha",)
    np.testing.assert_allclose(found["largest_eigenvalue"], 44)
    np.testing.assert_allclose(found["smallest_eigenvalue"], 12 * 0.01 - 4)


def test_only_the_parameters_of_the_risk_count(bowl):
    there = bowl(np.diag([1.0, 2.0, 3.0, 4.0, -5.0, 60.0]))
    risk = EmpiricalRisk(there.model, there.risk.batches, lambda model, batch: model(batch), parameters=["weight"])
    found = eigenvalue_ratio(risk, random_directions(risk.parameters(), 1), points=2, progress=False)
    np.testing.assert_allclose(found["ratio"], 1 / 4)


def test_signs_of_the_eigenvalues():
    # Convex, concave and flat: 12 w^2, -12 w^2 and 0.
    for sign, largest, smallest in ((1, 12, 3), (-1, -3, -12)):
        risk = risk_of(lambda w, sign=sign: sign * w.pow(4).sum(), [1.0, 0.5])
        found = eigenvalue_ratio(risk, [unit(2, 0)], points=(3,), progress=False).sel(alpha=0.0)
        assert float(found["largest_eigenvalue"]) == pytest.approx(largest)
        assert float(found["smallest_eigenvalue"]) == pytest.approx(smallest)
        assert float(found["ratio"]) == pytest.approx(abs(smallest / largest))
    flat = eigenvalue_ratio(risk_of(lambda w: w.sum(), [1.0, 0.5]), [unit(2, 0)], points=3, progress=False)
    assert flat["ratio"].isnull().all()


def test_three_directions():
    found = eigenvalue_ratio(
        risk_of(wells, [0.5, 0.6, 0.7]), [unit(3, i) for i in range(3)], points=(2, 3, 2), progress=False
    )
    assert dict(found["ratio"].sizes) == {"alpha": 2, "beta": 3, "gamma": 2}


def test_another_center():
    risk = risk_of(wells, [0.5, 0.5])
    found = eigenvalue_ratio(
        risk, [unit(2, 0)], points=3, center={"w": torch.tensor([1.0, 2.0]).double()}, progress=False
    )
    np.testing.assert_allclose(found["largest_eigenvalue"], 44)
    np.testing.assert_allclose(found["smallest_eigenvalue"].sel(alpha=0.0), 8)


def test_a_smallest_eigenvalue_near_zero_is_found_in_few_products(bowl, symmetric):
    risk = bowl(symmetric([*np.linspace(1e-9, 1e-3, 300), 1.0, 3.0, 10.0])).risk
    found = ExtremeEigenvalues(tolerance=0.01, max_products=200)(risk)
    assert found["converged"] == 1
    assert found["products"] < 100
    assert found["smallest_eigenvalue"] == pytest.approx(0, abs=0.01 * 10)


def test_what_was_not_found_is_flagged(bowl, symmetric):
    # The spectrum is symmetric, and its ends are known only roughly: within the residuals, as the map says.
    risk = bowl(symmetric(np.linspace(-1, 1, 200))).risk
    found = eigenvalue_ratio(
        risk,
        random_directions(risk.parameters(), 1),
        points=2,
        tolerance=1e-14,
        max_products=20,
        progress=False,
    )
    assert not found["converged"].any()
    assert found.attrs["converged"] == 0
    assert (found["products"] == 20).all()
    assert (found["largest_residual"] > 1e-3).all()
    assert (found["smallest_residual"] > 1e-3).all()
    assert (abs(found["largest_eigenvalue"] - 1) <= found["largest_residual"]).all()
    assert (abs(found["smallest_eigenvalue"] + 1) <= found["smallest_residual"]).all()
    np.testing.assert_allclose(found["ratio"], 1, atol=0.1)


def test_where_the_loss_is_not_finite():
    risk = risk_of(lambda w: w.log().sum(), [1.0, 2.0])
    found = eigenvalue_ratio(risk, [unit(2, 0)], span=1.5, points=3, progress=False)
    np.testing.assert_array_equal(found["converged"], [False, True, True])
    assert np.isnan(found["loss"][0])
    assert np.isnan(found["ratio"][0])
    assert found["ratio"].sel(alpha=0.0) == pytest.approx(4)  # -1 and -1/4


def test_splits(network):
    train, test = (EmpiricalRisk(network.model, batches) for batches in (network.batches[:2], network.batches[2:]))
    directions = random_directions(train.parameters(), 1)
    both = eigenvalue_ratio({"train": train, "test": test}, directions, points=2, progress=False)
    assert both["ratio"].dims == ("split", "alpha")
    alone = eigenvalue_ratio(test, directions, points=2, progress=False)
    xr.testing.assert_equal(both.sel(split="test", drop=True), alone)


def switches():
    """What ``differentiable`` sets for the whole process."""
    return (
        torch.backends.cudnn.enabled,
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch._dynamo.eval_frame._stance.stance,
    )


def test_workers_find_the_same_bits_and_leave_nothing_switched(network, unchanged):
    risk = EmpiricalRisk(network.model, network.batches, parameters=["3.*"])
    directions = hessian_directions(risk, 2, "both")
    serial = eigenvalue_ratio(risk, directions, points=3, progress=False)
    before = switches()
    with unchanged(network.model), ThreadPoolExecutor(3) as executor:
        parallel = eigenvalue_ratio(risk, directions, points=3, executor=executor, progress=False)
    xr.testing.assert_identical(parallel, serial)
    assert switches() == before


def test_the_model_is_put_back(network, unchanged):
    risk = EmpiricalRisk(network.model, network.batches)
    network.model.train()
    with unchanged(network.model):
        eigenvalue_ratio(risk, random_directions(risk.parameters()), points=2, progress=False)


def test_a_file_holds_everything(bowl, tmp_path):
    risk = bowl(np.eye(6)).risk
    path = tmp_path / "new" / "map.nc"
    made = eigenvalue_ratio(risk, random_directions(risk.parameters(), 1), points=2, path=path, progress=False)
    read = open_surface(path)
    xr.testing.assert_equal(read, made)
    assert {"method", "evaluations", "converged", "examples", "seed", "direction_norms"} <= set(read.attrs)


@pytest.mark.parametrize(
    ("count", "arguments", "message"),
    [
        (0, {}, "directions: expected 1 to 3, got 0"),
        (4, {}, "directions: expected 1 to 3, got 4"),
        (2, {"span": (1.0,)}, "span: expected 2, one for each direction, got 1"),
        (1, {"points": (3, 3)}, "points: expected 1, one for each direction, got 2"),
        (1, {"span": 0.0}, "span: expected a positive number for alpha, got 0.0"),
        (1, {"points": 1}, "points: expected a whole number of at least 2 along alpha, got 1"),
    ],
)
def test_wrong_arguments(count, arguments, message):
    with pytest.raises(ValueError, match=message):
        eigenvalue_ratio(risk_of(wells, [0.5] * 4), [unit(4, i) for i in range(count)], **arguments)
