"""DropAttack's update beside the gradient of the penalty that it is said to amount to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import nn

from dropattack.arguments import check_nonnegative
from dropattack.methods import ExplicitPenalty
from dropattack.passes import Closure
from dropattack.updates.collect import update_of
from dropattack.updates.settings import DEFAULTS, beyond_clean, filled, seeds
from dropattack.updates.vectors import Update, agreement, combined, mean

__all__ = ["explicit_against_implicit"]

_FORMS = ("first-order", "masked-norm")
_ORDERS = {"normalize-then-mask": False, "mask-then-normalize": True}
# What the explicit penalty has no counterpart of.
_FIXED = ("input_norm", "weight_norm", "relative_epsilon", "direction", "reduction", "reading", "mask_then_normalize")


def explicit_against_implicit(
    model: nn.Module,
    closures: Closure | Sequence[Closure],
    setting: Mapping[str, Any],
    epsilons: Sequence[float],
    draws: int = 16,
    seed: int = 0,
) -> pd.DataFrame:
    r"""DropAttack's update against the gradient of the explicit penalty, at the same weights, batch and masks.

    Equations 8 to 13 of the DropAttack paper say that to first order in epsilon the method is a penalty on the norm of
    the gradient. As epsilon goes to 0, the update of ``mask-then-normalize`` is that of ``masked-norm`` at each mask;
    the update of ``normalize-then-mask`` (Algorithm 1, the default) is that of ``first-order`` and of ``expectation``,
    :math:`p\, \epsilon\, \nabla \lVert g \rVert_2`, only in the mean over masks. A mean over few draws keeps part of
    the masks' noise, which lowers the cosine and raises the norm: :func:`~dropattack.updates.mask_effects` says how
    much noise there is.

    These limits are of smooth networks. A perturbation of finite size carries units of ReLU and of max pooling over
    their kinks, which changes the implicit update, while the second derivative of the penalty sees no kink: with
    LeNet-5 the two already differ at an epsilon of 0.001, and agree to 1 % at 0.00001. For a small epsilon use float64.

    Cost for each batch: 8 passes a draw, and for each epsilon twice DropAttack's passes a draw.

    Args:
        model: the network, left as it was.
        closures: one or several batches: each runs the forward pass and returns the loss.
        setting: hyperparameters of DropAttack: the sites, the attack probability, ``ascent_steps`` …
        epsilons: what takes the place of the setting's; ``epsilon_weights`` keeps its ratio to it.
        draws: number of masks.
        seed: draws them; both sides have the same ones.

    Returns:
        One row for each batch (``batch``, from 0), ``epsilon``, ``implicit`` (``"normalize-then-mask"``,
        ``"mask-then-normalize"``), ``explicit`` (``"first-order"``, ``"masked-norm"``, ``"expectation"``), ``draw``
        (NaN: the means over all draws) and ``of`` (``"update"``; ``"beyond"``, without the clean gradient). ``norm``,
        ``norm_ratio``, ``cosine`` and ``distance`` are of the implicit update to the explicit one.

    Raises:
        ValueError: the setting has a switch that the explicit penalty has no counterpart of, different attack
            probabilities for input and weights, or no positive epsilon.
    """
    options = filled(setting)
    _check(options)
    share = options["epsilon_weights"] / options["epsilon"]
    drawn = seeds(seed, draws)
    rows = []
    for batch, closure in enumerate([closures] if callable(closures) else closures):
        clean, slopes = _explicit(model, closure, options, share, drawn)
        for epsilon in epsilons:
            sizes = {"epsilon": check_nonnegative("epsilons", epsilon), "epsilon_weights": share * epsilon}
            for order, switch in _ORDERS.items():
                changed = {**options, **sizes, "mask_then_normalize": switch}
                implicit_clean, implicit = beyond_clean(model, closure, changed, drawn)
                about = {"batch": batch, **sizes, "implicit": order}
                for form, parts in slopes.items():
                    explicit = [combined(part, factor=epsilon) for part in parts]
                    pairs = _pairs((implicit_clean, implicit), (clean, explicit))
                    rows += [{**about, "explicit": form, **pair} for pair in pairs]
    return pd.DataFrame(rows)


def _check(options: Mapping[str, Any]) -> None:
    for key in _FIXED:
        if options[key] != DEFAULTS[key]:
            raise ValueError(
                f"setting: {key}={options[key]!r} has no explicit penalty to be compared with; leave it out (both "
                "orders of mask and norm are compared)"
            )
    probabilities = options["attack_probability"], options["attack_probability_weights"]
    if probabilities[0] != probabilities[1] and options["inputs"] is not None:
        raise ValueError(
            f"setting: expected one attack probability for input and weights, got {probabilities}: the explicit "
            "penalty has one; compare the two attacks one by one"
        )
    if not options["epsilon"] > 0:
        raise ValueError(f"setting: expected a positive epsilon, got {options['epsilon']}: the others are scaled to it")


def _explicit(
    model: nn.Module, closure: Closure, options: Mapping[str, Any], share: float, drawn: Sequence[int]
) -> tuple[Update, dict[str, list[Update]]]:
    """The update at epsilon 0, and by form the penalty's part at epsilon 1, to which it is proportional."""
    attacks = (options["inputs"] is not None) + bool(options["weights"])
    probability = options["attack_probability_weights" if options["inputs"] is None else "attack_probability"]

    def update(epsilon: float, probability: float, form: Any = "first-order", seed: int = 0) -> Update:
        penalty = ExplicitPenalty(
            model,
            options["inputs"],
            options["weights"],
            epsilon,
            share * epsilon,
            probability,
            form=form,
            loss_weight=options["clean_weight"] + attacks,
            batch_dim=options["batch_dim"],
            generator=torch.Generator(next(model.parameters()).device).manual_seed(seed),
        )
        return update_of(penalty, closure)

    clean = update(0.0, 1.0)
    parts = {form: [combined(update(1.0, probability, form, seed), clean, -1.0) for seed in drawn] for form in _FORMS}
    expected = combined(update(probability, 1.0), clean, -1.0)
    return clean, parts | {"expectation": [expected] * len(drawn)}


def _pairs(implicit: tuple[Update, list[Update]], explicit: tuple[Update, list[Update]]) -> Iterator[dict[str, Any]]:
    """For each draw, and for the means over draws, the whole updates and the parts beyond the clean gradient."""
    (clean, parts), (explicit_clean, explicit_parts) = implicit, explicit
    draws: list[int | None] = [*range(len(parts)), None]
    for draw, one, other in zip(draws, [*parts, mean(parts)], [*explicit_parts, mean(explicit_parts)], strict=True):
        whole = agreement(combined(clean, one), combined(explicit_clean, other))
        yield {"draw": draw, "of": "update"} | whole
        yield {"draw": draw, "of": "beyond"} | agreement(one, other)
