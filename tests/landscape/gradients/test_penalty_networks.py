"""Penalty checks of networks: derivatives against differences of the loss, restoration, refusals, rounding."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk
from landscape.gradients import gradient_norms, penalty_check

SMALL = (1e-3, 2e-3, 3e-3, 4e-3, 5e-3)
FEW = {"masks": 2, "random_directions": 1}
SITES = {
    "images": ["input", "0", "2", "5", "0.weight", "1.weight", "1.bias", "5.weight"],
    "texts": ["embedding", "output", "embedding.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "output.bias"],
}


@pytest.mark.parametrize("network", SITES)
def test_terms_are_the_derivatives_of_the_rise(request, network):
    # The rise is a e + b e^2 + c e^3 + ...: five epsilons determine five coefficients, of which a and b are to be the
    # first-order and second-order term at e = 1. What is left out is of order e^5.
    check = penalty_check(request.getfixturevalue(network), SITES[network], SMALL, **FEW)
    powers = np.vander(np.array(SMALL) / SMALL[0], 6, increasing=True)[:, 1:]
    bends = 0
    for _, group in check.groupby(["site", "perturbation", "draw"], sort=False):
        assert list(group["epsilon"]) == list(SMALL)
        first, second, *_ = np.linalg.solve(powers, group["rise"])
        row = group.iloc[0]
        assert first == pytest.approx(row["first_order"], rel=1e-6, abs=1e-12)
        assert second == pytest.approx(row["second_order"], rel=1e-4, abs=1e-12)
        bends += abs(row["second_order"]) > 1e-9
    assert bends > 15  # of some thirty perturbations


@pytest.mark.parametrize("network", SITES)
def test_gradients_at_activations_agree_with_their_norms(request, network):
    risk = request.getfixturevalue(network)
    check = penalty_check(risk, SITES[network], (0.1,), **FEW)
    table = gradient_norms(risk, SITES[network]).set_index("site")
    for site, group in check[check["perturbation"] == "gradient"].groupby("site"):
        assert float(group["first_order"].iloc[0]) == pytest.approx(0.1 * table.loc[site, "norm"], rel=1e-10)


def test_the_first_tensor_of_a_tuple_is_perturbed():
    class States(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(2, 3, batch_first=True)

        def forward(self, sequences):
            return self.gru(sequences)[0].sum((1, 2))[:, None] * torch.tensor([[1.0, 0.5]]).to(sequences)

    model = States().double()
    data = torch.randn(4, 5, 2, dtype=torch.float64)
    risk = EmpiricalRisk(model, [data], lambda model, x: model(x).sum(1))
    # The loss is 1.5 times the sum of 15 states: the gradient is 1.5 everywhere, |g| = 1.5 sqrt 15.
    check = penalty_check(risk, ["gru"], (0.2,), **FEW).set_index("perturbation")
    assert check.loc["gradient", "first_order"] == pytest.approx(0.2 * 1.5 * 15**0.5, rel=1e-12)
    assert check.loc["gradient", "rise"] == pytest.approx(0.2 * 1.5 * 15**0.5, rel=1e-9)


def test_the_same_numbers_again_and_for_other_batches(images):
    data = [torch.cat(parts) for parts in zip(*images.batches, strict=True)]
    checks = [
        penalty_check(risk, ["input", "2", "0.weight"], (0.1, 1.0), **FEW)
        for risk in (images, images, EmpiricalRisk(images.model, [tuple(data)]))
    ]
    pd.testing.assert_frame_equal(checks[0], checks[1], check_exact=True)
    shared = checks[0].columns.drop("rise_noise")
    pd.testing.assert_frame_equal(checks[0][shared], checks[2][shared], rtol=1e-9, atol=1e-14)
    other = penalty_check(images, ["input", "2", "0.weight"], (0.1, 1.0), seed=1, **FEW)
    assert not np.allclose(other["norm"], checks[0]["norm"])


def test_a_loader_that_shuffles(images):
    data = torch.utils.data.TensorDataset(*(torch.cat(parts) for parts in zip(*images.batches, strict=True)))
    shuffled = EmpiricalRisk(images.model, torch.utils.data.DataLoader(data, batch_size=2, shuffle=True))
    checks = [penalty_check(risk, ["0.weight"], (0.1, 1.0), **FEW) for risk in (images, shuffled)]
    shared = checks[0].columns.drop("rise_noise")
    pd.testing.assert_frame_equal(checks[0][shared], checks[1][shared], rtol=1e-9, atol=1e-14)


def test_batch_norm_statistics_are_those_at_the_center(images):
    # With `statistics` the check is that of the model which has the estimated statistics for good.
    options = {"sites": ["input", "2", "0.weight"], "epsilons": (0.1, 1.0), **FEW}
    check = penalty_check(EmpiricalRisk(images.model, images.batches, statistics=images.batches), **options)
    assert not np.allclose(check["rise"], penalty_check(images, **options)["rise"])
    risk = EmpiricalRisk(images.model, images.batches, statistics=images.batches)
    with risk.evaluation():
        risk.reestimate()
        estimated = {name: buffer.clone() for name, buffer in images.model.named_buffers()}
    images.model.load_state_dict(estimated, strict=False)
    expected = penalty_check(images, **options)
    numbers = ["norm", "rise", "first_order", "second_order"]
    pd.testing.assert_frame_equal(check[numbers], expected[numbers], rtol=1e-8, atol=1e-13)


@pytest.fixture
def untidy(network):
    """A network with mixed training flags, gradients that someone still needs, and a frozen parameter."""
    network.model.train()
    network.model[3].eval()
    network.model[3].bias.requires_grad_(False)
    network.model[0].weight.grad = torch.randn_like(network.model[0].weight)
    return network


CALLS = {
    "activations": lambda risk: penalty_check(risk, ["input", "0"], (0.1, 1.0), **FEW),
    "parameters": lambda risk: penalty_check(risk, ["*"], (0.1, 1.0), **FEW),
    "norms": lambda risk: gradient_norms(risk, ["input", "0", "*"], per=("data", "batch", "example")),
}


class Fuse:
    """Cross-entropy that raises at the call it is set to."""

    calls = 0
    blows_at = None

    def __call__(self, model, batch):
        output = model(batch[0])
        self.calls += 1
        if self.calls == self.blows_at:
            raise RuntimeError("the fuse has blown")
        return nn.functional.cross_entropy(output, batch[1], reduction="none")


@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_left_behind(untidy, unchanged, call):
    fuse = Fuse()
    risk = EmpiricalRisk(untidy.model, untidy.batches, fuse)
    start = fuse.calls
    with unchanged(untidy.model):
        CALLS[call](risk)
    # and not by an exception in any tenth of the work either
    total = fuse.calls - start
    for blow in range(1, total + 1, max(1, total // 10)):
        fuse.calls, fuse.blows_at = 0, blow
        with unchanged(untidy.model), pytest.raises(RuntimeError, match="the fuse has blown"):
            CALLS[call](risk)


def test_rounding_noise_is_what_float32_adds(images):
    # The difference between the rises of a float32 network and of the same network in float64 is rounding.
    options = {"sites": ["input", "0.weight", "5.weight"], "epsilons": (1e-3,), "masks": 8}
    model = images.model.float()
    batches = [(x.float(), y) for x, y in images.batches]
    narrow = penalty_check(EmpiricalRisk(model, batches), **options)
    wide = penalty_check(EmpiricalRisk(model.double(), [(x.double(), y) for x, y in batches]), **options)
    error = np.sqrt(np.mean((narrow["rise"] - wide["rise"]) ** 2))
    noise = narrow["rise_noise"].iloc[0]
    assert 1e-9 < noise < 1e-6
    assert 0.1 * error < noise < 30 * error
    assert wide["rise_noise"].iloc[0] < 1e-7 * noise


def test_rounding_noise_grows_where_large_numbers_cancel():
    # Half of (1000.5 - 1000)^2 = 0.125: a unit in the last place of a weight, 1000 * 2^-23, moves it by half as much,
    # 6e-5, and the two weights together by that much times -2, 0 or 2; the loss itself is rounded at 1e-8.
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1000.5, -1000.0]]))
    risk = EmpiricalRisk(model, [torch.ones(3, 2)], lambda model, x: 0.5 * model(x)[:, 0].square())
    noise = penalty_check(risk, ["weight"], (1.0,), **FEW)["rise_noise"].iloc[0]
    assert 0.4 * 6e-5 < noise <= 2.1 * 6e-5


def test_rounding_noise_is_at_least_that_of_the_losses():
    # Weights of zero have no last place; losses 1, 2 and 3 are rounded to 2^-23 of their size, independently.
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    targets = torch.tensor([1.0, 2.0, 3.0])
    risk = EmpiricalRisk(model, [targets], lambda model, y: y + model(y[:, None])[:, 0])
    noise = penalty_check(risk, ["weight"], (1.0,), **FEW)["rise_noise"].iloc[0]
    assert noise == pytest.approx(2**-23 * 14**0.5 / 3, rel=1e-9)


def test_unknown_sites(images):
    with pytest.raises(ValueError, match=r"unknown site 'conv\.\*'; the model has input, 0, 1, .*5\.bias"):
        penalty_check(images, ["conv.*"])
    with pytest.raises(TypeError, match="sites: expected a sequence, got the string 'input'"):
        penalty_check(images, "input")


def test_token_ids_are_not_perturbed_but_their_embeddings_are(texts):
    with pytest.raises(TypeError, match=r"site 'input': .* name the embedding instead: 'embedding'"):
        penalty_check(texts)
    assert len(penalty_check(texts, ["embedding"], (1.0,), **FEW)) == 5


def test_packed_sequences_are_refused(texts):
    with pytest.raises(TypeError, match=r"expected the module to return a floating-point tensor.* got tuple"):
        penalty_check(texts, ["lstm"])


def test_autocast_is_refused(network):
    risk = EmpiricalRisk(network.model.float(), [(network.data[0].float(), network.data[1])], autocast=torch.bfloat16)
    with pytest.raises(ValueError, match="expected a risk in the model's own precision, got autocast to bfloat16"):
        penalty_check(risk, ["input"])


def test_one_epsilon_is_not_a_sequence(images):
    with pytest.raises(TypeError, match=r"epsilons: expected a sequence of numbers, got 5\.0; write \(5\.0,\)"):
        penalty_check(images, ["input"], 5.0)
