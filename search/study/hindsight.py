"""What an ended search says about itself: what it saved, who got how far, and what mere luck would have found."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from search.space.space import Choice, Node, Range
from search.study.rows import COMPLETE, RUNNING, STOPPED, TrialRecord

_EDGE = 0.05  # of a range's length, in its own scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What the judge has spared.

    Attributes:
        n_stopped: Trials that it has stopped.
        epochs_run: Nominal epochs of all trials.
        epochs_saved: Nominal epochs that the stopped ones would still have taken.
        seconds_run: Training and judging, of all trials.
        seconds_saved: `epochs_saved`, each trial's at its own seconds per epoch.
    """

    n_stopped: int
    epochs_run: int
    epochs_saved: int
    seconds_run: float
    seconds_saved: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """How many came past one rung; the trials of one length.

    Attributes:
        length: Nominal epochs of the trials.
        epoch: After which the rung stands.
        reached: Trials that reported this epoch.
        stopped: Of those, stopped by the judge before the next rung, or the end.
        went_on: Of those, seen at the next rung, or at the end.
    """

    length: int
    epoch: int
    reached: int
    stopped: int
    went_on: int


def rank(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Sort those that ran to their end as a study chooses its winner: best standing first, the earlier of equals."""
    return _sort_by_standing(record for record in records if record.status == COMPLETE)


def unfinished_above(records: Iterable[TrialRecord], best: TrialRecord) -> list[TrialRecord]:
    """Find those that were left unfinished and stood higher than the best of those that ran to their end, sorted."""
    return _sort_by_standing(r for r in records if r.status == RUNNING and r.standing > best.standing)


def _sort_by_standing(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    return sorted(records, key=lambda record: (record.standing, -record.number), reverse=True)


def measure_saving(records: Sequence[TrialRecord]) -> Saving:
    """Add up what the stopped trials would still have taken."""
    stopped = [record for record in records if record.status == STOPPED and record.reports]
    left = [record.epochs - len(record.reports) for record in stopped]
    pace = [record.seconds / len(record.reports) for record in stopped]
    return Saving(
        n_stopped=len(stopped),
        epochs_run=sum(len(record.reports) for record in records),
        epochs_saved=sum(left),
        seconds_run=sum(record.seconds for record in records),
        seconds_saved=sum(n * seconds for n, seconds in zip(left, pace, strict=True)),
    )


def count_survivors(records: Sequence[TrialRecord], rungs: Callable[[int], Sequence[int]]) -> list[Rung]:
    """Count how many trials reached each rung and went on.

    Args:
        records: All trials.
        rungs: The rungs of trials of a length, as `Asha.rungs`.
    """
    found = []
    for length in sorted({record.epochs for record in records}):
        mine = [record for record in records if record.epochs == length]
        epochs = list(rungs(length))
        for epoch, following in zip(epochs, [*epochs[1:], length], strict=True):
            there = [record for record in mine if len(record.reports) >= epoch]
            gone_on = [record for record in there if len(record.reports) >= following]
            n_stopped = sum(record.status == STOPPED and record not in gone_on for record in there)
            found.append(Rung(length=length, epoch=epoch, reached=len(there), stopped=n_stopped, went_on=len(gone_on)))
    return found


def expect_best(values: Sequence[float], *, n_never: int = 0) -> NDArray[np.float64]:
    """Compute the expected best of k trials drawn in random order from those that ended, exactly.

    Args:
        values: Scores of the trials that may be the best.
        n_never: Ended trials besides that never are: stopped, infeasible, below a floor.

    Returns:
        For k = 1 to all of them; of the draws that hold at least one of `values`. NaN without values.

    Source:
        The largest of k drawn without replacement from n is the i-th smallest with probability
        C(i - 1, k - 1) / C(n, k).

    Example:
        >>> expect_best([0.0, 1.0], n_never=1).round(3)
        array([0.5  , 0.667, 1.   ])
    """
    n = len(values) + n_never
    if not values:
        return np.full(n, np.nan)
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return np.array([float(ordered @ _chances(len(values), n_never, k)) for k in range(1, n + 1)])


def spread_of_best(values: Sequence[float], *, n: int, n_never: int = 0, share: float = 0.9) -> tuple[float, float]:
    """Return between which bounds the best of n drawn without replacement lies in `share` of the draws.

    Arguments as in `expect_best`; at most all trials are drawn.
    """
    chances = np.cumsum(_chances(len(values), n_never, min(n, len(values) + n_never)))
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    low, high = (int(np.searchsorted(chances, at - 1e-12)) for at in ((1 - share) / 2, (1 + share) / 2))
    return float(ordered[low]), float(ordered[min(high, len(ordered) - 1)])


def _chances(n_values: int, n_never: int, k: int) -> NDArray[np.float64]:
    """How probable it is that the i-th smallest value is the best of k, if any value is drawn at all."""
    below = np.arange(n_values) + n_never  # trials that may be drawn beside the best
    possible = below >= k - 1
    logs = np.where(possible, _log_choose(np.maximum(below, k - 1), k - 1), -np.inf)
    weights = np.exp(logs - logs.max())
    result: NDArray[np.float64] = weights / weights.sum()
    return result


def _log_choose(n: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    result: NDArray[np.float64] = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return result


def find_edge(node: Node, value: object) -> str | None:
    """Say at which end of what may be tried a value lies: "low", "high", or None.

    Of a range, the outer twentieth in its own scale counts; of three or more numbers to choose from, the extremes.

    Example:
        >>> find_edge(Range(1e-4, 1e-2, log=True), 0.0099), find_edge(Choice((8, 16, 24)), 16)
        ('high', None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    match node:
        case Range(low, high, log):
            at = place_in(node, value) if log or high > low else 0.5
            return "low" if at <= _EDGE else "high" if at >= 1 - _EDGE else None
        case Choice(values):
            numbers = [each for each in values if isinstance(each, int | float) and not isinstance(each, bool)]
            if len(numbers) < max(3, len(values)):
                return None
            return {min(numbers): "low", max(numbers): "high"}.get(value)
    return None


def place_in(node: Range, value: float) -> float:
    """Return where in a range a value lies, from 0 to 1, in the range's own scale."""
    low, high, at = (math.log(each) if node.log else each for each in (node.low, node.high, value))
    return (at - low) / (high - low)
