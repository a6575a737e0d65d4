import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest

from search.space.objective import Objective
from search.trial.intervals import (
    accuracy,
    balanced_macro_f1,
    bootstrap_confusion,
    difference_of,
    f1_of,
    macro_f1,
    paired_differences,
    wilson,
    worst_class_f1,
)
from search.trial.metrics import score_confusion

STATISTICS = {
    "macro_f1": macro_f1,
    "balanced_macro_f1": balanced_macro_f1,
    "worst_class_f1": worst_class_f1,
    "accuracy": accuracy,
}
# Shares of each actual class called each class, and wafers of each: one is rare.
RATES = np.array([[0.9, 0.06, 0.04], [0.15, 0.8, 0.05], [0.2, 0.1, 0.7]])
SUPPORT = np.array([200, 60, 25])
confusions = arrays(np.int64, (4, 4), elements=st.integers(0, 30)).filter(lambda counts: counts.sum() > 0)


def draw_wafers(random, *, n=300, agree=0.7, k=4):
    """Labels, and two models that are right on the same wafers more often than by chance."""
    labels = random.integers(k, size=n)
    right = random.random((2, n)) < np.where(random.random(n) < agree, 1.0, 0.3)
    return labels, *np.where(right, labels, random.integers(k, size=(2, n)))


def paired_difference(labels, predicted_a, predicted_b, statistic, **options):
    return paired_differences(labels, predicted_a, predicted_b, {"": statistic}, **options)[""]


@given(confusions)
def test_every_statistic_equals_the_score_of_the_same_name(confusion):
    scores = score_confusion(confusion)

    for name, statistic in STATISTICS.items():
        assert statistic(confusion[None])[0] == pytest.approx(getattr(scores, name), abs=1e-12)
    for k in range(4):
        assert f1_of(k)(confusion[None])[0] == pytest.approx(scores.f1[k], abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", ["macro_f1", "balanced_macro_f1", "accuracy"])
def test_95_percent_intervals_contain_the_truth_in_95_percent(name):
    random = np.random.default_rng(0)
    statistic, truth = STATISTICS[name], STATISTICS[name]((RATES * SUPPORT[:, None])[None])[0]
    intervals = [
        bootstrap_confusion(random.multinomial(SUPPORT, RATES), statistic, n=400, seed=trial) for trial in range(400)
    ]

    assert 0.92 <= np.mean([one.low <= truth <= one.high for one in intervals]) <= 0.98


def test_paired_intervals_contain_the_true_difference_and_their_p_values_are_level():
    random = np.random.default_rng(1)
    # Both models are equally good, by symmetry: the true difference is 0.
    found = [paired_difference(*draw_wafers(random), macro_f1, n=400, seed=trial) for trial in range(400)]

    assert 0.92 <= np.mean([one.low <= 0 <= one.high for one in found]) <= 0.98
    assert 0.02 <= np.mean([one.p_value < 0.05 for one in found]) <= 0.08
    assert 0.42 <= np.mean([one.p_value < 0.5 for one in found]) <= 0.58


def test_intervals_by_lot_contain_the_true_difference_where_those_by_wafer_do_not():
    random = np.random.default_rng(2)
    by_wafer, by_lot = [], []
    for trial in range(200):
        # 40 lots of 25; within a lot one model is right more often than the other, by the same amount.
        lots = np.repeat(np.arange(40), 25)
        labels = random.integers(2, size=1000)
        lean = np.repeat(random.normal(0, 0.2, size=40), 25)
        a, b = (np.where(random.random(1000) < 0.7 + sign * lean, labels, 1 - labels) for sign in (1, -1))
        by_wafer.append(paired_difference(labels, a, b, accuracy, n=300, seed=trial))
        by_lot.append(paired_difference(labels, a, b, accuracy, groups=lots, n=300, seed=trial))

    assert 0.91 <= np.mean([one.low <= 0 <= one.high for one in by_lot]) <= 0.99
    assert np.mean([one.low <= 0 <= one.high for one in by_wafer]) < 0.7


def test_pairing_makes_the_interval_narrower_than_that_of_independent_wafers():
    labels, a, _ = draw_wafers(np.random.default_rng(3))
    b = np.where(np.arange(300) % 20 == 0, labels, a)
    matrices = [np.bincount(labels * 4 + called, minlength=16).reshape(4, 4) for called in (a, b)]

    paired, unpaired = paired_difference(labels, a, b, macro_f1), difference_of(*matrices, macro_f1)

    assert paired.value == pytest.approx(unpaired.value)
    assert paired.high - paired.low < 0.7 * (unpaired.high - unpaired.low)


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.booleans(), st.sampled_from([*STATISTICS, "f1"]))
def test_equal_predictions_differ_by_exactly_nothing(seed, by_lot, name):
    labels, predicted, _ = draw_wafers(np.random.default_rng(seed), n=60)
    groups = np.arange(60) // 10 if by_lot else None

    found = paired_difference(
        labels, predicted, predicted, {**STATISTICS, "f1": f1_of(0)}[name], groups=groups, n=50, seed=seed
    )

    assert (found.low, found.value, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert not found.is_separable


@given(st.integers(0, 2**31))
def test_exchanging_the_models_turns_the_sign_of_what_was_observed(seed):
    labels, a, b = draw_wafers(np.random.default_rng(seed), n=80)

    one, other = (paired_difference(labels, *pair, macro_f1, n=50) for pair in ((a, b), (b, a)))

    assert one.value == pytest.approx(-other.value, abs=1e-12)


def test_a_better_model_is_separable_and_positive():
    labels, a, _ = draw_wafers(np.random.default_rng(4), agree=0.9)
    worse = np.where(np.arange(300) % 3 == 0, (a + 1) % 4, a)

    found = paired_difference(labels, a, worse, macro_f1)

    assert found.is_separable
    assert found.low > 0
    assert found.p_value < 0.01


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    labels, a, b = draw_wafers(np.random.default_rng(5))
    confusion = np.random.default_rng(0).multinomial(SUPPORT, RATES)

    assert bootstrap_confusion(confusion, macro_f1, seed=1) == bootstrap_confusion(confusion, macro_f1, seed=1)
    assert bootstrap_confusion(confusion, macro_f1, seed=1) != bootstrap_confusion(confusion, macro_f1, seed=2)
    assert paired_difference(labels, a, b, macro_f1, seed=1) == paired_difference(labels, a, b, macro_f1, seed=1)
    assert paired_difference(labels, a, b, macro_f1, seed=1) != paired_difference(labels, a, b, macro_f1, seed=2)


def test_several_scores_at_once_are_those_one_by_one():
    labels, a, b = draw_wafers(np.random.default_rng(6))
    lots = np.arange(300) // 7

    together = paired_differences(labels, a, b, STATISTICS, groups=lots, n=200)

    assert together == {
        name: paired_difference(labels, a, b, statistic, groups=lots, n=200) for name, statistic in STATISTICS.items()
    }


def test_a_class_without_wafers_counts_nowhere_and_has_no_interval():
    confusion = np.array([[40, 5, 1], [0, 0, 0], [4, 2, 30]])

    macro, absent = bootstrap_confusion(confusion, macro_f1), bootstrap_confusion(confusion, f1_of(1))

    assert macro.low < macro.value < macro.high
    assert macro.value == pytest.approx(score_confusion(confusion).macro_f1)
    assert np.isnan([absent.low, absent.value, absent.high]).all()


def test_a_class_that_draws_of_lots_may_lack_still_has_a_difference():
    labels = np.array([0] * 40 + [1] * 3)
    a, b = labels.copy(), labels.copy()
    a[:8], b[:4], b[41] = 1, 1, 0

    weighted = Objective(metric="weighted_f1", weights={"rare": 2.0}).statistic(("frequent", "rare"))
    statistics = {"macro": macro_f1, "f1": f1_of(1), "weighted": weighted}

    found = paired_differences(labels, a, b, statistics, groups=np.arange(43) // 4)

    assert all(np.isfinite([one.low, one.value, one.high, one.p_value]).all() for one in found.values())


def test_a_perfect_model_has_an_interval_without_width():
    found = bootstrap_confusion(np.diag([5, 9, 100]), macro_f1)

    assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)


def test_what_cannot_be_judged_is_refused():
    labels = np.zeros(4, int)

    with pytest.raises(ValueError, match="two lots; got 1 lots"):
        paired_difference(labels, labels, labels, macro_f1, groups=labels)
    with pytest.raises(ValueError, match="got 4 labels, 3 and 4 predictions"):
        paired_difference(labels, labels[:3], labels, macro_f1)
    with pytest.raises(ValueError, match="square and not empty"):
        bootstrap_confusion(np.zeros((3, 3)), macro_f1)


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (22, 22), (3, 40), (980, 1000)])
def test_shares_have_wilsons_intervals(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="wilson")

    found = wilson(hits, n)

    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_share_of_nothing_is_none():
    assert math.isnan(wilson(0, 0).value)


@given(n=st.integers(1, 5000), share=st.floats(0, 1))
def test_wilsons_interval_holds_the_share_and_is_a_share(n, share):
    hits = round(share * n)
    found = wilson(hits, n)

    assert 0 <= found.low <= hits / n + 1e-12
    assert hits / n - 1e-12 <= found.high <= 1
