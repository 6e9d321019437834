import math

import numpy as np
import pytest

from dropattack.paper import binomial_standard_error, examples_tested


def test_standard_error_is_that_of_a_sample_of_answers():
    # k of n answers correct: the variance of one answer is (k/n)(1 - k/n), numpy's population variance.
    answers = np.repeat([1.0, 0.0], [450, 50])
    assert float(binomial_standard_error(90, 500)) == pytest.approx(100 * answers.std() / math.sqrt(500))
    assert float(binomial_standard_error(90, 5000)) == pytest.approx(0.424, abs=5e-4)


def test_standard_error_keeps_the_shape():
    found = binomial_standard_error([[0, 50, 100]], 25)
    np.testing.assert_allclose(found, [[0, 10, 0]])  # 100 sqrt(1/4 / 25) = 10


def test_examples_tested():
    assert [examples_tested(name) for name in ("imdb", "pheme", "ag-news")] == [5000, 637, 7600]
    with pytest.raises(ValueError, match="expected one of imdb, pheme, ag-news, mnist, cifar10, got 'mnist-5k'"):
        examples_tested("mnist-5k")
