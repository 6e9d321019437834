"""The tensors of Tables 5-9 of the DropAttack paper: from the printed names to the names in the networks here."""

from __future__ import annotations

from dropattack.names import unknown

__all__ = ["PAPER_NAMES", "site_named"]

_TEXT = {"Embedding": "embedding", "Fc.w": "fc.weight", "Fc.b": "fc.bias"}


def _recurrent(cell: str, *, bidirectional: bool) -> dict[str, str]:
    """Names in a recurrent network, of its first layer: the authors' code attacks no other.

    Table 6 says "Lstm" where section 4.2 and the authors' code have a GRU, and Table 7 says "Gru" where section 4.2 has
    an LSTM, so that both words mean the cell that the network has.
    """
    names = dict(_TEXT)
    for printed in ("Lstm", "Gru"):
        for matrix in ("ih", "hh"):
            names[f"{printed}.{matrix}.w"] = f"{cell}.weight_{matrix}_l0"
            if bidirectional:
                names[f"{printed}.{matrix}.w.reverse"] = f"{cell}.weight_{matrix}_l0_reverse"
    return names


def _numbered(printed: str, module: str, count: int) -> dict[str, str]:
    """Weights and biases of layers that are counted from 1."""
    tensors = {"w": "weight", "b": "bias"}
    return {f"{printed}.{i}.{t}": f"{module}{i}.{tensors[t]}" for i in range(1, count + 1) for t in tensors}


PAPER_NAMES: dict[str, dict[str, str]] = {
    "lenet5": {
        "Input": "input",
        **_numbered("Conv", "conv", 2),
        **_numbered("Fc", "fc", 3),
        "Fc.1": "fc1.weight",  # Table 8 prints neither w nor b
        "Fc.2": "fc2.weight",
        "Conv1.w": "conv1.weight",  # its last row, without dots
        "Conv2.w": "conv2.weight",
    },
    "vgg16": {
        "Input": "input",
        **_numbered("Conv", "conv", 13),
        **_numbered("BatchNorm", "norm", 13),
        **_numbered("Fc", "fc", 3),
    },
    "lstm": _recurrent("lstm", bidirectional=False),
    "bigru": _recurrent("gru", bidirectional=True),
    "bilstm": _recurrent("lstm", bidirectional=True),
    "bigru2": _recurrent("gru", bidirectional=True),
    "bilstm2": _recurrent("lstm", bidirectional=True),
    "textcnn": _TEXT,  # of Figure 2, which names no tensors
    "textrcnn": _recurrent("lstm", bidirectional=True),
}

# What the paper prints and no network has.
_IMPOSSIBLE = {
    ("lenet5", "fc1.w2"): "Table 8 prints 'fc1.w2', but a linear layer has one weight: name 'Fc.1.w' or 'Fc.2.w'",
}


def site_named(model: str, paper_name: str) -> str:
    """The site that a table of the paper calls ``paper_name``: a parameter, a module, or ``"input"``.

    Args:
        model: a name in ``MODELS``.
        paper_name: as Tables 5-9 print it, such as ``"Embedding"``, ``"Lstm.ih.w"`` or ``"BatchNorm.8.w"``.

    Raises:
        ValueError: an unknown model or name (the message lists the nearest known ones), or ``"fc1.w2"`` of Table 8,
            which is no tensor.

    Example:
        >>> site_named("bigru2", "Gru.ih.w.reverse")
        'gru.weight_ih_l0_reverse'
    """
    if model not in PAPER_NAMES:
        raise ValueError(unknown("model", model, PAPER_NAMES))
    if (model, paper_name) in _IMPOSSIBLE:
        raise ValueError(_IMPOSSIBLE[model, paper_name])
    names = PAPER_NAMES[model]
    if paper_name not in names:
        raise ValueError(unknown("paper's name", paper_name, names, owner=model))
    return names[paper_name]
