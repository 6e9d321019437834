"""A surface on a Dask cluster of two worker processes, one of which is killed in the middle."""

import contextlib
import os
import signal
import types

import dask
import distributed
import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from typer.testing import CliRunner

from landscape import EmpiricalRisk, loss_surface, open_surface, random_directions
from landscape.cli import app


@contextlib.contextmanager
def two_workers():
    """A client of a scheduler with two worker processes of one thread each, all of them on this machine."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def client():
    """Of workers that live."""
    with two_workers() as client:
        yield client


@pytest.fixture
def mortal():
    """Of workers that may be killed: a cluster that has lost one serves no other test."""
    with two_workers() as client:
        yield client


@pytest.fixture
def images(tmp_path):
    """A float32 network whose loss leaves a letter in a file of its process for each evaluation."""
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))
    model.train()(torch.randn(16, 1, 8, 8))
    batches = [(torch.randn(20, 1, 8, 8), torch.randint(4, (20,)))]
    folder, fuse, here = tmp_path / "evaluations", tmp_path / "fuse", os.getpid()
    folder.mkdir()

    def loss(model, batch):
        evaluations = folder / str(os.getpid())
        with evaluations.open("a") as file:
            file.write("x")
        if os.getpid() != here and evaluations.stat().st_size == 15 and fuse.exists():
            try:
                fuse.unlink()  # one process alone can
            except FileNotFoundError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    risk = EmpiricalRisk(model.eval(), batches, loss)
    (folder / str(here)).unlink()

    def evaluations():
        """How many there were, by process."""
        counts = {int(file.name): file.stat().st_size for file in folder.iterdir()}
        for file in folder.iterdir():
            file.unlink()
        return counts

    return types.SimpleNamespace(
        risk=risk, directions=random_directions(risk.parameters()), evaluations=evaluations, fuse=fuse
    )


def workers(client):
    return set(client.run(os.getpid).values())


def same_bits(found, expected):
    xr.testing.assert_identical(found, expected)
    for name in ("loss", "loss_standard_error"):
        assert found[name].values.tobytes() == expected[name].values.tobytes()


@pytest.mark.parametrize("method", ["grid", "adaptive"])
def test_a_cluster_gives_the_same_bits_also_when_a_worker_is_killed(mortal, images, tmp_path, method, unchanged):
    how = {"points": 15, "method": method, "progress": False}
    expected = loss_surface(images.risk, images.directions, **how)
    images.evaluations()
    mortal.wait_for_workers(2, timeout=60)
    before = workers(mortal)
    assert len(before) == 2
    images.fuse.touch()
    with mortal.get_executor() as executor, unchanged(images.risk.model):
        found = loss_surface(images.risk, images.directions, executor=executor, path=tmp_path / "surface.nc", **how)
    assert not images.fuse.exists()
    assert found["loss"].notnull().all()
    del found.attrs["identity"]
    same_bits(found, expected)
    counts = images.evaluations()
    assert os.getpid() not in counts  # the work was done there, and not here
    assert before <= set(counts)
    assert max(counts[pid] for pid in before) >= 15
    # what the killed worker had in hand, or had not yet handed over, is done again
    evaluations = expected.attrs["evaluations"]
    assert evaluations < sum(counts.values()) <= evaluations + 128
    mortal.wait_for_workers(2, timeout=60)  # another one takes its place
    assert len(before & workers(mortal)) == 1


def test_an_exception_in_a_worker_reaches_the_caller(client, network):
    def loss(model, batch):
        if float(model[3].weight[0, 0]) > 100:
            raise ArithmeticError("too far away")
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    risk = EmpiricalRisk(network.model, network.batches, loss)
    directions = [{"3.weight": torch.ones(2, 4)}, {"0.weight": torch.ones(4, 3)}]
    with client.get_executor() as executor, pytest.raises(ArithmeticError, match="too far away"):
        loss_surface(risk, directions, span=1e6, points=3, method="grid", executor=executor, progress=False)


def test_data_of_a_few_megabytes_are_no_reason_to_warn(client):
    # Warnings are errors here; Dask warns of tasks that are large.
    images, labels = torch.randn(4000, 1000), torch.randint(3, (4000,))
    risk = EmpiricalRisk(nn.Linear(1000, 3).eval(), [(images, labels)])
    how = {"points": 3, "method": "grid", "progress": False}
    directions = random_directions(risk.parameters())
    with client.get_executor() as executor:
        found = loss_surface(risk, directions, executor=executor, **how)
    np.testing.assert_array_equal(found["loss"], loss_surface(risk, directions, **how)["loss"])


MODULE = """
import torch
from landscape import EmpiricalRisk

class Net(torch.nn.Sequential):
    pass  # no worker has this file

def mine():
    torch.manual_seed(0)
    return EmpiricalRisk(Net(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).eval(),
                         [(torch.randn(9, 3), torch.randint(2, (9,)))])
"""


def test_the_command_line_takes_the_address_of_a_scheduler(client, tmp_path, monkeypatch):
    (tmp_path / "models_of_a_cluster.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    words = ["surface", "models_of_a_cluster:mine", "--method", "grid", "--points", "5", "--output"]
    for where, more in {"here": [], "there": ["--scheduler", client.scheduler.address]}.items():
        done = CliRunner().invoke(app, [*words, where, *more])
        assert done.exit_code == 0, (done.output, done.exception)
    here, there = (open_surface(tmp_path / where / "mine.nc") for where in ("here", "there"))
    xr.testing.assert_equal(there, here)


def test_nobody_at_the_address(tmp_path, monkeypatch):
    (tmp_path / "models_of_nobody.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        done = CliRunner().invoke(app, ["surface", "models_of_nobody:mine", "--scheduler", "tcp://127.0.0.1:9"])
    assert done.exit_code == 2
    assert "scheduler: expected the address of a running one, got 'tcp://127.0.0.1:9'" in done.stderr
