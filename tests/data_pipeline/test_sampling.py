from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from data_pipeline.sampling import (
    SAMPLINGS,
    Plan,
    WaferDraws,
    balanced,
    choose_subset,
    effective_number,
    imbalanced,
    make_pool,
    per_class,
    power,
    progressive,
)

alphas = st.floats(0, 1)
some_counts = st.lists(st.integers(0, 10**6), min_size=1, max_size=9).filter(any).map(np.array)


@st.composite
def supplies(draw):
    """Labels of up to 80 wafers, a plan without a pool and the wafers of an epoch."""
    n_classes = draw(st.integers(1, 4))
    labels = np.array(draw(st.lists(st.integers(0, n_classes - 1), min_size=1, max_size=80)))
    start, end = (power(np.bincount(labels, minlength=n_classes), alpha=draw(alphas)).start for _ in range(2))
    return torch.from_numpy(labels), Plan(start=start, end=end), draw(st.integers(1, 200))


def steady(*shares):
    return Plan(start=np.array(shares), end=np.array(shares))


def draws_of(supply):
    labels, plan, epoch_samples = supply
    return WaferDraws(labels, plan=plan, epoch_samples=epoch_samples)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(some_counts, alphas)
def test_shares_sum_to_one_and_leave_out_classes_without_wafers(counts, alpha):
    shares = power(counts, alpha=alpha).start

    assert shares.sum() == pytest.approx(1)
    np.testing.assert_array_equal(shares > 0, counts > 0)


@given(some_counts, alphas)
def test_a_larger_class_never_gets_a_smaller_share(counts, alpha):
    shares = power(counts, alpha=alpha).start

    assert (np.diff(shares[np.argsort(counts)]) >= -1e-12).all()


@given(some_counts)
def test_power_ranges_from_balanced_to_imbalanced(counts):
    np.testing.assert_allclose(power(counts, alpha=0).start, balanced(counts).start)
    np.testing.assert_allclose(power(counts, alpha=1).start, imbalanced(counts).start)
    np.testing.assert_allclose(imbalanced(counts).start, counts / counts.sum())
    np.testing.assert_allclose(balanced(counts).start[counts > 0], 1 / (counts > 0).sum())


def test_power_defaults_to_the_square_root():
    np.testing.assert_allclose(power(np.array([900, 100])).start, [0.75, 0.25])


@pytest.mark.parametrize("alpha", [-0.1, 1.01, float("nan")])
def test_an_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(ValueError, match=rf"alpha must be in \[0, 1\]; got {alpha}"):
        power(np.array([1, 2]), alpha=alpha)


def test_the_strategies_go_by_these_names_in_a_space():
    assert sorted(SAMPLINGS) == ["balanced", "effective_number", "imbalanced", "per_class", "power", "progressive"]


@pytest.mark.parametrize("name", SAMPLINGS)
@given(counts=some_counts, progress=st.floats(0, 1))
@example(counts=np.array([5, 0, 3]), progress=0.5)
def test_the_shares_of_every_strategy_sum_to_one_at_any_time_and_leave_out_classes_without_wafers(
    name, counts, progress
):
    shares = SAMPLINGS[name](counts).shares(progress)

    assert shares.sum() == pytest.approx(1)
    np.testing.assert_array_equal(shares > 0, counts > 0)


@pytest.mark.parametrize("name", sorted(set(SAMPLINGS) - {"progressive"}))
@given(counts=some_counts)
def test_all_strategies_but_one_are_the_same_at_any_time(name, counts):
    plan = SAMPLINGS[name](counts)

    np.testing.assert_allclose(plan.shares(0.0), plan.shares(1.0))


@given(some_counts)
def test_progressive_starts_imbalanced_and_ends_balanced(counts):
    plan = progressive(counts)

    np.testing.assert_allclose(plan.shares(0.0), imbalanced(counts).start)
    np.testing.assert_allclose(plan.shares(1.0), balanced(counts).start)


def test_progressive_moves_in_a_straight_line():
    plan = progressive(np.array([90, 10]))

    np.testing.assert_allclose([plan.shares(t)[0] for t in (0, 0.25, 0.5, 1)], [0.9, 0.8, 0.7, 0.5])


@given(some_counts)
def test_effective_number_ranges_from_imbalanced_to_balanced(counts):
    np.testing.assert_allclose(effective_number(counts, beta=0).start, imbalanced(counts).start)
    np.testing.assert_allclose(effective_number(counts, beta=1 - 1e-12).start, balanced(counts).start, rtol=1e-3)


def test_effective_number_weighs_as_published():
    expected = np.array([2 * 0.5 / (1 - 0.5**2), 4 * 0.5 / (1 - 0.5**4)])

    shares = effective_number(np.array([2, 4]), beta=0.5).start

    np.testing.assert_allclose(shares, expected / expected.sum())


@given(some_counts, st.floats(0, 0.999999))
def test_a_class_never_gets_less_by_effective_number_than_a_smaller_class(counts, beta):
    shares = effective_number(counts, beta=beta).start

    assert (np.diff(shares[np.argsort(counts)]) >= -1e-9).all()


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_a_beta_outside_its_range_is_refused(beta):
    with pytest.raises(ValueError, match=rf"beta must be in \[0, 1\); got {beta}"):
        effective_number(np.array([1, 2]), beta=beta)


@pytest.mark.parametrize("size", [0, 1_000_001])
def test_a_pool_without_wafers_or_of_too_many_is_refused(size):
    with pytest.raises(ValueError, match=rf"per_class must be in \[1, 1000000\]; got {size}"):
        per_class(np.array([1, 2]), per_class=size)


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_pool_of_one_wafer_and_one_of_a_million_are_allowed(size):
    assert per_class(np.array([1, 2]), per_class=size).pool == size


@given(st.integers(1, 50), st.integers(1, 200))
def test_a_pool_copies_evenly_or_chooses_without_copies(n_members, size):
    pool = make_pool(np.arange(n_members), size=size)

    times = np.bincount(pool, minlength=n_members)
    assert len(pool) == size
    assert np.ptp(times) <= 1


def test_a_pool_of_few_wafers_per_class_is_all_that_is_ever_drawn():
    labels = torch.tensor([0] * 50 + [2] * 3)
    draws, random = WaferDraws(labels, plan=per_class(np.array([50, 0, 3]), per_class=5), epoch_samples=20), generator()

    times = np.bincount(torch.cat([draws.next_epoch(random) for _ in range(10)]), minlength=53)

    assert (times[:50] > 0).sum() == 5
    assert set(times[:50]) == {0, 20}
    assert sorted(times[50:]) == [20, 40, 40]  # five places in the pool for three wafers


@given(supplies(), st.floats(0, 1))
def test_an_epoch_has_exactly_its_samples_and_each_class_its_share(supply, progress):
    labels, plan, epoch_samples = supply
    shares = plan.shares(progress)

    drawn = draws_of(supply).next_epoch(generator(), progress=progress)

    counts = np.bincount(labels[drawn], minlength=len(shares))
    assert drawn.dtype == torch.int64
    assert counts.sum() == epoch_samples
    assert (np.abs(counts - shares * epoch_samples) < 1 + 1e-6).all()


@given(supplies(), st.integers(1, 5))
def test_no_wafer_comes_again_before_the_pass_over_its_class_is_over(supply, n_epochs):
    labels = supply[0].numpy()
    draws, random = draws_of(supply), generator()

    drawn = torch.cat([draws.next_epoch(random) for _ in range(n_epochs)])

    times = np.bincount(drawn, minlength=len(labels))
    for k in np.unique(labels):
        assert np.ptp(times[labels == k]) <= 1


def test_shares_that_do_not_divide_evenly_come_out_right_over_many_epochs():
    labels = torch.tensor([0] * 50 + [1] * 3 + [2])
    draws, random = WaferDraws(labels, plan=steady(0.91, 0.06, 0.03), epoch_samples=10), generator()

    drawn = torch.cat([draws.next_epoch(random) for _ in range(2000)])

    counts = np.bincount(labels[drawn])
    np.testing.assert_allclose(counts / 20_000, [0.91, 0.06, 0.03], atol=0.005)


def test_an_epoch_comes_in_random_order():
    labels = torch.arange(4).repeat_interleave(50)
    draws = WaferDraws(labels, plan=steady(0.25, 0.25, 0.25, 0.25), epoch_samples=200)

    drawn = draws.next_epoch(generator())

    assert sorted(drawn.tolist()) == list(range(200))
    assert 100 < (labels[drawn].diff() != 0).sum() < 199


def test_the_seed_alone_decides_what_is_drawn():
    labels, plan = torch.tensor([0] * 7 + [1] * 4), steady(0.63, 0.37)
    one, other = (WaferDraws(labels, plan=plan, epoch_samples=10) for _ in range(2))
    one_random, other_random = generator(5), generator(5)

    for _ in range(20):
        assert torch.equal(one.next_epoch(one_random), other.next_epoch(other_random))


def test_every_epoch_shows_other_wafers():
    draws, random = WaferDraws(torch.zeros(100, dtype=torch.int64), plan=steady(1.0), epoch_samples=50), generator()

    first, second = draws.next_epoch(random), draws.next_epoch(random)

    assert not set(first.tolist()) & set(second.tolist())


@given(supplies(), st.integers(0, 3), st.integers(1, 3))
def test_a_resumed_run_draws_what_an_uninterrupted_one_draws(supply, n_before, n_after):
    uninterrupted, random = draws_of(supply), generator()
    for _ in range(n_before):
        uninterrupted.next_epoch(random)
    state, random_state = uninterrupted.state_dict(), random.get_state()
    expected = [uninterrupted.next_epoch(random) for _ in range(n_after)]

    resumed, random = draws_of(supply), generator(99)
    resumed.load_state_dict(state)
    random.set_state(random_state)
    found = [resumed.next_epoch(random) for _ in range(n_after)]

    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_the_state_survives_a_file_that_holds_weights_only():
    labels = torch.zeros(1000, dtype=torch.int64)
    draws, random = WaferDraws(labels, plan=steady(1.0), epoch_samples=990), generator()
    draws.next_epoch(random)
    file = BytesIO()

    torch.save(draws.state_dict(), file)

    assert file.tell() < 4000  # the ten wafers that are left of the pass, not the whole of it
    file.seek(0)
    draws.load_state_dict(torch.load(file, weights_only=True))


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=200).map(np.array),
    fractions=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
)
def test_a_larger_subset_holds_a_smaller_one(labels, fractions):
    smaller, larger = (choose_subset(labels, fraction=fraction) for fraction in fractions)

    assert set(smaller) <= set(larger)


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=200).map(np.array), fraction=st.floats(0.01, 1))
def test_a_subset_has_the_same_share_of_every_class_and_at_least_a_wafer(labels, fraction):
    chosen = choose_subset(labels, fraction=fraction)

    assert (np.diff(chosen) > 0).all()
    for k in np.unique(labels):
        n_chosen, n_members = (labels[chosen] == k).sum(), (labels == k).sum()
        assert n_chosen >= 1
        assert n_chosen == 1 or abs(n_chosen - fraction * n_members) <= 0.5


def test_the_whole_is_a_subset():
    np.testing.assert_array_equal(choose_subset(np.array([2, 0, 2, 1]), fraction=1), [0, 1, 2, 3])
