"""A small classifier of token sequences, and FGM written with plain hooks, as the loops are compared with."""

import torch
from torch import nn

EPSILON = 0.5
VOCABULARY, WIDTH, CLASSES, LENGTH = 11, 8, 3, 6


class Classifier(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.drop = nn.Dropout(dropout)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.decoder = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens):
        return self.decoder(self.drop(torch.tanh(self.hidden(self.embedding(tokens)))).mean(1))


def make_model(dropout=0.0, dtype=torch.float32):
    torch.manual_seed(0)
    return Classifier(dropout).to(dtype)


def make_batches(count, size=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randint(VOCABULARY, (size, LENGTH), generator=generator),
            torch.randint(CLASSES, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def loss_on(model, batch):
    tokens, targets = batch
    return nn.functional.cross_entropy(model(tokens), targets)


def backward_fgm(embedding, loss, scale=1.0, epsilon=EPSILON):
    """Add to ``.grad`` the gradients at the output x of the embedding and at x + epsilon g / |g|, times ``scale``.

    Returns:
        The clean loss.
    """
    outputs = []
    handle = embedding.register_forward_hook(lambda module, args, output: outputs.append(output))
    clean = loss()
    handle.remove()
    (gradient,) = torch.autograd.grad(clean, outputs, retain_graph=True)
    (scale * clean).backward()
    offset = epsilon * gradient / gradient.flatten(1).norm(dim=1)[:, None, None]
    handle = embedding.register_forward_hook(lambda module, args, output: output + offset)
    (scale * loss()).backward()
    handle.remove()
    return clean.detach()


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
