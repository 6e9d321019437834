"""What a method adds to ``.grad`` on one batch, and which part of it is the clean gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dropattack.methods import Method, Scheduled, build_method
from dropattack.passes import Closure
from dropattack.sites import unwrap
from dropattack.undisturbed import undisturbed
from dropattack.updates.vectors import Update, agreement, combined, inner

__all__ = ["MethodLike", "at_epsilon_zero", "build", "clean_part", "update_of"]

# A method; a function of the model that makes one; or a table that `build_method` takes, with its name.
MethodLike = Method | Callable[[nn.Module], Method] | Mapping[str, Any]

# Hyperparameters that are 0 where a method does nothing beyond the plain gradient.
_AMPLITUDES = frozenset({"epsilon", "epsilon_weights", "rho", "gamma", "coefficient", "start", "step_size"})
_ROUNDING = 1e-3  # of the gradients of one batch in float32, by different kernels


def update_of(method: Method, closure: Closure) -> Update:
    """What one call of ``method.backward(closure)`` adds to ``.grad``, without adding it.

    Weights, earlier gradients, buffers, global random streams and what the method carries from step to step (its
    generator too) are as before afterwards, also after an exception, so that the same call gives the same update.
    ``method.last`` tells what the step did. Only single examples that Sparse SAM has drawn for its Fisher are used up.

    Args:
        method: built on the model that the closure calls.
        closure: as for :meth:`~dropattack.methods.base.Method.backward`.

    Returns:
        A dense tensor for each trainable parameter; zero where no pass reached it.

    Example:
        >>> from dropattack.methods import Standard
        >>> model = nn.Linear(2, 1)
        >>> update_of(Standard(model), lambda: model(torch.tensor([[3.0, 4.0]])).sum())["weight"]
        tensor([[3., 4.]])
        >>> model.weight.grad is None
        True
    """
    carried = {name: tensor.detach().clone() for name, tensor in method.state_dict().items()}
    with undisturbed(method.model):
        try:
            method.backward(closure)
        finally:
            method.load_state_dict(carried)
        return {
            name: _gradient(parameter) for name, parameter in method.model.named_parameters() if parameter.requires_grad
        }


def at_epsilon_zero(method: Method) -> Method:
    """A copy of a method (and of the methods it is made of) that perturbs nothing and penalizes nothing."""
    still = copy.copy(method)
    if isinstance(still, Scheduled):
        still.warmup = {}  # it would set the hyperparameters anew
    for name, value in vars(method).items():
        if isinstance(value, Method):
            setattr(still, name, at_epsilon_zero(value))
        elif name in _AMPLITUDES and value is not None:
            setattr(still, name, 0.0)
    return still


def clean_part(method: Method, closure: Closure, gradient: Update) -> tuple[Update, float]:
    """The method's update at epsilon 0, which is the clean gradient several times over, and how many times.

    It is computed through the same passes, so that rounding errors largely cancel in the difference.

    Args:
        method: any.
        closure: the batch.
        gradient: the clean gradient there.

    Returns:
        The update, and the total weight c of the method's losses.

    Raises:
        ValueError: the method does something else at epsilon 0.
    """
    update = update_of(at_epsilon_zero(method), closure)
    squared = inner(gradient, gradient)
    if not squared:
        return update, float("nan")
    weight = inner(update, gradient) / squared
    if not agreement(update, combined(gradient, factor=weight))["distance"] < _ROUNDING:
        raise ValueError(
            f"{type(method).__name__}: expected a multiple of the clean gradient at epsilon 0, got something else; at "
            "a step of this kind its update has no part beyond the clean gradient to look at"
        )
    return update, weight


def build(model: nn.Module, name: str, method: MethodLike, seed: int) -> Method:
    """The method itself, what the function makes, or what the table says, with masks drawn by the seed.

    Raises:
        ValueError: the table is not one of a method, or the method belongs to another model.
        TypeError: none of the three.
    """
    if isinstance(method, Mapping):
        if "name" not in method:
            raise ValueError(f"{name}: expected a table with the method's `name`, got {', '.join(method) or 'none'}")
        generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        made = build_method(**{"generator": generator, **method, "model": model})
    else:
        made = method if isinstance(method, Method) else method(model)
    if not isinstance(made, Method):
        raise TypeError(f"{name}: expected a method, got {type(made).__name__}")
    if made.model is not unwrap(model):
        raise ValueError(f"{name}: the method was built on another model than the one given")
    return made


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        return torch.zeros_like(parameter)
    return parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
