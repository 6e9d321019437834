"""Weights move from anywhere to anywhere and land on the same bits."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk, random_directions
from landscape.evaluation.moving import Mover


def parts(dtype=torch.float32):
    """Weights at random, a center, and three directions, of which each leaves something out."""
    shapes = {"a": (7, 5), "b": (33,), "c": (2, 3, 4), "still": (3,)}
    draw = {name: torch.randn(shape, dtype=torch.float64).to(dtype) for name, shape in shapes.items()}
    center = {name: torch.randn(shape, dtype=torch.float64).to(dtype) for name, shape in shapes.items()}
    named = [("a", "b", "c"), ("a", "c"), ("c", "b")]
    directions = [{name: torch.randn(shapes[name], dtype=torch.float64).to(dtype) for name in each} for each in named]
    return draw, center, directions


def bits(targets):
    return {name: tensor.detach().reshape(-1).view(torch.uint8).tolist() for name, tensor in targets.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_bits_do_not_depend_on_the_way(count, dtype):
    draw, center, directions = parts(dtype)
    places = list(itertools.product([-1.0, 0.0, 0.3, 1 / 3], repeat=count))

    def fresh(place):
        targets = {name: torch.full_like(tensor, 7) for name, tensor in draw.items()}
        Mover(targets, center, directions[:count])(place)
        return bits(targets)

    expected = {place: fresh(place) for place in places}
    targets = {name: tensor.clone() for name, tensor in draw.items()}
    move = Mover(targets, center, directions[:count])
    orders = [places, places[::-1], [places[i] for i in np.random.default_rng(0).permutation(len(places))]]
    for place in itertools.chain(*orders):
        move(place)
        assert bits(targets) == expected[place], place


def test_a_place_is_the_center_plus_the_combination():
    _, center, directions = parts(torch.float64)
    targets = {name: torch.empty_like(tensor) for name, tensor in center.items()}
    Mover(targets, center, directions)([0.5, -2.0, 3.0])
    for name, tensor in targets.items():
        terms = [c * d[name].numpy() for c, d in zip([0.5, -2.0, 3.0], directions, strict=True) if name in d]
        np.testing.assert_allclose(tensor, center[name].numpy() + sum(terms), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_at_coordinates_zero_the_bits_are_those_of_the_center(count):
    draw, center, directions = parts()
    move = Mover(draw, center, directions[:count])
    for place in ([0.7] * count, [0.0] * count):
        move(place)
    assert bits(draw) == bits(center)


def test_what_no_direction_names_is_where_the_center_says():
    draw, center, directions = parts()
    move = Mover(draw, center, [{"b": directions[0]["b"]}])
    for place in (0.5, -0.5):
        move([place])
        assert bits({name: draw[name] for name in ("a", "c", "still")}) == bits(
            {name: center[name] for name in ("a", "c", "still")}
        )


def test_directions_in_other_types_are_cast_once():
    draw, center, directions = parts()
    again = {name: tensor.clone() for name, tensor in draw.items()}
    Mover(draw, center, directions)([0.1, 0.2, 0.3])
    doubles = [{name: tensor.double() for name, tensor in direction.items()} for direction in directions]
    Mover(again, {name: tensor.double() for name, tensor in center.items()}, doubles)((0.1, 0.2, 0.3))
    assert bits(draw) == bits(again)


def test_a_move_along_a_row_reads_the_last_direction_alone(monkeypatch):
    draw, center, directions = parts()
    move = Mover(draw, center, directions[:2])
    calls = []
    add = torch.add
    monkeypatch.setattr(torch, "add", lambda *arguments, **named: calls.append(1) or add(*arguments, **named))
    move([0.5, 0.1])
    first, _ = len(calls), calls.clear()
    move([0.5, 0.2])
    along, _ = len(calls), calls.clear()
    move([0.5, 0.2])
    assert (first, along, len(calls)) == (5, 3, 0)  # a and c have two terms, b has one


def test_strided_weights():
    # Convolutions in channels-last memory are written in place, and land on the same bits.
    flat = {"weight": torch.randn(4, 3, 5, 5)}
    strided = {"weight": flat["weight"].to(memory_format=torch.channels_last)}
    center = {"weight": torch.randn(4, 3, 5, 5)}
    directions = [{"weight": torch.randn(4, 3, 5, 5)} for _ in range(2)]
    storage = strided["weight"].data_ptr()
    for targets in (flat, strided):
        move = Mover(targets, center, directions)
        move([0.3, 0.1])
        move([0.3, 0.7])
    torch.testing.assert_close(flat["weight"], strided["weight"], rtol=1e-6, atol=1e-6)
    assert strided["weight"].data_ptr() == storage
    assert strided["weight"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("place", [(), (1.0,), (1.0, 2.0, 3.0)])
def test_a_wrong_number_of_coordinates(place):
    draw, center, directions = parts()
    before = bits(draw)
    move = Mover(draw, center, directions[:2])
    with pytest.raises(ValueError, match=f"coordinates: expected 2, one for each direction, got {len(place)}"):
        move(place)
    assert bits(draw) == before


ALONG_THE_ROW, TO_ANOTHER_ROW = (0.5, 0.9), (-0.5, 0.1)


@pytest.mark.parametrize(
    ("place", "at"), [(ALONG_THE_ROW, at) for at in range(3)] + [(TO_ANOTHER_ROW, at) for at in range(5)]
)
def test_a_move_that_is_interrupted_does_not_spoil_the_next_one(monkeypatch, place, at):
    draw, center, directions = parts()
    expected = {name: tensor.clone() for name, tensor in draw.items()}
    Mover(expected, center, directions[:2])(place)
    move = Mover(draw, center, directions[:2])
    move([0.5, 0.1])
    add, calls = torch.add, []

    def interrupted(*arguments, **named):
        calls.append(1)
        if len(calls) > at:
            raise KeyboardInterrupt
        return add(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            move(place)
    for tensor in draw.values():
        tensor.fill_(torch.nan)  # nothing of where it was may be left
    move(place)
    assert bits(draw) == bits(expected)


@pytest.fixture
def linear():
    model = nn.Linear(3, 2).eval()
    risk = EmpiricalRisk(model, [(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))])
    return model, risk, random_directions(risk.parameters())


def test_a_center_that_is_given_is_where_the_coordinates_count_from(linear, unchanged):
    model, risk, directions = linear
    center = {"weight": torch.randn(2, 3), "bias": torch.randn(2)}
    with unchanged(model), risk.along(directions, center) as move:
        move((0.0, 0.0))
        assert bits(dict(model.named_parameters())) == bits(center)
        move((0.25, -0.5))
        expected = center["weight"] + 0.25 * directions[0]["weight"] - 0.5 * directions[1]["weight"]
        torch.testing.assert_close(model.weight.detach(), expected)
        assert torch.equal(model.bias.detach(), center["bias"])


@pytest.mark.parametrize("what", ["center", "direction", "last direction"])
def test_the_models_own_weights_can_be_center_and_direction(linear, what):
    # Which is where everything else is moved to.
    model, risk, directions = linear
    own = {name: parameter.detach() for name, parameter in model.named_parameters()}
    copies = {name: tensor.clone() for name, tensor in own.items()}
    arguments = {
        "center": lambda own: (directions, own),
        "direction": lambda own: ((own, directions[0]), None),
        "last direction": lambda own: ((directions[0], own), None),
    }[what]
    places = [(0.0, 1.0), (1.0, 1.0), (1.0, -0.5), (0.25, 0.0), (0.0, 0.0)]

    def found(own):
        with risk.along(*arguments(own)) as move:
            for place in places:
                move(place)
                yield bits(dict(model.named_parameters()))

    assert list(found(own)) == list(found(copies))
    assert bits(dict(model.named_parameters())) == bits(copies)


def test_parameters_that_are_not_named_are_not_even_written(linear):
    model, risk, _ = linear
    with risk.along([{"weight": torch.ones(2, 3)}]) as move:
        version = model.bias._version
        move([0.5])
        assert model.bias._version == version
    assert model.bias._version == version
