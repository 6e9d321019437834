"""Fast pooling gives PyTorch's own results, and leaves to PyTorch what it does not know."""

import itertools
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn

from landscape import EmpiricalRisk
from landscape.evaluation import kernels
from landscape.evaluation.kernels import FastPooling


@pytest.fixture
def used(monkeypatch):
    """For each call that was looked at: whether it was replaced."""
    seen = []

    def counted(replacement):
        def call(*args, **kwargs):
            result = replacement(*args, **kwargs)
            seen.append(result is not None)
            return result

        return call

    monkeypatch.setattr(kernels, "_REPLACEMENTS", {f: counted(r) for f, r in kernels._REPLACEMENTS.items()})
    return seen


def assert_same(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.stride() == expected.stride()
    assert type(found) is type(expected)
    # nan equals nan, and 0 equals -0; all other numbers have the same bits.
    np.testing.assert_array_equal(found.detach().float().numpy(), expected.detach().float().numpy())
    assert torch.equal(found.isnan(), expected.isnan())
    finite = expected.isfinite() if expected.is_floating_point() else torch.ones_like(expected, dtype=torch.bool)
    assert torch.equal(found[finite], expected[finite])


def both(call):
    """What a call gives without and with fast pooling: a result, or the text of an error."""
    found = []
    for mode in (None, FastPooling()):
        try:
            with torch.no_grad():
                if mode is None:
                    found.append(call())
                else:
                    with mode:
                        found.append(call())
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


POOLING = {"max": F.max_pool2d, "average": F.avg_pool2d}
SHAPES = [(2, 3, 8, 8), (1, 1, 2, 2), (3, 2, 9, 7), (5, 1, 28, 28), (2, 4, 5, 12), (3, 8, 6), (1, 33, 47)]
KERNELS = [2, 3, (2, 3), (1, 2), (2, 1), (5, 4), [2, 2], (2,)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("kind", POOLING)
def test_equal_to_pytorch_over_shapes_and_kernels(kind, kernel, dtype, used):
    pool, tried = POOLING[kind], 0
    height, width = (kernel, kernel) if isinstance(kernel, int) else (kernel[0], kernel[-1])
    for shape, stride in itertools.product(SHAPES, [None, kernel]):
        if shape[-2] < height or shape[-1] < width:
            continue
        images = 1e3 * torch.randn(shape, dtype=dtype)
        expected, found = both(lambda: pool(images, kernel, stride))  # noqa: B023 - called at once
        assert_same(found, expected)
        tried += 1
    assert used == [True] * tried
    assert tried >= 4


@pytest.mark.parametrize("size", [7, 11, 13])
def test_averages_over_large_windows_are_added_in_the_same_order(size, used):
    images = torch.randn(3, 2, 40, 41) * torch.logspace(-4, 6, 41)
    expected, found = both(lambda: F.avg_pool2d(images, (size, size - 2)))
    assert torch.equal(found, expected)
    assert used == [True]
    assert not torch.equal(found.double(), F.avg_pool2d(images.double(), (size, size - 2)))  # so the order shows


@pytest.mark.parametrize("kind", POOLING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_that_are_not_finite(kind, dtype, used):
    # Every pair of places in a window, with each of the values.
    special = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0, -2.0], dtype=dtype)
    windows = torch.cartesian_prod(*[special] * 4).reshape(1, -1, 2, 2)
    expected, found = both(lambda: POOLING[kind](windows, 2))
    assert_same(found, expected)
    assert used == [True]


@pytest.mark.parametrize("value", [torch.finfo(torch.float32).max, 1e-45, torch.finfo(torch.float32).tiny])
@pytest.mark.parametrize("kind", POOLING)
def test_overflow_and_denormal_numbers(kind, value):
    expected, found = both(lambda: POOLING[kind](torch.full((1, 1, 4, 4), value), 2))
    assert_same(found, expected)


LAYOUTS = {
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3),
    "every other": lambda x: x[..., ::2],
    "expanded": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "a slice": lambda x: x[:, :, 1:, 1:],
    "half": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "integers": lambda x: (100 * x).long(),
    "no batch": lambda x: x[:0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", POOLING)
def test_other_layouts_and_types(kind, layout, used):
    images = LAYOUTS[layout](torch.randn(2, 3, 8, 9))
    expected, found = both(lambda: POOLING[kind](images, 2))
    if isinstance(expected, str):
        assert found == expected
    else:
        assert_same(found, expected)
        assert layout == "no batch" or not any(used)


def test_one_channel_in_both_layouts_at_once():
    images = torch.randn(4, 1, 8, 8).to(memory_format=torch.channels_last)
    assert images.is_contiguous()
    for pool in POOLING.values():
        expected, found = both(lambda: pool(images, 2))  # noqa: B023 - called at once
        assert_same(found, expected)


OTHERS = {
    "overlap": lambda x: F.max_pool2d(x, 3, 2),
    "gaps": lambda x: F.max_pool2d(x, 2, 3),
    "padding": lambda x: F.max_pool2d(x, 2, padding=1),
    "ceiling": lambda x: F.max_pool2d(x, 2, ceil_mode=True),
    "dilation": lambda x: F.max_pool2d(x, 2, dilation=2),
    "indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[1],
    "values and indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "window of one": lambda x: F.max_pool2d(x, 1),
    "average, overlap": lambda x: F.avg_pool2d(x, 3, 2),
    "average, padding": lambda x: F.avg_pool2d(x, 2, padding=1),
    "average, padding not counted": lambda x: F.avg_pool2d(x, 2, padding=1, count_include_pad=False),
    "average, ceiling": lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
    "average, divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "average, one": lambda x: F.avg_pool2d(x, 1),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_left_to_pytorch(what, used):
    images = torch.randn(2, 3, 9, 7)
    expected, found = both(lambda: OTHERS[what](images))
    assert torch.equal(found, expected)
    assert not any(used)


CALLS = {
    "module": lambda x: nn.MaxPool2d(2)(x),
    "module, stride": lambda x: nn.MaxPool2d((2, 3), (2, 3))(x),
    "average module": lambda x: nn.AvgPool2d(2)(x),
    "average module, tuple": lambda x: nn.AvgPool2d((2, 3))(x),
    "keywords": lambda x: F.max_pool2d(x, kernel_size=2, stride=2, padding=0, ceil_mode=False),
    "all positions": lambda x: F.max_pool2d(x, 2, 2, 0, 1, False, False),
    "tuples everywhere": lambda x: F.max_pool2d(x, (2, 2), (2, 2), (0, 0), (1, 1)),
    "input by name": lambda x: F.max_pool2d(input=x, kernel_size=2),
    "torch": lambda x: torch.max_pool2d(x, 2),
    "no stride": lambda x: F.max_pool2d(x, 2, None),
    "average, keywords": lambda x: F.avg_pool2d(x, kernel_size=(2, 1), stride=(2, 1), count_include_pad=False),
    "average, all positions": lambda x: F.avg_pool2d(x, 2, 2, 0, False, True, None),
    "without a batch": lambda x: nn.MaxPool2d(2)(x[0]),
    "twice": lambda x: F.avg_pool2d(F.max_pool2d(x, 2), 2),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_way_to_call(call, used):
    images = torch.randn(2, 3, 8, 9)
    expected, found = both(lambda: CALLS[call](images))
    assert_same(found, expected)
    assert used
    assert all(used)


UNUSUAL = {
    "average, input by name": lambda x: F.avg_pool2d(input=x, kernel_size=2),
    "average, empty stride": lambda x: F.avg_pool2d(x, 2, ()),
    "empty stride": lambda x: F.max_pool2d(x, 2, []),
    "torch, input by name": lambda x: torch.max_pool2d(input=x, kernel_size=2),
    "numpy integer": lambda x: F.max_pool2d(x, np.int64(2)),
    "numpy stride": lambda x: F.max_pool2d(x, 2, np.int64(2)),
    "numpy integer, average": lambda x: F.avg_pool2d(x, np.int64(2)),
    "numpy integers": lambda x: F.avg_pool2d(x, (np.int64(2), np.int64(2))),
    "a tensor": lambda x: F.max_pool2d(x, torch.tensor(2)),
    "out": lambda x: F.avg_pool2d(x, 2, out=torch.empty(2, 3, 4, 4)),
}


@pytest.mark.parametrize("call", UNUSUAL)
def test_unusual_arguments_that_pytorch_takes(call):
    images = torch.randn(2, 3, 8, 9)
    expected, found = both(lambda: UNUSUAL[call](images))
    assert_same(found, expected)


ERRORS = {
    "too small": lambda x: F.max_pool2d(x, 9),
    "too narrow, average": lambda x: F.avg_pool2d(x, (1, 10)),
    "two dimensions": lambda x: F.max_pool2d(x[0, 0], 2),
    "five dimensions": lambda x: F.avg_pool2d(x[None], 2),
    "zero": lambda x: F.max_pool2d(x, 0),
    "zero, average": lambda x: F.avg_pool2d(x, (2, 0)),
    "negative": lambda x: F.max_pool2d(x, -2),
    "three numbers": lambda x: F.max_pool2d(x, (2, 2, 2)),
    "three numbers, average": lambda x: F.avg_pool2d(x, (2, 3, 2)),
    "three strides": lambda x: F.max_pool2d(x, 2, (2, 2, 2)),
    "three paddings": lambda x: F.max_pool2d(x, 2, 2, (0, 0, 0)),
    "no padding": lambda x: F.max_pool2d(x, 2, 2, []),
    "no numbers": lambda x: F.max_pool2d(x, []),
    "no number": lambda x: F.max_pool2d(x, None),
    "float": lambda x: F.max_pool2d(x, 2.0),
    "text": lambda x: F.avg_pool2d(x, "2"),
    "float stride": lambda x: F.max_pool2d(x, 2, 2.0),
    "too much padding": lambda x: F.avg_pool2d(x, 2, padding=3),
    "divisor zero": lambda x: F.avg_pool2d(x, 2, divisor_override=0),
    "no channels": lambda x: F.max_pool2d(x[:, :0], 2),
    "no channels, average": lambda x: F.avg_pool2d(x[:, :0], 2),
    "no images without a batch": lambda x: F.max_pool2d(x[0, :0], 2),
    "unknown keyword": lambda x: F.avg_pool2d(x, 2, size=1),
    "missing": lambda x: torch.max_pool2d(x),
    "too many": lambda x: F.max_pool2d(x, 2, 2, 0, 1, False, False, 3),
    "twice": lambda x: torch.max_pool2d(x, 2, kernel_size=2),
}


@pytest.mark.parametrize("wrong", ERRORS)
def test_errors_are_those_of_pytorch(wrong):
    images = torch.randn(2, 3, 8, 9)
    expected, found = both(lambda: ERRORS[wrong](images))
    assert isinstance(expected, str), "PyTorch takes it"
    assert isinstance(found, str), "taken without PyTorch's error"
    assert found == expected


def test_with_gradients_pytorch_pools(used):
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    with FastPooling():
        for pool in POOLING.values():
            pool(images, 2).sum().backward()
    assert used == []
    expected = torch.autograd.grad(F.max_pool2d(images, 2).sum() + F.avg_pool2d(images, 2).sum(), images)[0]
    assert torch.equal(images.grad, expected)
    with torch.no_grad(), FastPooling():
        F.max_pool2d(torch.randn(1, 1, 4, 4), 2)
        with torch.enable_grad():
            assert F.max_pool2d(images, 2).requires_grad
    assert used == [True]


def test_in_inference_mode(used):
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode(), FastPooling():
        assert torch.equal(F.max_pool2d(images, 2), nn.MaxPool2d(2)(images.double()).float())
    assert used == [True, True]


class Tagged(torch.Tensor):
    """A tensor with something to say about what is done to it."""


@pytest.mark.parametrize("kind", POOLING)
def test_tensors_of_other_types_are_left_alone(kind, used):
    images = torch.randn(2, 3, 8, 8)
    for special in (images.as_subclass(Tagged), nn.Parameter(images)):
        expected, found = both(lambda: POOLING[kind](special, 2))  # noqa: B023 - called at once
        assert type(found) is type(expected)
        assert torch.equal(found.as_subclass(torch.Tensor), expected.as_subclass(torch.Tensor))
    assert not any(used)


def test_under_vmap():
    images = torch.randn(2, 3, 8, 8)
    for pool in POOLING.values():
        expected, found = both(lambda: torch.vmap(lambda image: pool(image, 2))(images))  # noqa: B023
        assert torch.equal(found, expected)


def test_nothing_is_written_to_the_images_and_nothing_is_shared():
    for kernel in KERNELS:
        images = torch.randn(2, 3, 8, 9)
        copy = images.clone()
        with torch.no_grad(), FastPooling():
            for pool in POOLING.values():
                pool(images, kernel).add_(1)
        assert torch.equal(images, copy), kernel


def test_after_the_block_and_after_an_exception_it_is_over(used):
    images = torch.randn(1, 1, 4, 4)
    with pytest.raises(RuntimeError, match="stop"), torch.no_grad(), FastPooling():
        raise RuntimeError("stop")
    with torch.no_grad():
        F.max_pool2d(images, 2)
    assert used == []


class Lenet(nn.Module):
    """Convolutions, both poolings, and a classifier."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.Tanh(), nn.AvgPool2d(2, 2)
        )
        self.classifier = nn.Linear(24, 5)

    def forward(self, images):
        return self.classifier(self.features(images).flatten(1))


@pytest.fixture
def lenet():
    return Lenet().eval(), [(torch.randn(n, 1, 14, 14), torch.randint(5, (n,))) for n in (7, 7, 3)]


def test_risks_have_the_same_bits_with_and_without(lenet, used, monkeypatch):
    model, batches = lenet
    fast = EmpiricalRisk(model, batches)()
    assert used
    assert all(used)
    count = len(used)
    monkeypatch.setattr(kernels, "_REPLACEMENTS", {})
    slow = EmpiricalRisk(model, batches)()
    assert len(used) == count
    assert fast == slow


def test_derivatives_do_not_use_it(lenet, used):
    risk = EmpiricalRisk(*lenet)
    used.clear()
    risk.gradient()
    risk.hessian_product({name: torch.ones_like(value) for name, value in risk.parameters().items()})
    assert used == []


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models(lenet, backend):
    model, batches = lenet
    expected = EmpiricalRisk(model, batches)()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler, about itself
        found = EmpiricalRisk(torch.compile(model, backend=backend), batches)()
        inner = Lenet().eval()
        inner.load_state_dict(model.state_dict())
        inner.features = torch.compile(inner.features, backend=backend)
        partly = EmpiricalRisk(inner, batches)()
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert partly.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.metrics == partly.metrics == expected.metrics
