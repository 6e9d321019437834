"""A data set and a network small enough to train in a fraction of a second."""

import pytest
import torch
from torch import nn

from dropattack.data import Dataset, Images
from dropattack.models import MODELS


class TinyNet(nn.Module):
    """With dropout, so that the global random stream matters, and BatchNorm, so that buffers do."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.fc1 = nn.Linear(16, hidden)
        self.drop = nn.Dropout(0.5)
        self.fc2 = nn.Linear(hidden, 3)

    def forward(self, images):
        return self.fc2(self.drop(torch.relu(self.fc1(self.norm(images).flatten(1)))))


@pytest.fixture
def tiny_model(monkeypatch):
    """The name under which the tiny network can be built."""
    monkeypatch.setitem(MODELS, "tiny", TinyNet)
    return "tiny"


@pytest.fixture
def tiny_data():
    """Sixteen-pixel images of three classes: 50 / 20 / 20, so that the last training batch of 16 is uneven."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Images:
        labels = torch.randint(0, 3, (count,), generator=generator)
        noise = torch.randint(0, 120, (count, 1, 4, 4), generator=generator)
        return Images((noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels, mean=0.5, std=0.25)

    return Dataset("tiny", "made here", split(50), split(20), split(20))
