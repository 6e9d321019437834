"""A surface that was killed goes on where it stopped, with the same bits, and refuses points that are not its own."""

import collections
import copy
import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import EmpiricalRisk, loss_line, loss_surface, loss_volume, open_surface, random_directions

# A process that starts a surface anew until it is finished, and kills it at random moments. The child notes the weights
# of each evaluation before it begins; a pause makes sure that kills hit evaluations, and not the start alone.
KILLED_AGAIN_AND_AGAIN = r"""
import itertools, os, pathlib, random, signal, sys, time
import h5netcdf, torch
from torch import nn
from landscape import EmpiricalRisk, loss_surface, random_directions

torch.set_num_threads(1)
torch.manual_seed(0)
chance = random.Random(0)
model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)).eval()
inputs, labels = torch.randn(12, 3), torch.randint(2, (12,))
diary, pause = None, 0.0

def loss(model, batch):
    if diary is not None:
        os.write(diary, (model[0].weight.flatten()[:4].numpy().tobytes().hex() + "\n").encode())
        time.sleep(pause)
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

risks = {"train": EmpiricalRisk(model, [(inputs[:8], labels[:8])], loss),
         "test": EmpiricalRisk(model, [(inputs[8:], labels[8:])], loss)}
directions = random_directions(risks["train"].parameters())

def compute(folder, method):
    global diary
    diary = os.open(folder / f"{time.monotonic_ns()}.diary", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    loss_surface(risks, directions, points=(9, 7), span=0.7, tolerance=0.02, method=method, path=folder / "surface.nc",
                 progress=False)

for method, name in itertools.product(["grid", "adaptive"], ["once", "killed"]):
    folder = pathlib.Path(sys.argv[1], method, name)
    folder.mkdir(parents=True)
    kills, pause = (8, 0.002) if name == "killed" else (0, 0.0)
    while True:
        child = os.fork()
        if not child:
            try:
                compute(folder, method)
                os._exit(0)
            finally:
                os._exit(1)
        if kills:
            time.sleep(chance.uniform(0.0, 0.25))
            os.kill(child, signal.SIGKILL)
            kills -= 1
        _, status = os.waitpid(child, 0)
        if status == 0:
            break
        if not os.WIFSIGNALED(status):
            sys.exit(f"{method}, {name}: the surface could not be finished")
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, "-c", KILLED_AGAIN_AND_AGAIN, folder], check=True, timeout=300)
    return folder


@pytest.mark.parametrize("method", ["grid", "adaptive"])
def test_kills_at_random_moments_cost_the_points_in_flight_alone(killed, method):
    def diaries(name):
        """For each start, the weights at which it evaluated, in order."""
        return [file.read_text().split() for file in sorted((killed / method / name).glob("*.diary"))]

    folder = killed / method / "killed"
    same_bits(open_surface(folder / "surface.nc"), open_surface(killed / method / "once" / "surface.nc"))
    assert {file.suffix for file in folder.iterdir()} == {".diary", ".nc"}
    (uninterrupted,) = diaries("once")
    started = [diary for diary in diaries("killed") if diary]
    assert len(started) >= 3  # it was killed indeed, and in the middle
    assert all(len(diary) < len(uninterrupted) for diary in started)
    # Each point is two evaluations, one a split. What a start does again: the center, to see that it has the same
    # loss, and the point at which the last one was killed.
    evaluations = collections.Counter(itertools.chain.from_iterable(started))
    assert set(evaluations) == set(uninterrupted)
    center = uninterrupted[0]
    assert sum(count - 2 for place, count in evaluations.items() if place != center) <= 2 * (len(started) - 1)


def same_bits(found, expected):
    xr.testing.assert_identical(found, expected)
    for name, variable in expected.variables.items():
        if variable.dtype.kind == "f":
            assert variable.values.tobytes() == found[name].values.tobytes(), name


class Counted:
    """Cross-entropy that counts evaluations, and can be told to stop after some."""

    def __init__(self, factor=1.0):
        self.factor = factor
        self.calls = 0
        self.most = float("inf")

    def __call__(self, model, batch):
        self.calls += 1
        if self.calls > self.most:
            raise KeyboardInterrupt
        return self.factor * nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


class Shifted(nn.Module):
    """A network with a buffer that is saved with it, one that is not, and a parameter that does not move."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))
        self.frozen = nn.Parameter(torch.randn(2), requires_grad=False)
        self.register_buffer("table", torch.randn(2))
        self.register_buffer("mask", torch.randn(2), persistent=False)

    def forward(self, inputs):
        return self.layers(inputs) + self.frozen + self.table + self.mask


def first_margin(output, batch):
    return output[:, 0] - output[:, 1]


def right(output, batch):
    return (output.argmax(1) == batch[1]).double()


class Job:
    """Everything that a surface depends on, to be changed one by one."""

    def __init__(self):
        self.model = Shifted().eval()
        self.data = torch.randn(10, 3), torch.randint(2, (10,))
        self.size = 10
        self.loss = Counted()
        self.metrics = {"accuracy": right}
        self.options = {}
        self.statistics = None
        self.seed = 0
        self.how = {"points": (5, 4), "method": "grid", "span": 0.8}

    def run(self, path, function=loss_surface, **how):
        batches = list(zip(*(tensor.split(self.size) for tensor in self.data), strict=True))
        most, self.loss.most = self.loss.most, float("inf")
        statistics = {} if self.statistics is None else {"statistics": [(self.statistics, self.data[1])]}
        risk = EmpiricalRisk(self.model, batches, self.loss, self.metrics, **self.options, **statistics)
        self.loss.calls, self.loss.most = 0, most
        count = {loss_line: 1, loss_surface: 2, loss_volume: 3}[function]
        directions = random_directions(risk.parameters(), count, seed=self.seed)
        arguments = self.how | how
        return function(risk, directions[0] if count == 1 else directions, path=path, progress=False, **arguments)

    def stop_after(self, evaluations, path, *arguments, **how):
        self.loss.most = evaluations
        with pytest.raises(KeyboardInterrupt):
            self.run(path, *arguments, **how)
        self.loss.most = float("inf")
        return path.with_name("surface.nc.points")


@pytest.fixture
def job():
    return Job()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "surface.nc"


def nudge(tensor):
    """The smallest change there is: one number, to the next float."""
    with torch.no_grad():
        first = tensor.view(-1)[:1]
        first.copy_(torch.nextafter(first, first + 1))


CHANGES = {
    "a weight": (lambda job: nudge(job.model.layers[0].weight), "weights"),
    "a weight that no direction moves": (lambda job: nudge(job.model.layers[0].bias), "weights"),
    "a frozen parameter": (lambda job: nudge(job.model.frozen), "weights"),
    "running statistics": (lambda job: nudge(job.model.layers[1].running_var), "weights"),
    "a buffer": (lambda job: nudge(job.model.table), "weights"),
    "a buffer that is not saved": (lambda job: nudge(job.model.mask), "weights"),
    "a pixel": (lambda job: nudge(job.data[0]), "data"),
    "a label": (lambda job: job.data[1].sub_(1).abs_(), "data"),
    "the division into batches": (lambda job: setattr(job, "size", 5), "data"),
    "the order of the examples": (lambda job: setattr(job, "data", [tensor.flip(0) for tensor in job.data]), "data"),
    "the seed of the directions": (lambda job: setattr(job, "seed", 1), "directions"),
    "the span": (lambda job: job.how.update(span=0.81), "span"),
    "one of the spans": (lambda job: job.how.update(span=(0.8, 0.9)), "span"),
    "the points": (lambda job: job.how.update(points=(5, 6)), "points"),
    "the method": (lambda job: job.how.update(method="adaptive"), "method, points"),
    "another metric": (lambda job: setattr(job, "metrics", {"margin": first_margin}), "metrics"),
    "one metric more": (lambda job: job.metrics.update(margin=first_margin), "metrics"),
    "a metric of the same name": (lambda job: setattr(job, "metrics", {"accuracy": first_margin}), "metric"),
    "the precision": (lambda job: job.options.update(autocast=torch.bfloat16), "options"),
    "a subset": (lambda job: job.options.update(max_batches=1), "options"),
    "estimating statistics": (lambda job: setattr(job, "statistics", torch.randn(10, 3)), "options"),
    "the loss": (lambda job: setattr(job, "loss", Counted(1.01)), "another loss function"),
}


@pytest.mark.parametrize("points", [(5, 3), (4, 4)], ids=["odd", "even"])  # with and without the center on the grid
@pytest.mark.parametrize("left", ["a journal", "a file"])
@pytest.mark.parametrize("change", CHANGES)
def test_points_of_something_else_are_refused_and_stay(job, path, left, points, change):
    job.how["points"] = points
    file = path if left == "a file" else path.with_name("surface.nc.points")
    if left == "a file":
        job.run(path)
    else:
        job.stop_after(6, path)
    content, original = file.read_bytes(), copy.deepcopy(job)
    alter, words = CHANGES[change]
    alter(job)
    with pytest.raises(ValueError, match=rf"{file.name}.* belongs? to (other )?{words}.*delete it.*another path"):
        job.run(path)
    assert file.read_bytes() == content
    assert [each.name for each in path.parent.iterdir()] == [file.name]
    original.run(path)
    assert original.loss.calls <= 1 + points[0] * points[1] + 1 - (6 if left == "a journal" else points[0] * points[1])


@pytest.mark.parametrize("left", ["a journal", "a file"])
def test_the_batches_of_statistics_count_as_data(job, path, left):
    job.statistics = torch.randn(10, 3)
    if left == "a file":
        job.run(path)
    else:
        job.stop_after(12, path)
    nudge(job.statistics)
    with pytest.raises(ValueError, match="belongs to other"):
        job.run(path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_split_has_its_own_data(network, path, split):
    inputs, labels = network.data
    data = {"train": (inputs[:6], labels[:6]), "test": (inputs[6:], labels[6:])}

    def run():
        risks = {name: EmpiricalRisk(network.model, [batch]) for name, batch in data.items()}
        directions = random_directions(risks["train"].parameters())
        return loss_surface(risks, directions, points=3, method="grid", path=path, progress=False)

    expected = run()
    same_bits(run(), expected)
    nudge(data[split][0])
    with pytest.raises(ValueError, match=r"belongs to other data"):
        run()
    risk = EmpiricalRisk(network.model, [data["train"]])
    with pytest.raises(ValueError, match=r"belongs to other options, data, metrics"):
        loss_surface(risk, random_directions(risk.parameters()), points=3, method="grid", path=path, progress=False)


KINDS = {
    "line": (loss_line, {"points": 15, "method": "grid"}),
    "adaptive line": (loss_line, {"points": 9, "method": "adaptive"}),
    "surface": (loss_surface, {"points": (4, 5), "method": "grid"}),
    "adaptive surface": (loss_surface, {"points": (4, 5), "method": "adaptive"}),
    "volume": (loss_volume, {"points": (3, 2, 4), "method": "grid"}),
    "adaptive volume": (loss_volume, {"points": 3, "method": "adaptive"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_missing_is_evaluated(job, path, tmp_path, kind):
    function, how = KINDS[kind]
    expected = job.run(None, function, **how)
    all_of_them = job.loss.calls
    journal = job.stop_after(7, path, function, **how)
    assert len(journal.read_text().splitlines()) == 1 + 7
    job.stop_after(6, path, function, **how)  # the center, which has to be as it was, and five new ones
    assert len(journal.read_text().splitlines()) == 1 + 12
    again = job.run(path, function, **how)
    assert job.loss.calls == 1 + all_of_them - 12
    same_bits(again.drop_attrs(), expected.drop_attrs())
    assert not journal.exists()
    # and a finished one costs a look at its center, to see that the loss is the same
    same_bits(job.run(path, function, **how), again)
    assert job.loss.calls == 1


@pytest.mark.parametrize("kind", ["adaptive line", "adaptive surface", "adaptive volume"])
def test_a_tighter_tolerance_goes_on_from_the_file(job, path, kind):
    function, how = KINDS[kind]
    how = how | {"span": 2.0}
    tight, loose = {"tolerance": 1e-5 if function is loss_line else 0.004}, {"tolerance": 0.2}
    expected = job.run(None, function, **how, **tight)
    all_of_them = job.loss.calls
    job.run(path, function, **how, **loose)
    before = job.loss.calls
    found = job.run(path, function, **how, **tight)
    assert before < all_of_them
    # Not every point of the first is a point of the second, as it audited other cells.
    assert all_of_them - before <= job.loss.calls - 1 <= all_of_them - before / 2
    same_bits(found.drop_attrs(), expected.drop_attrs())


def test_what_was_predicted_is_not_taken_for_evaluated(job, path):
    how = {"method": "adaptive", "span": 4.0, "points": 5}
    expected = job.run(None, tolerance=2e-4, **how)
    first = job.run(path, tolerance=2e-3, **how)
    assert not first["evaluated"].all()  # otherwise there is nothing to take for anything
    assert first["evaluated"].sum() > 81
    same_bits(job.run(path, tolerance=2e-4, **how).drop_attrs(), expected.drop_attrs())


def test_another_resolution_of_an_adaptive_surface_costs_no_evaluation(job, path):
    coarse = job.run(path, method="adaptive", points=5)
    fine = job.run(path, method="adaptive", points=(9, 33))
    assert job.loss.calls == 1  # the center
    assert fine["loss"].shape == (9, 33)
    np.testing.assert_allclose(fine["loss"][::2, ::8], coarse["loss"], rtol=1e-12)
    same_bits(open_surface(path)[["loss"]].drop_attrs(), fine[["loss"]].drop_attrs())


def test_a_looser_tolerance_does_not_throw_points_away(job, path):
    how = {"method": "adaptive", "span": 2.0}
    tight = job.run(path, tolerance=0.002, **how)
    job.run(path, tolerance=0.2, **how)
    assert job.loss.calls == 1
    same_bits(job.run(path, tolerance=0.002, **how)[["loss"]], tight[["loss"]])
    assert job.loss.calls == 1


def test_a_journal_and_a_file_are_read_together(job, path):
    how = {"method": "adaptive", "span": 2.0}
    job.run(None, tolerance=0.002, **how)
    all_of_them = job.loss.calls
    job.run(path, tolerance=0.2, **how)
    before = job.loss.calls
    journal = job.stop_after(6, path, tolerance=0.002, **how)
    assert len(journal.read_text().splitlines()) == 1 + 5
    job.run(path, tolerance=0.002, **how)
    assert job.loss.calls - 1 <= all_of_them - before / 2 - 5
    assert [file.name for file in path.parent.iterdir()] == ["surface.nc"]


def test_a_kill_between_the_last_two_steps_costs_nothing(job, path, monkeypatch):
    # The file is written, the journal is not yet deleted.
    expected = job.run(path)
    content = path.read_bytes()
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "unlink", lambda *_, **__: None)
        job.run(path)
    assert path.with_name("surface.nc.points").exists()
    same_bits(job.run(path), expected)
    assert job.loss.calls == 1
    assert not path.with_name("surface.nc.points").exists()
    assert len(content) == path.stat().st_size


def test_a_torn_last_line_is_evaluated_again(job, path):
    expected = job.run(None)
    journal = job.stop_after(7, path)
    journal.write_bytes(journal.read_bytes()[:-9])
    found = job.run(path)
    assert job.loss.calls == 1 + 21 - 6 - (5 * 4 % 2 == 1)
    same_bits(found.drop_attrs(), expected.drop_attrs())


def test_a_damaged_journal_says_so(job, path):
    journal = job.stop_after(7, path)
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:3], lines[3][:20] + "\n", *lines[4:]]))
    with pytest.raises(ValueError, match=r"surface\.nc\.points is damaged \(.*\); delete it to start anew"):
        job.run(path)
    assert job.loss.calls == 0


def test_losses_that_are_not_numbers_go_through_journal_and_file(job, path):
    def wall(model, batch):
        losses = Counted()(model, batch)
        first = float(model.layers[0].weight[0, 0] - edge)
        return losses * (torch.nan if first > 0.1 else torch.inf if first < -0.1 else 1.0)

    edge = float(job.model.layers[0].weight[0, 0].detach())
    batch = job.data
    risk = EmpiricalRisk(job.model, [batch], wall, {"accuracy": right})
    directions = random_directions(risk.parameters())
    for method in ("grid", "adaptive"):
        file = path.with_name(f"{method}.nc")
        how = {"points": 5, "method": method, "progress": False}
        expected = loss_surface(risk, directions, **how)
        assert np.isnan(expected["loss"]).any()
        assert np.isinf(expected["loss"]).any()
        made = loss_surface(risk, directions, path=file, **how)
        same_bits(made.drop_attrs(), expected.drop_attrs())
        same_bits(loss_surface(risk, directions, path=file, **how), made)


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_keeping_points_leaves_the_random_stream_alone(network, path, unchanged, shuffle):
    loader = DataLoader(TensorDataset(*network.data), batch_size=4, shuffle=shuffle)
    risk = EmpiricalRisk(network.model, loader)
    directions = random_directions(risk.parameters())
    with unchanged(network.model):
        loss_surface(risk, directions, points=3, method="grid", path=path, progress=False)


def test_one_example_goes_on_from_its_file(network, path):
    # Its standard error is nowhere a number.
    inputs, labels = network.data
    risk = EmpiricalRisk(network.model, [(inputs[:1], labels[:1])])
    directions = random_directions(risk.parameters())
    for tolerance in (0.2, 0.002):
        made = loss_surface(risk, directions, span=2.0, points=5, tolerance=tolerance, path=path, progress=False)
    fresh = loss_surface(risk, directions, span=2.0, points=5, tolerance=0.002, progress=False)
    same_bits(made.drop_attrs(), fresh.drop_attrs())


def test_a_file_without_an_identity_is_refused(job, path):
    made = job.run(None)
    made.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match="does not say which weights and data it belongs to; choose another path"):
        job.run(path)


@pytest.mark.parametrize("number", [np.int64, int])
def test_numbers_of_numpy_are_numbers(job, path, number):
    made = job.run(path, points=(number(3), number(2)), span=(np.float64(0.5), np.float64(0.25)))
    assert made["loss"].shape == (3, 2)
    same_bits(job.run(path, points=(3, 2), span=(0.5, 0.25)), made)
    assert json.loads(made.attrs["identity"])["span"] == [0.5, 0.25]
