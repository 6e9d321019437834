"""The networks of the paper, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from dropattack.models.lenet import LeNet5
from dropattack.models.paper_names import site_named
from dropattack.models.recurrent import LSTM, BiGRU, BiLSTM, TwoLayerBiGRU, TwoLayerBiLSTM
from dropattack.models.textcnn import TextCNN
from dropattack.models.textrcnn import TextRCNN
from dropattack.models.vgg import VGG16
from dropattack.names import unknown

__all__ = [
    "LSTM",
    "MODELS",
    "VGG16",
    "BiGRU",
    "BiLSTM",
    "LeNet5",
    "TextCNN",
    "TextRCNN",
    "TwoLayerBiGRU",
    "TwoLayerBiLSTM",
    "build_model",
    "site_named",
]

MODELS: dict[str, Callable[..., nn.Module]] = {
    # images
    "lenet5": LeNet5,  # MNIST
    "vgg16": VGG16,  # CIFAR-10
    # text
    "lstm": LSTM,  # IMDB
    "bigru": BiGRU,  # PHEME, section 4.2
    "bilstm": BiLSTM,  # PHEME, Table 6
    "bigru2": TwoLayerBiGRU,  # AG News, Table 7
    "bilstm2": TwoLayerBiLSTM,  # AG News, section 4.2
    "textcnn": TextCNN,  # Figure 2
    "textrcnn": TextRCNN,  # Figure 2
}


def build_model(name: str, **options: Any) -> nn.Module:
    """The network called ``name``, initialized from the global random stream.

    Raises:
        ValueError: an unknown model or option (the message lists the nearest known ones), or a missing option.
    """
    if name not in MODELS:
        raise ValueError(unknown("model", name, MODELS))
    known = inspect.signature(MODELS[name]).parameters
    for key in options:
        if key not in known:
            raise ValueError(unknown("model option", key, known, owner=name))
    missing = [key for key, option in known.items() if option.default is option.empty and key not in options]
    if missing:
        raise ValueError(f"model {name!r} needs {' and '.join(missing)}, got {', '.join(options) or 'no options'}")
    return MODELS[name](**options)
