"""Random directions have the norms of the weights, filter by filter, and draws that depend on little."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from landscape import EmpiricalRisk, Point, random_directions
from landscape.parameters import roles_of

SMALL = st.integers(1, 4)


def point_of(model):
    return Point({name: tensor.detach().clone() for name, tensor in model.named_parameters()}, roles_of(model))


def rows(tensor):
    return [tensor[index] for index in range(len(tensor))]


def output_channels(weight, groups):
    """The filters of a transposed convolution, one by one, from the definition of grouped channels."""
    inputs, per_group = weight.shape[0] // groups, weight.shape[1]
    return [
        weight[group * inputs : (group + 1) * inputs, channel]
        for group in range(groups)
        for channel in range(per_group)
    ]


def assert_same_norms(filters, expected):
    assert len(filters) == len(expected)
    for one, other in zip(filters, expected, strict=True):
        assert float(one.double().norm()) == pytest.approx(float(other.double().norm()), rel=1e-5, abs=1e-30)


LAYERS = {
    "linear": lambda a, b, c: nn.Linear(a, b),
    "bilinear": lambda a, b, c: nn.Bilinear(a, b, c),
    "convolution 1d": lambda a, b, c: nn.Conv1d(a * c, b * c, 2, groups=c),
    "convolution 2d": lambda a, b, c: nn.Conv2d(a * c, b * c, (2, 3), groups=c),
    "convolution 3d": lambda a, b, c: nn.Conv3d(a * c, b * c, (1, 2, 3), groups=c),
    "embedding": lambda a, b, c: nn.Embedding(a, b),
    "embedding bag": lambda a, b, c: nn.EmbeddingBag(a, b),
    "RNN": lambda a, b, c: nn.RNN(a, b, num_layers=c, bidirectional=True),
    "LSTM": lambda a, b, c: nn.LSTM(a, b, num_layers=c, bidirectional=True),
    "LSTM with projection": lambda a, b, c: nn.LSTM(a, b + 1, num_layers=c, proj_size=b),
    "GRU": lambda a, b, c: nn.GRU(a, b, num_layers=c, bidirectional=True),
    "GRU cell": lambda a, b, c: nn.GRUCell(a, b),
    "attention": lambda a, b, c: nn.MultiheadAttention(a * b, a, kdim=c, vdim=c),
    "packed attention": lambda a, b, c: nn.MultiheadAttention(a * b, a),
}


@pytest.mark.parametrize("layer", LAYERS)
@settings(max_examples=15, deadline=None)
@given(a=SMALL, b=SMALL, c=SMALL)
def test_each_row_has_the_norm_of_the_weights_row(layer, a, b, c):
    point = point_of(LAYERS[layer](a, b, c))
    (direction,) = random_directions(point, count=1)
    assert set(direction) == {name for name in point if "bias" not in name}
    for name, moved in direction.items():
        assert_same_norms(rows(moved), rows(point[name]))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@settings(max_examples=15, deadline=None)
@given(inputs=SMALL, outputs=SMALL, groups=SMALL, kernel=st.integers(1, 3))
def test_each_output_channel_of_a_transposed_convolution(dimensions, inputs, outputs, groups, kernel):
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dimensions - 1]
    layer = kind(inputs * groups, outputs * groups, kernel, groups=groups)
    (direction,) = random_directions(point_of(layer), count=1)
    assert list(direction) == ["weight"]
    expected = output_channels(layer.weight.detach(), groups)
    assert len(expected) == outputs * groups
    assert_same_norms(output_channels(direction["weight"], groups), expected)


def test_an_output_channel_of_a_transposed_convolution_is_what_one_output_depends_on():
    # The definition that `output_channels` builds on: only that filter moves that channel of the output.
    layer = nn.ConvTranspose1d(4, 6, 2, groups=2, bias=False)
    inputs = torch.randn(1, 4, 5)
    before = layer(inputs)
    for channel in range(6):
        weight = layer.weight.detach().clone()
        output_channels(weight, groups=2)[channel].add_(1.0)
        after = nn.functional.conv_transpose1d(inputs, weight, groups=2)
        assert [index for index in range(6) if not torch.equal(after[:, index], before[:, index])] == [channel]


def test_a_padding_row_stays_zero():
    point = point_of(nn.Embedding(5, 3, padding_idx=2))
    (direction,) = random_directions(point, count=1)
    assert not direction["weight"][2].any()
    assert direction["weight"][[0, 1, 3, 4]].all()
    assert_same_norms(rows(direction["weight"]), rows(point["weight"]))


def test_tied_weights_move_once():
    model = nn.ModuleDict({"tokens": nn.Embedding(5, 3), "logits": nn.Linear(3, 5, bias=False)})
    model["logits"].weight = model["tokens"].weight
    (direction,) = random_directions(point_of(model), count=1)
    assert list(direction) == ["tokens.weight"]
    assert_same_norms(rows(direction["tokens.weight"]), rows(model["tokens"].weight.detach()))


def test_weight_norm_moves_the_direction_by_rows_and_not_the_magnitude():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    (direction,) = random_directions(point_of(layer), count=1)
    assert list(direction) == ["parametrizations.weight.original1"]
    assert_same_norms(rows(direction["parametrizations.weight.original1"]), rows(layer.weight.detach()))


class MyRMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2, 3))


def test_biases_and_normalization_layers_stay_put():
    norms = nn.BatchNorm1d(3), nn.LayerNorm((2, 3)), nn.GroupNorm(1, 3), nn.RMSNorm(3), MyRMSNorm()
    (direction,) = random_directions(point_of(nn.Sequential(nn.Linear(2, 3), *norms)), count=1)
    assert list(direction) == ["0.weight"]
    assert direction.about["ignored"] == [
        "0.bias", "1.bias", "1.weight", "2.bias", "2.weight", "3.bias", "3.weight", "4.weight", "5.scale",
    ]  # fmt: skip


def test_a_bias_that_moves_is_one_block():
    point = point_of(nn.MultiheadAttention(4, 2, add_bias_kv=True))
    (direction,) = random_directions(point, count=1, ignore=())
    assert set(direction) == set(point)
    for name in ("in_proj_bias", "bias_k", "bias_v", "out_proj.bias"):
        assert_same_norms([direction[name]], [point[name]])
    assert (direction["bias_k"] != 0).all()
    assert not direction["in_proj_bias"].any()  # attention starts with biases of zero, which have no scale


@pytest.mark.parametrize(
    ("ignore", "expected"),
    [
        ((), {"0.weight", "0.bias", "1.weight", "1.bias"}),
        (("bias",), {"0.weight", "1.weight"}),
        (("convolution", "bias"), {"0.weight", "1.weight"}),  # a kind that the model does not have
        (("1.*",), {"0.weight", "0.bias"}),
        (("0.weight", "norm"), {"0.bias", "1.weight", "1.bias"}),
        (("linear",), {"0.bias", "1.bias"}),
    ],
    ids=["nothing", "kind", "absent kind", "pattern", "name and absent kind", "other kind"],
)
def test_ignore(ignore, expected):
    point = point_of(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    (direction,) = random_directions(point, count=1, ignore=ignore)
    assert set(direction) == expected


def test_normalization_by_layer():
    point = point_of(nn.Sequential(nn.Linear(3, 4), nn.ConvTranspose2d(2, 4, 3, groups=2)))
    by_layer, bare = (random_directions(point, 1, normalization=n)[0] for n in ("layer", "none"))
    for name in by_layer:
        assert_same_norms([by_layer[name]], [point[name]])
        factors = by_layer[name] / bare[name]
        torch.testing.assert_close(factors, factors.flatten()[0].expand_as(factors))


def test_no_normalization_is_gaussian():
    # 40,000 draws: standard errors of mean, variance and fourth moment are 1, sqrt 2 and sqrt 96, times 0.005.
    first, second = (d["w"].flatten() for d in random_directions({"w": torch.zeros(200, 200)}, normalization="none"))
    for draw in (first, second):
        assert abs(float(draw.mean())) < 5 * 0.005
        assert abs(float(draw.var()) - 1) < 5 * 0.005 * 2**0.5
        assert abs(float(draw.pow(4).mean()) - 3) < 5 * 0.005 * 96**0.5
    assert abs(float((first * second).mean())) < 5 * 0.005


def test_the_norms_of_a_reference():
    point, reference = (point_of(nn.Linear(3, 4)) for _ in range(2))
    (direction,) = random_directions(point, 1, reference=reference)
    (own,) = random_directions(reference, 1)
    assert_same_norms(rows(direction["weight"]), rows(reference["weight"]))
    torch.testing.assert_close(direction["weight"], own["weight"])
    assert direction.about["reference"] not in ("center", own.about["reference"])


def test_two_models_of_one_architecture_get_the_same_draws():
    first, second = (point_of(nn.Sequential(nn.Linear(3, 4), nn.Conv1d(2, 3, 2))) for _ in range(2))
    one, other = (random_directions(point, 1, seed=4)[0] for point in (first, second))
    for name in one:
        ratio = one[name].flatten(1) / other[name].flatten(1)
        norms = first[name].flatten(1).norm(dim=1) / second[name].flatten(1).norm(dim=1)
        torch.testing.assert_close(ratio, norms[:, None].expand_as(ratio))


def test_draws_do_not_depend_on_other_parameters():
    point = point_of(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    everything = random_directions(point, 3, ignore=())[2]
    one = random_directions(Point({"1.weight": point["1.weight"]}, point.roles), 3)[2]
    assert torch.equal(everything["1.weight"], one["1.weight"])


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)],
    ids=["float32", "bfloat16", "float16"],
)
def test_draws_do_not_depend_on_the_dtype(dtype, tolerance):
    point = {"w": torch.randn(4, 5, dtype=torch.float64)}
    (wide,) = random_directions(point, 1)
    (narrow,) = random_directions({"w": point["w"].to(dtype)}, 1)
    assert narrow["w"].dtype == dtype
    torch.testing.assert_close(narrow["w"].double(), wide["w"], rtol=tolerance, atol=0)


@given(seed=st.integers(-(2**40), 2**40), other=st.integers(-(2**40), 2**40))
def test_seeds_and_indices_tell_directions_apart(seed, other):
    point = {"w": torch.ones(2, 3)}
    first, second = random_directions(point, seed=seed)
    again = random_directions(point, count=1, seed=seed)[0]
    assert torch.equal(first["w"], again["w"])
    assert not torch.equal(first["w"], second["w"])
    assert torch.equal(first["w"], random_directions(point, seed=other)[0]["w"]) == (seed == other)


def test_parameters_of_one_shape_get_different_draws():
    (direction,) = random_directions({"a": torch.ones(2, 3), "b": torch.ones(2, 3)}, 1)
    assert not torch.equal(direction["a"], direction["b"])


def test_the_global_generator_is_not_used():
    before = torch.get_rng_state()
    random_directions({"w": torch.ones(2, 3)})
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_direction_knows_about_itself():
    directions = random_directions({"w": torch.ones(2, 3), "b": torch.ones(2)}, 2, seed=9, normalization="layer")
    common = {"kind": "random", "seed": 9, "normalization": "layer", "ignored": ["b"], "reference": "center"}
    assert [direction.about for direction in directions] == [common | {"index": 0}, common | {"index": 1}]


def test_a_plain_dictionary_works_by_shapes():
    point = {"matrix": torch.randn(3, 4), "vector": torch.randn(5)}
    (direction,) = random_directions(point, 1)
    assert list(direction) == ["matrix"]
    assert_same_norms(rows(direction["matrix"]), rows(point["matrix"]))


def test_directions_of_a_risk_have_its_roles():
    model = nn.Sequential(nn.ConvTranspose1d(2, 4, 2, groups=2), nn.Flatten()).eval()
    risk = EmpiricalRisk(model, [(torch.randn(3, 2, 4), torch.tensor([0, 1, 2]))])
    (direction,) = random_directions(risk.parameters(), 1)
    channels = output_channels(direction["0.weight"], groups=2)
    assert_same_norms(channels, output_channels(model[0].weight.detach(), groups=2))
    assert np.unique([float(channel.norm()) for channel in channels]).size == 4  # so that the axis matters


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"normalization": "filters"},
            ValueError,
            "expected 'filter', 'layer' or 'none', got 'filters'",
        ),
        ({"ignore": ["1.bias"]}, ValueError, r"ignore: '1.bias' is neither a kind \(linear, .*\) nor one of"),
        ({"ignore": "bias"}, TypeError, r"ignore: expected a sequence, got the string 'bias'; write \('bias',\)"),
        ({"ignore": ["*"]}, ValueError, r"ignore=\('\*',\) leaves no parameter to move"),
        ({"reference": {}}, ValueError, "reference: expected the parameters of the center, but 'weight' is missing"),
        (
            {"reference": {"weight": torch.ones(2, 4), "bias": torch.ones(4)}},
            ValueError,
            r"reference: 'weight' has shape \(2, 4\), expected \(4, 2\)",
        ),
    ],
    ids=["normalization", "ignore", "string", "nothing left", "reference missing", "reference shape"],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        random_directions(point_of(nn.Linear(2, 4)), **arguments)
