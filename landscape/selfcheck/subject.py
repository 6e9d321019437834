"""The model that is checked: its state before, and roads to its loss that are not the product's."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from landscape.evaluation.batches import moved
from landscape.risk import EmpiricalRisk

__all__ = ["State", "Subject", "same_bits", "some"]


class State:
    """Everything that must be the same afterwards."""

    def __init__(self, model: nn.Module) -> None:
        self._training = [(name or "the model", module, module.training) for name, module in model.named_modules()]
        self._slots = [
            (f"{path}.{name}".lstrip("."), slots, name, tensor, tensor.detach().clone(), tensor.requires_grad)
            for path, module in model.named_modules()
            for slots in (module._parameters, module._buffers)
            for name, tensor in slots.items()
            if tensor is not None
        ]
        self._gradients = [
            (name, parameter, parameter.grad, None if parameter.grad is None else parameter.grad.detach().clone())
            for name, parameter in model.named_parameters()
        ]

    def changes(self) -> list[str]:
        """What is not as it was."""
        return [
            *self.changed_tensors(),
            *(f"requires_grad of {name}" for name, *_, tensor, _, flag in self._slots if tensor.requires_grad != flag),
            *(f"training of {name}" for name, module, flag in self._training if module.training != flag),
            *(f".grad of {name}" for name, weight, *kept in self._gradients if not _same_gradient(weight, *kept)),
        ]

    def changed_tensors(self, beside: Collection[str] = ()) -> list[str]:
        """Parameters and buffers that are not as they were, beside those of these names."""
        return [
            f"{name} is {'changed' if slots.get(local) is tensor else 'another tensor'}"
            for name, slots, local, tensor, saved, _ in self._slots
            if name not in beside and not (slots.get(local) is tensor and same_bits(tensor, saved))
        ]

    def put_back(self) -> None:
        """Undo what a check found, or did."""
        with torch.no_grad():
            for _, slots, local, tensor, saved, flag in self._slots:
                if not same_bits(tensor, saved):
                    tensor.copy_(saved)
                if tensor.requires_grad != flag:
                    tensor.requires_grad_(flag)
                slots[local] = tensor
            for _, parameter, gradient, saved_gradient in self._gradients:
                if not _same_gradient(parameter, gradient, saved_gradient):
                    parameter.grad = gradient
                    if gradient is not None and saved_gradient is not None:
                        gradient.copy_(saved_gradient)
        for _, module, flag in self._training:
            module.training = flag


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is checked: a risk, the directions, the seed of what the checks draw, and the state before."""

    risk: EmpiricalRisk
    directions: Sequence[Mapping[str, Tensor]]
    seed: int
    before: State

    @property
    def root(self) -> nn.Module:
        """The module that names its parameters, also below a compiled one."""
        return self.risk.eager

    @property
    def names(self) -> set[str]:
        """Of the parameters that the directions name."""
        return {name for direction in self.directions for name in direction}

    @property
    def somewhere(self) -> tuple[float, ...]:
        """Coordinates off the center, another one for each direction."""
        return tuple(0.1 * (-0.5) ** index for index in range(len(self.directions)))

    def by_hand(self, coordinates: Sequence[float]) -> dict[str, Tensor]:
        """Weights at these coordinates, in float64."""
        weights = {name: self.root.get_parameter(name).detach().double() for name in self.names}
        for coordinate, direction in zip(coordinates, self.directions, strict=True):
            for name, step in direction.items():
                weights[name] = weights[name] + coordinate * step.double()
        return weights

    def losses(self, model: nn.Module) -> Iterator[Tensor]:
        """Losses of each batch, by a plain loop in the caller's mode."""
        device = next(self.root.parameters()).device
        torch.clear_autocast_cache()  # an autocast block around us keeps copies of weights from before they were moved
        for batch in self.risk.used_batches():
            yield self.risk.losses(model, moved(batch, device))

    def plain(self) -> tuple[float, int]:
        """The mean loss and the number of examples, by a plain loop in evaluation mode."""
        self.risk.model.eval()
        torch.clear_autocast_cache()
        self.risk.reestimate()
        total, count = 0.0, 0
        with torch.no_grad():
            for losses in self.losses(self.risk.model):
                total += float(losses.double().sum())
                count += len(losses)
        return total / max(count, 1), count


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are bit for bit the same; not-a-number is itself."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    a, b = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(a, b)


def some(items: Sequence[str], most: int = 3) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more


def _same_gradient(parameter: nn.Parameter, gradient: Tensor | None, saved: Tensor | None) -> bool:
    if gradient is None or saved is None:
        return parameter.grad is None
    return parameter.grad is gradient and same_bits(gradient, saved)
