"""LeNet-5 (LeCun et al. 1998) with the dimensions of the DropAttack paper, section 4.2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropattack.arguments import check_probability
from dropattack.models.convolution import FirstConv2d
from dropattack.models.width import scaled

__all__ = ["LeNet5"]


class LeNet5(nn.Module):
    """Two 5 x 5 convolutions (1-6-16 channels) and three linear layers (400-120-84-10).

    The first convolution pads by 2: the paper's 400 features need it on 28 x 28 images, which would otherwise leave
    256. ReLU and max pooling, as the paper does not name its activations.

    Args:
        classes: number of classes.
        dropout: rate after each of the two hidden linear layers, in [0, 1]. Table 2's row "Dropout" gives no rate.
        width: factor on the channels and on the features of the hidden linear layers; above 0.

    Raises:
        ValueError: a rate outside [0, 1], or a width that is not above 0.
    """

    def __init__(self, classes: int = 10, dropout: float = 0.0, width: float = 1.0) -> None:
        super().__init__()
        channels = scaled(6, width), scaled(16, width)
        features = scaled(120, width), scaled(84, width)
        self.conv1 = FirstConv2d(1, channels[0], kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(*channels, kernel_size=5)
        self.fc1 = nn.Linear(25 * channels[1], features[0])
        self.fc2 = nn.Linear(*features)
        self.fc3 = nn.Linear(features[1], classes)
        self.dropout = nn.Dropout(check_probability("dropout", dropout))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, 1, 28, 28)``."""
        hidden = nn.functional.max_pool2d(torch.relu(self.conv1(images)), 2)
        hidden = nn.functional.max_pool2d(torch.relu(self.conv2(hidden)), 2)
        hidden = self.dropout(torch.relu(self.fc1(hidden.flatten(1))))
        hidden = self.dropout(torch.relu(self.fc2(hidden)))
        logits: Tensor = self.fc3(hidden)
        return logits
