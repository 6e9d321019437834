"""The networks of the paper, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from dropattack.models.lenet import LeNet5
from dropattack.names import unknown

__all__ = ["MODELS", "LeNet5", "build_model"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet5": LeNet5,
}


def build_model(name: str, **options: Any) -> nn.Module:
    """The network called ``name``, initialized from the global random stream.

    Raises:
        ValueError: an unknown model or option; the message lists the nearest known ones.
    """
    if name not in MODELS:
        raise ValueError(unknown("model", name, MODELS))
    known = list(inspect.signature(MODELS[name]).parameters)
    for key in options:
        if key not in known:
            raise ValueError(unknown("model option", key, known, owner=name))
    return MODELS[name](**options)
