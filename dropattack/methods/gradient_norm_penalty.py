"""GNP: penalizing the gradient norm by a second gradient uphill (Zhao, Zhang and Hu 2022)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dropattack.ascent import check_nonnegative, check_probability, units
from dropattack.distributed import averaged
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.passes import Step, watched_gradient
from dropattack.sites import Site, find_parameters

__all__ = ["GradientNormPenalty"]


class GradientNormPenalty(Method):
    r"""The gradient :math:`(1-\alpha)\, g + \alpha\, \nabla L(\theta + \rho\, g / \lVert g \rVert_2)`.

    Zhao, Zhang and Hu, "Penalizing gradient norm for efficiently improving generalization in deep learning", ICML 2022,
    equation 12: to first order the gradient of :math:`L + \alpha\rho \lVert g \rVert_2`. The norm is taken over all the
    chosen weights together. The authors' default configuration mixes in the *unit* gradient instead of g, which is not
    their formula and is not done here. With ``alpha=1`` it is SAM.

    Cost: 2 forward and backward passes, a copy of the chosen weights.

    Args:
        model: the network.
        rho: norm of the ascent step; at least 0.
        alpha: weight of the gradient uphill, in [0, 1].
        weights: names or ``fnmatch`` patterns of the perturbed parameters.
        sync_perturbation: average the gradient over the processes of the default group before the ascent step;
            otherwise each process perturbs by its own micro-batch, which is what most distributed SAM code does.

    Raises:
        ValueError: a pattern without a trainable parameter, a negative rho, alpha outside [0, 1].
    """

    def __init__(
        self,
        model: nn.Module,
        rho: float = 0.05,
        alpha: float = 0.8,
        weights: Sequence[str] = ("*",),
        *,
        sync_perturbation: bool = False,
    ) -> None:
        super().__init__(model)
        self._sites = find_parameters(self.model, weights)
        self.rho = check_nonnegative("rho", rho)
        self.alpha = check_probability("alpha", alpha)
        self.sync_perturbation = sync_perturbation

    @property
    def cost(self) -> Cost:
        """A pass at the weights and a pass uphill."""
        return Cost(forwards=2, backwards=2)

    def _step(self, step: Step) -> StepRecord:
        clean_loss = step.run(1 - self.alpha, watch=self._sites, clean=True)
        gradients = [watched_gradient(site) for site in self._sites]
        if self.sync_perturbation:
            gradients = [averaged(gradient) for gradient in gradients]
        offsets: dict[Site, Tensor] = {
            site: self.rho * unit for site, unit in zip(self._sites, units(gradients, "global"), strict=True)
        }
        adversarial_loss = step.run(self.alpha, offsets)
        return StepRecord(
            clean_loss, {"weights": [adversarial_loss]}, {site.name: offset for site, offset in offsets.items()}
        )
