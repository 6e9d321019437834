"""The empirical risk: the mean loss over a data set, as a function of the parameters."""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.parameters import Point, roles_of

__all__ = ["EmpiricalRisk", "RiskValue"]

Loss = Callable[[nn.Module, Any], Tensor]
Metric = Callable[[Any, Any], Tensor]

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class RiskValue(NamedTuple):
    """Exact means over the examples.

    Attributes:
        loss: mean loss, in the loss's unit (nats for cross-entropy).
        standard_error: of that mean, from the spread of the per-example losses; NaN for one example.
        count: number of examples.
        metrics: mean of each metric.
    """

    loss: float
    standard_error: float
    count: int  # type: ignore[assignment]  # a tuple's own `count` is not needed here
    metrics: dict[str, float]


class EmpiricalRisk:
    """Mean loss over all examples, in evaluation mode, as a function of the model's trainable parameters.

    The model is moved in place for each evaluation and put back afterwards, also after an exception: weights, storage,
    training flags, buffers, ``requires_grad`` and ``.grad`` are bit-identical.

    Args:
        model: any network.
        batches: any re-iterable of batches (tuple, dict …): a list, a ``DataLoader``. Batches may differ in size; sums
            are over examples, in float64. Tensors are moved to the model's device.
        loss: ``loss(model, batch) -> Tensor (n,)``, one loss for each example. None: cross-entropy of
            ``model(inputs)`` for batches ``(inputs, labels)``.
        metrics: name to ``metric(output, batch) -> Tensor (n,)``, where ``output`` is what the model returned when the
            loss was computed, so that metrics cost no forward pass. None: accuracy with the default loss, otherwise
            none.
        parameters: names or ``fnmatch`` patterns that restrict which parameters are the arguments of the function.
            None: all that require a gradient.

    Attributes:
        count: number of examples.

    Raises:
        TypeError: batches that can be read only once, a loss that is not one number an example.
        ValueError: no data, a stochastic model (dropout in training mode, or two passes that disagree), a loss that is
            not finite, or no parameter to vary.

    Example:
        >>> model = nn.Linear(1, 2).eval()
        >>> risk = EmpiricalRisk(model, [(torch.ones(4, 1), torch.tensor([0, 1, 0, 1]))])
        >>> risk().count
        4
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss: Loss | None = None,
        metrics: Mapping[str, Metric] | None = None,
        parameters: Sequence[str] | None = None,
    ) -> None:
        self.model = model
        self.batches = batches
        # Derivatives and names come from the user's own module: a compiled one has no double backward.
        self._eager: nn.Module = getattr(model, "_orig_mod", model)
        self._loss: Loss = loss or _cross_entropy
        self._metrics = dict(metrics if metrics is not None else {} if loss else {"accuracy": _accuracy})
        self._arguments = self._chosen(parameters)
        self._roles = roles_of(self._eager)
        self._check_not_stochastic()
        # One block for all passes: what they draw from the global stream is given back, and yet the second pass does
        # not repeat the random numbers of the first, so that always-on dropout shows.
        with self._evaluation():
            self._check_reiterable()
            self.count = self._check_reproducible()

    def parameters(self) -> Point:
        """A copy of the present weights, with the role of each parameter."""
        return Point({name: tensor.detach().clone() for name, tensor in self._arguments.items()}, self._roles)

    def matching_parameters(self, pattern: str) -> list[str]:
        """Names of the parameters that a name or an ``fnmatch`` pattern matches."""
        return [name for name in self._arguments if fnmatch.fnmatchcase(name, pattern)]

    def modules(self) -> dict[str, nn.Module]:
        """The model's modules by name; the model itself is ``"input"``, by the site it stands for."""
        return {name or "input": module for name, module in self._eager.named_modules()}

    def __call__(self, parameters: Mapping[str, Tensor] | None = None) -> RiskValue:
        """The risk at ``parameters``; those not named (or all, for None) are as they are in the model.

        Raises:
            ValueError: an unknown parameter or a wrong shape.
        """
        with self.at(parameters or {}), self._evaluation():
            return self._measured()

    def gradient(self, parameters: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Gradient of the mean loss with respect to each parameter."""
        total = _Sums(self._arguments)
        with self.at(parameters or {}), self.differentiable():
            for loss in self.mean_loss_terms():
                total.add(torch.autograd.grad(loss, total.arguments, materialize_grads=True))
        return total.by_name()

    def hessian_product(self, vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Hessian of the mean loss at the model's weights, times ``vector`` (which names every parameter).

        By double backward, one batch's graph in memory at a time: unlike forward-over-reverse differentiation it works
        for recurrent layers, in float32, and on packed sequences.
        """
        factors = [vector[name] for name in self._arguments]
        total = _Sums(self._arguments)
        with self.differentiable():
            for loss in self.mean_loss_terms():
                gradients = torch.autograd.grad(loss, total.arguments, create_graph=True, materialize_grads=True)
                curved = [(g, v) for g, v in zip(gradients, factors, strict=True) if g.requires_grad]
                if curved:  # otherwise this batch's loss is linear in the parameters
                    total.add(
                        torch.autograd.grad(
                            [g for g, _ in curved], total.arguments, [v for _, v in curved], materialize_grads=True
                        )
                    )
        return total.by_name()

    def mean_loss_terms(self) -> Iterator[Tensor]:
        """For each batch, the sum of its losses divided by the number of all examples, graph attached."""
        return (losses.sum() / self.count for losses in self.example_losses())

    def example_losses(self) -> Iterator[Tensor]:
        """For each batch, the losses ``(n,)`` of its examples, graph attached."""
        for batch in self._on_device():
            yield self._losses(self._eager, batch)

    @contextlib.contextmanager
    def at(self, parameters: Mapping[str, Tensor]) -> Iterator[None]:
        """Put ``parameters`` into the model inside the block."""
        self._check_fits(parameters)
        values = {name: value.detach().clone() for name, value in parameters.items()}  # may be the model's own tensors
        with self._restored(values) as (tensors, _):
            with torch.no_grad():
                for name, tensor in tensors.items():
                    tensor.copy_(values[name])
            yield

    @contextlib.contextmanager
    def along(self, directions: Sequence[Mapping[str, Tensor]]) -> Iterator[Callable[[Sequence[float]], None]]:
        """Inside the block, ``move(coordinates)`` puts the weights at the center plus a combination of directions.

        Every move starts from the saved center, so that no rounding error builds up, and touches only the parameters
        that the directions name.
        """
        moving = {name: None for direction in directions for name in direction}
        for direction in directions:
            self._check_fits(direction)
        with self._restored(moving) as (tensors, center):
            targets = {name: tensor.detach() for name, tensor in tensors.items()}
            offsets = [([targets[name] for name in d], list(d.values())) for d in directions]

            def move(coordinates: Sequence[float]) -> None:
                with torch.no_grad():
                    torch._foreach_copy_(list(targets.values()), center)
                    for coordinate, (moved, steps) in zip(coordinates, offsets, strict=True):
                        torch._foreach_add_(moved, steps, alpha=coordinate)

            yield move

    @contextlib.contextmanager
    def differentiable(self) -> Iterator[None]:
        """Evaluation mode in which gradients can be taken twice.

        This is the one place that switches off what has no second derivative: cuDNN's recurrent kernels (which have no
        backward pass in evaluation mode either), fused attention, and compiled graphs.
        """
        with (
            self._evaluation(),
            torch.enable_grad(),
            torch.backends.cudnn.flags(enabled=False),
            sdpa_kernel(SDPBackend.MATH),
            torch.compiler.set_stance("force_eager"),
        ):
            yield

    def _measured(self) -> RiskValue:
        loss_sum = square_sum = 0.0
        metric_sums = dict.fromkeys(self._metrics, 0.0)
        count = 0
        kept = _Output()
        with torch.no_grad(), kept.of(self.model if self._metrics else None):
            # Deviations from a first guess of the mean, so that the variance does not cancel.
            guess: float | None = None
            for batch in self._on_device():
                losses = self._losses(self.model, batch).double()
                if guess is None:
                    guess = float(losses.mean())
                    guess = guess if math.isfinite(guess) else 0.0
                deviations = losses - guess
                loss_sum += float(deviations.sum())
                square_sum += float(deviations.square().sum())
                count += len(losses)
                for name, metric in self._metrics.items():
                    metric_sums[name] += float(_one_each(f"metric {name!r}", metric(kept.value, batch)).double().sum())
        if not count:
            raise ValueError("batches: expected at least one example, got none")
        mean = loss_sum / count
        variance = (square_sum - count * mean * mean) / (count - 1) if count > 1 else math.nan
        return RiskValue(
            loss=(guess or 0.0) + mean,
            standard_error=math.nan if math.isnan(variance) else math.sqrt(max(variance, 0.0) / count),
            count=count,
            metrics={name: total / count for name, total in metric_sums.items()},
        )

    def _losses(self, model: nn.Module, batch: Any) -> Tensor:
        return _one_each("loss", self._loss(model, batch))

    def _on_device(self) -> Iterator[Any]:
        device = next(self._eager.parameters()).device
        return (_moved(batch, device) for batch in self.batches)

    @contextlib.contextmanager
    def _restored(self, names: Iterable[str]) -> Iterator[tuple[dict[str, nn.Parameter], list[Tensor]]]:
        tensors = {name: self._arguments[name] for name in names}
        saved = [tensor.detach().clone() for tensor in tensors.values()]
        try:
            yield tensors, saved
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors.values(), saved, strict=True):
                    tensor.copy_(value)

    @contextlib.contextmanager
    def _evaluation(self) -> Iterator[None]:
        training = [module for module in self.model.modules() if module.training]
        buffers = [
            (module, name, buffer, buffer.detach().clone())
            for module in self.model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]
        random_state = torch.get_rng_state()  # a DataLoader draws from the global stream each time it is read
        for module in training:
            module.training = False
        # An autocast block around us keeps its copies of weights until it ends and does not see in-place changes.
        torch.clear_autocast_cache()
        try:
            yield
        finally:
            torch.clear_autocast_cache()
            torch.set_rng_state(random_state)
            for module in training:
                module.training = True
            with torch.no_grad():
                for module, name, buffer, saved in buffers:
                    buffer.copy_(saved)
                    module._buffers[name] = buffer  # a forward pass may have bound another tensor

    def _chosen(self, patterns: Sequence[str] | None) -> dict[str, nn.Parameter]:
        trainable = {name: tensor for name, tensor in self._eager.named_parameters() if tensor.requires_grad}
        if patterns is None:
            if not trainable:
                raise ValueError("no parameter of the model requires a gradient: call model.requires_grad_(True)")
            return trainable
        if isinstance(patterns, str):
            raise TypeError(f"parameters: expected a sequence, got the string {patterns!r}; write ({patterns!r},)")
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in trainable):
                raise ValueError(f"parameters: {pattern!r} matches none of {', '.join(trainable)}")
        return {name: t for name, t in trainable.items() if any(fnmatch.fnmatchcase(name, p) for p in patterns)}

    def _check_not_stochastic(self) -> None:
        for name, module in self._eager.named_modules():
            rate = module.p if isinstance(module, _DROPOUT) else getattr(module, "dropout", 0.0)
            if module.training and isinstance(rate, int | float) and rate > 0:
                raise ValueError(
                    f"the model is stochastic: {name or type(module).__name__} has dropout {rate} and is in training "
                    "mode; call model.eval() first"
                )

    def _check_reiterable(self) -> None:
        if isinstance(self.batches, Iterator):
            raise TypeError(
                f"batches: expected something that can be read again and again, got a {type(self.batches).__name__} "
                "that is used up after one pass; wrap it in list(...)"
            )
        if not any(True for _ in itertools.islice(self.batches, 1)):
            raise ValueError("batches: expected at least one batch, got none")

    def _check_fits(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in tensors.items():
            if name not in self._arguments:
                raise ValueError(f"unknown parameter {name!r}; the risk is a function of {', '.join(self._arguments)}")
            if value.shape != self._arguments[name].shape:
                expected = tuple(self._arguments[name].shape)
                raise ValueError(f"parameter {name!r}: expected shape {expected}, got {tuple(value.shape)}")

    def _check_reproducible(self) -> int:
        first, second = self._measured(), self._measured()
        if not math.isfinite(first.loss):
            raise ValueError(f"the loss at the center is {first.loss}: no surface around it means anything")
        if first.count != second.count:
            raise TypeError(f"batches: the first pass gave {first.count} examples, the second {second.count}")
        if not math.isclose(first.loss, second.loss, rel_tol=1e-5, abs_tol=1e-12):
            raise ValueError(
                f"two passes over the data disagree (loss {first.loss:.8g} and {second.loss:.8g}): the model or the "
                "data is stochastic; switch off dropout and random augmentation"
            )
        return first.count


class _Sums:
    """Sums of one tensor for each parameter, in at least float32: bfloat16 stops growing after a few hundred terms."""

    def __init__(self, arguments: Mapping[str, nn.Parameter]) -> None:
        self.arguments = list(arguments.values())
        self._names = list(arguments)
        self._sums = [
            torch.zeros_like(argument, dtype=torch.promote_types(argument.dtype, torch.float32))
            for argument in self.arguments
        ]

    def add(self, terms: Sequence[Tensor]) -> None:
        torch._foreach_add_(self._sums, [term.to(total.dtype) for term, total in zip(terms, self._sums, strict=True)])

    def by_name(self) -> dict[str, Tensor]:
        """The sums in the parameters' own types."""
        pairs = zip(self._sums, self.arguments, strict=True)
        return dict(zip(self._names, (total.to(argument.dtype) for total, argument in pairs), strict=True))


class _Output:
    """Keeps what the model returned last."""

    value: Any = None

    @contextlib.contextmanager
    def of(self, model: nn.Module | None) -> Iterator[None]:
        if model is None:
            yield
            return

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            self.value = output

        handle = model.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()
            self.value = None


def _cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        raise TypeError(
            f"batches: the default loss expects (inputs, labels), got {type(batch).__name__}; pass "
            "loss=lambda model, batch: ... that returns one loss for each example"
        )
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels, reduction="none")


def _accuracy(output: Tensor, batch: Any) -> Tensor:
    return (output.argmax(1) == batch[1]).double()


def _one_each(what: str, values: Any) -> Tensor:
    if not isinstance(values, Tensor) or values.ndim != 1:
        found = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{what}: expected one value for each example, shape (n,), got {found}; use reduction='none'")
    return values


def _moved(batch: Any, device: torch.device) -> Any:
    if hasattr(batch, "to"):  # tensors, packed sequences, the batches of Hugging Face tokenizers
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: _moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(value, device) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_moved(value, device) for value in batch)
    return batch
