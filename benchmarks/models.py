"""Training throughput of the networks for text, beside packed sequences and beside bare matrix products.

Forward and backward pass of one batch. Every timed step of a network is followed by one of its packed twin, so that
whatever else the machine does falls on both. Arithmetic is what the matrix products of all places take, padding
included: 2 operations a weight and place forward, twice that backward. It is compared with two rates: that of
``torch.matmul`` on the very shapes of the network's layers, and the best that oneDNN reaches on one large product,
which on some processors is much more. Run ``python benchmarks/models.py`` (``--help`` for sizes and rounds).
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from dropattack.models import build_model
from dropattack.models.recurrent import TextRNN

NETWORKS = ("lstm", "bigru", "bilstm", "bigru2", "bilstm2", "textcnn", "textrcnn")


@dataclasses.dataclass(frozen=True)
class Size:
    """Dimensions of networks and batches."""

    features: int
    tokens: int
    batch: int


SIZES = {"desk": Size(features=128, tokens=128, batch=32), "paper": Size(features=300, tokens=256, batch=128)}


class Packed(nn.Module):
    """The same network with PyTorch's own layer on packed sequences."""

    def __init__(self, model: TextRNN) -> None:
        super().__init__()
        self.embedding, self.fc = model.embedding, model.fc
        layer = {"lstm": nn.LSTM, "gru": nn.GRU}[model.cell]
        features = model.embedding.embedding_dim
        own = model.get_submodule(model.cell)
        self.rnn = layer(features, own.hidden_size, model.layers, batch_first=True, bidirectional=model.bidirectional)
        self.rnn.load_state_dict(own.state_dict())
        self.directions = 2 if model.bidirectional else 1

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(n, classes)``."""
        lengths = (tokens != 0).sum(1)
        packed = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        _, ends = self.rnn(packed)
        ends = ends[0] if isinstance(ends, tuple) else ends
        return self.fc(torch.cat([*ends[-self.directions :]], dim=1))


def texts(size: Size, vocabulary: int, shortest: float) -> Tensor:
    """Random words; lengths are uniform from ``shortest`` times the longest to the longest."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, vocabulary, (size.batch, size.tokens), generator=generator)
    least = max(1, round(shortest * size.tokens))
    lengths = torch.randint(least, size.tokens + 1, (size.batch, 1), generator=generator)
    lengths[0] = size.tokens
    return tokens.masked_fill(torch.arange(size.tokens) >= lengths, 0)


def products(model: nn.Module, size: Size) -> list[tuple[int, int, int, int]]:
    """Matrix products of a forward pass over every place: rows, inner size, columns, how often."""
    found = []
    places = size.batch * size.tokens
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or name in ("embedding.weight", "fc.weight"):
            continue
        rows, inner = len(weight), weight[0].numel()
        recurrent = "weight_hh" in name
        found.append((size.batch, inner, rows, size.tokens) if recurrent else (places, inner, rows, 1))
    return found


def matmul_seconds(shapes: list[tuple[int, int, int, int]]) -> float:
    """The products of the forward pass, and the two of each in the backward pass, by ``torch.matmul``."""
    total = 0.0
    for n, inner, columns, times in shapes:
        left, weight, outcome = torch.randn(n, inner), torch.randn(columns, inner), torch.randn(n, columns)
        steps: list[Callable[[], Tensor]] = [
            lambda left=left, weight=weight: left @ weight.t(),
            lambda outcome=outcome, weight=weight: outcome @ weight,
        ]
        total += times * sum(quickest(step, rounds=5 if times == 1 else 50) for step in steps)
        # The weight's gradient needs no recurrence: one product over all places.
        left, outcome = torch.randn(n * times, inner), torch.randn(n * times, columns)
        total += quickest(lambda left=left, outcome=outcome: outcome.t() @ left, rounds=3)
    return total


def best_rate(size: int = 2048) -> float:
    """Operations a second of one large product by oneDNN; NaN where this build of PyTorch has none."""
    if not torch.backends.mkldnn.is_available():
        return float("nan")
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / quickest(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""), rounds=5)


def seconds(step: Callable[[], object]) -> float:
    """The duration of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def quickest(step: Callable[[], object], rounds: int) -> float:
    """The shortest of several calls, after one that is not timed."""
    step()
    return min(seconds(step) for _ in range(rounds))


def training_step(model: nn.Module, tokens: Tensor, labels: Tensor) -> Callable[[], None]:
    """Forward and backward pass from cleared gradients."""

    def step() -> None:
        model.zero_grad()
        nn.functional.cross_entropy(model(tokens), labels).backward()

    return step


def measure(name: str, size: Size, rounds: int, shortest: float, vocabulary: int = 20_000) -> dict[str, object]:
    """One row of the table."""
    torch.manual_seed(0)
    dimensions = {} if name == "textcnn" else {"hidden": size.features}
    model = build_model(name, vocabulary=vocabulary, classes=2, embedding_size=size.features, **dimensions)
    tokens, labels = texts(size, vocabulary, shortest), torch.randint(2, (size.batch,))
    steps = {"ours": training_step(model, tokens, labels)}
    if isinstance(model, TextRNN):
        steps["packed"] = training_step(Packed(model), tokens, labels)
    times: dict[str, list[float]] = {key: [] for key in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for key, step in steps.items():
            times[key].append(seconds(step))
    shapes = products(model, size)
    operations = 3 * sum(2 * n * inner * columns * count for n, inner, columns, count in shapes)
    typical = statistics.median(times["ours"])
    ratios = [b / a for a, b in zip(times["ours"], times.get("packed", []), strict=False)]
    rate, matmul, best = operations / min(times["ours"]), operations / matmul_seconds(shapes), best_rate()
    return {
        "network": name,
        "examples/s": size.batch / typical,
        "packed/s": size.batch / statistics.median(times["packed"]) if ratios else float("nan"),
        "faster": statistics.median(ratios) if ratios else float("nan"),
        "GFLOP/s": rate / 1e9,
        "matmul": matmul / 1e9,
        "of matmul": rate / matmul,
        "oneDNN": best / 1e9,
        "of oneDNN": rate / best,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, action="append", help="default: both")
    parser.add_argument("--network", choices=NETWORKS, action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each network")
    parser.add_argument("--shortest", type=float, default=0.5, help="shortest text as a share of the longest")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", help="write the tables here as well")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tables = []
    for name in options.size or SIZES:
        size = SIZES[name]
        rows = [measure(n, size, options.rounds, options.shortest) for n in options.network or NETWORKS]
        table = pd.DataFrame(rows)
        print(f"\n{name}: features {size.features}, {size.batch} texts of up to {size.tokens} tokens, medians")
        print(table.to_string(index=False, float_format="{:.2f}".format), flush=True)
        tables.append(table.assign(size=name))
    if options.csv:
        pd.concat(tables).to_csv(options.csv, index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
