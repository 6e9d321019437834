"""Where offsets arrive, and that they are taken back."""

import collections

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dropattack.sites import find_site, perturbed

Pair = collections.namedtuple("Pair", "first second")


class Doubled(nn.Module):
    """Returns a named tuple, as many libraries' models do."""

    def forward(self, x):
        return Pair(2 * x, x)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.first = nn.Linear(3, 3)
        self.doubled = Doubled()
        self.lstm = nn.LSTM(3, 2, batch_first=True)

    def forward(self, tokens=None, scale=None, extra=None):
        x = self.embedding(tokens)
        x = x if scale is None else x * scale
        x = x if extra is None else x + extra
        states, (last, _) = self.lstm(self.doubled(self.first(x)).first)
        return states, last


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model().double()


TOKENS = torch.tensor([[1, 2, 3], [0, 4, 4]])


def state(module):
    return {
        "storage": [tensor.data_ptr() for tensor in module.parameters()],
        "attributes": [{key: id(value) for key, value in child.__dict__.items()} for child in module.modules()],
    }, {name: value.clone() for name, value in module.state_dict().items()}


def assert_restored(module, before):
    identities, values = state(module)
    assert identities == before[0]
    for name, value in values.items():
        assert torch.equal(value, before[1][name]), name


def capture(model, name):
    """The inputs and outputs of one module in later calls of the model."""
    calls = []
    model.get_submodule(name).register_forward_hook(lambda module, args, output: calls.append((args, output)))
    return calls


def noise(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_offset_is_added_to_a_parameter(model):
    before, offset = state(model), noise(3, 3)
    with perturbed(model, {"first.weight": offset}):
        assert torch.equal(model.first.weight, before[1]["first.weight"] + offset)
    assert_restored(model, before)


@pytest.mark.parametrize("place", ["inside", "after"])
def test_a_stale_graph_raises_instead_of_using_other_weights(model, place):
    x = noise(2, 3).requires_grad_()
    with perturbed(model, {"first.weight": noise(3, 3)}):
        loss = model.first(x).sum()
        if place == "inside":
            loss.backward()
    if place == "after":
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_offset_is_added_to_a_module_output(model):
    calls, offset = capture(model, "first"), noise(2, 3, 3)
    plain = model.embedding(TOKENS)
    with perturbed(model, {"embedding": offset}):
        model(TOKENS)
    model(TOKENS)
    assert torch.equal(calls[0][0][0], plain + offset)
    assert torch.equal(calls[1][0][0], plain)


def test_offset_is_added_to_the_first_tensor_of_a_tuple(model):
    states, last = model(TOKENS)
    offset = noise(*states.shape)
    with perturbed(model, {"lstm": offset}):
        perturbed_states, perturbed_last = model(TOKENS)
    assert torch.equal(perturbed_states, states + offset)
    assert torch.equal(perturbed_last, last)


def test_named_tuple_stays_one(model):
    calls, offset, x = capture(model, "doubled"), noise(2, 3), noise(2, 3)
    with perturbed(model, {"doubled": offset}):
        output = model.doubled(x)
    assert isinstance(output, Pair)
    assert torch.equal(output.first, 2 * x + offset)
    assert torch.equal(output.second, x)
    assert len(calls) == 1


@pytest.mark.parametrize("positional", [True, False], ids=["positional", "keyword"])
def test_input_is_the_first_floating_argument(model, positional):
    scale, extra, offset = 1 + noise(2, 3, 3), noise(3), noise(2, 3, 3)

    def call(scale):
        return model(TOKENS, scale, extra)[0] if positional else model(tokens=TOKENS, scale=scale, extra=extra)[0]

    with perturbed(model, {"input": offset}):
        actual = call(scale)
    assert torch.equal(actual, call(scale + offset))
    assert not torch.equal(actual, call(scale))


def test_several_sites_at_once(model):
    calls, before = capture(model, "lstm"), state(model)
    offsets = {"input": noise(2, 3, 3), "embedding": noise(2, 3, 3) + 1, "first": noise(2, 3, 3) - 1}
    offsets |= {"first.weight": noise(3, 3), "first.bias": noise(3)}
    scale = 1 + noise(2, 3, 3)
    with perturbed(model, offsets):
        model(TOKENS, scale)
    assert_restored(model, before)
    embedded = (model.embedding(TOKENS) + offsets["embedding"]) * (scale + offsets["input"])
    weight, bias = model.first.weight + offsets["first.weight"], model.first.bias + offsets["first.bias"]
    assert_close(calls[0][0][0], 2 * (embedded @ weight.T + bias + offsets["first"]), rtol=0, atol=1e-12)


def test_one_module_under_two_names_gets_both_offsets():
    layer = nn.Linear(3, 3)
    model, x = nn.Sequential(collections.OrderedDict(a=layer, b=nn.Tanh(), c=layer)), torch.ones(1, 3)
    offset = torch.full((1, 3), 0.5)
    with perturbed(model, {"a": offset}):
        actual = model(x)
    assert_close(actual, layer(torch.tanh(layer(x) + offset)) + offset)


def test_a_module_called_twice_is_perturbed_twice(model):
    x, offset = noise(2, 3), noise(2, 3)
    with perturbed(model, {"first": offset}):
        twice = model.first(x), model.first(-x)
    assert_close(twice, (model.first(x) + offset, model.first(-x) + offset), rtol=0, atol=0)


def test_blocks_may_be_nested(model):
    before, x, outer, inner = state(model), noise(2, 3), noise(3, 3), noise(2, 3)
    plain = model.first(x)
    with perturbed(model, {"first.weight": outer}):
        with perturbed(model, {"first": inner, "first.weight": outer}):
            assert_close(model.first(x), plain + 2 * x @ outer.T + inner, rtol=0, atol=1e-12)
        assert_close(model.first(x), plain + x @ outer.T, rtol=0, atol=1e-12)
    assert_restored(model, before)


def test_everything_is_restored_after_an_exception(model):
    offsets = {"input": noise(2, 3, 3), "embedding": noise(2, 3, 3), "first.weight": noise(3, 3)}

    def interrupted(*_):
        raise KeyError("in the model")

    model.lstm.register_forward_hook(interrupted)
    before = state(model)
    with pytest.raises(KeyError, match="in the model"), perturbed(model, offsets):
        model(TOKENS, 1 + noise(2, 3, 3))
    assert_restored(model, before)


def test_nothing_moves_when_one_site_is_unknown(model):
    before = state(model)
    with (
        pytest.raises(ValueError, match="unknown site 'frist'; Model has first"),
        perturbed(model, {"first.weight": noise(3, 3), "frist": noise(3, 3)}),
    ):
        pytest.fail("the block must not be entered")
    assert_restored(model, before)


SHAPES = {
    "output": ("first", (2, 3, 2)),
    "output that would broadcast": ("first", (1, 3, 3)),
    "input": ("input", (3, 3)),
    "parameter": ("first.weight", (2, 3)),
    "parameter that would broadcast": ("first.weight", (1, 3)),
}


@pytest.mark.parametrize(("site", "shape"), SHAPES.values(), ids=SHAPES)
def test_offset_must_have_the_shape_of_the_site(model, site, shape):
    before = state(model)
    with pytest.raises(ValueError, match=f"site '{site}': expected shape"), perturbed(model, {site: noise(*shape)}):
        model(TOKENS, 1 + noise(2, 3, 3))
    assert_restored(model, before)


def test_integer_input_cannot_be_perturbed(model):
    before = state(model)
    with (
        pytest.raises(TypeError, match=r"without a floating-point tensor.*name the embedding module"),
        perturbed(model, {"input": noise(2, 3)}),
    ):
        model(TOKENS)
    assert_restored(model, before)


def test_output_must_hold_a_floating_tensor():
    model = nn.Sequential(nn.Identity())
    with (
        pytest.raises(TypeError, match="site '0': expected the module to return a floating-point tensor"),
        perturbed(model, {"0": torch.zeros(2)}),
    ):
        model(torch.tensor([1, 2]))


@pytest.mark.parametrize("site", ["input", "first"])
def test_forward_set_on_the_instance_is_called_and_put_back(model, site):
    # Mixed-precision wrappers set `forward` on the instance.
    module = model if site == "input" else model.first
    original, called = module.forward, []

    def wrapper(*args, **kwargs):
        called.append(True)
        return original(*args, **kwargs)

    module.forward = wrapper
    before, offset, scale = state(model), noise(2, 3, 3), 1 + noise(2, 3, 3)
    with perturbed(model, {site: offset}):
        actual = model(TOKENS, scale)[0]
    assert called == [True]
    assert_restored(model, before)
    assert module.__dict__["forward"] is wrapper
    assert not torch.equal(actual, model(TOKENS, scale)[0])


@pytest.mark.parametrize("trainable", [True, False], ids=["activation with a graph", "activation without"])
def test_watched_activation_may_be_changed_in_place_afterwards(trainable):
    # d sum(relu(z) * u) / dz = u where z > 0: the gradient before the in-place change, not after it.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    model.requires_grad_(trainable)
    x, factor = torch.randn(5, 3), nn.Parameter(torch.randn(5, 4))
    before, z = x.clone(), model[0](x).detach()
    site = find_site(model, "0")
    with site.watched():
        (model(x) * factor).sum().backward()
    assert_close(site.gradient, factor.detach() * (z > 0))
    assert torch.equal(x, before)


def test_watched_input_is_not_changed_by_a_model_that_works_in_place():
    model, x = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 1)), torch.tensor([[-1.0, 2.0, 3.0]])
    site = find_site(model, "input")
    with site.watched():
        model(x).sum().backward()
    assert_close(site.gradient, model[1].weight.detach() * (x > 0))
    assert torch.equal(x, torch.tensor([[-1.0, 2.0, 3.0]]))


def test_watched_gradient_is_at_the_perturbed_activation():
    # L = sum y^2 at y = z + r: dL/dy = 2 (z + r).
    torch.manual_seed(0)
    model, x, offset = nn.Sequential(nn.Linear(3, 2)), torch.randn(4, 3), torch.randn(4, 2)
    site = find_site(model, "0")
    with site.perturbed(offset), site.watched():
        model(x).square().sum().backward()
    assert_close(site.gradient, 2 * (model[0](x).detach() + offset))


@pytest.mark.parametrize("earlier", [None, 3.0], ids=["no earlier gradient", "an earlier gradient"])
def test_watched_parameter_keeps_the_gradient_of_its_own_pass(earlier):
    # L = sum w: dL/dw = 1, whatever .grad holds before and whatever is added to it later.
    model = nn.Linear(3, 1)
    model.weight.grad = None if earlier is None else torch.full((1, 3), earlier)
    site = find_site(model, "weight")
    with site.watched():
        model.weight.sum().backward()
    model.weight.sum().backward()
    assert_close(site.gradient, torch.ones(1, 3))
    assert_close(model.weight.grad, torch.full((1, 3), 2 + (earlier or 0.0)))
