"""Batches of any structure, their fingerprint, and how often they are read."""

import collections
import copy

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader, TensorDataset

from landscape import EmpiricalRisk, loss_surface, random_directions
from landscape.evaluation.batches import are_ready, fingerprint_of_batches, moved

Pair = collections.namedtuple("Pair", "inputs labels")


class Encoding(collections.UserDict):
    """As the batches of Hugging Face tokenizers: a dictionary that can move itself."""

    def to(self, device):
        self.data = {key: value.to(device) for key, value in self.data.items()}
        return self


class Record:
    """A batch of a library that this one does not know."""

    def __init__(self, inputs):
        self.inputs = inputs


def structures():
    inputs, labels = torch.arange(6.0).reshape(2, 3), torch.tensor([0, 1])
    return {
        "tensor": inputs,
        "tuple": (inputs, labels),
        "list": [inputs, labels],
        "named tuple": Pair(inputs, labels),
        "dictionary": {"inputs": inputs, "labels": labels},
        "nested": {"a": [inputs, (labels, "text", 3, 0.5, None, True)], "b": Pair({"c": inputs}, b"bytes")},
        "packed": (pack_sequence([inputs[0], inputs[1, :2]]), labels),
        "packed unsorted": (pack_sequence([inputs[1, :2], inputs[0]], enforce_sorted=False), labels),
        "tokenizer": Encoding(inputs=inputs, labels=labels),
        "ordered": collections.OrderedDict(inputs=inputs, labels=labels),
    }


KINDS = list(structures())
META = torch.device("meta")


def leaves(batch):
    """All tensors of a batch."""
    if isinstance(batch, torch.Tensor):
        return [batch]
    if isinstance(batch, PackedSequence):
        return [batch.data]  # the sizes of a packed sequence stay on the CPU
    if isinstance(batch, dict | collections.UserDict):
        return leaves(list(batch.values()))
    return [tensor for part in batch for tensor in leaves(part)] if isinstance(batch, tuple | list) else []


@pytest.mark.parametrize("kind", KINDS)
def test_all_tensors_are_moved_and_the_structure_stays(kind):
    batch = structures()[kind]
    if "packed" in kind:
        found = moved(batch, torch.device("cpu"))
        assert isinstance(found[0], PackedSequence)
        torch.testing.assert_close(list(found[0]), list(batch[0]))
        return
    found = moved(copy.deepcopy(batch), META)
    expected = dict if kind == "ordered" else type(batch)
    assert isinstance(found, expected)
    assert len(leaves(found)) == len(leaves(batch)) >= 1
    for tensor, before in zip(leaves(found), leaves(batch), strict=True):
        assert tensor.device == META
        assert tensor.shape == before.shape
    if kind == "nested":
        assert found["a"][1][1:] == ("text", 3, 0.5, None, True)
        assert isinstance(found["b"], Pair)
        assert found["b"].labels == b"bytes"
    if "dict" in kind or kind in ("ordered", "tokenizer"):
        assert list(found) == ["inputs", "labels"]


def test_what_is_there_already_is_not_copied():
    batch = structures()["nested"]
    found = moved(batch, torch.device("cpu"))
    assert [tensor.data_ptr() for tensor in leaves(found)] == [tensor.data_ptr() for tensor in leaves(batch)]


def test_things_without_tensors_stay_as_they_are():
    thing = Record(torch.ones(2))
    assert moved((thing, "text"), META)[0] is thing


def test_batches_in_memory_are_ready():
    batches = [structures()[kind] for kind in KINDS]
    assert are_ready(batches, torch.device("cpu"))
    assert are_ready(tuple(batches), torch.device("cpu"))
    assert not are_ready(batches, META)
    assert not are_ready([*batches, (torch.ones(2, device=META),)], torch.device("cpu"))
    assert not are_ready(DataLoader(torch.ones(3, 2)), torch.device("cpu"))
    assert not are_ready([(batches[0], {"deep": [torch.ones(1, device=META)]})], torch.device("cpu"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fingerprint_is_the_same_at_each_reading(kind):
    batches = [structures()[kind], structures()[kind]]
    found = fingerprint_of_batches(batches)
    assert found == fingerprint_of_batches(batches)
    assert found == fingerprint_of_batches(copy.deepcopy(batches))
    assert found == fingerprint_of_batches(iter(batches))
    assert len(found) == 32


@pytest.mark.parametrize("kind", KINDS)
def test_a_fingerprint_changes_with_the_last_bit_of_each_tensor(kind):
    found = {fingerprint_of_batches([structures()[kind]])}
    count = len(leaves(structures()[kind]))
    for which in range(count):
        for place in (0, -1):
            batch = structures()[kind]
            leaves(batch)[which].view(-1)[place:].view(torch.uint8)[:1] ^= 1
            found.add(fingerprint_of_batches([batch]))
    # 'nested' and others may hold one tensor twice; the last place of a tensor of one number is its first
    distinct = len({tensor.data_ptr() for tensor in leaves(structures()[kind])})
    assert len(found) == 1 + 2 * min(distinct, count)


A, B = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])

PAIRS = {
    "value": ([A], [A + 1]),
    "zero and minus zero": ([torch.tensor([0.0])], [torch.tensor([-0.0])]),
    "shape": ([A], [A[:, None]]),
    "shape of nothing": ([torch.zeros(0, 3)], [torch.zeros(0, 4)]),
    "type of the same bits": ([torch.tensor([1.0])], [torch.tensor([1.0]).view(torch.int32)]),
    "type": ([A], [A.double()]),
    "order in a batch": ([(A, B)], [(B, A)]),
    "order of batches": ([A, B], [B, A]),
    "division": ([(A, B)], [A, B]),
    "division of examples": ([torch.cat([A, B])], [A, B]),
    "an empty batch more": ([(A,)], [(A,), ()]),
    "keys": ([{"a": A}], [{"b": A}]),
    "order of keys": ([{"a": A, "b": B}], [{"b": B, "a": A}]),
    "which key has which": ([{"a": A, "b": B}], [{"a": B, "b": A}]),
    "text": ([(A, "yes")], [(A, "no")]),
    "numbers": ([(A, 1)], [(A, 2)]),
    "numbers that read alike in a row": ([(1, 12)], [(11, 2)]),
    "numbers and nothing": ([(A, 0)], [(A, None)]),
    "lengths": ([pack_sequence([A, B[:1]])], [pack_sequence([A, B])]),
    "order of sequences": (
        [pack_sequence([A, B[:1]], enforce_sorted=False)],
        [pack_sequence([B[:1], A], enforce_sorted=False)],
    ),
    "arrays of NumPy": ([np.array([1.0, 2.0])], [np.array([1.0, 3.0])]),
    "shape of arrays": ([np.zeros((2, 3))], [np.zeros((3, 2))]),
    "type of arrays": ([np.zeros(2, np.float32)], [np.zeros(2, np.int32)]),
    "numbers of NumPy": ([(A, np.float32(1.0))], [(A, np.float32(2.0))]),
    "tokenizers": ([Encoding(ids=A)], [Encoding(ids=B)]),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_fingerprint_changes_with_everything(pair):
    one, other = PAIRS[pair]
    assert fingerprint_of_batches(one) != fingerprint_of_batches(other)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.5),
        torch.tensor([True, False]),
        torch.ones(3).bfloat16(),
        torch.tensor([1 + 2j]),
        torch.arange(6.0).reshape(2, 3).T,
        torch.ones(1).expand(5),
        torch.ones(2, requires_grad=True),
        torch.eye(3).to_sparse(),
    ],
    ids=["scalar", "boolean", "bfloat16", "complex", "transposed", "expanded", "with gradient", "sparse"],
)
def test_tensors_of_all_kinds_have_a_fingerprint(tensor):
    assert fingerprint_of_batches([tensor]) == fingerprint_of_batches([tensor.detach().clone()])
    assert fingerprint_of_batches([tensor]) != fingerprint_of_batches([tensor * 0])


def test_a_risk_has_the_fingerprint_of_the_batches_it_uses(network):
    def of(batches, **options):
        return EmpiricalRisk(network.model, batches, **options).fingerprint()

    assert of(network.batches, max_batches=2) == of(network.batches[:2]) != of(network.batches)
    assert of(network.batches) == of(tuple(network.batches))
    loader = DataLoader(TensorDataset(*network.data), batch_size=3)
    assert of(loader) == of([list(batch) for batch in network.batches])


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_a_fingerprint_of_a_data_loader_leaves_the_random_stream_alone(network, unchanged, shuffle):
    loader = DataLoader(TensorDataset(*network.data), batch_size=4, shuffle=shuffle)
    risk = EmpiricalRisk(network.model, loader)
    with unchanged(network.model):
        risk.fingerprint()


class Read:
    """Batches that are made anew at each reading, and count these."""

    def __init__(self, batches):
        self.batches = batches
        self.readings = 0

    def __iter__(self):
        self.readings += 1
        return iter(copy.deepcopy(self.batches))


@pytest.mark.parametrize("splits", [False, True], ids=["one", "two splits"])
def test_points_share_readings_and_have_the_same_bits_as_from_lists(network, splits):
    def surface(batches):
        risk = EmpiricalRisk(network.model, batches)
        if isinstance(batches, Read):
            batches.readings = 0
        directions = random_directions(risk.parameters())
        return loss_surface(
            {"train": risk, "test": risk} if splits else risk, directions, points=(9, 8), method="grid", progress=False
        )

    read = Read(network.batches)
    xr.testing.assert_identical(surface(read), surface(network.batches))
    assert read.readings <= 0.15 * 73 * (1 + splits)


def test_batches_in_memory_are_read_point_by_point(network):
    # Weights are moved once for each point then, not once for each point and batch.
    writes = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = network.model

        def forward(self, inputs):
            writes.append(self.layers[0].weight._version)
            return self.layers(inputs)

    risk = EmpiricalRisk(Watched().eval(), network.batches)
    writes.clear()
    loss_surface(risk, random_directions(risk.parameters()), points=5, method="grid", progress=False)
    assert len(writes) == 25 * len(network.batches)
    assert len(set(writes)) <= 25


def test_a_data_loader_with_new_statistics_has_the_same_bits_as_a_list(network):
    loader = DataLoader(TensorDataset(*network.data), batch_size=5)
    batches = list(zip(*(tensor.split(5) for tensor in network.data), strict=True))
    values = [EmpiricalRisk(network.model, each, statistics=each) for each in (batches, loader, Read(batches))]
    surfaces = [
        loss_surface(risk, random_directions(risk.parameters()), points=3, method="grid", progress=False)
        for risk in values
    ]
    xr.testing.assert_identical(surfaces[0], surfaces[1])
    xr.testing.assert_identical(surfaces[0], surfaces[2])
    plain = EmpiricalRisk(network.model, batches)
    assert plain().loss != values[0]().loss
