"""How much each reading of the paper changes DropAttack's update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from torch import nn

from dropattack.passes import Closure
from dropattack.sites import find_parameters, unwrap
from dropattack.updates.settings import beyond_clean, filled, seeds
from dropattack.updates.vectors import Update, agreement, combined

__all__ = ["reading_effects"]

_QUANTITIES = ("norm", "norm_ratio", "cosine", "distance")


def reading_effects(
    model: nn.Module, closure: Closure, setting: Mapping[str, Any], draws: int = 16, seed: int = 0
) -> pd.DataFrame:
    """DropAttack's update when one switch is set otherwise, against the update of the setting as it is.

    The paper leaves open what some of its symbols mean, and its code differs from its text. Each switch of
    :class:`~dropattack.methods.dropattack.DropAttack` that decides such a question is set to each of its values, one at
    a time. Where ``inputs`` names an embedding layer, its weight is attacked instead too. ``accumulate`` matters only
    for several ascent steps and is tried with three.

    Cost: for each row the passes of DropAttack, ``draws`` times.

    Args:
        model: the network, left as it was.
        closure: the batch: runs the forward pass and returns the loss.
        setting: hyperparameters of DropAttack; what it leaves out has its default value.
        draws: number of masks.
        seed: draws them. Updates are compared draw by draw, with the same masks where the attacked tensors are the
            same; after an attack on other tensors, or a random direction, the masks that follow are others.

    Returns:
        One row for each ``switch``, ``value`` and ``of`` (``"update"``; ``"beyond"``, without what the same reading
        adds at epsilon 0): over draws the means of ``norm``, ``norm_ratio`` to, ``cosine`` with and relative L2
        ``distance`` from the update of the setting, the standard deviation of each (``norm_sd`` …), and ``draws``. The
        setting's own value of a switch has a row too, with a cosine of 1.

    Raises:
        ValueError: an unknown hyperparameter, or less than one draw.
    """
    options = filled(setting)
    drawn = seeds(seed, draws)
    base = beyond_clean(model, closure, options, drawn)
    rows = []
    for switch, value, changes in _readings(unwrap(model), options):
        changed = base if not changes else beyond_clean(model, closure, {**options, **changes}, drawn)
        for of, table in _compared(changed, base).items():
            rows.append({"switch": switch, "value": value, "of": of} | _summary(table) | {"draws": draws})
    return pd.DataFrame(rows)


def _readings(model: nn.Module, options: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each switch, its value in words, and the hyperparameters that this changes."""
    for switch, values, common in _switches(model, options):
        label = ", ".join([switch, *(f"{key}={value}" for key, value in common.items())])
        for value in values:
            changes = {**common, switch: value}
            if switch in ("attack_probability", "epsilon"):
                changes |= {f"{switch}_weights": value}
            yield label, str(value), {key: new for key, new in changes.items() if options[key] != new}


def _switches(model: nn.Module, options: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Each switch, the values that it can have in this setting, and what else is set with it."""
    inputs, probability = options["inputs"], options["attack_probability"]
    is_embedding = isinstance(dict(model.named_modules()).get(inputs or ""), nn.Embedding)
    attacked = {site.name for site in find_parameters(model, options["weights"])}
    weight = f"{inputs}.weight"
    weight_is_free = is_embedding and weight not in attacked and model.get_parameter(weight).requires_grad
    if weight_is_free:
        yield "inputs", (inputs, weight), {}
    if inputs is not None and inputs not in dict(model.named_parameters(remove_duplicate=False)):
        yield "input_norm", ("example", "tensor"), {}
    if attacked:
        yield "weight_norm", ("tensor", "global"), {}
    has_authors_code = inputs is None or not is_embedding or weight_is_free
    is_parameter_or_embedding = inputs is None or is_embedding or inputs in dict(model.named_parameters())
    if has_authors_code and is_parameter_or_embedding and not _contradicts_authors_code(options):
        yield "reading", ("paper", "authors-code"), {}
    if options["reading"] == "paper":
        yield "mask_then_normalize", (False, True), {}
    yield "clean_weight", (0.0, 1.0, 2.0), {}
    yield "reduction", ("sum", "mean"), {}
    yield "ascent_steps", (1, 3), {}
    yield "accumulate", (False, True), {"ascent_steps": 3}
    yield "relative_epsilon", (False, True), {}
    yield "direction", ("gradient", "random"), {}
    yield "attack_probability", (probability, 1.0), {}


def _contradicts_authors_code(options: Mapping[str, Any]) -> bool:
    return options["mask_then_normalize"] or options["weight_norm"] == "global"


def _compared(changed: tuple[Update, list[Update]], base: tuple[Update, list[Update]]) -> dict[str, pd.DataFrame]:
    """One row a draw, for the whole updates and for the parts beyond the clean gradient."""
    (clean, parts), (base_clean, base_parts) = changed, base
    pairs = list(zip(parts, base_parts, strict=True))
    whole = [agreement(combined(clean, one), combined(base_clean, other)) for one, other in pairs]
    return {"update": pd.DataFrame(whole), "beyond": pd.DataFrame(agreement(one, other) for one, other in pairs)}


def _summary(table: pd.DataFrame) -> dict[str, float]:
    means = {quantity: float(table[quantity].mean()) for quantity in _QUANTITIES}
    return means | {f"{quantity}_sd": float(table[quantity].std()) for quantity in _QUANTITIES}
