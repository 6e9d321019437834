"""TextCNN (Kim, 2014), one of the networks of the DropAttack paper's Figure 2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dropattack.arguments import check_count, check_probability
from dropattack.models.tokens import is_word, token_embedding, trimmed

__all__ = ["TextCNN", "WordConv"]


class WordConv(nn.Conv1d):
    """``nn.Conv1d`` over texts ``(n, length, in_channels)``, the layout of an embedding's output.

    To oneDNN it is an image one pixel high in the layout "channels last", which it convolves without copies, in half
    the time of ``nn.Conv1d``. Parameters are those of ``nn.Conv1d``.
    """

    def forward(self, texts: Tensor) -> Tensor:
        """Responses ``(n, length - width + 1, out_channels)``."""
        images = texts.transpose(1, 2).unsqueeze(2)
        responses = nn.functional.conv2d(images, self.weight.unsqueeze(2), self.bias)
        return responses.squeeze(2).transpose(1, 2)


class TextCNN(nn.Module):
    """Word vectors, convolutions over windows of several widths, the maximum over time of each, and a linear layer.

    Kim, "Convolutional neural networks for sentence classification", EMNLP 2014, whose dimensions are the defaults,
    as Figure 2 gives none. Windows lie within the text, so that padding changes no logit and no gradient; a text
    shorter than a window has one, filled with zeros. The convolutions are called ``conv3``, ``conv4``, ``conv5``.

    Args:
        vocabulary: number of token ids; 0 is padding.
        classes: number of classes.
        embedding_size: length of a word vector.
        hidden: filters of each width.
        widths: of the windows, in words.
        dropout: rate after the embedding and before the linear layer, in [0, 1]. (Kim's is 0.5, at the second place.)
        vectors: initial word vectors ``(vocabulary, embedding_size)``, trained on; None: standard normal ones.

    Raises:
        ValueError: a rate outside [0, 1], a size below 1, no or equal widths, or vectors of another shape.
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        embedding_size: int = 300,
        hidden: int = 100,
        widths: Sequence[int] = (3, 4, 5),
        dropout: float = 0.0,
        vectors: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_count("hidden", hidden)
        self.widths = tuple(check_count("widths", width) for width in widths)
        if not self.widths or len(set(self.widths)) < len(self.widths):
            raise ValueError(f"widths: expected one or more different widths, got {list(widths)}")
        self.embedding = token_embedding(vocabulary, embedding_size, vectors)
        for width in self.widths:
            self.add_module(f"conv{width}", WordConv(embedding_size, hidden, kernel_size=width))
        self.fc = nn.Linear(hidden * len(self.widths), check_count("classes", classes))
        self.dropout = nn.Dropout(check_probability("dropout", dropout))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of token ids ``(n, length)``, int64, padded with zeros on the right."""
        tokens, lengths = trimmed(tokens)
        embedded = self.dropout(self.embedding(tokens))
        # Padding is zero by its row of the table, but a perturbation of the embedding's output may have moved it.
        embedded = embedded.masked_fill(~is_word(lengths, tokens.shape[1]).unsqueeze(2), 0.0)
        embedded = nn.functional.pad(embedded, (0, 0, 0, max(0, max(self.widths) - tokens.shape[1])))
        features = [self._strongest(embedded, lengths, width) for width in self.widths]
        logits: Tensor = self.fc(self.dropout(torch.cat(features, dim=1)))
        return logits

    def _strongest(self, embedded: Tensor, lengths: Tensor, width: int) -> Tensor:
        """The largest response ``(n, hidden)`` of each filter of one width."""
        responses = torch.relu(self.get_submodule(f"conv{width}")(embedded))
        windows = (lengths - width + 1).clamp(min=1)
        # No response is below zero, so that zeros never win against a window of the text.
        return responses.masked_fill(~is_word(windows, responses.shape[1]).unsqueeze(2), 0.0).amax(dim=1)
