"""Every method of the registry equals an independent float64 reference, on every test network."""

import pytest
from cases import CASES, starts_off_the_clean_point
from networks import BUILDERS, build
from points import clean_point, loss_and_gradient
from test_backward_contract import gradients
from torch.testing import assert_close

from dropattack.methods import METHODS

EXACT = {"rtol": 0, "atol": 1e-10}


def test_no_method_is_left_out():
    assert {key for key, _, _ in CASES.values()} | {"dropattack"} == set(METHODS)  # which has a file of its own


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("case", CASES)
def test_it_equals_its_reference(case, name):
    _, make, reference = CASES[case]
    network = build(name)
    method = make(network)
    loss = method.backward(network.closure)
    point = clean_point(network)
    expected = reference(network, point)
    assert_close(gradients(network.module), {n: expected[n] for n in gradients(network.module)}, **EXACT)
    if not starts_off_the_clean_point(method):
        assert_close(loss, loss_and_gradient(network, point)[0], **EXACT)
