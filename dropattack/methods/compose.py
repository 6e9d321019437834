"""Compose: any method, on adversarial inputs."""

from __future__ import annotations

from torch import Tensor, nn

from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.methods.input_ascent import InputAttack
from dropattack.passes import Step

__all__ = ["Compose"]


class Compose(Method):
    """An input attack, and at the input it found another method in place of the plain gradient.

    The input attack (FGSM, FGM, PGD) makes its ascent at the unperturbed weights and adds its clean gradient, if it has
    one. Then the other method (SAM, AWP, DropAttack on weights …) runs with the input held at the perturbed point.
    ``Compose(model, PGD(model, "input"), AWP(model))`` is adversarial training with adversarial weight perturbation as
    Wu, Xia and Wang (2020) propose it.

    Cost: the ascent of the one, and all passes of the other: K + 2 for AWP on PGD of K steps.

    Args:
        model: the network.
        inputs: the input attack.
        weights: the method to run at the perturbed input.

    Raises:
        TypeError: ``inputs`` does not find one perturbation.
        ValueError: the parts belong to another model, or take several optimizer steps a batch.
    """

    def __init__(self, model: nn.Module, inputs: Method, weights: Method) -> None:
        super().__init__(model)
        if not isinstance(inputs, InputAttack):
            raise TypeError(
                f"inputs: expected a method that finds one perturbation of the input (FGSM, FGM, PGD), got "
                f"{type(inputs).__name__}"
            )
        for part in (inputs, weights):
            if part.model is not self.model:
                raise ValueError(f"{type(part).__name__} was built on another model")
        if weights.optimizer_steps > 1:
            raise ValueError(f"weights: {type(weights).__name__} takes several optimizer steps a batch")
        if inputs.adversarial_weight != 1:
            raise ValueError(
                f"inputs: expected adversarial_weight=1, got {inputs.adversarial_weight}: the gradient at the "
                "perturbed input is the other method's"
            )
        self.inputs = inputs
        self.weights = weights

    @property
    def cost(self) -> Cost:
        """The ascent on the input, and the other method's passes."""
        ascent, rest = self.inputs.ascent_cost, self.weights.cost
        return Cost(forwards=ascent.forwards + rest.forwards, backwards=ascent.backwards + rest.backwards)

    def _carried(self) -> dict[str, Tensor]:
        """What the parts carry."""
        inputs = {f"inputs.{name}": tensor for name, tensor in self.inputs.state_dict().items()}
        return inputs | {f"weights.{name}": tensor for name, tensor in self.weights.state_dict().items()}

    def _take_up(self, state: dict[str, Tensor]) -> None:
        for name, part in (("inputs.", self.inputs), ("weights.", self.weights)):
            part.load_state_dict({key.removeprefix(name): t for key, t in state.items() if key.startswith(name)})

    def _step(self, step: Step) -> StepRecord:
        found = self.inputs.ascend(step)
        with step.around({self.inputs.site: found.perturbations[self.inputs.site.name]}):
            inner = self.weights._step(step)
        losses = found.adversarial_losses["inputs"] + [inner.clean_loss]
        return StepRecord(
            found.clean_loss,
            {**inner.adversarial_losses, "inputs": losses},
            {**inner.perturbations, **found.perturbations},
            inner.masks,
            inner.gradient_norms,
        )
