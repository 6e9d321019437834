"""What the methods that perturb the input have in common: where, within which ball, and how far."""

from __future__ import annotations

import abc

from torch import Tensor, nn

from dropattack.arguments import check_choice, check_nonnegative
from dropattack.ascent import Ball, BallNorm, NormScope
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.passes import Step
from dropattack.sites import ParameterSite, find_site

__all__ = ["InputAttack", "InputMethod"]


class InputMethod(Method):
    """Perturbs one site inside a ball.

    Args:
        model: the network.
        inputs: ``"input"``, the first floating-point argument of the model (pixels); a module's name, its output (an
            embedding layer); a parameter's name, that weight, in a ball around the whole tensor.
        epsilon: radius of the ball; at least 0.
        norm: ``"l2"`` or ``"linf"``.
        scope: ``"example"``, or ``"tensor"``: one norm for the batch; always so for a parameter.
        relative_epsilon: read epsilon (and whatever else is a length) as a share of the norm of what is perturbed, in
            the same norm and scope.
        batch_dim: the dimension of the input that counts examples.

    Raises:
        ValueError: an unknown or frozen site, a negative epsilon, an unknown norm or scope.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str,
        epsilon: float,
        *,
        norm: BallNorm = "l2",
        scope: NormScope = "example",
        relative_epsilon: bool = False,
        batch_dim: int = 0,
    ) -> None:
        super().__init__(model)
        check_choice("norm", norm, ("l2", "linf"))
        self.site = find_site(self.model, inputs)
        is_parameter = isinstance(self.site, ParameterSite)
        if isinstance(self.site, ParameterSite) and not self.site.parameter.requires_grad:
            raise ValueError(f"inputs: {inputs!r} is frozen (requires_grad=False): unfreeze it first")
        self.site.keep_value = relative_epsilon
        self.epsilon = check_nonnegative("epsilon", epsilon)
        self.relative_epsilon = relative_epsilon
        self._ball = Ball(norm, "tensor" if is_parameter else scope, batch_dim)

    def _refuse_parameter(self) -> None:
        """For methods whose graph outlives the perturbation, so that a weight would be back in its place too early."""
        if isinstance(self.site, ParameterSite):
            raise ValueError(
                f"inputs: expected 'input' or a module's name, got the parameter {self.site.name!r}; "
                f"{type(self).__name__} perturbs activations only"
            )

    def _stepped(self, point: Tensor, direction: Tensor, length: float | Tensor, radius: float | Tensor) -> Tensor:
        """The point after a step of the given length, projected back into the ball of the given radius."""
        return self._ball.projected((point + length * direction).to(point.dtype), radius)

    def _unit(self, value: Tensor) -> float | Tensor:
        """What lengths are measured in: 1, or the norms of the unperturbed value."""
        return self._ball.sizes(value) if self.relative_epsilon else 1.0


class InputAttack(InputMethod):
    """Finds one perturbation of the input, and adds the gradient there to the clean one.

    Args:
        model: the network.
        inputs: as for :class:`InputMethod`.
        epsilon: radius of the ball; at least 0.
        clean_weight: weight of the clean gradient.
        adversarial_weight: weight of the gradient at the perturbed input.
        norm: ``"l2"`` or ``"linf"``.
        scope: as for :class:`InputMethod`.
        relative_epsilon: as for :class:`InputMethod`.
        batch_dim: the dimension of the input that counts examples.

    Raises:
        ValueError: an unknown or frozen site, a negative epsilon or weight, an unknown norm or scope.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str,
        epsilon: float,
        *,
        clean_weight: float,
        adversarial_weight: float = 1.0,
        norm: BallNorm = "l2",
        scope: NormScope = "example",
        relative_epsilon: bool = False,
        batch_dim: int = 0,
    ) -> None:
        super().__init__(
            model,
            inputs,
            epsilon,
            norm=norm,
            scope=scope,
            relative_epsilon=relative_epsilon,
            batch_dim=batch_dim,
        )
        self.clean_weight = check_nonnegative("clean_weight", clean_weight)
        self.adversarial_weight = check_nonnegative("adversarial_weight", adversarial_weight)

    @property
    @abc.abstractmethod
    def ascent_cost(self) -> Cost:
        """The passes of :meth:`ascend`."""

    @abc.abstractmethod
    def ascend(self, step: Step) -> StepRecord:
        """Find the perturbation of ``self.site``, and add ``clean_weight`` times the clean gradient to ``.grad``."""

    @property
    def cost(self) -> Cost:
        """The passes that find the perturbation, and the one at it."""
        ascent = self.ascent_cost
        return Cost(forwards=ascent.forwards + 1, backwards=ascent.backwards + 1)

    def _step(self, step: Step) -> StepRecord:
        record = self.ascend(step)
        loss = step.run(self.adversarial_weight, {self.site: record.perturbations[self.site.name]})
        record.adversarial_losses["inputs"].append(loss)
        return record
