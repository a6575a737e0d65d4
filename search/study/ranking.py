"""Which of several candidates is best, from trainings with fresh seeds: means, intervals, and who cannot be told apart.

Two things make a mean uncertain. Another seed would give another model: the spread between the seeds of a candidate,
taken together over all candidates because each has few. And other lots would be easier or harder: whole lots are drawn
again, the same for all candidates, so that what is hard for all cancels out of a difference. The two are added, and
Student's t with Satterthwaite's degrees of freedom allows for the few seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from search.trial.intervals import LEVEL, Interval, Statistic, draw_lots

_DRAWS = 2000  # of the lots


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """How one candidate stands to the best.

    Attributes:
        difference: Its mean minus the best's; all such intervals together hold in 95 %.
        p_value: Two-sided, of no difference; 1 for the best itself.
        is_tied: Whether the two cannot be told apart, all comparisons together being wrong in 5 % of the cases.
        is_close: Whether it is less than one standard error of the difference behind.
    """

    difference: Interval
    p_value: float
    is_tied: bool
    is_close: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """What the runs say of C candidates.

    Attributes:
        means: Of the score, with intervals of 95 %, in the order of the candidates.
        spreads: Standard deviation between the seeds of each; NaN with one seed.
        order: Positions of the candidates, the best mean first.
        contests: Of each candidate with the best, in the order of the candidates.
        seed_sd: Standard deviation between seeds, of all candidates together; NaN with one seed each.
        n_lots: Lots that were drawn.
    """

    means: Sequence[Interval]
    spreads: Sequence[float]
    order: Sequence[int]
    contests: Sequence[Contest]
    seed_sd: float
    n_lots: int


def rank_by_seeds(counts_CSLKK: NDArray[np.int64], statistic: Statistic, *, n: int = _DRAWS, seed: int = 0) -> Ranking:
    """Rank candidates by the mean score over their seeds.

    Args:
        counts_CSLKK: Confusion matrices of C candidates, S seeds each, and L lots: the lots are the same throughout.
        statistic: The score.
        n: Draws of the lots.
        seed: Of the draws.

    Raises:
        ValueError: If there are fewer than two lots, or no candidate.

    Source:
        Variance components as in Bouthillier et al. 2021, Accounting for Variance in Machine Learning Benchmarks;
        Satterthwaite 1946, An Approximate Distribution of Estimates of Variance Components; Dunn 1961, Multiple
        Comparisons Among Means, for the comparisons.
    """
    n_seeds = counts_CSLKK.shape[1]
    scores_CS = _apply(statistic, counts_CSLKK.sum(2))
    drawn_CBS = _draw(counts_CSLKK, statistic, n=n, seed=seed)
    seed_variance, seed_df = _pool(scores_CS)
    return _rank(
        scores_CS.mean(1),
        drawn_CBS.mean(2),
        seed_variance=seed_variance / n_seeds,
        seed_df=seed_df,
        spreads=scores_CS.std(1, ddof=1).tolist() if n_seeds > 1 else [math.nan] * len(scores_CS),
        n_lots=counts_CSLKK.shape[2],
    )


def rank_by_folds(
    counts_CFLKK: NDArray[np.int64],
    statistic: Statistic,
    *,
    seed_sd: float,
    seed_df: int,
) -> Ranking:
    """Rank candidates by the score over all folds together, each judged by a model that has not seen it.

    Every fold has a seed of its own, but only one: how much seeds differ must be known from elsewhere, see
    `rank_by_seeds`; if it is not, intervals hold the lots alone.

    Args:
        counts_CFLKK: Confusion matrices of C candidates, F folds and L lots; a lot has counts in one fold only.
        statistic: The score.
        seed_sd: Standard deviation between seeds; NaN if unknown.
        seed_df: Its degrees of freedom.

    Raises:
        ValueError: If there are fewer than two lots, or no candidate.
    """
    pooled = counts_CFLKK.sum(1, keepdims=True)
    n_folds = counts_CFLKK.shape[1]
    known = not math.isnan(seed_sd)
    return _rank(
        _apply(statistic, pooled.sum(2))[:, 0],
        _draw(pooled, statistic, n=_DRAWS, seed=0)[:, :, 0],
        seed_variance=seed_sd**2 / n_folds if known else math.nan,
        seed_df=seed_df if known else 0,
        spreads=[math.nan] * len(pooled),
        n_lots=pooled.shape[2],
    )


def _rank(
    means: NDArray[np.float64],
    drawn_CB: NDArray[np.float64],
    *,
    seed_variance: float,
    seed_df: int,
    spreads: Sequence[float],
    n_lots: int,
) -> Ranking:
    """Put intervals around means and differences; `seed_variance` is that of a mean."""
    order = np.argsort(-means, kind="stable")
    best = int(order[0])
    lots = _Noise(seed_variance, seed_df, n_lots - 1)
    contests = []
    together = 1 - (1 - LEVEL) / max(1, len(means) - 1)
    for c in range(len(means)):
        error, df = lots.add(np.nanvar(drawn_CB[c] - drawn_CB[best]), seeds=0 if c == best else 2)
        gap = float(means[c] - means[best])
        half = float(student.ppf((1 + together) / 2, df)) * error
        p_value = float(2 * student.sf(abs(gap) / error, df)) if error else float(gap == 0)
        contests.append(
            Contest(
                difference=Interval(gap - half, gap, gap + half),
                p_value=1.0 if c == best else p_value,
                is_tied=c == best or p_value > 1 - together,
                is_close=-gap <= error,
            )
        )
    intervals = []
    for mean, drawn in zip(means.tolist(), drawn_CB, strict=True):
        error, df = lots.add(np.nanvar(drawn), seeds=1)
        half = float(student.ppf((1 + LEVEL) / 2, df)) * error
        intervals.append(Interval(max(0.0, mean - half), mean, min(1.0, mean + half)))
    return Ranking(
        means=intervals,
        spreads=spreads,
        order=order.tolist(),
        contests=contests,
        seed_sd=math.sqrt(float(np.nanmean(np.square(spreads)))) if not all(map(math.isnan, spreads)) else math.nan,
        n_lots=n_lots,
    )


@dataclass(frozen=True, slots=True)
class _Noise:
    seed_variance: float
    seed_df: int
    lot_df: int

    def add(self, lot_variance: float, *, seeds: int) -> tuple[float, float]:
        """Return the standard error of a sum over so many means, and its degrees of freedom."""
        from_seeds = 0.0 if math.isnan(self.seed_variance) else seeds * self.seed_variance
        total = from_seeds + float(lot_variance)
        parts = [(float(lot_variance), self.lot_df), (from_seeds, self.seed_df)]
        weight = sum(part**2 / df for part, df in parts if df)
        return math.sqrt(total), total**2 / weight if weight else float(max(1, self.lot_df))


def _pool(scores_CS: NDArray[np.float64]) -> tuple[float, int]:
    """Return the variance between seeds within candidates, and its degrees of freedom; NaN and 0 with one seed."""
    n_candidates, n_seeds = scores_CS.shape
    if n_seeds < 2:
        return math.nan, 0
    return float(scores_CS.var(1, ddof=1).mean()), n_candidates * (n_seeds - 1)


def _apply(statistic: Statistic, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Score matrices, shape (..., K, K); returns shape (...)."""
    flat = statistic(counts.reshape(-1, *counts.shape[-2:]).astype(np.float64))
    result: NDArray[np.float64] = flat.reshape(counts.shape[:-2])
    return result


def _draw(counts_CSLKK: NDArray[np.int64], statistic: Statistic, *, n: int, seed: int) -> NDArray[np.float64]:
    """Score every model on lots drawn again, the same for all; returns shape (C, n, S)."""
    n_candidates, n_seeds, n_lots, k, _ = counts_CSLKK.shape
    if n_lots < 2 or not n_candidates:
        raise ValueError(f"needs candidates and at least two lots; got {n_candidates} and {n_lots}")
    models = counts_CSLKK.reshape(n_candidates * n_seeds, n_lots, k * k).astype(np.float64)
    drawn = draw_lots(models, n=n, random=np.random.default_rng(seed))
    scores: NDArray[np.float64] = statistic(drawn.reshape(-1, k, k)).reshape(n_candidates, n_seeds, n)
    return scores.transpose(0, 2, 1)
