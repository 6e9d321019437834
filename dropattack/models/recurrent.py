"""The recurrent networks of the paper, section 4.2, and the layer that makes padding harmless to them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from dropattack.arguments import check_count, check_probability
from dropattack.models.tokens import token_embedding, trimmed

__all__ = ["LSTM", "BiGRU", "BiLSTM", "Recurrent", "TextRNN", "TwoLayerBiGRU", "TwoLayerBiLSTM"]


class Recurrent(nn.RNNBase):
    """``nn.LSTM`` or ``nn.GRU`` on sequences of unequal lengths: the states are those of packed sequences.

    On CPUs packed sequences are slow: in training an LSTM takes 3.5 times as long with 32 texts of 128 tokens and 16
    times with 128 of 256, a GRU 1.3 and 7.5 times (``benchmarks/models.py``), partly for lack of oneDNN's fused LSTM.
    Forward-mode differentiation knows no packing either. So here the padded sequences run. Forward, padding comes after
    all that matters. Backward, each sequence is reversed within its length first, and its states after. Parameters have
    PyTorch's names.

    Args:
        cell: ``"lstm"`` or ``"gru"``.
        input_size: features of an input.
        hidden: features of a state, in each direction.
        layers: number of layers.
        bidirectional: whether each layer also runs backward.
    """

    def __init__(
        self, cell: Literal["lstm", "gru"], input_size: int, hidden: int, layers: int = 1, bidirectional: bool = False
    ) -> None:
        super().__init__(cell.upper(), input_size, hidden, num_layers=layers, bidirectional=bidirectional)

    def forward(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """States of the last layer.

        Args:
            sequences: ``(n, length, input_size)``.
            lengths: ``(n,)``, each from 1 to ``length``.

        Returns:
            ``(n, length, hidden)``, for two directions ``(n, length, 2 * hidden)``, the forward one first. What stands
            beyond a sequence's length means nothing.
        """
        if torch.backends.cudnn.is_acceptable(sequences):
            return self._packed(sequences, lengths)
        states = sequences.transpose(0, 1)
        order = _reversal(lengths, len(states)) if self.bidirectional else None
        weights = iter(self.all_weights)
        for _ in range(self.num_layers):
            below = states
            states = self._run(below, next(weights))
            if order is not None:
                backward = _reordered(self._run(_reordered(below, order), next(weights)), order)
                states = torch.cat([states, backward], dim=2)
        return states.transpose(0, 1)

    def last(self, states: Tensor, lengths: Tensor) -> Tensor:
        """The state in which each direction ends: forward at the last word, backward at the first.

        Args:
            states: what :meth:`forward` returned.
            lengths: ``(n,)``.

        Returns:
            ``(n, hidden)`` or ``(n, 2 * hidden)``.
        """
        forward = states[torch.arange(len(states), device=states.device), lengths - 1, : self.hidden_size]
        return torch.cat([forward, states[:, 0, self.hidden_size :]], dim=1)

    def _run(self, sequences: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """One layer in one direction, time first."""
        start = self._start(sequences, 1, sequences.shape[1])
        with _differentiable_forward():
            found: Tensor = self._kernel(sequences, start, weights, True, 1, 0.0, self._train, False, False)[0]
        return found

    def _packed(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """The same by cuDNN, which is fast on packed sequences and wants the weights of all layers in one piece."""
        packed = pack_padded_sequence(sequences, lengths.cpu(), batch_first=True, enforce_sorted=False)
        directions = 2 if self.bidirectional else 1
        start = self._start(sequences, directions * self.num_layers, len(sequences))
        weights = [weight for group in self.all_weights for weight in group]
        options = (True, self.num_layers, 0.0, self._train, self.bidirectional)
        states: Tensor = self._kernel(packed.data, packed.batch_sizes, start, weights, *options)[0]
        unpacked = PackedSequence(states, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        return pad_packed_sequence(unpacked, batch_first=True, total_length=sequences.shape[1])[0]

    @property
    def _kernel(self) -> Any:
        return torch.lstm if self.mode == "LSTM" else torch.gru

    @property
    def _train(self) -> bool:
        # The kernels' flag for dropout between layers, of which there is none. cuDNN has a backward pass only with it,
        # and gradients are also taken in evaluation mode.
        return torch.is_grad_enabled()

    def _start(self, like: Tensor, layers: int, count: int) -> Any:
        zeros = like.new_zeros(layers, count, self.hidden_size)
        return (zeros, zeros) if self.mode == "LSTM" else zeros


@contextlib.contextmanager
def _differentiable_forward() -> Iterator[None]:
    """Inside forward-mode differentiation, leave aside oneDNN's LSTM, which has none; elsewhere nothing."""
    if forward_ad._current_level < 0:
        yield
        return
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


def _reversal(lengths: Tensor, width: int) -> Tensor:
    """Where each state of flattened ``(width, n)`` comes from when sequences are reversed; padding stays in place."""
    places = torch.arange(width, device=lengths.device).unsqueeze(1)
    sources = torch.where(places < lengths, lengths - 1 - places, places)
    return (sources * len(lengths) + torch.arange(len(lengths), device=lengths.device)).flatten()


def _reordered(states: Tensor, order: Tensor) -> Tensor:
    return states.flatten(0, 1).index_select(0, order).view(states.shape)


class TextRNN(nn.Module):
    """Word vectors, recurrent layers, and a linear layer on the last state of each direction.

    Abstract: the networks of the paper say which cell, how many layers and directions. The recurrent layer is called
    ``lstm`` or ``gru``, and padding changes no logit and no gradient.

    Args:
        vocabulary: number of token ids; 0 is padding.
        classes: number of classes.
        embedding_size: length of a word vector.
        hidden: features of a state, in each direction.
        dropout: rate after the embedding and before the linear layer, in [0, 1]; the paper gives neither.
        vectors: initial word vectors ``(vocabulary, embedding_size)``, trained on; None: standard normal ones.

    Raises:
        ValueError: a rate outside [0, 1], a size below 1, or vectors of another shape.
    """

    cell: ClassVar[Literal["lstm", "gru"]]
    layers: ClassVar[int]
    bidirectional: ClassVar[bool]

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
        self.add_module(self.cell, Recurrent(self.cell, embedding_size, hidden, self.layers, self.bidirectional))
        self.fc = nn.Linear(hidden * (2 if self.bidirectional else 1), check_count("classes", classes))
        self.dropout = nn.Dropout(check_probability("dropout", dropout))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of token ids ``(n, length)``, int64, padded with zeros on the right."""
        tokens, lengths = trimmed(tokens)
        recurrent = self.get_submodule(self.cell)
        assert isinstance(recurrent, Recurrent)
        states = recurrent(self.dropout(self.embedding(tokens)), lengths)
        logits: Tensor = self.fc(self.dropout(recurrent.last(states, lengths)))
        return logits


class LSTM(TextRNN):
    """IMDB in the paper: one LSTM (300-300) and a linear layer (300-2)."""

    cell, layers, bidirectional = "lstm", 1, False


class BiGRU(TextRNN):
    """PHEME in section 4.2 and in the authors' code: one GRU in two directions (300-300), a linear layer (600-2)."""

    cell, layers, bidirectional = "gru", 1, True


class BiLSTM(TextRNN):
    """PHEME in Table 6, against section 4.2: one LSTM in two directions."""

    cell, layers, bidirectional = "lstm", 1, True


class TwoLayerBiGRU(TextRNN):
    """AG News in Table 7 and in the authors' code: two GRU layers in two directions, a linear layer (600-4)."""

    cell, layers, bidirectional = "gru", 2, True


class TwoLayerBiLSTM(TextRNN):
    """AG News in section 4.2: two LSTM layers in two directions, a linear layer (600-4)."""

    cell, layers, bidirectional = "lstm", 2, True
