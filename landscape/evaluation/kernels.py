"""Faster ways to equal numbers, for passes without gradients on CPUs.

PyTorch's pooling on CPUs walks through contiguous images one value at a time: it took more than half of a forward pass
of LeNet-5 (``benchmarks/README.md``). Strided maxima and sums of whole tensors give equal numbers, vectorized.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["FastPooling"]


class FastPooling(TorchFunctionMode):
    """Inside the block, max and average pooling over windows that do not overlap run faster, with equal results.

    Windows that overlap, padding, other layouts, other devices, gradients and compiled graphs are left to PyTorch.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace the call if it is one of those that are known to give equal numbers."""
        kwargs = kwargs or {}
        replacement = _REPLACEMENTS.get(function)
        if replacement is not None and "out" not in kwargs and not torch.is_grad_enabled():
            result = replacement(*args, **kwargs)
            if result is not None:
                return result
        return function(*args, **kwargs)


def _max_pool2d(
    input: Tensor,  # noqa: A002 - PyTorch's name
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:
    windows = _windows(input, kernel_size, stride)
    if windows is None or _pair(padding) != (0, 0) or _pair(dilation) != (1, 1) or ceil_mode or return_indices:
        return None
    height, width = windows
    rows = input[..., : input.shape[-2] // height * height, : input.shape[-1] // width * width]
    tallest = rows[..., ::height, :]
    for offset in range(1, height):
        tallest = torch.maximum(tallest, rows[..., offset::height, :])
    highest = tallest[..., ::width]
    for offset in range(1, width):
        highest = torch.maximum(highest, tallest[..., offset::width])
    return highest


def _avg_pool2d(
    input: Tensor,  # noqa: A002 - PyTorch's name
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,  # noqa: ARG001 - without padding it makes no difference
    divisor_override: int | None = None,
) -> Tensor | None:
    windows = _windows(input, kernel_size, stride)
    if windows is None or _pair(padding) != (0, 0) or ceil_mode or divisor_override is not None:
        return None
    height, width = windows
    rows = input[..., : input.shape[-2] // height * height, : input.shape[-1] // width * width]
    total = None
    for down in range(height):  # in the order in which PyTorch adds
        for right in range(width):
            part = rows[..., down::height, right::width]
            total = part if total is None else total + part
    return None if total is None else total / (height * width)


def _windows(images: Tensor, kernel_size: Any, stride: Any) -> tuple[int, int] | None:
    """Height and width of windows that tile a plain CPU image, or None."""
    kernel = _pair(kernel_size)
    plain = (
        type(images) is Tensor
        and images.device.type == "cpu"
        and images.dtype in (torch.float32, torch.float64)
        and images.ndim in (3, 4)
        and images.is_contiguous()
    )
    unset = stride is None or (isinstance(stride, list | tuple) and not stride)
    if (
        not plain
        or kernel is None
        or kernel == (1, 1)
        or not (unset or _pair(stride) == kernel)
        or torch.compiler.is_compiling()
    ):
        return None
    if min(kernel) < 1 or 0 in images.shape or images.shape[-2] < kernel[0] or images.shape[-1] < kernel[1]:
        return None  # PyTorch's error says what is wrong
    return kernel


def _pair(size: Any) -> tuple[int, int] | None:
    """Height and width; None for what is left to PyTorch to judge."""
    if type(size) is int:
        return size, size
    if isinstance(size, list | tuple) and len(size) in (1, 2) and all(type(each) is int for each in size):
        return size[0], size[-1]
    return None


_REPLACEMENTS: dict[Any, Callable[..., Tensor | None]] = {
    torch.max_pool2d: _max_pool2d,
    torch.nn.functional.max_pool2d: _max_pool2d,
    torch.nn.functional.avg_pool2d: _avg_pool2d,
}
