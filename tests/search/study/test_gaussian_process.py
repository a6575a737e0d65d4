"""The Gaussian process: its gradient, what it predicts and how sure it is."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern
from threadpoolctl import threadpool_limits

from search.study.gaussian_process import GaussianProcess

NUMBERS = np.array([False, False])
MIXED = np.array([False, True, False])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Several threads wait for each other more than they work, on matrices so small and cores that others use."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture
def searches(monkeypatch):
    """Note the searches for length scales, and end each where it begins, or at `searches.end`."""
    searches = SimpleNamespace(end=None, loss=None, bounds=None)

    def search(fun, start, args, bounds, **how):
        searches.loss, searches.bounds = lambda theta: fun(theta, *args), np.array(bounds)
        return SimpleNamespace(x=start if searches.end is None else np.array(searches.end))

    monkeypatch.setattr("search.study.gaussian_process.minimize", search)
    return searches


def draw(is_word, n, *, seed=0):
    """Draw points with three words, and a function of them with a little noise."""
    rng = np.random.default_rng(seed)
    x = np.where(is_word, rng.integers(3, size=(n, len(is_word))), rng.random((n, len(is_word))))
    return x, np.sin(4 * x[:, 0]) + 0.5 * x[:, 1] + 0.1 * rng.normal(size=n)


def fitted(is_word, x, y):
    model = GaussianProcess(is_word)
    model.fit(x, y, max_iterations=30)
    model.condition(x, y)
    return model


def smooth(x):
    return np.sin(5 * x[:, 0]) + x[:, 1] ** 2


@pytest.mark.parametrize("is_word", [NUMBERS, MIXED, np.array([True, True])], ids=["numbers", "mixed", "words"])
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_agrees_with_finite_differences(searches, is_word, seed):
    GaussianProcess(is_word).fit(*draw(is_word, 20, seed=seed))
    low, high = searches.bounds.T
    theta = np.random.default_rng(seed).uniform(low, high)

    _, gradient = searches.loss(theta)

    assert gradient == pytest.approx(approx_fprime(theta, lambda t: searches.loss(t)[0], 1e-6), rel=1e-3, abs=1e-3)


def test_a_fit_lowers_the_loss_and_goes_on_from_where_it_stood(monkeypatch):
    losses = []

    def search(fun, start, args, **how):
        found = minimize(fun, start, args=args, **how)
        losses.append((fun(start, *args)[0], found.fun))
        return found

    monkeypatch.setattr("search.study.gaussian_process.minimize", search)
    x, y = draw(MIXED, 25)
    model = GaussianProcess(MIXED)
    model.fit(x, y, max_iterations=2)
    model.fit(x, y, max_iterations=10)

    (first, second), (third, last) = losses
    assert first > second == third > last


def test_a_smooth_function_is_predicted_where_it_was_not_seen():
    rng = np.random.default_rng(0)
    x, held_out = rng.random((40, 2)), rng.random((200, 2))

    mean, _ = fitted(NUMBERS, x, smooth(x)).predict(held_out)

    missed = ((smooth(held_out) - mean) ** 2).sum() / ((smooth(held_out) - smooth(held_out).mean()) ** 2).sum()
    assert 1 - missed > 0.99


def test_it_is_sure_where_it_has_looked_and_less_so_the_farther_away():
    x = np.random.default_rng(0).uniform(0, 0.3, (40, 2))
    model = fitted(NUMBERS, x, smooth(x))

    _, at_data = model.predict(x)
    _, away = model.predict(np.array([[0.4, 0.4], [0.6, 0.6], [1.0, 1.0]]))

    assert at_data.max() < 0.1 * smooth(x).std()
    assert at_data.max() < away[0] < away[1] < away[2]


@pytest.mark.parametrize(
    ("is_word", "theta"),
    [(NUMBERS, [1.5, -1.0, -3.0]), (NUMBERS, [-2.0, 3.0, -6.0]), (MIXED, [1.0, 0.5, -1.0, -2.0])],
)
def test_it_agrees_with_scikit_learn(searches, is_word, theta):
    def spell_out(x):
        """A dimension for every word, in which two words differ by 2 in the square."""
        columns = [np.eye(3)[x[:, k].astype(int)] / np.sqrt(2) if word else x[:, [k]] for k, word in enumerate(is_word)]
        return np.hstack(columns)

    (x, y), (other, _) = draw(is_word, 30), draw(is_word, 50, seed=1)
    scales = np.repeat(theta[:-1], np.where(is_word, 3, 1))
    theirs = GaussianProcessRegressor(Matern(np.exp(-scales / 2), nu=2.5), alpha=np.exp(theta[-1]), optimizer=None)
    theirs.fit(spell_out(x), y - y.mean())
    searches.end = theta
    ours = fitted(is_word, x, y)

    mean, deviation = ours.predict(other)

    their_mean, their_deviation = theirs.predict(spell_out(other), return_std=True)
    variance = (y - y.mean()) @ theirs.alpha_.ravel() / len(y)  # of the signal, which they take to be 1
    assert mean == pytest.approx(their_mean + y.mean(), abs=1e-5)
    assert deviation == pytest.approx(np.sqrt(variance) * their_deviation, rel=1e-4)


def test_what_does_not_matter_is_taken_to_change_slowly():
    inner = np.linspace(0.3, 0.7, 7)
    x = np.array([[a, b] for a in inner for b in inner])  # the same in both dimensions, but for the values
    model = fitted(NUMBERS, x, np.sin(12 * x[:, 0]))

    mean, deviation = model.predict(np.array([[1.0, 0.5], [0.5, 1.0], [0.5, 0.5]]))

    assert deviation[0] > 3 * deviation[1]
    assert mean[1] == pytest.approx(mean[2], abs=0.05)


def test_equal_words_are_near_and_all_others_equally_far():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.random(30), rng.integers(2, size=30)])
    model = fitted(np.array([False, True]), x, x[:, 0] + 3.0 * x[:, 1])

    mean, deviation = model.predict(np.array([[0.5, word] for word in (0, 1, 2, 3, 9, -1)]))

    assert mean[:2] == pytest.approx([0.5, 3.5], abs=0.1)
    assert np.ptp(mean[2:]) == pytest.approx(0, abs=1e-9)
    assert np.ptp(deviation[2:]) == pytest.approx(0, abs=1e-9)
    assert deviation[:2].max() < 0.5 * deviation[2]


def test_what_was_seen_twice_is_taken_to_be_noisy():
    x = np.repeat(np.random.default_rng(0).random((10, 2)), 2, axis=0)
    y = smooth(x) + np.tile([-0.5, 0.5], 10)

    mean, deviation = fitted(NUMBERS, x, y).predict(x[:2])

    assert mean[0] == mean[1]
    assert y[0] < mean[0] < y[1]
    assert deviation[0] > 0.05


@pytest.mark.parametrize("n", [1, 2, 20])
def test_what_is_always_the_same_is_expected_everywhere(n):
    x = np.random.default_rng(0).random((n, 2))

    mean, deviation = fitted(NUMBERS, x, np.full(n, 0.7)).predict(np.random.default_rng(1).random((50, 2)))

    assert mean == pytest.approx(np.full(50, 0.7))
    assert ((deviation > 0) & (deviation < 0.01)).all()


@pytest.mark.parametrize("is_word", [NUMBERS, np.array([True, False])], ids=["numbers", "a word"])
def test_two_observations_are_enough_to_tell_what_is_better(is_word):
    x = np.array([[0.0, 0.2], [1.0, 0.8]])

    mean, deviation = fitted(is_word, x, np.array([-1.0, 1.0])).predict(x)

    assert -1.1 < mean[0] < -0.5
    assert 0.5 < mean[1] < 1.1
    assert (deviation > 0).all()


def test_many_equal_rows_can_be_factorised():
    x, y = np.full((100, 2), 0.5), np.random.default_rng(0).normal(size=100)

    mean, deviation = fitted(NUMBERS, x, y).predict(np.array([[0.5, 0.5], [0.0, 1.0]]))

    assert mean[0] == pytest.approx(y.mean(), abs=1e-6)
    assert np.isfinite(deviation).all()
    assert deviation[0] < deviation[1]
