import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from search.trial.metrics import balanced_f1, score_confusion

# Rows actual, columns predicted, in percent as printed: Center, Donut, Edge-Loc, Edge-Ring, Loc, Near-full, none,
# Random, Scratch. Rounding is why some rows do not sum to 100.
DECK_IMBALANCED = """
    94.2 1.7 0.9 0 0.4 0 2.6 0.2 0
    3.5 89.8 0 0 1.7 0 4.1 0 0.9
    0.2 0.6 79.2 2.2 5.0 0.4 11.7 0.6 0
    0 0 3.7 95.0 0 0 1.3 0 0
    5.2 3.0 9.1 0 55.6 0 25.1 0.4 1.5
    0 0 0 0 0 95.9 0 4.1 0
    0.4 0 3.7 0 0 0 95.0 0 0.9
    1.9 2.4 7.1 0.9 2.4 6.5 9.3 68.6 0.9
    0 0.6 2.4 0 5.0 0 35.1 0 56.9
"""
DECK_BALANCED = """
    98.1 0.9 0.2 0 0.2 0 0.6 0 0
    0.6 93.7 0 1.9 2.8 0 0 0 0.9
    0 0 90.7 2.4 4.1 0.2 1.5 0.6 0.4
    0 0 1.9 98.1 0 0 0 0 0
    2.8 1.9 4.5 0 84.4 0 1.7 1.3 3.2
    0 0 0 0 0 100 0 0 0
    0 0 5.4 0.2 1.7 0 92.0 0 0.6
    0 0.4 2.2 0 1.9 0 0 94.8 0.6
    0.6 0 2.8 0 4.1 0 2.2 0 90.3
"""
F1_IMBALANCED = [91.68, 90.61, 76.89, 95.96, 65.40, 94.56, 66.87, 78.85, 70.70]
F1_BALANCED = [97.00, 95.16, 87.29, 96.79, 84.69, 99.89, 92.90, 96.37, 92.05]

PER_CLASS = ("precision", "recall", "f1", "balanced_f1")
SUMMARIES = ("macro_f1", "balanced_macro_f1", "worst_class_f1", "accuracy")


@st.composite
def judged(draw):
    """K, and the actual and predicted class of up to 60 wafers; any class may be absent from either."""
    n_classes = draw(st.integers(2, 9))
    some_class = st.integers(0, n_classes - 1)
    pairs = draw(st.lists(st.tuples(some_class, some_class), min_size=1, max_size=60))
    actual, called = np.array(pairs).T
    return n_classes, actual, called


@st.composite
def confusions(draw):
    """Counts of 2 to 6 classes, each of which has wafers."""
    n_classes = draw(st.integers(2, 6))
    counts = st.lists(st.integers(0, 1000), min_size=n_classes, max_size=n_classes)
    rows = draw(st.lists(counts.filter(any), min_size=n_classes, max_size=n_classes))
    return np.array(rows)


def count(n_classes, actual, called):
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (actual, called), 1)
    return confusion


def matrix(printed):
    return np.array([row.split() for row in printed.strip().splitlines()], dtype=float)


@given(judged())
def test_precision_recall_f1_and_support_are_scikit_learns_for_classes_that_occur(judged):
    n_classes, actual, called = judged
    occur = np.unique(actual)
    precision, recall, f1, support = precision_recall_fscore_support(
        actual, called, labels=np.arange(n_classes), zero_division=0
    )

    scores = score_confusion(count(*judged))

    np.testing.assert_allclose(np.array(scores.precision)[occur], precision[occur])
    np.testing.assert_allclose(np.array(scores.recall)[occur], recall[occur])
    np.testing.assert_allclose(np.array(scores.f1)[occur], f1[occur])
    assert scores.support == tuple(support)


@given(judged())
def test_accuracy_is_scikit_learns(judged):
    _, actual, called = judged

    assert score_confusion(count(*judged)).accuracy == pytest.approx(accuracy_score(actual, called))


@given(judged())
def test_balanced_f1_is_scikit_learns_f1_of_wafers_weighted_until_all_classes_weigh_the_same(judged):
    n_classes, actual, called = judged
    occur = np.unique(actual)
    weights = 1 / np.bincount(actual, minlength=n_classes)[actual]
    expected = f1_score(
        actual, called, labels=np.arange(n_classes), average=None, sample_weight=weights, zero_division=0
    )

    np.testing.assert_allclose(balanced_f1(count(*judged))[occur], expected[occur])


@given(judged())
def test_a_class_without_wafers_has_no_score_and_counts_in_no_mean(judged):
    n_classes, actual, _ = judged
    occur = np.isin(np.arange(n_classes), actual)

    scores = score_confusion(count(*judged))

    for name in PER_CLASS:
        np.testing.assert_array_equal(np.isnan(getattr(scores, name)), ~occur)
    assert scores.macro_f1 == pytest.approx(np.mean(np.array(scores.f1)[occur]))
    assert scores.balanced_macro_f1 == pytest.approx(np.mean(np.array(scores.balanced_f1)[occur]))
    assert scores.worst_class_f1 == min(np.array(scores.f1)[occur])


@given(judged())
def test_every_score_lies_between_zero_and_one(judged):
    scores = score_confusion(count(*judged))

    values = np.array([*(value for name in PER_CLASS for value in getattr(scores, name))])
    assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()
    assert all(0 <= getattr(scores, name) <= 1 for name in SUMMARIES)


@given(confusions(), st.data())
def test_more_wafers_of_a_class_that_are_judged_alike_do_not_change_balanced_f1(confusion, data):
    n_classes = len(confusion)
    factors = data.draw(st.lists(st.floats(1e-3, 1e3), min_size=n_classes, max_size=n_classes))

    np.testing.assert_allclose(balanced_f1(np.diag(factors) @ confusion), balanced_f1(confusion))


@given(confusions())
def test_balanced_f1_is_f1_where_classes_have_equally_many_wafers(confusion):
    shares = confusion / confusion.sum(1, keepdims=True)

    np.testing.assert_allclose(score_confusion(shares).f1, balanced_f1(confusion))


def test_a_small_confusion_matrix_scores_as_worked_out_by_hand():
    scores = score_confusion(np.array([[8, 2], [4, 86]]))

    assert scores.precision == pytest.approx((8 / 12, 86 / 88))
    assert scores.recall == pytest.approx((0.8, 86 / 90))
    assert scores.f1 == pytest.approx((16 / 22, 172 / 178))
    assert scores.balanced_f1 == pytest.approx((1.6 / (1 + 0.8 + 4 / 90), 2 * 86 / 90 / (1 + 0.2 + 86 / 90)))
    assert scores.support == (10, 90)
    assert scores.accuracy == pytest.approx(0.94)
    assert scores.worst_class_f1 == pytest.approx(16 / 22)


def test_perfect_calls_score_one_everywhere():
    scores = score_confusion(np.diag([1, 20, 300]))

    assert all(getattr(scores, name) == (1, 1, 1) for name in PER_CLASS)
    assert all(getattr(scores, name) == 1 for name in SUMMARIES)


def test_a_class_that_is_never_called_has_precision_zero():
    scores = score_confusion(np.array([[0, 5], [0, 5]]))

    assert scores.precision == (0, 0.5)
    assert scores.f1[0] == 0


@pytest.mark.parametrize(
    "confusion", [np.zeros((3, 3)), np.ones((2, 3)), np.ones(4), np.empty((0, 0)), np.ones((2, 2, 2))]
)
def test_what_is_no_confusion_matrix_is_refused(confusion):
    with pytest.raises(ValueError, match="a confusion matrix must be square and not empty; got shape"):
        score_confusion(confusion)


@pytest.mark.parametrize(
    ("printed", "f1"), [(DECK_IMBALANCED, F1_IMBALANCED), (DECK_BALANCED, F1_BALANCED)], ids=["imbalanced", "balanced"]
)
def test_the_decks_confusion_matrices_give_its_f1_in_every_class(printed, f1):
    np.testing.assert_allclose(100 * balanced_f1(matrix(printed)), f1, rtol=0, atol=0.15)


@pytest.mark.parametrize(
    ("printed", "f1", "macro"),
    [(DECK_IMBALANCED, F1_IMBALANCED, 81.28), (DECK_BALANCED, F1_BALANCED, 93.57)],
    ids=["imbalanced", "balanced"],
)
def test_macro_f1_is_the_mean_of_the_decks_nine(printed, f1, macro):
    scores = score_confusion(matrix(printed))

    assert np.mean(f1) == pytest.approx(macro, abs=0.005)
    assert 100 * scores.balanced_macro_f1 == pytest.approx(macro, abs=0.15)


def test_macro_f1_is_not_the_decks_average_which_is_the_harmonic_mean_of_two_means():
    scores = score_confusion(matrix(DECK_IMBALANCED))
    shares = matrix(DECK_IMBALANCED)
    precision, recall = np.mean(np.diag(shares) / shares.sum(0)), np.mean(np.diag(shares) / shares.sum(1))

    assert 200 * precision * recall / (precision + recall) == pytest.approx(82.89, abs=0.05)
    assert 100 * scores.balanced_macro_f1 < 81.4
