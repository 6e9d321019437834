"""What each parameter is, in every kind of layer, and the arithmetic of points."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Direction, Point
from landscape.parameters import Role, filter_norms, fingerprint, inner_product, norm, roles_of


def old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, but in many people's checkpoints
        return nn.utils.weight_norm(layer)


class MyRMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2, 3))

    def forward(self, values):
        return values * self.scale


class Free(nn.Module):
    """Parameters of no known layer."""

    def __init__(self):
        super().__init__()
        self.table, self.vector, self.number = (nn.Parameter(torch.ones(shape)) for shape in ((2, 3), (4,), ()))


PARAMETRIZED = "parametrizations.weight.original"
ROLES = {
    "linear": (nn.Linear(2, 3), {"weight": "linear", "bias": "bias"}),
    "bilinear": (nn.Bilinear(2, 3, 4), {"weight": "linear", "bias": "bias"}),
    "convolution": (nn.Conv2d(4, 6, 3, groups=2), {"weight": "convolution", "bias": "bias"}),
    "transposed": (nn.ConvTranspose1d(4, 6, 3), {"weight": "transposed convolution", "bias": "bias"}),
    "embedding": (nn.Embedding(5, 2), {"weight": "embedding"}),
    "embedding bag": (nn.EmbeddingBag(5, 2), {"weight": "embedding"}),
    "LSTM with projection": (
        nn.LSTM(2, 4, proj_size=3),
        {
            "weight_ih_l0": "recurrent",
            "weight_hh_l0": "recurrent",
            "bias_ih_l0": "bias",
            "bias_hh_l0": "bias",
            "weight_hr_l0": "recurrent",
        },
    ),
    "cell": (nn.GRUCell(2, 3, bias=False), {"weight_ih": "recurrent", "weight_hh": "recurrent"}),
    "attention": (
        nn.MultiheadAttention(4, 2, add_bias_kv=True),
        {
            "in_proj_weight": "attention",
            "in_proj_bias": "bias",
            "bias_k": "bias",
            "bias_v": "bias",
            "out_proj.weight": "linear",
            "out_proj.bias": "bias",
        },
    ),
    "batch norm": (nn.BatchNorm2d(3), {"weight": "norm", "bias": "norm"}),
    "layer norm": (nn.LayerNorm((2, 3)), {"weight": "norm", "bias": "norm"}),
    "group norm": (nn.GroupNorm(2, 4), {"weight": "norm", "bias": "norm"}),
    "RMS norm": (nn.RMSNorm(4), {"weight": "norm"}),
    "own norm": (MyRMSNorm(), {"scale": "norm"}),
    "weight norm": (
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)),
        {"bias": "bias", f"{PARAMETRIZED}0": "norm", f"{PARAMETRIZED}1": "linear"},
    ),
    "weight norm inside": (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(2, 4, 3, bias=False))),
        {f"0.{PARAMETRIZED}0": "norm", f"0.{PARAMETRIZED}1": "transposed convolution"},
    ),
    "old weight norm": (
        old_weight_norm(nn.Conv1d(2, 3, 2)),
        {"bias": "bias", "weight_g": "norm", "weight_v": "convolution"},
    ),
    "spectral norm": (
        nn.utils.parametrizations.spectral_norm(nn.Linear(2, 3)),
        {"bias": "bias", "parametrizations.weight.original": "linear"},
    ),
    "free": (Free(), {"table": "other", "vector": "bias", "number": "bias"}),
}


@pytest.mark.parametrize("case", ROLES)
def test_roles(case):
    model, expected = ROLES[case]
    assert {name: role.kind for name, role in roles_of(model).items()} == expected


def test_groups_of_a_transposed_convolution():
    assert roles_of(nn.ConvTranspose3d(4, 6, 1, groups=2))["weight"] == Role("transposed convolution", groups=2)


def test_tied_weights_have_one_role_that_of_the_first_layer():
    model = nn.ModuleDict({"tokens": nn.Embedding(5, 3), "logits": nn.Linear(3, 5, bias=False)})
    model["logits"].weight = model["tokens"].weight
    assert {name: role.kind for name, role in roles_of(model).items()} == {"tokens.weight": "embedding"}


def test_a_plain_dictionary_is_told_by_shapes():
    point = Point({"a": torch.ones(2, 2), "b": torch.ones(3), "c": torch.ones(())})
    assert {name: role.kind for name, role in point.roles.items()} == {"a": "other", "b": "bias", "c": "bias"}


def test_a_point_keeps_only_the_roles_of_its_own_parameters():
    point = Point({"a": torch.ones(2, 2)}, {"a": Role("linear"), "b": Role("bias")})
    assert point.roles == {"a": Role("linear")}


def test_a_direction_copies_what_it_is_told_about_itself():
    about = {"seed": 1}
    direction = Direction({"a": torch.ones(2)}, about=about)
    about["seed"] = 2
    assert direction.about == {"seed": 1}


def test_filter_norms_are_taken_in_float64():
    # 300^2 overflows float16, whose largest number is 65504.
    norms = filter_norms(torch.full((2, 4), 300.0, dtype=torch.float16), Role("linear"))
    assert norms.dtype == torch.float64
    np.testing.assert_array_equal(norms, [[600.0], [600.0]])


def test_products_and_norms():
    draws = np.random.default_rng(0)
    a, b = ({name: draws.standard_normal(shape) for name, shape in (("x", (2, 3)), ("y", (4,)))} for _ in range(2))
    first, second = ({name: torch.tensor(array) for name, array in point.items()} for point in (a, b))
    expected = np.sum(a["x"] * b["x"]) + np.sum(a["y"] * b["y"])
    assert inner_product(first, second) == pytest.approx(expected, rel=1e-13)
    assert norm(first) == pytest.approx(np.sqrt(np.sum(a["x"] ** 2) + np.sum(a["y"] ** 2)), rel=1e-13)


def test_a_product_leaves_out_what_only_one_names():
    x = torch.tensor([3.0])
    assert inner_product({"x": x, "y": x}, {"x": x, "z": x}) == 9.0
    assert inner_product({"y": x}, {"z": x}) == 0.0


SAME = {"a": torch.tensor([[1.0, 0.0]]), "b": torch.tensor([2.0])}
OTHERS = {
    "one bit": {"a": torch.tensor([[1.0, 0.0]]), "b": torch.tensor([np.nextafter(np.float32(2), np.float32(3))])},
    "sign of zero": {"a": torch.tensor([[1.0, -0.0]]), "b": torch.tensor([2.0])},
    "name": {"a": torch.tensor([[1.0, 0.0]]), "c": torch.tensor([2.0])},
    "shape": {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([2.0])},
    "dtype": {"a": torch.tensor([[1.0, 0.0]]), "b": torch.tensor([2.0], dtype=torch.float64)},
    "fewer": {"a": torch.tensor([[1.0, 0.0]])},
}


def test_a_fingerprint_is_of_the_values():
    assert fingerprint(SAME) == fingerprint({name: tensor.clone() for name, tensor in SAME.items()})
    noncontiguous = {"a": torch.tensor([[1.0, 9.0], [0.0, 9.0]]).T[:1], "b": SAME["b"]}
    assert fingerprint(SAME) == fingerprint(noncontiguous)


@pytest.mark.parametrize("other", OTHERS)
def test_a_fingerprint_tells_apart(other):
    assert fingerprint(SAME) != fingerprint(OTHERS[other])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_fingerprint_of_half_precision(dtype):
    assert fingerprint({"a": torch.ones(2, dtype=dtype)}) != fingerprint({"a": torch.zeros(2, dtype=dtype)})


@pytest.mark.parametrize("name", ["BatchNorm2d", "LlamaRMSNorm", "T5LayerNorm", "LayerNormalization", "my_norm"])
def test_normalization_is_known_by_the_end_of_the_class_name(name):
    layer = type(name, (nn.Linear,), {})(2, 3)
    assert roles_of(nn.Sequential(layer))["0.weight"].kind == "norm"


@pytest.mark.parametrize("name", ["NormalizedLinear", "NormalNet", "Enormous"])
def test_a_name_that_only_holds_norm_is_no_normalization(name):
    layer = type(name, (nn.Linear,), {})(2, 3)
    assert roles_of(nn.Sequential(layer))["0.weight"].kind == "linear"
