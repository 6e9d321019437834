"""The same examples in the same order, in batches of another size, whatever a batch is made of."""

import typing

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from landscape.flatness.resplit import resplit


class Labelled(typing.NamedTuple):
    inputs: torch.Tensor
    labels: torch.Tensor


def columns(size):
    return torch.arange(size * 2.0).reshape(size, 2), torch.arange(size)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 50])
@pytest.mark.parametrize("given", [[3, 3, 1], [7], [1] * 7])
def test_order_and_sizes(size, given):
    inputs, labels = columns(7)
    batches = zip(inputs.split(given), labels.split(given), strict=True)
    found = list(resplit(batches, size))
    assert [len(batch[1]) for batch in found] == [len(part) for part in labels.split(size)]
    torch.testing.assert_close(torch.cat([batch[0] for batch in found]), inputs)
    torch.testing.assert_close(torch.cat([batch[1] for batch in found]), labels)


def test_structure_is_kept():
    inputs, labels = columns(4)
    batch = {"inputs": [inputs, (labels,)], "pair": Labelled(inputs, labels)}
    first, second = resplit([batch, batch], 5)
    assert isinstance(first["inputs"], list)
    assert isinstance(first["inputs"][1], tuple)
    assert isinstance(second["pair"], Labelled)
    torch.testing.assert_close(first["pair"].labels, torch.tensor([0, 1, 2, 3, 0]))
    torch.testing.assert_close(second["inputs"][0], inputs[1:])


@pytest.mark.parametrize("batch", ["text", {"ids": ["a", "b"]}, pack_sequence([torch.ones(2, 1)])], ids=str)
def test_something_else_than_tensors(batch):
    with pytest.raises(TypeError, match=r"tuples, lists or dictionaries of tensors, got a (str|PackedSequence); leave"):
        list(resplit([batch], 2))


@pytest.mark.parametrize("extra", [torch.zeros(3), torch.tensor(1.0)], ids=["another length", "a scalar"])
def test_tensors_of_other_lengths(extra):
    with pytest.raises(TypeError, match="to share their first dimension, one entry for each example; got sizes"):
        list(resplit([(torch.zeros(2), extra)], 2))


def test_batches_that_are_padded_to_different_lengths():
    with pytest.raises(ValueError, match=r"examples_a_batch: expected batches that can be joined, but: .* Pad all of"):
        list(resplit([(torch.zeros(2, 3),), (torch.zeros(2, 4),)], 4))
