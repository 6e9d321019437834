"""What loops that make one optimizer step a batch can work with."""

from __future__ import annotations

from dropattack.methods.base import Method

__all__ = ["check_single_step"]


def check_single_step(method: Method, loop: str) -> Method:
    """The method, if it makes one optimizer step a batch.

    Args:
        method: the method.
        loop: what makes the optimizer steps, for the message.

    Raises:
        TypeError: something else than a method.
        ValueError: the method replays each batch for several optimizer steps.
    """
    if not isinstance(method, Method):
        raise TypeError(f"expected a method for {loop}, got {type(method).__name__}; build one, e.g. FGM(model, ...)")
    if method.optimizer_steps > 1:
        raise ValueError(
            f"{type(method).__name__} makes {method.optimizer_steps} optimizer steps a batch, but {loop} makes one: "
            "write the loop yourself, `for loss in method.steps(closure): optimizer.step(); optimizer.zero_grad()`"
        )
    return method
