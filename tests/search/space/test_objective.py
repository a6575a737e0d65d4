"""What is maximised."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.space.objective import METRICS, Objective
from search.trial.metrics import score_confusion

CLASSES = ("Center", "Edge-Ring", "none")
SCORES = score_confusion(np.array([[8, 1, 1], [2, 6, 2], [0, 5, 995]]))
WITHOUT_RINGS = score_confusion(np.array([[8, 1, 1], [0, 0, 0], [0, 5, 995]]))


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_is_taken_from_the_scores(metric):
    assert Objective(metric=metric).value(SCORES, CLASSES) == getattr(SCORES, metric)


def test_weights_make_a_weighted_mean():
    objective = Objective(metric="weighted_f1", weights={"none": 1, "Center": 3})

    assert objective.value(SCORES, CLASSES) == pytest.approx((3 * SCORES.f1[0] + SCORES.f1[2]) / 4)


@given(weights=st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3), factor=st.floats(1e-3, 1e3))
def test_only_the_ratio_of_weights_counts(weights, factor):
    one = Objective(metric="weighted_f1", weights=dict(zip(CLASSES, weights, strict=True)))
    other = Objective(metric="weighted_f1", weights={name: factor * weight for name, weight in one.weights.items()})

    assert one.value(SCORES, CLASSES) == pytest.approx(other.value(SCORES, CLASSES))


def test_equal_weights_on_all_classes_are_macro_f1():
    objective = Objective(metric="weighted_f1", weights=dict.fromkeys(CLASSES, 2.0))

    assert objective.value(SCORES, CLASSES) == pytest.approx(SCORES.macro_f1)


def test_a_weighed_class_that_does_not_occur_counts_for_nothing():
    objective = Objective(metric="weighted_f1", weights={"Center": 1, "Edge-Ring": 5})

    assert objective.value(WITHOUT_RINGS, CLASSES) == pytest.approx(WITHOUT_RINGS.f1[0])


@pytest.mark.parametrize(
    ("objective", "tree"),
    [
        (Objective(), {"maximize": "balanced_macro_f1"}),
        (Objective(metric="macro_f1"), {"maximize": "macro_f1"}),
        (Objective(metric="weighted_f1", weights={"none": 2}), {"weights": {"none": 2}}),
    ],
)
def test_an_objective_is_written_as_yaml_would_hold_it(load, objective, tree):
    assert objective.to_tree() == tree
    assert load(f"space: {{epochs: 4}}\nobjective: {tree}").objective == objective
