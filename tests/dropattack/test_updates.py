"""Updates of methods: collected without a trace, and compared by laws and closed forms."""

import itertools
import math

import networks
import numpy as np
import pytest
import reference
import torch
from points import SITE
from torch import nn

import dropattack as da
from dropattack.updates import (
    compare_updates,
    explicit_against_implicit,
    mask_effects,
    reading_effects,
    update_of,
)
from dropattack.updates.settings import seeds


class Quadratic(nn.Module):
    """L = ½ vᵀ A v, whose gradient A v and Hessian A are known."""

    def __init__(self, size=3):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        root = torch.randn(size, size, generator=generator, dtype=torch.float64)
        self.register_buffer("curvature", root @ root.T + torch.eye(size, dtype=torch.float64))
        self.v = nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64))

    def forward(self):
        return 0.5 * self.v @ self.curvature @ self.v

    @property
    def gradient(self):
        return (self.curvature @ self.v).detach()


class Noisy(nn.Module):
    """With dropout and BatchNorm: a pass in training mode draws numbers and changes buffers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.norm(self.first(x)))))


@pytest.fixture
def noisy():
    torch.manual_seed(5)
    model = Noisy().double().train()
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randint(3, (6,))
    return model, lambda: nn.functional.cross_entropy(model(x), y)


def state_of(model):
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return tensors, gradients, torch.get_rng_state()


def assert_untouched(model, before):
    tensors, gradients, random = before
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is gradients[name] for name, parameter in model.named_parameters())
    assert torch.equal(torch.get_rng_state(), random)


def vector(update):
    return torch.cat([tensor.flatten() for tensor in update.values()])


def cosine(one, other):
    return (one @ other / (one.norm() * other.norm())).item()


def setting_of(network, **more):
    return {"inputs": network.site, "weights": network.weights, "batch_dim": network.batch_dim, **more}


def only(table, **values):
    for column, value in values.items():
        table = table[table[column] == value]
    return table


# one update


@pytest.mark.parametrize("name", ["mlp", "tied_mlp", "frozen_mlp", "lstm", "bigru", "time_major_gru", "cnn"])
def test_an_update_is_the_one_of_the_equations(name):
    network = networks.build(name)
    options = {"epsilon": 0.4, "epsilon_weights": 0.3, "ascent_steps": 2}
    method = da.DropAttack(
        network.module, network.site, network.weights, attack_probability=0.6, **options, batch_dim=network.batch_dim
    )
    update = update_of(method, network.closure)
    masks = {SITE if key == network.site else key: mask.double() for key, mask in method.last.masks.items()}
    expected = reference.dropattack(
        network, masks, inputs=SITE, weights=network.weights, **options, batch_dim=network.batch_dim
    ).gradient
    trained = {name: p for name, p in network.module.named_parameters() if p.requires_grad}
    assert update.keys() == trained.keys()
    for key, tensor in update.items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "table",
    [
        {"name": "dropattack", "inputs": "input", "weights": ["first.*"]},
        {"name": "explicit-penalty", "inputs": "input", "attack_probability": 0.5},
        {"name": "looksam", "every": 2},
        {"name": "sparse-sam", "mask": "random"},
        {"name": "freeat", "inputs": "input", "epsilon": 0.3},
        {"name": "smart", "inputs": "input", "epsilon": 0.3, "step_size": 0.1, "start": 0.1},
        {"name": "scheduled", "every": 2, "warmup": {"gamma": 3}, "method": {"name": "rwp", "gamma": 0.1}},
    ],
    ids=lambda table: table["name"],
)
def test_collecting_an_update_leaves_no_trace_and_repeats(table, noisy):
    model, closure = noisy
    method = da.build_method(**table, model=model, generator=torch.Generator().manual_seed(1))
    model.first.weight.grad = torch.ones_like(model.first.weight)  # of an earlier micro-batch
    method.backward(closure)  # so that there is something carried to put back
    before = state_of(model)
    held, carried = model.first.weight.grad.clone(), method.state_dict()
    carried = {key: tensor.clone() for key, tensor in carried.items()}
    update = update_of(method, closure)
    assert_untouched(model, before)
    assert torch.equal(model.first.weight.grad, held)
    assert method.state_dict().keys() == carried.keys()
    assert all(torch.equal(tensor, carried[key]) for key, tensor in method.state_dict().items())
    again = update_of(method, closure)
    assert all(torch.equal(tensor, again[key]) for key, tensor in update.items())
    model.zero_grad()
    method.backward(closure)  # and the step itself adds just that
    assert all(torch.equal(parameter.grad, update[key]) for key, parameter in model.named_parameters())


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_an_exception_in_any_pass_leaves_no_trace(failing, noisy):
    model, closure = noisy
    calls = itertools.count(1)

    def fails():
        loss = closure()
        if next(calls) == failing:
            raise OSError("the data ran out")
        return loss

    method = da.DropAttack(model, "input", ("first.weight",), generator=torch.Generator().manual_seed(1))
    model.first.weight.grad = torch.ones_like(model.first.weight)
    before, carried = state_of(model), method.state_dict()["generator"]
    with pytest.raises(OSError, match="the data ran out"):
        update_of(method, fails)
    assert_untouched(model, before)
    assert torch.equal(method.state_dict()["generator"], carried)


def test_a_parameter_that_no_pass_reaches_has_a_zero_update_and_a_frozen_one_none():
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "spare": nn.Linear(2, 1)})
    model["used"].bias.requires_grad_(False)
    update = update_of(da.Standard(model), lambda: model["used"](torch.ones(1, 2)).sum())
    assert update.keys() == {"used.weight", "spare.weight", "spare.bias"}
    assert not update["spare.weight"].any()


# several methods


def test_on_a_quadratic_the_part_beyond_the_clean_gradient_is_curvature_times_perturbation():
    # L = ½ vᵀAv: the update of DropAttack on v is A v + A (v + r) = 2 A v + A r, with r = ε g / ‖g‖ for p = 1.
    model = Quadratic()
    table = compare_updates(
        model,
        model,
        {
            "half": da.DropAttack(model, weights=("v",), epsilon=0.25, attack_probability=1),
            "standard": da.Standard(model),
            "one": da.DropAttack(model, weights=("v",), epsilon=0.5, attack_probability=1),
        },
        against="one",
    )
    beyond = 0.5 * model.curvature @ model.gradient / model.gradient.norm()
    whole = 2 * model.gradient + beyond
    half = only(table, method="half", parameter="all").set_index("of")
    assert half.loc["beyond", ["norm", "norm_ratio", "cosine", "distance"]].tolist() == pytest.approx(
        [beyond.norm().item() / 2, 0.5, 1, 0.5], rel=1e-12
    )
    less = 2 * model.gradient + beyond / 2
    expected = [
        less.norm().item(),
        (less.norm() / whole.norm()).item(),
        cosine(less, whole),
        ((less - whole).norm() / whole.norm()).item(),
    ]
    assert half.loc["update", ["norm", "norm_ratio", "cosine", "distance"]].tolist() == pytest.approx(expected)
    standard = only(table, method="standard", parameter="v").set_index("of")
    assert standard.loc["beyond", "norm"] == 0  # exactly
    assert math.isnan(standard.loc["beyond", "cosine"])
    assert standard.loc["beyond", "distance"] == 1
    assert set(table["parameter"]) == {"all", "v"}


def test_each_parameter_has_a_row_and_all_have_one():
    network = networks.build("lstm")
    sam, fgm = da.SAM(network.module, 0.3), da.FGM(network.module, "embedding", 0.4)
    table = compare_updates(network.module, network.closure, {"sam": sam, "fgm": fgm}, against="fgm")
    gradient = update_of(da.Standard(network.module), network.closure)
    one = {name: tensor - gradient[name] for name, tensor in update_of(sam, network.closure).items()}
    other = {name: tensor - 2 * gradient[name] for name, tensor in update_of(fgm, network.closure).items()}
    found = only(table, method="sam", of="beyond").set_index("parameter")
    assert list(found.index) == ["all", *gradient]
    for name in gradient:
        assert found.loc[name, "cosine"] == pytest.approx(cosine(one[name].flatten(), other[name].flatten()), abs=1e-9)
        assert found.loc[name, "norm"] == pytest.approx(one[name].norm().item(), abs=1e-12)
    whole, whole_other = vector(one), vector(other)
    assert found.loc["all", "cosine"] == pytest.approx(cosine(whole, whole_other), abs=1e-9)
    assert found.loc["all", "norm_ratio"] == pytest.approx((whole.norm() / whole_other.norm()).item(), rel=1e-9)
    distance = (whole - whole_other).norm() / whole_other.norm()
    assert found.loc["all", "distance"] == pytest.approx(distance.item(), rel=1e-9)


ATTACK = {"inputs": "embedding", "epsilon": 0.3}
WEIGHTS = {
    "standard": ({"name": "standard"}, 1),
    "l2": ({"name": "l2", "coefficient": 0.3}, 1),
    "fgsm": ({"name": "fgsm", **ATTACK}, 2),
    "fgm": ({"name": "fgm", **ATTACK, "clean_weight": 0.5}, 1.5),
    "pgd": ({"name": "pgd", **ATTACK, "step_size": 0.2, "random_start": True}, 1),
    "freelb": ({"name": "freelb", **ATTACK, "step_size": 0.2}, 1),
    "freelb without a ball": ({"name": "freelb", "inputs": "embedding", "epsilon": None, "step_size": 0.2}, 1),
    "input": ({"name": "dropattack", **ATTACK}, 2),
    "input and weights": ({"name": "dropattack", **ATTACK, "weights": ["lstm.*"]}, 3),
    "no clean loss": ({"name": "dropattack", **ATTACK, "weights": ["lstm.*"], "clean_weight": 0}, 2),
    "two clean losses": ({"name": "dropattack", **ATTACK, "clean_weight": 2, "ascent_steps": 3}, 3),
    "mean": ({"name": "dropattack", **ATTACK, "reduction": "mean"}, 1),
    "explicit": ({"name": "explicit-penalty", **ATTACK, "loss_weight": 2.5}, 2.5),
    "sam": ({"name": "sam", "rho": 0.3}, 1),
    "asam": ({"name": "asam", "rho": 0.3}, 1),
    "gsam": ({"name": "gsam", "rho": 0.3}, 1),
    "looksam": ({"name": "looksam", "rho": 0.3}, 1),
    "sparse-sam": ({"name": "sparse-sam", "rho": 0.3, "mask": "random"}, 1),
    "gradient-norm-penalty": ({"name": "gradient-norm-penalty", "rho": 0.3}, 1),
    "awp": ({"name": "awp", "gamma": 0.3}, 1),
    "rwp": ({"name": "rwp", "gamma": 0.3, "alpha": 0.5}, 1),
    "vat": ({"name": "vat", **ATTACK}, 1),
    "r3f": ({"name": "r3f", **ATTACK}, 1),
    "smart": ({"name": "smart", **ATTACK, "step_size": 0.1, "start": 0.1}, 1),
    "compose": ({"name": "compose", "inputs": {"name": "fgm", **ATTACK}, "weights": {"name": "sam", "rho": 0.3}}, 2),
    "scheduled": ({"name": "scheduled", "warmup": {"rho": 4}, "method": {"name": "sam", "rho": 0.3}}, 1),
}


def test_the_weight_of_the_losses_is_found_for_every_method():
    network = networks.build("lstm")
    tables = {name: table for name, (table, _) in WEIGHTS.items()}
    table = compare_updates(network.module, network.closure, tables, against="sam")
    found = only(table, parameter="all", of="beyond").set_index("method")
    for name, (_, weight) in WEIGHTS.items():
        assert found.loc[name, "loss_weight"] == pytest.approx(weight, rel=1e-9), name
        assert (found.loc[name, "norm"] > 1e-4) == (name != "standard"), name
    assert da.METHODS.keys() - {table["name"] for table in tables.values()} == {"l1", "freeat"}


def test_a_step_that_is_no_multiple_of_the_clean_gradient_at_epsilon_zero_is_refused():
    network = networks.build("mlp")
    method = da.LookSAM(network.module, 0.3, every=2)
    method.backward(network.closure)  # the next step reuses what this one learned, whatever rho is
    with pytest.raises(ValueError, match="LookSAM: expected a multiple of the clean gradient at epsilon 0"):
        compare_updates(network.module, network.closure, {"looksam": method}, against="looksam")


def test_methods_are_given_as_objects_functions_or_tables():
    network = networks.build("mlp")
    table = compare_updates(
        network.module,
        network.closure,
        {
            "object": da.FGM(network.module, "embedding", 0.3),
            "function": lambda model: da.FGM(model, "embedding", 0.3),
            "table": {"name": "fgm", "inputs": "embedding", "epsilon": 0.3},
        },
        against="object",
    )
    assert (table["distance"].dropna() == 0).all()


def test_methods_given_as_tables_have_the_same_masks():
    network = networks.build("mlp")
    one = {"name": "dropattack", "inputs": "embedding", "epsilon": 0.3}
    methods = {"one": one, "two": dict(one)}
    same = only(compare_updates(network.module, network.closure, methods, "one", seed=3), parameter="all")
    assert (same["distance"] == 0).all()
    other = compare_updates(network.module, network.closure, methods, "one", seed=4)
    assert not np.allclose(only(other, parameter="all")["norm"], same["norm"], rtol=1e-6)


@pytest.mark.parametrize(
    ("methods", "error", "message"),
    [
        ({"a": {"name": "sam"}}, ValueError, "unknown method 'b'; known: a"),
        ({"b": {"rho": 0.1}}, ValueError, "b: expected a table with the method's `name`, got rho"),
        ({"b": lambda model: model}, TypeError, "b: expected a method, got EmbeddingMLP"),
        ({"b": lambda _: da.SAM(nn.Linear(1, 1))}, ValueError, "b: the method was built on another model"),
    ],
)
def test_what_is_no_method_is_named(methods, error, message):
    network = networks.build("mlp")
    with pytest.raises(error, match=message):
        compare_updates(network.module, network.closure, methods, "b")


# explicit against implicit


@pytest.mark.parametrize("name", ["mlp", "lstm", "bigru", "time_major_gru", "cnn"])
@pytest.mark.parametrize("site", ["inputs", "weights"])
def test_masked_then_normalized_it_is_the_masked_norm_in_the_limit(name, site):
    # L(v + ε u) = L + ε ‖M∘g‖ + O(ε²) with u = M∘g / ‖M∘g‖, and as u maximizes the linear part its derivative with
    # respect to u does not count: the parts differ by O(ε).
    network = networks.build(name)
    setting = setting_of(network, attack_probability=0.6)
    setting |= {"weights": ()} if site == "inputs" else {"inputs": None}
    table = explicit_against_implicit(network.module, network.closure, setting, [1e-2, 1e-3, 1e-4], draws=2, seed=1)
    found = only(table, implicit="mask-then-normalize", explicit="masked-norm", of="beyond", draw=1)
    assert found["cosine"].iloc[-1] == pytest.approx(1, abs=1e-4)
    assert found["norm_ratio"].iloc[-1] == pytest.approx(1, abs=1e-2)
    distances = found["distance"].to_numpy()
    assert distances[0] / distances[1] == pytest.approx(10, rel=0.2)  # first order, and not a floor of rounding
    assert distances[1] / distances[2] == pytest.approx(10, rel=0.2)


def test_normalized_then_masked_it_is_the_expected_penalty_in_the_mean_over_all_masks():
    # Three entries have 8 masks, equally likely at p = ½. The mean of A r over them is A p ε g / ‖g‖, and the
    # gradient of p ε ‖g‖ is p ε A g / ‖g‖: the same at any epsilon, as the loss is quadratic.
    model = Quadratic(3)
    parts = {}
    for seed in range(200):
        method = da.DropAttack(
            model, weights=("v",), epsilon=0.4, attack_probability=0.5, generator=torch.Generator().manual_seed(seed)
        )
        part = update_of(method, model)["v"] - 2 * model.gradient
        parts[tuple(method.last.masks["v"].tolist())] = part
    assert len(parts) == 8
    expected = 0.5 * 0.4 * model.curvature @ model.gradient / model.gradient.norm()
    torch.testing.assert_close(sum(parts.values()) / 8, expected, rtol=1e-12, atol=0)

    # The table's own means over few draws, by hand from the same masks.
    setting = {"weights": ["v"], "attack_probability": 0.5}
    table = explicit_against_implicit(model, model, setting, [0.4], draws=5, seed=2)
    single = only(table, implicit="normalize-then-mask", explicit="expectation", of="beyond")
    assert single["norm"].iloc[0] / single["norm_ratio"].iloc[0] == pytest.approx(expected.norm().item(), rel=1e-12)
    norms = sorted(part.norm().item() for part in parts.values())
    assert all(min(abs(norm - other) for other in norms) < 1e-12 for norm in single["norm"].iloc[:-1])


def test_the_mean_over_masks_tends_to_the_expected_penalty():
    # The distance of the mean of n parts from the expectation is √(variance / n): with a relative variance of
    # (1 - p) / p Σ g_j² ‖A_j‖² / ‖A g‖² (see the test of variances below).
    model = Quadratic(6)
    p, draws = 0.5, 400
    table = explicit_against_implicit(model, model, {"weights": ["v"], "attack_probability": p}, [0.1], draws, seed=0)
    of_mean = only(table, implicit="normalize-then-mask", explicit="expectation", of="beyond")
    of_mean = of_mean[of_mean["draw"].isna()].iloc[0]
    variance = relative_variance(model, p)
    assert of_mean["distance"] < 3 * math.sqrt(variance / draws)
    assert of_mean["cosine"] > 1 - 5 * variance / draws
    # For each mask alone, the first-order form is another vector: ∇(‖M∘g‖²/‖g‖), which has a second term.
    first = only(table, implicit="normalize-then-mask", explicit="first-order", of="beyond", draw=0).iloc[0]
    assert first["distance"] > 0.01


def test_both_sides_of_a_row_have_the_same_mask_by_hand():
    # One mask: implicit A M∘g ε/‖g‖; explicit ∇(ε ‖M∘g‖²/‖g‖) = ε A (2 M∘g / ‖g‖ - ‖M∘g‖² g / ‖g‖³).
    model = Quadratic(5)
    table = explicit_against_implicit(model, model, {"weights": ["v"], "attack_probability": 0.5}, [0.3], 3, seed=4)
    g, size = model.gradient, model.gradient.norm()
    rows = only(table, implicit="normalize-then-mask", explicit="first-order", of="beyond")
    masks = [torch.tensor(mask, dtype=torch.float64) for mask in itertools.product((0, 1), repeat=5)]
    candidates = []
    for mask in masks:
        masked = mask * g
        implicit = 0.3 * model.curvature @ masked / size
        explicit = 0.3 * model.curvature @ (2 * masked / size - masked.norm() ** 2 * g / size**3)
        if mask.any():
            ratio = implicit.norm() / explicit.norm()
            candidates.append([implicit.norm().item(), ratio.item(), cosine(implicit, explicit)])
    for found in rows[["norm", "norm_ratio", "cosine"]].to_numpy()[:3]:
        assert min(np.abs(np.array(candidates) - found).max(axis=1)) < 1e-10


def test_whole_updates_are_compared_too():
    model = Quadratic()
    table = explicit_against_implicit(model, model, {"weights": ["v"], "attack_probability": 1}, [0.5], 1)
    whole = only(table, of="update")
    # With p = 1 and a quadratic loss all forms are one: 2 A v + ε A g / ‖g‖.
    update = 2 * model.gradient + 0.5 * model.curvature @ model.gradient / model.gradient.norm()
    assert whole["norm"].to_numpy() == pytest.approx(update.norm().item(), rel=1e-12)
    assert whole["distance"].max() < 1e-12


def test_input_and_weights_keep_their_ratio_of_epsilons_on_both_sides():
    network = networks.build("lstm")
    setting = setting_of(network, epsilon=6.0, epsilon_weights=2.0, attack_probability=0.6, clean_weight=0.5)
    table = explicit_against_implicit(network.module, network.closure, setting, [1e-4], draws=1)
    limit = only(table, implicit="mask-then-normalize", explicit="masked-norm")
    assert limit["distance"].max() < 1e-2  # of order epsilon; with another ratio on one side it would be of order 1
    assert limit["epsilon_weights"].to_numpy() == pytest.approx(1e-4 / 3)


def test_several_batches_epsilons_and_a_ratio_of_epsilons():
    one, other = networks.build("lstm", 0), networks.build("lstm", 1)
    module = one.module

    def second():
        return nn.functional.cross_entropy(module(other.inputs), other.targets)

    setting = setting_of(one, epsilon=2.0, epsilon_weights=1.0)
    table = explicit_against_implicit(module, [one.closure, second], setting, [0.2, 0.1], draws=2, seed=7)
    assert len(table) == 2 * 2 * 2 * 3 * 3 * 2  # batches, epsilons, orders, forms, draws and their mean, parts
    assert (table["epsilon_weights"] == table["epsilon"] / 2).all()
    alone = explicit_against_implicit(module, second, setting, [0.1], draws=2, seed=7)
    both = only(table, batch=1, epsilon=0.1).reset_index(drop=True)
    assert both.drop(columns="batch").equals(alone.drop(columns="batch"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"direction": "random"}, "direction='random' has no explicit penalty"),
        ({"weight_norm": "global"}, "weight_norm='global' has no explicit penalty"),
        ({"inputs": "embedding", "attack_probability_weights": 0.1}, "expected one attack probability"),
        ({"epsilon": 0}, "expected a positive epsilon, got 0"),
        ({"epsilom": 1}, "unknown hyperparameter 'epsilom'; dropattack has epsilon"),
        ({"name": "sam"}, "expected one of 'dropattack', got one of 'sam'"),
        ({"generator": None}, "masks are drawn by `seed`"),
    ],
)
def test_settings_that_cannot_be_compared_are_refused(changes, message):
    network = networks.build("mlp")
    with pytest.raises(ValueError, match=message):
        explicit_against_implicit(network.module, network.closure, {"weights": ["hidden.weight"], **changes}, [1.0])


# readings


READINGS = {
    ("inputs", "embedding.weight"): {"inputs": "embedding.weight"},
    ("input_norm", "tensor"): {"input_norm": "tensor"},
    ("weight_norm", "global"): {"weight_norm": "global"},
    ("mask_then_normalize", "True"): {"mask_then_normalize": True},
    ("clean_weight", "0.0"): {"clean_weight": 0.0},
    ("clean_weight", "2.0"): {"clean_weight": 2.0},
    ("reduction", "mean"): {"reduction": "mean"},
    ("ascent_steps", "3"): {"ascent_steps": 3},
    ("accumulate, ascent_steps=3", "False"): {"ascent_steps": 3},
    ("accumulate, ascent_steps=3", "True"): {"ascent_steps": 3, "accumulate": True},
    ("relative_epsilon", "True"): {"relative_epsilon": True},
}


def test_readings_are_compared_with_the_setting_by_the_equations():
    # Attack probability 1 leaves no masks, so that the reference needs none either.
    network = networks.build("lstm")
    options = {"epsilon": 0.4, "epsilon_weights": 0.3}
    setting = setting_of(network, **options, attack_probability=1.0)
    table = reading_effects(network.module, network.closure, setting, draws=2)
    parameters = {name: torch.ones_like(p) for name, p in network.module.named_parameters()}
    masks = parameters | {SITE: torch.ones(1)}

    def updates(changes):
        changed = {"inputs": SITE, "weights": network.weights, **options, **changes}
        still = changed | {"epsilon": 0.0, "epsilon_weights": 0.0}
        whole, clean = (vector(reference.dropattack(network, masks, **one).gradient) for one in (changed, still))
        return {"update": whole, "beyond": whole - clean}

    base = updates({})
    for (switch, value), changes in READINGS.items():
        for of, update in updates(changes).items():
            (row,) = only(table, switch=switch, value=value, of=of).to_dict("records")
            assert row["cosine"] == pytest.approx(cosine(update, base[of]), abs=1e-8), (switch, of)
            assert row["norm_ratio"] == pytest.approx((update.norm() / base[of].norm()).item(), rel=1e-8), (switch, of)
            distance = ((update - base[of]).norm() / base[of].norm()).item()
            assert row["distance"] == pytest.approx(distance, abs=1e-8), (switch, of)
            assert row["norm"] == pytest.approx(update.norm().item(), rel=1e-8)
            assert row["cosine_sd"] == pytest.approx(0, abs=1e-12)
    own = table.merge(table[(table["of"] == "update") & (table["distance"] == 0)][["switch", "value"]])
    assert set(own["switch"]) == set(table["switch"]) - {"accumulate, ascent_steps=3"}
    assert own["cosine"].to_numpy() == pytest.approx(1)
    assert set(table["switch"]) >= {switch for switch, _ in READINGS} | {"reading", "direction", "attack_probability"}


def test_readings_have_the_same_masks_draw_by_draw():
    network = networks.build("mlp")
    setting = setting_of(network, epsilon=0.5, attack_probability=0.5)
    table = reading_effects(network.module, network.closure, setting, draws=4, seed=2)
    # The clean weight changes the clean part alone, at each mask: the part beyond is the same.
    row = only(table, switch="clean_weight", value="0.0", of="beyond").iloc[0]
    assert row["distance"] == pytest.approx(0, abs=1e-10)
    assert row["norm_sd"] > 1e-3  # masks do differ
    mean = only(table, switch="reduction", value="mean", of="update").iloc[0]
    assert (mean["cosine"], mean["norm_ratio"]) == pytest.approx((1, 1 / 3))


def test_means_and_standard_deviations_are_over_draws():
    model = Quadratic(4)
    table = reading_effects(model, model, {"weights": ["v"], "epsilon": 0.5}, draws=6, seed=1)
    # One epsilon, one tensor: A M∘g ε/‖M∘g‖ against A M∘g ε/‖g‖ at each mask: cosine 1, ratio ‖g‖/‖M∘g‖.
    row = only(table, switch="mask_then_normalize", value="True", of="beyond").iloc[0]
    ratios = []
    for drawn in seeds(1, 6):
        method = da.DropAttack(model, weights=("v",), generator=torch.Generator().manual_seed(drawn))
        update_of(method, model)
        masked = method.last.masks["v"] * model.gradient
        ratios.append((model.gradient.norm() / masked.norm()).item())
    assert row["cosine"] == pytest.approx(1, abs=1e-12)
    assert (row["norm_ratio"], row["norm_ratio_sd"]) == pytest.approx((np.mean(ratios), np.std(ratios, ddof=1)))
    assert len(set(ratios)) > 1
    assert row["draws"] == 6


def test_the_authors_reading_is_listed_only_where_it_exists():
    embedding, pixels = networks.build("mlp"), networks.build("cnn")
    text = reading_effects(embedding.module, embedding.closure, {"inputs": "embedding", "epsilon": 0.1}, draws=1)
    row = only(text, switch="reading", value="authors-code", of="beyond").iloc[0]
    weight = only(text, switch="inputs", value="embedding.weight", of="beyond").iloc[0]
    assert row["norm"] == pytest.approx(weight["norm"], rel=1e-12)  # one ascent step: nothing to add up
    assert row["cosine"] < 0.999
    images = reading_effects(pixels.module, pixels.closure, {"inputs": "input", "epsilon": 0.1}, draws=1)
    assert not {"inputs", "reading", "weight_norm"} & set(images["switch"])
    both = {"inputs": "embedding", "weights": ["embedding.weight"]}  # the authors' code would attack it twice
    text = reading_effects(embedding.module, embedding.closure, both, draws=1)
    assert not {"inputs", "reading"} & set(text["switch"])


# masks


def relative_variance(model, p):
    """Of A M∘g over masks: p (1 - p) Σ g_j² ‖A_j‖² over p² ‖A g‖², with A_j the columns."""
    g, curvature = model.gradient, model.curvature
    return ((1 - p) / p * (g**2 * (curvature**2).sum(0)).sum() / (curvature @ g).norm() ** 2).item()


def test_the_effects_of_the_mask_on_a_quadratic_in_closed_form():
    # r = ε M∘g / ‖g‖. Expectations: ‖r‖² = p ε²; the rise gᵀr + ½ rᵀAr is p ε ‖g‖ + ½ ε² (p² gᵀAg + p (1-p) Σ A_jj
    # g_j²) / ‖g‖²; the part beyond is A r, of relative variance (1-p)/p Σ g_j² ‖A_j‖² / ‖A g‖².
    model, epsilon, draws = Quadratic(5), 0.5, 300
    setting = {"weights": ["v"], "epsilon": epsilon, "attack_probability": 0.5}
    table = mask_effects(model, model, setting, [0.3, 1.0], draws=draws, seed=0)
    g, curvature = model.gradient, model.curvature
    for fixed, scale in (("epsilon", {0.3: 1.0, 1.0: 1.0}), ("p epsilon", {0.3: 0.5 / 0.3, 1.0: 0.5})):
        for p, factor in scale.items():
            size = factor * epsilon
            rows = only(table, fixed=fixed, attack_probability=p).set_index(["of", "quantity"])
            assert rows["epsilon"].to_numpy() == pytest.approx(size)
            mixed = p**2 * g @ curvature @ g + p * (1 - p) * (curvature.diagonal() * g**2).sum()
            expected = {
                ("weights", "rise"): p * size * g.norm() + 0.5 * size**2 * mixed / g.norm() ** 2,
                ("beyond", "variance"): torch.tensor(relative_variance(model, p)),
            }
            for key, value in expected.items():
                row = rows.loc[key]
                assert abs(row["value"] - value.item()) <= 4 * row["standard_error"] + 1e-12, (fixed, p, key)
            if p == 1:
                assert rows.loc[("weights", "perturbation_norm"), "value"] == pytest.approx(size)
                beyond = size * curvature @ g / g.norm()
                assert rows.loc[("beyond", "norm"), "value"] == pytest.approx(beyond.norm().item())
                assert rows.loc[("update", "norm"), "value"] == pytest.approx((2 * g + beyond).norm().item())
                assert rows.loc[("beyond", "cosine"), "value"] == pytest.approx(1)
                assert rows.loc[("beyond", "variance"), "value"] == pytest.approx(0, abs=1e-20)


def test_variance_and_its_error_by_a_jackknife_by_hand():
    model, draws = Quadratic(4), 7
    setting = {"weights": ["v"], "epsilon": 0.5}
    table = mask_effects(model, model, setting, [0.6], draws=draws, seed=3)
    rows = only(table, fixed="epsilon").set_index(["of", "quantity"])
    updates = np.array(
        [
            update_of(
                da.DropAttack(
                    model, weights=("v",), epsilon=0.5, attack_probability=0.6,
                    generator=torch.Generator().manual_seed(seed),
                ),
                model,
            )["v"].numpy()
            for seed in seeds(3, draws)
        ]
    )  # fmt: skip

    def ratio(sample):
        variance = sample.var(axis=0, ddof=1).sum()
        return variance / ((sample.mean(axis=0) ** 2).sum() - variance / len(sample))

    for of, sample in (("update", updates), ("beyond", updates - 2 * model.gradient.numpy())):
        left_out = np.array([ratio(np.delete(sample, d, axis=0)) for d in range(draws)])
        error = math.sqrt((draws - 1) / draws * ((left_out - left_out.mean()) ** 2).sum())
        row = rows.loc[(of, "variance")]
        assert row["value"] == pytest.approx(ratio(sample), rel=1e-9)
        assert row["standard_error"] == pytest.approx(error, rel=1e-9)
        row = rows.loc[(of, "norm")]
        sizes = np.linalg.norm(sample, axis=1)
        assert (row["value"], row["sd"]) == pytest.approx((sizes.mean(), sizes.std(ddof=1)))
        assert row["standard_error"] == pytest.approx(sizes.std(ddof=1) / math.sqrt(draws))


def test_input_and_weights_have_rows_of_their_own():
    network = networks.build("time_major_gru")
    setting = setting_of(network, epsilon=0.3, epsilon_weights=0.2, attack_probability=0.5)
    setting["attack_probability_weights"] = 0.25
    table = mask_effects(network.module, network.closure, setting, [0.5, 1.0], draws=2)
    rows = only(table, fixed="epsilon", attack_probability=1.0).set_index(["of", "quantity"])
    # Unmasked: each example's perturbation has norm ε, each weight's (here one) ε_w.
    assert rows.loc[("inputs", "perturbation_norm"), "value"] == pytest.approx(0.3)
    assert rows.loc[("weights", "perturbation_norm"), "value"] == pytest.approx(0.2)
    assert rows.loc[("inputs", "rise"), "value"] > 0
    # The products are those of the setting: 0.5 · 0.3 and 0.25 · 0.2.
    products = only(table, fixed="p epsilon")
    assert (products["attack_probability"] * products["epsilon"]).to_numpy() == pytest.approx(0.15)
    assert (products["attack_probability"] * products["epsilon_weights"]).to_numpy() == pytest.approx(0.05)
    # Unmasked loss by the equations.
    masks = {SITE: torch.ones(1), "gru.weight_hh_l0": torch.ones(1)}
    expected = reference.dropattack(
        network, masks, inputs=SITE, weights=network.weights, epsilon=0.3, epsilon_weights=0.2, batch_dim=1
    )
    for attack in ("inputs", "weights"):
        rise = expected.adversarial_losses[attack][0] - expected.clean_loss
        assert rows.loc[(attack, "rise"), "value"] == pytest.approx(rise.item(), rel=1e-8)


@pytest.mark.parametrize(
    ("probabilities", "draws", "message"),
    [([0.5, 0], 4, r"expected some in \(0, 1\], got 0"), ([0.5], 1, "draws: expected at least 2, got 1")],
)
def test_masks_need_a_probability_and_two_draws(probabilities, draws, message):
    model = Quadratic()
    with pytest.raises(ValueError, match=message):
        mask_effects(model, model, {"weights": ["v"]}, probabilities, draws)


# all tables

TABLES = {
    "compare": lambda model, closure, seed: compare_updates(
        model, closure, {"d": {"name": "dropattack", "inputs": "input", "weights": ["first.weight"]}}, "d", seed
    ),
    "penalty": lambda model, closure, seed: explicit_against_implicit(
        model, closure, {"inputs": "input", "weights": ["first.weight"]}, [0.5], 2, seed
    ),
    "readings": lambda model, closure, seed: reading_effects(
        model, closure, {"inputs": "input", "weights": ["first.weight"], "epsilon": 0.5}, 2, seed
    ),
    "masks": lambda model, closure, seed: mask_effects(
        model, closure, {"inputs": "input", "weights": ["first.weight"]}, [0.4, 1.0], 2, seed
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_repeats_by_its_seed_and_leaves_no_trace(name, noisy):
    model, closure = noisy
    model.last.weight.grad = torch.ones_like(model.last.weight)
    before = state_of(model)
    table = TABLES[name](model, closure, 0)
    assert_untouched(model, before)
    assert torch.equal(model.last.weight.grad, torch.ones_like(model.last.weight))
    assert TABLES[name](model, closure, 0).equals(table)
    assert not TABLES[name](model, closure, 1).equals(table)


@pytest.mark.parametrize("name", TABLES)
def test_a_failing_batch_leaves_no_trace(name, noisy):
    model, closure = noisy
    calls = itertools.count(1)

    def fails():
        loss = closure()
        if next(calls) == 6:
            raise OSError("the data ran out")
        return loss

    before = state_of(model)
    with pytest.raises(OSError, match="the data ran out"):
        TABLES[name](model, fails, 0)
    assert_untouched(model, before)
