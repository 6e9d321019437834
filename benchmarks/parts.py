"""Parts of a step that have been made faster: masks, and the gradient with respect to an image.

Run ``python benchmarks/parts.py``; milliseconds, medians, one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from dropattack.ascent import bernoulli_mask
from dropattack.models.convolution import _image_gradient_by_blocks


def milliseconds(call: Callable[[], object], rounds: int = 30) -> float:
    """The median duration of a call."""
    call()
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - start))
    return statistics.median(spent)


def image_gradient(in_channels: int, out_channels: int, size: int, kernel: int) -> None:
    """Three ways, on a batch of 128."""
    padding = kernel // 2
    gradient = torch.randn(128, out_channels, size, size)
    weight, images = torch.randn(out_channels, in_channels, kernel, kernel), torch.randn(128, in_channels, size, size)

    def backward() -> object:
        return torch.nn.grad.conv2d_input(images.shape, weight, gradient, padding=padding)

    def blocks() -> object:
        return _image_gradient_by_blocks(gradient, weight, (size, size), (padding, padding))

    onednn, by_blocks = milliseconds(backward), milliseconds(blocks)
    torch._C._set_mkldnn_enabled(False)
    loops = milliseconds(backward)
    torch._C._set_mkldnn_enabled(True)
    print(
        f"gradient of 128 images {in_channels} x {size} x {size}, {out_channels} output channels: "
        f"oneDNN {onednn:.2f}, PyTorch's loops {loops:.2f}, blocks {by_blocks:.2f}"
    )


def main() -> None:
    """Print what was measured."""
    torch.set_num_threads(1)
    generator, like = torch.Generator(), torch.empty(128, 1, 28, 28)
    ours = milliseconds(lambda: bernoulli_mask(like, 0.5, generator))
    theirs = milliseconds(lambda: torch.empty(like.shape, dtype=torch.bool).bernoulli_(0.5, generator=generator))
    print(f"mask of {like.numel():,} entries: {ours:.2f}, bernoulli_ {theirs:.2f}")
    image_gradient(1, 6, 28, 5)
    image_gradient(3, 64, 32, 3)


if __name__ == "__main__":
    main()
