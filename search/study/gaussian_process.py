"""Gaussian process regression over vectors of numbers and words, small and fast enough to be fitted between trials."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

Array = NDArray[np.float64]

# Normal priors on the logarithms: of 1 / length scale squared, for numbers in [0, 1], and of the share of noise.
_PRIOR_MEAN, _PRIOR_DEVIATION = (0.0, np.log(0.05)), 1.5
_BOUNDS = ((-7.0, 5.0), (np.log(1e-3), np.log(2.0)))
_INFEASIBLE = 1e10  # stands for minus the likelihood of what cannot be factorised


class GaussianProcess:
    """A Gaussian process with a Matérn kernel of smoothness 5/2 and a length scale for every dimension.

    Words are told apart, no more: their squared distance is 1. The variance of the signal follows from the data in
    closed form; length scales and noise are fitted by maximum a posteriori.

    Args:
        is_word: Which of the d dimensions hold words, as whole numbers; shape (d,).

    Source:
        Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, sections 2.2, 4.2 and 5.4.
    """

    def __init__(self, is_word: NDArray[np.bool_]) -> None:
        self._is_word = is_word
        d = len(is_word)
        self._mean = np.append(np.full(d, _PRIOR_MEAN[0]), _PRIOR_MEAN[1])
        self._log_theta = self._mean.copy()
        self._bounds = [_BOUNDS[0]] * d + [_BOUNDS[1]]

    def fit(self, x: Array, y: Array, *, max_iterations: int = 15) -> None:
        """Fit length scales and noise, from where they stand.

        Args:
            x: Shape (n, d).
            y: Shape (n,).
            max_iterations: Of L-BFGS; it goes on from there next time.
        """
        squares = self._squares(x, x)
        centred = y - y.mean()
        found = minimize(
            self._loss,
            self._log_theta,
            args=(squares, centred),
            jac=True,
            method="L-BFGS-B",
            bounds=self._bounds,
            options={"maxiter": max_iterations},
        )
        self._log_theta = found.x

    def condition(self, x: Array, y: Array) -> None:
        """Take these observations as known; shapes (n, d) and (n,)."""
        kernel = self._kernel(x, x)
        kernel.flat[:: len(y) + 1] += np.exp(self._log_theta[-1]) + 1e-8
        self._x, self._offset = x, float(y.mean())
        self._factor = cholesky(kernel, lower=True, check_finite=False)
        self._weights = cho_solve((self._factor, True), y - self._offset, check_finite=False)
        self._variance = max(float((y - self._offset) @ self._weights) / len(y), 1e-6)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the underlying function at the rows of `x`."""
        kernel = self._kernel(x, self._x)
        half = solve_triangular(self._factor, kernel.T, lower=True, check_finite=False)
        variance = np.maximum(1 - np.einsum("ij,ij->j", half, half), 1e-9) * self._variance
        return self._offset + kernel @ self._weights, np.sqrt(variance)

    def _squares(self, a: Array, b: Array) -> Array:
        """Squared distance in each dimension, shape (n, m, d)."""
        difference = a[:, None, :] - b[None, :, :]
        return np.where(self._is_word, difference != 0, difference * difference).astype(np.float64)

    def _kernel(self, a: Array, b: Array) -> Array:
        scales = np.exp(self._log_theta[:-1])
        numbers, words = ~self._is_word, np.flatnonzero(self._is_word)
        root = np.sqrt(scales[numbers])
        left, right = a[:, numbers] * root, b[:, numbers] * root
        squared = (left * left).sum(1)[:, None] + (right * right).sum(1)[None] - 2 * left @ right.T
        for k in words:
            squared += scales[k] * (a[:, k][:, None] != b[:, k][None])
        return _matern(np.maximum(squared, 0))[0]

    def _loss(self, log_theta: Array, squares: Array, y: Array) -> tuple[float, Array]:
        """Minus the log posterior and its gradient; the signal's variance is profiled out."""
        n, noise = len(y), np.exp(log_theta[-1])
        scales = np.exp(log_theta[:-1])
        kernel, slope = _matern(squares @ scales)
        noisy = kernel.copy()
        noisy.flat[:: n + 1] += noise
        try:
            factor = cholesky(noisy, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return _INFEASIBLE, np.zeros_like(log_theta)
        weights = cho_solve((factor, True), y, check_finite=False)
        inverse, _ = dpotri(factor, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        variance = max(float(y @ weights) / n, 1e-6)
        loss = 0.5 * n * np.log(variance) + np.log(np.diag(factor)).sum()
        outer = inverse - np.outer(weights, weights) / variance
        gradient = np.empty_like(log_theta)
        gradient[:-1] = 0.5 * np.tensordot(outer * slope, squares, axes=([0, 1], [0, 1])) * scales
        gradient[-1] = 0.5 * np.trace(outer) * noise
        away = (log_theta - self._mean) / _PRIOR_DEVIATION
        return float(loss + 0.5 * (away**2).sum()), gradient + away / _PRIOR_DEVIATION


def _matern(squared: Array) -> tuple[Array, Array]:
    """Return the Matérn kernel of smoothness 5/2 and its derivative by the squared distance."""
    r = np.sqrt(5 * squared)
    decay = np.exp(-r)
    return (1 + r + r * r / 3) * decay, -5 / 6 * (1 + r) * decay
