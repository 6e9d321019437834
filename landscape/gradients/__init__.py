"""First-order diagnostics: how large gradients are, and whether a perturbation along them acts as a penalty on them.

``sites.py`` says where a gradient is taken; ``norms.py``, how large it is. ``penalty.py`` compares the rise of the loss
under DropAttack's perturbations (``perturbations.py``) with its expansion in gradient and curvature, and ``summary.py``
says up to which epsilon that expansion describes it.
"""

from landscape.gradients.norms import gradient_norms
from landscape.gradients.penalty import penalty_check
from landscape.gradients.summary import largest_epsilon_within, summarize_penalty

__all__ = ["gradient_norms", "largest_epsilon_within", "penalty_check", "summarize_penalty"]
