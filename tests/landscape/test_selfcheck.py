"""The self-test passes on good models of every layer kind, and fails where something is broken on purpose."""

import contextlib
import re
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from landscape import EmpiricalRisk, Point, random_directions
from landscape.evaluation.moving import Mover
from landscape.parameters import Role
from landscape.selfcheck import CHECKS, check

# One of the good models is one that PyTorch computes in a slower way on CPUs, and says so once a process.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


def labels(count, classes=3):
    return torch.randint(classes, (count,))


def batches_of(inputs, classes=3):
    return list(zip(inputs.split(7), labels(len(inputs), classes).split(7), strict=True))  # the last one is smaller


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.tokens = nn.Embedding(20, 6, padding_idx=0)
        self.recurrent = getattr(nn, kind)(6, 8, batch_first=True, **options)
        self.out = nn.LazyLinear(3)

    def forward(self, ids):
        return self.out(self.recurrent(self.tokens(ids))[0].mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(12, 6)
        self.hidden = nn.Linear(6, 6)
        self.out = nn.Linear(6, 12, bias=False)
        self.out.weight = self.tokens.weight

    def forward(self, ids):
        return self.out(torch.tanh(self.hidden(self.tokens(ids[:, 0]))))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.1, add_bias_kv=True)
        self.out = nn.Linear(8, 3)

    def forward(self, values):
        return self.out(self.attention(values, values, values, need_weights=False)[0].mean(1))


def old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


def convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, groups=2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 3)
    )


def transposed():
    return nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(216, 3))


def perceptron(wrap=lambda layer: layer):
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), wrap(nn.Linear(7, 6)), nn.Tanh(), nn.Linear(6, 3))


def rows(count=17):
    return torch.randn(count, 5)


def ids():
    return torch.randint(20, (17, 5))


MODELS = {
    "perceptron": (perceptron, rows),
    "convolutions and BatchNorm": (convolutions, lambda: torch.randn(17, 2, 8, 8)),
    "grouped transposed convolution": (transposed, lambda: torch.randn(17, 4, 4, 4)),
    "RNN": (lambda: Recurrent("RNN"), ids),
    "LSTM": (lambda: Recurrent("LSTM", num_layers=2, bidirectional=True), ids),
    "LSTM with projection": (lambda: Recurrent("LSTM", proj_size=4), ids),
    "GRU": (lambda: Recurrent("GRU", bidirectional=True), ids),
    "tied embedding": (Tied, lambda: torch.randint(12, (17, 5))),
    "weight_norm": (lambda: perceptron(parametrizations.weight_norm), rows),
    "older weight_norm": (lambda: perceptron(old_weight_norm), rows),
    "weight_norm of a transposed convolution": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.ConvTranspose2d(4, 6, 3, groups=2)), *transposed()[1:]),
        lambda: torch.randn(17, 4, 4, 4),
    ),
    "spectral_norm": (lambda: perceptron(parametrizations.spectral_norm), rows),
    "attention": (Attention, lambda: torch.randn(17, 5, 8)),
    "LayerNorm": (lambda: nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3)), rows),
}


def made(name):
    model, inputs = (make() for make in MODELS[name])
    model(inputs)  # lazy layers, and running statistics that are not the initial ones
    return model.eval(), batches_of(inputs, 12 if name == "tied embedding" else 3)


def trained(model, batches, steps):
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(steps):
        for inputs, targets in batches:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model


def of(report, name):
    (result,) = [result for result in report.results if result.name == name]
    return result


def assert_passes(report):
    assert report.passed, str(report)
    assert [result.name for result in report.results] == list(CHECKS)


@pytest.mark.parametrize("steps", [0, 200], ids=["untrained", "trained until the gradient is lost in rounding"])
@pytest.mark.parametrize("name", MODELS)
def test_good_models_pass(name, steps, unchanged):
    model, batches = made(name)
    trained(model, batches, steps).eval()
    risk = EmpiricalRisk(model, batches)
    with unchanged(model):
        report = check(risk)
    assert_passes(report)
    assert "too small" not in of(report, "loss follows weights").detail


@pytest.mark.parametrize("name", MODELS)
def test_good_models_pass_with_everything_moving(name):
    risk = EmpiricalRisk(*made(name))
    report = check(risk, random_directions(risk.parameters(), ignore=()))
    assert_passes(report)


def test_any_number_of_directions():
    risk = EmpiricalRisk(*made("perceptron"))
    assert_passes(check(risk, random_directions(risk.parameters(), count=3)))
    one = check(risk, random_directions(risk.parameters(), count=1))
    assert one.passed
    assert [result.name for result in one.results] == [name for name in CHECKS if name != "cosine"]


def test_an_exact_minimum_passes():
    # Residuals are exactly zero in float32: so are all gradients, and central differences measure rounding alone.
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)).eval()
    inputs = torch.randn(9, 4)
    with torch.no_grad():
        targets = model(inputs)
    risk = EmpiricalRisk(
        model, [(inputs, targets)], loss=lambda model, batch: (model(batch[0]) - batch[1]).square().sum(1)
    )
    assert risk().loss == 0.0
    report = check(risk)
    assert_passes(report)
    assert "3 of 3 slopes agree" in of(report, "loss follows weights").detail


def test_a_kink_at_the_center_passes():
    # Inputs are orthogonal to the weights, so that each unit sits exactly on the kink: the two one-sided slopes differ,
    # and the gradient, which is 0 there, is neither their mean nor wrong.
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU()).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1.0]]))
    inputs = torch.tensor([[1.0, -1.0], [2.0, -2.0], [-3.0, 3.0]])
    risk = EmpiricalRisk(model, [inputs], loss=lambda model, batch: model(batch)[:, 0])
    for seed in range(10):
        result = of(check(risk, seed=seed), "loss follows weights")
        assert result.passed, result


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_types_pass(dtype):
    model, batches = made("perceptron")
    risk = EmpiricalRisk(model.to(dtype), [(inputs.to(dtype), targets) for inputs, targets in batches])
    assert_passes(check(risk))


def test_options_of_the_risk_pass():
    model, batches = made("convolutions and BatchNorm")
    assert_passes(check(EmpiricalRisk(model, batches, max_batches=2)))
    assert_passes(check(EmpiricalRisk(model, batches, statistics=batches[:1])))
    assert_passes(check(EmpiricalRisk(model, batches, autocast=torch.bfloat16)))


def test_a_shuffled_loader_passes_and_leaves_the_global_generator_alone(unchanged):
    model = made("perceptron")[0]
    dataset = torch.utils.data.TensorDataset(rows(), labels(17))
    risk = EmpiricalRisk(model, torch.utils.data.DataLoader(dataset, batch_size=4, shuffle=True))
    with unchanged(model):
        assert_passes(check(risk))


@pytest.mark.parametrize(
    "context", [torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)], ids=["no_grad", "autocast"]
)
def test_the_callers_mode(context):
    model, batches = made("perceptron")
    with context():
        model(batches[0][0])  # autocast keeps copies of weights
        assert_passes(check(EmpiricalRisk(model, batches)))


def test_an_untidy_model_comes_back(network, unchanged):
    model = network.model.train()
    model[3].eval()
    model[3].bias.requires_grad_(False)
    model[0].weight.grad = torch.randn_like(model[0].weight)
    risk = EmpiricalRisk(model, network.batches)
    with unchanged(model):
        assert_passes(check(risk))


def test_layers_behind_zeros_pass():
    # Residual branches often start at zero: what lies behind them is used, and yet moves no loss.
    model, batches = made("perceptron")
    nn.init.zeros_(model[4].weight)
    report = check(EmpiricalRisk(model, batches))
    assert_passes(report)
    row = report.moved.set_index("parameter").loc["4.weight"]
    assert (row["moved"], row["why_not"]) == (False, "the direction is zero, as the weights are")


class Experts(nn.Module):
    """The second layer is only for inputs whose first entry is above 100."""

    def __init__(self):
        super().__init__()
        self.usual, self.rare = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, inputs):
        return self.rare(inputs) if inputs[0, 0] > 100 else self.usual(inputs)


def test_a_layer_that_only_later_batches_use_passes():
    assert_passes(check(EmpiricalRisk(Experts().eval(), [(rows(4), labels(4)), (rows(3) + 200, labels(3))])))


# What moves


def test_what_moves():
    model, batches = made("grouped transposed convolution")
    model[3].weight.requires_grad_(False)
    risk = EmpiricalRisk(model, batches, parameters=["0.*"])
    table = check(risk).moved.set_index("parameter")
    weight = model[0].weight.detach()
    row = table.loc["0.weight"]
    assert (row["kind"], row["shape"], row["filters"], row["moved"]) == ("transposed convolution", "4×3×3×3", 6, True)
    assert row["weight_norm"] == pytest.approx(float(weight.norm()))
    assert row["direction_norm_0"] == pytest.approx(float(weight.norm()))
    assert row["direction_norm_1"] == pytest.approx(float(weight.norm()))
    assert table["share"].sum() == pytest.approx(1)
    assert row["share"] == weight.numel() / sum(parameter.numel() for parameter in model.parameters())
    assert dict(table["why_not"]) == {
        "0.weight": "",
        "0.bias": "ignored (bias)",
        "3.weight": "requires no gradient",
        "3.bias": "not among the risk's parameters",
    }


def test_a_parameter_that_no_direction_names():
    risk = EmpiricalRisk(*made("perceptron"))
    table = check(
        risk, [{"0.weight": direction["0.weight"]} for direction in random_directions(risk.parameters())]
    ).moved
    assert table.set_index("parameter")["why_not"]["2.weight"] == "no direction names it"


def test_tied_weights_are_one_row_and_are_named():
    report = check(EmpiricalRisk(*made("tied embedding")))
    assert list(report.moved["parameter"]) == ["tokens.weight", "hidden.weight", "hidden.bias"]
    assert of(report, "tied weights").detail == "tokens.weight = out.weight, moved once"


def test_as_text():
    good = str(check(EmpiricalRisk(*made("perceptron"))))
    assert good.count("pass  ") == len(CHECKS)
    assert good.endswith(f"% of the weights move\nall {len(CHECKS)} checks passed")
    assert "2.weight linear" in good
    model, batches = made("perceptron")
    risk = EmpiricalRisk(model, batches)
    direction = random_directions(risk.parameters(), count=1)[0]
    bad = str(check(risk, [direction, direction]))
    assert "\nFAIL  cosine: 1 between directions 0 and 1, expected 0 ± " in bad
    assert bad.endswith("\nfailed: cosine")


# Broken on purpose


class Caching(nn.Module):
    """A layer that computes with a copy of its weights from the first call."""

    def __init__(self, layer, copy):
        super().__init__()
        self.layer, self.copy, self.kept = layer, copy, None

    def forward(self, inputs):
        if self.kept is None:
            self.kept = self.copy(self.layer.weight)
        return functional.linear(inputs, self.kept, self.layer.bias)


class Detached(Caching):
    """A layer whose weights are used and whose gradient is lost."""

    def forward(self, inputs):
        return functional.linear(inputs, self.layer.weight.detach(), self.layer.bias)


LOSES_WEIGHTS = {
    "cached": (lambda layer: Caching(layer, lambda w: w.detach().clone()), "no loss changes when 2.layer.weight moves"),
    "cached with its graph": (
        lambda layer: Caching(layer, lambda w: w * 1.0),
        "2.layer.weight: 0 by central difference",
    ),
    "packed": (
        lambda layer: Caching(layer, lambda w: torch.fake_quantize_per_tensor_affine(w.detach(), 0.1, 0, -128, 127)),
        "no loss changes when 2.layer.weight moves",
    ),
    "detached": (lambda layer: Detached(layer, None), r"2.layer.weight: .* and 0 by its gradient"),
}


@pytest.mark.parametrize("steps", [0, 200], ids=["untrained", "trained"])
@pytest.mark.parametrize("case", LOSES_WEIGHTS)
def test_a_layer_that_does_not_follow_its_weights_fails(case, steps, unchanged):
    wrap, message = LOSES_WEIGHTS[case]
    model, batches = made("perceptron")
    trained(model, batches, steps)
    model[2] = wrap(model[2])
    risk = EmpiricalRisk(model, batches)
    with torch.enable_grad():  # so that a copy may have a graph
        if isinstance(model[2], Caching):
            model[2].kept = None
            model(batches[0][0])
    with unchanged(model):
        report = check(risk)
    assert [result.name for result in report.results if not result.passed] == ["loss follows weights"]
    assert re.search(message, of(report, "loss follows weights").detail), report


def test_cached_parametrizations_fail():
    model, batches = made("weight_norm")
    with parametrize.cached():
        report = check(EmpiricalRisk(model, batches))
    assert "no loss changes when 2.parametrizations.weight.original1 moves" in of(report, "loss follows weights").detail


def test_a_parameter_without_use_fails_until_it_is_left_out():
    model, batches = made("perceptron")
    model.register_module("unused", nn.Linear(2, 2))
    model.forward = lambda inputs: nn.Sequential(*list(model)[:-1])(inputs)
    assert (
        "no loss changes when unused.weight moves"
        in of(check(EmpiricalRisk(model, batches)), "loss follows weights").detail
    )
    assert_passes(check(EmpiricalRisk(model, batches, parameters=["[0-9].*"])))


class Later:
    """Cross-entropy that turns bad when it is told to, as what is bad from the start is refused by the risk itself."""

    def __init__(self, then):
        self.then, self.calls, self.bad = then, 0, False

    def __call__(self, model, batch):
        self.calls += 1
        losses = functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
        return self.then(self, losses) if self.bad else losses


def stochastic(_loss, losses):
    return losses + 0.01 * torch.rand(len(losses))


def counting(loss, losses):
    return losses + 0.001 * loss.calls


@pytest.mark.parametrize("then", [stochastic, counting], ids=["random numbers", "counted calls"])
def test_passes_that_disagree_fail(then, unchanged):
    model, batches = made("perceptron")
    loss = Later(then)
    risk = EmpiricalRisk(model, batches, loss=loss)
    loss.bad = True
    with unchanged(model):
        report = check(risk)
    assert not of(report, "two passes").passed
    assert "not bit for bit" in of(report, "two passes").detail


def test_an_error_is_a_finding_and_the_other_checks_go_on(unchanged):
    model, batches = made("perceptron")
    start = model[0].weight.detach().clone()

    def loss(model, batch):
        if not torch.equal(model[0].weight, start):
            raise RuntimeError("these are not my weights")
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    risk = EmpiricalRisk(model, batches, loss=loss)
    with unchanged(model):
        report = check(risk)
    assert len(report.results) == len(CHECKS)
    assert of(report, "center").detail == "stopped by RuntimeError: these are not my weights"
    assert of(report, "filter norms").passed


class LastBatchLost(EmpiricalRisk):
    def _on_device(self):
        batches = list(super()._on_device())
        yield from batches[:-1]


class StuckOnWalks(EmpiricalRisk):
    """Stays at the first point of a walk."""

    first = None

    def at_each(self, moves):
        self.first = self.first or moves[0]
        return super().at_each([self.first for _ in moves])


class TwiceAsFar(EmpiricalRisk):
    @contextlib.contextmanager
    def along(self, directions, center=None):
        with super().along(directions, center) as move:
            yield lambda coordinates: move([2 * coordinate for coordinate in coordinates])


class Accumulating(EmpiricalRisk):
    """Every move starts where the last one ended."""

    @contextlib.contextmanager
    def along(self, directions, center=None):
        with super().along(directions, center):

            def move(coordinates):
                with torch.no_grad():
                    for coordinate, direction in zip(coordinates, directions, strict=True):
                        for name, step in direction.items():
                            self.model.get_parameter(name).add_(step, alpha=coordinate)

            yield move


class BiasesToo(EmpiricalRisk):
    @contextlib.contextmanager
    def along(self, directions, center=None):
        with super().along(directions, center) as move, self.at({"0.bias": self.model[0].bias + 0.1}):
            yield move


class StatisticsToo(EmpiricalRisk):
    @contextlib.contextmanager
    def along(self, directions, center=None):
        with super().along(directions, center) as move, self.evaluation():
            self.model[1].running_mean.add_(0.1)
            yield move


class NotPutBack(EmpiricalRisk):
    @contextlib.contextmanager
    def along(self, directions, center=None):
        targets = {name: self.model.get_parameter(name).detach() for name in directions[0]}
        yield Mover(targets, {name: tensor.clone() for name, tensor in targets.items()}, directions)


class NotPutBackAfterErrors(EmpiricalRisk):
    @contextlib.contextmanager
    def along(self, directions, center=None):
        before = {name: tensor.clone() for name, tensor in self.parameters().items()}
        with NotPutBack.along(self, directions, center) as move:
            yield move
        with torch.no_grad():
            for name, tensor in before.items():
                self.model.get_parameter(name).copy_(tensor)


class Untying(EmpiricalRisk):
    @contextlib.contextmanager
    def along(self, directions, center=None):
        with super().along(directions, center) as move:
            tied, self.model.out.weight = self.model.out.weight, nn.Parameter(self.model.out.weight.detach().clone())
            yield move
            self.model.out.weight = tied


BROKEN_RISKS = {
    "last batch lost": (LastBatchLost, "perceptron", "center", r"over 17 examples from a plain loop, got \S+ over 14"),
    "stuck on walks": (StuckOnWalks, "perceptron", "center", "on a walk"),
    "twice as far": (TwiceAsFar, "perceptron", "off center", r"at \(0.1, -0.05\) expected"),
    "moves to elsewhere": (TwiceAsFar, "perceptron", "moves", "0.weight is off by"),
    "accumulating": (Accumulating, "perceptron", "off center", "weights set by hand"),
    "biases too": (BiasesToo, "perceptron", "the rest", "0.bias is changed"),
    "statistics too": (StatisticsToo, "convolutions and BatchNorm", "the rest", "1.running_mean is changed"),
    "not put back": (NotPutBack, "perceptron", "restored", "after moves: 0.weight is changed; 2.weight is changed"),
    "not put back after errors": (
        NotPutBackAfterErrors, "perceptron", "restored", "^after an exception between moves: 0.weight is changed",
    ),
    "untying": (Untying, "tied embedding", "tied weights", "tokens.weight and out.weight are no longer the tensors"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_RISKS)
def test_broken_risks_fail(case, unchanged):
    kind, name, failing, message = BROKEN_RISKS[case]
    model, batches = made(name)
    with unchanged(model):
        report = check(kind(model, batches))
    assert not of(report, failing).passed
    assert re.search(message, of(report, failing).detail), report


class Careless(nn.Module):
    """Does to itself, when it is called and moved, what the case says."""

    def __init__(self, act):
        super().__init__()
        self.layer, self.act, self.bad = nn.Linear(5, 3), act, False

    def forward(self, inputs):
        if self.bad:
            self.act(self)
        return self.layer(inputs)


def tidy_gradient(model):
    model.layer.weight.grad = torch.zeros_like(model.layer.weight)


CARELESS = {
    "training": (lambda model: model.train(), "training of the model; training of layer"),
    "requires_grad": (lambda model: model.layer.bias.requires_grad_(False), "requires_grad of layer.bias"),
    "grad": (tidy_gradient, ".grad of layer.weight"),
    "frozen weights": (lambda model: model.layer.bias.detach().add_(1.0), "layer.bias is changed"),
}


@pytest.mark.parametrize("case", CARELESS)
def test_models_that_change_themselves_fail(case, unchanged):
    act, message = CARELESS[case]
    model = Careless(act).eval()
    risk = EmpiricalRisk(model, batches_of(rows()))
    model.bad = True
    with unchanged(model):
        report = check(risk)
    assert f"after moves: {message}" in of(report, "restored").detail


def scaled_row(direction, point):
    direction["2.weight"][4] *= 1.01
    return direction


def by_layer(direction, point):
    return random_directions(point, normalization="layer")[0]


def bare(direction, point):
    return random_directions(point, normalization="none")[0]


def as_one_group(direction, point):
    roles = {name: Role(role.kind) for name, role in point.roles.items()}
    return random_directions(Point(point, roles))[0]


def as_convolution(direction, point):
    return random_directions(Point(point, {name: Role("convolution") for name in point.roles}), ignore=("*bias",))[0]


def padding_moves(direction, point):
    direction["tokens.weight"][0] = 0.1
    return direction


BROKEN_DIRECTIONS = {
    "one row": (
        scaled_row,
        "perceptron",
        r"^2.weight, filter 4 of direction 0: expected [\d.]+, got [\d.]+; of 3 linear",
    ),
    "by layer": (by_layer, "perceptron", "0.weight, filter"),
    "not normalized": (bare, "convolutions and BatchNorm", "0.weight, filter"),
    "by layer, recurrent": (by_layer, "LSTM", "recurrent.weight_hh_l0, filter"),
    "by layer, attention": (by_layer, "attention", "attention.in_proj_weight, filter"),
    "by layer, weight_norm": (by_layer, "weight_norm", "2.parametrizations.weight.original1, filter"),
    "groups forgotten": (as_one_group, "grouped transposed convolution", "0.weight, filter"),
    "first axis of a transposed convolution": (as_convolution, "grouped transposed convolution", "0.weight, filter"),
    "padding row": (padding_moves, "GRU", "tokens.weight, filter 0 of direction 0: expected 0, got"),
}


@pytest.mark.parametrize("case", BROKEN_DIRECTIONS)
def test_broken_directions_fail(case):
    change, name, message = BROKEN_DIRECTIONS[case]
    model, batches = made(name)
    if name == "GRU":
        with torch.no_grad():
            model.tokens.weight[0] = 0.0  # spoiled by the lazy layer's first pass if at all
    risk = EmpiricalRisk(model, batches)
    point = risk.parameters()
    first, second = random_directions(point)
    report = check(risk, [change(first, point), second])
    assert not of(report, "filter norms").passed
    assert re.search(message, of(report, "filter norms").detail), report


def test_directions_that_are_not_independent_fail():
    risk = EmpiricalRisk(*made("perceptron"))
    first, second = random_directions(risk.parameters())
    for other in (
        first,
        {name: -step for name, step in first.items()},
        {n: 0.8 * first[n] + 0.6 * second[n] for n in first},
    ):
        assert not of(check(risk, [first, other]), "cosine").passed


def test_the_spread_of_cosines_is_that_of_independent_directions():
    # 300 pairs: their mean square divided by the predicted one has a standard error of sqrt(2 / 300) = 0.08.
    risk = EmpiricalRisk(*made("convolutions and BatchNorm"))
    pattern = re.compile(r"^(\S+) between directions 0 and 1, expected 0 ± (\S+) ")
    pairs = []
    for seed in range(300):
        subject = types.SimpleNamespace(root=risk.model, directions=random_directions(risk.parameters(), seed=seed))
        pairs.append([float(number) for number in pattern.match(CHECKS["cosine"](subject)[1]).groups()])
    cosines, spreads = np.array(pairs).T
    assert np.mean(cosines**2) / np.mean(spreads**2) == pytest.approx(1, abs=4 * 0.08)


def test_weights_that_share_memory_without_being_one_parameter_fail():
    model, batches = made("tied embedding")
    model.out.weight = nn.Parameter(torch.empty(0))
    model.out.weight.data = model.tokens.weight.data
    report = check(EmpiricalRisk(model, batches))
    assert of(report, "tied weights").detail == "tokens.weight and out.weight share memory and both move"
    assert "tokens.weight is off by" in of(report, "moves").detail


@pytest.mark.parametrize(
    ("directions", "message"),
    [([], "expected at least one, got none"), ([{"9.weight": torch.ones(2)}], "unknown parameter '9.weight'")],
    ids=["none", "unknown parameter"],
)
def test_wrong_arguments(directions, message, unchanged):
    model, batches = made("perceptron")
    risk = EmpiricalRisk(model, batches)
    with unchanged(model), pytest.raises(ValueError, match=message):
        check(risk, directions)
