"""Loss lines and surfaces: the right value in the right cell, exact coordinates, and files that survive."""

import copy
import functools
import itertools

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import landscape
from landscape import EmpiricalRisk, open_surface, random_directions
from landscape.datasets import grid_axes
from landscape.parameters import fingerprint

# Every point evaluated; adaptive surfaces have tests of their own.
loss_line = functools.partial(landscape.loss_line, method="grid")
loss_surface = functools.partial(landscape.loss_surface, method="grid")


@pytest.fixture
def risk(network):
    return EmpiricalRisk(network.model, network.batches)


def test_each_cell_is_the_risk_at_its_coordinates(risk, network):
    directions = random_directions(risk.parameters(), seed=1)
    surface = loss_surface(risk, directions, span=(1.0, 0.5), points=(5, 3), progress=False)
    assert surface["loss"].dims == ("alpha", "beta")
    np.testing.assert_array_equal(surface["alpha"], [-1.0, -0.5, 0.0, 0.5, 1.0])
    np.testing.assert_array_equal(surface["beta"], [-0.5, 0.0, 0.5])
    inputs, labels = network.data
    for alpha, beta in itertools.product(surface["alpha"].values, surface["beta"].values):
        moved = copy.deepcopy(network.model)
        weights = moved.state_dict()
        for name in directions[0]:
            weights[name] = weights[name] + alpha * directions[0][name] + beta * directions[1][name]
        moved.load_state_dict(weights)
        logits = moved(inputs).detach()
        losses = nn.functional.cross_entropy(logits, labels, reduction="none").numpy()
        cell = surface.sel(alpha=alpha, beta=beta)
        assert float(cell["loss"]) == pytest.approx(losses.mean(), rel=1e-10)
        assert float(cell["loss_standard_error"]) == pytest.approx(losses.std(ddof=1) / 10**0.5, rel=1e-8)
        assert float(cell["accuracy"]) == pytest.approx(float((logits.argmax(1) == labels).double().mean()))


def test_a_quadratic_surface(bowl, symmetric):
    quadratic = bowl(symmetric([-1.0, 0.5, 1.0, 2.0, 4.0, 9.0]))
    directions = random_directions(quadratic.risk.parameters(), ignore=())
    surface = loss_surface(quadratic.risk, directions, points=4, progress=False)
    # L(theta + a d + b e) = mean over c of half the quadratic form there, by definition
    d, e = map(quadratic.flat, directions)
    for alpha, beta in itertools.product(surface["alpha"].values, surface["beta"].values):
        expected = quadratic.losses(quadratic.theta + alpha * d + beta * e).mean()
        assert float(surface["loss"].sel(alpha=alpha, beta=beta)) == pytest.approx(expected, rel=1e-11)


def test_a_quadratic_line(bowl, symmetric):
    # L(theta + a d) = L + a g'd + a^2 d'Ad / 2
    quadratic = bowl(symmetric([-1.0, 0.5, 1.0, 2.0, 4.0, 9.0]))
    (direction,) = random_directions(quadratic.risk.parameters(), 1)
    line = loss_line(quadratic.risk, direction, span=2.0, points=7, progress=False)
    d, alpha = quadratic.flat(direction), line["alpha"].values
    expected = quadratic.losses(quadratic.theta).mean() + alpha * (quadratic.gradient @ d)
    expected += alpha**2 / 2 * (d @ quadratic.matrix @ d)
    assert line["loss"].dims == ("alpha",)
    np.testing.assert_allclose(line["loss"], expected, rtol=1e-11)


@given(span=st.floats(1e-6, 1e6), count=st.integers(2, 101))
def test_axes_are_exact(span, count):
    axis = grid_axes([span], [count])["alpha"]
    np.testing.assert_array_equal(axis, -axis[::-1])
    assert (axis[0], axis[-1], len(axis)) == (-span, span, count)
    assert (0.0 in axis) == (count % 2 == 1)
    np.testing.assert_allclose(axis, np.linspace(-span, span, count), rtol=1e-12, atol=1e-12 * span)


def test_the_cell_in_the_middle_is_the_center(risk):
    surface = loss_surface(risk, random_directions(risk.parameters()), points=3, progress=False)
    assert float(surface["loss"].sel(alpha=0, beta=0)) == float(surface["center_loss"]) == risk().loss
    assert float(surface["center_accuracy"]) == risk().metrics["accuracy"]


def test_even_numbers_have_no_center_in_the_grid_but_know_its_loss(risk):
    surface = loss_surface(risk, random_directions(risk.parameters()), points=2, progress=False)
    assert surface["loss"].shape == (2, 2)
    np.testing.assert_array_equal(surface["alpha"], [-1.0, 1.0])
    assert float(surface["center_loss"]) == risk().loss


def test_the_center_is_where_the_model_is_now(risk, network):
    # The model may have been trained further since the risk was made.
    with torch.no_grad():
        network.model[3].weight[0].add_(1.0)
    surface = loss_surface(risk, random_directions(risk.parameters()), points=3, progress=False)
    assert float(surface["center_loss"]) == float(surface["loss"].sel(alpha=0, beta=0))


def test_splits_share_one_walk_and_nothing_else(network):
    inputs, labels = network.data
    risks = {
        "train": EmpiricalRisk(network.model, [(inputs[:6], labels[:6])]),
        "test": EmpiricalRisk(network.model, [(inputs[6:], labels[6:])]),
    }
    directions = random_directions(risks["train"].parameters())
    both = loss_surface(risks, directions, points=(3, 2), progress=False)
    assert both["loss"].dims == ("split", "alpha", "beta")
    assert list(both["split"].values) == ["train", "test"]
    assert list(both.attrs["examples"]) == [6, 4]
    for split, risk in risks.items():
        alone = loss_surface(risk, directions, points=(3, 2), progress=False)
        xr.testing.assert_equal(both.sel(split=split, drop=True), alone)


def test_one_named_split_keeps_its_dimension(risk):
    surface = loss_surface({"test": risk}, random_directions(risk.parameters()), points=2, progress=False)
    assert dict(surface["loss"].sizes) == {"split": 1, "alpha": 2, "beta": 2}


def test_attributes_say_how_it_was_made(risk):
    first, second = random_directions(risk.parameters(), seed=7)
    surface = loss_surface(risk, (first, second), points=(3, 2), progress=False)
    attributes = surface.attrs
    flat = [torch.cat([tensor.flatten() for tensor in direction.values()]).numpy() for direction in (first, second)]
    norms = [np.linalg.norm(vector) for vector in flat]
    center = torch.cat([tensor.flatten() for tensor in risk.parameters().values()])
    assert attributes["seed"] == 7
    assert attributes["normalization"] == "filter"
    assert attributes["ignored"] == "0.bias, 1.bias, 1.weight, 3.bias"
    assert attributes["evaluations"] == 6
    assert attributes["examples"] == [10]
    assert attributes["center_fingerprint"] == fingerprint(risk.parameters())
    assert attributes["center_norm"] == pytest.approx(float(center.norm()), rel=1e-12)
    np.testing.assert_allclose(attributes["direction_norms"], norms, rtol=1e-12)
    assert attributes["direction_cosine"] == pytest.approx(flat[0] @ flat[1] / (norms[0] * norms[1]), rel=1e-10)


def test_directions_of_different_seeds_have_no_common_seed(risk):
    one, other = (random_directions(risk.parameters(), 1, seed=seed)[0] for seed in (1, 2))
    attributes = loss_surface(risk, (one, other), points=2, progress=False).attrs
    assert "seed" not in attributes
    assert attributes["normalization"] == "filter"


def test_a_surface_along_plain_dictionaries(risk):
    directions = [{"3.weight": torch.randn(2, 4)} for _ in range(2)]
    assert loss_surface(risk, directions, points=2, progress=False)["loss"].notnull().all()


class Wall(nn.Module):
    """Infinite right of a half, not a number left of minus a half, and the square between."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, 2, dtype=torch.float64))

    def forward(self, ones):
        x, y = self.place[0]
        loss = x**2 + y**2 + 1
        loss = torch.where(x > 0.5, torch.inf, torch.where(x < -0.5, torch.nan, loss))
        return ones * loss


def test_losses_that_are_not_finite_are_kept():
    risk = EmpiricalRisk(Wall(), [torch.ones(2).double()], loss=lambda model, batch: model(batch))
    units = [{"place": torch.eye(2).double()[[row]]} for row in range(2)]
    surface = loss_surface(risk, units, points=3, progress=False)
    np.testing.assert_array_equal(surface["loss"], [[np.nan] * 3, [2.0, 1.0, 2.0], [np.inf] * 3])


@pytest.mark.parametrize("ignore", [("bias", "norm"), ()], ids=["some ignored", "none ignored"])
@pytest.mark.parametrize("kind", ["surface", "splits", "line"])
def test_files_hold_everything(risk, tmp_path, kind, ignore):
    path = tmp_path / "deep" / "er" / "surface.nc"
    directions = random_directions(risk.parameters(), ignore=ignore)
    if kind == "line":
        surface = loss_line(risk, directions[0], points=3, path=path, progress=False)
    else:
        named = {"train": risk, "test": risk} if kind == "splits" else risk
        surface = loss_surface(named, directions, points=(3, 2), path=str(path), progress=False)
    again = open_surface(path)
    xr.testing.assert_equal(again, surface)
    assert set(again.attrs) == set(surface.attrs)
    for key, value in surface.attrs.items():
        np.testing.assert_array_equal(again.attrs[key], value, err_msg=key)
    assert [file.name for file in path.parent.iterdir()] == ["surface.nc"]


@pytest.fixture
def written(risk, tmp_path):
    path = tmp_path / "surface.nc"
    directions = random_directions(risk.parameters())
    return path, loss_surface(risk, directions, points=2, path=path, progress=False)


def test_a_write_that_fails_leaves_the_old_file(written, risk, monkeypatch):
    path, old = written

    def full_disk(self, target, **kwargs):
        target.write_bytes(b"half a fi")
        raise OSError("no space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full_disk)
    with pytest.raises(OSError, match="no space left"):
        loss_surface(risk, random_directions(risk.parameters()), points=2, path=path, progress=False)
    xr.testing.assert_equal(open_surface(path), old)
    assert [file.name for file in path.parent.iterdir()] == ["surface.nc"]


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file(written, fraction):
    path, _ = written
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(ValueError, match=r"surface\.nc is truncated or not a netCDF file"):
        open_surface(path)


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "notes.nc"
    path.write_text("not a surface")
    with pytest.raises(ValueError, match=r"notes\.nc is truncated or not a netCDF file"):
        open_surface(path)


def test_a_netcdf_file_without_a_loss(tmp_path):
    path = tmp_path / "rain.nc"
    xr.Dataset({"rain": 1.0}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match="expected a variable 'loss', got rain"):
        open_surface(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no surface .*none\.nc"):
        open_surface(tmp_path / "none.nc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"span": 0.0}, "span: expected a positive number for alpha, got 0.0"),
        ({"span": (1.0, -1.0)}, "span: expected a positive number for beta, got -1.0"),
        ({"span": float("nan")}, "span: expected a positive number for alpha, got nan"),
        ({"span": (1.0, float("inf"))}, "span: expected a positive number for beta, got inf"),
        ({"points": 1}, "points: expected a whole number of at least 2 along alpha, got 1"),
        ({"points": (3, 0)}, "points: expected a whole number of at least 2 along beta, got 0"),
        ({"method": "lines"}, "method: expected 'adaptive' or 'grid', got 'lines'"),
    ],
    ids=["zero span", "negative span", "nan span", "infinite span", "one point", "no point", "method"],
)
def test_wrong_arguments(risk, arguments, message):
    with pytest.raises(ValueError, match=message):
        loss_surface(risk, random_directions(risk.parameters()), progress=False, **arguments)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_surface_takes_two_directions(risk, count):
    directions = random_directions(risk.parameters(), count) if count else ()
    with pytest.raises(ValueError, match=f"directions: a surface takes two, got {count}"):
        loss_surface(risk, directions, progress=False)


def test_splits_of_different_models(risk, network):
    other = EmpiricalRisk(copy.deepcopy(network.model), network.batches)
    with pytest.raises(ValueError, match="risk 'test' has another model"):
        loss_surface({"train": risk, "test": other}, random_directions(risk.parameters()), progress=False)


def test_no_splits(risk):
    with pytest.raises(ValueError, match="risk: expected at least one, got an empty dictionary"):
        loss_surface({}, random_directions(risk.parameters()), progress=False)


def test_wrong_arguments_cost_no_evaluation(risk, tmp_path, monkeypatch):
    monkeypatch.setattr(EmpiricalRisk, "__call__", lambda self: pytest.fail("evaluated"))
    (tmp_path / "file").write_text("")
    directions = random_directions(risk.parameters())
    with pytest.raises(FileExistsError, match="file"):
        loss_surface(risk, directions, path=tmp_path / "file" / "surface.nc", progress=False)
    with pytest.raises(ValueError, match="points"):
        loss_surface(risk, directions, points=(9, 1), progress=False)
