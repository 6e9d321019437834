"""Training methods: each replaces ``loss.backward()``, see :mod:`dropattack.methods.base`."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from dropattack.methods.asam import ASAM
from dropattack.methods.awp import AWP
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.methods.dropattack import DropAttack
from dropattack.methods.fgm import FGM
from dropattack.methods.fgsm import FGSM
from dropattack.methods.freeat import FreeAT
from dropattack.methods.freelb import FreeLB
from dropattack.methods.gradient_norm_penalty import GradientNormPenalty
from dropattack.methods.pgd import PGD
from dropattack.methods.sam import SAM
from dropattack.methods.standard import Standard
from dropattack.methods.weight_penalties import L1, L2
from dropattack.names import unknown

__all__ = [
    "ASAM",
    "AWP",
    "FGM",
    "FGSM",
    "L1",
    "L2",
    "METHODS",
    "PGD",
    "SAM",
    "Cost",
    "DropAttack",
    "FreeAT",
    "FreeLB",
    "GradientNormPenalty",
    "Method",
    "Standard",
    "StepRecord",
    "build_method",
]

METHODS: dict[str, type[Method]] = {
    "standard": Standard,
    "l1": L1,
    "l2": L2,
    "fgsm": FGSM,
    "fgm": FGM,
    "pgd": PGD,
    "freeat": FreeAT,
    "freelb": FreeLB,
    "dropattack": DropAttack,
    "sam": SAM,
    "asam": ASAM,
    "awp": AWP,
    "gradient-norm-penalty": GradientNormPenalty,
}


def build_method(name: str, model: nn.Module, **hyperparameters: Any) -> Method:
    """The method called ``name``, built on ``model``.

    Args:
        name: a key of ``METHODS``.
        model: the network.
        **hyperparameters: arguments of the method's class.

    Raises:
        ValueError: an unknown method or hyperparameter; the message lists the nearest known ones.
    """
    if name not in METHODS:
        raise ValueError(unknown("method", name, METHODS))
    known = [parameter for parameter in inspect.signature(METHODS[name]).parameters if parameter != "model"]
    for key in hyperparameters:
        if key not in known:
            raise ValueError(unknown("hyperparameter", key, known, owner=name))
    return METHODS[name](model, **hyperparameters)
