"""Parts of a surface's cost, and ways to make them smaller: those that are used, and those that did not help.

Milliseconds for one evaluation of LeNet-5 on 2,000 digits, one thread; and for moving the weights of LeNet-5 and of a
text network once. Run ``python benchmarks/surface_parts.py``.
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.data import DataLoader, TensorDataset

import landscape as ls
from dropattack.data import load_dataset
from dropattack.models import build_model
from landscape.evaluation.kernels import FastPooling
from landscape.evaluation.moving import Mover

Moved = Callable[[Sequence[float]], None]


def milliseconds(calls: Mapping[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    """Medians; the calls take turns, so that whatever else the machine does falls on all."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):  # the first to warm up
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                spent[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in spent.items()}


def forward(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The mean loss, in a plain loop."""
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(model(images), labels, reduction="none") for images, labels in batches]
    return float(torch.cat(losses).double().mean())


def evaluations() -> dict[str, Callable[[], object]]:
    """Ways to evaluate the same point."""
    torch.manual_seed(0)
    model = build_model("lenet5").eval()
    batches = {size: load_dataset("mnist-5k").train.batches(size, 2_000) for size in (50, 100, 250, 500, 1000, 2000)}
    every = batches[500]
    inside = {
        "FastPooling": FastPooling,
        "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    }

    def within(context: Callable[[], contextlib.AbstractContextManager[object]]) -> Callable[[], object]:
        def call() -> float:
            with context():
                return forward(model, every)

        return call

    compiled = torch.compile(model)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    in_last = [(images.to(memory_format=torch.channels_last), labels) for images, labels in every]
    examples = TensorDataset(*(torch.cat(parts) for parts in zip(*every, strict=True)))
    loader = DataLoader(examples, batch_size=500)
    stacked, _ = stack_module_state([model] * 4)

    def four_at_once() -> None:
        with torch.no_grad():
            for images, _ in every:
                vmap(lambda weights, images=images: functional_call(model, weights, (images,)))(stacked)

    risk = ls.EmpiricalRisk(copy.deepcopy(model), every)
    calls: dict[str, Callable[[], object]] = {"batches of 500": lambda: forward(model, every)}
    calls |= {
        f"batches of {size}": lambda some=some: forward(model, some) for size, some in batches.items() if size != 500
    }
    calls |= {name: within(context) for name, context in inside.items()}
    calls |= {
        "torch.compile": lambda: forward(compiled, every),
        "channels last": lambda: forward(last, in_last),
        "a DataLoader, no workers": lambda: forward(model, list(loader)),
        "4 points at once by vmap": four_at_once,
        "this product, with accuracy and standard error": risk,
    }
    return calls


def moves(sizes: Mapping[str, tuple[int, ...]]) -> dict[str, Callable[[], object]]:
    """Ways to put the weights at a point of a plane."""
    weights, center, first, second = ({name: torch.randn(size) for name, size in sizes.items()} for _ in range(4))
    everything = [list(one.values()) for one in (weights, center, first, second)]
    places = iter(range(10**9))

    def copy_and_add() -> None:
        torch._foreach_copy_(everything[0], everything[1])
        torch._foreach_add_(everything[0], everything[2], alpha=0.3)
        torch._foreach_add_(everything[0], everything[3], alpha=0.2)

    along = Mover(weights, center, [first, second])
    across = Mover(weights, center, [first, second])
    return {
        "copy and add twice": copy_and_add,
        "Mover, to a new row": lambda: across((next(places) * 1e-3, 0.2)),
        "Mover, along a row": lambda: along((0.3, next(places) * 1e-3)),
    }


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    print("one evaluation of LeNet-5 on 2,000 digits, ms")
    for name, spent in milliseconds(evaluations()).items():
        print(f"  {name:48} {spent / (4 if name.startswith('4 points') else 1):7.1f}")
    networks = {
        "LeNet-5": {name: tuple(p.shape) for name, p in build_model("lenet5").named_parameters()},
        "embedding of 30,000 x 300 and LSTM of 300": {"embedding": (30_000, 300), "ih": (1200, 300), "hh": (1200, 300)},
    }
    for network, sizes in networks.items():
        print(f"moving the weights once, ms: {network}")
        for name, spent in milliseconds(moves(sizes)).items():
            print(f"  {name:48} {spent:7.3f}")


if __name__ == "__main__":
    main()
