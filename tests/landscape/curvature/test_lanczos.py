"""The Krylov space: A V = V T + w e', an orthonormal basis, and restarts."""

import numpy as np
import pytest
import torch

from landscape.curvature.lanczos import Krylov


def space_of(matrix, steps, capacity=None, start=None, seed=0):
    draws = np.random.default_rng(seed)
    start = matrix.gaussian(draws) if start is None else start
    space = Krylov(matrix, start, capacity or steps, draws)
    for _ in range(steps):
        space.step()
    return space


def check_relation(space, dense):
    """A V = V T + w e', with w of the coupling's length along the next vector, beside the basis."""
    basis, dense = space.basis.numpy(), dense.numpy()
    remainder, scale = basis @ dense - space.projected.T @ basis, np.abs(dense).max()
    expected = np.zeros_like(remainder)
    if space.coupling:
        expected[-1] = space.coupling * space.next_vector.numpy()
        assert np.abs(basis @ space.next_vector.numpy()).max() < 1e-13
    np.testing.assert_allclose(remainder, expected, atol=1e-13 * scale * len(dense))
    np.testing.assert_allclose(basis @ basis.T, np.eye(space.steps), atol=1e-13)
    np.testing.assert_array_equal(space.projected, space.projected.T)


@pytest.mark.parametrize("steps", [1, 2, 25, 60])
@pytest.mark.parametrize("spectrum", ["network", "indefinite"])
def test_the_relation(known, spectrum, steps):
    matrix = known(spectrum)
    space = space_of(matrix, steps)
    check_relation(space, matrix.dense)
    assert (space.steps, space.is_full, matrix.spent) == (steps, True, steps)


def test_the_projected_matrix_is_tridiagonal(known):
    # As in exact arithmetic; re-orthogonalization leaves nothing but rounding elsewhere.
    projected = space_of(known("network"), 30).projected
    assert np.abs(np.triu(projected, 2)).max() < 1e-12
    assert (np.diag(projected, 1)[:9] > 1e-3).all()


def test_no_ghosts(known):
    # Without re-orthogonalization, eigenvalues that stand far out come back as copies long before 120 steps.
    values = space_of(known([1000.0, 500.0, 200.0, *np.linspace(0, 1, 197)]), 120).ritz().values
    np.testing.assert_allclose(values[-3:], [200, 500, 1000], rtol=1e-12)
    assert values[-4] <= 1 + 1e-12


def test_residuals_are_those_of_the_vectors(known):
    matrix = known("network")
    space = space_of(matrix, 12)
    ritz = space.ritz()
    vectors = space.vectors_of(ritz.coordinates)
    for value, residual, vector in zip(ritz.values, ritz.residuals, vectors, strict=True):
        assert float(torch.linalg.vector_norm(vector)) == pytest.approx(1, abs=1e-13)
        found = float(torch.linalg.vector_norm(matrix.dense @ vector - float(value) * vector))
        assert found == pytest.approx(residual, abs=1e-11)
    assert ritz.residuals.max() > 0.1


@pytest.mark.parametrize("keep", [[27, 28, 29], [0, 1, 28, 29], [*range(5), *range(20, 30)]], ids=len)
def test_the_relation_after_restarts(known, keep):
    matrix = known("network")
    space = space_of(matrix, 30)
    for _ in range(3):
        ritz = space.ritz()
        space.restart(np.array(keep))
        assert space.steps == len(keep)
        np.testing.assert_allclose(np.diag(space.projected), ritz.values[keep])
        space.step()
        check_relation(space, matrix.dense)
        while not space.is_full:
            space.step()
        check_relation(space, matrix.dense)
        # What was kept can only improve: eigenvalues of a projection on a larger space interlace.
        assert space.ritz().values[-1] >= ritz.values[-1] - 1e-12


def test_a_space_that_is_invariant_goes_on_from_another_start(known):
    # The start has parts of two eigenvectors, so that the third step finds nothing new.
    matrix = known([4.0, 3.0, 2.0, 1.0])
    vectors = torch.linalg.eigh(matrix.dense)[1]
    space = space_of(matrix, 2, 4, start=vectors[:, 0] + vectors[:, 2])
    assert space.coupling == 0
    np.testing.assert_allclose(space.ritz().values, [1, 3], atol=1e-13)
    np.testing.assert_array_equal(space.ritz().residuals, 0)
    while not space.is_full:
        space.step()
        check_relation(space, matrix.dense)
    np.testing.assert_allclose(space.ritz().values, [1, 2, 3, 4], atol=1e-13)


def test_the_whole_space_has_nothing_beside_it(known):
    matrix = known(np.linspace(-1, 2, 24))
    space = space_of(matrix, 24)
    assert space.coupling == 0
    np.testing.assert_allclose(space.ritz().values, matrix.eigenvalues[::-1], atol=1e-13)
    check_relation(space, matrix.dense)


def test_the_length_of_the_start_does_not_matter(known):
    matrix = known("network")
    start = matrix.gaussian(np.random.default_rng(5))
    one, other = (space_of(matrix, 6, start=factor * start) for factor in (1, 1e6))
    np.testing.assert_allclose(other.projected, one.projected, rtol=1e-9, atol=1e-9)


def test_float32_keeps_an_orthonormal_basis(known):
    space = space_of(known("network", dtype=torch.float32), 60)
    assert space.basis.dtype == torch.float32
    gram = space.basis @ space.basis.T
    torch.testing.assert_close(gram, torch.eye(60), rtol=0, atol=2e-6)


def test_no_full_vector_is_copied_to_the_host(known, monkeypatch):
    # Nor to NumPy, which is the same on the CPU: only the few coefficients in the basis are.
    matrix = known("network")
    space = space_of(matrix, 3, 20)
    sizes = []
    for name in ("cpu", "numpy", "tolist"):
        original = getattr(torch.Tensor, name)

        def noted(self, *arguments, original=original, **named):
            sizes.append(self.numel())
            return original(self, *arguments, **named)

        monkeypatch.setattr(torch.Tensor, name, noted)
    for _ in range(5):
        space.step()
        space.ritz()
    space.restart(np.arange(4))
    assert sizes
    assert max(sizes) <= 20 < matrix.size
