"""Adaptive lines, surfaces and volumes of real risks, against the same risks evaluated densely."""

import itertools
import types

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from landscape import EmpiricalRisk, interpolant, loss_line, loss_surface, loss_volume, open_surface, random_directions

DRAW = {1: lambda risk, directions, **how: loss_line(risk, directions[0], **how), 2: loss_surface, 3: loss_volume}


def drawn(risk, directions, **how):
    """A line, a surface or a volume, by the number of directions."""
    return DRAW[len(directions)](risk, directions, progress=False, **how)


class Formula(nn.Module):
    """A loss for each example from a formula of the place and the examples."""

    def __init__(self, formula, dimensions):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(dimensions, 1, dtype=torch.float64))
        self.formula = formula

    def forward(self, examples):
        return self.formula(self.place[:, 0], examples)


def formula(function, dimensions=1, examples=5, **options):
    """A risk, its unit directions, and what it is on a dense grid."""
    model = Formula(function, dimensions)
    examples = torch.linspace(-1, 1, examples, dtype=torch.float64)
    risk = EmpiricalRisk(model, [examples], lambda model, batch: model(batch), **options)
    units = [{"place": torch.eye(dimensions, dtype=torch.float64)[:, [i]]} for i in range(dimensions)]

    def losses(*axes):
        """``(*axes, examples)``."""
        grid = itertools.product(*axes)
        rows = [function(torch.tensor(place, dtype=torch.float64), examples).numpy() for place in grid]
        return np.array(rows).reshape(*map(len, axes), -1)

    return types.SimpleNamespace(risk=risk, units=units, losses=losses)


@pytest.fixture
def classifier():
    """A float64 classifier of 60 points in three classes, that has been trained a little."""
    model = nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 3)).double()
    inputs = torch.randn(60, 2, dtype=torch.float64)
    labels = (inputs[:, 0] > 0).long() + (inputs.sum(1) > 1).long()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    model.zero_grad()
    model.eval()
    return types.SimpleNamespace(
        model=model,
        inputs=inputs,
        labels=labels,
        risk=EmpiricalRisk(model, list(zip(inputs.split(25), labels.split(25), strict=True))),
    )


def dense(risk, directions, counts, span=1.0):
    """Every point evaluated, away from the lattice of an adaptive surface."""
    return drawn(risk, directions, points=counts, span=span, method="grid")


COUNTS = {1: 203, 2: (23, 27), 3: (7, 5, 8)}


@pytest.mark.parametrize("span", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_what_is_rendered_is_the_risk(classifier, dimensions, span):
    directions = random_directions(classifier.risk.parameters(), dimensions)
    counts = COUNTS[dimensions]
    surface = drawn(classifier.risk, directions, points=counts, span=span)
    true = dense(classifier.risk, directions, counts, span)
    assert surface.attrs["converged"] == 1
    spread = float(np.ptp(true["loss"].values))
    error = np.abs(surface["loss"] - true["loss"])
    assert float(error.max()) <= 3 * float(surface["loss_error_estimate"]) + 1e-12
    assert float(error.max()) <= 2 * 0.01 * spread
    assert float((error / true["loss"]).max()) <= 2 * 0.1
    for variable in ("accuracy", "loss_standard_error"):
        error = np.abs(surface[variable] - true[variable])
        assert float(error.max()) <= 3 * float(surface[f"{variable}_error_estimate"]) + 1e-12
    for name in ("alpha", "beta")[:dimensions]:
        np.testing.assert_array_equal(surface[name], true[name])
    assert surface.attrs["evaluations"] < 600
    assert float(surface["center_loss"]) == float(true["center_loss"]) == classifier.risk().loss


def test_a_volume_is_the_risk_too(classifier):
    directions = random_directions(classifier.risk.parameters(), 3)
    surface = drawn(classifier.risk, directions, points=COUNTS[3], span=0.5)
    true = dense(classifier.risk, directions, COUNTS[3], 0.5)
    assert surface["loss"].dims == ("alpha", "beta", "gamma")
    assert surface["node_loss"].dims == ("alpha_node", "beta_node", "gamma_node")
    error = float(np.abs(surface["loss"] - true["loss"]).max())
    assert error <= 3 * float(surface["loss_error_estimate"])
    assert surface.attrs["converged"] == 1
    assert error <= 0.02 * float(np.ptp(true["loss"].values))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_bowl_is_exact(bowl, symmetric, dimensions):
    quadratic = bowl(symmetric([3.0, 1.0, 0.5, 0.2, -0.1]))
    directions = [
        {"weight": torch.randn(2, 2, dtype=torch.float64), "shift": torch.randn(1, dtype=torch.float64)}
        for _ in range(dimensions)
    ]
    surface = drawn(quadratic.risk, directions, points=5)
    axes = [surface[name].values for name in ("alpha", "beta", "gamma")[:dimensions]]
    steps = [quadratic.flat(direction) for direction in directions]
    for index, place in zip(np.ndindex(*map(len, axes)), itertools.product(*axes), strict=True):
        theta = quadratic.theta + sum(x * step for x, step in zip(place, steps, strict=True))
        assert surface["loss"].values[index] == pytest.approx(quadratic.losses(theta).mean(), rel=1e-9, abs=1e-9)
    assert surface.attrs["evaluations"] <= {1: 17, 2: 125, 3: 221}[dimensions]
    assert surface.attrs["converged"] == 1
    assert surface.attrs["error_estimate"] < 1e-12


@pytest.fixture
def rough(classifier):
    """A surface that has nodes of several levels."""
    directions = random_directions(classifier.risk.parameters(), seed=1)
    asked = []
    inner = EmpiricalRisk.at_each

    def at_each(risk, moves):
        values = inner(risk, moves)
        asked.extend((move.args[0], value) for move, value in zip(moves, values, strict=True))
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmpiricalRisk, "at_each", at_each)
        surface = loss_surface(classifier.risk, directions, span=1.5, points=(8, 5), tolerance=0.002, progress=False)
    return types.SimpleNamespace(surface=surface, asked=dict(asked), count=len(asked), directions=directions)


def test_nodes_and_held_out_points_are_what_was_measured(rough):
    surface, asked = rough.surface, rough.asked
    assert rough.count == len(asked) == surface.attrs["evaluations"]
    axes = surface["alpha_node"].values, surface["beta_node"].values
    found = set()
    for i, j in np.argwhere(surface["evaluated"].values):
        node = float(axes[0][i]), float(axes[1][j])
        here = surface.isel(alpha_node=i, beta_node=j)
        assert float(here["node_loss"]) == asked[node].loss
        assert float(here["node_accuracy"]) == asked[node].metrics["accuracy"]
        assert float(here["node_loss_standard_error"]) == asked[node].standard_error
        found.add(node)
    for k in range(surface.sizes["held_out"]):
        here = surface.isel(held_out=k)
        node = float(here["held_out_alpha"]), float(here["held_out_beta"])
        assert float(here["held_out_loss"]) == asked[node].loss
        assert float(here["held_out_accuracy"]) == asked[node].metrics["accuracy"]
        assert node not in found
        found.add(node)
    assert found == set(asked)
    assert 0 < int(surface["evaluated"].sum()) < surface["evaluated"].size


def test_the_estimates_are_those_of_the_held_out_points(rough):
    surface = rough.surface
    places = np.stack([surface["held_out_alpha"], surface["held_out_beta"]], axis=1)
    for variable in ("loss", "accuracy", "loss_standard_error"):
        misses = np.abs(interpolant(surface, variable)(places) - surface[f"held_out_{variable}"].values)
        # A point in a coarse cell is predicted by the coarse lattice, which the finer ones only nearly reproduce.
        assert misses.max() <= 1.2 * float(surface[f"{variable}_error_estimate"])
    spread = np.ptp(surface["node_loss"].values)
    assert surface.attrs["error_estimate"] == pytest.approx(float(surface["loss_error_estimate"]) / spread, rel=1e-9)
    assert surface.attrs["error_estimate"] <= surface.attrs["tolerance"] == 0.002
    assert surface.attrs["relative_error_estimate"] <= surface.attrs["relative_tolerance"] == 0.02


def test_every_variable_and_attribute_of_the_documentation(rough, classifier):
    surface = rough.surface
    variables = {"loss", "loss_standard_error", "accuracy"}
    for variable in variables:
        assert surface[variable].dims == ("alpha", "beta")
        assert surface[variable].shape == (8, 5)
        assert surface[f"node_{variable}"].dims == ("alpha_node", "beta_node")
        assert surface[f"held_out_{variable}"].dims == ("held_out",)
        assert surface[f"{variable}_error_estimate"].dims == ()
        assert str(surface[f"{variable}_transform"].item()) in ("none", "root", "logarithm")
        assert int(surface[f"{variable}_degree"]) in (1, 3)
    assert surface["evaluated"].dtype == bool
    assert set(surface.coords) == {
        "alpha", "beta", "alpha_node", "beta_node", "held_out_alpha", "held_out_beta",
    }  # fmt: skip
    np.testing.assert_array_equal(surface["alpha_node"], -surface["alpha_node"][::-1])
    assert float(surface["alpha_node"][-1]) == float(surface["alpha"][-1]) == 1.5
    assert surface["center_loss"].item() == classifier.risk().loss
    assert surface["center_accuracy"].item() == classifier.risk().metrics["accuracy"]
    assert surface.attrs["method"] == "adaptive"
    assert surface.attrs["normalization"] == "filter"
    assert surface.attrs["seed"] == 1
    assert surface.attrs["examples"] == [60]
    assert surface.attrs["converged"] == 1


def test_every_resolution_comes_from_the_same_evaluations(classifier):
    directions = random_directions(classifier.risk.parameters())
    few = loss_surface(classifier.risk, directions, points=11, progress=False)
    many = loss_surface(classifier.risk, directions, points=(101, 21), progress=False)
    assert few.attrs["evaluations"] == many.attrs["evaluations"]
    for variable in ("evaluated", "node_loss", "held_out_loss", "loss_error_estimate"):
        xr.testing.assert_equal(few[variable].reset_coords(drop=True), many[variable].reset_coords(drop=True))
    np.testing.assert_allclose(few["loss"], many["loss"].values[::10, ::2], rtol=1e-10)
    fine = interpolant(few)
    np.testing.assert_array_equal(fine.on_grid(many["alpha"].values, many["beta"].values), many["loss"])


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_interpolant_reproduces_what_is_rendered(classifier, dimensions, tmp_path):
    directions = random_directions(classifier.risk.parameters(), dimensions)
    path = tmp_path / "surface.nc"
    surface = drawn(classifier.risk, directions, points=6, span=0.7, tolerance=0.03, path=path)
    axes = [surface[name].values for name in ("alpha", "beta", "gamma")[:dimensions]]
    again = open_surface(path)
    for variable in ("loss", "loss_standard_error", "accuracy"):
        for each in (surface, again):
            function = interpolant(each, variable)
            np.testing.assert_array_equal(function.on_grid(*axes), surface[variable].values, err_msg=variable)
            assert function.form.transform == surface[f"{variable}_transform"].item()
            points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
            np.testing.assert_allclose(function(points), surface[variable].values, rtol=1e-9, atol=1e-12)
    xr.testing.assert_equal(again, surface)
    assert again.attrs["converged"] == surface.attrs["converged"]
    assert set(again.attrs) == set(surface.attrs)


def test_accuracy_stays_between_0_and_1_and_has_its_own_error(classifier):
    directions = random_directions(classifier.risk.parameters(), seed=2)
    surface = loss_surface(classifier.risk, directions, span=1.5, points=101, progress=False)
    accuracy = surface["accuracy"].values
    assert accuracy.min() >= 0
    assert accuracy.max() <= 1
    assert float(surface["accuracy_error_estimate"]) > 0.01  # a step of one example is 1/60
    assert surface.attrs["converged"] == 1  # by the loss


def test_a_metric_that_is_a_step_does_not_decide():
    metrics = {"right": lambda output, batch: (output > 0.5).double(), "step": lambda output, batch: 1.0 * (batch > -9)}
    smooth = formula(lambda place, x: place[0] ** 2 + 0 * x, metrics=metrics)
    line = loss_line(smooth.risk, smooth.units[0], points=301, progress=False)
    assert line.attrs["converged"] == 1
    assert line.attrs["evaluations"] == 17
    right = line["right"].values
    assert {0.0, 1.0} <= set(right.tolist())
    assert right.min() >= 0
    assert right.max() <= 1
    assert 0 < float(line["right_error_estimate"]) <= 1.5
    assert float(line["step_error_estimate"]) == 0
    np.testing.assert_array_equal(line["step"], 1.0)


def test_metrics_in_other_units_are_not_clipped():
    tall = formula(lambda place, x: 1 + place[0] ** 2 + 0 * x, metrics={"tall": lambda output, batch: 100 * output})
    line = loss_line(tall.risk, tall.units[0], points=7, progress=False)
    np.testing.assert_allclose(line["tall"], 100 * line["loss"], rtol=1e-9)


def test_a_loss_is_never_clipped_to_1():
    # All values on the first lattice are below 1, and the largest is 1.05 between two of its points.
    hill = formula(lambda place, x: 1.05 - 6 * (place[0] - 0.125) ** 2 * (1 - 0.2 * place[0]) + 0 * x)
    line = loss_line(hill.risk, hill.units[0], points=301, progress=False)
    true = hill.losses(line["alpha"].values).mean(-1)
    assert line.attrs["evaluations"] == 17
    assert line["node_loss"].max() < 1 < true.max()
    np.testing.assert_allclose(line["loss"], true, atol=1e-9)
    assert float(line["loss_error_estimate"]) < 1e-9


def test_the_estimate_belongs_to_what_is_rendered():
    # Zero on a plateau, and a parabola from 0.4: a spline swings below zero. The estimate must know of it.
    edge = formula(lambda place, x: 0.9 * torch.relu(place[0] - 0.4) ** 2 / 0.36 + 0 * x)
    line = loss_line(edge.risk, edge.units[0], points=301, tolerance=0.05, relative_tolerance=np.inf, progress=False)
    missed = np.abs(interpolant(line)(line["held_out_alpha"].values[:, None]) - line["held_out_loss"].values)
    assert line["node_loss"].max() <= 1
    assert missed.max() > 1e-5
    assert float(line["loss_error_estimate"]) >= missed.max()


@pytest.mark.parametrize("width", [0.1, 0.2, 0.3, 0.5])
def test_standard_errors_are_not_negative(width):
    # The mean is a parabola; the spread has a peak of 70, and is nearly zero elsewhere.
    peaked = formula(lambda place, x: place[0] ** 2 + 1 + 100 * torch.exp(-((place[0] - 0.1) ** 2) / width**2) * x)
    line = loss_line(peaked.risk, peaked.units[0], points=401, progress=False)
    assert line.attrs["evaluations"] == 17
    assert line["loss_standard_error"].max() > 1
    assert line["loss_standard_error"].min() >= 0


def test_standard_errors_do_not_swing_below_zero_beside_an_edge():
    # The mean is a parabola; the spread is zero up to 0.4, and a parabola from there: a spline swings.
    edge = formula(lambda place, x: place[0] ** 2 + 1 + 50 * torch.relu(place[0] - 0.4) ** 2 * x)
    line = loss_line(edge.risk, edge.units[0], points=401, progress=False)
    assert int(line["loss_standard_error_degree"]) == 3
    assert line["loss_standard_error"].max() > 1
    assert line["loss_standard_error"].min() >= 0


@pytest.mark.parametrize("span", [1.0, 3.0])
def test_standard_errors_that_a_spline_predicts_best_are_not_negative(span):
    # Smooth, so that cubic splines are chosen, and zero at one point between two of the lattice.
    crossed = formula(lambda place, x: place[0] ** 2 + 1 + 50 * (place[0] - 0.1 * span) ** 2 * x)
    line = loss_line(crossed.risk, crossed.units[0], span=span, points=401, progress=False)
    assert int(line["loss_standard_error_degree"]) == 3
    assert line["loss_standard_error"].min() >= 0
    true = crossed.losses(line["alpha"].values)
    expected = true.std(-1, ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(line["loss_standard_error"], expected, atol=1e-6 * expected.max())


def test_one_example_has_no_standard_error():
    single = formula(lambda place, x: place[0] ** 2 + 1 + 0 * x, examples=1)
    line = loss_line(single.risk, single.units[0], points=5, progress=False)
    assert "loss_standard_error" not in line or line["loss_standard_error"].isnull().all()
    np.testing.assert_allclose(line["loss"], 1 + line["alpha"].values ** 2, rtol=1e-12)
    assert line.attrs["converged"] == 1
    assert np.isfinite(line.attrs["error_estimate"])


def test_splits_with_different_forms():
    model = Formula(lambda place, x: torch.where(x > 0, torch.exp(4 * place[0] ** 2), (0.5 + place[0] ** 2) ** 2), 1)

    def risk(examples):
        return EmpiricalRisk(model, [torch.tensor(examples, dtype=torch.float64)], lambda model, batch: model(batch))

    risks = {"train": risk([1.0, 2.0]), "test": risk([-1.0, -2.0])}
    line = loss_line(risks, {"place": torch.ones(1, 1, dtype=torch.float64)}, points=7, progress=False)
    assert line["loss_transform"].sel(split="train").item() == "logarithm"
    assert line["loss_transform"].sel(split="test").item() == "root"
    alpha = line["alpha"].values
    np.testing.assert_allclose(line["loss"].sel(split="train"), np.exp(4 * alpha**2), rtol=1e-9)
    np.testing.assert_allclose(line["loss"].sel(split="test"), (0.5 + alpha**2) ** 2, rtol=1e-9)
    for split in risks:
        one = line.sel(split=split)
        np.testing.assert_array_equal(interpolant(one).on_grid(alpha), one["loss"])
    with pytest.raises(ValueError, match="choose along split first"):
        interpolant(line)


def test_splits_share_their_points_and_the_harder_one_decides():
    model = Formula(
        lambda place, x: torch.where(x > 0, 1 + place[0] ** 2, 2.3 - 2 * torch.exp(-((place[0] / 0.2) ** 2))), 1
    )

    def risk(examples):
        return EmpiricalRisk(model, [torch.tensor(examples, dtype=torch.float64)], lambda model, batch: model(batch))

    direction = {"place": torch.ones(1, 1, dtype=torch.float64)}
    easy, hard = risk([1.0, 2.0]), risk([-1.0, -2.0])
    both = loss_line({"easy": easy, "hard": hard}, direction, points=7, progress=False)
    alone = loss_line(hard, direction, points=7, progress=False)
    assert both.attrs["evaluations"] == alone.attrs["evaluations"] > 17
    np.testing.assert_array_equal(both["loss"].sel(split="hard"), alone["loss"])
    assert both["evaluated"].dims == ("alpha_node",)
    assert both.attrs["error_estimate"] == pytest.approx(alone.attrs["error_estimate"])


@pytest.mark.parametrize("broken", [torch.inf, torch.nan])
def test_a_region_that_is_not_finite_is_kept(broken):
    cliff = formula(lambda place, x: torch.where(place[0] > 0.42, broken, 1 + place[0] ** 2 + place[1] ** 2) + 0 * x, 2)
    surface = loss_surface(cliff.risk, cliff.units, points=(101, 5), progress=False)
    loss = surface["loss"]
    finite = np.isfinite(loss)
    # 0.375 belongs to the lattice that is half as coarse as the first: the boundary was looked for.
    assert finite.sel(alpha=slice(-1, 0.375)).all()
    assert not finite.sel(alpha=slice(0.5001, 1)).any()
    expected = 1 + surface["alpha"] ** 2 + surface["beta"] ** 2
    error = float(np.abs(loss.where(finite, expected) - expected).max())
    assert error <= min(3 * float(surface["loss_error_estimate"]), 2 * 0.01 * 3.0)
    assert str(float(loss.values[-1, 0])) == str(float(broken))
    assert surface.attrs["evaluations"] > 125
    assert np.isfinite(surface.attrs["error_estimate"])


def test_a_metric_that_is_nowhere_a_number_on_the_first_points():
    def undefined_but_at_the_ends(output, batch):
        return torch.where((output > 1.5) & (output < 1.8), 1.0, torch.nan)

    bowl = formula(lambda place, x: 1 + place[0] ** 2 + 0 * x, metrics={"rare": undefined_but_at_the_ends})
    line = loss_line(bowl.risk, bowl.units[0], points=9, progress=False)
    np.testing.assert_array_equal(line["rare"].isnull(), ~np.isin(np.abs(line["alpha"]), [0.75]))
    np.testing.assert_allclose(line["loss"], 1 + line["alpha"] ** 2)


def test_a_tolerance_that_is_missed_is_said():
    jagged = formula(lambda place, x: torch.frac(37 * place[0] + 50) + 1 + 0 * x)
    line = loss_line(jagged.risk, jagged.units[0], points=101, progress=False)
    assert line.attrs["converged"] == 0
    assert line.attrs["error_estimate"] > 0.3
    assert line.sizes["alpha_node"] == 257


def test_a_smaller_tolerance_costs_more_and_gives_less_error(classifier):
    directions = random_directions(classifier.risk.parameters(), seed=1)
    true = dense(classifier.risk, directions, COUNTS[2], 1.5)["loss"]
    errors, costs = [], []
    for tolerance in (0.1, 0.01, 0.001):
        surface = drawn(classifier.risk, directions, points=COUNTS[2], span=1.5, tolerance=tolerance)
        errors.append(float(np.abs(surface["loss"] - true).max() / np.ptp(true.values)))
        costs.append(surface.attrs["evaluations"])
        assert surface.attrs["tolerance"] == tolerance
        assert surface.attrs["relative_tolerance"] == 10 * tolerance
        assert errors[-1] <= 2 * tolerance
    assert costs == sorted(costs)
    assert costs[0] < costs[2] < 65 * 65 / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": 0.0}, "tolerance: expected a positive number, got 0.0"),
        ({"tolerance": -0.1}, "tolerance: expected a positive number, got -0.1"),
        ({"tolerance": np.nan}, "tolerance: expected a positive number, got nan"),
        ({"relative_tolerance": 0.0}, "relative_tolerance: expected a positive number, got 0.0"),
        ({"relative_tolerance": -1.0}, "relative_tolerance: expected a positive number, got -1.0"),
        ({"relative_tolerance": np.nan}, "relative_tolerance: expected a positive number, got nan"),
    ],
    ids=str,
)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_tolerances_are_positive(classifier, dimensions, arguments, message):
    with pytest.raises(ValueError, match=message):
        drawn(classifier.risk, random_directions(classifier.risk.parameters(), dimensions), **arguments)


def test_the_model_is_unchanged(classifier, unchanged):
    directions = random_directions(classifier.risk.parameters())
    with unchanged(classifier.model):
        loss_surface(classifier.risk, directions, points=5, progress=False)


def test_the_same_surface_twice_has_the_same_bits(classifier):
    directions = random_directions(classifier.risk.parameters())
    first, again = (loss_surface(classifier.risk, directions, points=9, progress=False) for _ in range(2))
    xr.testing.assert_identical(first, again)
