"""TextRCNN (Lai et al., 2015), one of the networks of the DropAttack paper's Figure 2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropattack.arguments import check_count, check_probability
from dropattack.models.recurrent import Recurrent
from dropattack.models.tokens import is_word, token_embedding, trimmed

__all__ = ["TextRCNN"]


class TextRCNN(nn.Module):
    """Each word between its left and right context, a tanh layer, the maximum over the words, and a linear layer.

    Lai, Xu, Liu and Zhao, "Recurrent convolutional neural networks for text classification", AAAI 2015, with the
    states of a bidirectional LSTM as contexts, as is usual now (they include the word itself; the paper's plain
    recurrence stops before it). Figure 2 gives no dimensions: those of the paper's LSTM are taken. Padding changes no
    logit and no gradient.

    Args:
        vocabulary: number of token ids; 0 is padding.
        classes: number of classes.
        embedding_size: length of a word vector.
        hidden: features of a context in each direction, and of the tanh layer.
        dropout: rate after the embedding and before the last layer, in [0, 1].
        vectors: initial word vectors ``(vocabulary, embedding_size)``, trained on; None: standard normal ones.

    Raises:
        ValueError: a rate outside [0, 1], a size below 1, or vectors of another shape.
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        embedding_size: int = 300,
        hidden: int = 300,
        dropout: float = 0.0,
        vectors: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_count("hidden", hidden)
        self.embedding = token_embedding(vocabulary, embedding_size, vectors)
        self.lstm = Recurrent("lstm", embedding_size, hidden, bidirectional=True)
        self.latent = nn.Linear(embedding_size + 2 * hidden, hidden)
        self.fc = nn.Linear(hidden, check_count("classes", classes))
        self.dropout = nn.Dropout(check_probability("dropout", dropout))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of token ids ``(n, length)``, int64, padded with zeros on the right."""
        tokens, lengths = trimmed(tokens)
        words = self.dropout(self.embedding(tokens))
        left, right = self.lstm(words, lengths).chunk(2, dim=2)
        latent = torch.tanh(self.latent(torch.cat([left, words, right], dim=2)))
        outside = ~is_word(lengths, tokens.shape[1]).unsqueeze(2)
        strongest = latent.masked_fill(outside, -1.0).amax(dim=1)  # -1 is the least that tanh can be
        logits: Tensor = self.fc(self.dropout(strongest))
        return logits
