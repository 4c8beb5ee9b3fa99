"""The response surface: exact where there is no noise, honest about what it does not know."""

import numpy as np
import pytest

from utils.response_surface import best, candidates, features, fit, next_to_try

DESIGN = np.array(
    [[0.2] * 5]
    + [[0.6 if i == j else 0.1 for j in range(5)] for i in range(5)]
    + [[0.35 if j in (a, b) else 0.1 for j in range(5)] for a in range(5) for b in range(a + 1, 5)]
)


def test_features_are_weights_and_products():
    assert features(np.array([[0.2, 0.3, 0.5]]))[0].tolist() == pytest.approx(
        [0.2, 0.3, 0.5, 0.06, 0.1, 0.15]
    )


def test_a_quadratic_without_noise_is_found_again():
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(3), 40)
    values = features(weights) @ np.array([0.5, 0.6, 0.4, 0.3, -0.2, 0.5])
    surface = fit(weights, values)
    new = generator.dirichlet(np.ones(3), 100)
    expected, _ = surface.expected(new)
    assert np.abs(expected - features(new) @ np.array([0.5, 0.6, 0.4, 0.3, -0.2, 0.5])).max() < 2e-3


def test_the_interval_covers_an_unseen_run_as_often_as_it_says():
    """200 studies of 16 noisy runs of a surface that is not quadratic; one new run at a mixture of its own each."""
    covered = []
    for study in range(200):
        generator = np.random.default_rng(study)
        scale = generator.uniform(0.05, 0.3, 5)

        def value(weights, scale=scale):
            return 0.5 + (np.sqrt(weights) * scale).sum(1)

        surface = fit(DESIGN, value(DESIGN) + generator.normal(0, 0.015, len(DESIGN)))
        new = 0.05 + 0.75 * generator.dirichlet(np.ones(5), 1)
        low, high = surface.interval(new)
        covered.append(low[0] <= value(new)[0] + generator.normal(0, 0.015) <= high[0])
    assert 0.88 <= np.mean(covered) <= 0.995


def test_the_best_mixture_is_found_and_its_range_holds_it():
    """The truth favours the first source with diminishing returns: the optimum is inside of the simplex."""
    gains = np.array([0.4, 0.2, 0.1, 0.1, 0.1])
    values = (np.sqrt(DESIGN) * gains).sum(1) + np.random.default_rng(1).normal(0, 0.002, len(DESIGN))
    among = candidates(5)
    chosen, low, high = best(fit(DESIGN, values), among)
    truly = (np.sqrt(among) * gains).sum(1)
    reached = (np.sqrt(chosen) * gains).sum()
    assert reached > truly.max() - 0.02
    assert reached > values.max()
    assert (low <= chosen + 1e-9).all()
    assert (chosen <= high + 1e-9).all()


def test_what_to_try_next_is_not_what_was_tried():
    gains = np.array([0.4, 0.2, 0.1, 0.1, 0.1])
    surface = fit(DESIGN, (np.sqrt(DESIGN) * gains).sum(1))
    proposed = next_to_try(surface, DESIGN, candidates(5))
    assert np.abs(DESIGN - proposed).max(1).min() > 0.03
    assert proposed[0] == max(proposed)


def test_candidates_keep_their_floor():
    among = candidates(4, 0.1)
    assert np.allclose(among.sum(1), 1)
    assert among.min() >= 0.1
    with pytest.raises(ValueError, match="min_weight"):
        candidates(4, 0.25)


@pytest.mark.parametrize(
    ("weights", "values", "message"),
    [
        (DESIGN[:5], np.ones(5), "5 different mixtures"),
        (DESIGN * 2, np.ones(16), "sum to 1"),
        (DESIGN, np.full(16, np.nan), "not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(weights, values, message):
    with pytest.raises(ValueError, match=message):
        fit(weights, values)
