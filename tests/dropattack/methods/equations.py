"""The layers of the test networks as textbook equations on plain tensors: no module, no hook, nothing in place."""

import torch

Parameters = dict[str, torch.Tensor]


def linear(p: Parameters, name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def embedding(table: torch.Tensor, tokens: torch.Tensor, padding: int) -> torch.Tensor:
    """Rows of ``table``; the padding row is a constant, so that no gradient reaches it from here."""
    is_padding = (torch.arange(len(table)) == padding).unsqueeze(1)
    return torch.where(is_padding, table.detach(), table)[tokens]


def convolution(p: Parameters, name: str, images: torch.Tensor) -> torch.Tensor:
    """3 x 3, stride 1, zero padding 1, as a sum over the nine shifted images."""
    weight = p[f"{name}.weight"]
    height, width = images.shape[2:]
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    shifted = [
        torch.einsum("bihw,oi->bohw", padded[:, :, i : i + height, j : j + width], weight[:, :, i, j])
        for i in range(3)
        for j in range(3)
    ]
    return sum(shifted) + p[f"{name}.bias"][:, None, None]


def batch_norm(p: Parameters, name: str, images: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """Training mode: the statistics of this batch, with the biased variance."""
    mean = images.mean((0, 2, 3), keepdim=True)
    variance = ((images - mean) ** 2).mean((0, 2, 3), keepdim=True)
    scale, shift = p[f"{name}.weight"][:, None, None], p[f"{name}.bias"][:, None, None]
    return (images - mean) / torch.sqrt(variance + eps) * scale + shift


def lstm(p: Parameters, name: str, sequence: torch.Tensor) -> torch.Tensor:
    """All hidden states, time first."""
    w_x, w_h = p[f"{name}.weight_ih_l0"], p[f"{name}.weight_hh_l0"]
    b_x, b_h = p[f"{name}.bias_ih_l0"], p[f"{name}.bias_hh_l0"]
    hidden = cell = sequence.new_zeros(sequence.shape[1], w_h.shape[1])
    states = []
    for x in sequence:
        i, f, g, o = (x @ w_x.T + b_x + hidden @ w_h.T + b_h).chunk(4, dim=1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        states.append(hidden)
    return torch.stack(states)


def gru(p: Parameters, name: str, sequence: torch.Tensor, suffix: str = "") -> torch.Tensor:
    """All hidden states, time first."""
    w_x, w_h = p[f"{name}.weight_ih_l0{suffix}"], p[f"{name}.weight_hh_l0{suffix}"]
    b_x, b_h = p[f"{name}.bias_ih_l0{suffix}"], p[f"{name}.bias_hh_l0{suffix}"]
    hidden = sequence.new_zeros(sequence.shape[1], w_h.shape[1])
    states = []
    for x in sequence:
        reset_x, update_x, new_x = (x @ w_x.T + b_x).chunk(3, dim=1)
        reset_h, update_h, new_h = (hidden @ w_h.T + b_h).chunk(3, dim=1)
        reset, update = torch.sigmoid(reset_x + reset_h), torch.sigmoid(update_x + update_h)
        new = torch.tanh(new_x + reset * new_h)
        hidden = (1 - update) * new + update * hidden
        states.append(hidden)
    return torch.stack(states)


def bidirectional_gru(p: Parameters, name: str, sequence: torch.Tensor) -> torch.Tensor:
    backward = gru(p, name, sequence.flip(0), suffix="_reverse").flip(0)
    return torch.cat([gru(p, name, sequence), backward], dim=2)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return -log_probabilities[torch.arange(len(targets)), targets].mean()
