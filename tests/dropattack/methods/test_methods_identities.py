"""What ties the methods to one another: settings in which two of them must be the same."""

import itertools

import pytest
import torch
from networks import build
from points import clean_point, gradient_of
from relatives import loss_at
from test_backward_contract import gradients
from torch.testing import assert_close

from dropattack.methods import (
    AWP,
    FGM,
    FGSM,
    GSAM,
    PGD,
    R3F,
    RWP,
    SAM,
    SMART,
    VAT,
    Compose,
    DropAttack,
    ExplicitPenalty,
    FreeLB,
    GradientNormPenalty,
    LookSAM,
    Scheduled,
    SparseSAM,
    Standard,
    build_method,
    controls,
)

EXACT = {"rtol": 0, "atol": 1e-10}
INPUT_ALONE = {"inputs": "embedding", "epsilon": 0.8, "attack_probability": 0.25}


def control(name):
    return lambda n: build_method(model=n.module, **controls(INPUT_ALONE)[name])


IDENTITIES = {
    "DropAttack on all of the input is FGM": (
        lambda n: DropAttack(n.module, n.site, epsilon=0.7, attack_probability=1),
        lambda n: FGM(n.module, n.site, 0.7),
    ),
    "DropAttack on all weights by one norm, without the clean gradient, is SAM": (
        lambda n: DropAttack(
            n.module, weights=["*"], epsilon=0.3, attack_probability=1, weight_norm="global", clean_weight=0
        ),
        lambda n: SAM(n.module, 0.3),
    ),
    "PGD of one full step is FGM without the clean gradient": (
        lambda n: PGD(n.module, n.site, 0.7, step_size=0.7, ascent_steps=1),
        lambda n: FGM(n.module, n.site, 0.7, clean_weight=0),
    ),
    "PGD of one full step on the largest entry is FGSM": (
        lambda n: PGD(n.module, n.site, 0.2, step_size=0.2, ascent_steps=1, norm="linf", clean_weight=1),
        lambda n: FGSM(n.module, n.site, 0.2),
    ),
    "DropAttack on matrices with a relative epsilon, without the clean gradient, is AWP": (
        lambda n: DropAttack(
            n.module,
            weights=["embedding.weight", "lstm.weight*", "decoder.weight"],
            epsilon=0.2,
            attack_probability=1,
            relative_epsilon=True,
            clean_weight=0,
        ),
        lambda n: AWP(n.module, 0.2),
    ),
    "the gradient norm penalty at alpha 1 is SAM": (
        lambda n: GradientNormPenalty(n.module, 0.3, alpha=1),
        lambda n: SAM(n.module, 0.3),
    ),
    "the gradient norm penalty at alpha 0 is standard training": (
        lambda n: GradientNormPenalty(n.module, 0.3, alpha=0),
        lambda n: Standard(n.module),
    ),
    "DropAttack on all weights by one norm, masked, without the clean gradient, is SAM with a random mask": (
        lambda n: DropAttack(
            n.module, weights=["*"], epsilon=0.3, attack_probability=0.4, weight_norm="global", clean_weight=0
        ),
        lambda n: SparseSAM(n.module, 0.3, 0.6, "random"),
    ),
    "sparse SAM that spares nothing is SAM": (
        lambda n: SparseSAM(n.module, 0.3, 0.0),
        lambda n: SAM(n.module, 0.3),
    ),
    "GSAM without its correction is SAM": (lambda n: GSAM(n.module, 0.3, 0.0), lambda n: SAM(n.module, 0.3)),
    "LookSAM at every step is SAM": (lambda n: LookSAM(n.module, 0.3, every=1), lambda n: SAM(n.module, 0.3)),
    "LookSAM without its correction is standard training in between": (
        lambda n: Scheduled(n.module, LookSAM(n.module, 0.3, 0.0, every=2)),
        lambda n: Scheduled(n.module, SAM(n.module, 0.3), every=2),
    ),
    "RWP without noise is standard training": (lambda n: RWP(n.module, 0.0), lambda n: Standard(n.module)),
    "VAT with coefficient 0 is standard training": (
        lambda n: VAT(n.module, n.site, coefficient=0.0),
        lambda n: Standard(n.module),
    ),
    "R3F with coefficient 0 is standard training": (
        lambda n: R3F(n.module, n.site, coefficient=0.0),
        lambda n: Standard(n.module),
    ),
    "R3F without noise is standard training": (
        lambda n: R3F(n.module, n.site, epsilon=0.0),
        lambda n: Standard(n.module),
    ),
    "SMART without its ball and its average is standard training": (
        lambda n: SMART(n.module, n.site, epsilon=0.0, proximal_weight=0.0),
        lambda n: Standard(n.module),
    ),
    "the explicit penalty at epsilon 0 is standard training": (
        lambda n: ExplicitPenalty(n.module, n.site, n.weights, 0.0),
        lambda n: Standard(n.module),
    ),
    "both forms of the explicit penalty agree without a mask": (
        lambda n: ExplicitPenalty(n.module, n.site, n.weights, 0.5),
        lambda n: ExplicitPenalty(n.module, n.site, n.weights, 0.5, form="masked-norm"),
    ),
    "FreeLB of one step without a start is standard training": (
        lambda n: FreeLB(n.module, n.site, ascent_steps=1, start=0.0),
        lambda n: Standard(n.module),
    ),
    "SAM on inputs perturbed by nothing is SAM": (
        lambda n: Compose(n.module, PGD(n.module, n.site, 0.0), SAM(n.module, 0.3)),
        lambda n: SAM(n.module, 0.3),
    ),
    "standard training on inputs perturbed by PGD is PGD": (
        lambda n: Compose(n.module, PGD(n.module, n.site, 0.5), Standard(n.module)),
        lambda n: PGD(n.module, n.site, 0.5),
    ),
    "DropAttack on weights, composed with nothing, is itself": (
        lambda n: Compose(
            n.module, FGM(n.module, n.site, 0.0, clean_weight=0.0), DropAttack(n.module, None, n.weights)
        ),
        lambda n: DropAttack(n.module, None, n.weights),
    ),
    "the control without a mask is FGM at p epsilon": (
        control("no mask, p epsilon"),
        lambda n: FGM(n.module, n.site, 0.25 * 0.8),
    ),
    "the other control without a mask is FGM at the root of p times epsilon": (
        control("no mask, √p epsilon"),
        lambda n: FGM(n.module, n.site, 0.5 * 0.8),
    ),
    "the authors' code attacks the embedding's weight and adds its perturbations up": (
        lambda n: DropAttack(n.module, n.site, ["lstm.weight_ih_l0"], 0.8, ascent_steps=3, reading="authors-code"),
        lambda n: DropAttack(n.module, "embedding.weight", ["lstm.weight_ih_l0"], 0.8, ascent_steps=3, accumulate=True),
    ),
}


@pytest.mark.parametrize("identity", IDENTITIES)
def test_identities_between_methods(identity):
    networks = build("lstm"), build("lstm")
    for make, network in zip(IDENTITIES[identity], networks, strict=True):
        method = make(network)
        for _ in range(2):  # what a method carries from step to step counts too
            method.backward(network.closure)
    assert_close(gradients(networks[0].module), gradients(networks[1].module), **EXACT)


def test_the_control_at_epsilon_zero_is_a_multiple_of_standard_training():
    network, plain = build("lstm"), build("lstm")
    setting = INPUT_ALONE | {"weights": ["lstm.weight_ih_l0"]}
    build_method(model=network.module, **controls(setting)["epsilon 0"]).backward(network.closure)
    Standard(plain.module).backward(plain.closure)
    tripled = {name: 3 * gradient for name, gradient in gradients(plain.module).items()}
    assert_close(gradients(network.module), tripled, **EXACT)


def test_the_random_control_keeps_the_norms_and_loses_the_direction():
    records = []
    for table in ({"name": "dropattack", **INPUT_ALONE}, controls(INPUT_ALONE)["random direction"]):
        network = build("lstm")
        method = build_method(model=network.module, **{**table, "attack_probability": 1.0})
        method.backward(network.closure)
        records.append(method.last.perturbations["embedding"].flatten(1))
    assert_close(records[0].norm(dim=1), records[1].norm(dim=1), **EXACT)
    assert torch.nn.functional.cosine_similarity(*records).abs().max() < 0.9


def test_controls_are_of_dropattack():
    with pytest.raises(ValueError, match="expected a setting of 'dropattack', got one of 'sam'"):
        controls({"name": "sam"})


@pytest.mark.parametrize("name", ["mlp", "frozen_mlp", "lstm_states", "time_major_gru", "cnn"])
def test_masked_then_normalized_dropattack_is_the_explicit_penalty_for_small_epsilon(name):
    # .grad is 3 g + eps * gradient of the sum of ||M g|| + O(eps^2); both draw the same masks, in the same order.
    epsilon = 1e-5
    attacked, penalized, plain = (build(name) for _ in range(3))
    common = {"inputs": attacked.site, "weights": attacked.weights, "epsilon": epsilon, "attack_probability": 0.6}
    common["batch_dim"] = attacked.batch_dim
    method = DropAttack(attacked.module, mask_then_normalize=True, **common)
    method.backward(attacked.closure)
    penalty = ExplicitPenalty(penalized.module, form="masked-norm", loss_weight=3.0, **common)
    penalty.backward(penalized.closure)
    plain.closure().backward()
    for key, gradient in gradients(plain.module).items():
        rise = (gradients(attacked.module)[key] - 3 * gradient) / epsilon
        expected = (gradients(penalized.module)[key] - 3 * gradient) / epsilon
        assert (rise - expected).norm() <= 1e-3 * expected.norm() + 1e-6, key


def test_over_all_masks_algorithm_1_penalizes_p_times_the_gradient_norm():
    # decoder.bias has 3 entries, so 8 masks, equally likely at p = 0.5. The update of Algorithm 1 at one mask is not
    # the gradient of ||M g||^2 / ||g||; the means of both over the masks are that of p ||g||.
    network, epsilon = build("lstm"), 1e-5
    point = clean_point(network)
    plain = gradient_of(lambda p: loss_at(network, p), point)

    def gradient_norm(p):
        (g,) = torch.autograd.grad(loss_at(network, p), p["decoder.bias"], create_graph=True)
        return g.norm()

    expected = {name: 0.5 * g for name, g in gradient_of(gradient_norm, point).items()}
    g = plain["decoder.bias"]
    updates, penalties = [], []
    for bits in itertools.product([0.0, 1.0], repeat=3):
        mask = torch.tensor(bits, dtype=torch.float64)
        moved = {**point, "decoder.bias": point["decoder.bias"] + epsilon * mask * g / g.norm()}
        there = gradient_of(lambda p: loss_at(network, p), moved)
        updates.append({name: (there[name] - plain[name]) / epsilon for name in plain})

        def first_order(p, mask=mask):
            (h,) = torch.autograd.grad(loss_at(network, p), p["decoder.bias"], create_graph=True)
            return (mask * h).square().sum() / h.norm()

        penalties.append(gradient_of(first_order, point))
    for name in expected:
        assert_close(sum(update[name] for update in updates) / 8, expected[name], rtol=1e-3, atol=1e-6)
        assert_close(sum(penalty[name] for penalty in penalties) / 8, expected[name], rtol=0, atol=1e-12)
    one = max(range(8), key=lambda i: (updates[i]["decoder.bias"] - penalties[i]["decoder.bias"]).norm())
    assert (updates[one]["decoder.bias"] - penalties[one]["decoder.bias"]).norm() > 0.1 * expected[
        "decoder.bias"
    ].norm()
