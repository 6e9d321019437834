"""Options of the risk that change its numbers are explicit, recorded, and do what they say."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import EmpiricalRisk, loss_line, loss_surface, random_directions

BFLOAT16 = torch.bfloat16


@pytest.fixture
def narrow():
    """A float32 classifier whose logits are large enough for bfloat16 to show, and its batches."""
    model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 4)).eval()
    with torch.no_grad():
        model[2].weight.mul_(6)
    return model, [(torch.randn(n, 3), torch.randint(4, (n,))) for n in (9, 9, 4)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 99])
def test_the_first_batches_only(network, count):
    inputs, labels = (tensor[: 3 * count] for tensor in network.data)
    risk = EmpiricalRisk(network.model, network.batches, max_batches=count)
    losses = nn.functional.cross_entropy(network.model(inputs), labels, reduction="none").detach()
    assert risk.count == len(inputs) == min(3 * count, 10)
    assert risk().count == risk.count
    assert risk().loss == pytest.approx(float(losses.mean()), rel=1e-13)
    assert risk.options == {"subset": f"the first {count} batches"}


def test_derivatives_are_of_the_same_batches(network):
    few = EmpiricalRisk(network.model, network.batches, max_batches=2)
    cut = EmpiricalRisk(network.model, network.batches[:2])
    vector = {name: torch.randn_like(value) for name, value in cut.parameters().items()}
    for found, expected in (
        (few.gradient(), cut.gradient()),
        (few.hessian_product(vector), cut.hessian_product(vector)),
    ):
        for name, value in expected.items():
            assert torch.equal(found[name], value)
    assert sum(map(len, few.example_losses())) == 6


def test_no_more_batches_are_read_than_used(network):
    read = []

    class Batches:
        def __iter__(self):
            for i, batch in enumerate(network.batches):
                read.append(i)
                yield batch

    risk = EmpiricalRisk(network.model, Batches(), max_batches=2)
    assert set(read) == {0, 1}
    read.clear()
    risk()
    assert read == [0, 1]


def test_subsets_are_part_of_the_data(network):
    fingerprints = [
        EmpiricalRisk(network.model, network.batches, max_batches=count).fingerprint() for count in (1, 2, None)
    ]
    assert len(set(fingerprints)) == 3
    whole = EmpiricalRisk(network.model, network.batches, max_batches=99).fingerprint()
    assert whole == fingerprints[2]


def test_the_same_examples_for_every_model(network):
    # A loader that does not shuffle gives every model the same first batches.
    loader = DataLoader(TensorDataset(*network.data), batch_size=4)
    risk = EmpiricalRisk(network.model, loader, max_batches=1)
    expected = EmpiricalRisk(network.model, [tuple(tensor[:4] for tensor in network.data)])
    assert risk().loss == expected().loss
    assert risk.fingerprint() == expected.fingerprint()


@pytest.mark.parametrize("count", [0, -1])
def test_no_batches_at_all(network, count):
    with pytest.raises(ValueError, match=f"max_batches: expected a whole number of at least 1, got {count}"):
        EmpiricalRisk(network.model, network.batches, max_batches=count)


def test_half_a_batch(network):
    with pytest.raises((TypeError, ValueError), match=r"max_batches: expected .*, got 1.5"):
        EmpiricalRisk(network.model, network.batches, max_batches=1.5)


def by_autocast(model, batches):
    """The mean loss under autocast, batch by batch."""
    total, count = 0.0, 0
    for inputs, labels in batches:
        with torch.no_grad(), torch.autocast("cpu", BFLOAT16):
            total += float(nn.functional.cross_entropy(model(inputs), labels, reduction="none").double().sum())
        count += len(labels)
    return total / count


def test_autocast_gives_the_numbers_of_bfloat16(narrow):
    model, batches = narrow
    wide, cast = EmpiricalRisk(model, batches), EmpiricalRisk(model, batches, autocast=BFLOAT16)
    assert cast().loss == pytest.approx(by_autocast(model, batches), rel=1e-7)
    assert cast().loss != wide().loss
    # bfloat16 keeps 8 bits.
    assert cast().loss == pytest.approx(wide().loss, rel=0.05)
    assert cast.options == {"precision": "autocast to bfloat16"}
    assert wide.options == {}


def test_autocast_ends_with_the_evaluation(narrow):
    model, batches = narrow
    EmpiricalRisk(model, batches, autocast=BFLOAT16)()
    assert not torch.is_autocast_enabled("cpu")
    assert model(batches[0][0]).dtype == torch.float32


def test_autocast_sees_the_weights_move(narrow):
    model, batches = narrow
    risk = EmpiricalRisk(model, batches, autocast=BFLOAT16)
    direction = random_directions(risk.parameters(), 1)[0]
    line = loss_line(risk, direction, points=5, method="grid", progress=False)
    wide = loss_line(EmpiricalRisk(model, batches), direction, points=5, method="grid", progress=False)
    center = risk.parameters()
    for alpha in line["alpha"].values:
        point = {name: center[name] + float(alpha) * step for name, step in direction.items()}
        assert float(line["loss"].sel(alpha=alpha)) == pytest.approx(risk(point).loss, rel=1e-6)
    np.testing.assert_allclose(line["loss"], wide["loss"], rtol=0.05)
    assert not np.array_equal(line["loss"], wide["loss"])
    assert np.ptp(wide["loss"].values) > 0.2


@pytest.mark.parametrize("method", ["grid", "adaptive"])
def test_an_outer_autocast_block_does_not_flatten_surfaces(narrow, method):
    # It keeps casts of weights until it ends; those of one point must not serve for the next.
    model, batches = narrow
    risk = EmpiricalRisk(model, batches)
    direction = random_directions(risk.parameters(), 1)[0]
    expected = loss_line(
        EmpiricalRisk(model, batches, autocast=BFLOAT16), direction, points=9, method=method, progress=False
    )
    with torch.autocast("cpu", BFLOAT16):
        found = loss_line(risk, direction, points=9, method=method, progress=False)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
    assert np.ptp(expected["loss"].values) > 0.2


def test_gradients_under_autocast(narrow):
    model, batches = narrow
    wide, cast = EmpiricalRisk(model, batches).gradient(), EmpiricalRisk(model, batches, autocast=BFLOAT16).gradient()
    for name, gradient in wide.items():
        assert cast[name].dtype == gradient.dtype
        assert not torch.equal(cast[name], gradient)
        assert float((cast[name] - gradient).norm() / gradient.norm()) < 0.1


def test_the_model_is_unchanged_by_all_options_together(unchanged):
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).eval()
    batches = [(torch.randn(n, 3), torch.randint(2, (n,))) for n in (5, 5, 2)]
    with unchanged(model):
        risk = EmpiricalRisk(model, batches, max_batches=2, statistics=batches, autocast=BFLOAT16)
        risk()
        risk.gradient()
        line = loss_line(risk, random_directions(risk.parameters(), 1)[0], points=3, progress=False)
    assert risk.count == 10
    assert risk.options == {
        "subset": "the first 2 batches",
        "batch_norm": "statistics estimated anew at each point",
        "precision": "autocast to bfloat16",
    }
    assert {name: line.attrs[name] for name in risk.options} == risk.options


@pytest.mark.parametrize("method", ["grid", "adaptive"])
def test_options_are_recorded_in_surfaces(network, method):
    plain = EmpiricalRisk(network.model, network.batches)
    few = EmpiricalRisk(network.model, network.batches, max_batches=2)
    directions = random_directions(plain.parameters())
    surfaces = [loss_surface(risk, directions, points=3, method=method, progress=False) for risk in (plain, few)]
    assert not {"subset", "batch_norm", "precision"} & set(surfaces[0].attrs)
    assert surfaces[1].attrs["subset"] == "the first 2 batches"
    assert [list(surface.attrs["examples"]) for surface in surfaces] == [[10], [6]]


def test_options_of_every_split_are_recorded(network):
    # Train on a subset, test on all: the surface must not say that both are on the subset, or neither.
    risks = {
        "test": EmpiricalRisk(network.model, network.batches),
        "train": EmpiricalRisk(network.model, network.batches, max_batches=2),
    }
    direction = random_directions(risks["test"].parameters(), 1)[0]
    line = loss_line(risks, direction, points=3, method="grid", progress=False)
    assert list(line.attrs["examples"]) == [10, 6]
    assert any("the first 2 batches" in str(value) for value in line.attrs.values())


def test_a_file_of_other_options_is_refused(network, tmp_path):
    path = tmp_path / "line.nc"
    plain = EmpiricalRisk(network.model, network.batches)
    direction = random_directions(plain.parameters(), 1)[0]
    loss_line(plain, direction, points=3, path=path, progress=False)
    for options, differing in (({"max_batches": 2}, "options, data"), ({"autocast": BFLOAT16}, "options")):
        other = EmpiricalRisk(network.model, network.batches, **options)
        with pytest.raises(ValueError, match=f"belongs to other {differing}"):
            loss_line(other, direction, points=3, path=path, progress=False)


def test_options_are_given_by_name(network):
    with pytest.raises(TypeError, match="positional"):
        EmpiricalRisk(network.model, network.batches, None, None, None, 2)
