"""Walks give the same bits in this process, on threads and in other processes, in any order and any division."""

import collections
import concurrent.futures
import itertools
import multiprocessing
import os
import pathlib
import secrets
import threading
import tracemalloc
import types

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import EmpiricalRisk, loss_line, loss_surface, loss_volume, open_surface, random_directions
from landscape.evaluation.walk import Walk, as_they_come, evaluate
from landscape.evaluation.workers import Parcel


@pytest.fixture(scope="module")
def pools():
    """Two threads, and two processes that start from nothing; they are shared, as they take seconds to start."""
    spawn = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ThreadPoolExecutor(2) as threads,
        concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as processes,
    ):
        yield {"threads": threads, "processes": processes}


@pytest.fixture(params=["threads", "processes"])
def pool(pools, request):
    return pools[request.param]


@pytest.fixture
def images():
    """A float32 convolutional classifier with BatchNorm and dropout, in evaluation mode, and images in four batches."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(27, 4),
    )
    model.train()(torch.randn(16, 1, 8, 8))
    data = torch.randn(20, 1, 8, 8), torch.randint(4, (20,))
    batches = list(zip(*(tensor.split(6) for tensor in data), strict=True))
    return types.SimpleNamespace(model=model.eval(), data=data, batches=batches)


@pytest.fixture
def risk(images):
    return EmpiricalRisk(images.model, images.batches)


def same_bits(one, other):
    xr.testing.assert_identical(one, other)
    for name, variable in one.variables.items():
        if variable.dtype.kind == "f":  # identical takes 0 for -0
            assert variable.values.tobytes() == other[name].values.tobytes(), name


def surface_of_a_notebook(images, **how):
    class Notebook(nn.Module):
        """Known to nobody but this function."""

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, 64))
            self.head = nn.Linear(64, 4)

        def forward(self, values):
            return self.head(torch.tanh(values.flatten(1) * self.scale))

    smoothing = 0.1
    with torch.random.fork_rng(devices=[]):
        model = Notebook().eval()
    risk = EmpiricalRisk(
        model,
        images.batches,
        loss=lambda model, batch: nn.functional.cross_entropy(
            model(batch[0]), batch[1], label_smoothing=smoothing, reduction="none"
        ),
        metrics={"confidence": lambda output, batch: output.softmax(1).amax(1)},
    )
    return loss_surface(risk, random_directions(risk.parameters()), points=5, method="grid", **how)


def surface(images, directions=2, function=loss_surface, batches=None, splits=False, options=None, **how):
    risk = EmpiricalRisk(images.model, batches or images.batches, **(options or {}))
    found = random_directions(risk.parameters(), directions)
    if splits:
        risk = {"train": risk, "test": EmpiricalRisk(images.model, images.batches[2:])}
    return function(risk, found[0] if function is loss_line else found, **how)


KINDS = {
    "grid": lambda images, **how: surface(images, points=(7, 6), method="grid", **how),
    "adaptive": lambda images, **how: surface(images, points=6, **how),
    "line": lambda images, **how: surface(images, 1, loss_line, points=9, method="grid", **how),
    "adaptive line": lambda images, **how: surface(images, 1, loss_line, points=9, **how),
    "volume": lambda images, **how: surface(images, 3, loss_volume, points=(3, 2, 4), method="grid", **how),
    "adaptive volume": lambda images, **how: surface(images, 3, loss_volume, points=3, tolerance=0.2, **how),
    "splits": lambda images, **how: surface(images, splits=True, points=5, method="grid", **how),
    "adaptive splits": lambda images, **how: surface(images, splits=True, points=5, tolerance=0.05, **how),
    "data loader": lambda images, **how: surface(
        images, batches=DataLoader(TensorDataset(*images.data), batch_size=6), points=6, method="grid", **how
    ),
    "new statistics": lambda images, **how: surface(
        images, options={"statistics": images.batches}, points=5, method="grid", **how
    ),
    "half precision": lambda images, **how: surface(
        images, options={"autocast": torch.bfloat16}, points=5, method="grid", **how
    ),
    "notebook": surface_of_a_notebook,
}


@pytest.mark.parametrize("kind", KINDS)
def test_executors_give_the_same_bits_and_leave_the_model_alone(images, pool, kind, unchanged):
    expected = KINDS[kind](images, progress=False)
    assert expected["loss"].values.std() > 0
    with unchanged(images.model):
        found = KINDS[kind](images, progress=False, executor=pool)
    same_bits(found, expected)


@pytest.mark.parametrize("kind", ["grid", "data loader"])
def test_threads_leave_the_random_stream_alone_for_good(images, kind):
    # Workers hold on to a walk until they get another one, or end.
    with torch.random.fork_rng(devices=[]):
        draws = [torch.rand(3) for _ in range(3)]
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        KINDS[kind](images, progress=False, executor=threads)
        found = [torch.rand(3)]
        KINDS[kind](images, progress=False, executor=threads)
        found.append(torch.rand(3))
    found.append(torch.rand(3))
    torch.testing.assert_close(found, draws, rtol=0, atol=0)


def test_threads_keep_the_number_of_torch_threads_and_each_has_a_model_of_its_own(risk, pools):
    present = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        walk = Walk({"": risk}, random_directions(risk.parameters()))
        evaluate(walk, [(0.1 * step, 0.0) for step in range(30)], pools["threads"], progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(present)


class Counting(concurrent.futures.Executor):
    """Another executor, and how often something large was handed to it."""

    def __init__(self, executor):
        self.executor = executor
        self.sent = 0

    def submit(self, function, *arguments):
        self.sent += sum(isinstance(argument, bytes) for argument in arguments)
        return self.executor.submit(function, *arguments)


def leaves_a_mark(folder):
    """A loss that leaves a file in the folder wherever it is unpacked."""

    class Marking:
        def __call__(self, model, batch):
            return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

        def __setstate__(self, state):
            (pathlib.Path(str(folder)) / secrets.token_hex(8)).touch()

        def __getstate__(self):
            return {"nothing": 0}

    return Marking()


@pytest.mark.parametrize("method", ["grid", "adaptive"])
def test_a_surface_is_sent_about_once_to_each_worker(images, pool, tmp_path, method):
    risk = EmpiricalRisk(images.model, images.batches, leaves_a_mark(tmp_path))
    directions = random_directions(risk.parameters())
    made = loss_surface(risk, directions, points=17, method=method, executor=pool, progress=False)
    assert made.attrs["evaluations"] > 80
    assert len(list(tmp_path.iterdir())) <= 2


@pytest.mark.parametrize("cores", [2, 64])
def test_what_is_large_is_handed_to_the_executor_about_once_for_each_worker(risk, pools, monkeypatch, cores):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)  # of this machine; how large the pool is, nobody knows
    counting = Counting(pools["threads"])
    directions = random_directions(risk.parameters())
    loss_surface(risk, directions, points=17, method="grid", executor=counting, progress=False)
    assert 1 <= counting.sent <= 6  # two workers, and a few tasks that were sent before either had answered


def test_two_walks_take_turns_on_one_pool(images, network, pool):
    walks, expected = [], []
    for model, batches in ((images.model, images.batches), (network.model, network.batches)):
        risk = EmpiricalRisk(model, batches)
        walks.append(Walk({"": risk}, random_directions(risk.parameters())))
    nodes = [(0.1 * step, -0.2 * step) for step in range(40)]
    expected = [evaluate(walk, nodes, progress=False) for walk in walks]
    found = [{}, {}]
    arriving = [as_they_come(walk, nodes, pool) for walk in walks]
    for pair in itertools.zip_longest(*arriving):
        for values, point in zip(found, pair, strict=True):
            values.update([point])
    assert found == expected


@pytest.mark.parametrize("batches", ["list", "data loader"])
def test_neither_order_nor_division_matter(images, pool, batches):
    data = images.batches if batches == "list" else DataLoader(TensorDataset(*images.data), batch_size=6)
    risk = EmpiricalRisk(images.model, data)
    walk = Walk({"": risk}, random_directions(risk.parameters()))
    nodes = [(a, b) for a in np.linspace(-1, 1, 7) for b in np.linspace(-0.5, 0.7, 6)]
    expected = evaluate(walk, nodes, progress=False)
    assert list(expected) == nodes
    shuffled = [nodes[i] for i in np.random.default_rng(0).permutation(len(nodes))]
    for executor in (None, pool):
        assert evaluate(walk, shuffled, executor, progress=False) == expected
        assert evaluate(walk, nodes[::-1], executor, progress=False) == expected
    one_by_one = [evaluate(walk, [node], progress=False)[node] for node in shuffled]
    assert dict(zip(shuffled, one_by_one, strict=True)) == expected


def test_a_center_and_a_measure_travel_too(risk, pool):
    center = {name: tensor + 0.125 for name, tensor in risk.parameters().items()}
    directions = random_directions(risk.parameters())
    for measure in (None, lambda risk: {"norm": float(risk.parameters()["6.weight"].norm())}):
        walk = Walk({"": risk}, directions, center, measure)
        nodes = [(0.0, 0.0), (0.5, 0.25)]
        values = evaluate(walk, nodes, pool, progress=False)
        assert values == evaluate(walk, nodes, progress=False)
    weight = center["6.weight"] + 0.5 * directions[0]["6.weight"] + 0.25 * directions[1]["6.weight"]
    assert values[0.0, 0.0][""]["norm"] == float(center["6.weight"].norm())
    assert values[0.5, 0.25][""]["norm"] == pytest.approx(float(weight.norm()), rel=1e-6)


def test_a_point_that_is_asked_for_twice_is_evaluated_once(images):
    calls = []

    def loss(model, batch):
        calls.append(1)
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    risk = EmpiricalRisk(images.model, images.batches, loss)
    calls.clear()
    walk = Walk({"": risk}, random_directions(risk.parameters()))
    found = evaluate(walk, [(0.0, 0.0), (1.0, 0.0), (0.0, -0.0), (0.0, 0.0)], progress=False)
    assert list(found) == [(0.0, 0.0), (1.0, 0.0)]
    assert len(calls) == 2 * len(images.batches)


def test_no_points_cost_nothing(risk, unchanged):
    walk = Walk({"": risk}, random_directions(risk.parameters()))
    for executor in (None, concurrent.futures.ThreadPoolExecutor(1)):
        with unchanged(risk.model):
            assert evaluate(walk, [], executor, progress=False) == {}


def test_a_walk_that_is_left_in_the_middle_leaves_the_model_alone(risk, pool, unchanged):
    walk = Walk({"": risk}, random_directions(risk.parameters()))
    nodes = [(0.01 * step, 1.0) for step in range(300)]
    for executor in (None, pool):
        with unchanged(risk.model):
            arriving = as_they_come(walk, nodes, executor)
            next(arriving)
            arriving.close()
    # and the pool is free for the next one
    assert evaluate(walk, nodes[:3], pool, progress=False) == evaluate(walk, nodes[:3], progress=False)


def test_the_number_of_points_does_not_count_for_memory(images):
    # Beside the numbers that are returned: three to a point here, in dictionaries by split and by column.
    risk = EmpiricalRisk(images.model, images.batches[:1])
    walk = Walk({"": risk}, random_directions(risk.parameters()))

    def peak(count):
        nodes = [(step / count, 0.5) for step in range(count)]
        tracemalloc.start()
        try:
            evaluate(walk, nodes, progress=False)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(20)
    assert (peak(320) - peak(20)) / 300 < 1500


def falls_at(place, fall):
    """A loss that calls ``fall`` where the one parameter of its model is at a place."""

    def loss(model, batch):
        if abs(float(model.weight) - place) < 1e-9:
            fall()
        return (model(batch) ** 2).squeeze(1)

    return loss


@pytest.fixture
def scale():
    """A walk of one parameter, which is 0 at the center and then where the coordinate says."""
    model = nn.Linear(1, 1, bias=False).double().eval()
    with torch.no_grad():
        model.weight.zero_()

    def make(loss):
        return Walk({"": EmpiricalRisk(model, [torch.ones(2, 1).double()], loss)}, [{"weight": torch.ones(1, 1)}])

    return make


def test_an_exception_in_a_worker_reaches_the_caller(scale, pool):
    def fall():
        raise ValueError("no loss at three")

    walk = scale(falls_at(3.0, fall))
    with pytest.raises(ValueError, match="no loss at three"):
        evaluate(walk, [(float(step),) for step in range(9)], pool, progress=False)
    assert evaluate(walk, [(2.0,)], pool, progress=False) == {(2.0,): {"": {"loss": 4.0, "loss_standard_error": 0.0}}}


class AtOnce(concurrent.futures.Executor):
    """Runs each task when it is submitted, so that all of them are done when anyone looks."""

    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def test_points_that_were_finished_are_kept_when_another_one_fails_at_the_same_time(scale, monkeypatch):
    def fall():
        raise concurrent.futures.BrokenExecutor("killed")

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    nodes = [(0.5,), (1.5,), (2.5,), (3.5,)]
    for (place,) in 4 * nodes:  # the order in which futures are looked at may be one of chance
        walk, kept = scale(falls_at(place, fall)), []
        parcel = Parcel(walk)

        def arrive(walk=walk, kept=kept, parcel=parcel):
            list(as_they_come(walk, [(9.0,)], AtOnce(), parcel))  # from now on the worker holds the walk
            for node, _ in as_they_come(walk, nodes, AtOnce(), parcel):
                kept.append(node)

        with concurrent.futures.ThreadPoolExecutor(1) as thread, pytest.raises(RuntimeError, match="a worker died"):
            thread.submit(arrive).result()
        assert sorted(kept) == [node for node in nodes if node != (place,)]


@pytest.mark.parametrize("what", ["loss", "metric", "model", "batches"])
def test_what_cannot_be_sent(images, what):
    lock = threading.Lock()

    def locked(model, batch):
        with lock:
            return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def metric(output, batch):
        with lock:
            return output[:, 0]

    batches = [(*batch, lock) for batch in images.batches] if what == "batches" else images.batches
    if what == "model":
        images.model.lock = lock
    loss = locked if what == "loss" else lambda model, batch: model(batch[0])[:, 0]
    risk = EmpiricalRisk(images.model, batches, loss, {"first": metric} if what == "metric" else {})
    directions = random_directions(risk.parameters())
    with (
        concurrent.futures.ThreadPoolExecutor(1) as threads,
        pytest.raises(TypeError, match=r"cannot be sent to another process .*lock.*; use executor=None"),
    ):
        loss_surface(risk, directions, points=3, method="grid", executor=threads, progress=False)
    assert loss_surface(risk, directions, points=3, method="grid", progress=False)["loss"].notnull().all()


def test_a_worker_that_dies_is_named_and_takes_no_finished_point_with_it(images, tmp_path):
    evaluations, here, path = tmp_path / "evaluations", os.getpid(), tmp_path / "surface.nc"

    def loss(model, batch):
        with evaluations.open("a") as file:
            file.write("x")
        if os.getpid() != here and evaluations.stat().st_size == 20:
            os._exit(1)
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    risk = EmpiricalRisk(images.model, images.batches[:1], loss)
    directions = random_directions(risk.parameters())
    how = {"points": 9, "method": "grid", "progress": False}
    expected = loss_surface(risk, directions, **how)
    spawn = multiprocessing.get_context("spawn")
    message = r"a worker died .*points that were finished are kept .*a new start with a new executor goes on"
    evaluations.unlink()
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as doomed:
        with pytest.raises(RuntimeError, match=message):
            loss_surface(risk, directions, path=path, executor=doomed, **how)
        kept = path.with_name("surface.nc.points").read_text().splitlines()[1:]
        assert 2 <= len(kept) < 20
        with pytest.raises(RuntimeError, match=message):  # it stays broken
            loss_surface(risk, directions, path=path, executor=doomed, **how)
    evaluations.unlink()
    same_points = loss_surface(risk, directions, path=path, **how)
    assert evaluations.stat().st_size == 81 - len(kept) + 1  # the center once more, to see that the loss is the same
    np.testing.assert_array_equal(same_points["loss"], expected["loss"])
    xr.testing.assert_identical(open_surface(path)["loss"], expected["loss"])


def test_a_walk_needs_risks_of_one_model(risk, network):
    other = EmpiricalRisk(network.model, network.batches)
    with pytest.raises(ValueError, match="expected at least one, got an empty dictionary"):
        Walk({}, [])
    with pytest.raises(ValueError, match="risk 'b' has another model"):
        Walk({"a": risk, "b": other}, [])


def test_directions_of_other_models_are_refused_in_workers_too(risk, pool):
    walk = Walk({"": risk}, [{"7.weight": torch.zeros(1)}])
    with pytest.raises(ValueError, match=r"unknown parameter '7.weight'"):
        evaluate(walk, [(0.0,)], pool, progress=False)


def test_progress_counts_points(risk, capsys):
    walk = Walk({"": risk}, random_directions(risk.parameters()))
    evaluate(walk, [(0.0, 0.0), (1.0, 1.0)], description="two of them")
    last = capsys.readouterr().err.split("\r")[-1]
    assert "two of them: 100%" in last
    assert "2/2" in last
    evaluate(walk, [(0.0, 0.0)], progress=False)
    assert collections.Counter(capsys.readouterr().err) == {}
