"""Lines, barriers and curves in risks whose shape is known: quadratics, a double well, a ring-shaped valley."""

import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from landscape import EmpiricalRisk
from landscape.connectivity import barrier, connect, loss_between, loss_through
from landscape.datasets import open_surface
from landscape.parameters import fingerprint


class Function(nn.Module):
    """A function of one vector of weights, the same for each example."""

    def __init__(self, function, start, dtype=torch.float64):
        super().__init__()
        self.function = function
        self.w = nn.Parameter(torch.tensor(start, dtype=dtype))

    def forward(self, batch):
        return self.function(self.w).expand(len(batch))


def risk_of(function, start, dtype=torch.float64):
    batches = [torch.zeros(3), torch.zeros(2)]
    return EmpiricalRisk(Function(function, start, dtype), batches, loss=lambda model, batch: model(batch))


def at(*weights, dtype=torch.float64):
    return {"w": torch.tensor(weights, dtype=dtype)}


def double_well(w):
    return (w.square().sum() - 1) ** 2


@pytest.fixture
def ring():
    """A valley of loss 0 on the unit circle, and of loss 1 in its middle."""
    return risk_of(double_well, [1.0, 0.0])


def on_ring(degrees, dtype=torch.float64):
    return at(np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees)), dtype=dtype)


def curve_of(values, coordinates=None, dim="alpha", **more):
    coordinates = np.linspace(0, 1, len(values)) if coordinates is None else coordinates
    columns = {"loss": values} | more
    return xr.Dataset({name: (dim, np.asarray(v, float)) for name, v in columns.items()}, coords={dim: coordinates})


def points_of(bowl_there, vectors):
    rows = bowl_there.model.weight.shape[0]
    return [
        {"weight": torch.tensor(v[: 2 * rows]).reshape(rows, 2), "shift": torch.tensor(v[2 * rows :])} for v in vectors
    ]


@pytest.fixture
def checkpoints(network):
    center = EmpiricalRisk(network.model, network.batches).parameters()
    return [{name: t + 0.3 * torch.randn_like(t) for name, t in center.items()} for _ in range(3)]


@pytest.fixture
def normalized(network):
    """The risk of a network with BatchNorm, whose statistics are estimated at each point."""
    return EmpiricalRisk(network.model, network.batches, statistics=[network.data])


def test_a_line_through_a_quadratic(bowl, symmetric):
    there = bowl(symmetric([-1.0, 0.5, 2.0, 3.0, 4.0, 9.0]))
    start, end = np.random.default_rng(1).standard_normal((2, 6))
    a, b = points_of(there, [start, end])
    line = loss_between(there.risk, a, b, points=9, margin=(0.25, 0.5), progress=False)
    np.testing.assert_array_equal(line["alpha"], np.arange(-2, 13) / 8)
    for alpha in line["alpha"].values:
        losses = there.losses((1 - alpha) * start + alpha * end)
        assert line["loss"].sel(alpha=alpha) == pytest.approx(losses.mean(), rel=1e-12)
        assert line["loss_standard_error"].sel(alpha=alpha) == pytest.approx(losses.std(ddof=1) / 7**0.5, rel=1e-9)


def test_both_ends_are_met_bit_for_bit(normalized, checkpoints):
    a, b, _ = checkpoints
    line = loss_between(normalized, a, b, points=4, margin=0.5, progress=False)
    for alpha, point in ((0.0, a), (1.0, b)):
        value = normalized(point)
        assert float(line["loss"].sel(alpha=alpha)) == value.loss
        assert float(line["accuracy"].sel(alpha=alpha)) == value.metrics["accuracy"]
    assert float(line["center_loss"]) == normalized(a).loss
    assert float(line["center_accuracy"]) == normalized(a).metrics["accuracy"]


@pytest.mark.parametrize(
    ("points", "margin", "expected"),
    [
        (3, 0.0, [0, 0.5, 1]),
        (2, 1.0, [-1, 0, 1, 2]),
        (5, 0.25, [-0.25, 0, 0.25, 0.5, 0.75, 1, 1.25]),
        (3, 0.3, [-0.5, 0, 0.5, 1, 1.5]),  # up to the next whole step
        (11, 0.3, np.arange(-3, 14) / 10),  # 0.3 * 10 is a little more than 3
    ],
)
def test_both_ends_are_on_the_line_with_any_margin(ring, points, margin, expected):
    line = loss_between(ring, on_ring(0), on_ring(90), points, margin, progress=False)
    np.testing.assert_array_equal(line["alpha"], expected)


def test_attributes_of_a_line(ring):
    a, b = on_ring(0), on_ring(90)
    line = loss_between(ring, a, b, 5, progress=False)
    assert line.attrs["method"] == "grid"
    assert (line.attrs["evaluations"], line.attrs["examples"], line.attrs["converged"]) == (5, [5], 1)
    assert line.attrs["direction_norms"] == [pytest.approx(2**0.5)]
    assert line.attrs["center_fingerprint"] == fingerprint(a)
    (about,) = json.loads(line.attrs["directions"])
    assert (about["kind"], about["start"], about["end"]) == ("between", fingerprint(a), fingerprint(b))


def test_what_the_ends_do_not_name_stays_as_it_is(bowl):
    there = bowl(np.eye(6))
    a, b = {"shift": torch.zeros(2, dtype=torch.float64)}, {"shift": torch.ones(2, dtype=torch.float64)}
    line = loss_between(there.risk, a, b, points=3, progress=False)
    expected = [there.losses(np.append(there.theta[:4], [alpha, alpha])).mean() for alpha in (0, 0.5, 1)]
    np.testing.assert_allclose(line["loss"], expected, rtol=1e-12)


def test_legs_through_several_points(ring):
    corners = [at(1.0, 0.0), at(0.0, 0.0), at(0.0, 2.0)]
    line = loss_through(ring, corners, points=3, progress=False)
    # Squared distances from the middle: 1, 1/4, 0, 1, 4.
    np.testing.assert_array_equal(line["alpha"], [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(line["loss"], [0, 0.5625, 1, 0, 9], atol=1e-15)
    assert line.attrs["direction_norms"] == [1, 2]
    assert len(json.loads(line.attrs["directions"])) == 2


def test_one_leg_is_a_line(normalized, checkpoints):
    arguments = {"points": 4, "progress": False}
    xr.testing.assert_identical(
        loss_through(normalized, checkpoints[:2], **arguments), loss_between(normalized, *checkpoints[:2], **arguments)
    )


def test_splits_share_the_walk(network, checkpoints):
    train, test = (
        EmpiricalRisk(network.model, batches, statistics=[network.data])
        for batches in (network.batches[:2], network.batches[2:])
    )
    a, b, _ = checkpoints
    both = loss_between({"train": train, "test": test}, a, b, points=3, progress=False)
    assert both["loss"].dims == ("split", "alpha")
    assert both["center_loss"].dims == ("split",)
    for split, risk in {"train": train, "test": test}.items():
        alone = loss_between(risk, a, b, points=3, progress=False)
        np.testing.assert_array_equal(both["loss"].sel(split=split), alone["loss"])
    with pytest.raises(ValueError, match=r"expected one dimension, got split, alpha; choose a split"):
        barrier(both)
    assert barrier(both.sel(split="test")) >= 0


BARRIERS = {
    "a hill": ([0, 3, 1, 0], 3),
    "flat": ([2, 2, 2], 0),
    "a valley": ([1, 0, 1], 0),
    "straight": ([0, 1, 2, 3], 0),
    # Against the straight interpolation 4, 3, 2, 1, 0, not against the mean of the ends or the higher one.
    "ends of different loss": ([4, 3, 3.5, 2, 0], 1.5),
    "infinite": ([0, np.inf, 1], np.inf),
    "an infinite end": ([0, 1, np.inf], np.nan),
    "not a number": ([0, np.nan, 1], np.nan),
}


@pytest.mark.parametrize("name", BARRIERS)
def test_barriers(name):
    losses, expected = BARRIERS[name]
    found = barrier(curve_of(losses))
    assert isinstance(found, float)
    assert found == pytest.approx(expected, nan_ok=True)
    assert barrier(curve_of(losses, dim="t")) == pytest.approx(expected, nan_ok=True)


def test_the_barrier_of_a_double_well(ring):
    # From w = -1 to 1 the loss is ((2 alpha - 1)^2 - 1)^2, with 1 at the middle.
    line = loss_between(ring, at(-1.0, 0.0), at(1.0, 0.0), points=11, margin=0.4, progress=False)
    np.testing.assert_allclose(line["loss"], ((2 * line["alpha"] - 1) ** 2 - 1) ** 2, atol=1e-12)
    assert barrier(line) == pytest.approx(1)


def test_what_lies_beyond_the_ends_is_no_barrier():
    assert barrier(curve_of([9, 0, 1, 0, 9], [-0.5, 0, 0.5, 1, 1.5])) == 1


def test_the_barrier_of_a_leg_and_of_another_variable():
    curve = curve_of([0, 1, 0, 5, 2], [0, 0.5, 1, 1.5, 2], straight_loss=[0, 7, 0, 0, 0])
    assert barrier(curve) == 1
    assert barrier(curve, ends=(1, 2)) == 4
    assert barrier(curve, ends=(0, 2)) == 3.5
    assert barrier(curve, "straight_loss") == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variable": "error"}, "variable: expected one of loss, got 'error'"),
        ({"ends": (0, 2)}, r"ends: 2 is not a point of the curve, which goes from 0.0 to 1.0"),
        ({"ends": (1.0, 0.0)}, "ends: expected the smaller coordinate first"),
    ],
    ids=["variable", "end", "order"],
)
def test_wrong_questions_about_a_barrier(arguments, message):
    with pytest.raises(ValueError, match=message):
        barrier(curve_of([0, 1, 0]), **arguments)


FOUND = {90: (0.25, 1e-3), 150: (np.cos(np.deg2rad(75)) ** 2 - 1, 2e-2)}


@pytest.mark.parametrize("degrees", [90, 150])
@pytest.mark.parametrize("bends", [1, 2])
def test_a_curve_finds_the_ring(ring, bends, degrees):
    arguments = {"steps": 250, "learning_rate": 0.05, "progress": False}
    found = connect(ring, on_ring(0), on_ring(degrees), bends, **arguments)
    # The middle of the chord is at the cosine of half the angle from the middle of the ring.
    assert found.straight_barrier == pytest.approx((np.cos(np.deg2rad(degrees / 2)) ** 2 - 1) ** 2, rel=1e-9)
    assert found.barrier < found.straight_barrier / 40
    assert len(found.bends) == bends
    for bend in found.bends:
        assert float(bend["w"].norm()) > 1  # control points lie outside of a curve that bends outwards
    assert found.curve.attrs["best_step"] > 0
    assert found.curve.attrs["barrier"] == found.barrier == barrier(found.curve)
    assert found.curve.attrs["straight_barrier"] == found.straight_barrier == barrier(found.curve, "straight_loss")


def test_the_evaluated_curve_is_the_curve(ring):
    found = connect(ring, on_ring(0), on_ring(120), 2, steps=40, points=7, learning_rate=0.05, progress=False)
    a, first, second, b = (point["w"].numpy() for point in found.controls)
    for t in found.curve["t"].values:
        s = 1 - t
        expected = s**3 * a + 3 * s**2 * t * first + 3 * s * t**2 * second + t**3 * b
        np.testing.assert_allclose(found.at(t)["w"], expected, rtol=1e-12, atol=1e-15)
        assert float(found.curve["loss"].sel(t=t)) == pytest.approx(((expected**2).sum() - 1) ** 2, rel=1e-9, abs=1e-15)
    assert fingerprint(found.at(0.0)) == fingerprint(on_ring(0))
    assert fingerprint(found.at(1.0)) == fingerprint(on_ring(120))


def test_the_straight_line_is_beside_the_curve(ring):
    found = connect(ring, on_ring(0), on_ring(90), steps=10, points=5, progress=False)
    line = loss_between(ring, on_ring(0), on_ring(90), points=5, progress=False)
    np.testing.assert_allclose(found.curve["straight_loss"], line["loss"], atol=1e-15)
    # 4 a^2 (1 - a)^2 is 0, 9/64, 1/4, 9/64, 0 at the five points: trapezoids of 1/4 give 17/128.
    assert found.curve.attrs["checked_mean_losses"][0] == pytest.approx(0.1328125)
    assert found.curve.attrs["checked_steps"] == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("nothing", [{"bends": 0}, {"steps": 0}, {"bends": 3, "steps": 0}])
def test_without_training_the_curve_is_the_straight_line(ring, nothing):
    found = connect(ring, on_ring(0), on_ring(90), points=5, progress=False, **nothing)
    np.testing.assert_array_equal(found.curve["loss"], found.curve["straight_loss"])
    assert found.barrier == found.straight_barrier == pytest.approx(0.25)
    for t in (0.25, 0.5):
        np.testing.assert_allclose(found.at(t)["w"], [1 - t, t], atol=1e-15)


def test_a_curve_is_never_worse_than_the_straight_line(ring):
    # Steps of length 3 overshoot the ring each time.
    found = connect(ring, on_ring(0), on_ring(90), steps=5, learning_rate=3.0, checks=5, progress=False)
    means = found.curve.attrs["checked_mean_losses"]
    assert max(means) > means[0]
    assert found.curve.attrs["best_step"] == found.curve.attrs["checked_steps"][int(np.argmin(means))]
    assert float(np.trapezoid(found.curve["loss"], found.curve["t"])) == pytest.approx(min(means))


def test_where_everything_is_symmetric_the_curve_stays_on_the_line(ring):
    found = connect(ring, at(-1.0, 0.0), at(1.0, 0.0), steps=20, learning_rate=0.05, progress=False)
    assert float(found.bends[0]["w"][1]) == 0


def test_the_seed_repeats_a_curve(ring):
    first, second, other = (
        connect(ring, on_ring(0), on_ring(90), 2, steps=20, seed=seed, progress=False) for seed in (3, 3, 4)
    )
    xr.testing.assert_identical(first.curve, second.curve)
    assert list(map(fingerprint, first.controls)) == list(map(fingerprint, second.controls))
    assert fingerprint(other.bends[0]) != fingerprint(first.bends[0])


def test_the_second_split_has_no_part_in_training(network, checkpoints):
    train, test = (
        EmpiricalRisk(network.model, batches, statistics=[network.data])
        for batches in (network.batches[:2], network.batches[2:])
    )
    a, b, _ = checkpoints
    arguments = {"steps": 6, "points": 3, "checks": 2, "progress": False}
    alone, both = connect(train, a, b, **arguments), connect({"train": train, "test": test}, a, b, **arguments)
    assert fingerprint(both.bends[0]) == fingerprint(alone.bends[0])
    xr.testing.assert_equal(both.curve.sel(split="train", drop=True), alone.curve)
    assert both.curve["straight_accuracy"].dims == ("split", "t")
    assert both.barrier == alone.barrier


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_small_steps_are_not_lost_in_small_types(dtype):
    # Steps of 1e-3 beside weights of 0.5 are below half of bfloat16's spacing there.
    risk = risk_of(double_well, [1.0, 0.0], dtype)
    found = connect(risk, on_ring(0, dtype), on_ring(90, dtype), steps=60, learning_rate=1e-3, points=5, progress=False)
    (bend,) = found.bends
    assert bend["w"].dtype == dtype
    assert float(bend["w"].sum()) > 1.03


CALLS = {
    "line": lambda risk, points, **more: loss_between(risk, *points[:2], points=4, margin=0.5, **more),
    "legs": lambda risk, points, **more: loss_through(risk, points, points=3, **more),
    "curve": lambda risk, points, **more: connect(risk, *points[:2], steps=5, points=4, checks=2, **more).curve,
}


@pytest.mark.parametrize("call", CALLS)
def test_workers_find_the_same_bits(normalized, checkpoints, call):
    serial = CALLS[call](normalized, checkpoints, progress=False)
    with ThreadPoolExecutor(2) as executor:
        parallel = CALLS[call](normalized, checkpoints, progress=False, executor=executor)
    xr.testing.assert_identical(serial, parallel)


@pytest.mark.parametrize("call", CALLS)
def test_the_model_is_put_back(network, unchanged, checkpoints, call):
    network.model[0].weight.grad = torch.randn_like(network.model[0].weight)
    network.model[3].train()
    with unchanged(network.model):
        CALLS[call](
            EmpiricalRisk(network.model, network.batches, statistics=[network.data]), checkpoints, progress=False
        )


def test_the_model_is_put_back_after_an_exception_in_training(network, unchanged, checkpoints):
    left = itertools.count(-60)

    def loss(model, batch):
        if next(left) == 0:
            raise RuntimeError("the fuse has blown")
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    risk = EmpiricalRisk(network.model, network.batches, loss=loss, statistics=[network.data])
    with unchanged(network.model), pytest.raises(RuntimeError, match="the fuse has blown"):
        connect(risk, *checkpoints[:2], steps=100, points=2, progress=False)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_data_loader_leaves_the_global_generator_alone(network, unchanged, checkpoints, shuffle):
    dataset = torch.utils.data.TensorDataset(*network.data)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, shuffle=shuffle)
    risk = EmpiricalRisk(network.model, loader, statistics=[network.data])
    with unchanged(network.model):
        connect(risk, *checkpoints[:2], steps=7, points=2, checks=1, progress=False)


@pytest.mark.parametrize("call", CALLS)
def test_running_statistics_that_belong_elsewhere(network, checkpoints, call):
    risk = EmpiricalRisk(network.model, network.batches)
    with pytest.warns(UserWarning, match="BatchNorm statistics are used at every point.*statistics=batches") as caught:
        CALLS[call](risk, checkpoints, progress=False)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("call", CALLS)
def test_files_hold_everything(normalized, checkpoints, tmp_path, call):
    path = tmp_path / "new" / "line.nc"
    made = CALLS[call](normalized, checkpoints, progress=False, path=path)
    read = open_surface(path)
    xr.testing.assert_equal(read, made)
    for key, value in made.attrs.items():
        np.testing.assert_array_equal(read.attrs[key], value)
    assert [file.name for file in path.parent.iterdir()] == ["line.nc"]


def test_a_loss_that_is_not_finite_in_training(unchanged):
    risk = risk_of(lambda w: w[0].log(), [1.0])
    with unchanged(risk.model), pytest.raises(ValueError, match=r"step 0: the loss on the curve is nan at t = 0\.\d+;"):
        connect(risk, at(-1.0), at(-2.0), steps=3, progress=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, a, b: loss_between(r, a, b, points=1), "points: expected at least 2, got 1"),
        (lambda r, a, b: loss_between(r, a, b, margin=-0.1), "margin: expected a number of at least 0, got -0.1"),
        (lambda r, a, b: loss_between(r, a, b, margin=(0, np.inf)), "margin: expected a number of at least 0, got inf"),
        (lambda r, a, b: loss_between(r, a, {}), "point 1: expected .* first point, but 'w' is missing"),
        (lambda r, a, b: loss_between(r, {"v": a["w"]}, {"v": b["w"]}), "unknown parameter 'v'"),
        (lambda r, a, b: loss_through(r, [a]), "checkpoints: expected at least 2, got 1"),
        (lambda r, a, b: loss_through(r, [a, b, at(1.0)]), r"point 2: 'w' has shape \(1,\), expected \(2,\)"),
        (lambda r, a, b: connect(r, a, b, bends=-1), "bends: expected at least 0, got -1"),
        (lambda r, a, b: connect(r, a, b, steps=-1), "steps: expected at least 0, got -1"),
        (lambda r, a, b: connect(r, a, b, checks=0), "checks: expected at least 1, got 0"),
        (lambda r, a, b: connect(r, a, b, points=1), "points: expected at least 2, got 1"),
        (lambda r, a, b: connect(r, a, b, learning_rate=0.0), "learning_rate: expected a positive number, got 0.0"),
        (lambda r, a, b: connect(r, a, at(1.0)), r"b: 'w' has shape \(1,\), expected \(2,\)"),
    ],
)
def test_wrong_arguments(ring, call, message):
    with pytest.raises(ValueError, match=message):
        call(ring, on_ring(0), on_ring(90))
