"""What SAM and its relatives have in common: a step uphill in weight space, and the gradient there."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from torch import Tensor, nn

from dropattack.arguments import check_nonnegative, check_probability
from dropattack.ascent import global_step
from dropattack.distributed import averaged
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.passes import Step, watched_gradient
from dropattack.sites import Site, find_parameters

__all__ = ["CombinedAscent", "GlobalAscent", "WeightAscent"]


class WeightAscent(Method):
    r"""The gradient :math:`(1-\alpha)\, g + \alpha\, \nabla L(\theta + e(g))`; a method says what :math:`e` is.

    Cost: 2 forward and backward passes, a copy of the perturbed weights.

    Args:
        model: the network.
        weights: names or ``fnmatch`` patterns of the perturbed parameters.
        alpha: weight of the gradient uphill, in [0, 1]; 1 throws the clean gradient away.
        sync_perturbation: average the gradient over the processes of the default group before the ascent step;
            otherwise each process perturbs by its own micro-batch, which is what most distributed SAM code does.

    Raises:
        ValueError: a pattern without a trainable parameter, alpha outside [0, 1].
    """

    def __init__(
        self, model: nn.Module, weights: Sequence[str], alpha: float = 1.0, *, sync_perturbation: bool = False
    ) -> None:
        super().__init__(model)
        self._sites = find_parameters(self.model, weights)
        self.alpha = check_probability("alpha", alpha)
        self.sync_perturbation = sync_perturbation

    @property
    def cost(self) -> Cost:
        """A pass at the weights and a pass uphill."""
        return Cost(forwards=2, backwards=2)

    @abc.abstractmethod
    def _perturbations(self, gradients: list[Tensor]) -> list[Tensor]:
        """The ascent step of each weight in ``self._sites``, from their gradients."""

    def _step(self, step: Step) -> StepRecord:
        clean_loss = step.run(1 - self.alpha, watch=self._sites, clean=True)
        gradients = [watched_gradient(site) for site in self._sites]
        if self.sync_perturbation:
            gradients = [averaged(gradient) for gradient in gradients]
        offsets: dict[Site, Tensor] = dict(zip(self._sites, self._perturbations(gradients), strict=True))
        adversarial_loss = step.run(self.alpha, offsets)
        perturbations = {site.name: offset for site, offset in offsets.items()}
        return StepRecord(clean_loss, {"weights": [adversarial_loss]}, perturbations)


class GlobalAscent(WeightAscent):
    r"""The step is :math:`\rho\, g / \lVert g \rVert_2`, with one norm over all perturbed weights together.

    Args:
        model: the network.
        rho: norm of the ascent step; at least 0.
        weights: names or ``fnmatch`` patterns of the perturbed parameters.
        alpha: weight of the gradient uphill, in [0, 1].
        relative_rho: read rho as a share of the norm of all perturbed weights together.
        sync_perturbation: as for :class:`WeightAscent`.

    Raises:
        ValueError: a pattern without a trainable parameter, a negative rho, alpha outside [0, 1].
    """

    def __init__(
        self,
        model: nn.Module,
        rho: float,
        weights: Sequence[str],
        alpha: float = 1.0,
        *,
        relative_rho: bool = False,
        sync_perturbation: bool = False,
    ) -> None:
        super().__init__(model, weights, alpha, sync_perturbation=sync_perturbation)
        self.rho = check_nonnegative("rho", rho)
        self.relative_rho = relative_rho

    def _perturbations(self, gradients: list[Tensor]) -> list[Tensor]:
        values = [site.value for site in self._sites] if self.relative_rho else None
        return global_step(gradients, self.rho, values)


class CombinedAscent(Method):
    """Combines the clean gradient with SAM's; a method says how.

    Both gradients are then those of the whole batch: across processes each of the two passes is reduced (one reduction
    more than SAM), and all perturb alike.

    Args:
        model: the network.
        rho: norm of the ascent step over all perturbed weights together; at least 0.
        weights: names or ``fnmatch`` patterns of the perturbed parameters; the gradients of all are combined.
        relative_rho: read rho as a share of the norm of all perturbed weights together.

    Raises:
        ValueError: a pattern without a trainable parameter, a negative rho.
    """

    def __init__(self, model: nn.Module, rho: float, weights: Sequence[str], *, relative_rho: bool = False) -> None:
        super().__init__(model)
        self._sites = find_parameters(self.model, weights)
        self._trained = find_parameters(self.model, ("*",))
        self.rho = check_nonnegative("rho", rho)
        self.relative_rho = relative_rho

    def _both(self, step: Step) -> tuple[StepRecord, list[Tensor], list[Tensor]]:
        """Two passes: ``.grad`` gains the gradient uphill, and both gradients of all trained weights are returned."""
        clean_loss = step.run(0.0, watch=self._trained, clean=True, synchronize=True)
        clean = self._watched()
        by_name = dict(zip((site.name for site in self._trained), clean, strict=True))
        values = [site.value for site in self._sites] if self.relative_rho else None
        uphill = global_step([by_name[site.name] for site in self._sites], self.rho, values)
        offsets: dict[Site, Tensor] = dict(zip(self._sites, uphill, strict=True))
        adversarial_loss = step.run(1.0, offsets, watch=self._trained)
        perturbations = {site.name: offset for site, offset in offsets.items()}
        return StepRecord(clean_loss, {"weights": [adversarial_loss]}, perturbations), clean, self._watched()

    def _watched(self) -> list[Tensor]:
        return [watched_gradient(site) for site in self._trained]
