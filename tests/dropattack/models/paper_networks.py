"""The networks of the paper, small, and the same networks as textbook equations on plain tensors."""

import equations
import torch

from dropattack.models import build_model

RECURRENT = {"lstm": "lstm", "bigru": "gru", "bilstm": "lstm", "bigru2": "gru", "bilstm2": "lstm"}  # and their cells
TEXT = [*RECURRENT, "textcnn", "textrcnn"]
IMAGE = {"lenet5": (1, 28, 28), "vgg16": (3, 32, 32)}
VOCABULARY, CLASSES = 11, 3

# Lengths 3, 7, 1, 5 and a row of padding alone.
TOKENS = torch.tensor(
    [
        [4, 9, 2, 0, 0, 0, 0],
        [1, 2, 3, 4, 5, 6, 7],
        [8, 0, 0, 0, 0, 0, 0],
        [3, 10, 3, 3, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]
)
LENGTHS = torch.tensor([3, 7, 1, 5, 1])
LABELS = torch.tensor([0, 2, 1, 1, 0])


def text_network(name, dtype=torch.float64, seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"vocabulary": VOCABULARY, "classes": CLASSES, "embedding_size": 4, "hidden": 5}
    return build_model(name, **(sizes | options)).to(dtype)


def image_network(name, seed=0, **options):
    torch.manual_seed(seed)
    return build_model(name, **({"width": 0.1} | options))


def images_for(name, count=4, seed=1):
    return torch.randn(count, *IMAGE[name], generator=torch.Generator().manual_seed(seed))


def lstm_or_gru(p, cell, layer, suffix, words):
    """States ``(length, hidden)`` of one text, one layer, one direction; ``suffix`` says which."""
    renamed = {
        f"x.{kind}_l0": p[f"{cell}.{kind}_l{layer}{suffix}"]
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    sequence = words.flip(0) if suffix else words
    states = getattr(equations, cell)(renamed, "x", sequence.unsqueeze(1)).squeeze(1)
    return states.flip(0) if suffix else states


def states_of(p, cell, words, layers, bidirectional):
    """States of the last layer: one text, without padding, at a time."""
    for layer in range(layers):
        parts = [
            lstm_or_gru(p, cell, layer, suffix, words) for suffix in (("", "_reverse") if bidirectional else ("",))
        ]
        words = torch.cat(parts, dim=1)
    return words


def logits_by_equations(name, p, tokens, lengths, widths=(3, 4, 5)):
    """Logits of a text network from its parameters ``p``, each text alone and without its padding."""
    rows = []
    for ids, length in zip(tokens, lengths, strict=True):
        words = equations.embedding(p["embedding.weight"], ids[:length], padding=0)
        if name == "textcnn":
            features = torch.cat([convolved(p, words, width).amax(0) for width in widths])
        elif name == "textrcnn":
            left, right = states_of(p, "lstm", words, 1, bidirectional=True).chunk(2, dim=1)
            features = torch.tanh(equations.linear(p, "latent", torch.cat([left, words, right], dim=1))).amax(0)
        else:
            states = states_of(p, RECURRENT[name], words, 2 if name.endswith("2") else 1, name != "lstm")
            hidden = states.shape[1] // (1 if name == "lstm" else 2)
            features = torch.cat([states[-1, :hidden], states[0, hidden:]])
        rows.append(equations.linear(p, "fc", features))
    return torch.stack(rows)


def convolved(p, words, width):
    """ReLU of each filter at each window of ``width`` words; a text shorter than that gets zeros at its end."""
    missing = max(0, width - len(words))
    words = torch.cat([words, words.new_zeros(missing, words.shape[1])])
    weight, bias = p[f"conv{width}.weight"], p[f"conv{width}.bias"]
    windows = [words[start : start + width] for start in range(len(words) - width + 1)]
    return torch.relu(torch.stack([torch.einsum("ld,odl->o", window, weight) + bias for window in windows]))
