import itertools

import numpy as np
import pytest

from search.space.space import Choice, Range
from search.study.hindsight import (
    count_survivors,
    expect_best,
    find_edge,
    measure_saving,
    rank,
    spread_of_best,
)
from search.study.rows import COMPLETE, INFEASIBLE, RUNNING, STOPPED, TrialRecord
from search.testing import fake_report


def record(number, *, epochs=4, done=4, status=COMPLETE, quality=0.9, shortfall=0.0):
    reports = [fake_report(epoch, quality=quality, n_classes=3) for epoch in range(1, done + 1)]
    values = [report.val.scores.macro_f1 for report in reports]
    return TrialRecord(
        number=number,
        config={},
        epochs=epochs,
        status=status,
        reports=reports,
        values=values,
        shortfalls=[shortfall] * done,
    )


@pytest.mark.parametrize("n_never", [0, 1, 3])
def test_the_expected_best_is_that_of_all_orders(n_never):
    values = [0.2, 0.5, 0.5, 0.9]
    trials = [*values, *[None] * n_never]

    found = expect_best(values, n_never=n_never)

    for k in range(1, len(trials) + 1):
        drawn = [[value for value in draw if value is not None] for draw in itertools.combinations(trials, k)]
        bests = [max(draw) for draw in drawn if draw]
        assert found[k - 1] == pytest.approx(np.mean(bests), abs=1e-12)


def test_the_expected_best_of_many_trials_stays_exact_at_its_ends():
    values = np.linspace(0, 1, 2000)

    found = expect_best(list(values), n_never=500)

    assert found[0] == pytest.approx(0.5)
    assert found[-1] == pytest.approx(1.0)
    assert (np.diff(found) >= -1e-9).all()  # rounding of the gamma function


def test_without_any_trial_that_may_win_nothing_is_expected():
    assert np.isnan(expect_best([], n_never=3)).all()


def test_the_spread_of_the_best_is_that_of_all_orders():
    values = list(np.linspace(0.1, 0.9, 9))
    bests = sorted(max(draw) for draw in itertools.combinations(values, 3))

    low, high = spread_of_best(values, n=3, share=0.8)

    assert sum(best <= low for best in bests) / len(bests) >= 0.1 > sum(best < low for best in bests) / len(bests)
    assert sum(best <= high for best in bests) / len(bests) >= 0.9 > sum(best < high for best in bests) / len(bests)


def test_the_best_of_all_trials_is_certain():
    assert spread_of_best([0.1, 0.4, 0.7], n=5, n_never=2) == (0.7, 0.7)


def test_what_is_saved_counts_at_each_trials_own_pace():
    slow = record(1, epochs=10, done=2, status=STOPPED)
    slow.reports[:] = [fake_report(1, quality=0.5, n_classes=3)] * 2  # 1.5 s each

    saving = measure_saving([record(0, epochs=4, done=4), slow, record(2, epochs=4, done=1, status=INFEASIBLE)])

    assert (saving.n_stopped, saving.epochs_run, saving.epochs_saved) == (1, 7, 8)
    assert saving.seconds_run == pytest.approx(7 * 1.5)
    assert saving.seconds_saved == pytest.approx(8 * 1.5)


def test_survivors_are_counted_at_each_rung_by_length():
    records = [
        record(0, epochs=9, done=9),
        record(1, epochs=9, done=1, status=STOPPED),
        record(2, epochs=9, done=3, status=STOPPED),
        record(3, epochs=9, done=2, status=STOPPED),  # judged again after its rung
        record(4, epochs=9, done=2, status=RUNNING),
        record(5, epochs=2, done=2),
    ]

    found = count_survivors(records, lambda length: [1, 3] if length == 9 else [1])

    assert [(rung.length, rung.epoch, rung.reached, rung.stopped, rung.went_on) for rung in found] == [
        (2, 1, 1, 0, 1),
        (9, 1, 5, 2, 2),
        (9, 3, 2, 1, 1),
    ]


def test_trials_are_ranked_as_a_study_chooses_its_winner():
    records = [
        record(0, quality=0.5),
        record(1, quality=0.9, shortfall=0.1),
        record(2, quality=0.5),
        record(3, quality=0.99, status=STOPPED),
    ]

    assert [one.number for one in rank(records)] == [0, 2, 1]


@pytest.mark.parametrize(
    ("node", "value", "edge"),
    [
        (Range(1e-4, 1e-2, log=True), 1.1e-4, "low"),
        (Range(1e-4, 1e-2, log=True), 1e-3, None),
        (Range(0.0, 1.0), 0.97, "high"),
        (Range(0.0, 1.0), 0.9, None),
        (Choice((8, 16, 24)), 24, "high"),
        (Choice((24, 8, 16)), 8, "low"),
        (Choice((8, 16)), 16, None),  # one of two is always an end
        (Choice(("a", "b", "c")), "c", None),
        (Choice((True, False)), True, None),
    ],
)
def test_values_at_the_edge_of_what_could_be_tried_are_found(node, value, edge):
    assert find_edge(node, value) == edge
