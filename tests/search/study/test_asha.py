"""Whom the judge stops, and whom it never stops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.space.config import AshaConfig
from search.study.asha import Asha

factors = st.integers(2, 5)
peers = st.integers(1, 6)
orders = st.integers(1, 40).flatmap(lambda n: st.permutations(range(n)))


def make(*, first_rung=1, factor=3, peers=3):
    return Asha(AshaConfig(first_rung=first_rung, factor=factor, peers=peers))


def survivors(asha, scores, *, epoch=1, length=9):
    """Let trials arrive at a rung one by one; return which of them go on."""
    standings = list(enumerate(map(meeting_all_floors, scores)))
    return [i for i, standing in standings if not asha.is_losing(i, epoch=epoch, length=length, standing=standing)]


def meeting_all_floors(value):
    return (0.0, value)


@pytest.mark.parametrize(
    ("first_rung", "factor", "length", "rungs"),
    [
        (1, 3, 27, [1, 3, 9]),
        (1, 3, 28, [1, 3, 9, 27]),
        (2, 3, 24, [2, 6, 18]),
        (2, 2, 8, [2, 4]),
        (2, 3, 2, []),
        (1, 2, 1, []),
        (5, 4, 19, [5]),
    ],
)
def test_rungs_are_multiples_below_the_end(first_rung, factor, length, rungs):
    assert make(first_rung=first_rung, factor=factor).rungs(length) == rungs


@given(factor=factors, peers=peers, order=orders)
def test_nobody_is_stopped_before_a_rung_holds_enough_others(factor, peers, order):
    going_on = survivors(make(factor=factor, peers=peers), order)

    assert going_on[:peers] == list(range(min(peers, len(order))))


def test_what_is_forgotten_is_no_peer_any_more():
    losing = {}
    for forgotten in (0, 7):  # nobody is 7
        asha = make(factor=2, peers=1)
        survivors(asha, [3, 2, 1])
        asha.forget(forgotten)
        losing[forgotten] = asha.is_losing(3, epoch=1, length=9, standing=meeting_all_floors(1.5))

    assert losing == {0: False, 7: True}


@given(factor=factors, peers=peers, order=orders)
def test_the_best_always_survives(factor, peers, order):
    going_on = survivors(make(factor=factor, peers=peers), order)

    assert order.index(max(order)) in going_on


@given(factor=factors, peers=peers, order=orders)
def test_whoever_is_stopped_is_not_among_the_best_share_at_that_moment(factor, peers, order):
    going_on = survivors(make(factor=factor, peers=peers), order)

    for i in set(range(len(order))) - set(going_on):
        n_better = sum(score > order[i] for score in order[:i])
        assert n_better >= (i + 1) / factor


@given(factor=factors, peers=peers, n=st.integers(1, 40))
def test_if_each_trial_is_worse_than_all_before_only_the_first_few_survive(factor, peers, n):
    assert survivors(make(factor=factor, peers=peers), range(n, 0, -1)) == list(range(min(n, peers)))


@given(factor=factors, n=st.integers(1, 40))
def test_equals_are_not_stopped(factor, n):
    assert survivors(make(factor=factor), [0.5] * n) == list(range(n))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_about_one_in_factor_trials_survives(factor):
    n, generator = 120, np.random.default_rng(0)

    shares = [len(survivors(make(factor=factor), generator.permutation(n))) / n for _ in range(100)]

    # A little more than the share: the first few are judged by few.
    assert 1 / factor <= np.mean(shares) <= 1 / factor + 0.05


@given(factor=factors, order=orders)
def test_trials_of_other_lengths_are_not_compared(factor, order):
    alone, mixed = make(factor=factor), make(factor=factor)
    for i, score in enumerate(order):
        mixed.is_losing(1000 + i, epoch=1, length=4, standing=meeting_all_floors(score + 100))

    assert survivors(mixed, order) == survivors(alone, order)


@given(factor=factors, order=orders)
def test_epochs_that_are_no_rungs_do_not_count(factor, order):
    asha = make(first_rung=2, factor=factor)

    assert survivors(asha, order, epoch=1) == list(range(len(order)))
    assert survivors(asha, order, epoch=3 * factor, length=100) == list(range(len(order)))


def test_a_later_value_does_not_pollute_an_earlier_rung():
    asha, fresh = make(factor=2), make(factor=2)
    for i in range(3):
        fresh.remember(i, epoch=1, length=8, standing=meeting_all_floors(0.1 * i))
        asha.remember(i, epoch=1, length=8, standing=meeting_all_floors(0.1 * i))
        asha.remember(i, epoch=2, length=8, standing=meeting_all_floors(0.9))
        asha.remember(i, epoch=3, length=8, standing=meeting_all_floors(0.9))

    verdicts = [each.is_losing(9, epoch=1, length=8, standing=meeting_all_floors(0.15)) for each in (asha, fresh)]

    assert verdicts == [False, False]


@given(factor=factors, order=orders, n_before=st.integers(0, 40))
def test_a_judge_rebuilt_from_memory_gives_the_same_verdicts(factor, order, n_before):
    one = make(factor=factor)
    survivors(one, order[:n_before])
    rebuilt = make(factor=factor)
    for i in reversed(range(len(order[:n_before]))):
        rebuilt.remember(i, epoch=1, length=9, standing=meeting_all_floors(order[i]))

    verdicts = [survivors(each, order[n_before:]) for each in (one, rebuilt)]

    assert verdicts[0] == verdicts[1]


def test_a_trial_that_reports_again_is_not_counted_twice():
    asha = make(factor=2)
    for _ in range(5):
        asha.is_losing(0, epoch=1, length=4, standing=meeting_all_floors(0.9))

    assert not asha.is_losing(1, epoch=1, length=4, standing=meeting_all_floors(0.1))


@given(factor=factors, peers=peers, shortfall=st.floats(1e-6, 5), n=st.integers(7, 40))
def test_who_misses_a_floor_comes_after_all_who_meet_them_however_good(factor, peers, shortfall, n):
    asha = make(factor=factor, peers=peers)
    for i in range(n):
        asha.remember(i, epoch=1, length=9, standing=meeting_all_floors(0.01))

    assert asha.is_losing(n, epoch=1, length=9, standing=(-shortfall, 1.0))


@given(factor=factors, peers=peers, n=st.integers(7, 40))
def test_who_meets_all_floors_survives_among_those_who_do_not(factor, peers, n):
    asha = make(factor=factor, peers=peers)
    for i in range(n):
        asha.remember(i, epoch=1, length=9, standing=(-0.01, 1.0))

    assert not asha.is_losing(n, epoch=1, length=9, standing=meeting_all_floors(0.01))


def test_of_those_who_miss_the_floors_the_nearest_survives():
    asha = make(factor=2, peers=3)
    for i, shortfall in enumerate((0.1, 0.2, 0.3)):
        asha.remember(i, epoch=1, length=9, standing=(-shortfall, 0.5))

    verdicts = [
        asha.is_losing(3 + i, epoch=1, length=9, standing=standing)
        for i, standing in enumerate([(-0.05, 0.1), (-0.4, 0.9)])
    ]

    assert verdicts == [False, True]


@pytest.mark.parametrize(("epoch", "rung"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, None)])
def test_who_breaks_counts_as_the_worst_of_the_next_rung_and_of_no_other(epoch, rung):
    asha = make(factor=2, peers=1)
    asha.remember_failure(9, epoch=epoch, length=8)

    verdicts = {}
    for each in asha.rungs(8):
        report(asha, 0, each, 0.5, length=8)
        verdicts[each] = report(asha, 1, each, 0.1, length=8)  # the second of two is stopped, of three it is not

    assert verdicts == {each: each != rung for each in (1, 2, 4)}


# Judged again after every epoch.


def report(asha, trial, epoch, value, *, length=9):
    return asha.is_losing(trial, epoch=epoch, length=length, standing=meeting_all_floors(value))


def arrivals(curves, seed):
    """Mix the epochs of several trials, each in its own order: trial, epoch and value."""
    ahead = [[(trial, epoch + 1, value) for epoch, value in enumerate(curve)] for trial, curve in enumerate(curves)]
    generator = np.random.default_rng(seed)
    while waiting := [epochs for epochs in ahead if epochs]:
        yield waiting[generator.integers(len(waiting))].pop(0)


curves = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), min_size=1, max_size=12)
seeds = st.integers(0, 999)


def test_who_came_first_is_stopped_once_enough_better_ones_have_come():
    asha = make(first_rung=1, factor=3, peers=3)
    assert not report(asha, 0, 1, 0.1)

    verdicts = []
    for peer in range(1, 5):
        report(asha, peer, 1, 0.5)
        verdicts.append(report(asha, 0, 2, 0.9))  # how well it does by now is judged at the next rung

    assert verdicts == [False, False, True, True]


def test_who_came_first_goes_on_if_those_who_come_are_worse():
    asha = make(first_rung=1, factor=3, peers=3)
    report(asha, 0, 1, 0.5)
    for peer in range(1, 10):
        report(asha, peer, 1, 0.1)

    assert not report(asha, 0, 2, 0.0)


def test_nobody_is_stopped_by_a_rung_after_it_has_passed_a_newer_one():
    asha = make(first_rung=1, factor=3, peers=3)
    for epoch in (1, 2, 3):
        report(asha, 0, epoch, 0.1)
    for peer in range(1, 10):
        report(asha, peer, 1, 0.5)

    assert not any(report(asha, 0, epoch, 0.1) for epoch in (3, 4, 5))

    for peer in range(1, 4):
        report(asha, peer, 3, 0.5)

    assert report(asha, 0, 6, 0.1)


def test_who_was_not_seen_at_the_rung_is_not_judged_by_it():
    asha = make(first_rung=1, factor=3, peers=3)
    for peer in range(1, 10):
        report(asha, peer, 1, 0.5)

    assert not report(asha, 0, 2, 0.0)
    assert not make(first_rung=3).is_losing(0, epoch=2, length=9, standing=meeting_all_floors(0.0))


@given(factor=factors, peers=peers, curves=curves, seed=seeds)
def test_the_best_at_its_last_rung_is_never_stopped_whatever_comes_later(factor, peers, curves, seed):
    asha = make(factor=factor, peers=peers)
    at_rungs = {}

    for trial, epoch, value in arrivals(curves, seed):
        passed = [rung for rung in asha.rungs(9) if rung <= epoch][-1]
        if epoch == passed:
            at_rungs.setdefault(passed, {})[trial] = value
        is_best = at_rungs[passed][trial] == max(at_rungs[passed].values())
        assert not (report(asha, trial, epoch, value) and is_best)


@given(factor=factors, peers=peers, curves=curves, seed=seeds, n_before=st.integers(0, 60))
def test_a_judge_rebuilt_from_memory_judges_again_as_the_first_would(factor, peers, curves, seed, n_before):
    one, rebuilt = make(factor=factor, peers=peers), make(factor=factor, peers=peers)
    events = list(arrivals(curves, seed))
    for trial, epoch, value in events[:n_before]:
        report(one, trial, epoch, value)
    for trial, epoch, value in reversed(events[:n_before]):
        rebuilt.remember(trial, epoch=epoch, length=9, standing=meeting_all_floors(value))

    verdicts = [[report(each, *event) for event in events[n_before:]] for each in (one, rebuilt)]

    assert verdicts[0] == verdicts[1]
