"""One of two processes: every case on its own shard, the results saved for the tests to compare."""

import dataclasses
import pathlib

import torch
from cases import EVERY
from networks import WIDTH, build
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dropattack.methods import DropAttack

PROCESSES = 2

BOTH = {"inputs": "0", "weights": ("0.*", "3.weight"), "epsilon": 0.7, "attack_probability": 0.5}
WEIGHTS = {"weights": ("0.*", "3.weight"), "epsilon": 0.7, "attack_probability": 0.5, "sync_perturbation": True}

CASES = {
    "one step": BOTH,
    "two steps": BOTH | {"ascent_steps": 2},
    "no clean gradient": BOTH | {"clean_weight": 0, "ascent_steps": 2},
    "mean": BOTH | {"reduction": "mean", "ascent_steps": 2},
}
SYNC_CASES = {
    "one step": WEIGHTS,
    "two steps": WEIGHTS | {"ascent_steps": 2},
    "mask then normalize": WEIGHTS | {"mask_then_normalize": True, "ascent_steps": 2},
}
ALIKE_CASES = {
    "both attacks": BOTH | {"sync_perturbation": True, "ascent_steps": 2},
    "a parameter as the input": {"inputs": "3.weight", "epsilon": 0.7, "sync_perturbation": True},
    "random": WEIGHTS | {"direction": "random"},
}


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(WIDTH, 5), nn.Tanh(), nn.BatchNorm1d(5, affine=False, momentum=0.3), nn.Linear(5, 3)
    ).double()


def make_shard(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(10 + rank)
    x = torch.randn(6, WIDTH, dtype=torch.float64, generator=generator)
    return x + rank, torch.randint(3, (6,), generator=generator)


def run_step(model, shard, options, seed=5, batch_norm=True, **around):
    """One step; ``model`` may be wrapped. Without batch statistics, shards are independent."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    inner[2].train(batch_norm)
    inner.zero_grad()
    method = DropAttack(model, generator=torch.Generator().manual_seed(seed), **options)
    method.backward(lambda: nn.functional.cross_entropy(model(shard[0]), shard[1]), **around)
    return {
        "gradients": {name: p.grad.clone() for name, p in inner.named_parameters()},
        "perturbations": method.last.perturbations,
        "buffers": {name: buffer.clone() for name, buffer in inner.named_buffers()},
    }


def run_every(name, model, shard, **around):
    """Two steps of a method of the registry, without batch statistics, so that shards are independent."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    inner[2].eval()
    network = dataclasses.replace(
        build("mlp"), module=model, inputs=shard[0], targets=shard[1], site="0", weights=("0.weight", "3.weight")
    )
    method = EVERY[name](network)
    steps = []
    for _ in range(2):
        inner.zero_grad()
        method.backward(network.closure, **around)
        steps.append({name: p.grad.clone() for name, p in inner.named_parameters()})
    return steps


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    results = {}
    for group, cases in (("ordinary", CASES), ("sync", SYNC_CASES), ("alike", ALIKE_CASES)):
        for name, options in cases.items():
            for around in (True, False):
                ddp = DistributedDataParallel(make_model())
                results[group, name, around] = run_step(
                    ddp,
                    make_shard(rank),
                    options,
                    # Where processes must agree, let them start from generators that do not.
                    seed=5 if group == "ordinary" or rank == 0 else 6,
                    batch_norm=group == "ordinary",
                    **({"no_sync": ddp.no_sync} if around else {}),
                )
    for name in EVERY:
        ddp = DistributedDataParallel(make_model())
        results["every", name] = run_every(name, ddp, make_shard(rank), no_sync=ddp.no_sync)
    torch.save(results, pathlib.Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()
