"""The references of ``relatives.py`` against finite differences, dense eigenvalues, closed forms and limits."""

import dataclasses

import pytest
import relatives
import torch
from networks import PADDING, build
from points import SITE, clean_point, gradient, loss_and_gradient, moved, trained
from reference import dropattack
from torch.nn.functional import cross_entropy, kl_div, normalize
from torch.testing import assert_close

EXACT = {"rtol": 0, "atol": 1e-12}
on_networks = pytest.mark.parametrize("name", ["mlp", "frozen_mlp", "lstm_states", "time_major_gru", "cnn"])


def prepared(name):
    network = build(name)
    torch.manual_seed(3)
    point = clean_point(network)
    return network, {**point, SITE: 0.1 * torch.randn_like(point[SITE])}


def predicted(network, point, offset=0.0):
    return network.logits(point, network.activation(point, network.inputs) + point[SITE] + offset)


def risk(network, point):
    return cross_entropy(predicted(network, point), network.targets)


def divergence(p, q):
    return kl_div(q.log_softmax(1), p.log_softmax(1), reduction="batchmean", log_target=True)


def symmetric(p, q):
    return divergence(p, q) + divergence(q, p)


def assert_is_gradient(result, objective, point, h=1e-5):
    """Central differences along a random direction in each tensor; the padding row is a constant of the network."""
    assert result.keys() == point.keys()
    for name, value in point.items():
        v = torch.randn_like(value)
        if name == "embedding.weight":
            v = torch.where((torch.arange(len(v)) == PADDING).unsqueeze(1), 0.0, v)
        slope = (objective(moved(point, {name: h * v})) - objective(moved(point, {name: -h * v}))) / (2 * h)
        assert_close((result[name] * v).sum(), slope, rtol=1e-6, atol=1e-8)


def flat(network, values):
    return torch.cat([values[name].flatten() for name in trained(network)])


def adversarial(network, point, rho):
    """The gradient at theta + rho g / ||g||, normalized as one long vector."""
    long = rho * normalize(flat(network, gradient(network, point)), dim=0)
    parts = zip(trained(network), long.split([point[name].numel() for name in trained(network)]), strict=True)
    return gradient(network, moved(point, {name: part.reshape(point[name].shape) for name, part in parts}))


@pytest.mark.parametrize("form", ["masked-norm", "first-order"])
@on_networks
def test_the_penalty_gradient_is_that_of_the_penalized_loss(name, form):
    network, point = prepared(name)
    masks = {key: (torch.rand_like(value) < 0.6).double() for key, value in point.items()}

    def size(mask, g):
        return (mask * g).norm() if form == "masked-norm" else (mask * g).norm() ** 2 / g.norm()

    def objective(p):
        loss, g = loss_and_gradient(network, p)
        examples = zip(masks[SITE].unbind(network.batch_dim), g[SITE].unbind(network.batch_dim), strict=True)
        of_weights = sum(size(masks[n], g[n]) for n in network.weights)
        return 0.7 * loss + 0.3 * sum(size(*each) for each in examples) + 0.2 * of_weights

    result = relatives.explicit_penalty(network, point, True, network.weights, 0.3, 0.2, masks, form, 0.7)
    assert_is_gradient(result, objective, point)


@on_networks
def test_the_masked_norm_is_the_limit_of_dropattack(name):
    """With r = epsilon M g / ||M g|| held constant, grad L(v + r) = g + epsilon grad ||M g|| + O(epsilon^2)."""
    network, epsilon = build(name), 1e-5
    point = clean_point(network)
    masks = {key: (torch.rand_like(value) < 0.6).double() for key, value in point.items()}
    options = {"clean_weight": 0.0, "mask_then_normalize": True, "batch_dim": network.batch_dim}
    attacked = dropattack(network, masks, inputs=SITE, weights=network.weights, epsilon=epsilon, **options).gradient
    penalty = relatives.explicit_penalty(network, point, True, network.weights, 1.0, 1.0, masks, "masked-norm", 0.0)
    clean = gradient(network, point)
    for key, value in attacked.items():
        assert_close((value - 2 * clean[key]) / epsilon, penalty[key], rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", ["masked-norm", "first-order"])
def test_what_the_mask_removes_has_no_penalty(form):
    network, point = prepared("mlp")
    masks = {name: torch.zeros_like(value) for name, value in point.items()}
    result = relatives.explicit_penalty(network, point, True, network.weights, 1.0, 1.0, masks, form, 1.0)
    assert_close(result, gradient(network, point), **EXACT)


@on_networks
def test_vat_goes_along_the_top_eigenvector_and_differentiates_the_perturbed_side(name):
    network, point = prepared(name)
    clean, batch_dim = predicted(network, point), network.batch_dim
    settings = {"epsilon": 0.3, "xi": 1e-4, "power_iterations": 300, "start": torch.randn_like(point[SITE])}
    r = relatives.vat_offset(network, point, **settings)
    result = relatives.vat(network, point, coefficient=0.8, **settings)
    assert_is_gradient(result, lambda p: risk(network, p) + 0.8 * divergence(clean, predicted(network, p, r)), point)
    if name == "cnn":
        return  # batch statistics join the examples: the Hessian has no blocks
    rows = r.movedim(batch_dim, 0)
    hessian = torch.autograd.functional.hessian(
        lambda v: divergence(clean, predicted(network, point, v.movedim(0, batch_dim))), torch.zeros_like(rows)
    ).reshape(5, rows[0].numel(), 5, -1)
    for i, row in enumerate(rows.flatten(1)):
        assert_close(row @ row, torch.tensor(0.09, dtype=torch.float64), **EXACT)
        top = torch.linalg.eigvalsh(hessian[i, :, i])[-1]
        assert_close(row @ hessian[i, :, i] @ row / 0.09, top, rtol=1e-3, atol=0)


def test_vat_leaves_examples_without_a_direction_alone():
    network, point = prepared("time_major_gru")
    start = torch.randn_like(point[SITE]) * (torch.arange(5) > 0).unsqueeze(1)
    for power_iterations in (0, 3):
        r = relatives.vat_offset(network, point, 1.0, 1e-3, power_iterations, start)
        assert_close(r.norm(dim=(0, 2)), (torch.arange(5) > 0).double(), **EXACT)


def test_a_power_iteration_of_vat_starts_xi_away():
    network, point = prepared("time_major_gru")
    start, clean = torch.randn_like(point[SITE]), predicted(network, point)
    away = (2.0 * start / start.norm(dim=(0, 2), keepdim=True)).requires_grad_()
    (h,) = torch.autograd.grad(divergence(clean, predicted(network, point, away)), away)
    r = relatives.vat_offset(network, point, 0.3, 2.0, 1, start)
    assert_close(r, 0.3 * h / h.norm(dim=(0, 2), keepdim=True), **EXACT)


@on_networks
def test_r3f_and_smart_differentiate_both_sides(name):
    network, point = prepared(name)
    noise = 0.3 * torch.randn_like(point[SITE])
    teacher = {n: value + 0.1 * torch.randn_like(value) for n, value in network.parameters().items()}
    taught = predicted(network, {**teacher, SITE: point[SITE]})

    def objective(p, offset, proximal=0.0):
        here = predicted(network, p)
        smooth = 0.8 * symmetric(here, predicted(network, p, offset))
        return risk(network, p) + smooth + proximal * symmetric(here, taught)

    assert_is_gradient(relatives.r3f(network, point, 0.8, noise), lambda p: objective(p, noise), point)
    settings = {"epsilon": 0.25, "step_size": 0.2, "steps": 2, "start": noise}
    r = relatives.smart_offset(network, point, **settings)
    result = relatives.smart(network, point, coefficient=0.8, teacher=teacher, proximal_weight=0.4, **settings)
    assert_is_gradient(result, lambda p: objective(p, r, proximal=0.4), point)


def test_smart_goes_up_by_the_step_size_within_the_box():
    network, point = prepared("time_major_gru")
    clean, start = predicted(network, point), 0.1 * torch.randn_like(point[SITE])
    r = relatives.smart_offset(network, point, 1.0, 0.01, 1, start)
    assert_close((r - start).abs().amax((0, 2)), torch.full((5,), 0.01, dtype=torch.float64), **EXACT)
    assert symmetric(clean, predicted(network, point, r)) > symmetric(clean, predicted(network, point, start))
    assert relatives.smart_offset(network, point, 0.05, 0.01, 1, start).abs().max() == 0.05


@pytest.mark.parametrize("name", ["mlp", "tied_mlp", "frozen_mlp", "cnn"])
def test_gsam_and_looksam_add_what_is_orthogonal(name):
    network, point = prepared(name)
    g_s = adversarial(network, point, 0.2)
    assert_close(relatives.gsam(network, point, 0.2, 0.0), g_s, **EXACT)
    results = relatives.looksam([(network, point)] * 4, 0.2, 0.4, every=3)
    assert_close([results[0], results[3], results[2]], [g_s, g_s, results[1]], **EXACT)

    g, g_s = flat(network, gradient(network, point)), flat(network, g_s)
    added = flat(network, relatives.gsam(network, point, 0.2, 0.4)) - g_s
    plane = torch.linalg.qr(torch.stack([g_s, g], dim=1)).Q  # its second column: g without its part along g_s
    assert_close(added, -0.4 * plane[:, 1] * (plane[:, 1] @ g), **EXACT)

    plane = torch.linalg.qr(torch.stack([g, g_s], dim=1)).Q
    g_v = plane[:, 1] * (plane[:, 1] @ g_s)
    assert_close(flat(network, results[1]) - g, 0.4 * g.norm() * normalize(g_v, dim=0), **EXACT)


def test_masks_of_sparse_sam_keep_the_largest():
    network, point = prepared("frozen_mlp")
    assert trained(network) == ["hidden.weight", "hidden.bias", "decoder.weight"]
    examples = [flat(network, gradient(*relatives.example(network, point, i))) for i in range(5)]
    assert_close(sum(examples) / 5, flat(network, gradient(network, point)), **EXACT)
    scores = {
        relatives.fisher_masks: flat(network, gradient(network, point)).abs(),
        relatives.fisher_masks_of_examples: torch.stack(examples).norm(dim=0),
    }
    for masks, score in scores.items():
        kept = flat(network, masks(network, point, 0.7)).bool()
        assert kept.sum() == 3 * len(kept) // 10
        assert score[kept].min() >= score[~kept].max()
    everything = relatives.fisher_masks(network, point, 0.0)
    assert_close(relatives.sparse_sam(network, point, 0.2, everything), adversarial(network, point, 0.2), **EXACT)


def test_noise_of_rwp_is_as_long_as_a_row():
    network, point = prepared("cnn")
    noise = {name: torch.randn_like(value) for name, value in point.items()}
    offsets = relatives.rwp_offsets(network, point, 0.1, noise)
    rows = [0.1 * w.norm() * n for w, n in zip(point["conv.weight"], noise["conv.weight"], strict=True)]
    assert_close(offsets["conv.weight"], torch.stack(rows), **EXACT)
    assert_close(offsets["conv.bias"], 0.1 * point["conv.bias"].norm() * noise["conv.bias"], **EXACT)
    noisy, clean = gradient(network, moved(point, offsets)), gradient(network, point)
    mixed = relatives.rwp(network, point, 0.1, noise, 0.25)
    assert_close(mixed, {key: 0.25 * noisy[key] + 0.75 * clean[key] for key in clean}, **EXACT)


def test_composed_attacks_the_weights_at_the_attacked_inputs():
    network, point = prepared("time_major_gru")
    r = 0.2 * torch.randn_like(point[SITE])
    result = relatives.composed(network, point, lambda n, p: r, lambda n, p: relatives.gsam(n, p, 0.2, 0.0), 0.5)
    shifted = dataclasses.replace(network, inputs=network.inputs + r)  # the attacked activation is the input
    clean, attacked = gradient(network, point), adversarial(shifted, point, 0.2)
    assert_close(result, {key: 0.5 * clean[key] + attacked[key] for key in clean}, **EXACT)
