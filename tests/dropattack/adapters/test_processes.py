"""Two processes: the gradient is the mean over the shards, and it is reduced once a step."""

import pytest
import torch
from by_hand import gradients, loss_on, make_model
from processes import LIBRARIES, METHODS, PROCESSES, process, shard
from torch.testing import assert_close

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(process, (str(folder),), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def alone(name, rank):
    model = make_model()
    method = METHODS[name](model)
    for batch in shard(rank):
        method.backward(lambda batch=batch: loss_on(model, batch), backward=lambda loss: (loss / 2).backward())
    return gradients(model)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_gradient_is_the_mean_over_the_shards(results, library, name):
    shards = [alone(name, rank) for rank in range(PROCESSES)]
    mean = {key: sum(one[key] for one in shards) / PROCESSES for key in shards[0]}
    for result in results:
        assert_close(result[library, name][0], mean)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_gradients_are_reduced_once(results, library, name):
    # One bucket holds all the gradients of so small a model: two micro-batches of several passes, one reduction.
    for result in results:
        assert result[library, name][1] == 1


def test_the_mixin_of_lightning_names_fabric(results):
    for result in results:
        assert "got DDPStrategy with 2: use Lightning Fabric" in result["lightning"]
