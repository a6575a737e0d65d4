import math

import numpy as np
import pytest

from search.study.ranking import rank_by_folds, rank_by_seeds
from search.trial.intervals import accuracy, balanced_macro_f1

K = 3


def make_counts(random, *, skills, n_seeds=3, n_lots=40, seed_sd=0.01, lot_sd=0.05, size=25):
    """Draw confusion matrices by lot: some lots are harder for everybody, some seeds better on all lots."""
    hardness = random.normal(0, lot_sd, n_lots)
    counts = np.zeros((len(skills), n_seeds, n_lots, K, K), dtype=np.int64)
    for c, skill in enumerate(skills):
        for s in range(n_seeds):
            luck = random.normal(0, seed_sd)
            for lot in range(n_lots):
                chance = np.clip(skill + luck + hardness[lot], 0, 1)
                for k in range(K):
                    n_right = random.binomial(size, chance)
                    counts[c, s, lot, k, k] = n_right
                    counts[c, s, lot, k, (k + 1) % K] = size - n_right
    return counts


def test_a_candidate_that_is_clearly_better_is_told_apart():
    counts = make_counts(np.random.default_rng(0), skills=[0.7, 0.9, 0.88])

    found = rank_by_seeds(counts, accuracy)

    assert found.order[0] == 1
    assert found.order[2] == 0
    assert not found.contests[0].is_tied
    assert found.contests[0].difference.high < 0
    assert found.contests[0].p_value < 0.001
    assert found.contests[1].is_tied and found.contests[1].p_value == 1


def test_equal_candidates_cannot_be_told_apart():
    one = make_counts(np.random.default_rng(1), skills=[0.9])
    counts = np.concatenate([one, one])

    found = rank_by_seeds(counts, balanced_macro_f1)

    assert [contest.is_tied for contest in found.contests] == [True, True]
    assert found.order == [0, 1]  # of equals, the first
    assert found.contests[1].difference.value == 0


def test_what_is_hard_for_all_cancels_out_of_a_difference():
    counts = make_counts(np.random.default_rng(2), skills=[0.9, 0.8], lot_sd=0.2, seed_sd=0.001)

    found = rank_by_seeds(counts, accuracy)

    width = found.means[0].high - found.means[0].low
    gap = found.contests[1].difference
    assert gap.high - gap.low < 0.7 * width


@pytest.mark.parametrize("source", ["seeds", "lots"])
def test_more_spread_widens_the_interval(source):
    quiet, loud = ({"seed_sd": 0.001, "lot_sd": 0.001} | {f"{source[:-1]}_sd": sd} for sd in (0.001, 0.1))

    widths = []
    for spread in (quiet, loud):
        mean = rank_by_seeds(make_counts(np.random.default_rng(3), skills=[0.7, 0.7], **spread), accuracy).means[0]
        widths.append(mean.high - mean.low)

    assert widths[1] > 3 * widths[0]


def test_one_seed_leaves_the_spread_between_seeds_unknown():
    found = rank_by_seeds(make_counts(np.random.default_rng(4), skills=[0.8, 0.7], n_seeds=1), accuracy)

    assert math.isnan(found.seed_sd)
    assert all(map(math.isnan, found.spreads))
    assert found.means[0].low < found.means[0].value < found.means[0].high


def test_the_spread_is_that_of_the_scores_over_the_seeds():
    counts = make_counts(np.random.default_rng(5), skills=[0.8, 0.7], n_seeds=4)

    found = rank_by_seeds(counts, accuracy)

    scores = accuracy(counts.sum(2).reshape(-1, K, K)).reshape(2, 4)
    assert found.spreads == pytest.approx(scores.std(1, ddof=1))
    assert [mean.value for mean in found.means] == pytest.approx(scores.mean(1))
    assert found.seed_sd == pytest.approx(math.sqrt(scores.var(1, ddof=1).mean()))


def test_the_same_seed_of_the_draws_gives_the_same_ranking():
    counts = make_counts(np.random.default_rng(6), skills=[0.8, 0.79])

    assert rank_by_seeds(counts, accuracy, seed=1) == rank_by_seeds(counts, accuracy, seed=1)
    assert rank_by_seeds(counts, accuracy, seed=1) != rank_by_seeds(counts, accuracy, seed=2)


def test_folds_count_as_one_judgement_of_all_lots():
    counts = make_counts(np.random.default_rng(7), skills=[0.8, 0.6], n_seeds=2)
    folds = counts.copy()
    folds[:, 0, :20] = folds[:, 1, 20:] = 0

    found = rank_by_folds(folds, accuracy, seed_sd=0.01, seed_df=4)

    assert found.means[0].value == pytest.approx(float(accuracy(folds.sum((1, 2))[:1].astype(float))[0]))
    assert found.n_lots == 40
    narrower = rank_by_folds(folds, accuracy, seed_sd=math.nan, seed_df=0)
    assert narrower.means[0].low > found.means[0].low


def test_a_single_lot_is_refused():
    counts = make_counts(np.random.default_rng(0), skills=[0.8, 0.7], n_lots=1)

    with pytest.raises(ValueError, match="at least two lots; got 2 and 1"):
        rank_by_seeds(counts, accuracy)
    with pytest.raises(ValueError, match="at least two lots; got 2 and 1"):
        rank_by_folds(counts, accuracy, seed_sd=0.01, seed_df=4)


def test_close_is_who_is_less_than_one_standard_error_behind():
    best = make_counts(np.random.default_rng(8), skills=[0.9])
    gaps, close = [], []
    for n_worse in range(1, 12):  # in so many lots, every seed misses three wafers more
        other = best.copy()
        other[:, :, :n_worse, 0, 0] -= 3
        other[:, :, :n_worse, 0, 1] += 3
        contest = rank_by_seeds(np.concatenate([best, other]), accuracy).contests[1]
        gaps.append(-2 * contest.difference.value / (contest.difference.high - contest.difference.low))
        close.append(contest.is_close)

    assert close == sorted(close, reverse=True)
    # Half an interval of 95 % is two standard errors and a little.
    assert max(gap for gap, is_close in zip(gaps, close, strict=True) if is_close) < 0.5
    assert min(gap for gap, is_close in zip(gaps, close, strict=True) if not is_close) > 0.4


def test_intervals_of_95_percent_hold_the_truth_in_90_to_98_percent():
    """Two sources of chance at once: three seeds, thirty lots; benchmarks/coverage.py does this on recorded ones."""
    n, truth, hits, gaps = 300, 0.8, 0, 0
    for i in range(n):
        counts = make_counts(
            np.random.default_rng(1000 + i), skills=[truth, truth], n_lots=30, size=4, lot_sd=0.05, seed_sd=0.02
        )
        found = rank_by_seeds(counts, accuracy, n=300)
        hits += found.means[0].low <= truth <= found.means[0].high
        gap = found.contests[found.order[1]].difference
        gaps += gap.low <= 0 <= gap.high

    assert 0.90 <= hits / n <= 0.98
    assert 0.90 <= gaps / n <= 1.0  # the second is by choice the worse one of two
