"""The perturbations themselves: masks over all cases, draws that models share, controls of equal norm."""

import itertools

import numpy as np
import pytest
import torch

from landscape.gradients.perturbations import Perturbations, Settings

SETTINGS = {
    "epsilons": (1.0,), "attack_probability": 0.5, "masks": 3, "random_directions": 5, "mask_then_normalize": False,
    "relative_epsilon": False, "seed": 0,
}  # fmt: skip


def made(site="site", **changes):
    return Perturbations(site, Settings(**SETTINGS | changes))


def of_kind(perturbations, kind):
    return [one for one in perturbations if one.kind == kind]


class Scripted:
    """Stands in for a stream: entries below any probability where the mask is to be one."""

    def __init__(self, mask):
        self.mask = mask

    def random(self, shape):
        return np.where(self.mask, 0.0, 1.0).reshape(shape)


@pytest.mark.parametrize("share", [0.5, 0.3])
@pytest.mark.parametrize("mask_then_normalize", [False, True])
def test_all_masks_of_three_entries(share, mask_then_normalize):
    # Over all 2^3 masks, weighed by p^k (1 - p)^(3 - k): E |Mg|^2 = p |g|^2, so normalize-then-mask has the mean
    # first-order term p |g| exactly. E |Mg|, the mean of equation 12, is another number, and the mean first-order term
    # of mask-then-normalize.
    g = torch.tensor([[3.0, -2.0, 0.5]], dtype=torch.float64)
    masks = list(itertools.product([0, 1], repeat=3))
    weights = np.array([share ** sum(mask) * (1 - share) ** (3 - sum(mask)) for mask in masks])
    perturbations = made(attack_probability=share, masks=8, mask_then_normalize=mask_then_normalize)
    perturbations._masks = [Scripted(mask) for mask in masks]
    found = of_kind(perturbations.of(g, g), "masked")
    first = np.array([float((one.direction * g).sum()) for one in found])
    eq_12 = np.array([float(one.eq_12) for one in found])
    size = float(g.norm())
    by_hand = sum(weight * np.linalg.norm(g.numpy()[0] * mask) for weight, mask in zip(weights, masks, strict=True))
    assert weights @ eq_12 == pytest.approx(by_hand, rel=1e-12)
    assert by_hand > 1.1 * share * size
    if mask_then_normalize:
        assert weights @ first == pytest.approx(by_hand, rel=1e-12)
        assert all(np.isnan(float(one.expected_first_order)) for one in found)
    else:
        assert weights @ first == pytest.approx(share * size, rel=1e-12)
        assert {float(one.expected_first_order) for one in found} == {share * size}


def test_masks_are_those_of_other_models_with_this_site():
    one, other = (torch.rand(4, 5, dtype=torch.float64) + 1 for _ in range(2))
    first, second = (list(made().of(gradient, gradient)) for gradient in (one, other.float()))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.direction != 0, b.direction != 0)
    assert not torch.equal(first[0].direction != 0, first[1].direction != 0)
    for changed in (made(seed=1), made("elsewhere")):
        assert not torch.equal(next(changed.of(one, one)).direction != 0, first[0].direction != 0)


def test_noise_is_that_of_other_models_with_this_site():
    # Up to its length, which is that of the masked gradient.
    one, other = (torch.rand(1, 40, dtype=torch.float64) + 1 for _ in range(2))
    pairs = zip(*(of_kind(made().of(g, g), "random") for g in (one, other)), strict=True)
    for a, b in pairs:
        assert float(torch.nn.functional.cosine_similarity(a.direction, b.direction)) == pytest.approx(1, abs=1e-12)


def test_smaller_probabilities_mask_within_larger_ones():
    gradient = torch.ones(3, 200)
    few, many = (next(made(attack_probability=p).of(gradient, gradient)).direction != 0 for p in (0.2, 0.6))
    assert not (few & ~many).any()
    assert few.double().mean() == pytest.approx(0.2, abs=4 * 0.4 / 600**0.5)  # 4 standard deviations
    assert many.double().mean() == pytest.approx(0.6, abs=4 * 0.49 / 600**0.5)


def test_draws_do_not_depend_on_how_examples_are_batched():
    gradient = torch.randn(7, 3, dtype=torch.float64)
    whole = [one.direction for one in made().of(gradient, gradient)]
    in_parts = made()
    parts = [[one.direction for one in in_parts.of(part, part)] for part in gradient.split(2)]
    for expected, found in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(found), expected, rtol=1e-14, atol=0)


def test_random_directions_have_the_norms_and_places_of_masked_gradients():
    gradient = torch.randn(4, 6, dtype=torch.float64)
    gradient[:, 2] = 0
    gradient[1] = 0
    every = list(made().of(gradient, gradient))
    masked, random = (of_kind(every, kind) for kind in ("masked", "random"))
    for one in random:
        assert (one.direction[:, 2] == 0).all()
        like = masked[one.draw % 3].direction
        torch.testing.assert_close(one.direction.norm(dim=1), like.norm(dim=1), rtol=1e-12, atol=0)
        assert (one.direction[0] != 0).sum() == 5
    assert [one.draw for one in random] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("options", [{}, {"mask_then_normalize": True}, {"relative_epsilon": True}])
def test_a_row_without_a_gradient_does_not_move(options):
    gradient = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    for one in made(**options).of(gradient, torch.ones(2, 2)):
        assert (one.direction[0] == 0).all()
    (full,) = of_kind(made(**options).of(gradient, torch.ones(2, 2)), "gradient")
    length = 2**0.5 if options.get("relative_epsilon") else 1.0
    torch.testing.assert_close(full.direction[1], length * torch.tensor([0.6, 0.8]))


def test_gradients_whose_squares_vanish_in_float32():
    gradient = torch.tensor([[3e-30, 4e-30]])
    (full,) = of_kind(made().of(gradient, gradient), "gradient")
    torch.testing.assert_close(full.direction, torch.tensor([[0.6, 0.8]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilons": ()}, r"epsilons: expected one or more positive numbers, got \(\)"),
        ({"epsilons": (1.0, 0.0)}, r"epsilons: .* got \(1.0, 0.0\)"),
        ({"epsilons": (float("inf"),)}, r"epsilons: .* got \(inf,\)"),
        ({"attack_probability": 1.2}, "attack_probability: expected a share from 0 to 1, got 1.2"),
        ({"masks": 0}, "masks: expected at least 1, got 0"),
        ({"random_directions": -1}, "random_directions: expected at least 0, got -1"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        made(**change)
