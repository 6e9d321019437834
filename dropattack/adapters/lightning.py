"""A method inside a ``LightningModule`` with automatic optimization."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

try:
    from lightning import LightningModule
    from torchmetrics import Metric, MetricCollection
except ImportError as error:
    raise ImportError("dropattack.adapters.lightning needs Lightning: pip install 'dropattack[lightning]'") from error

from dropattack.adapters.single_step import check_single_step
from dropattack.methods.base import Method

__all__ = ["MethodMixin"]


class MethodMixin(LightningModule):
    """Put before a ``LightningModule`` class: its ``training_step`` stays as it is, its gradient becomes the method's.

    ``training_step`` is the closure of the method: where Lightning calls it once, it runs ``method.cost.forwards``
    times, each with its backward pass, and no forward pass is made beside these. What it returned in the first pass is
    handed to Lightning, with the clean loss. The gradients wait beside ``.grad`` until Lightning has zeroed it and asks
    for the backward pass, so that its hooks run once a batch and in their order: ``zero_grad``, clipping, accumulation
    (the loss is divided by ``accumulate_grad_batches`` in every pass), loss scaling, schedules and callbacks are
    Lightning's own. While they wait there is one more set of gradients in memory.

    What the method carries from step to step is part of Lightning's checkpoints (a module with
    ``on_save_checkpoint`` or ``on_load_checkpoint`` of its own calls ``super()``'s in them), the state of its generator
    included.

    What ``training_step`` logs, and what it adds to the metrics of torchmetrics that are attributes of a module, counts
    in the first pass alone. Anything else it does beside computing the loss happens in every pass.

    An optimizer that evaluates the loss several times, such as LBFGS, sees the clean loss with the method's gradient
    and new masks each time: use :func:`~dropattack.adapters.closures.optimizer_closure` in a loop of your own.

    One process and one device; for more use Lightning Fabric with
    ``method.backward(closure, backward=fabric.backward, no_sync=lambda: fabric.no_backward_sync(model))``.

    Raises:
        TypeError: when a class with its own ``backward`` is defined.

    Example:
        Adversarial training of a module that exists::

            class Adversarial(MethodMixin, Classifier):
                def configure_method(self):
                    return dropattack.FGM(self, "embedding", epsilon=1.0)
    """

    method: Method | None = None
    _method_state: dict[str, Tensor] | None = None  # from a checkpoint, until the method is built
    _gained: list[tuple[nn.Parameter, Tensor]] | None = None
    _inside_method = False
    _muted = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if {cls.backward, super().backward} != {MethodMixin.backward, LightningModule.backward}:
            raise TypeError(f"{cls.__name__} has a `backward` of its own, which a method replaces: remove it")
        if cls.training_step is not LightningModule.training_step and not hasattr(cls.training_step, "_runs_method"):
            cls.training_step = _with_method(cls.training_step)  # type: ignore[method-assign] # the point of this class

    def configure_method(self) -> Method:
        """Build the method, on this module or on a part of it; called once, at the first batch.

        Raises:
            NotImplementedError: not overridden.
        """
        raise NotImplementedError(f"{type(self).__name__}: define configure_method(self), returning a method")

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Add to ``.grad`` what the method's passes have left; Lightning calls it.

        Args:
            loss: what Lightning makes of the clean loss.
            *args: as for ``LightningModule.backward``.
            **kwargs: as for ``LightningModule.backward``.
        """
        if self._gained is None:  # a loss of the user's own
            super().backward(loss, *args, **kwargs)
            return
        gained, self._gained = self._gained, None
        for parameter, gradient in gained:
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log a value, in the first pass of a step.

        Args:
            *args: as for ``LightningModule.log``.
            **kwargs: as for ``LightningModule.log``.
        """
        if not self._muted:
            super().log(*args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the method carries from step to step.

        Args:
            checkpoint: Lightning's, which gains the key ``"method"``.
        """
        super().on_save_checkpoint(checkpoint)
        state = self._method_state if self.method is None else self.method.state_dict()
        if state:
            checkpoint["method"] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what the method carried.

        Args:
            checkpoint: Lightning's.
        """
        super().on_load_checkpoint(checkpoint)
        self._method_state = checkpoint.get("method")

    def _wants_method(self) -> bool:
        """Whether Lightning's training loop is calling ``training_step``, rather than the method or the user."""
        trainer = self._trainer
        if self._inside_method or trainer is None or not trainer.training:
            return False
        if not self.automatic_optimization:
            raise RuntimeError(
                f"{type(self).__name__} optimizes manually: leave MethodMixin out and call "
                "method.backward(closure, backward=self.manual_backward) in training_step"
            )
        if trainer.world_size > 1 or trainer.strategy.model is not self:
            raise RuntimeError(
                f"MethodMixin trains in one process on one device, got {type(trainer.strategy).__name__} with "
                f"{trainer.world_size}: use Lightning Fabric, method.backward(closure, backward=fabric.backward, "
                "no_sync=lambda: fabric.no_backward_sync(model))"
            )
        return True

    def _run_method(self, training_step: Callable[[], Any]) -> Any:
        """Run the passes, and keep their gradients apart from ``.grad``.

        Returns:
            What ``training_step`` returned in the first pass, with the clean loss.
        """
        if self.method is None:
            self.method = self.configure_method()
        check_single_step(self.method, "Lightning's Trainer")
        if self._method_state is not None:
            self.method.load_state_dict(self._method_state)
            self._method_state = None
        batches = self.trainer.accumulate_grad_batches
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        outputs: list[Any] = []

        def closure() -> Tensor:
            with _muted(self) if outputs else contextlib.nullcontext():
                output = training_step()
            loss = output.get("loss") if isinstance(output, Mapping) else output
            if loss is None:
                raise _SkippedBatchError(output)
            if not outputs:
                outputs.append({**output, "loss": None} if isinstance(output, Mapping) else None)
            return loss

        def backward(loss: Tensor) -> None:
            loss = loss if batches == 1 else loss / batches
            # Lightning's own backward pass lies outside the autocast block around training_step.
            with torch.autocast(self.device.type, enabled=False):
                (loss if scaler is None else scaler.scale(loss)).backward()

        earlier = [(parameter, parameter.grad) for parameter in self.parameters()]
        for parameter, _ in earlier:
            parameter.grad = None
        self._inside_method = True
        try:
            clean_loss = self.method.backward(closure, backward=backward)
            self._gained = [(parameter, parameter.grad) for parameter, _ in earlier if parameter.grad is not None]
        except _SkippedBatchError as skipped:
            return skipped.output
        finally:
            self._inside_method = False
            for parameter, gradient in earlier:
                parameter.grad = gradient
        return clean_loss if outputs[0] is None else {**outputs[0], "loss": clean_loss}


class _SkippedBatchError(Exception):
    """``training_step`` returned no loss, Lightning's way to leave a batch out."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


def _with_method(training_step: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(training_step)
    def run(self: MethodMixin, *args: Any, **kwargs: Any) -> Any:
        if not self._wants_method():
            return training_step(self, *args, **kwargs)
        return self._run_method(lambda: training_step(self, *args, **kwargs))

    run.__dict__["_runs_method"] = True
    return run


@contextlib.contextmanager
def _muted(module: MethodMixin) -> Iterator[None]:
    """Log nothing inside the block, and let stand-ins take the place of the metrics."""
    stand_ins = module.__dict__.setdefault("_stand_ins", {})
    places = list(_metrics(module))
    module._muted = True
    try:
        for parent, name, metric in places:
            known, stand_in = stand_ins.get(id(metric), (None, None))
            if known is not metric:  # cloned once: metrics that keep every prediction grow
                stand_in = metric.clone()
                stand_ins[id(metric)] = metric, stand_in
            stand_in.reset()
            parent._modules[name] = stand_in
        yield
    finally:
        module._muted = False
        for parent, name, metric in places:
            parent._modules[name] = metric


def _metrics(parent: nn.Module) -> Iterator[tuple[nn.Module, str, Metric | MetricCollection]]:
    for name, child in parent.named_children():
        if isinstance(child, Metric | MetricCollection):
            yield parent, name, child
        else:
            yield from _metrics(child)
