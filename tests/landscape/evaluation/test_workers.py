"""What a worker holds, what it is sent, and what it leaves behind."""

import concurrent.futures
import io
import os
import pickle
import threading

import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk, random_directions
from landscape.evaluation import workers
from landscape.evaluation.walk import Walk, evaluate
from landscape.evaluation.workers import Parcel, work

NODES = [(0.0, 0.0), (0.5, -0.25)]


@pytest.fixture
def worker():
    """Calls ``work`` on a thread that has done nothing before."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        yield lambda *arguments, call=work: thread.submit(call, *arguments).result()


@pytest.fixture
def walk(network):
    risk = EmpiricalRisk(network.model, network.batches)
    return Walk({"": risk}, random_directions(risk.parameters()))


def test_a_worker_without_the_walk_asks_for_it_and_then_has_it(worker, walk):
    parcel = Parcel(walk)
    expected = list(evaluate(walk, NODES, progress=False).values())
    assert worker(parcel.key, None, NODES) is None
    assert worker(parcel.key, None, NODES) is None
    assert worker(parcel.key, parcel.packed, NODES).values == expected
    assert worker(parcel.key, None, NODES[::-1]).values == expected[::-1]
    assert worker(parcel.key, None, []).values == []


def test_a_worker_holds_the_last_walk_alone(worker, walk):
    first, second = Parcel(walk), Parcel(walk)
    assert first.key != second.key
    assert worker(first.key, first.packed, NODES) is not None
    assert worker(second.key, second.packed, NODES) is not None
    assert worker(first.key, None, NODES) is None
    assert worker(second.key, None, NODES) is not None


def test_each_thread_holds_its_own(walk):
    parcel = Parcel(walk)
    barrier = threading.Barrier(2, timeout=30)

    def first_of_two(packed):
        barrier.wait()
        return work(parcel.key, packed, NODES)

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        sent, not_sent = threads.map(first_of_two, [parcel.packed, None])
    assert sent is not None
    assert not_sent is None


def test_seconds_are_those_of_the_points(worker, walk):
    parcel = Parcel(walk)
    one = worker(parcel.key, parcel.packed, NODES[:1]).seconds
    many = worker(parcel.key, None, [(0.01 * step, 0.0) for step in range(200)]).seconds
    assert 0 < one < many < 60


def test_a_walk_that_cannot_begin_is_not_held(worker, walk):
    class Breaks:
        def begun(self):
            raise OSError("no such model here")

    parcel, whole = Parcel(Breaks()), Parcel(walk)
    for _ in range(2):
        with pytest.raises(OSError, match="no such model here"):
            worker(parcel.key, parcel.packed, NODES)
        assert worker(parcel.key, None, NODES) is None
        assert worker(whole.key, whole.packed, NODES) is not None


def test_a_worker_goes_on_after_an_exception(worker, walk):
    parcel = Parcel(walk)
    with pytest.raises(ValueError, match="expected 2, one for each direction, got 1"):
        worker(parcel.key, parcel.packed, [(0.5,)])
    expected = list(evaluate(walk, NODES, progress=False).values())
    assert worker(parcel.key, None, NODES).values == expected


class OddError(Exception):
    """As many exceptions of libraries, it is made from something else than its message."""

    def __init__(self, place, reason):
        super().__init__(f"{reason} at {place}")


def test_any_exception_can_be_sent_back(worker, network):
    # A process pool that cannot read an exception is broken by it, and says that a worker died.
    def loss(model, batch):
        if model[3].weight[0, 0] > 100:
            raise OddError("the end", "nothing")
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    risk = EmpiricalRisk(network.model, network.batches, loss)
    parcel = Parcel(Walk({"": risk}, [{"3.weight": torch.ones(2, 4)}]))
    with pytest.raises(Exception, match="nothing at the end") as caught:
        worker(parcel.key, parcel.packed, [(1000.0,)])
    sent = io.BytesIO()
    pickler = pickle.Pickler(sent)
    pickler.dispatch_table = {}  # what other libraries teach pickle when they are imported
    pickler.dump(caught.value)
    assert "nothing at the end" in str(pickle.loads(sent.getvalue()))


@pytest.mark.parametrize("sender", ["this process", "another one"])
def test_other_processes_use_one_thread_each(walk, worker, monkeypatch, sender):
    with monkeypatch.context() as patch:
        if sender == "another one":
            patch.setattr(workers.os, "getpid", lambda: -1)
        parcel = Parcel(walk)
    present = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        worker(parcel.key, parcel.packed, NODES)
        assert worker(call=torch.get_num_threads) == (2 if sender == "this process" else 1)
    finally:
        torch.set_num_threads(present)


@pytest.mark.parametrize("batches", [1, 50])
def test_data_are_sent_once_however_many_batches_they_are_cut_into(batches):
    # Batches that were split from one tensor share its memory.
    data, labels = torch.randn(1000, 100), torch.randint(2, (1000,))
    size = 1000 // batches
    cut = list(zip(data.split(size), labels.split(size), strict=True))
    risk = EmpiricalRisk(nn.Linear(100, 2).eval(), cut)
    parcel = Parcel(Walk({"": risk}, random_directions(risk.parameters())))
    assert len(parcel.packed) < 1.2 * (data.nbytes + labels.nbytes)


def test_splits_share_what_they_have_in_common(network):
    data = torch.randn(1000, 3, dtype=torch.float64), torch.randint(2, (1000,))
    risks = {split: EmpiricalRisk(network.model, [data]) for split in ("train", "test")}
    parcel = Parcel(Walk(risks, random_directions(risks["train"].parameters())))
    assert len(parcel.packed) < 20_000 + data[0].nbytes + data[1].nbytes


def test_what_cannot_be_packed_says_what_to_do():
    class Closed:
        def __reduce__(self):
            raise OSError("a closed file")

    with pytest.raises(TypeError, match=r"cannot be sent to another process \(a closed file\); use executor=None"):
        Parcel(Closed())


def test_a_worker_that_ends_leaves_the_random_stream_of_its_process_alone(walk):
    with torch.random.fork_rng(devices=[]):
        expected = [torch.rand(2) for _ in range(3)]
    parcels = [Parcel(walk), Parcel(walk)]
    found = []
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        for parcel in parcels:
            thread.submit(work, parcel.key, parcel.packed, NODES).result()
            found.append(torch.rand(2))
    found.append(torch.rand(2))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_keys_differ_also_between_processes_that_start_alike(walk):
    torch.manual_seed(0)
    keys = {Parcel(walk).key for _ in range(50)}
    assert len(keys) == 50
    assert str(os.getpid()) not in keys
