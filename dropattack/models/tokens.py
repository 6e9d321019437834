"""What the networks for text share: token ids padded with zeros, and the embedding of the ids."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropattack.arguments import check_count

__all__ = ["PADDING", "is_word", "token_embedding", "trimmed"]

PADDING = 0


@torch.compiler.disable  # the width depends on the data, so that a compiled graph ends here in any case
def trimmed(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Cut off the columns that are padding in every row, and say how long each row is.

    Everything that follows, random draws of masks and dropout included, is then the same however wide the padding was.

    Args:
        tokens: ids ``(n, length)``, int64, padded with zeros on the right.

    Returns:
        Ids ``(n, longest)`` and lengths ``(n,)``: the place of the last id that is not zero. A row of padding alone
        counts as one word, as every network needs one.

    Raises:
        TypeError: the ids are not whole numbers.
        ValueError: not a matrix, or nothing in it.
    """
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise TypeError(f"tokens: expected token ids of type torch.int64, got {tokens.dtype}")
    if tokens.ndim != 2 or not tokens.numel():
        raise ValueError(f"tokens: expected shape (n, length), neither of them 0, got {tuple(tokens.shape)}")
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    lengths = ((tokens != PADDING) * places).amax(dim=1).clamp(min=1)
    return tokens[:, : int(lengths.max())], lengths


def is_word(lengths: Tensor, width: int) -> Tensor:
    """Which places ``(n, width)`` lie within rows of ``lengths`` ``(n,)``."""
    return torch.arange(width, device=lengths.device) < lengths.unsqueeze(1)


def token_embedding(vocabulary: int, embedding_size: int, vectors: Tensor | None = None) -> nn.Embedding:
    """A trainable table of word vectors whose padding row is zero and stays so.

    Args:
        vocabulary: number of token ids, padding included.
        embedding_size: length of a vector.
        vectors: initial vectors ``(vocabulary, embedding_size)``, which are copied; None: standard normal ones.

    Raises:
        ValueError: a size below 1, or vectors of another shape.
    """
    size = (check_count("vocabulary", vocabulary), check_count("embedding_size", embedding_size))
    embedding = nn.Embedding(*size, padding_idx=PADDING)
    if vectors is not None:
        if tuple(vectors.shape) != size:
            raise ValueError(f"vectors: expected shape {size} (vocabulary, embedding_size), got {tuple(vectors.shape)}")
        with torch.no_grad():
            embedding.weight.copy_(vectors)
            embedding.weight[PADDING].zero_()
    return embedding
