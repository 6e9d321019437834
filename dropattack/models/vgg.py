"""VGG-16 (Simonyan and Zisserman, 2014) with BatchNorm, for the images of CIFAR-10."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropattack.arguments import check_probability
from dropattack.models.convolution import FirstConv2d
from dropattack.models.width import scaled

__all__ = ["VGG16"]

# Channels of the convolutions between one pooling and the next.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Thirteen 3 x 3 convolutions, each with BatchNorm, and three linear layers (512-4096-4096-10).

    The paper counts 13 convolutions and lists the channels of eleven; this is configuration D of Simonyan and
    Zisserman, "Very deep convolutional networks for large-scale image recognition" (arXiv:1409.1556). BatchNorm, which
    section 4.2 does not mention and Table 9 attacks, stands between each convolution and its ReLU. Layers are called
    ``conv1`` to ``conv13``, ``norm1`` to ``norm13``, ``fc1`` to ``fc3``.

    Args:
        classes: number of classes.
        width: factor on the channels and on the features of the hidden linear layers; above 0.
        dropout: rate after each of the two hidden linear layers, in [0, 1]. Table 2's row "Dropout" gives no rate.

    Raises:
        ValueError: a rate outside [0, 1], or a width that is not above 0.
    """

    def __init__(self, classes: int = 10, width: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(check_probability("dropout", dropout))
        before, number = 3, 0
        for block in BLOCKS:
            for channels in (scaled(channels, width) for channels in block):
                number += 1
                layer = FirstConv2d if number == 1 else nn.Conv2d
                self.add_module(f"conv{number}", layer(before, channels, kernel_size=3, padding=1))
                self.add_module(f"norm{number}", nn.BatchNorm2d(channels))
                before = channels
        features = scaled(4096, width)
        self.fc1 = nn.Linear(before, features)
        self.fc2 = nn.Linear(features, features)
        self.fc3 = nn.Linear(features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, 3, 32, 32)``."""
        hidden, number = images, 0
        for block in BLOCKS:
            for _ in block:
                number += 1
                convolved = self.get_submodule(f"conv{number}")(hidden)
                if number == 1 and convolved.shape[1] < 32 and convolved.device.type == "cpu":  # a quarter faster there
                    convolved = convolved.contiguous(memory_format=torch.channels_last)
                hidden = torch.relu(self.get_submodule(f"norm{number}")(convolved))
            hidden = nn.functional.max_pool2d(hidden, 2)
        hidden = self.dropout(torch.relu(self.fc1(hidden.flatten(1))))
        hidden = self.dropout(torch.relu(self.fc2(hidden)))
        logits: Tensor = self.fc3(hidden)
        return logits
