"""What a training step of each method costs, relative to a standard step, in time and in memory.

Every timed step of a method is followed by a standard step, and the ratio of the two is taken, so that whatever else
the machine does falls on both. Run ``python benchmarks/methods.py`` (``--help`` for shapes and rounds).
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from dropattack.data import load_dataset
from dropattack.methods import Method, build_method
from dropattack.models import LeNet5, build_model

IMAGE = {"inputs": "input"}
CONV = {"weights": ["conv1.weight"]}
TEXT = {"inputs": "embedding"}
RECURRENT = {"weights": ["lstm.weight_ih_l0"]}


@dataclasses.dataclass
class Workload:
    """A model, one batch, and what is attacked."""

    name: str
    model: nn.Module
    inputs: Tensor
    targets: Tensor
    site: Mapping[str, str]
    weights: Mapping[str, Sequence[str]]

    def closure(self) -> Tensor:
        """The loss of the batch."""
        return nn.functional.cross_entropy(self.model(self.inputs), self.targets)


def settings(workload: Workload) -> dict[str, dict[str, object]]:
    """The rows of the table, as ``build_method`` takes them."""
    site, weights, both = dict(workload.site), dict(workload.weights), {**workload.site, **workload.weights}
    return {
        "standard": {"name": "standard"},
        "l2": {"name": "l2"},
        "fgsm": {"name": "fgsm", **site},
        "fgm": {"name": "fgm", **site},
        "pgd, K = 3": {"name": "pgd", **site},
        "pgd, K = 3, with clean gradient": {"name": "pgd", **site, "clean_weight": 1.0},
        "freeat": {"name": "freeat", **site},
        "freelb, K = 3": {"name": "freelb", **site},
        "DropAttack-(I)": {"name": "dropattack", **site},
        "DropAttack-(W)": {"name": "dropattack", **weights},
        "DropAttack-(I&W)": {"name": "dropattack", **both},
        "DropAttack-(I&W), K = 3": {"name": "dropattack", **both, "ascent_steps": 3},
        "sam": {"name": "sam"},
        "asam": {"name": "asam"},
        "sparse-sam": {"name": "sparse-sam"},
        "gsam": {"name": "gsam"},
        "looksam, k = 5": {"name": "looksam"},
        "awp": {"name": "awp"},
        "awp on pgd, K = 3": {"name": "compose", "inputs": {"name": "pgd", **site}, "weights": {"name": "awp"}},
        "rwp": {"name": "rwp"},
        "gradient-norm-penalty": {"name": "gradient-norm-penalty"},
        "explicit-penalty": {"name": "explicit-penalty", **both},
        "vat": {"name": "vat", **site},
        "r3f": {"name": "r3f", **site},
        "smart, K = 1": {"name": "smart", **site},
        "DropAttack-(I&W) at every 4th step": {
            "name": "scheduled",
            "every": 4,
            "method": {"name": "dropattack", **both},
        },
    }


class PublishedStep:
    """The training step of the authors' notebooks, written plainly: all graphs kept, a second backward at the end.

    Masks are drawn with NumPy over whole matrices, perturbations add up, weights are moved through ``.data``, and the
    gradients of the passes on the way serve as directions alone. (The last backward runs through graphs whose weights
    have been changed, so its gradient is not the algorithm's; here only its time matters.)
    """

    def __init__(self, workload: Workload, weights: Sequence[str], steps: int) -> None:
        self.closure = workload.closure
        self.parameters = list(workload.model.parameters())
        self.attacked = [workload.model.get_parameter(name) for name in weights]
        self.steps = steps
        self.random = np.random.default_rng(0)

    def __call__(self) -> None:
        """One step, gradients left in ``.grad``."""
        total = self.closure()
        total.backward(retain_graph=True)
        kept = [parameter.grad.clone() for parameter in self.parameters]
        for weight in self.attacked:
            saved = weight.data.clone()
            mask = torch.from_numpy(self.random.binomial(1, 0.5, size=tuple(weight.shape)))
            for _ in range(self.steps):
                norm = weight.grad.norm()
                if norm > 0:
                    weight.data.add_(5.0 * weight.grad / norm * mask)
                loss = self.closure() / self.steps
                loss.backward(retain_graph=True)
                total = total + loss
            weight.data = saved
            for parameter, gradient in zip(self.parameters, kept, strict=True):
                parameter.grad = gradient.clone()
        for parameter in self.parameters:
            parameter.grad = None
        total.backward()


def lenet(batch: int) -> Workload:
    """LeNet-5 on the embedded digits."""
    torch.manual_seed(0)
    images, labels = load_dataset("mnist-5k").train.batch(slice(0, batch))
    return Workload(f"LeNet-5, {batch} digits", LeNet5(), images, labels, IMAGE, CONV)


def lstm(batch: int, tokens: int, vocabulary: int) -> Workload:
    """The paper's LSTM on reviews of random words, distributed as words are (Zipf)."""
    torch.manual_seed(0)
    frequencies = 1 / torch.arange(1, vocabulary + 1, dtype=torch.float64)
    words = torch.multinomial(frequencies[1:], batch * tokens, replacement=True).view(batch, tokens) + 1  # 0 is padding
    name = f"LSTM 300-300, {batch} reviews of {tokens} words, vocabulary {vocabulary:,}"
    return Workload(
        name, build_model("lstm", vocabulary=vocabulary, classes=2), words, torch.randint(2, (batch,)), TEXT, RECURRENT
    )


def run_step(method: Method, workload: Workload) -> None:
    """One step, from cleared gradients."""
    workload.model.zero_grad()
    method.backward(workload.closure)


def bare_passes(workload: Workload, perturbation: Tensor, count: int) -> None:
    """Plain PyTorch: the passes of DropAttack-(I&W), or one, without masks, norms, restoring or bookkeeping.

    The first also has a gradient with respect to pixels, the second sees perturbed pixels.
    """
    workload.model.zero_grad()
    for index in range(count):
        inputs = workload.inputs
        if inputs.is_floating_point() and count > 1 and index < 2:
            inputs = inputs + perturbation if index else inputs.clone().requires_grad_()
        nn.functional.cross_entropy(workload.model(inputs), workload.targets).backward()


def seconds(step: Callable[[], object]) -> float:
    """The duration of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def peak_megabytes(step: Callable[[], object]) -> float:
    """The most that one call holds beyond what was allocated before it, by PyTorch's own account."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(np.cumsum([event.nbytes() for event in events]), default=0) / 2**20


def compare(workload: Workload, rounds: int, only: Sequence[str]) -> pd.DataFrame:
    """One row a method: passes, time and memory of a step relative to a standard one."""
    standard = build_method("standard", workload.model)
    chosen = {name: table for name, table in settings(workload).items() if not only or name in only}
    methods = {name: build_method(model=workload.model, **table) for name, table in chosen.items()}
    cycles = {name: 5 if "looksam" in name else 4 if "every 4th" in name else 1 for name in methods}
    for method in methods.values():
        run_step(method, workload)  # warm-up; LookSAM and the schedule are then one step into their cycle
    ratios: dict[str, list[float]] = {name: [] for name in methods}
    passes = dict.fromkeys(methods, 0.0)
    for _ in range(rounds):
        for name, method in methods.items():
            spent = reference = 0.0
            passes[name] = 0.0
            for _ in range(cycles[name]):
                passes[name] += method.cost.forwards / cycles[name]
                spent += seconds(lambda method=method: run_step(method, workload))
                reference += seconds(lambda: run_step(standard, workload))
            ratios[name].append(spent / reference)
    attack = build_method("dropattack", workload.model, **workload.site)
    run_step(attack, workload)
    assert attack.last is not None
    (perturbation,) = attack.last.perturbations.values()
    bare = [
        seconds(lambda: bare_passes(workload, perturbation, 3))
        / seconds(lambda: bare_passes(workload, perturbation, 1))
        for _ in range(rounds)
    ]
    base = max(peak_megabytes(lambda: run_step(standard, workload)) for _ in range(2))
    rows = []
    for name, method in methods.items():
        quarters = statistics.quantiles(ratios[name], n=4)
        peak = max(peak_megabytes(lambda method=method: run_step(method, workload)) for _ in range(cycles[name]))
        rows.append(
            {
                "method": name,
                "passes": passes[name],
                "time": statistics.median(ratios[name]),
                "time_low": quarters[0],
                "time_high": quarters[2],
                "peak_memory": peak / base,
                "peak_megabytes": peak,
            }
        )
    quarters = statistics.quantiles(bare, n=4)
    floor = {"method": "the three passes of -(I&W), bare", "passes": 3.0, "time": statistics.median(bare)}
    rows.append(floor | {"time_low": quarters[0], "time_high": quarters[2]})
    return pd.DataFrame(rows)


def compare_with_published_step(workload: Workload, rounds: int) -> pd.DataFrame:
    """The authors' training step against this package's at the same K, attacking embedding and input weights."""
    rows = []
    for steps in (1, 3):
        published = PublishedStep(workload, ("embedding.weight", *workload.weights["weights"]), steps)
        ours = {
            "DropAttack-(I&W), embedding's output": {},
            "DropAttack-(I&W), authors' reading": {"reading": "authors-code"},
        }
        for name, options in ours.items():
            both = {**workload.site, **workload.weights}
            method = build_method("dropattack", workload.model, **both, ascent_steps=steps, **options)
            run_step(method, workload)
            ratios = []
            for _ in range(rounds):
                theirs = seconds(published)
                ratios.append(theirs / seconds(lambda method=method: run_step(method, workload)))
            memory = peak_megabytes(published) / peak_megabytes(lambda method=method: run_step(method, workload))
            rows.append({"K": steps, "against": name, "slower": statistics.median(ratios), "memory": memory})
    return pd.DataFrame(rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=15, help="timed steps of each method on LeNet-5 (a third on the LSTM)"
    )
    parser.add_argument("--images", type=int, default=128, help="batch size of LeNet-5")
    parser.add_argument("--reviews", type=int, default=32, help="batch size of the LSTM (the paper's is 128)")
    parser.add_argument("--tokens", type=int, default=128, help="words a review (the authors' notebooks: 256)")
    parser.add_argument("--vocabulary", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--method", action="append", default=[], help="only this row (may be given again)")
    parser.add_argument("--csv", help="write the table of the methods here as well")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = lstm(options.reviews, options.tokens, options.vocabulary)
    tables = []
    for workload, rounds in ((lenet(options.images), options.rounds), (text, max(3, options.rounds // 3))):
        table = compare(workload, rounds, options.method)
        print(f"\n{workload.name}: multiples of a standard step, medians of {rounds} paired steps")
        print(table.to_string(index=False, float_format="{:.2f}".format))
        tables.append(table.assign(workload=workload.name))
    if options.csv:
        pd.concat(tables).to_csv(options.csv, index=False, float_format="%.4f")
    if not options.method:
        print(f"\nThe authors' published training step, {text.name}: how much slower, and how much more memory")
        rounds = max(3, options.rounds // 3)
        print(compare_with_published_step(text, rounds).to_string(index=False, float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
