"""Gradient norms on fixed examples: against autograd written by hand, and without a trace in the model."""

import math

import networks
import pytest
import torch
from torch import nn

from dropattack.gradient_norms import GradientNorms


class Mixed(nn.Module):
    """With everything that evaluation mode must settle, and an activation that is changed in place."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.gru = nn.GRU(4, 3, batch_first=True)
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(3, 5)
        self.relu = nn.ReLU(inplace=True)
        self.decoder = nn.Linear(5, 3)
        self.spare = nn.Linear(2, 2)

    def forward(self, tokens):
        pooled = self.gru(self.embedding(tokens))[0].mean(1)
        return self.decoder(self.relu(self.hidden(self.drop(self.norm(pooled)))))


@pytest.fixture
def mixed():
    torch.manual_seed(0)
    model = Mixed().double().train()
    model.norm.running_mean.normal_()
    return model


def batches(sizes=(4, 3)):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randint(0, 7, (n, 6), generator=generator), torch.randint(0, 3, (n,), generator=generator))
        for n in sizes
    ]


def by_hand(model, data):
    """One example at a time, with the layers called one by one in evaluation mode: no taps, no hooks."""
    tokens, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    deviation = torch.sqrt(model.norm.running_var + model.norm.eps)
    weights = [parameter for name, parameter in model.named_parameters() if "spare" not in name]
    sums = [torch.zeros_like(weight) for weight in weights]
    norms = {"embedding": [], "hidden": []}
    for ids, label in zip(tokens, labels, strict=True):
        embedded = model.embedding.weight[ids].unsqueeze(0)
        pooled = model.gru(embedded)[0].mean(1)
        hidden = model.hidden((pooled - model.norm.running_mean) / deviation * model.norm.weight + model.norm.bias)
        logits = model.decoder(hidden.clamp(min=0))
        loss = torch.logsumexp(logits[0], 0) - logits[0, label]
        gradients = torch.autograd.grad(loss, [embedded, hidden, *weights])
        for name, gradient in zip(norms, gradients, strict=False):
            norms[name].append(gradient.norm().item())
        sums = [total + gradient for total, gradient in zip(sums, gradients[2:], strict=True)]
    found = {f"gradient_norm_{name}": sum(values) / len(values) for name, values in norms.items()}
    names = [name for name, _ in model.named_parameters() if "spare" not in name]
    of_weights = {
        f"gradient_norm_{name}": total.norm().item() / len(labels) for name, total in zip(names, sums, strict=True)
    }
    spare = {"gradient_norm_spare.weight": 0.0, "gradient_norm_spare.bias": 0.0}  # reached by no pass
    return {"gradient_norm": math.hypot(*of_weights.values())} | found | of_weights | spare


def test_norms_are_those_of_one_example_at_a_time_by_hand(mixed):
    expected = by_hand(mixed, batches())
    found = GradientNorms(mixed, batches(), ["embedding", "hidden", "*"])()
    assert found == pytest.approx(expected, rel=1e-10)
    assert set(found) == set(expected)


def test_the_sizes_of_the_batches_do_not_matter(mixed):
    tokens, labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    whole = GradientNorms(mixed, [(tokens, labels)], ["embedding", "gru.*"])()
    assert GradientNorms(mixed, batches(), ["embedding", "gru.*"])() == pytest.approx(whole, rel=1e-12)


def test_the_gradient_at_the_input_has_a_closed_form():
    # Two classes, logits W x: ∇ₓ ℓ_i = Wᵀ(softmax - onehot), and softmax - onehot = ±(1 - q)(1, -1) with q the
    # probability of the label, so the norm is (1 - q_i) ‖w₁ - w₂‖, its mean over examples the mean of that.
    model = nn.Linear(3, 2, bias=False).double()
    images, labels = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1])
    miss = 1 - torch.softmax(images @ model.weight.T, 1)[torch.arange(5), labels]
    expected = (miss.mean() * (model.weight[0] - model.weight[1]).norm()).item()
    norms = GradientNorms(model, [(images, labels)], ["input"])
    assert norms()["gradient_norm_input"] == pytest.approx(expected, rel=1e-12)
    with torch.no_grad():
        model.weight.mul_(2)
    miss = 1 - torch.softmax(images @ model.weight.T, 1)[torch.arange(5), labels]
    moved = (miss.mean() * (model.weight[0] - model.weight[1]).norm()).item()
    assert norms()["gradient_norm_input"] == pytest.approx(moved, rel=1e-12)  # of the weights as they are now


def test_the_model_is_left_as_it_was(mixed):
    mixed.drop.eval()  # mixed flags must come back mixed
    held = torch.ones_like(mixed.decoder.weight)
    mixed.decoder.weight.grad = held
    before = {name: tensor.clone() for name, tensor in mixed.state_dict().items()}
    flags = [module.training for module in mixed.modules()]
    random = torch.get_rng_state()
    GradientNorms(mixed, batches(), ["embedding", "*"])()
    assert all(torch.equal(tensor, before[name]) for name, tensor in mixed.state_dict().items())
    assert flags == [module.training for module in mixed.modules()]
    assert torch.equal(torch.get_rng_state(), random)
    assert mixed.decoder.weight.grad is held
    assert torch.equal(held, torch.ones_like(held))
    assert mixed.hidden.weight.grad is None


def test_a_model_that_draws_in_evaluation_mode_leaves_the_random_stream_alone():
    class Noisy(nn.Linear):
        def forward(self, x):
            return super().forward(x + torch.randn_like(x))

    model = Noisy(3, 2)
    random = torch.get_rng_state()
    GradientNorms(model, [(torch.ones(2, 3), torch.tensor([0, 1]))], ["input"])()
    assert torch.equal(torch.get_rng_state(), random)


def test_the_activation_of_a_frozen_embedding_still_has_a_gradient(mixed):
    data = batches()
    expected = GradientNorms(mixed, data, ["embedding"])()["gradient_norm_embedding"]
    mixed.embedding.weight.requires_grad_(False)
    found = GradientNorms(mixed, data, ["embedding", "*"])()
    assert found["gradient_norm_embedding"] == pytest.approx(expected, rel=1e-12)
    assert "gradient_norm_embedding.weight" not in found


def test_a_tied_weight_counts_once_in_the_norm_of_all():
    network = networks.build("tied_mlp")
    data = [(network.inputs, network.targets)]
    found = GradientNorms(network.module, data, ["embedding.weight", "decoder.weight"])()
    network.closure().backward()
    whole = math.hypot(*(parameter.grad.norm().item() for parameter in network.module.parameters()))
    assert found["gradient_norm"] == pytest.approx(whole, rel=1e-12)
    assert found["gradient_norm_embedding.weight"] == found["gradient_norm_decoder.weight"]


@pytest.mark.parametrize(
    ("sites", "error", "message"),
    [
        (["embeding"], ValueError, r"unknown site 'embeding'; Mixed has embedding"),
        (["conv*"], ValueError, r"unknown parameter 'conv\*'"),
        (["input"], TypeError, "without a floating-point tensor.*name the embedding module instead"),
        (["spare"], RuntimeError, "site 'spare' was not reached by the closure"),
        ("embedding", TypeError, r"write \['embedding'\]"),
    ],
)
def test_sites_that_cannot_be_measured_are_refused_at_once(mixed, sites, error, message):
    with pytest.raises(error, match=message):
        GradientNorms(mixed, batches(), sites)


def test_an_activation_without_a_row_for_each_example_is_refused():
    network = networks.build("time_major_gru")
    series, labels = network.inputs[:, :3], network.targets[:3]  # six steps in time, three examples

    class ExamplesFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network.module

        def forward(self, series):
            return self.inner(series.transpose(0, 1))

    model = ExamplesFirst()
    with pytest.raises(ValueError, match=r"site 'inner\.gru': expected a row for each of 2 examples, got shape \(6, 2"):
        GradientNorms(model, [(series.transpose(0, 1), labels)], ["inner.gru"])


def test_no_examples_are_refused(mixed):
    with pytest.raises(ValueError, match="expected at least one example, got none"):
        GradientNorms(mixed, [(torch.zeros(0, 6, dtype=torch.long), torch.zeros(0, dtype=torch.long))], ["*"])
