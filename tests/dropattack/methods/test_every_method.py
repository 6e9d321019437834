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

from dropattack.methods import (
    ASAM,
    AWP,
    FGM,
    FGSM,
    L1,
    L2,
    METHODS,
    PGD,
    SAM,
    DropAttack,
    FreeAT,
    FreeLB,
    GradientNormPenalty,
    Standard,
)

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


def freelb(network, point, epsilon, step_size, steps):
    r, terms = linf_start(None, point[SITE]), []
    for _ in range(steps):
        gradient = standard(network, moved(point, {SITE: r}))
        terms.append((1 / steps, gradient))
        r = r + step_size * normalized(network, gradient[SITE])
        size = lengths({SITE: r}, "example", network.batch_dim)[SITE]
        r = r if epsilon is None else torch.where(size > epsilon, r * epsilon / size, r)
    return combined(*terms)


def asam(network, point, rho, eta):
    clean = standard(network, point)
    trained = [n for n, p in network.module.named_parameters() if p.requires_grad]
    scale = {n: point[n].abs() + eta if n.split(".")[-1].startswith("weight") else point[n] ** 0 for n in trained}
    size = torch.sqrt(sum(((scale[n] * clean[n]) ** 2).sum() for n in trained))
    return standard(network, moved(point, {n: rho * scale[n] ** 2 * clean[n] / size for n in trained}))


def awp(network, point, gamma):
    clean = standard(network, point)
    trained = [n for n, p in network.module.named_parameters() if p.requires_grad and p.dim() > 1]
    offsets = {
        n: gamma * torch.sqrt((point[n] ** 2).sum()) * clean[n] / torch.sqrt((clean[n] ** 2).sum()) for n in trained
    }
    return standard(network, moved(point, offsets))


def linf_start(_method, value):
    """A start that anyone can compute, in place of a random one."""
    return 0.02 * torch.cos(torch.arange(value.numel(), dtype=value.dtype)).reshape(value.shape)


def starts_off_the_clean_point(method):
    return isinstance(method, FreeLB) or (isinstance(method, PGD) and method.random_start and not method.clean_weight)


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
    "freeat, first replay": ("freeat", lambda n: FreeAT(n.module, n.site, 0.2, 3), standard),
    "freelb": (
        "freelb",
        lambda n: FreeLB(n.module, n.site, 0.3, 0.2, 3, batch_dim=n.batch_dim),
        lambda n, p: freelb(n, p, 0.3, 0.2, 3),
    ),
    "freelb without a ball": (
        "freelb",
        lambda n: FreeLB(n.module, n.site, None, 0.2, 2, batch_dim=n.batch_dim),
        lambda n, p: freelb(n, p, None, 0.2, 2),
    ),
    "asam": ("asam", lambda n: ASAM(n.module, 0.5, 0.02), lambda n, p: asam(n, p, 0.5, 0.02)),
    "awp": ("awp", lambda n: AWP(n.module, 0.2), lambda n, p: awp(n, p, 0.2)),
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
    for method in (PGD, FreeLB):
        monkeypatch.setattr(method, "_random_point", linf_start)


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
    if not starts_off_the_clean_point(method):
        assert_close(loss, loss_and_gradient(network, point)[0], **EXACT)


@pytest.mark.parametrize("name", ["mlp", "lstm", "cnn"])
@pytest.mark.parametrize("case", LAWS)
def test_it_leaves_the_module_alone_and_counts_its_passes(case, name):
    network = build(name)
    expected = build(name)
    expected.module(expected.inputs)  # buffers: as one plain forward pass leaves them
    if starts_off_the_clean_point(LAWS[case](network)) and name == "cnn":
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
    if case.startswith(("dropattack", "freeat")):  # masks and perturbation go on where the first batch left them
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
            gradient = standard(network, moved(point, {SITE: r}))
            actual = gradients(network.module)
            assert_close(actual, {n: gradient[n] for n in actual}, **EXACT)
            network.module.zero_grad()
            if norm == "linf":
                r = torch.clamp(r + 0.2 * torch.sign(gradient[SITE]), -0.3, 0.3)
            else:
                r = r + 0.2 * normalized(network, gradient[SITE])
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


def test_freelb_starts_at_random_in_the_stated_cube(monkeypatch):
    monkeypatch.undo()
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
    "asam eta": (lambda n: ASAM(n.module, eta=-1), "eta: expected a finite number of at least 0"),
    "freeat replays": (lambda n: FreeAT(n.module, n.site, 0.1, 0), "replays: expected a whole number"),
    "freelb steps": (lambda n: FreeLB(n.module, n.site, ascent_steps=1.5), "ascent_steps: expected a whole number"),
    "l1": (lambda n: L1(n.module, float("nan")), "coefficient: expected a finite number"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make(build("mlp"))
