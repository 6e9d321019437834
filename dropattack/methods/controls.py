"""What DropAttack must be compared with before its mask, its direction or its epsilon is given credit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["controls"]


def controls(setting: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The controls of one setting of DropAttack, each a table that ``build_method`` takes.

    - ``epsilon 0``: the same passes at the clean point, so the clean gradient several times over. What it gains over
      standard training comes from the optimizer or the code path.
    - ``random direction``: perturbations of the same norms with Gaussian directions. What DropAttack gains over it
      comes from the gradient.
    - ``no mask, p epsilon`` and ``no mask, √p epsilon``: p = 1 with epsilon scaled by p, the first-order effect of the
      mask of Algorithm 1, and by √p, the mean norm of a masked perturbation. What DropAttack gains over both comes
      from the mask. For an attack on the input alone with K = 1 they are FGM.

    Args:
        setting: hyperparameters of ``"dropattack"``, as in a ``[method]`` table.

    Raises:
        ValueError: the table is of another method.

    Example:
        >>> for name, table in controls({"inputs": "embedding", "epsilon": 4.0, "attack_probability": 0.25}).items():
        ...     print(name, table["epsilon"])
        epsilon 0 0.0
        random direction 4.0
        no mask, p epsilon 1.0
        no mask, √p epsilon 2.0
    """
    if setting.get("name", "dropattack") != "dropattack":
        raise ValueError(f"expected a setting of 'dropattack', got one of {setting['name']!r}")
    base = {"name": "dropattack", **setting}
    epsilon = base.setdefault("epsilon", 5.0)
    probability = base.setdefault("attack_probability", 0.5)
    epsilon_weights = epsilon if base.get("epsilon_weights") is None else base["epsilon_weights"]
    probability_weights = (
        probability if base.get("attack_probability_weights") is None else base["attack_probability_weights"]
    )
    unmasked = base | {"attack_probability": 1.0, "attack_probability_weights": 1.0}
    return {
        "epsilon 0": base | {"epsilon": 0.0, "epsilon_weights": 0.0},
        "random direction": base | {"direction": "random"},
        "no mask, p epsilon": unmasked
        | {"epsilon": probability * epsilon, "epsilon_weights": probability_weights * epsilon_weights},
        "no mask, √p epsilon": unmasked
        | {
            "epsilon": math.sqrt(probability) * epsilon,
            "epsilon_weights": math.sqrt(probability_weights) * epsilon_weights,
        },
    }
