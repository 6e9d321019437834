"""Rescalings that leave the function alone: which are found, what they move, and that nothing is left behind."""

import io
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk, hessian_eigenvalues, hessian_trace
from landscape.flatness.average_case import filter_normalized_rise, isotropic_rise
from landscape.flatness.invariant import filter_normalized_trace, fisher_rao_norm, relative_flatness
from landscape.flatness.measurement import Measurement, Metric
from landscape.flatness.worst_case import adaptive_sharpness, epsilon_sharpness, sam_sharpness
from landscape.rescaling import Rescaling, describe_scale_check, rescalings, scale_check


def top_eigenvalue(risk, seed):
    return Measurement(float(hessian_eigenvalues(risk, seed=seed).eigenvalues[0]))


def trace(risk, seed):
    found = hessian_trace(risk, tolerance=1e-9, max_products=20, seed=seed)
    return Measurement(found.value, found.standard_error)


def gaussian(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def make_risk(model, inputs, **options):
    labels = torch.arange(len(inputs)) % 2
    batches = list(zip(inputs.split(5), labels.split(5), strict=True))
    return EmpiricalRisk(model.double().eval(), batches, **options)


def mlp(activation=nn.ReLU):
    return nn.Sequential(nn.Linear(3, 6), activation(), nn.Linear(6, 5), activation(), nn.Linear(5, 2))


def lenet():
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)),
    )


def batch_norm_network():
    model = nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)),
        *(nn.Tanh(), nn.Flatten(), nn.Linear(16, 2)),
    )
    model.double().train()(gaussian(40, 1, 6, 6))  # statistics that belong to the weights
    return model


class Reader(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.embedding, self.layer = nn.Embedding(9, 3), layer
        self.head = nn.Linear(8 if layer.bidirectional else 4, 2)

    def forward(self, tokens):
        return self.head(self.layer(self.embedding(tokens))[0][:, -1])


class TextCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 3)
        self.convs = nn.ModuleList(nn.Conv1d(3, 2, size) for size in (2, 3))
        self.head = nn.Linear(4, 2)

    def forward(self, tokens):
        states = self.embedding(tokens).transpose(1, 2)
        return self.head(torch.cat([conv(states).relu().amax(2) for conv in self.convs], 1))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer, self.head = (nn.Linear(3, 3) for _ in range(4))

    def forward(self, inputs):
        states = self.stem(inputs).relu()
        return self.head((states + self.outer(self.inner(states).relu())).relu())


class Tied(nn.Module):
    """The output layer holds the same matrix as the embedding, as language models do."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.embedding(tokens).mean(1))


def tied_layers():
    layers = [nn.Linear(3, 3, bias=False) for _ in range(2)]
    layers[1].weight = layers[0].weight
    return nn.Sequential(
        layers[0], nn.ReLU(), layers[1], nn.LayerNorm(3, 1e-12, elementwise_affine=False), nn.Linear(3, 2)
    )


IMAGES, TOKENS = (12, 1, 6, 6), lambda: torch.randint(0, 9, (12, 5))
FOUND = {
    "ReLU": (mlp, lambda: gaussian(12, 3), ["0 × 4, 2 ÷ 4", "2 × 4, 4 ÷ 4"]),
    "LeNet": (lenet, lambda: gaussian(12, 1, 8, 8), ["0 × 4, 3 ÷ 4", "3 × 4, 7 ÷ 4", "7 × 4, 9 ÷ 4"]),
    "BatchNorm": (batch_norm_network, lambda: gaussian(*IMAGES), ["0 × 4 before 1", "1 × 4, 3 ÷ 4", "3 × 4 before 4"]),
    "LayerNorm": (
        lambda: nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)),
        lambda: gaussian(12, 3),
        ["0 × 4 before 1", "1 × 4, 2 ÷ 4"],
    ),
    "LSTM": (
        lambda: Reader(nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)),
        TOKENS,
        ["embedding × 4, layer ÷ 4"],
    ),
    "GRU": (lambda: Reader(nn.GRU(3, 4, batch_first=True)), TOKENS, ["embedding × 4, layer ÷ 4"]),
    "TextCNN": (
        TextCNN,
        TOKENS,
        ["embedding × 4, convs.0, convs.1 ÷ 4", "convs.0, convs.1 × 4, head ÷ 4"],
    ),
    # stem feeds inner and the sum, so only what is inside the branch trades a factor
    "residual": (Residual, lambda: gaussian(12, 3), ["inner × 4, outer ÷ 4"]),
    "tanh": (lambda: mlp(nn.Tanh), lambda: gaussian(12, 3), []),
    "GELU": (lambda: mlp(nn.GELU), lambda: gaussian(12, 3), []),
    "bare LayerNorm": (
        lambda: nn.Sequential(
            *(
                nn.LayerNorm(3, elementwise_affine=False),
                nn.Linear(3, 6, bias=False),
                nn.LayerNorm(6, 1e-12, elementwise_affine=False),
            ),
            *(nn.Tanh(), nn.Linear(6, 2)),
        ),
        lambda: gaussian(12, 3),
        ["1 × 4 before 2"],
    ),
    # the two layers are one matrix, so that only both can be multiplied, which the normalization undoes
    "tied layers": (tied_layers, lambda: gaussian(12, 3), ["2 × 4 before 3"]),
    "tied": (Tied, lambda: torch.randint(0, 4, (12, 5)), []),
}


@pytest.mark.parametrize("model", FOUND)
def test_rescalings_are_found(model):
    make, inputs, names = FOUND[model]
    assert [one.name for one in rescalings(make_risk(make(), inputs()))] == names


@pytest.mark.parametrize("model", [model for model in FOUND if FOUND[model][2]])
def test_what_is_found_leaves_every_loss_alone_and_multiplies_what_it_says(model):
    make, inputs, _ = FOUND[model]
    risk = make_risk(make(), inputs())

    def losses():
        with risk.evaluation(), torch.no_grad():
            return torch.cat(list(risk.example_losses()))

    tensors = dict(risk.model.named_parameters()) | dict(risk.model.named_buffers())
    before, state = losses(), {name: tensor.detach().clone() for name, tensor in tensors.items()}
    for one in rescalings(risk):
        with one.applied(risk):
            change = (losses() - before).abs().max() / before.max()
            for name, tensor in tensors.items():
                assert torch.equal(tensor, state[name] * one.factors.get(name, 1)), name
        assert float(change) == pytest.approx(one.loss_change, abs=1e-15)
        # Powers of two are exact, so only the eps of a normalization remains. The products of a matrix are summed in
        # the same order, and multiplying by four shifts exponents alone.
        assert change <= (1e-3 if "before" in one.name else 1e-14)


def test_factors_of_each_kind_of_tensor():
    # The input weights of both directions of an LSTM's first layer, and neither its biases nor its recurrent weights.
    (one,) = rescalings(make_risk(FOUND["LSTM"][0](), TOKENS()), factor=8)
    assert one.factors == {
        "embedding.weight": 8,
        "layer.weight_ih_l0": 1 / 8,
        "layer.weight_ih_l0_reverse": 1 / 8,
    }
    # Mean and variance of what is multiplied by c are multiplied by c and c squared.
    before_normalization, after, _ = rescalings(make_risk(batch_norm_network(), gaussian(*IMAGES)))
    assert before_normalization.factors == {"0.weight": 4, "0.bias": 4, "1.running_mean": 4, "1.running_var": 16}
    assert after.factors == {"1.weight": 4, "1.bias": 4, "3.weight": 1 / 4}


def test_the_constant_in_a_normalization_decides_how_much_changes():
    # x / sqrt(v + eps) becomes c x / sqrt(c^2 v + eps): nothing changes without eps. With eps as large as the variance
    # the function is another one, and the rescaling is none.
    def changes(eps):
        torch.manual_seed(3)
        model = batch_norm_network()
        model[1].eps = model[4].eps = eps
        return {one.name: one.loss_change for one in rescalings(make_risk(model, gaussian(*IMAGES)))}

    names = FOUND["BatchNorm"][2]
    assert list(changes(1e-12)) == list(changes(1e-6)) == names
    for name in ("0 × 4 before 1", "3 × 4 before 4"):
        assert 0 < changes(1e-12)[name] < 1e-9
        assert changes(1e-6)[name] == pytest.approx(1e6 * changes(1e-12)[name], rel=0.05)
    assert list(changes(1.0)) == ["1 × 4, 3 ÷ 4"]


def test_statistics_that_are_estimated_anew_follow_the_weights():
    model, inputs = batch_norm_network(), gaussian(*IMAGES)
    labels = torch.arange(12) % 2
    batches = list(zip(inputs.split(5), labels.split(5), strict=True))
    risk = EmpiricalRisk(model.eval(), batches, statistics=[(gaussian(40, 1, 6, 6), torch.arange(40) % 2)])
    assert [one.name for one in rescalings(risk)] == FOUND["BatchNorm"][2]


def test_factors_that_are_no_power_of_two_work_in_float32():
    risk = EmpiricalRisk(mlp().eval(), [(torch.randn(12, 3), torch.arange(12) % 2)])
    found = rescalings(risk, factor=3)
    assert [one.name for one in found] == ["0 × 3, 2 ÷ 3", "2 × 3, 4 ÷ 3"]
    assert all(one.loss_change < 1e-5 for one in found)


def test_layers_that_the_risk_does_not_vary_are_rescaled_too():
    model = mlp()
    model[0].requires_grad_(False)
    risk = make_risk(model, gaussian(12, 3), parameters=["4.*"])
    assert [one.name for one in rescalings(risk)] == FOUND["ReLU"][2]


@pytest.mark.parametrize("factor", [1, 0, -2, math.inf, math.nan])
def test_factors_that_rescale_nothing_are_refused(factor):
    with pytest.raises(ValueError, match="factor: expected a positive number other than 1, got"):
        rescalings(make_risk(mlp(), gaussian(12, 3)), factor)


def test_a_rescaling_of_another_model_is_refused():
    stranger = Rescaling("stem × 4, head ÷ 4", {"0.weight": 4.0, "stem.weight": 0.25})
    risk = make_risk(mlp(), gaussian(12, 3))
    before = risk.parameters()
    with pytest.raises(ValueError, match=r"stem × 4, head ÷ 4: expected a model with the tensor 'stem\.weight'"):
        stranger.applied(risk).__enter__()
    assert torch.equal(risk.parameters()["0.weight"], before["0.weight"])


def test_the_model_is_the_same_afterwards_also_after_an_exception(unchanged):
    model = batch_norm_network()
    model[3].weight.grad = gaussian(4, 3, 3, 3)
    risk = make_risk(model, gaussian(*IMAGES))
    model.train()

    def fails(risk, seed):
        if not torch.equal(risk.parameters()["0.weight"], first):
            raise RuntimeError("metric failed")
        return Measurement(1.0)

    first = risk.parameters()["0.weight"]
    with unchanged(model):
        (one, *_) = rescalings(risk, factor=3)  # which rounding would not undo
        with one.applied(risk):
            assert not torch.equal(model[0].weight, first)
        with pytest.raises(RuntimeError, match="metric failed"):
            scale_check(risk, {"fails": fails}, factor=3)


def test_hooks_are_gone_after_a_forward_pass_that_failed(unchanged):
    risk = make_risk(mlp(), gaussian(12, 3))
    risk.batches[0] = (gaussian(5, 4), risk.batches[0][1])
    with unchanged(risk.model), pytest.raises(RuntimeError, match="cannot be multiplied"):
        rescalings(risk)


def entry(measure, rescaling, part="", **options):
    return Metric(measure, "", "", "sharper", "", rescaling, part, options)


METRICS = {
    "filter_normalized_trace": entry(filter_normalized_trace, "unchanged", max_products=10),
    "filter_normalized_rise": entry(filter_normalized_rise, "unchanged", draws=4),
    "relative_flatness": entry(relative_flatness, "unchanged", layers=["*"], max_products=10),
    "fisher_rao_norm": entry(fisher_rao_norm, "unchanged"),
    "adaptive_sharpness": entry(adaptive_sharpness, "unchanged", radii=(0.1,), steps=(1, 4)),
    "top_eigenvalue": entry(top_eigenvalue, "changes"),
    "trace": entry(trace, "changes"),
    "sam_sharpness": entry(sam_sharpness, "changes", radii=(0.1,), steps=(1,)),
    "epsilon_sharpness": entry(epsilon_sharpness, "changes", radii=(1e-3,)),
    "isotropic_rise": entry(isotropic_rise, "changes", radii=(0.3,), draws=30),
}
FIRST_ORDER = {"sam_sharpness", "epsilon_sharpness"}
CURVATURE = {"top_eigenvalue", "trace", "isotropic_rise"}


@pytest.mark.parametrize(
    ("model", "moving", "rtol"),
    [
        ("ReLU", FIRST_ORDER | CURVATURE, 1e-9),  # exact but for sums in another order
        ("LSTM", FIRST_ORDER, 1e-9),  # untrained, its curvature lies in the last layer, which no rescaling reaches
        ("BatchNorm", FIRST_ORDER | {"top_eigenvalue"}, 2e-3),  # eps is 1e-5, variances about 1/10
    ],
)
def test_metrics_move_as_they_state(model, moving, rtol):
    make, inputs, names = FOUND[model]
    unmoved = {name for name in METRICS if METRICS[name].rescaling == "unchanged"}
    chosen = {name: METRICS[name] for name in METRICS if name in unmoved | moving}
    table = scale_check(make_risk(make(), inputs()), chosen)
    assert list(dict.fromkeys(table["rescaling"])) == names
    assert set(table["metric"]) == set(chosen)
    unchanged = table[table["stated"] == "unchanged"]
    np.testing.assert_allclose(unchanged["after"], unchanged["before"], rtol=rtol, atol=1e-12)
    assert set(unchanged["metric"]) == unmoved
    assert not unchanged["moves"].any()
    assert unchanged["agrees"].all()
    assert set(table.loc[table["moves"], "metric"]) == moving
    assert table["agrees"].dropna().all()


def test_the_trace_of_a_quadratic_moves_by_the_square_of_the_factor():
    # For a, b > 0 the loss (b relu(a))^2 / 2 has second derivatives b^2 by a and a^2 by b: trace a^2 + b^2. Multiplying
    # a by 4 and dividing b by 4 makes it 16 a^2 + b^2 / 16.
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False)).double().eval()
    with torch.no_grad():
        model[0].weight.fill_(1.5)
        model[2].weight.fill_(0.5)
    risk = EmpiricalRisk(model, [torch.ones(3, 1).double()], loss=lambda model, x: model(x).squeeze(1) ** 2 / 2)

    def exact_trace(risk, seed):
        columns = [{"0.weight": torch.ones(1, 1).double()}, {"2.weight": torch.ones(1, 1).double()}]
        return Measurement(sum(float(*risk.hessian_product(one).values()) for one in columns))

    (row,) = scale_check(risk, {"exact": exact_trace}).to_dict("records")
    assert row["before"] == pytest.approx(2.5)
    assert row["after"] == pytest.approx(16 * 2.25 + 0.25 / 16)
    assert row["ratio"] == pytest.approx(row["after"] / 2.5)
    assert row["moves"]
    assert row["stated"] == ""
    assert pd.isna(row["agrees"])
    assert row["loss_change"] == 0


def steered(*measurements):
    """A metric that returns one measurement after the other: the first before, the second after the rescaling."""
    upcoming = iter(measurements)
    return lambda risk, seed, **label: next(upcoming)


ONE = [Rescaling("0 × 4, 2 ÷ 4", {"0.weight": 4.0}, 0.0)]
CASES = {
    # before, after -> error of the change, moves
    "below one percent": (Measurement(1.0), Measurement(1.009), 0.0, False),
    "above one percent": (Measurement(1.0), Measurement(1.02), 0.0, True),
    "within three errors": (Measurement(1.0, 0.3), Measurement(2.4, 0.4), 0.5, False),
    "beyond three errors": (Measurement(1.0, 0.3), Measurement(2.6, 0.4), 0.5, True),
    # the same shift of each draw: its error is zero, whatever the spread of the draws
    "common draws": (Measurement(2.0, 9, draws=(1.0, 3.0)), Measurement(2.5, 9, draws=(1.5, 3.5)), 0.0, True),
    # changes 0 and 1: mean 1/2, standard error sqrt(1/2) / sqrt(2) = 1/2
    "draws that differ": (Measurement(2.0, 9, draws=(1.0, 3.0)), Measurement(2.5, 9, draws=(1.0, 4.0)), 0.5, False),
    "another number of draws": (Measurement(2.0, 3.0, draws=(1, 3)), Measurement(30.0, 4.0, draws=(1,)), 5.0, True),
    "refused": (Measurement(1.0), Measurement(math.nan), 0.0, None),
    "infinite": (Measurement(math.inf), Measurement(1.0), 0.0, True),
    "zero": (Measurement(0.0), Measurement(0.0), 0.0, False),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stated", ["unchanged", "changes"])
def test_what_counts_as_moving(case, stated):
    before, after, error, moves = CASES[case]
    risk = make_risk(mlp(), gaussian(12, 3))
    (row,) = scale_check(risk, {"steered": entry(steered(before, after), stated)}, rescalings=ONE).to_dict("records")
    assert row["standard_error"] == pytest.approx(error)
    if moves is None:
        assert pd.isna(row["moves"])
        assert pd.isna(row["agrees"])
    else:
        assert row["moves"] == moves
        if stated == "changes" and not moves:  # another rescaling may
            assert pd.isna(row["agrees"])
        else:
            assert row["agrees"] == (moves == (stated == "changes"))


def test_a_setting_that_is_not_found_afterwards_is_missing():
    first, second = (Measurement(1.0, setting={"rank": rank}) for rank in (1, 2))
    table = scale_check(make_risk(mlp(), gaussian(12, 3)), {"few": steered([first, second], [first])}, rescalings=ONE)
    assert list(table["setting"]) == ["rank=1", "rank=2"]
    assert math.isnan(table["after"][1])
    assert list(table["moves"].isna()) == [False, True]
    assert list(table["converged"]) == [True, False]


def test_parts_and_settings_become_rows_and_one_pass_serves_all_parts():
    calls = []

    def several(risk, seed, radii=(1,)):
        calls.append(seed)
        per_radius = [Measurement(float(radius), setting={"rho": radius, "steps": 1}) for radius in radii]
        return {"a": per_radius, "b": Measurement(5.0, converged=False)}

    chosen = {
        "first": entry(several, "unchanged", part="a", radii=(1, 2)),
        "second": entry(several, "unchanged", part="b", radii=(1, 2)),
        "plain": lambda risk, seed: several(risk, seed)["a"],
    }
    table = scale_check(make_risk(mlp(), gaussian(12, 3)), chosen, seed=7, rescalings=ONE)
    assert list(zip(table["metric"], table["setting"], table["before"], table["converged"], strict=True)) == [
        ("first", "rho=1, steps=1", 1.0, True),
        ("first", "rho=2, steps=1", 2.0, True),
        ("second", "", 5.0, False),
        ("plain", "rho=1, steps=1", 1.0, True),
    ]
    assert calls == [7] * 4  # one for both parts and one for the plain function, before and after


def test_a_model_without_rescalings_is_told_so_in_words():
    def never(risk, seed):
        raise AssertionError("nothing to compare with")

    table = scale_check(make_risk(mlp(nn.Tanh), gaussian(12, 3)), {"never": never})
    assert table.empty
    assert list(table.columns[:3]) == ["rescaling", "metric", "setting"]
    assert table.attrs["summary"].startswith("No rescaling was found that leaves the function alone")


def test_the_summary_says_what_moved_also_after_a_round_trip_through_a_file():
    risk = make_risk(mlp(), gaussian(12, 3))
    two = [*ONE, Rescaling("2 × 4, 4 ÷ 4", {"2.weight": 4.0}, 0.0)]
    values = {"still": (1, 1, 1), "moved": (1, 4, 1), "wrong": (1, 1, 2), "broken": (1, math.nan, 1)}
    stated = {"still": "unchanged", "moved": "changes", "wrong": "unchanged", "broken": "unchanged"}
    chosen = {name: entry(steered(*map(Measurement, values[name])), stated[name], name=name) for name in values}
    table = scale_check(risk, chosen, rescalings=two)
    expected = [
        "still: not moved by any of 2 rescalings; stated: unchanged",
        "moved: moved by 1 of 2 rescalings, by factors from 4 to 4; stated: changes",
        "wrong: moved by 1 of 2 rescalings, by factors from 2 to 2; stated: unchanged; THIS DISAGREES",
        "broken: not moved by any of 2 rescalings (some values are not numbers); stated: unchanged",
    ]
    assert table.attrs["summary"].splitlines() == expected
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert describe_scale_check(again).splitlines() == expected


def test_metrics_are_chosen_by_name(monkeypatch):
    known = {"one": entry(lambda risk, seed: Measurement(1.0), "unchanged"), "two": lambda risk, seed: Measurement(2.0)}
    monkeypatch.setattr("landscape.flatness.table.METRICS", known)
    risk = make_risk(mlp(), gaussian(12, 3))
    assert list(scale_check(risk, ["two"], rescalings=ONE)["metric"]) == ["two"]
    assert list(scale_check(risk, rescalings=ONE)["metric"]) == ["one", "two"]
    with pytest.raises(ValueError, match="unknown metric 'three'; known: one, two"):
        scale_check(risk, ["one", "three"], rescalings=ONE)
    with pytest.raises(TypeError, match=r"expected a sequence, got the string 'one'; write \['one'\]"):
        scale_check(risk, "one")
