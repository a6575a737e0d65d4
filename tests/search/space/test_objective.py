"""What is maximised."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.space.objective import METRICS, OVER, Objective
from search.testing import fake_report
from search.trial.metrics import score_confusion

CLASSES = ("Center", "Edge-Ring", "none")
CONFUSION = np.array([[8, 1, 1], [2, 6, 2], [0, 5, 995]])
CONFUSION_WITHOUT_RINGS = np.array([[8, 1, 1], [0, 0, 0], [0, 5, 995]])
SCORES, WITHOUT_RINGS = score_confusion(CONFUSION), score_confusion(CONFUSION_WITHOUT_RINGS)


def scores_of(score):
    """Make scores that are all the same."""
    return fake_report(1, quality=3 * score, n_classes=3).val.scores


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_is_taken_from_the_scores(metric):
    assert Objective(metric=metric).value([SCORES], CLASSES) == getattr(SCORES, metric)


def test_weights_make_a_weighted_mean():
    objective = Objective(metric="weighted_f1", weights={"none": 1, "Center": 3})

    assert objective.value([SCORES], CLASSES) == pytest.approx((3 * SCORES.f1[0] + SCORES.f1[2]) / 4)


@given(weights=st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3), factor=st.floats(1e-3, 1e3))
def test_only_the_ratio_of_weights_counts(weights, factor):
    one = Objective(metric="weighted_f1", weights=dict(zip(CLASSES, weights, strict=True)))
    other = Objective(metric="weighted_f1", weights={name: factor * weight for name, weight in one.weights.items()})

    assert one.value([SCORES], CLASSES) == pytest.approx(other.value([SCORES], CLASSES))


def test_equal_weights_on_all_classes_are_macro_f1():
    objective = Objective(metric="weighted_f1", weights=dict.fromkeys(CLASSES, 2.0))

    assert objective.value([SCORES], CLASSES) == pytest.approx(SCORES.macro_f1)


def test_a_weighed_class_that_does_not_occur_counts_for_nothing():
    objective = Objective(metric="weighted_f1", weights={"Center": 1, "Edge-Ring": 5})

    assert objective.value([WITHOUT_RINGS], CLASSES) == pytest.approx(WITHOUT_RINGS.f1[0])


@pytest.mark.parametrize(
    "objective",
    [
        *(Objective(metric=metric) for metric in METRICS),
        Objective(metric="weighted_f1", weights={"none": 1, "Edge-Ring": 5, "Center": 3}),
    ],
)
def test_the_statistic_of_many_confusion_matrices_is_the_value_of_each(objective):
    found = objective.statistic(CLASSES)(np.stack([CONFUSION, CONFUSION_WITHOUT_RINGS]))

    values = [objective.value([scores], CLASSES) for scores in (SCORES, WITHOUT_RINGS)]
    np.testing.assert_allclose(found, values)


@pytest.mark.parametrize(
    ("over", "value"),
    [
        ("last", 0.1),
        ("mean_last_3", (0.5 + 0.9 + 0.1) / 3),
        ("ema", (8 * 0.1 + 4 * 0.9 + 2 * 0.5 + 1 * 0.2) / (8 + 4 + 2 + 1)),
    ],
)
def test_a_rule_says_what_is_made_of_the_epochs(over, value):
    epochs = [scores_of(score) for score in (0.2, 0.5, 0.9, 0.1)]

    assert Objective(over=over).value(epochs, CLASSES) == pytest.approx(value)


@pytest.mark.parametrize(("n_epochs", "value"), [(1, 0.2), (2, 0.35), (3, 1.6 / 3)])
def test_the_mean_of_the_last_three_is_of_fewer_at_the_start(n_epochs, value):
    epochs = [scores_of(score) for score in (0.2, 0.5, 0.9)][:n_epochs]

    assert Objective(over="mean_last_3").value(epochs, CLASSES) == pytest.approx(value)


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=60), over=st.sampled_from(OVER))
def test_whatever_is_made_of_the_epochs_lies_between_them(scores, over):
    epochs = [scores_of(score) for score in scores]
    singles = [Objective().value([each], CLASSES) for each in epochs]

    assert min(singles) - 1e-9 <= Objective(over=over).value(epochs, CLASSES) <= max(singles) + 1e-9


@pytest.mark.parametrize("over", OVER)
def test_a_single_epoch_counts_as_it_is(over):
    assert Objective(over=over).value([SCORES], CLASSES) == SCORES.balanced_macro_f1


@given(n=st.integers(1, 3000))
def test_a_long_history_does_not_wear_the_average_out(n):
    epochs = [scores_of(0.5)] * n

    assert Objective(over="ema").value(epochs, CLASSES) == pytest.approx(0.5)


def test_weights_go_with_a_rule():
    objective = Objective(metric="weighted_f1", weights={"Center": 3, "none": 1}, over="mean_last_3")
    single = Objective(metric="weighted_f1", weights={"Center": 3, "none": 1})

    expected = (single.value([SCORES], CLASSES) + single.value([WITHOUT_RINGS], CLASSES)) / 2
    assert objective.value([SCORES, WITHOUT_RINGS], CLASSES) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("objective", "tree"),
    [
        (Objective(), {"maximize": "balanced_macro_f1", "over": "last"}),
        (Objective(metric="macro_f1"), {"maximize": "macro_f1", "over": "last"}),
        (Objective(over="ema"), {"maximize": "balanced_macro_f1", "over": "ema"}),
        (
            Objective(metric="weighted_f1", weights={"none": 2}, over="mean_last_3"),
            {"weights": {"none": 2}, "over": "mean_last_3"},
        ),
    ],
)
def test_an_objective_is_written_as_yaml_would_hold_it(load, objective, tree):
    assert objective.to_tree() == tree
    assert load(f"space: {{epochs: 4}}\nobjective: {tree}").objective == objective
