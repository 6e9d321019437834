"""Principal planes against a dense singular value decomposition, losses along them, and files of weights."""

import functools
import json
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from torch import nn

from landscape import EmpiricalRisk
from landscape.datasets import open_surface
from landscape.parameters import fingerprint, inner_product, norm
from landscape.trajectories import load_point, load_points, trajectory, trajectory_path


def flat(point):
    return np.concatenate([tensor.double().numpy().ravel() for tensor in point.values()])


def walk_of(count, size=6, seed=0, dtype=torch.float64):
    """Checkpoints of a random walk, and the same as rows of a matrix."""
    steps = np.random.default_rng(seed).standard_normal((count, size)) * np.arange(1, size + 1)
    rows = steps.cumsum(0) + 5
    points = [{"weight": torch.tensor(r[:4], dtype=dtype).reshape(2, 2), "shift": torch.tensor(r[4:], dtype=dtype)}
              for r in rows]  # fmt: skip
    return points, np.stack([flat(point) for point in points])


@pytest.fixture
def checkpoints(network):
    center = EmpiricalRisk(network.model, network.batches).parameters()
    return [{name: t + 0.3 * torch.randn_like(t) for name, t in center.items()} for _ in range(11)]


@pytest.fixture
def normalized(network):
    return EmpiricalRisk(network.model, network.batches, statistics=[network.data])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("length", [4, 9, 30])
def test_the_plane_is_that_of_a_singular_value_decomposition(length, count):
    points, rows = walk_of(length)
    found = trajectory(points, count=count)
    _, singular, components = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    np.testing.assert_allclose(found.explained_variance, singular[:count] ** 2 / np.sum(singular**2), rtol=1e-10)
    for direction, component in zip(found.directions, components, strict=False):
        assert abs(flat(direction) @ component) == pytest.approx(1, abs=1e-12)
    plane = np.stack([flat(direction) for direction in found.directions])
    np.testing.assert_allclose(plane @ plane.T, np.eye(count), atol=1e-12)
    offsets = rows - rows[-1]
    np.testing.assert_allclose(found.coordinates, offsets @ plane.T, atol=1e-10)
    rest = offsets - offsets @ plane.T @ plane
    np.testing.assert_allclose(found.distances, np.linalg.norm(rest, axis=1), atol=1e-10)


def test_the_last_checkpoint_is_the_center_and_lies_on_the_plane():
    points, _ = walk_of(5)
    found = trajectory(points)
    assert fingerprint(found.center) == fingerprint(points[-1])
    np.testing.assert_array_equal(found.coordinates[-1], [0, 0])
    assert found.distances[-1] == 0


def test_another_center():
    points, rows = walk_of(7)
    center = {name: torch.zeros_like(tensor) for name, tensor in points[0].items()}
    found, usual = trajectory(points, center), trajectory(points)
    for one, other in zip(found.directions, usual.directions, strict=True):
        np.testing.assert_allclose(flat(one), flat(other), atol=1e-12)
    for row, coordinates, distance in zip(rows, found.coordinates, found.distances, strict=True):
        np.testing.assert_allclose(coordinates, [row @ flat(direction) for direction in found.directions], rtol=1e-10)
        assert distance**2 + np.sum(coordinates**2) == pytest.approx(row @ row, rel=1e-12)


def test_a_path_in_a_plane_far_from_zero():
    # Two unit vectors and a center of length 1e4: squares of the weights would swallow the path.
    draws = np.random.default_rng(3)
    (first, second), center = np.linalg.qr(draws.standard_normal((50, 2)))[0].T, draws.standard_normal(50)
    center *= 1e4 / np.linalg.norm(center)
    turns = np.linspace(0, 5, 12)
    rows = center + 3e-3 * np.outer(np.cos(turns), first) + 1e-3 * np.outer(np.sin(turns), second)
    found = trajectory([{"w": torch.tensor(row)} for row in rows])
    assert found.explained_variance.sum() == pytest.approx(1, abs=1e-9)
    assert found.distances.max() < 1e-10
    for vector in (first, second):
        assert sum((flat(direction) @ vector) ** 2 for direction in found.directions) == pytest.approx(1, abs=1e-6)


def test_functions_that_load_give_the_same_plane():
    points, _ = walk_of(6)
    loads = []

    def load(index):
        loads.append(index)
        return points[index]

    found = trajectory([functools.partial(load, index) for index in range(6)])
    expected = trajectory(points)
    np.testing.assert_array_equal(found.coordinates, expected.coordinates)
    assert list(map(fingerprint, found.directions)) == list(map(fingerprint, expected.directions))
    assert len(loads) <= 6 * (6 / 2 + 4) + 1


def test_orthonormal_in_single_precision_too():
    points, _ = walk_of(8, dtype=torch.float32)
    first, second = trajectory(points).directions
    assert first["weight"].dtype == torch.float32
    assert norm(first) == pytest.approx(1, abs=1e-6)
    assert norm(second) == pytest.approx(1, abs=1e-6)
    assert inner_product(first, second) == pytest.approx(0, abs=1e-6)


def test_the_sign_is_that_of_the_checkpoint_farthest_out():
    points, rows = walk_of(9)
    for direction in trajectory(points).directions:
        scores = (rows - rows.mean(0)) @ flat(direction)
        assert scores[np.abs(scores).argmax()] > 0


def test_the_span_holds_the_whole_path():
    found = trajectory(walk_of(9)[0])
    np.testing.assert_allclose(found.span(0.25), 1.25 * np.abs(found.coordinates).max(0))
    np.testing.assert_allclose(found.span(), 1.1 * np.abs(found.coordinates).max(0))


def test_directions_know_what_they_are():
    found = trajectory(walk_of(9)[0])
    first, second = (direction.about for direction in found.directions)
    assert json.loads(json.dumps(first)) == first
    assert (first["kind"], first["checkpoints"], first["index"], second["index"]) == ("trajectory", 9, 0, 1)
    assert first["explained_variance"] == found.explained_variance[0]
    assert first["center"] == fingerprint(found.center)


def test_roles_are_those_of_the_center(normalized):
    center = normalized.parameters()
    points = [{name: tensor + torch.randn_like(tensor) for name, tensor in center.items()} for _ in range(4)]
    assert trajectory(points, center).directions[0].roles == center.roles


def test_losses_of_a_quadratic_beside_and_on_the_plane(bowl, symmetric):
    there = bowl(symmetric([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    points, rows = walk_of(12)
    found = trajectory(points)
    path = trajectory_path(there.risk, found, progress=False)
    plane = np.stack([flat(direction) for direction in found.directions])
    on_plane = rows[-1] + found.coordinates @ plane
    np.testing.assert_allclose(path["loss"], [there.losses(row).mean() for row in rows], rtol=1e-12)
    np.testing.assert_allclose(path["projected_loss"], [there.losses(row).mean() for row in on_plane], rtol=1e-9)
    assert path["loss"].dims == path["alpha"].dims == path["distance"].dims == ("checkpoint",)
    np.testing.assert_array_equal(path["checkpoint"], range(12))
    np.testing.assert_array_equal(np.stack([path["alpha"], path["beta"]], axis=1), found.coordinates)
    np.testing.assert_array_equal(path["distance"], found.distances)
    np.testing.assert_array_equal(path["explained_variance"], found.explained_variance)
    assert path["explained_variance"].dims == ("component",)
    assert float(np.abs(path["loss"] - path["projected_loss"]).max()) > 0.1  # six dimensions: they do differ
    assert (path.attrs["method"], path.attrs["evaluations"]) == ("trajectory", 24)


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_coordinates_as_directions(bowl, count):
    path = trajectory_path(bowl(np.eye(6)).risk, trajectory(walk_of(5)[0], count=count), progress=False)
    assert [name for name in ("alpha", "beta", "gamma") if name in path] == ["alpha", "beta", "gamma"][:count]


def test_a_checkpoint_has_its_own_loss_bit_for_bit(normalized, checkpoints):
    path = trajectory_path(normalized, trajectory(checkpoints), progress=False)
    for index, point in enumerate(checkpoints):
        value = normalized(point)
        assert float(path["loss"][index]) == value.loss
        assert float(path["accuracy"][index]) == value.metrics["accuracy"]
    # The center lies on the plane: its projection is itself.
    assert float(path["projected_loss"][-1]) == float(path["loss"][-1])


def test_splits(network, checkpoints):
    train, test = (
        EmpiricalRisk(network.model, batches, statistics=[network.data])
        for batches in (network.batches[:2], network.batches[2:])
    )
    plane = trajectory(checkpoints)
    both = trajectory_path({"train": train, "test": test}, plane, progress=False)
    assert both["projected_accuracy"].dims == ("split", "checkpoint")
    assert both["alpha"].dims == ("checkpoint",)
    alone = trajectory_path(test, plane, progress=False)
    xr.testing.assert_equal(both.sel(split="test", drop=True), alone)


def test_workers_find_the_same_bits(normalized, checkpoints):
    plane = trajectory(checkpoints)
    serial = trajectory_path(normalized, plane, progress=False)
    with ThreadPoolExecutor(2) as executor:
        xr.testing.assert_identical(trajectory_path(normalized, plane, executor, progress=False), serial)


def test_the_model_is_put_back(normalized, unchanged, checkpoints):
    with unchanged(normalized.model):
        trajectory_path(normalized, trajectory(checkpoints), progress=False)


def test_running_statistics_that_belong_elsewhere(network, checkpoints):
    risk = EmpiricalRisk(network.model, network.batches)
    with pytest.warns(UserWarning, match="BatchNorm statistics are used at every point") as caught:
        trajectory_path(risk, trajectory(checkpoints[:3]), progress=False)
    assert caught[0].filename == __file__


def test_a_file_holds_everything(normalized, checkpoints, tmp_path):
    made = trajectory_path(normalized, trajectory(checkpoints), progress=False, path=tmp_path / "new" / "path.nc")
    read = open_surface(tmp_path / "new" / "path.nc")
    xr.testing.assert_equal(read, made)
    assert set(read.attrs) == set(made.attrs)


SAME, ON_A_LINE = walk_of(1)[0] * 4, [{"w": torch.tensor([1.0, 2.0]) * t} for t in (0, 1, 2, 4)]


@pytest.mark.parametrize(
    ("points", "arguments", "message"),
    [
        (walk_of(2)[0], {}, "checkpoints: expected at least 3 for 2 directions, got 2"),
        (walk_of(5)[0], {"count": 4}, "count: expected 1 to 3, got 4"),
        (SAME, {}, "the checkpoints differ in 0 dimensions, expected at least 2; they are all the same"),
        (ON_A_LINE, {}, "the checkpoints differ in 1 dimensions, expected at least 2; ask for count=1"),
        ([*ON_A_LINE, {"v": torch.zeros(2)}], {}, "checkpoint 0: expected .* first point, but 'v' is missing"),
        (ON_A_LINE, {"center": {"w": torch.zeros(3)}}, r"checkpoint 0: 'w' has shape \(2,\), expected \(3,\)"),
    ],
    ids=["few", "count", "same", "line", "names", "shapes"],
)
def test_wrong_checkpoints(points, arguments, message):
    with pytest.raises(ValueError, match=message):
        trajectory(points, **arguments)


def test_a_line_has_one_direction():
    found = trajectory(ON_A_LINE, count=1)
    np.testing.assert_allclose(np.abs(found.coordinates[:, 0]), 5**0.5 * np.array([4, 3, 2, 0]), rtol=1e-6)
    np.testing.assert_allclose(found.explained_variance, [1.0])


@pytest.fixture
def saved(network, tmp_path):
    """Writes the network's state under names with a prefix, shifted by a number, beside other tensors."""

    def write(prefix="", shift=0.0, change=None, name="weights.safetensors", **others):
        state = {f"{prefix}{key}": tensor + shift for key, tensor in network.model.state_dict().items()} | others
        for key, tensor in (change or {}).items():
            state.pop(key)
            if tensor is not None:
                state[key] = tensor
        save_file(state, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("prefix", ["", "model."])
def test_weights_from_files(network, saved, prefix):
    risk = EmpiricalRisk(network.model, network.batches)
    others = {"optimizer.0.exp_avg": torch.zeros(3), "random.global": torch.zeros(5, dtype=torch.uint8)}
    paths = [saved(prefix, shift, name=f"{shift}.safetensors", **others) for shift in (0, 1)]
    first, second = load_points(paths, risk)
    assert fingerprint(first) == fingerprint(risk.parameters())
    assert first.roles == risk.parameters().roles
    for name, tensor in risk.parameters().items():
        torch.testing.assert_close(second[name], tensor + 1, rtol=0, atol=0)
    assert list(first) == list(risk.parameters())  # and no buffers, though the file has them


def test_only_the_parameters_of_the_risk_are_needed(network, saved):
    risk = EmpiricalRisk(network.model, network.batches, parameters=["3.*"])
    path = saved(change={"0.weight": None})
    assert list(load_point(path, risk)) == ["3.weight", "3.bias"]


def test_weights_in_the_types_of_the_model(network, saved):
    path = saved()
    risk = EmpiricalRisk(network.model.float(), [(inputs.float(), labels) for inputs, labels in network.batches])
    assert load_point(path, risk)["0.weight"].dtype == torch.float32


def test_a_model_that_calls_its_own_parts_model(network, tmp_path):
    outer = nn.Module()
    outer.model = network.model
    risk = EmpiricalRisk(outer, network.batches, loss=lambda m, b: m.model(b[0])[:, 0])
    save_file(outer.state_dict(), tmp_path / "w.safetensors")
    assert fingerprint(load_point(tmp_path / "w.safetensors", risk)) == fingerprint(risk.parameters())


def test_files_that_are_no_weights(network, saved, tmp_path):
    risk = EmpiricalRisk(network.model, network.batches)
    pickled, torn = tmp_path / "weights.pt", tmp_path / "torn.safetensors"
    torch.save(network.model.state_dict(), pickled)
    torn.write_bytes(saved().read_bytes()[:-9])
    for path in (pickled, torn):
        with pytest.raises(ValueError, match=r"is truncated or not a safetensors file.*torch\.save.*never are"):
            load_point(path, risk)
    with pytest.raises(FileNotFoundError, match=r"no weights .*nowhere\.safetensors"):
        load_point(tmp_path / "nowhere.safetensors", risk)


@pytest.mark.parametrize(
    ("prefix", "change", "message"),
    [
        ("", {"3.bias": None}, r"expected the parameters 0\.weight, .*but 3\.bias is missing; it has 0\.bias, "),
        ("model.", {"model.3.bias": None}, r"but 3\.bias is missing; it has model\.0\.bias"),
        ("net.", {}, r"but 0\.weight, 0\.bias, .* is missing; it has net\.0\.bias"),
        ("", {"3.bias": torch.zeros(5)}, r"parameter '3\.bias' has shape \(5,\), expected \(2,\)"),
    ],
    ids=["missing", "missing with prefix", "another prefix", "shape"],
)
def test_files_of_other_models(network, saved, prefix, change, message):
    risk = EmpiricalRisk(network.model, network.batches)
    with pytest.raises(ValueError, match=message):
        load_point(saved(prefix, change=change), risk)


def test_one_path_is_no_sequence_of_paths(network):
    with pytest.raises(TypeError, match=r"paths: expected a sequence, got 'a.safetensors'; write \['a.safetensors'\]"):
        load_points("a.safetensors", EmpiricalRisk(network.model, network.batches))


def test_a_trajectory_from_files(network, normalized, saved):
    paths = [saved(shift=shift, name=f"{index}.safetensors") for index, shift in enumerate((2.0, 1.0, 0.0))]
    loads = [functools.partial(load_point, path, normalized) for path in paths]
    with warnings.catch_warnings():
        found = trajectory(loads, count=1)
    size = sum(tensor.numel() for tensor in normalized.parameters().values())
    np.testing.assert_allclose(np.abs(found.coordinates[:, 0]), np.sqrt(size) * np.array([2, 1, 0]), atol=1e-12)
    path = trajectory_path(normalized, found, progress=False)
    np.testing.assert_allclose(path["loss"], path["projected_loss"], rtol=1e-9)  # all on one line
