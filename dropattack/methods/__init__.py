"""Training methods: each replaces ``loss.backward()``, see :mod:`dropattack.methods.base`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from dropattack.methods.asam import ASAM
from dropattack.methods.awp import AWP
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.methods.compose import Compose
from dropattack.methods.controls import controls
from dropattack.methods.dropattack import DropAttack
from dropattack.methods.explicit_penalty import ExplicitPenalty
from dropattack.methods.fgm import FGM
from dropattack.methods.fgsm import FGSM
from dropattack.methods.freeat import FreeAT
from dropattack.methods.freelb import FreeLB
from dropattack.methods.gradient_norm_penalty import GradientNormPenalty
from dropattack.methods.gsam import GSAM
from dropattack.methods.looksam import LookSAM
from dropattack.methods.pgd import PGD
from dropattack.methods.r3f import R3F
from dropattack.methods.rwp import RWP
from dropattack.methods.sam import SAM
from dropattack.methods.scheduled import Scheduled
from dropattack.methods.smart import SMART
from dropattack.methods.sparse_sam import SparseSAM
from dropattack.methods.standard import Standard
from dropattack.methods.vat import VAT
from dropattack.methods.weight_penalties import L1, L2
from dropattack.names import unknown

__all__ = [
    "ASAM",
    "AWP",
    "FGM",
    "FGSM",
    "GSAM",
    "L1",
    "L2",
    "METHODS",
    "PGD",
    "R3F",
    "RWP",
    "SAM",
    "SMART",
    "VAT",
    "Compose",
    "Cost",
    "DropAttack",
    "ExplicitPenalty",
    "FreeAT",
    "FreeLB",
    "GradientNormPenalty",
    "LookSAM",
    "Method",
    "Scheduled",
    "SparseSAM",
    "Standard",
    "StepRecord",
    "build_method",
    "controls",
]

METHODS: dict[str, type[Method]] = {
    # the rows of the paper's Table 2 (dropout is an option of the models)
    "standard": Standard,
    "l1": L1,
    "l2": L2,
    "fgsm": FGSM,
    "fgm": FGM,
    "pgd": PGD,
    "freeat": FreeAT,
    "freelb": FreeLB,
    "dropattack": DropAttack,
    # relatives that perturb weights
    "sam": SAM,
    "asam": ASAM,
    "sparse-sam": SparseSAM,
    "gsam": GSAM,
    "looksam": LookSAM,
    "awp": AWP,
    "rwp": RWP,
    # penalties on the gradient
    "gradient-norm-penalty": GradientNormPenalty,
    "explicit-penalty": ExplicitPenalty,
    # predictions that stay put
    "vat": VAT,
    "r3f": R3F,
    "smart": SMART,
    # methods made of methods
    "compose": Compose,
    "scheduled": Scheduled,
}


def build_method(name: str, model: nn.Module, **hyperparameters: Any) -> Method:
    """The method called ``name``, built on ``model``.

    Args:
        name: a key of ``METHODS``.
        model: the network.
        **hyperparameters: arguments of the method's class. A table with a ``name`` of its own (the parts of
            ``compose`` and ``scheduled``) is built first. ``generator`` and ``examples`` are handed to every part that
            takes them.

    Raises:
        ValueError: an unknown method or hyperparameter; the message lists the nearest known ones.

    Example:
        >>> network = nn.Linear(2, 2)
        >>> build_method("scheduled", network, every=2, method={"name": "sam", "rho": 0.1}).method.rho
        0.1
    """
    if name not in METHODS:
        raise ValueError(unknown("method", name, METHODS))
    known = [parameter for parameter in inspect.signature(METHODS[name]).parameters if parameter != "model"]
    shared = {key: value for key, value in hyperparameters.items() if key in ("generator", "examples")}
    arguments: dict[str, Any] = {}
    for key, value in hyperparameters.items():
        if key in known:
            is_method = isinstance(value, Mapping) and "name" in value
            arguments[key] = build_method(**{**value, **shared}, model=model) if is_method else value
        elif key not in shared:
            raise ValueError(unknown("hyperparameter", key, known, owner=name))
    return METHODS[name](model, **arguments)
