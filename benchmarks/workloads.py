"""Networks and data around whose weights benchmarks draw planes."""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import landscape as ls
from dropattack.checkpoint import load_run
from dropattack.data import Examples, load_dataset
from dropattack.models import build_model
from dropattack.training import build_for

Batches = list[tuple[Tensor, Tensor]]
Directions = Sequence[Mapping[str, Tensor]]
NETWORKS = ("lenet5", "lstm", "vgg16")


@dataclasses.dataclass(frozen=True)
class InMemory(Examples):
    """Inputs and labels, as they are."""

    inputs: Tensor
    labels: Tensor

    def batch(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Those at ``indices``."""
        return self.inputs[indices], self.labels[indices]


@dataclasses.dataclass
class Workload:
    """A network, its data, and the plane around its weights."""

    name: str
    model: nn.Module
    batches: Batches
    span: float

    def __post_init__(self) -> None:
        self.model.eval()
        self.examples = sum(len(labels) for _, labels in self.batches)
        self.directions = ls.random_directions(self.risk().parameters(), count=2, seed=0)

    def risk(self) -> ls.EmpiricalRisk:
        """Of a copy of the network, as each tool gets one."""
        return ls.EmpiricalRisk(copy.deepcopy(self.model), self.batches)

    def full(self, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A direction that names every parameter, zero where it stays put."""
        return {name: direction.get(name, torch.zeros_like(p)).clone() for name, p in self.model.named_parameters()}


def workload(
    name: str, options: argparse.Namespace, examples: int, span: float = 1.0, trained: bool = True
) -> Workload:
    """A network by name: from a run's folder if one was given, otherwise trained here in a few seeded epochs."""
    torch.manual_seed(0)
    if name in options.run:
        run = load_run(options.run[name])
        dataset = load_dataset(run.config.data.name, options.data_dir, **run.config.data.options)
        model = run.model if trained else build_for(run.config, dataset)
        return Workload(name, model, dataset.train.batches(options.batch, examples), span)
    data, model, epochs = {"lenet5": lenet5, "lstm": lstm, "vgg16": vgg16}[name](options)
    if trained:
        file = options.cache / f"{name}.safetensors"
        if not file.is_file():
            train(model, data, epochs)
            save_file(model.state_dict(), file)
        model.load_state_dict(load_file(file))
    return Workload(name, model, data.batches(options.batch, examples), span)


def lenet5(_options: argparse.Namespace) -> tuple[Examples, nn.Module, int]:
    """LeNet-5 and the embedded digits."""
    return load_dataset("mnist-5k").train, build_model("lenet5"), 3


def vgg16(_options: argparse.Namespace) -> tuple[Examples, nn.Module, int]:
    """VGG-16 at an eighth of its width; the embedded digits, enlarged to its three channels of 32 x 32."""
    images, labels = load_dataset("mnist-5k").train.batch(slice(None))
    images = nn.functional.interpolate(images, size=32).expand(-1, 3, -1, -1).contiguous()
    return InMemory(images, labels), build_model("vgg16", width=0.125), 3


def lstm(options: argparse.Namespace) -> tuple[Examples, nn.Module, int]:
    """An LSTM of 64 features on reviews: IMDB's if a data folder is given, otherwise made up."""
    if options.data_dir:
        dataset = load_dataset("imdb", options.data_dir, examples=5_000, max_length=128, vocabulary=5_000)
        return dataset.train, build_model("lstm", **SMALL | dict(dataset.model_options)), 5
    return made_up_reviews(), build_model("lstm", vocabulary=5_000, classes=2, **SMALL), 5


SMALL = {"embedding_size": 64, "hidden": 64}


def made_up_reviews(count: int = 5_000, tokens: int = 64, vocabulary: int = 5_000) -> InMemory:
    """Texts of random words, distributed as words are (Zipf); one word in ten is drawn from a class's own hundred."""
    generator = torch.Generator().manual_seed(0)
    frequencies = 1 / torch.arange(2, vocabulary + 1, dtype=torch.float64)
    words = torch.multinomial(frequencies, count * tokens, replacement=True, generator=generator).view(count, tokens)
    labels = torch.randint(2, (count,), generator=generator)
    telling = 200 + 100 * labels[:, None] + torch.randint(100, (count, tokens), generator=generator)
    words = torch.where(torch.rand(count, tokens, generator=generator) < 0.1, telling, words + 1)
    lengths = torch.randint(tokens // 2, tokens + 1, (count, 1), generator=generator)
    return InMemory(words.masked_fill(torch.arange(tokens) >= lengths, 0), labels)  # 0 is padding


def train(model: nn.Module, data: Examples, epochs: int) -> None:
    """Adam on batches of 50."""
    optimizer, order = torch.optim.Adam(model.parameters(), lr=1e-3), torch.Generator().manual_seed(0)
    model.train()
    for _ in range(epochs):
        for inputs, labels in data.shuffled(50, order):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()


def axis(span: float, points: int) -> np.ndarray:
    """Coordinates from ``-span`` to ``span``."""
    return np.linspace(-span, span, points)


def mean_loss(model: nn.Module, batches: Batches) -> float:
    """Mean cross-entropy of all examples: what every tool is given to evaluate."""
    total, count = 0.0, 0
    with torch.no_grad():
        for inputs, labels in batches:
            total += nn.functional.cross_entropy(model(inputs), labels).item() * len(labels)
            count += len(labels)
    return total / count
