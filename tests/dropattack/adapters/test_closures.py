"""Optimizers that evaluate the loss themselves see one function in each step, the one that they descend."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dropattack.adapters.closures import optimizer_closure
from dropattack.methods import FGM, PGD, SAM, Compose, DropAttack, FreeAT, Scheduled, Standard


def logistic_regression():
    """Strictly convex through its L2 term."""
    torch.manual_seed(0)
    model = nn.Linear(5, 3).double()
    x, y = torch.randn(40, 5, dtype=torch.float64), torch.randint(3, (40,))

    def loss():
        penalty = sum((parameter**2).sum() for parameter in model.parameters())
        return nn.functional.cross_entropy(model(x), y) + 0.05 * penalty

    return model, loss


def lbfgs(model, **options):
    return torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe", max_iter=10, **options)


def test_standard_is_plain_lbfgs():
    (plain, plain_loss), (model, loss) = logistic_regression(), logistic_regression()
    plain_optimizer, optimizer = lbfgs(plain), lbfgs(model)

    def plain_closure():
        plain_optimizer.zero_grad()
        value = plain_loss()
        value.backward()
        return value

    method = Standard(model)
    for _ in range(4):
        expected = plain_optimizer.step(plain_closure)
        actual = optimizer.step(optimizer_closure(method, loss, optimizer))
        assert_close(actual, expected.detach(), rtol=0, atol=0)
    assert_close(dict(model.named_parameters()), dict(plain.named_parameters()), rtol=0, atol=0)
    optimizer_closure(method, loss, optimizer)()
    assert max(parameter.grad.abs().max() for parameter in model.parameters()) < 1e-4  # it is the minimum


class Network(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.first = nn.Linear(5, 16)
        self.drop = nn.Dropout(dropout)
        self.second = nn.Linear(16, 3)

    def forward(self, x):
        return self.second(self.drop(torch.tanh(self.first(x))))


def network(dropout=0.0):
    torch.manual_seed(0)
    model = Network(dropout)
    x, y = torch.randn(32, 5), torch.randint(3, (32,))
    return model, lambda: nn.functional.cross_entropy(model(x), y)


def dropattack(model, **options):
    return DropAttack(model, inputs="input", weights=("first.weight",), epsilon=0.3, attack_probability=0.5, **options)


METHODS = {
    "dropattack": dropattack,
    "dropattack, seeded": lambda model: dropattack(model, generator=torch.Generator().manual_seed(3)),
    "pgd": lambda model: PGD(model, "input", epsilon=0.5, random_start=True),
    "parts that draw": lambda model: Compose(
        model,
        PGD(model, "input", epsilon=0.5, random_start=True),
        DropAttack(model, weights=("first.weight",), epsilon=0.3, attack_probability=0.5),
    ),
    "standard": Standard,
}


@pytest.mark.parametrize("warm", [False, True], ids=["first step", "second step"])
@pytest.mark.parametrize("name", METHODS)
def test_all_evaluations_of_a_step_see_one_function(name, warm):
    model, loss = network(dropout=0.5)
    method, optimizer = METHODS[name](model), torch.optim.SGD(model.parameters(), lr=0.1)
    if warm:
        method.backward(loss)
    closure = optimizer_closure(method, loss, optimizer)
    first = closure()
    gradient = model.first.weight.grad.clone()
    torch.rand(7)  # what the optimizer draws does not matter
    assert_close(closure(), first, rtol=0, atol=0)
    assert_close(model.first.weight.grad, gradient, rtol=0, atol=0)
    another = optimizer_closure(method, loss, optimizer)
    assert another() != first


def test_what_a_method_carries_moves_once_a_step():
    # Every second step is plain: without rewinding, so would be every second evaluation.
    model, loss = network()
    method = Scheduled(model, SAM(model, rho=0.5), every=2)
    for expected in (SAM(model, rho=0.5), Standard(model), SAM(model, rho=0.5)):
        closure = optimizer_closure(method, loss, torch.optim.SGD(model.parameters(), lr=0.1))
        values = [closure() for _ in range(3)]
        expected.backward(loss)
        assert_close(torch.stack(values), expected.last.objective.expand(3), rtol=0, atol=0)


def test_random_streams_are_left_as_after_one_evaluation():
    states = []
    for evaluations in (1, 3):
        model, loss = network(dropout=0.5)
        method = dropattack(model)
        closure = optimizer_closure(method, loss, torch.optim.SGD(model.parameters(), lr=0.1))
        for _ in range(evaluations):
            closure()
        states.append((torch.get_rng_state(), method._generator.get_state()))
    assert_close(states[0], states[1], rtol=0, atol=0)


def test_the_value_is_what_the_gradient_belongs_to():
    # At epsilon 0 FGM's objective is (a + b) L and its gradient (a + b) times that of L.
    model, loss = network()
    method = FGM(model, "input", epsilon=0.0, clean_weight=0.7, adversarial_weight=0.8)
    value = optimizer_closure(method, loss, torch.optim.SGD(model.parameters(), lr=0.1))()
    assert_close(value, 1.5 * loss().detach())
    assert not value.requires_grad
    (expected,) = torch.autograd.grad(loss(), model.first.weight)
    assert_close(model.first.weight.grad, 1.5 * expected)


def test_line_search_lowers_the_objective_of_dropattack():
    model, loss = network()
    method, optimizer = dropattack(model), lbfgs(model)
    closure = optimizer_closure(method, loss, optimizer)  # one for all steps: the same masks throughout
    before = closure()
    for _ in range(5):
        optimizer.step(closure)
    after = closure()
    record = method.last
    assert_close(after, record.clean_loss + sum(losses[0] for losses in record.adversarial_losses.values()))
    assert after < 0.8 * before


def test_options_reach_the_method():
    model, loss = network()
    seen = []
    closure = optimizer_closure(
        Standard(model), loss, torch.optim.SGD(model.parameters(), lr=0.1), backward=lambda loss: seen.append(loss)
    )
    closure()
    assert len(seen) == 1


def test_replays_are_refused():
    model, loss = network()
    with pytest.raises(
        ValueError, match="FreeAT makes 3 optimizer steps a batch, but an optimizer's closure makes one"
    ):
        optimizer_closure(FreeAT(model, "input"), loss, torch.optim.SGD(model.parameters(), lr=0.1))
