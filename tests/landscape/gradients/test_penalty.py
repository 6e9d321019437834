"""Penalty checks in closed form: quadratics, linear and logistic regression, by weights and by inputs."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk
from landscape.gradients import penalty_check

EPSILONS = (0.01, 0.5, 5.0)
KINDS = {"masked": 8, "gradient": 1, "scaled gradient": 1, "random": 8}


def terms(check, site):
    """Rows of one site by perturbation, draw and epsilon."""
    return check[check["site"] == site].set_index(["perturbation", "draw", "epsilon"])


def mask_of(direction):
    """No entry of these gradients is zero, so the mask shows."""
    return direction != 0


def norms(rows):
    return np.linalg.norm(rows.reshape(len(rows), -1), axis=1)


def expect(found, directions, gradient, curved, risen, probability=0.5):
    """Each term against its formula, given gradients (rows, …), H times directions, and the mean rise."""
    assert len(found) == len(directions) * len(EPSILONS)
    for (kind, draw), d in directions.items():
        for epsilon in EPSILONS:
            row = found.loc[kind, draw, epsilon]
            r = epsilon * d
            first = np.mean([np.sum(a * b) for a, b in zip(gradient, r, strict=True)])
            second = np.mean([0.5 * np.sum(a * b) for a, b in zip(curved(r), r, strict=True)])
            assert row["norm"] == pytest.approx(norms(r).mean(), rel=1e-11)
            assert row["rise"] == pytest.approx(risen(r), rel=1e-9, abs=1e-13)
            assert row["first_order"] == pytest.approx(first, rel=1e-9, abs=1e-14)
            assert row["second_order"] == pytest.approx(second, rel=1e-9, abs=1e-14)
            if kind == "masked":
                masked = mask_of(d) * gradient
                assert row["first_order"] == pytest.approx(
                    epsilon * np.mean(norms(masked) ** 2 / norms(gradient)), rel=1e-9
                )
                assert row["eq_12"] == pytest.approx(epsilon * norms(masked).mean(), rel=1e-9)
                assert row["expected_first_order"] == pytest.approx(
                    probability * epsilon * norms(gradient).mean(), rel=1e-9
                )
            else:
                assert np.isnan([row["eq_12"], row["expected_first_order"]]).all()


@pytest.mark.parametrize("site", ["weight", "shift"])
def test_weights_of_a_quadratic(bowl, symmetric, directions, site):
    # L = (theta - c)' A (theta - c) / 2 has the gradient A (theta - mean c) and the Hessian A: the rise is exactly
    # g'r + r'Ar / 2 at every epsilon.
    quadratic = bowl(symmetric([-1.0, 0.5, 1.0, 2.0, 4.0, 9.0]))
    part, shape = {"weight": (slice(0, 4), (1, 2, 2)), "shift": (slice(4, 6), (1, 2))}[site]
    block, g = quadratic.matrix[part, part], quadratic.gradient[part].reshape(shape)
    check = penalty_check(quadratic.risk, [site], EPSILONS)
    expect(
        terms(check, site),
        directions(site, g),
        g,
        lambda r: (block @ r.ravel()).reshape(shape),
        lambda r: np.sum(g * r) + 0.5 * r.ravel() @ block @ r.ravel(),
    )
    assert check["rise"].to_numpy() == pytest.approx(
        (check["first_order"] + check["second_order"]).to_numpy(), rel=1e-9, abs=1e-13
    )


def test_weights_of_linear_regression(linear_regression, directions):
    # With errors e = Xw + b - y: g = X'e / n, H = X'X / n, and the loss is quadratic.
    risk, x, y, w, b = linear_regression
    e = x @ w + b - y
    g = (x.T @ e / 9)[None, None]
    check = penalty_check(risk, ["weight"], EPSILONS)
    expect(
        terms(check, "weight"),
        directions("weight", g),
        g,
        lambda r: r @ x.T @ x / 9,
        lambda r: np.mean(0.5 * (e + x @ r[0, 0]) ** 2 - 0.5 * e**2),
    )


def test_inputs_of_linear_regression(linear_regression, directions):
    # Each example by itself: g = e w, H = w w'.
    risk, x, y, w, b = linear_regression
    e = x @ w + b - y
    g = e[:, None] * w
    check = penalty_check(risk, ["input"], EPSILONS)
    expect(
        terms(check, "input"),
        directions("input", g),
        g,
        lambda r: (r @ w)[:, None] * w,
        lambda r: np.mean(0.5 * (e + r @ w) ** 2 - 0.5 * e**2),
    )


def softmax(scores):
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def cross_entropy(scores, y):
    return np.log(np.exp(scores).sum(1)) - scores[np.arange(len(y)), y]


def test_weights_of_logistic_regression(logistic_regression, directions):
    # With probabilities p: g = (p - onehot)' X / n; H R = sum of (diag p - p p') R x x' / n.
    risk, x, y, w, b = logistic_regression
    scores = x @ w.T + b
    p = softmax(scores)
    g = ((p - np.eye(3)[y]).T @ x / 9)[None]

    def curved(r):
        moved = x @ r[0].T
        return ((p * moved - p * (p * moved).sum(1, keepdims=True)).T @ x / 9)[None]

    check = penalty_check(risk, ["weight"], EPSILONS)
    expect(
        terms(check, "weight"),
        directions("weight", g),
        g,
        curved,
        lambda r: np.mean(cross_entropy(scores + x @ r[0].T, y) - cross_entropy(scores, y)),
    )


def test_inputs_of_logistic_regression(logistic_regression, directions):
    # Each example by itself: g = W'(p - onehot), H = W'(diag p - p p')W.
    risk, x, y, w, b = logistic_regression
    scores = x @ w.T + b
    p = softmax(scores)
    g = (p - np.eye(3)[y]) @ w

    def curved(r):
        moved = r @ w.T
        return (p * moved - p * (p * moved).sum(1, keepdims=True)) @ w

    check = penalty_check(risk, ["input"], EPSILONS)
    expect(
        terms(check, "input"),
        directions("input", g),
        g,
        curved,
        lambda r: np.mean(cross_entropy(scores + r @ w.T, y) - cross_entropy(scores, y)),
    )


def test_a_loss_that_is_linear_in_its_input_has_no_second_order(directions):
    model = nn.Linear(3, 1, bias=False).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    risk = EmpiricalRisk(model, [x], lambda model, batch: model(batch)[:, 0])
    check = penalty_check(risk, ["input", "weight"], EPSILONS)
    assert (check["second_order"] == 0).all()
    assert check["rise"].to_numpy() == pytest.approx(check["first_order"].to_numpy(), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("site", ["input", "weight"])
def test_mask_then_normalize_has_the_penalty_of_equation_12(logistic_regression, site):
    # r = eps Mg / |Mg|: <g, r> = eps |Mg|^2 / |Mg| = eps |Mg|, and |r| = eps.
    check = penalty_check(logistic_regression[0], [site], EPSILONS, 0.7, mask_then_normalize=True)
    masked = check[check["perturbation"] == "masked"]
    assert masked["first_order"].to_numpy() == pytest.approx(masked["eq_12"].to_numpy(), rel=1e-12)
    assert masked["norm"].to_numpy() == pytest.approx(masked["epsilon"].to_numpy(), rel=1e-12)
    assert masked["expected_first_order"].isna().all()
    rows = check.set_index("perturbation")
    scaled, full = rows.loc["scaled gradient"], rows.loc["gradient"]
    assert scaled["norm"].to_numpy() == pytest.approx(np.sqrt(0.7) * full["norm"].to_numpy(), rel=1e-12)


def test_gradient_and_scaled_gradient(logistic_regression):
    rows = penalty_check(logistic_regression[0], ["weight"], EPSILONS, 0.3).set_index("perturbation")
    assert rows.loc["gradient", "norm"].to_numpy() == pytest.approx(EPSILONS, rel=1e-12)
    assert rows.loc["scaled gradient", "norm"].to_numpy() == pytest.approx(0.3 * np.array(EPSILONS), rel=1e-12)
    # The first-order term of the scaled gradient, p eps |g|, is what the masked ones have on average.
    expected = rows.loc["masked"].groupby("epsilon")["expected_first_order"].first().to_numpy()
    assert rows.loc["scaled gradient", "first_order"].to_numpy() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("site", ["input", "weight"])
def test_relative_epsilons_are_shares_of_what_is_perturbed(linear_regression, directions, site):
    risk, x, y, w, b = linear_regression
    e = x @ w + b - y
    value, g = {"input": (x, e[:, None] * w), "weight": (w[None, None], (x.T @ e / 9)[None, None])}[site]
    check = penalty_check(risk, [site], EPSILONS, relative_epsilon=True)
    found = terms(check, site)
    for epsilon in EPSILONS:
        row = found.loc["gradient", 0, epsilon]
        assert row["norm"] == pytest.approx(epsilon * norms(value).mean(), rel=1e-12)
        assert row["first_order"] == pytest.approx(epsilon * np.mean(norms(value) * norms(g)), rel=1e-12)
        masked = found.loc["masked", 2, epsilon]
        mask = mask_of(directions(site, g, value, relative_epsilon=True)["masked", 2])
        assert masked["eq_12"] == pytest.approx(epsilon * np.mean(norms(value) * norms(mask * g)), rel=1e-12)
        assert masked["expected_first_order"] == pytest.approx(
            0.5 * epsilon * np.mean(norms(value) * norms(g)), rel=1e-12
        )


def test_all_or_nothing(logistic_regression):
    every = penalty_check(logistic_regression[0], ["input", "bias"], EPSILONS, 1.0, masks=1, random_directions=0)
    numbers = ["norm", "rise", "first_order", "second_order"]
    parts = {kind: group[numbers].to_numpy() for kind, group in every.groupby("perturbation")}
    assert parts["masked"] == pytest.approx(parts["gradient"], rel=1e-12)
    none = penalty_check(logistic_regression[0], ["input", "bias"], EPSILONS, 0.0, masks=2, random_directions=0)
    assert (none.loc[none["perturbation"] == "masked", [*numbers, "eq_12"]] == 0).all(axis=None)


def test_the_mean_over_many_masks_is_p_epsilon_times_the_norm(linear_regression):
    check = penalty_check(linear_regression[0], ["input", "weight"], (2.0,), 0.3, masks=400, random_directions=0)
    for _, group in check[check["perturbation"] == "masked"].groupby("site"):
        first, expected = group["first_order"], group["expected_first_order"].iloc[0]
        assert len(group) == 400
        assert abs(first.mean() - expected) < 3 * first.std() / 20
        # and not what equation 12 says, which is larger by far more than chance
        assert group["eq_12"].mean() - expected > 5 * group["eq_12"].std() / 20


def test_where_the_gradient_is_zero_nothing_moves():
    # The second example is fitted exactly, and the loss does not depend on the second layer.
    model = nn.ModuleList([nn.Linear(2, 1, bias=False), nn.Linear(2, 1)]).double()
    x = torch.randn(2, 2, dtype=torch.float64)
    y = model[0](x).detach()[:, 0] + torch.tensor([1.0, 0.0], dtype=torch.float64)
    risk = EmpiricalRisk(model, [x], lambda model, x: 0.5 * (model[0](x)[:, 0] - y).square())
    check = penalty_check(risk, ["1.weight", "1.bias"], EPSILONS)
    assert (check[["norm", "rise", "first_order", "second_order"]] == 0).all(axis=None)
    assert (check.loc[check["perturbation"] == "masked", ["eq_12", "expected_first_order"]] == 0).all(axis=None)
    # e = (-1, 0): the mean over both examples of the norm of the gradient by the layer's output is 1/2.
    activation = terms(penalty_check(risk, ["0"], EPSILONS), "0")
    for epsilon in EPSILONS:
        row = activation.loc["gradient", 0, epsilon]
        assert row["norm"] == pytest.approx(epsilon / 2, rel=1e-12)
        assert row["first_order"] == pytest.approx(epsilon / 2, rel=1e-12)
        assert row["rise"] == pytest.approx(epsilon / 2 + epsilon**2 / 4, rel=1e-12)


def test_a_rise_that_is_not_finite_stays():
    model = nn.Linear(1, 1, bias=False).double()
    risk = EmpiricalRisk(model, [torch.ones(2, 1, dtype=torch.float64)], lambda model, batch: model(batch)[:, 0].exp())
    check = penalty_check(risk, ["weight"], (1.0, 1e4), attack_probability=1.0, masks=1, random_directions=0)
    assert np.isfinite(check.loc[check["epsilon"] == 1.0, "rise"]).all()
    assert np.isposinf(check.loc[check["epsilon"] == 1e4, "rise"]).all()


def test_the_table(linear_regression):
    check = penalty_check(linear_regression[0], ["*", "input"], EPSILONS, seed=3)
    assert list(check.columns) == [
        "site", "kind", "epsilon", "perturbation", "draw", "norm", "rise", "rise_noise", "first_order",
        "second_order", "eq_12", "expected_first_order", "attack_probability", "mask_then_normalize",
        "relative_epsilon", "seed", "examples",
    ]  # fmt: skip
    kinds = check[["site", "kind"]].drop_duplicates().to_numpy().tolist()
    assert kinds == [["input", "activation"], ["weight", "parameter"], ["bias", "parameter"]]
    for _, group in check.groupby(["site", "epsilon"]):
        assert group["perturbation"].value_counts().to_dict() == KINDS
    assert (check["examples"] == 9).all()
    assert (check["seed"] == 3).all()
    assert len(set(check["rise_noise"])) == 1
