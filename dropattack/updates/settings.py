"""A setting of DropAttack, its default values filled in, and updates under it with masks drawn by a seed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dropattack.arguments import check_count
from dropattack.methods import DropAttack, Method, build_method
from dropattack.names import unknown
from dropattack.passes import Closure
from dropattack.updates.collect import update_of
from dropattack.updates.vectors import Update, combined

__all__ = ["DEFAULTS", "beyond_clean", "clean_update", "dropattack", "filled", "seeds"]

DEFAULTS: dict[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(DropAttack).parameters.items()
    if name not in ("model", "generator")
}


def filled(setting: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters of DropAttack with all defaults written out, those of the weights too.

    Raises:
        ValueError: the table is of another method, or has an unknown hyperparameter.
    """
    if setting.get("name", "dropattack") != "dropattack":
        raise ValueError(f"setting: expected one of 'dropattack', got one of {setting['name']!r}")
    if "generator" in setting:
        raise ValueError("setting: expected no `generator`, got one; masks are drawn by `seed` here")
    for key in setting:
        if key not in DEFAULTS and key != "name":
            raise ValueError(unknown("hyperparameter", key, DEFAULTS, owner="dropattack"))
    options = {key: setting.get(key, default) for key, default in DEFAULTS.items()}
    for key in ("epsilon", "attack_probability"):
        if options[f"{key}_weights"] is None:
            options[f"{key}_weights"] = options[key]
    return options


def seeds(seed: int, draws: int) -> list[int]:
    """A seed for each draw of masks; more draws begin with the same ones."""
    check_count("draws", draws)
    generator = torch.Generator().manual_seed(seed)
    return [int(torch.randint(2**31, (), generator=generator)) for _ in range(draws)]


def dropattack(model: nn.Module, options: Mapping[str, Any], seed: int = 0) -> Method:
    """DropAttack with a generator of its own, on the model's device."""
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    return build_method("dropattack", model, **options, generator=generator)


def clean_update(model: nn.Module, closure: Closure, options: Mapping[str, Any]) -> Update:
    """The update at epsilon 0, where nothing depends on masks: the clean gradient, once for each loss."""
    still = {**options, "epsilon": 0.0, "epsilon_weights": 0.0, "attack_probability": 1.0}
    return update_of(dropattack(model, still | {"attack_probability_weights": 1.0}), closure)


def beyond_clean(
    model: nn.Module, closure: Closure, options: Mapping[str, Any], draws: Sequence[int]
) -> tuple[Update, list[Update]]:
    """The update at epsilon 0, and for each seed the part of the update that is beyond it."""
    clean = clean_update(model, closure, options)
    updates = (update_of(dropattack(model, options, seed), closure) for seed in draws)
    return clean, [combined(update, clean, -1.0) for update in updates]
