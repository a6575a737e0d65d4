"""Where the cap stands, when it rises, and who goes on past it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.space.config import AshaConfig
from search.study.asha import Asha
from search.study.pasha import Pasha, make_judge

LENGTH = 27  # with a first rung of 1 and a factor of 3: rungs 1, 3 and 9
SETTLED = [(0.1, 0.2, 0.3), (0.2, 0.3, 0.4), (0.3, 0.4, 0.5), (0.4, 0.5, 0.6)]
SWAPPED = [*SETTLED[:3], (0.05, 0.05, 0.45)]

factors = st.integers(2, 4)
peers = st.integers(1, 4)
curves = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=LENGTH), min_size=1, max_size=10)
seeds = st.integers(0, 999)


def make(kind=Pasha, *, first_rung=1, factor=3, peers=3):
    return kind(AshaConfig(first_rung=first_rung, factor=factor, peers=peers))


def report(judge, trial, epoch, value, *, length=LENGTH):
    return judge.is_losing(trial, epoch=epoch, length=length, standing=(0.0, value))


def remember(judge, curves, *, length=LENGTH):
    for trial, curve in enumerate(curves):
        for epoch, value in enumerate(curve, start=1):
            judge.remember(trial, epoch=epoch, length=length, standing=(0.0, value))


def arrivals(curves, seed):
    """Mix the epochs of several trials, each in its own order: trial, epoch and value."""
    ahead = [[(trial, epoch + 1, value) for epoch, value in enumerate(curve)] for trial, curve in enumerate(curves)]
    generator = np.random.default_rng(seed)
    while waiting := [epochs for epochs in ahead if epochs]:
        yield waiting[generator.integers(len(waiting))].pop(0)


@given(curves=curves, trial=st.integers(0, 9))
def test_forgetting_a_trial_leaves_what_there_would_be_without_it(curves, trial):
    judge, without = make(), make()
    remember(judge, curves)
    judge.cap(LENGTH)
    judge.forget(trial)
    for other, curve in enumerate(curves):
        for epoch, value in enumerate(curve, start=1):
            if other != trial:
                without.remember(other, epoch=epoch, length=LENGTH, standing=(0.0, value))

    assert judge.cap(LENGTH) == without.cap(LENGTH)
    assert report(judge, 99, 9, 4) == report(without, 99, 9, 4)


def test_the_config_chooses_the_judge():
    judges = [make_judge(AshaConfig(progressive=progressive)) for progressive in (False, True)]

    assert [type(judge) for judge in judges] == [Asha, Pasha]


@pytest.mark.parametrize(
    ("curves", "peers", "cap"),
    [
        ([], 3, 3),
        (SETTLED, 1, 3),
        (SWAPPED, 3, 9),
        (SWAPPED, 4, 3),  # too few to tell
        ([(0.1, 0.2, 0.3), (0.2, 0.3, 0.3)], 1, 3),  # caught up, but did not overtake
        ([(0.1, 0.2, 0.3), (0.1, 0.3, 0.4)], 1, 3),  # level at the rung before: neither was ahead
        ([(0.2, 0.2, 0.5), (0.2, 0.3, 0.4)], 1, 3),
        ([(0.1, 0.2, 0.3), (0.2, 0.2, 0.2)], 1, 9),
        ([(0.1, 0.2, 0.3, 0.3), (0.2, 0.2, 0.2, 0.4)], 1, 9),  # that it falls back after the rung does not count
    ],
)
def test_the_cap_rises_when_one_trial_has_overtaken_another(curves, peers, cap):
    judge = make(peers=peers)
    remember(judge, curves)

    assert judge.cap(LENGTH) == cap


@pytest.mark.parametrize(("others", "cap"), [([0.6, 0.4, *[0.6] * 4], 9), ([0.6] * 6, LENGTH)])
def test_curves_that_cross_again_and_again_are_noise(others, cap):
    judge = make(first_rung=3, peers=1)
    remember(judge, [[0.5] * 9, [0.4] * 3 + others])

    assert judge.cap(LENGTH) == cap


def test_past_the_last_rung_there_is_no_cap():
    judge = make()
    remember(judge, [(*curve[:2], *[value] * 7) for curve, value in zip(SWAPPED, (0.3, 0.4, 0.5, 0.45), strict=True)])
    assert judge.cap(LENGTH) == 9

    remember(judge, [(0.1, 0.1, 0.1, *[0.9] * 6), *[(0.2, 0.3, 0.5, *[0.5] * 6)] * 4])

    assert judge.cap(LENGTH) == LENGTH


def test_what_breaks_has_been_overtaken_by_nobody():
    judge = make(peers=1)
    remember(judge, [(0.1, 0.2, 0.3), (0.9, 0.9)])
    judge.remember_failure(1, epoch=3, length=LENGTH)

    assert judge.cap(LENGTH) == 3


def test_who_was_not_seen_at_the_rung_before_has_overtaken_nobody():
    judge = make(peers=1)
    remember(judge, [(0.1, 0.2, 0.3)])
    judge.remember(1, epoch=3, length=LENGTH, standing=(0.0, 0.2))

    assert judge.cap(LENGTH) == 3


def test_only_the_best_goes_on_past_the_cap():
    capped, free = make(peers=9), make(Asha, peers=9)
    for judge in (capped, free):
        remember(judge, SETTLED)

    verdicts = [[report(judge, trial, 4, 0.9) for trial in range(4)] for judge in (capped, free)]

    assert verdicts == [[True, True, True, False], [False] * 4]


def test_a_risen_cap_lets_the_others_go_on():
    judge = make(peers=9)
    remember(judge, SWAPPED)
    assert report(judge, 0, 4, 0.3)

    remember(judge, SWAPPED * 3)

    assert judge.cap(LENGTH) == 9
    assert not report(judge, 2, 4, 0.5)


def test_who_has_passed_a_rung_beyond_the_cap_is_judged_there():
    judge = make(peers=9)
    remember(judge, [[0.1 * epoch for epoch in range(1, 10)], (0.2, 0.3, 0.9)])

    assert judge.cap(LENGTH) == 3
    assert not report(judge, 0, 9, 0.9)


def test_trials_of_other_lengths_are_not_compared():
    judge = make(peers=1)
    remember(judge, SWAPPED, length=12)
    remember(judge, SETTLED)

    assert (judge.cap(12), judge.cap(LENGTH)) == (9, 3)


@given(length=st.integers(1, 6), factor=factors, peers=peers, curves=curves, seed=seeds)
def test_with_one_rung_or_none_it_judges_as_asha(length, factor, peers, curves, seed):
    one, other = (make(kind, first_rung=3, factor=factor, peers=peers) for kind in (Pasha, Asha))
    events = list(arrivals([curve[:length] for curve in curves], seed))

    verdicts = [[report(judge, *event, length=length) for event in events] for judge in (one, other)]

    assert verdicts[0] == verdicts[1]


@given(factor=factors, peers=peers, curves=curves, seed=seeds)
def test_whom_asha_stops_is_stopped(factor, peers, curves, seed):
    pasha, asha = (make(kind, factor=factor, peers=peers) for kind in (Pasha, Asha))

    for event in arrivals(curves, seed):
        assert report(pasha, *event) >= report(asha, *event)


@given(factor=factors, peers=peers, curves=curves, seed=seeds)
def test_the_best_at_its_last_rung_is_never_stopped(factor, peers, curves, seed):
    judge = make(factor=factor, peers=peers)
    at_rungs = {}

    for trial, epoch, value in arrivals(curves, seed):
        passed = [rung for rung in judge.rungs(LENGTH) if rung <= epoch][-1]
        if epoch == passed:
            at_rungs.setdefault(passed, {})[trial] = value
        is_best = at_rungs[passed][trial] == max(at_rungs[passed].values())
        assert not (report(judge, trial, epoch, value) and is_best)


@given(factor=factors, peers=peers, curves=curves, seed=seeds)
def test_the_cap_never_falls(factor, peers, curves, seed):
    judge = make(factor=factor, peers=peers)
    caps = []

    for event in arrivals(curves, seed):
        report(judge, *event)
        caps.append(judge.cap(LENGTH))

    assert caps == sorted(caps)
    assert set(caps) <= {*judge.rungs(LENGTH)[1:], LENGTH}


@given(factor=factors, peers=peers, curves=curves, seed=seeds, n_before=st.integers(0, 120))
def test_a_judge_rebuilt_from_memory_judges_as_the_first_would(factor, peers, curves, seed, n_before):
    one, rebuilt = make(factor=factor, peers=peers), make(factor=factor, peers=peers)
    events = list(arrivals(curves, seed))
    for event in events[:n_before]:
        report(one, *event)
    for trial, epoch, value in reversed(events[:n_before]):
        rebuilt.remember(trial, epoch=epoch, length=LENGTH, standing=(0.0, value))

    verdicts = [[report(judge, *event) for event in events[n_before:]] for judge in (one, rebuilt)]

    assert verdicts[0] == verdicts[1]
