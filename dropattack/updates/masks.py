"""What the mask does to DropAttack's update, as a function of the attack probability."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from dropattack.methods import Method, StepRecord
from dropattack.passes import Closure
from dropattack.sites import unwrap
from dropattack.updates.collect import update_of
from dropattack.updates.settings import clean_update, dropattack, filled, seeds
from dropattack.updates.vectors import Update, agreement, combined, inner, mean

__all__ = ["mask_effects"]

_PROBABILITIES = tuple(tenth / 10 for tenth in range(1, 11))


def mask_effects(
    model: nn.Module,
    closure: Closure,
    setting: Mapping[str, Any],
    probabilities: Sequence[float] = _PROBABILITIES,
    draws: int = 16,
    seed: int = 0,
) -> pd.DataFrame:
    r"""DropAttack's step as a function of the attack probability p, at fixed epsilon and at fixed p epsilon.

    To first order the mask only rescales the attack by p, so that at fixed p epsilon nothing should change but the
    noise. What does change is what the mask itself contributes.

    Quantities, by ``quantity`` and ``of``:

    - ``rise`` of ``"inputs"`` and of ``"weights"``: the loss of that attack's last ascent step less the clean one;
    - ``perturbation_norm`` of ``"inputs"`` (the mean over examples of each one's norm; for a parameter its norm) and
      of ``"weights"`` (all together);
    - ``norm`` of ``"update"`` and of ``"beyond"``, the update less what it is at epsilon 0; and ``cosine`` of each with
      the one at p = 1;
    - ``variance`` of both that is due to the mask,
      :math:`E\lVert u - Eu \rVert^2 / \lVert Eu \rVert^2` over masks, numerator and denominator each estimated without
      bias; NaN where the latter is not positive, which means that there are too few draws. Its standard error is the
      jackknife's (Efron and Stein, "The jackknife estimate of variance", 1981).

    Cost: twice ``len(probabilities) * draws`` steps of DropAttack.

    Args:
        model: the network, left as it was.
        closure: the batch: runs the forward pass and returns the loss.
        setting: hyperparameters of DropAttack.
        probabilities: in (0, 1]; taken for input and weights alike.
        draws: number of masks; at least 2.
        seed: draws them.

    Returns:
        One row for each ``fixed`` (``"epsilon"``; ``"p epsilon"``, where the epsilons are divided by p so that the
        product is the setting's own), ``attack_probability`` (with ``epsilon`` and ``epsilon_weights``), ``of`` and
        ``quantity``: ``value``, the mean over draws (of ``variance`` the estimate), ``sd`` over draws,
        ``standard_error``, and ``draws``.

    Raises:
        ValueError: a probability outside (0, 1], or less than two draws.
    """
    options = filled(setting)
    for probability in probabilities:
        if not 0 < probability <= 1:
            raise ValueError(f"probabilities: expected some in (0, 1], got {probability}")
    if draws < 2:
        raise ValueError(f"draws: expected at least 2, got {draws}: one mask has no variance")
    drawn = seeds(seed, draws)
    clean = clean_update(model, closure, options)
    rows = []
    for fixed in ("epsilon", "p epsilon"):
        (unmasked, _), *_ = _steps(model, closure, _at(options, 1.0, fixed), drawn[:1])
        for probability in probabilities:
            changed = _at(options, probability, fixed)
            about = {"fixed": fixed} | {key: changed[key] for key in ("attack_probability", *_EPSILONS)}
            steps = list(_steps(model, closure, changed, drawn))
            records = [_measured(model, record, options["batch_dim"]) for _, record in steps]
            found = _over_draws(records) + _updates([update for update, _ in steps], clean, unmasked)
            rows += [{**about, **row, "draws": draws} for row in found]
    return pd.DataFrame(rows)


_EPSILONS = ("epsilon", "epsilon_weights")


def _at(options: Mapping[str, Any], probability: float, fixed: str) -> dict[str, Any]:
    """The setting with another attack probability, and for fixed p epsilon with other epsilons."""
    changed = {**options, "attack_probability": probability, "attack_probability_weights": probability}
    if fixed == "epsilon":
        return changed
    products = {key: options[key] * options[key.replace("epsilon", "attack_probability")] for key in _EPSILONS}
    return changed | {key: product / probability for key, product in products.items()}


def _steps(
    model: nn.Module, closure: Closure, options: Mapping[str, Any], drawn: Sequence[int]
) -> Iterator[tuple[Update, StepRecord]]:
    for seed in drawn:
        method: Method = dropattack(model, options, seed)
        update = update_of(method, closure)
        assert method.last is not None  # the step has just been made
        yield update, method.last


def _measured(model: nn.Module, record: StepRecord, batch_dim: int) -> dict[tuple[str, str], float]:
    """By attack and quantity, what one step did."""
    has_input = "inputs" in record.adversarial_losses
    names = list(record.perturbations)  # the input comes first
    sites = {"inputs": names[:1], "weights": names[1:]} if has_input else {"weights": names}
    parameters = dict(unwrap(model).named_parameters(remove_duplicate=False))
    found = {}
    for attack, losses in record.adversarial_losses.items():
        found[attack, "rise"] = float(losses[-1].double() - record.clean_loss.double())
        offsets = [record.perturbations[name].double() for name in sites[attack]]
        by_example = attack == "inputs" and names[0] not in parameters
        found[attack, "perturbation_norm"] = (
            _mean_row_norm(offsets[0], batch_dim) if by_example else math.hypot(*(float(r.norm()) for r in offsets))
        )
    return found


def _mean_row_norm(offset: Tensor, batch_dim: int) -> float:
    return float(offset.movedim(batch_dim, 0).flatten(1).norm(dim=1).mean())


def _over_draws(values: Sequence[Mapping[tuple[str, str], float]]) -> list[dict[str, Any]]:
    """Mean, standard deviation and standard error of each quantity."""
    rows = []
    for of, quantity in values[0]:
        sample = np.array([one[of, quantity] for one in values])
        sd = float(sample.std(ddof=1))
        row = {"of": of, "quantity": quantity, "value": float(sample.mean()), "sd": sd}
        rows.append(row | {"standard_error": sd / math.sqrt(len(sample))})
    return rows


def _updates(updates: Sequence[Update], clean: Update, unmasked: Update) -> list[dict[str, Any]]:
    """Norm, cosine with the update at p = 1, and relative variance, of the updates and of their parts beyond."""
    rows = []
    center = mean(updates)
    deviations = [combined(update, center, -1.0) for update in updates]
    squares = np.array([inner(deviation, deviation) for deviation in deviations])
    for of, less in (("update", None), ("beyond", clean)):
        parts = [_without(update, less) for update in updates]
        against, middle = _without(unmasked, less), _without(center, less)
        compared = [agreement(part, against) for part in parts]
        rows += _over_draws([{(of, key): one[key] for key in ("norm", "cosine")} for one in compared])
        products = np.array([inner(deviation, middle) for deviation in deviations])
        value, error = _relative_variance(squares, products, inner(middle, middle))
        rows.append({"of": of, "quantity": "variance", "value": value, "sd": math.nan, "standard_error": error})
    return rows


def _without(update: Update, less: Update | None) -> Update:
    return update if less is None else combined(update, less, -1.0)


def _relative_variance(squares: np.ndarray, products: np.ndarray, squared_mean: float) -> tuple[float, float]:
    r"""The variance over draws as a share of the squared norm of the mean, and its jackknife standard error.

    Args:
        squares: :math:`\lVert u_d - \bar u \rVert^2` of each draw.
        products: :math:`\langle u_d - \bar u, \bar u \rangle` of each draw.
        squared_mean: :math:`\lVert \bar u \rVert^2`.
    """
    n = len(squares)
    value = _ratio(squares.sum(), squared_mean, n)
    # Without draw d the mean moves by (ū - u_d) / (n - 1).
    left_out = [
        _ratio(
            squares.sum() - square * n / (n - 1), squared_mean - 2 * product / (n - 1) + square / (n - 1) ** 2, n - 1
        )
        for square, product in zip(squares, products, strict=True)
    ]
    return value, math.sqrt((n - 1) * float(np.var(left_out))) if n > 2 else math.nan


def _ratio(sum_of_squares: float, squared_mean: float, n: int) -> float:
    """Both without bias: the squared norm of a mean of n exceeds that of the expectation by an nth of the variance."""
    if n < 2:
        return math.nan
    variance = float(sum_of_squares) / (n - 1)
    expected = squared_mean - variance / n
    return variance / expected if expected > 0 else math.nan
