"""Is a masked perturbation a gradient penalty? Equations 8 to 13 of the DropAttack paper, measured."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from landscape.gradients.expansion import of_activation, of_parameter
from landscape.gradients.perturbations import Settings
from landscape.gradients.rises import rounding_noise
from landscape.gradients.sites import find_sites
from landscape.risk import EmpiricalRisk

__all__ = ["penalty_check"]

_EPSILONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 5.0, 10.0)


def penalty_check(
    risk: EmpiricalRisk,
    sites: Sequence[str] = ("input", "*"),
    epsilons: Sequence[float] = _EPSILONS,
    attack_probability: float = 0.5,
    masks: int = 8,
    random_directions: int = 8,
    mask_then_normalize: bool = False,
    seed: int = 0,
    relative_epsilon: bool = False,
) -> pd.DataFrame:
    r"""How the loss rises under masked perturbations along the gradient, beside what a gradient penalty would add.

    Ni, Li and Kao, "DropAttack: A Masked Weight Adversarial Training Method to Improve Generalization of Neural
    Networks" (arXiv:2108.12805), derive in equations 8 to 13 that training at the perturbed input or weights
    :math:`v + r` adds a penalty :math:`\epsilon \lVert M \odot g \rVert`, with :math:`g = \nabla_v L` and a mask
    :math:`M` of independent Bernoulli(p) entries. With the perturbation of their Algorithm 1,
    :math:`r = \epsilon \, M \odot g / \lVert g \rVert`, the expansion is

    .. math::
        L(v + r) - L(v) = \langle g, r \rangle + \tfrac12 r^\top H r + O(\epsilon^3), \qquad
        \langle g, r \rangle = \epsilon \frac{\lVert M \odot g \rVert^2}{\lVert g \rVert},

    whose mean over masks is :math:`p \epsilon \lVert g \rVert`. The penalty of their equation 12 belongs to the other
    order, :math:`r = \epsilon \, M \odot g / \lVert M \odot g \rVert`. Here each term is set beside the measured rise.

    With respect to a parameter, g is the gradient of the mean loss over all examples. With respect to an activation,
    each example has its own loss, gradient, norm and mask, and all numbers are means over examples. BatchNorm's
    statistics do not move with the weights: the gradient takes them for constants.

    The rise is the mean of differences of per-example losses, taken in float64. ``rise_noise`` is what rounding alone
    makes of it: the root mean square of the rise when every weight moves by one unit in the last place, up or down at
    random, and at least the rounding of the losses themselves. For a LeNet-5 in float32 and 300 digits it is 3e-8,
    1/200 of the smallest rise at epsilon 0.001, and as large as the difference from a copy in float64, which takes
    eight times as long. Where it matters, check such a copy (``model.double()``, on data in float64).

    A loss has no gradient at its kinks. Where examples lie on them the ratio of rise and first order does not go to 1
    with epsilon: a blank margin of images ties in max pooling, which leaves 0.991 at the input of that LeNet-5.

    Cost, for each site: one gradient; one Hessian-vector product and one forward pass for each epsilon, for each of
    ``masks + random_directions + 2`` directions. For an activation one pass over the batches serves all.

    Args:
        risk: the function.
        sites: ``"input"``, the first floating-point argument of the model; a module's name, its output; a parameter's
            name or an ``fnmatch`` pattern of parameters, each a site of its own.
        epsilons: norms of the perturbation, of each example's own row of an activation or of a parameter.
        attack_probability: P(an entry is attacked), in [0, 1].
        masks: number of masks, the same for every epsilon.
        random_directions: number of Gaussian directions, on the entries where the gradient is not zero. Number j gets
            the norm of the perturbation with mask j (modulo their number).
        mask_then_normalize: the other order, in which the perturbation keeps norm epsilon.
        seed: of the masks and directions: the same for every model of one architecture.
        relative_epsilon: read epsilons as shares of the norm of what is perturbed.

    Returns:
        One row for each site, epsilon and perturbation:

        - ``site``; ``kind``, ``"activation"`` or ``"parameter"``; ``epsilon``;
        - ``perturbation``: ``"masked"``, r as above; ``"gradient"``, :math:`\epsilon \, g / \lVert g \rVert` without a
          mask; ``"scaled gradient"``, p times that (:math:`\sqrt p` times with ``mask_then_normalize``), with about the
          masked one's first-order term and without its randomness; ``"random"``;
        - ``draw``, the number of the mask or random direction; ``norm`` of r;
        - ``rise``, measured; ``rise_noise``;
        - ``first_order``, :math:`\langle g, r \rangle`; ``second_order``, :math:`\tfrac12 r^\top H r`;
        - ``eq_12``, :math:`\epsilon \lVert M \odot g \rVert`; ``expected_first_order``, :math:`p \epsilon \lVert g
          \rVert`; both NaN without a mask, the second also with ``mask_then_normalize``;
        - ``attack_probability``, ``mask_then_normalize``, ``relative_epsilon``, ``seed`` and ``examples``.

        Where the gradient is zero nothing moves, and all terms are zero.

    Raises:
        ValueError: an unknown site, a number that cannot be, or a risk under autocast, whose roundings are coarser
            than the rises.
        TypeError: the activation is not a floating-point tensor (token ids: name the embedding module instead).
    """
    if isinstance(epsilons, int | float):
        raise TypeError(f"epsilons: expected a sequence of numbers, got {epsilons}; write ({epsilons},)")
    settings = Settings(
        tuple(map(float, epsilons)), attack_probability, masks, random_directions, mask_then_normalize,
        relative_epsilon, seed,
    )  # fmt: skip
    if "precision" in risk.options:
        raise ValueError(
            f"penalty_check: expected a risk in the model's own precision, got {risk.options['precision']}"
        )
    activations, parameters = find_sites(risk, sites)
    noise = rounding_noise(risk, seed)
    tables = [of_activation(risk, site, settings).assign(site=site, kind="activation") for site in activations]
    gradient = risk.gradient() if parameters else {}
    for name in parameters:
        tables.append(of_parameter(risk, name, gradient[name], settings).assign(site=name, kind="parameter"))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(_COLUMNS))
    table = table.assign(
        rise_noise=noise,
        attack_probability=attack_probability,
        mask_then_normalize=mask_then_normalize,
        relative_epsilon=relative_epsilon,
        seed=seed,
        examples=risk.count,
    )
    return table[list(_COLUMNS)]


_COLUMNS = (
    "site", "kind", "epsilon", "perturbation", "draw", "norm", "rise", "rise_noise", "first_order", "second_order",
    "eq_12", "expected_first_order", "attack_probability", "mask_then_normalize", "relative_epsilon", "seed",
    "examples",
)  # fmt: skip
