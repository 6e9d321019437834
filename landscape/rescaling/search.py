"""Finding rescalings of neighboring layers that leave the function alone."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from landscape.rescaling.layers import Layer, divided, multiplied, statistics, steps
from landscape.risk import EmpiricalRisk

__all__ = ["Rescaling", "rescalings"]

_ROUNDING = 1e-4  # what float32 may change of a loss where the factor is no power of two


@dataclasses.dataclass(frozen=True)
class Rescaling:
    """Factors for some of a model's tensors that together leave its function as it is.

    Attributes:
        name: such as ``"conv1 × 4, conv2 ÷ 4"``, or ``"conv1 × 4 before bn1"`` where a normalization undoes it.
        factors: name of a parameter or buffer to what it is multiplied by.
        loss_change: the largest change of an example's loss that it makes, as a share of the largest loss: rounding,
            and the constant ``eps`` in the denominator of normalization layers.
    """

    name: str
    factors: Mapping[str, float]
    loss_change: float = math.nan

    @contextlib.contextmanager
    def applied(self, risk: EmpiricalRisk) -> Iterator[None]:
        """Rescale the risk's model inside the block; its tensors are bit for bit the same after it.

        Raises:
            ValueError: the model has no tensor of such a name.
        """
        tensors = _tensors(risk)
        for name in self.factors:
            if name not in tensors:
                raise ValueError(f"{self.name}: expected a model with the tensor {name!r}; find its own rescalings")
        saved = {name: tensors[name].detach().clone() for name in self.factors}
        try:
            with torch.no_grad():
                for name, factor in self.factors.items():
                    tensors[name].mul_(factor)
            yield
        finally:
            with torch.no_grad():
                for name, value in saved.items():
                    tensors[name].copy_(value)


def rescalings(risk: EmpiricalRisk, factor: float = 4.0, tolerance: float = 1e-3) -> list[Rescaling]:
    """Rescalings of the model that leave the loss of every example as it is, found by trying.

    Tried are layers that run one after the other (Dinh, Pascanu, Bengio, Bengio, "Sharp Minima Can Generalize for Deep
    Nets", ICML 2017): all parameters of the first are multiplied by the factor and the input weights of the second
    divided by it, which ReLU, max pooling and whatever else is positively homogeneous between them let through; or, if
    the second has no weights for its input, only the first is multiplied (and running statistics follow), which a
    normalization undoes. A try is kept if the losses say that it leaves the function alone. So nothing needs to be
    known about the model, and nothing is kept because it looks right: branches that are added, bounded activations
    and tied weights rule themselves out.

    Cost: a forward pass for each pair of neighbors, and one.

    Args:
        risk: the function, with the data to judge by.
        factor: what the first layer is multiplied by. Powers of two are exact in floating point.
        tolerance: largest change of an example's loss, as a share of the largest loss, where a normalization undoes the
            factor: its ``eps`` stays, and matters where variances are small. Pairs of weights may change a loss by
            rounding alone: 1e-4, or the tolerance if that is smaller.

    Returns:
        What was found, in the order in which layers run; often nothing for networks of bounded or smooth activations.

    Raises:
        ValueError: a factor that is not positive, or is 1.
    """
    if not (math.isfinite(factor) and factor > 0 and factor != 1):
        raise ValueError(f"factor: expected a positive number other than 1, got {factor}")
    before = _losses(risk)
    found = []
    for candidate, is_exact in _candidates(risk, factor):
        with candidate.applied(risk):
            change = _largest_change(before, _losses(risk))
        if change <= (min(tolerance, _ROUNDING) if is_exact else tolerance):
            found.append(dataclasses.replace(candidate, loss_change=change))
    return found


def _candidates(risk: EmpiricalRisk, factor: float) -> Iterator[tuple[Rescaling, bool]]:
    """Each pair of neighbors, and whether weights of the second make up for those of the first."""
    names = {id(tensor): name for name, tensor in _tensors(risk).items()}
    for first, second in itertools.pairwise(steps(risk)):
        up = [tensor for layer in first for tensor in multiplied(layer)]
        down = [divided(layer) for layer in second]
        is_exact = all(down)
        factors = [(tensor, factor) for tensor in up]
        if is_exact:
            factors += [(tensor, 1 / factor) for tensors in down for tensor in tensors]
        else:
            factors += [(tensor, factor**power) for layer in second for tensor, power in statistics(layer)]
        by_name = {names[id(tensor)]: one for tensor, one in factors}
        if not up or len(by_name) < len(factors):
            continue  # tied: one tensor cannot be multiplied and divided
        then = f", {_named(second)} ÷ {factor:g}" if is_exact else f" before {_named(second)}"
        yield Rescaling(f"{_named(first)} × {factor:g}{then}", by_name), is_exact


def _named(layers: Iterable[Layer]) -> str:
    return ", ".join(layer.name or type(layer.module).__name__ for layer in layers)


def _tensors(risk: EmpiricalRisk) -> dict[str, Tensor]:
    return dict(risk.eager.named_parameters()) | dict(risk.eager.named_buffers())


def _losses(risk: EmpiricalRisk) -> Tensor:
    with risk.differentiable(), torch.no_grad():
        return torch.cat([losses.double() for losses in risk.example_losses()])


def _largest_change(before: Tensor, after: Tensor) -> float:
    change, largest = float((after - before).abs().max()), float(before.abs().max())
    if change == 0:
        return 0.0
    return change / largest if largest > 0 and math.isfinite(change) else math.inf
