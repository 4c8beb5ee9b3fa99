"""A quadratic response surface over mixtures: from a few measured mixtures to what another would give.

Scheffe's canonical polynomial for mixtures (Scheffe 1958, "Experiments with Mixtures", J. R. Stat. Soc. B 20), here
with an intercept, because its coefficients are shrunk:

    y(w) = b_0 + sum_i b_i w_i + sum_{i<j} b_ij w_i w_j + noise,   w on the simplex

The coefficients have a normal prior, a ridge penalty, of the width noise / sqrt(penalty). Neither the penalty nor the
noise is known from 16 runs, and one best guess of them is too sure of itself, so both are integrated over: the penalty
on a grid weighed by the evidence, the noise variance in closed form (normal-inverse-gamma; Gelman et al., "Bayesian
Data Analysis", 3rd ed., section 14.2). A surface is therefore a set of draws from its posterior.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

NUM_CANDIDATES = 5_000
NUM_DRAWS = 2_000  # from the posterior
PENALTIES = np.logspace(-3, 3, 25)
MIN_MIXTURES = 6


def features(weights: np.ndarray) -> np.ndarray:
    """`[n, k]` mixtures to `[n, k + k (k - 1) / 2]`: the weights and their products."""
    products = [weights[:, i] * weights[:, j] for i, j in combinations(range(weights.shape[1]), 2)]
    return np.concatenate([weights, np.stack(products, axis=1)], axis=1) if products else weights


@dataclass(frozen=True)
class Surface:
    """Draws from the posterior: `coefficients` `[d, num_features]` of standardised features, `intercepts` and `noise`
    (standard deviation of a run) `[d]`. `mean` and `scale` `[num_features]` standardise.
    """

    coefficients: np.ndarray
    intercepts: np.ndarray
    noise: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    def draws(self, weights: np.ndarray) -> np.ndarray:
        """Values `[d, n]` of each drawn surface at `[n, k]` mixtures."""
        x = (features(np.atleast_2d(weights)) - self.mean) / self.scale
        return self.coefficients @ x.T + self.intercepts[:, None]

    def expected(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation `[n]` of the surface at `[n, k]` mixtures."""
        drawn = self.draws(weights)
        return drawn.mean(0), drawn.std(0)

    def interval(self, weights: np.ndarray, share: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Bounds `[n]` within which one new run at each mixture falls with probability `share`: surface and noise."""
        generator = np.random.default_rng(0)
        runs = self.draws(weights)
        runs = runs + self.noise[:, None] * generator.standard_normal(runs.shape)
        tail = (1 - share) / 2
        return np.quantile(runs, tail, axis=0), np.quantile(runs, 1 - tail, axis=0)


def fit(weights: np.ndarray, values: np.ndarray, seed: int = 219) -> Surface:
    """The surface of `[n]` values measured at `[n, k]` mixtures (rows sum to 1).

    Raises ValueError for fewer than `MIN_MIXTURES` different mixtures, rows that are no mixtures, and values that are
    not finite.
    """
    weights, values = np.asarray(weights, dtype=float), np.asarray(values, dtype=float)
    if (weights < 0).any() or not np.allclose(weights.sum(1), 1.0):
        raise ValueError("a mixture has weights of at least 0 that sum to 1")
    if not np.isfinite(values).all():
        raise ValueError("a measured value is not finite")
    if (different := len(np.unique(weights.round(6), axis=0))) < MIN_MIXTURES:
        raise ValueError(f"{different} different mixtures; a surface needs at least {MIN_MIXTURES}")
    x = features(weights)
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-12)
    x, y = (x - mean) / scale, values - values.mean()
    n, generator = len(y), np.random.default_rng(seed)
    # Per penalty: log evidence up to a constant, and twice the scale of the noise variance's inverse gamma.
    kernels = [np.eye(n) + x @ x.T / penalty for penalty in PENALTIES]
    residuals = np.array([max(y @ np.linalg.solve(kernel, y), 1e-18) for kernel in kernels])
    log_evidence = [
        -0.5 * np.linalg.slogdet(kernel)[1] - 0.5 * (n - 1) * np.log(residual)
        for kernel, residual in zip(kernels, residuals, strict=True)
    ]
    shares = np.exp(np.array(log_evidence) - max(log_evidence))
    counts = generator.multinomial(NUM_DRAWS, shares / shares.sum())
    coefficients, noise = [], []
    for penalty, residual, count in zip(PENALTIES, residuals, counts, strict=True):
        precision = x.T @ x + penalty * np.eye(x.shape[1])
        sigma = np.sqrt(residual / generator.chisquare(n - 1, count))
        spread = np.linalg.cholesky(np.linalg.inv(precision))
        around = generator.standard_normal((count, x.shape[1])) @ spread.T
        coefficients.append(np.linalg.solve(precision, x.T @ y) + sigma[:, None] * around)
        noise.append(sigma)
    noise = np.concatenate(noise)
    intercepts = values.mean() + noise / np.sqrt(n) * generator.standard_normal(NUM_DRAWS)
    return Surface(np.concatenate(coefficients), intercepts, noise, mean, scale)


def candidates(num_sources: int, min_weight: float = 0.0, seed: int = 219) -> np.ndarray:
    """`[NUM_CANDIDATES, k]` mixtures, evenly over the simplex with weights of at least `min_weight`.

    Raises ValueError where there is none.
    """
    room = 1.0 - num_sources * min_weight
    if not 0 < room <= 1:
        raise ValueError(f"min_weight is {min_weight}; wanted at least 0 and less than 1 / {num_sources}")
    drawn = np.random.default_rng(seed).dirichlet(np.ones(num_sources), NUM_CANDIDATES)
    return min_weight + room * drawn


def best(surface: Surface, among: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The candidate `[k]` of the highest expected value, and the 5 % and 95 % quantiles `[k]` of where it may lie:
    the best candidate of each drawn surface.
    """
    drawn = surface.draws(among)
    places = among[drawn.argmax(1)]
    return among[drawn.mean(0).argmax()], np.quantile(places, 0.05, axis=0), np.quantile(places, 0.95, axis=0)


def next_to_try(surface: Surface, measured: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The candidate `[k]` with the largest expected improvement over the best expected value among `measured` `[n, k]`
    (Jones, Schonlau, Welch 1998, "Efficient Global Optimization", eq. 15).
    """
    reference = surface.expected(measured)[0].max()
    mean, deviation = surface.expected(among)
    deviation = np.maximum(deviation, 1e-12)
    z = (mean - reference) / deviation
    return among[((mean - reference) * stats.norm.cdf(z) + deviation * stats.norm.pdf(z)).argmax()]
