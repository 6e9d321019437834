"""Every method of the registry against an independent float64 reference, against its relatives, and against the laws.

The references work on points, dictionaries of tensors with one entry for the attacked activation, as ``reference.py``
does: no hooks, no ``.grad``, nothing in place.
"""

import dataclasses

import pytest
import torch
from networks import BUILDERS, build
from reference import SITE, clean_point, lengths, loss_and_gradient
from test_backward_contract import assert_unchanged, gradients, plain_gradients, snapshot
from torch.testing import assert_close

from dropattack.methods import FGM, FGSM, L1, L2, METHODS, PGD, SAM, DropAttack, GradientNormPenalty, Standard

EXACT = {"rtol": 0, "atol": 1e-10}


def moved(point, offsets):
    return {**point, **{name: point[name] + offset for name, offset in offsets.items()}}


def combined(*terms):
    """A sum of weight times gradient."""
    return {name: sum(weight * gradient[name] for weight, gradient in terms) for name in terms[0][1]}


def standard(network, point):
    return loss_and_gradient(network, point)[1]


def penalty(network, point, derivative):
    gradient = loss_and_gradient(network, point)[1]
    matrices = {n: p for n, p in point.items() if n != SITE and p.dim() > 1}
    return {n: g + derivative(matrices[n]) if n in matrices else g for n, g in gradient.items()}


def one_step(network, point, direction, clean_weight=1.0):
    clean = loss_and_gradient(network, point)[1]
    return combined((clean_weight, clean), (1, standard(network, moved(point, {SITE: direction(clean[SITE])}))))


def normalized(network, value):
    return value / lengths({SITE: value}, "example", network.batch_dim)[SITE]


def pgd(network, point, epsilon, step_size, steps, linf=False, clean_weight=0.0, start=None):
    r = torch.zeros_like(point[SITE]) if start is None else start
    for _ in range(steps):
        g = standard(network, moved(point, {SITE: r}))[SITE]
        if linf:
            r = torch.minimum(torch.maximum(r + step_size * torch.sign(g), -0 * r - epsilon), 0 * r + epsilon)
        else:
            r = r + step_size * normalized(network, g)
            size = lengths({SITE: r}, "example", network.batch_dim)[SITE]
            r = torch.where(size > epsilon, r * epsilon / size, r)
    last = standard(network, moved(point, {SITE: r}))
    return combined((clean_weight, standard(network, point)), (1, last))


def uphill(network, point, rho, alpha):
    clean = standard(network, point)
    trained = {n: clean[n] for n, p in network.module.named_parameters() if p.requires_grad}
    size = torch.sqrt(sum((g**2).sum() for g in trained.values()))
    adversarial = standard(network, moved(point, {n: rho * g / size for n, g in trained.items()}))
    return combined((1 - alpha, clean), (alpha, adversarial))


def linf_start(_method, value):
    """A start that anyone can compute, in place of a random one."""
    return 0.02 * torch.cos(torch.arange(value.numel(), dtype=value.dtype)).reshape(value.shape)


# name: (key of METHODS, how it is built on a network, the reference)
CASES = {
    "standard": ("standard", lambda n: Standard(n.module), standard),
    "l1": ("l1", lambda n: L1(n.module, 0.3), lambda n, p: penalty(n, p, lambda w: 0.3 * torch.sign(w))),
    "l2": ("l2", lambda n: L2(n.module, 0.3), lambda n, p: penalty(n, p, lambda w: 0.3 * w)),
    "fgsm": (
        "fgsm",
        lambda n: FGSM(n.module, n.site, 0.2),
        lambda n, p: one_step(n, p, lambda g: 0.2 * torch.sign(g)),
    ),
    "fgm": (
        "fgm",
        lambda n: FGM(n.module, n.site, 0.7, batch_dim=n.batch_dim),
        lambda n, p: one_step(n, p, lambda g: 0.7 * normalized(n, g)),
    ),
    "fgm, adversarial loss alone": (
        "fgm",
        lambda n: FGM(n.module, n.site, 0.7, clean_weight=0, batch_dim=n.batch_dim),
        lambda n, p: one_step(n, p, lambda g: 0.7 * normalized(n, g), clean_weight=0),
    ),
    "pgd": (
        "pgd",
        lambda n: PGD(n.module, n.site, 0.5, batch_dim=n.batch_dim),
        lambda n, p: pgd(n, p, 0.5, 0.25, 3),
    ),
    "pgd with the clean gradient": (
        "pgd",
        lambda n: PGD(n.module, n.site, 0.5, 0.4, 2, clean_weight=1, batch_dim=n.batch_dim),
        lambda n, p: pgd(n, p, 0.5, 0.4, 2, clean_weight=1),
    ),
    "pgd, largest entry": (
        "pgd",
        lambda n: PGD(n.module, n.site, 0.1, 0.07, 3, norm="linf"),
        lambda n, p: pgd(n, p, 0.1, 0.07, 3, linf=True),
    ),
    "pgd from a start": (
        "pgd",
        lambda n: PGD(n.module, n.site, 0.1, 0.07, 2, norm="linf", random_start=True),
        lambda n, p: pgd(n, p, 0.1, 0.07, 2, linf=True, start=linf_start(None, p[SITE])),
    ),
    "pgd from a start with the clean gradient": (
        "pgd",
        lambda n: PGD(n.module, n.site, 0.1, 0.07, 2, norm="linf", random_start=True, clean_weight=2),
        lambda n, p: pgd(n, p, 0.1, 0.07, 2, linf=True, clean_weight=2, start=linf_start(None, p[SITE])),
    ),
    "sam": ("sam", lambda n: SAM(n.module, 0.3), lambda n, p: uphill(n, p, 0.3, 1.0)),
    "gradient norm penalty": (
        "gradient-norm-penalty",
        lambda n: GradientNormPenalty(n.module, 0.3, 0.7),
        lambda n, p: uphill(n, p, 0.3, 0.7),
    ),
}
LAWS = {name: case[1] for name, case in CASES.items()} | {
    "dropattack": lambda n: DropAttack(n.module, n.site, n.weights, 0.5, batch_dim=n.batch_dim)
}


@pytest.fixture(autouse=True)
def known_start(monkeypatch):
    monkeypatch.setattr(PGD, "_random_point", linf_start)


def test_no_method_is_left_out():
    assert {key for key, _, _ in CASES.values()} | {"dropattack"} == set(METHODS)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("case", CASES)
def test_it_equals_its_reference(case, name):
    _, make, reference = CASES[case]
    network = build(name)
    method = make(network)
    loss = method.backward(network.closure)
    point = clean_point(network)
    expected = reference(network, point)
    assert_close(gradients(network.module), {n: expected[n] for n in gradients(network.module)}, **EXACT)
    if not (method.cost.forwards > 1 and getattr(method, "random_start", False) and not method.clean_weight):
        assert_close(loss, loss_and_gradient(network, point)[0], **EXACT)


@pytest.mark.parametrize("name", ["mlp", "lstm", "cnn"])
@pytest.mark.parametrize("case", LAWS)
def test_it_leaves_the_module_alone_and_counts_its_passes(case, name):
    network = build(name)
    expected = build(name)
    expected.module(expected.inputs)  # buffers: as one plain forward pass leaves them
    if getattr(LAWS[case](network), "random_start", False) and name == "cnn":
        pytest.skip("running statistics come from the start, which is no plain forward pass")
    before = {**snapshot(network.module), "values": dict(expected.module.state_dict())}
    method = LAWS[case](network)
    forwards, backwards = [], []

    def count(_module, _args, logits):
        forwards.append(1)
        logits.register_hook(lambda _: backwards.append(1))

    handle = network.module.register_forward_hook(count)
    method.backward(network.closure)
    handle.remove()
    assert (len(forwards), len(backwards)) == (method.cost.forwards, method.cost.backwards)
    assert_unchanged(network.module, before)


@pytest.mark.parametrize("case", LAWS)
def test_an_exception_in_any_pass_leaves_everything_as_it_was(case):
    network = build("cnn")
    method = LAWS[case](network)
    for failing in range(method.cost.forwards):
        before = snapshot(network.module)
        passes = []

        def closure(passes=passes, failing=failing):
            loss = network.closure()
            passes.append(1)
            if len(passes) > failing:
                raise ArithmeticError("out of memory")
            return loss

        with pytest.raises(ArithmeticError, match="out of memory"):
            method.backward(closure)
        assert_unchanged(network.module, before)
        assert all(parameter.requires_grad for parameter in network.module.parameters())


@pytest.mark.parametrize("case", LAWS)
def test_micro_batches_accumulate(case):
    network = build("mlp")
    other = dataclasses.replace(network, inputs=network.inputs.flip(0), targets=network.targets.roll(1))
    separate = []
    for batch in (network, other):
        network.module.zero_grad()
        LAWS[case](network).backward(batch.closure)
        separate.append({n: g.clone() for n, g in gradients(network.module).items()})
    network.module.zero_grad()
    method = LAWS[case](network)
    for batch in (network, other):
        method.backward(batch.closure)
    if case == "dropattack":  # its masks go on where the first batch left them
        assert gradients(network.module).keys() == separate[0].keys()
    else:
        total = {n: separate[0][n] + separate[1][n] for n in separate[0]}
        assert_close(gradients(network.module), total, **EXACT)


@pytest.mark.parametrize("case", LAWS)
def test_a_loss_without_a_gradient_gives_no_nan(case):
    network = build("mlp")
    LAWS[case](network).backward(lambda: network.closure() * 0.0)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(network.module).values())


@pytest.mark.parametrize("case", LAWS)
def test_a_loss_scale_scales_the_gradient_alone(case):
    network, scaled = build("lstm"), build("lstm")
    LAWS[case](network).backward(network.closure)
    LAWS[case](scaled).backward(scaled.closure, backward=lambda loss: (loss * 1024.0).backward())
    unscaled = {name: gradient / 1024 for name, gradient in gradients(scaled.module).items()}
    assert_close(unscaled, gradients(network.module), **EXACT)


def same(one, other, name="lstm"):
    networks = build(name), build(name)
    for make, network in zip((one, other), networks, strict=True):
        make(network).backward(network.closure)
    assert_close(gradients(networks[0].module), gradients(networks[1].module), **EXACT)


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
    "the gradient norm penalty at alpha 1 is SAM": (
        lambda n: GradientNormPenalty(n.module, 0.3, alpha=1),
        lambda n: SAM(n.module, 0.3),
    ),
    "the gradient norm penalty at alpha 0 is standard training": (
        lambda n: GradientNormPenalty(n.module, 0.3, alpha=0),
        lambda n: Standard(n.module),
    ),
}


@pytest.mark.parametrize("identity", IDENTITIES)
def test_identities_between_methods(identity):
    same(*IDENTITIES[identity])


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
def test_pgd_starts_inside_its_ball_by_its_own_generator(norm, monkeypatch):
    monkeypatch.undo()
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


def test_penalties_spare_biases_and_normalization():
    network = build("cnn")
    plain = plain_gradients(network)
    L2(network.module, 0.5).backward(network.closure)
    for name, gradient in gradients(network.module).items():
        weight = network.module.get_parameter(name).detach()
        extra = 0.5 * weight if weight.dim() > 1 else torch.zeros_like(weight)
        assert_close(gradient, plain[name] + extra, **EXACT)


BAD = {
    "fgm epsilon": (lambda n: FGM(n.module, n.site, -1.0), "epsilon: expected a finite number of at least 0"),
    "fgm site": (lambda n: FGM(n.module, "embeding"), "unknown site 'embeding'; EmbeddingMLP has embedding"),
    "fgm norm": (lambda n: FGM(n.module, n.site, input_norm="global"), "input_norm: expected one of"),
    "fgsm range": (lambda n: FGSM(n.module, n.site, clip_range=(1.0, 0.0)), "clip_range: expected the lowest"),
    "pgd steps": (lambda n: PGD(n.module, n.site, ascent_steps=0), "ascent_steps: expected a whole number"),
    "pgd norm": (lambda n: PGD(n.module, n.site, norm="l1"), "norm: expected one of 'l2', 'linf', got 'l1'"),
    "sam rho": (lambda n: SAM(n.module, -0.1), "rho: expected a finite number of at least 0"),
    "sam weights": (lambda n: SAM(n.module, weights=["fc*"]), r"unknown parameter 'fc\*'"),
    "alpha": (lambda n: GradientNormPenalty(n.module, alpha=1.5), "alpha: expected a probability"),
    "l1": (lambda n: L1(n.module, float("nan")), "coefficient: expected a finite number"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make(build("mlp"))
