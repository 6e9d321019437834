"""Two processes: the gradient of data-parallel training is the mean over the shards."""

import pytest
import torch
from cases import EVERY
from ddp_process import (
    ALIKE_CASES,
    CASES,
    PROCESSES,
    SYNC_CASES,
    make_model,
    make_shard,
    process,
    run_every,
    run_step,
)
from torch.testing import assert_close

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
EXACT = {"rtol": 0, "atol": 1e-12}
AROUND = pytest.mark.parametrize("no_sync", [True, False], ids=["no_sync", "every pass synchronized"])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(process, (str(folder),), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_the_mean_over_the_shards(results, name):
    alone = [run_step(make_model(), make_shard(rank), CASES[name]) for rank in range(PROCESSES)]
    mean = {key: sum(one["gradients"][key] for one in alone) / PROCESSES for key in alone[0]["gradients"]}
    for rank in range(PROCESSES):
        actual = results[rank]["ordinary", name, True]
        assert_close(actual["gradients"], mean, **EXACT)
        assert_close(actual["perturbations"], alone[rank]["perturbations"], **EXACT)
        assert_close(actual["buffers"], alone[rank]["buffers"], **EXACT)


@AROUND
@pytest.mark.parametrize("name", SYNC_CASES)
def test_synchronized_weight_attack_is_that_of_the_whole_batch(results, name, no_sync):
    # Shards of equal size, no batch statistics, one mask: the mean of the shards' gradients is the gradient of the
    # mean loss over both shards, in the clean pass and, at equal offsets, in each ascent step.
    shards = [make_shard(rank) for rank in range(PROCESSES)]
    batch = tuple(torch.cat(tensors) for tensors in zip(*shards, strict=True))
    options = SYNC_CASES[name] | {"sync_perturbation": False}
    whole = run_step(make_model(), batch, options, batch_norm=False)
    for actual in results:
        assert_close(actual["sync", name, no_sync]["perturbations"], whole["perturbations"], **EXACT)
        assert_close(actual["sync", name, no_sync]["gradients"], whole["gradients"], **EXACT)


@AROUND
@pytest.mark.parametrize("name", ALIKE_CASES)
def test_synchronized_processes_perturb_their_weights_alike(results, name, no_sync):
    first, second = (result["alike", name, no_sync]["perturbations"] for result in results)
    weights = [site for site in first if site != "0"]
    assert weights
    for site in weights:
        assert first[site].any()
        assert torch.equal(first[site], second[site]), site


@AROUND
def test_gradients_agree_between_the_processes(results, no_sync):
    keys = [key for key in results[0] if key[0] != "every" and key[2] == no_sync]
    for key in keys:
        assert_close(results[0][key]["gradients"], results[1][key]["gradients"], rtol=0, atol=0)


@pytest.mark.parametrize("case", EVERY)
def test_every_method_takes_the_mean_over_the_shards(results, case):
    for one, other in zip(results[0]["every", case], results[1]["every", case], strict=True):
        assert_close(one, other, rtol=0, atol=0)
    shards = [make_shard(rank) for rank in range(PROCESSES)]
    if case.startswith(("gsam", "looksam")):  # two gradients are combined: those of the whole batch
        batch = tuple(torch.cat(tensors) for tensors in zip(*shards, strict=True))
        expected = run_every(case, make_model(), batch)
    else:
        alone = [run_every(case, make_model(), shard) for shard in shards]
        expected = [
            {key: sum(one[index][key] for one in alone) / PROCESSES for key in alone[0][index]} for index in range(2)
        ]
    for actual, step in zip(results[0]["every", case], expected, strict=True):
        assert_close(actual, step, **EXACT)
