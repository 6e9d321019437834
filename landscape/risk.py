"""The empirical risk: the mean loss over a data set, as a function of the parameters."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.evaluation import derivatives
from landscape.evaluation.batch_norm import batch_norm_layers, reestimate
from landscape.evaluation.batches import are_ready, fingerprint_of_batches, leaves, moved
from landscape.evaluation.kernels import FastPooling
from landscape.evaluation.moving import Mover
from landscape.evaluation.totals import RiskValue, Totals
from landscape.parameters import Point, roles_of

__all__ = ["EmpiricalRisk", "RiskValue"]

Loss = Callable[[nn.Module, Any], Tensor]
Metric = Callable[[Any, Any], Tensor]

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


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
        max_batches: use the first so many batches only: the same examples for every model that gets these batches.
        statistics: batches (usually of the training split) on which BatchNorm's running statistics are estimated anew
            before each evaluation, as weights that have moved have others. None: the running statistics stay.
        autocast: evaluate under ``torch.autocast`` with this type, such as ``torch.bfloat16``: faster on some machines,
            with other numbers. None: as the model is.

    Attributes:
        model: as given.
        eager: the same, below ``torch.compile`` if the model is compiled: names and derivatives come from it.
        batches: as given.
        count: number of examples.
        options: those of the last three that are in force, in words, for the metadata of results.

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
        *,
        max_batches: int | None = None,
        statistics: Iterable[Any] | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        if max_batches is not None and (not isinstance(max_batches, int) or max_batches < 1):
            raise ValueError(f"max_batches: expected a whole number of at least 1, got {max_batches}")
        if autocast not in (None, torch.bfloat16, torch.float16):
            raise ValueError(f"autocast: expected torch.bfloat16 or torch.float16, got {autocast}")
        self.model = model
        self.batches = batches
        self._max_batches = max_batches
        self._statistics = statistics
        self._autocast = autocast
        self.eager: nn.Module = getattr(model, "_orig_mod", model)
        self._loss: Loss = loss or _cross_entropy
        self._metrics = dict(metrics if metrics is not None else {} if loss else {"accuracy": _accuracy})
        self._arguments = self._chosen(parameters)
        self._roles = roles_of(self.eager)
        self._check_not_stochastic()
        self._check_statistics()
        # One block for all passes: what they draw from the global stream is given back, and yet the second pass does
        # not repeat the random numbers of the first, so that always-on dropout shows.
        with self.evaluation():
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
        return {name or "input": module for name, module in self.eager.named_modules()}

    def __call__(self, parameters: Mapping[str, Tensor] | None = None) -> RiskValue:
        """The risk at ``parameters``; those not named (or all, for None) are as they are in the model.

        Raises:
            ValueError: an unknown parameter or a wrong shape.
        """
        with self.at(parameters or {}), self.evaluation():
            return self._measured()

    def gradient(self, parameters: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Gradient of the mean loss with respect to each parameter."""
        with self.at(parameters or {}), self.differentiable():
            return derivatives.gradient(self.mean_loss_terms(), self._arguments)

    def hessian_product(self, vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """:meth:`hessian_products` of one vector."""
        return self.hessian_products([vector])[0]

    def hessian_products(self, vectors: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Hessian of the mean loss at the model's weights, times each vector.

        By double backward, one batch's graph in memory at a time: unlike forward-over-reverse differentiation it works
        for recurrent layers, in float32, and on packed sequences.

        Args:
            vectors: naming the same parameters. If these are not all, the product is that of their diagonal block.

        Raises:
            ValueError: an unknown parameter, a wrong shape, or vectors that name different parameters.
        """
        arguments = self._named_by(vectors)
        with self.differentiable():
            return derivatives.hessian_products(self.mean_loss_terms(), arguments, vectors)

    def gauss_newton_products(self, vectors: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        r"""The Gauss-Newton matrix of the mean loss at the model's weights, times each vector.

        :math:`\frac1N \sum_n J_n^\top (\partial^2 \ell_n / \partial f_n^2) J_n`, where :math:`f` is what the model
        returned: the Hessian without the curvature of the network itself. For cross-entropy it is the Fisher matrix.

        Args:
            vectors: naming the same parameters. If these are not all, the product is that of their diagonal block.

        Raises:
            ValueError: as for :meth:`hessian_products`.
            TypeError: the model does not return one floating-point tensor.
        """
        arguments = self._named_by(vectors)
        with self.differentiable():
            return derivatives.gauss_newton_products(self._terms_and_outputs(), arguments, vectors)

    def directional_derivatives(self, vector: Mapping[str, Tensor]) -> Tensor:
        """The derivative of each example's own loss along a vector, in their order: ``(count,)``, float64, on the CPU.

        Args:
            vector: may leave out parameters that stay put.

        Raises:
            ValueError: an unknown parameter or a wrong shape.
        """
        arguments = self._named_by([vector])
        with self.differentiable():
            return derivatives.directional_derivatives(self.example_losses(), arguments, vector)

    def mean_loss_terms(self) -> Iterator[Tensor]:
        """For each batch, the sum of its losses divided by the number of all examples, graph attached."""
        return (losses.sum() / self.count for losses in self.example_losses())

    def example_losses(self) -> Iterator[Tensor]:
        """For each batch, the losses ``(n,)`` of its examples, graph attached."""
        for batch in self._on_device():
            yield self.losses(self.eager, batch)

    def _terms_and_outputs(self) -> Iterator[tuple[Tensor, Tensor]]:
        with _Output().of(self.eager) as kept:
            for loss in self.mean_loss_terms():
                if kept.calls != 1:
                    raise TypeError(
                        f"Gauss-Newton matrix: expected a loss that calls the model once, got {kept.calls} calls: "
                        "it is then no function of one output"
                    )
                kept.calls = 0
                yield loss, _only_tensor(kept.value)

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
    def along(
        self, directions: Sequence[Mapping[str, Tensor]], center: Mapping[str, Tensor] | None = None
    ) -> Iterator[Callable[[Sequence[float]], None]]:
        """Inside the block, ``move(coordinates)`` puts the weights at the center plus a combination of directions.

        Every move starts from the center, so that no rounding error builds up, and touches only the parameters that
        the directions or the center name.

        Args:
            directions: what to move along.
            center: where to start from; None: the model's weights.
        """
        for tensors in (*directions, center or {}):
            self._check_fits(tensors)
        names = {name: None for tensors in (*directions, center or {}) for name in tensors}
        with self._restored(names) as (parameters, saved):
            targets = {name: parameter.detach() for name, parameter in parameters.items()}
            starts = dict(zip(targets, saved, strict=True)) | dict(center or {})
            yield Mover(targets, starts, directions)

    @contextlib.contextmanager
    def differentiable(self) -> Iterator[None]:
        """Evaluation mode in which gradients can be taken twice.

        This is the one place that switches off what has no second derivative: cuDNN's recurrent kernels (which have no
        backward pass in evaluation mode either), fused attention, and compiled graphs.
        """
        with (
            self.evaluation(),
            torch.enable_grad(),
            torch.backends.cudnn.flags(enabled=False),
            sdpa_kernel(SDPBackend.MATH),
            torch.compiler.set_stance("force_eager"),
        ):
            self.reestimate()
            yield

    @property
    def options(self) -> dict[str, str]:
        """What changes the numbers, in words."""
        options = {}
        if self._max_batches is not None:
            options["subset"] = f"the first {self._max_batches} batches"
        if self._statistics is not None:
            options["batch_norm"] = "statistics estimated anew at each point"
        if self._autocast is not None:
            options["precision"] = f"autocast to {self._autocast}".replace("torch.", "")
        return options

    @property
    def metric_names(self) -> list[str]:
        """What is measured beside the loss."""
        return list(self._metrics)

    @property
    def rereading_is_free(self) -> bool:
        """Whether the batches are in memory on the model's device, so that nothing is saved by reading them less often.

        A data loader makes its batches anew at each reading, which several positions can share.
        """
        return are_ready(self.batches, self._device) and (
            self._statistics is None or are_ready(self._statistics, self._device)
        )

    def fingerprint(self) -> str:
        """A short hash of the data: two risks with one fingerprint see the same batches."""
        with self.evaluation():  # a data loader draws from the random stream
            return fingerprint_of_batches(itertools.chain(self.used_batches(), self._statistics or ()))

    def at_each(self, moves: Sequence[Callable[[], object]]) -> list[RiskValue]:
        """The risk at several positions of the weights, from one reading of the batches.

        Inside :meth:`evaluation`, which the caller enters once for many positions.

        Args:
            moves: functions that put the weights into each position.
        """
        if self._statistics is not None:
            return [self._after(move) for move in moves]
        totals = [Totals() for _ in moves]
        with self._kept_output() as kept:
            for batch in self._on_device():
                for move, total in zip(moves, totals, strict=True):
                    move()
                    self._add(total, batch, kept)
        return [total.value() for total in totals]

    def _after(self, move: Callable[[], object]) -> RiskValue:
        move()
        with self.evaluation():  # another split's evaluation must not see this one's statistics
            return self._measured()

    def _measured(self) -> RiskValue:
        self.reestimate()
        total = Totals()
        with self._kept_output() as kept:
            for batch in self._on_device():
                self._add(total, batch, kept)
        return total.value()

    def _add(self, total: Totals, batch: Any, kept: _Output) -> None:
        losses = self.losses(self.model, batch)
        metrics = {
            name: _one_each(f"metric {name!r}", metric(kept.value, batch)) for name, metric in self._metrics.items()
        }
        total.add(losses, metrics)

    @contextlib.contextmanager
    def _kept_output(self) -> Iterator[_Output]:
        kept = _Output()
        is_compiled = self.model is not self.eager
        pooling = contextlib.nullcontext() if is_compiled else FastPooling()
        with torch.no_grad(), kept.of(self.model if self._metrics else None), pooling:
            yield kept

    def reestimate(self) -> None:
        """Estimate BatchNorm's statistics for the present weights, if ``statistics`` were given; in evaluation mode."""
        if self._statistics is not None:
            device = self._device
            reestimate(
                self.eager,
                (functools.partial(self.losses, self.eager, moved(batch, device)) for batch in self._statistics),
            )

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        """The losses ``(n,)`` of a batch on the device, by the model or by :attr:`eager`."""
        if self._autocast is None:
            return _one_each("loss", self._loss(model, batch))
        with torch.autocast(self._device.type, self._autocast):
            return _one_each("loss", self._loss(model, batch))

    @property
    def _device(self) -> torch.device:
        return next(self.eager.parameters()).device

    def used_batches(self) -> Iterable[Any]:
        """Those that count, where they are."""
        return itertools.islice(self.batches, self._max_batches)

    def _on_device(self) -> Iterator[Any]:
        device = self._device
        return (moved(batch, device) for batch in self.used_batches())

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
    def evaluation(self) -> Iterator[None]:
        """Evaluation mode inside the block; buffers, training flags and the random stream are given back after it."""
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
        trainable = {name: tensor for name, tensor in self.eager.named_parameters() if tensor.requires_grad}
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
        for name, module in self.eager.named_modules():
            rate = module.p if isinstance(module, _DROPOUT) else getattr(module, "dropout", 0.0)
            if module.training and isinstance(rate, int | float) and rate > 0:
                raise ValueError(
                    f"the model is stochastic: {name or type(module).__name__} has dropout {rate} and is in training "
                    "mode; call model.eval() first"
                )

    def _check_statistics(self) -> None:
        if self._statistics is None:
            return
        if isinstance(self._statistics, Iterator):
            raise TypeError("statistics: expected batches that can be read again and again; wrap them in list(...)")
        if not any(True for _ in itertools.islice(self._statistics, 1)):
            raise ValueError("statistics: expected at least one batch, got none")
        if not batch_norm_layers(self.eager):
            raise ValueError("statistics: the model has no BatchNorm layer with running statistics; leave it out")

    def _check_reiterable(self) -> None:
        if isinstance(self.batches, Iterator):
            raise TypeError(
                f"batches: expected something that can be read again and again, got a {type(self.batches).__name__} "
                "that is used up after one pass; wrap it in list(...)"
            )
        if not any(True for _ in itertools.islice(self.batches, 1)):
            raise ValueError("batches: expected at least one batch, got none")

    def _named_by(self, vectors: Sequence[Mapping[str, Tensor]]) -> dict[str, nn.Parameter]:
        """The arguments that vectors name, in the model's order."""
        for vector in vectors:
            self._check_fits(vector)
            if vector.keys() != vectors[0].keys():
                raise ValueError("vectors: expected all to name the same parameters")
        return {name: argument for name, argument in self._arguments.items() if name in vectors[0]}

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


class _Output:
    """Keeps what the model returned last."""

    value: Any = None
    calls: int = 0

    @contextlib.contextmanager
    def of(self, model: nn.Module | None) -> Iterator[_Output]:
        if model is None:
            yield self
            return

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            self.value = output
            self.calls += 1

        handle = model.register_forward_hook(keep)
        try:
            yield self
        finally:
            handle.remove()
            self.value = None


def _only_tensor(output: Any) -> Tensor:
    """What the loss is a function of: the one tensor that the model returned, a loss of its own (a scalar) aside."""
    tensors = [
        leaf for leaf in leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim > 0
    ]
    if len(tensors) != 1 or not tensors[0].requires_grad:
        raise TypeError(
            f"Gauss-Newton matrix: expected a model that returns one floating-point tensor which depends on the "
            f"parameters, got {len(tensors)}; wrap it so that it returns its logits only"
        )
    return tensors[0]


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
