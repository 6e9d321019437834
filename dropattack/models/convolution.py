"""A first convolution whose gradient with respect to the image is cheap on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FirstConv2d"]


class FirstConv2d(nn.Conv2d):
    """``nn.Conv2d`` for images of one to four channels, whose backward pass is faster when the image is attacked.

    With so few channels oneDNN, PyTorch's backend on CPUs, takes several times as long for the gradient with respect to
    the image as PyTorch's own loops do, or as a convolution over blocks of pixels does; for everything else it is the
    fastest (``benchmarks/README.md``).
    Parameters, outputs and gradients are those of ``nn.Conv2d``, up to rounding. Without an image that requires a
    gradient, on other devices, under autocast and under ``torch.compile`` it *is* ``nn.Conv2d``.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.Conv2d
        """Feature maps ``(n, out_channels, …)`` of images ``(n, in_channels, …)``."""
        plain = (
            not input.requires_grad
            or input.device.type != "cpu"
            or torch.is_autocast_enabled("cpu")
            or torch.compiler.is_compiling()
            or self.padding_mode != "zeros"
            or isinstance(self.padding, str)
        )
        if plain:
            return super().forward(input)
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        output: Tensor = _Convolution.apply(input, self.weight, self.bias, geometry)  # type: ignore[no-untyped-call]
        return output


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(images: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...]) -> Tensor:
        stride, padding, dilation, groups = geometry
        return nn.functional.conv2d(images, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        images, weight, bias, ctx.geometry = inputs
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        ctx.save_for_backward(images, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        images, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry

        def gradients(wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
            found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
                gradient, images, weight, ctx.bias_sizes, stride, padding, dilation, False, [0, 0], groups, wanted
            )
            return found

        by_image = by_weight = by_bias = None
        if any(ctx.needs_input_grad[1:3]):
            _, by_weight, by_bias = gradients([False, ctx.needs_input_grad[1], ctx.needs_input_grad[2]])
        if ctx.needs_input_grad[0] and _is_narrow(weight, ctx.geometry):
            by_image = _image_gradient_by_blocks(gradient, weight, images.shape[2:], padding)
        elif ctx.needs_input_grad[0]:
            enabled = torch._C._get_mkldnn_enabled()
            torch._C._set_mkldnn_enabled(False)
            try:
                by_image, _, _ = gradients([True, False, False])
            finally:
                torch._C._set_mkldnn_enabled(enabled)
        return by_image, by_weight, by_bias, None


def _is_narrow(weight: Tensor, geometry: tuple[Any, ...]) -> bool:
    """Whether blocks are the fastest way: few channels on both sides, and a plain geometry."""
    stride, padding, dilation, groups = geometry
    out_channels, _, height, width = weight.shape
    return (
        out_channels <= 8
        and stride == dilation == (1, 1)
        and groups == 1
        and padding[0] < height
        and padding[1] < width
    )


def _image_gradient_by_blocks(
    gradient: Tensor, weight: Tensor, size: tuple[int, int], padding: tuple[int, int], block: int = 4
) -> Tensor:
    """The gradient with respect to the image as a convolution that computes a block of pixels as channels.

    It is the correlation of ``gradient`` with the flipped kernel. With one output channel that leaves most of a vector
    register empty; a stride of ``block`` and a copy of the kernel for each pixel of the block, shifted, fills it.
    """
    height, width = size
    in_channels, out_channels = weight.shape[1], weight.shape[0]
    kernel_y, kernel_x = weight.shape[2:]
    kernels = weight.new_zeros(in_channels, block, block, out_channels, kernel_y + block - 1, kernel_x + block - 1)
    each, y, x, channel, row, column = kernels.stride()
    shifted = kernels.as_strided(
        (in_channels, block, block, out_channels, kernel_y, kernel_x), (each, y + row, x + column, channel, row, column)
    )
    shifted.copy_(weight.flip(2, 3).transpose(0, 1)[:, None, None])
    if height % block or width % block:
        gradient = nn.functional.pad(gradient, (0, -width % block, 0, -height % block))
    around = (kernel_y - 1 - padding[0], kernel_x - 1 - padding[1])
    blocks = nn.functional.conv2d(gradient, kernels.flatten(0, 2), stride=block, padding=around)
    return nn.functional.pixel_shuffle(blocks, block)[:, :, :height, :width]
