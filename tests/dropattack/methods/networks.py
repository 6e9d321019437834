"""Small networks, each twice: as a module, and as a function of its parameters and of the attacked activation."""

import dataclasses
from collections.abc import Callable

import equations
import torch
from equations import Parameters
from torch import Tensor, nn

VOCABULARY, WIDTH, CLASSES, PADDING = 7, 4, 3, 0


class EmbeddingMLP(nn.Module):
    def __init__(self, tied: bool = False):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH, padding_idx=PADDING)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.decoder = nn.Linear(WIDTH, VOCABULARY)
        if tied:
            self.decoder.weight = self.embedding.weight

    def forward(self, tokens):
        return self.decoder(torch.tanh(self.hidden(self.embedding(tokens))).mean(1))


class LSTMClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH, padding_idx=PADDING)
        self.lstm = nn.LSTM(WIDTH, 3, batch_first=True)
        self.decoder = nn.Linear(3, CLASSES)

    def forward(self, tokens):
        states, _ = self.lstm(self.embedding(tokens))
        return self.decoder(states.mean(1))


class BiGRUClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH, padding_idx=PADDING)
        self.gru = nn.GRU(WIDTH, 3, batch_first=True, bidirectional=True)
        self.decoder = nn.Linear(6, CLASSES)

    def forward(self, tokens):
        states, _ = self.gru(self.embedding(tokens))
        return self.decoder(states.mean(1))


class TimeMajorGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(WIDTH, 3)
        self.decoder = nn.Linear(3, CLASSES)

    def forward(self, series):
        states, _ = self.gru(series)
        return self.decoder(states.mean(0))


class BatchNormCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.decoder = nn.Linear(3, CLASSES)

    def forward(self, images):
        return self.decoder(torch.tanh(self.norm(self.conv(images))).mean((2, 3)))


@dataclasses.dataclass(frozen=True)
class Network:
    """A module, one batch, what to attack, and the same mathematics as functions.

    ``activation`` gives the attacked activation, ``logits`` the output from it.
    """

    module: nn.Module
    inputs: Tensor
    targets: Tensor
    site: str
    weights: tuple[str, ...]
    activation: Callable[[Parameters, Tensor], Tensor]
    logits: Callable[[Parameters, Tensor], Tensor]
    batch_dim: int = 0

    def parameters(self) -> Parameters:
        return {name: parameter.detach().clone() for name, parameter in self.module.named_parameters()}

    def closure(self) -> Tensor:
        return nn.functional.cross_entropy(self.module(self.inputs), self.targets)


def _tokens() -> Tensor:
    tokens = torch.randint(1, VOCABULARY, (5, 6))
    tokens[1, 4:] = PADDING
    return tokens


def _embed(p: Parameters, tokens: Tensor) -> Tensor:
    return equations.embedding(p["embedding.weight"], tokens, PADDING)


def _mlp_logits(p: Parameters, embedded: Tensor) -> Tensor:
    pooled = torch.tanh(equations.linear(p, "hidden", embedded)).mean(1)
    decoder = p.get("decoder.weight", p["embedding.weight"])  # tied: one tensor, used twice
    return pooled @ decoder.T + p["decoder.bias"]


def _lstm_states(p: Parameters, embedded: Tensor) -> Tensor:
    return equations.lstm(p, "lstm", embedded.transpose(0, 1)).transpose(0, 1)


def _bigru_logits(p: Parameters, embedded: Tensor) -> Tensor:
    states = equations.bidirectional_gru(p, "gru", embedded.transpose(0, 1))
    return equations.linear(p, "decoder", states.mean(0))


def _cnn_logits(p: Parameters, images: Tensor) -> Tensor:
    features = equations.batch_norm(p, "norm", equations.convolution(p, "conv", images))
    return equations.linear(p, "decoder", torch.tanh(features).mean((2, 3)))


def mlp(tied: bool = False, frozen: tuple[str, ...] = ()) -> Network:
    module = EmbeddingMLP(tied)
    for name in frozen:
        module.get_parameter(name).requires_grad_(False)
    targets = torch.randint(VOCABULARY, (5,))
    weights = tuple(n for n in ("hidden.weight", "embedding.weight") if n not in frozen)
    return Network(module, _tokens(), targets, "embedding", weights, _embed, _mlp_logits)


def tied_mlp() -> Network:
    return mlp(tied=True)


def frozen_mlp() -> Network:
    """The activation of a frozen embedding has no graph of its own, and still a gradient."""
    return mlp(frozen=("embedding.weight", "decoder.bias"))


def lstm() -> Network:
    return Network(
        LSTMClassifier(),
        _tokens(),
        torch.randint(CLASSES, (5,)),
        "embedding",
        ("lstm.weight_ih_l0", "lstm.weight_hh_l0", "decoder.weight"),
        _embed,
        lambda p, embedded: equations.linear(p, "decoder", _lstm_states(p, embedded).mean(1)),
    )


def lstm_states() -> Network:
    """Attacked at the LSTM's output, the first tensor of a tuple."""
    return dataclasses.replace(
        lstm(),
        site="lstm",
        activation=lambda p, tokens: _lstm_states(p, _embed(p, tokens)),
        logits=lambda p, states: equations.linear(p, "decoder", states.mean(1)),
    )


def bigru() -> Network:
    weights = ("gru.weight_hh_l0", "gru.weight_hh_l0_reverse", "gru.bias_ih_l0")
    targets = torch.randint(CLASSES, (5,))
    return Network(BiGRUClassifier(), _tokens(), targets, "embedding", weights, _embed, _bigru_logits)


def time_major_gru() -> Network:
    return Network(
        TimeMajorGRU(),
        torch.randn(6, 5, WIDTH),
        torch.randint(CLASSES, (5,)),
        "input",
        ("gru.weight_hh_l0",),
        lambda p, series: series,
        lambda p, series: equations.linear(p, "decoder", equations.gru(p, "gru", series).mean(0)),
        batch_dim=1,
    )


def cnn() -> Network:
    return Network(
        BatchNormCNN(),
        torch.randn(5, 2, 4, 4),
        torch.randint(CLASSES, (5,)),
        "input",
        ("conv.weight",),
        lambda p, images: images,
        _cnn_logits,
    )


BUILDERS = {b.__name__: b for b in (mlp, tied_mlp, frozen_mlp, lstm, lstm_states, bigru, time_major_gru, cnn)}


def build(name: str, seed: int = 0) -> Network:
    """In float64, so that a comparison to 1e-10 leaves no room for a different formula."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(seed)
        return BUILDERS[name]()
    finally:
        torch.set_default_dtype(default)
