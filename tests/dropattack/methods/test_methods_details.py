"""What single methods promise beyond the gradient of one step: ranges, starts, replays, scale."""

import dataclasses

import pytest
import torch
from attacks import normalized
from networks import build
from points import SITE, clean_point, gradient, lengths, moved
from test_backward_contract import gradients, plain_gradients
from torch.testing import assert_close

from dropattack.methods import ASAM, FGM, FGSM, L2, PGD, SAM, FreeAT, FreeLB

EXACT = {"rtol": 0, "atol": 1e-10}


def test_input_passes_on_the_way_compute_no_weight_gradient():
    network = build("lstm")
    calls = []
    network.module.decoder.weight.register_hook(lambda _: calls.append(1))
    PGD(network.module, network.site, 0.5, ascent_steps=3).backward(network.closure)
    assert len(calls) == 1  # of four passes, the last alone


def test_fgsm_stays_in_the_range():
    network = build("cnn")
    method = FGSM(network.module, "input", 0.5, clip_range=(-1.0, 1.0))
    method.backward(network.closure)
    point = network.inputs + method.last.perturbations["input"]
    inside = network.inputs.abs() <= 1
    assert point.abs().max() <= 1 + 1e-12
    assert method.last.perturbations["input"][inside].abs().max() <= 0.5 + 1e-12


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_pgd_starts_inside_its_ball_by_its_own_generator(norm):
    network = build("cnn")
    starts = []
    for seed in (0, 0, 1):
        state = torch.get_rng_state()
        method = PGD(
            network.module, "input", 0.5, step_size=0.0, ascent_steps=1, norm=norm, random_start=True,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        method.backward(network.closure)
        assert torch.equal(torch.get_rng_state(), state)
        starts.append(method.last.perturbations["input"])  # steps of length 0 stay at the start
    size = starts[0].flatten(1).norm(dim=1) if norm == "l2" else starts[0].abs()
    assert 0 < size.max() <= 0.5 + 1e-12
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("carry", [False, True], ids=["reset", "carried"])
@pytest.mark.parametrize("name", ["mlp", "lstm", "cnn"])
def test_freeat_trains_at_the_perturbation_of_the_replay_before(name, carry, norm):
    # Two batches of three replays each. Weights stay put (no optimizer), so that every point is one computation away.
    network = build(name)
    method = FreeAT(network.module, network.site, 0.3, 3, step_size=0.2, norm=norm, carry=carry)
    point = clean_point(network)
    r = torch.zeros_like(point[SITE])
    for _ in range(2):
        r = r if carry else torch.zeros_like(r)
        for _ in method.steps(network.closure):
            plain = gradient(network, moved(point, {SITE: r}))
            actual = gradients(network.module)
            assert_close(actual, {n: plain[n] for n in actual}, **EXACT)
            network.module.zero_grad()
            if norm == "linf":
                r = torch.clamp(r + 0.2 * torch.sign(plain[SITE]), -0.3, 0.3)
            else:
                r = r + 0.2 * normalized(network, plain[SITE])
                size = lengths({SITE: r}, "example", 0)[SITE]
                r = torch.where(size > 0.3, r * 0.3 / size, r)


def test_freeat_carries_over_a_smaller_last_batch_and_starts_anew_for_another_shape():
    network = build("cnn")
    method = FreeAT(network.module, "input", 0.3, 1, step_size=0.3, carry=True)
    batch = dataclasses.replace
    small = batch(network, inputs=network.inputs[:2], targets=network.targets[:2])
    wide = batch(network, inputs=torch.randn(5, 2, 6, 6, dtype=torch.float64))
    used = []
    for one in (network, small, network, wide):
        list(method.steps(one.closure))
        used.append(method.last.perturbations["input"])
    assert torch.equal(used[0], torch.zeros_like(used[0]))
    assert used[1].abs().max() == pytest.approx(0.3)  # the first two rows of what the whole batch left
    assert not torch.equal(used[2], torch.zeros_like(used[2]))
    assert torch.equal(used[3], torch.zeros_like(used[3]))


def test_freeat_state_comes_back():
    one, other = build("cnn"), build("cnn")
    method, resumed = (FreeAT(n.module, "input", 0.3, 2, carry=True) for n in (one, other))
    list(method.steps(one.closure))
    resumed.load_state_dict(method.state_dict())
    one.module.zero_grad()
    for again, network in ((method, one), (resumed, other)):
        list(again.steps(network.closure))
    assert_close(gradients(one.module), gradients(other.module), rtol=0, atol=0)
    with pytest.raises(ValueError, match="FGM carries nothing, got perturbation"):
        FGM(one.module, "input").load_state_dict(method.state_dict())


def test_freelb_starts_at_random_in_the_stated_cube():
    network = build("cnn")
    starts = []
    for seed in (0, 0, 1):
        method = FreeLB(network.module, "input", None, 0.0, 1, start=0.4, generator=torch.Generator().manual_seed(seed))
        method.backward(network.closure)
        starts.append(method.last.perturbations["input"])
    # 2 x 4 x 4 = 32 entries an example: |entry| <= 0.4 / sqrt 32, and of 160 draws one comes near it.
    bound = 0.4 / 32**0.5
    assert 0.9 * bound < starts[0].abs().max() <= bound
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_asam_is_unmoved_by_a_rescaling_that_leaves_the_function_alone_and_sam_is_not():
    # With eta = 0 and no biases, weights times c and 1 / c: T g is unchanged, so both reach the same function.
    torch.manual_seed(0)
    inputs, targets = torch.randn(6, 3, dtype=torch.float64), torch.randint(0, 2, (6,))
    losses = {"asam": [], "sam": []}
    for factor in (1.0, 10.0):
        torch.manual_seed(1)
        layers = [torch.nn.Linear(3, 5, bias=False), torch.nn.ReLU(), torch.nn.Linear(5, 2, bias=False)]
        model = torch.nn.Sequential(*layers).double()
        with torch.no_grad():
            model[0].weight.mul_(factor)
            model[2].weight.div_(factor)
        for name, method in (("asam", ASAM(model, 0.5, eta=0.0)), ("sam", SAM(model, 0.5))):
            method.backward(lambda model=model: torch.nn.functional.cross_entropy(model(inputs), targets))
            losses[name].append(float(method.last.adversarial_losses["weights"][0]))
    assert losses["asam"][0] == pytest.approx(losses["asam"][1], rel=1e-10)
    assert losses["sam"][0] != pytest.approx(losses["sam"][1], rel=1e-2)


def test_penalties_spare_biases_and_normalization():
    network = build("cnn")
    plain = plain_gradients(network)
    L2(network.module, 0.5).backward(network.closure)
    for name, actual in gradients(network.module).items():
        weight = network.module.get_parameter(name).detach()
        extra = 0.5 * weight if weight.dim() > 1 else torch.zeros_like(weight)
        assert_close(actual, plain[name] + extra, **EXACT)
