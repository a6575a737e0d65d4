"""Floors under single scores: read, refused where validation cannot tell, and measured."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.space.floors import Floor, check_floor, parse_floor
from search.space.objective import METRICS
from search.trial.metrics import score_confusion

CLASSES = ("Center", "Edge-Ring", "Near-full", "none")
SUPPORT = (100, 50, 10, 0)
CONFUSION = np.array([[80, 10, 10, 0], [5, 45, 0, 0], [1, 1, 8, 0], [0, 0, 0, 0]])
OF_ONE_CLASS, OF_ALL = ("f1", "precision", "recall"), ("accuracy", *METRICS)

names = st.text(st.characters(exclude_characters="[]", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name == name.strip()
)
shares = st.floats(0, 1, exclude_min=True)
floors = st.builds(Floor, metric=st.sampled_from(OF_ONE_CLASS), class_name=names, least=shares) | st.builds(
    Floor, metric=st.sampled_from(OF_ALL), least=shares
)


@given(floor=floors)
def test_a_floor_reads_back_as_the_same(floor):
    assert parse_floor(floor.text) == floor


@pytest.mark.parametrize(
    ("text", "floor"),
    [
        ("f1[Scratch] >= 0.60", Floor(metric="f1", class_name="Scratch", least=0.6)),
        ("recall[Edge-Ring]>=.9", Floor(metric="recall", class_name="Edge-Ring", least=0.9)),
        (" precision [ none ]  >=  1 ", Floor(metric="precision", class_name="none", least=1.0)),
        ("f1[Nähe >= Rand] >= 5e-1", Floor(metric="f1", class_name="Nähe >= Rand", least=0.5)),
        ("worst_class_f1 >= 0.5", Floor(metric="worst_class_f1", least=0.5)),
        ("balanced_macro_f1 >= 0.8", Floor(metric="balanced_macro_f1", least=0.8)),
        ("macro_f1 >= 0.8", Floor(metric="macro_f1", least=0.8)),
        ("accuracy >= 0.95", Floor(metric="accuracy", least=0.95)),
    ],
)
def test_the_forms_of_a_floor(text, floor):
    assert parse_floor(text) == floor


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must be METRIC\[CLASS\] >= NUMBER with f1, precision, recall, or METRIC >= NUMBER with accuracy, "),
        ("f1[Scratch] > 0.6", r"must be METRIC\[CLASS\] >= NUMBER .*; got 'f1\[Scratch\] > 0\.6'"),
        ("f1[Scratch] <= 0.6", "must be METRIC"),
        ("f1[Scratch] >= 0.6 0.7", "must be METRIC"),
        ("f1[Scratch][Loc] >= 0.6", "must be METRIC"),
        ("f1[[Scratch]] >= 0.6", "must be METRIC"),
        ("f1[Scratch >= 0.6", "must be METRIC"),
        ("f1.Scratch >= 0.6", "must be METRIC"),
        ("recal[Scratch] >= 0.6", r"unknown metric 'recal'; did you mean 'recall'\? \(known: accuracy, "),
        ("macrof1 >= 0.6", r"unknown metric 'macrof1'; did you mean 'macro_f1'\?"),
        ("f1 >= 0.6", r"f1 is of one class: write f1\[CLASS\]; got 'f1 >= 0\.6'"),
        ("recall[ ] >= 0.6", r"recall is of one class: write recall\[CLASS\]"),
        ("accuracy[none] >= 0.6", r"accuracy is over all classes: leave out \[none\]"),
        ("macro_f1[] >= 0.6", r"macro_f1 is over all classes: leave out \[\]"),
        ("f1[Scratch] >= high", "'high' is no number; must be METRIC"),
        ("f1[Scratch] >= 60%", "'60%' is no number"),
        ("f1[Scratch] >= 60", r"a floor must be in \(0, 1\]; got 60"),
        ("f1[Scratch] >= 1.0001", r"a floor must be in \(0, 1\]; got 1\.0001"),
        ("f1[Scratch] >= 0", r"a floor must be in \(0, 1\]; got 0"),
        ("f1[Scratch] >= -0.1", r"a floor must be in \(0, 1\]; got -0\.1"),
        ("f1[Scratch] >= nan", r"a floor must be in \(0, 1\]; got nan"),
    ],
)
def test_what_is_no_floor_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_floor(text)


@pytest.mark.parametrize(
    ("text", "shortfall"),
    [
        ("recall[Center] >= 0.9", 0.1),
        ("recall[Center] >= 0.8", 0.0),
        ("recall[Edge-Ring] >= 0.8", -0.1),
        ("precision[Near-full] >= 0.5", 0.5 - 8 / 18),
        ("f1[Near-full] >= 0.6", 0.6 - 16 / 28),
        ("worst_class_f1 >= 0.6", 0.6 - 16 / 28),
        ("accuracy >= 0.9", 0.9 - 133 / 160),
    ],
)
def test_what_is_missing_to_a_floor(text, shortfall):
    assert parse_floor(text).shortfall(score_confusion(CONFUSION), CLASSES) == pytest.approx(shortfall)


@pytest.mark.parametrize("metric", METRICS)
def test_a_floor_under_a_metric_of_the_objective(metric):
    scores = score_confusion(CONFUSION)

    assert Floor(metric=metric, least=0.9).shortfall(scores, CLASSES) == 0.9 - getattr(scores, metric)


@pytest.mark.parametrize("metric", OF_ONE_CLASS)
def test_what_was_not_measured_is_not_met(metric):
    scores = score_confusion(CONFUSION)

    assert math.isnan(getattr(scores, metric)[3])
    assert Floor(metric=metric, class_name="none", least=0.4).shortfall(scores, CLASSES) == 0.4


@pytest.mark.parametrize(
    "text",
    [
        "f1[Near-full] >= 0.94",
        "f1[Near-full] >= 1.0",
        "recall[Near-full] >= 0.9",
        "precision[Near-full] >= 0.909",
        "f1[Center] >= 0.99",
        "worst_class_f1 >= 0.94",
        "macro_f1 >= 0.9999",
        "balanced_macro_f1 >= 0.9999",
        "accuracy >= 0.9999",
    ],
)
def test_a_floor_that_validation_can_tell(text):
    assert check_floor(parse_floor(text), classes=CLASSES, support=SUPPORT) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "f1[Edge-Rnig] >= 0.5",
            "f1[Edge-Rnig] >= 0.5: unknown class 'Edge-Rnig'; did you mean 'Edge-Ring'? "
            "(known: Center, Edge-Ring, Near-full, none)",
        ),
        (
            "recall[none] >= 0.5",
            "recall[none] >= 0.5: validation holds no wafers of none, so nothing can be said of it; remove it",
        ),
        (
            "f1[Near-full] >= 0.955",
            "f1[Near-full] >= 0.955: is finer than one wafer; validation holds 10 of Near-full, so its recall moves in "
            "steps of 0.1, and one mistake leaves f1 at 0.9474; make it at most 0.947, or 1.0",
        ),
        (
            "recall[Near-full] >= 0.91",
            "recall[Near-full] >= 0.91: is finer than one wafer; validation holds 10 of Near-full, so its recall moves "
            "in steps of 0.1, and one mistake leaves recall at 0.9; make it at most 0.9, or 1.0",
        ),
        (
            "worst_class_f1 >= 0.95",
            "worst_class_f1 >= 0.95: is finer than one wafer; validation holds 10 of Near-full, so its recall moves in "
            "steps of 0.1, and one mistake leaves worst_class_f1 at 0.9474; make it at most 0.947, or 1.0",
        ),
    ],
)
def test_a_floor_that_validation_cannot_tell(text, problem):
    assert check_floor(parse_floor(text), classes=CLASSES, support=SUPPORT) == problem


@pytest.mark.parametrize("metric", OF_ONE_CLASS)
def test_the_only_wafer_of_a_class_leaves_no_floor_but_one(metric):
    low = Floor(metric=metric, class_name="b", least=0.1)
    one = Floor(metric=metric, class_name="b", least=1.0)

    problem = check_floor(low, classes=("a", "b"), support=(10, 1))

    assert problem is not None
    assert problem.endswith(f"one mistake leaves {metric} at 0; make it 1.0")
    assert check_floor(one, classes=("a", "b"), support=(10, 1)) is None


@given(
    metric=st.sampled_from([*OF_ONE_CLASS, "worst_class_f1"]),
    support=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    least=st.floats(0.01, 1) | st.integers(1, 1000).map(lambda n: n / (n + 1)),
)
def test_a_floor_is_refused_if_it_does_not_say_one_but_one_mistake_breaks_it(metric, support, least):
    classes = tuple("abcd"[: len(support)])
    floor = Floor(metric=metric, class_name="a" if metric in OF_ONE_CLASS else None, least=least)
    shortfalls = []
    for actual in range(len(support)):
        for called in range(len(support)):
            confusion = np.diag(support)
            confusion[actual, actual] -= 1
            confusion[actual, called] += 1
            shortfalls.append(floor.shortfall(score_confusion(confusion), classes))

    problem = check_floor(floor, classes=classes, support=support)

    assert (problem is not None) == (least < 1 and max(shortfalls) > 0)


@given(metric=st.sampled_from(OF_ONE_CLASS), n=st.integers(2, 100_000))
def test_the_advice_of_a_refusal_is_accepted(metric, n):
    problem = check_floor(Floor(metric=metric, class_name="a", least=1 - 1e-9), classes=["a"], support=[n])

    advised = float(problem.rpartition("at most ")[2].partition(",")[0])

    assert check_floor(Floor(metric=metric, class_name="a", least=advised), classes=["a"], support=[n]) is None
