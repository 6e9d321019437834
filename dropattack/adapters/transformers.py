"""A method inside the ``Trainer`` of Hugging Face Transformers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

try:
    from accelerate import Accelerator, DistributedType
    from transformers import Trainer
    from transformers.training_args import OptimizerNames
except ImportError as error:
    raise ImportError(
        "dropattack.adapters.transformers needs Transformers and Accelerate: pip install 'dropattack[transformers]'"
    ) from error

from dropattack.adapters.single_step import check_single_step
from dropattack.methods.base import Method

__all__ = ["MethodTrainer"]

# Each pass must leave a whole gradient in `.grad`, and the weights must be whole tensors.
_SHARDED = (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM)


class MethodTrainer(Trainer):
    """The Trainer, with a method in place of the backward pass; everything else is the Trainer's own.

    Every pass of the method is one ``training_step`` of the Trainer up to its backward pass, so that
    ``compute_loss``, label smoothing, ``num_items_in_batch``, mixed precision and gradient accumulation are what they
    are in the Trainer that this class is put before. The loss in the logs is the clean loss. In data-parallel training
    gradients are reduced in the last pass of the last micro-batch.

    The method is built once the Trainer has moved the model to its device, and again when the Trainer makes itself a
    new one (``model_init``); it is at hand as ``trainer.method``. What it carries from step to step is part of the
    Trainer's checkpoints, as ``method.safetensors`` (one for each process), the state of its generator included.

    Args:
        *args: as for ``Trainer``.
        make_method: from the model, as it is before the Trainer wraps it, to the method.
        **kwargs: as for ``Trainer``.

    Raises:
        ValueError: the method replays each batch for several optimizer steps; the optimizer steps inside the backward
            pass (LOMO); the model is sharded (FSDP, DeepSpeed, context parallelism) or copied (``nn.DataParallel``).

    Example:
        A norm of 1 on each example's word embeddings::

            trainer = MethodTrainer(
                model,
                args,
                train_dataset=data,
                make_method=lambda model: dropattack.FGM(model, "bert.embeddings.word_embeddings", epsilon=1.0),
            )
            trainer.train()
    """

    method: Method
    _method_model: nn.Module | None = None

    def __init__(self, *args: Any, make_method: Callable[[nn.Module], Method], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._make_method = make_method
        self._build_method()

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Add the method's gradient on one micro-batch to ``.grad``.

        Args:
            model: the model as the Trainer has wrapped it.
            inputs: the micro-batch.
            num_items_in_batch: the number of targets in all micro-batches of the optimizer step.

        Returns:
            The clean loss, detached, scaled for gradient accumulation like the Trainer's.

        Raises:
            RuntimeError: a subclass has its own ``training_step``, which does not call ``accelerator.backward``.
        """
        self._build_method()
        self._check_setup(model)
        # A micro-batch's share of the loss is made as large as that of a whole batch and divided again on the way
        # back, so that what a method adds to the loss (a penalty) is divided like the loss.
        micro_batches = self.current_gradient_accumulation_steps
        options: dict[str, Any] = {}

        def closure() -> Tensor:
            with _caught_backward(self.accelerator) as caught:
                super(MethodTrainer, self).training_step(model, inputs, num_items_in_batch)
            if len(caught) != 1:
                raise RuntimeError(
                    f"expected training_step to call accelerator.backward once, it did {len(caught)} times: leave "
                    "training_step alone and override compute_loss"
                )
            loss, given = caught.pop()
            options.update(given)
            return loss * micro_batches if micro_batches > 1 else loss

        def backward(loss: Tensor) -> None:
            self.accelerator.backward(loss / micro_batches if micro_batches > 1 else loss, **options)

        clean_loss = self.method.backward(
            closure, backward=backward, no_sync=lambda: self.accelerator.no_sync(model=model)
        )
        return clean_loss / micro_batches if micro_batches > 1 else clean_loss

    def _build_method(self) -> None:
        """Build the method, unless there is one for the present model."""
        model = self.model
        if model is not None and model is not self._method_model:
            self.method = check_single_step(self._make_method(model), "the Trainer")
            self._method_model = model

    def _method_file(self, checkpoint: str) -> Path:
        process = f"-{self.args.process_index}" if self.args.world_size > 1 else ""
        return Path(checkpoint) / f"method{process}.safetensors"

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if carried := self.method.state_dict():
            path = self._method_file(output_dir)
            path.parent.mkdir(parents=True, exist_ok=True)  # the first process makes it, perhaps later
            save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in carried.items()}, path)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        self._build_method()
        if checkpoint is not None and (path := self._method_file(checkpoint)).exists():
            self.method.load_state_dict(load_file(path))

    def _check_setup(self, model: nn.Module) -> None:
        kind = self.accelerator.distributed_type
        parallelism = getattr(self.accelerator, "parallelism_config", None)
        if (
            kind in _SHARDED
            or getattr(self, "is_distributed_loading_by_transformers", False)
            or (parallelism is not None and parallelism.non_data_parallel_size > 1)
        ):
            raise ValueError(
                "a method needs whole weights, gradients and sequences in each process, got "
                f"{kind.value} with parts of them; use data-parallel training (DDP)"
            )
        if isinstance(model, nn.DataParallel):
            raise ValueError(
                "nn.DataParallel runs copies of the model, which a method does not reach: start one process for each "
                "device (torchrun or accelerate launch)"
            )
        if self.args.optim in (OptimizerNames.LOMO, OptimizerNames.ADALOMO):
            optim = str(OptimizerNames(self.args.optim).value)
            raise ValueError(f"optim={optim!r} steps inside the backward pass, of which a method makes several")


@contextlib.contextmanager
def _caught_backward(accelerator: Accelerator) -> Iterator[list[tuple[Tensor, dict[str, Any]]]]:
    """Inside the block, ``accelerator.backward`` notes the loss and its options and runs no backward pass."""
    caught: list[tuple[Tensor, dict[str, Any]]] = []
    attributes = vars(accelerator)
    own = attributes.pop("backward", None)  # set by whoever instruments the accelerator
    attributes["backward"] = lambda loss, **options: caught.append((loss, options))
    try:
        yield caught
    finally:
        del attributes["backward"]
        if own is not None:
            attributes["backward"] = own
