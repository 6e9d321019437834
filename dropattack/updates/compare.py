"""The updates of several methods at the same weights on the same batch."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from torch import nn

from dropattack.methods import Standard
from dropattack.names import unknown
from dropattack.passes import Closure
from dropattack.updates.collect import MethodLike, build, clean_part, update_of
from dropattack.updates.vectors import Update, agreement, combined

__all__ = ["compare_updates"]


def compare_updates(
    model: nn.Module, closure: Closure, methods: Mapping[str, MethodLike], against: str, seed: int = 0
) -> pd.DataFrame:
    r"""How the updates of methods differ from the update of one of them, at the model's weights, on one batch.

    A method whose losses have a total weight of c adds :math:`c\, g` and something beyond it. The clean gradient
    :math:`g` is most of an update, so that cosines between whole updates say little, and both are compared: ``of`` is
    ``"update"`` or ``"beyond"``, the update less what the same method adds at epsilon 0. Where the two are close,
    the difference is as exact as rounding leaves it: use float64 for a small epsilon.

    Args:
        model: the network, left as it was.
        closure: runs the forward pass on the batch and returns the loss.
        methods: by the name they are to have in the table: a method on ``model``, a function that makes one from it,
            or a table for ``build_method`` with the method's ``name``.
        against: the name of the one that all are compared with.
        seed: draws the masks of methods given as tables, the same for each.

    Returns:
        One row for each method, parameter (and ``"all"`` of them together) and ``of``: ``loss_weight``, c; ``norm``;
        ``norm_ratio`` to, ``cosine`` with and relative L2 ``distance`` from what ``against`` has there. NaN where a
        norm is zero.

    Raises:
        ValueError: ``against`` is not among the methods, or a method does something beyond the clean gradient at
            epsilon 0.

    Example:
        >>> import torch
        >>> from dropattack.methods import FGM
        >>> model = nn.Linear(3, 2)
        >>> x, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
        >>> table = compare_updates(
        ...     model,
        ...     lambda: nn.functional.cross_entropy(model(x), y),
        ...     {"fgm": lambda model: FGM(model, "input", 0.1), "sam": {"name": "sam", "rho": 0.1}},
        ...     against="fgm",
        ... )
        >>> whole = table[(table["parameter"] == "all") & (table["of"] == "update")]
        >>> dict(zip(whole["method"], whole["loss_weight"].round(3)))
        {'fgm': 2.0, 'sam': 1.0}
    """
    if against not in methods:
        raise ValueError(unknown("method", against, methods))
    gradient = update_of(Standard(model), closure)
    found: dict[str, dict[str, Update]] = {}
    weights: dict[str, float] = {}
    for name, method in methods.items():
        built = build(model, name, method, seed)
        clean, weights[name] = clean_part(built, closure, gradient)
        update = update_of(built, closure)
        found[name] = {"update": update, "beyond": combined(update, clean, -1.0)}
    return pd.DataFrame(
        {"method": name, "against": against, "parameter": parameter, "of": of, "loss_weight": weights[name]}
        | agreement(_part(one, parameter), _part(found[against][of], parameter))
        for name, parts in found.items()
        for of, one in parts.items()
        for parameter in ("all", *one)
    )


def _part(update: Update, parameter: str) -> Update:
    return update if parameter == "all" else {parameter: update[parameter]}
