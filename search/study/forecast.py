"""How long a search still takes: from how far the judge has let trials train so far, and from how fast they do."""

import heapq
import itertools
import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence

from search.space.config import SearchConfig
from search.study.asha import Asha

# Epochs that count as recent: so many, and so many of each slot.
_RECENT, _ROUNDS = 24, 6
# What is assumed of a rung that nobody has reached weighs as much as so many trials that have.
_PRIOR = 1.0
# The rest of a search is played so often, and of many trials the last so many.
_COURSES, _PLAYED = 6, 150


class Survival:
    """Of the trials of each length: how many that reached an epoch went on after it.

    Args:
        search: Of the study: at a rung that few have reached, one of `factor` is assumed to go on.
    """

    def __init__(self, search: SearchConfig) -> None:
        self._asha = Asha(search.stop.asha) if search.stop else None
        self._lost = 1 - 1 / search.stop.asha.factor if search.stop else 0.0
        self._lengths: Counter[int] = Counter()
        self._reached: dict[int, Counter[int]] = defaultdict(Counter)  # by length, then by the epochs of the trial
        self._ended: dict[int, Counter[int]] = defaultdict(Counter)  # the same, of those that were cut short

    def add(self, *, length: int, epochs: int, is_cut_short: bool) -> None:
        """Take note of a trial that has ended.

        Args:
            length: Epochs that it would have trained in all.
            epochs: That it has trained; one that failed in its first counts as one.
            is_cut_short: Whether it was stopped, or did not work.
        """
        self._lengths[length] += 1
        self._reached[length][max(epochs, 1)] += 1
        if is_cut_short:
            self._ended[length][max(epochs, 1)] += 1

    def lengths(self, running: Iterable[tuple[int, int]] = ()) -> set[int]:
        """Return all lengths that trials have had so far."""
        return {*self._lengths, *(length for length, _ in running)}

    def curve(self, length: int, running: Iterable[tuple[int, int]] = ()) -> list[float]:
        """Return which share of the trials of a length trains its first epoch, its second, and so on to the last.

        Args:
            length: Epochs that they would train in all.
            running: Length and epochs done of all trials under way: that they went on counts, too.
        """
        reached = self._reached[length] + Counter(epochs for other, epochs in running if other == length)
        ended, rungs = self._ended[length], self._asha.rungs(length) if self._asha else []
        n_at, shares = reached.total() - reached[0], [1.0]
        for epoch in range(1, length):
            prior = _PRIOR if epoch in rungs else 0.0
            n = n_at + prior
            shares.append(shares[-1] * (1 - (ended[epoch] + prior * self._lost) / n if n else 1.0))
            n_at -= reached[epoch]
        return shares

    def draw_lengths(self, running: Sequence[tuple[int, int]], n: int, dice: random.Random) -> list[int]:
        """Draw the lengths of new trials, as they were so far."""
        lengths = self._lengths + Counter(length for length, _ in running)
        return dice.choices(list(lengths), list(lengths.values()), k=n) if lengths else []


class Pace:
    """How fast slots have trained lately."""

    def __init__(self) -> None:
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=2048)  # when, and on how many slots
        self._seconds: deque[float] = deque(maxlen=_RECENT)

    def add(self, *, elapsed: float, seconds: float, slots: int = 0) -> None:
        """Take note of an epoch.

        Args:
            elapsed: When it was reported, in seconds that the study has run.
            seconds: That it took to train and judge.
            slots: That were at work until then; 0 if unknown.
        """
        self._arrivals.append((elapsed, slots))
        self._seconds.append(seconds)

    @property
    def seconds_per_epoch(self) -> float:
        """What an epoch takes one slot, with all that comes between two; NaN before the first.

        Reports come in bursts, because slots begin together: the first of each slot starts the clock.
        """
        if not self._seconds:
            return math.nan
        slots = self._arrivals[-1][1]
        recent = list(self._arrivals)[-max(_RECENT, _ROUNDS * slots) - slots :]
        if not slots or len(recent) < 3 * slots:
            return sum(self._seconds) / len(self._seconds)
        busy = sum((now - before) * n for (before, _), (now, n) in itertools.pairwise(recent[slots - 1 :]))
        return busy / (len(recent) - slots)


def seconds_left(survival: Survival, pace: Pace, running: Sequence[tuple[int, int]], *, to_start: int) -> float:
    """Expect so many seconds until all trials are judged; NaN if there is nothing to go by yet.

    The rest of the search is played a few times: each trial trains as long as the curve of its length and the dice say,
    and a slot that falls idle takes the next. Before the last rounds only the mean counts.

    Args:
        survival: How far trials get.
        pace: How fast they train.
        running: Length and epochs done of each trial under way; one in each slot.
        to_start: Trials that have not started yet.
    """
    slots, each = len(running), pace.seconds_per_epoch
    if not slots or math.isnan(each):
        return math.nan
    curves = {length: survival.curve(length, running) for length in survival.lengths(running)}
    dice = random.Random(0)
    played, epochs = min(to_start, _PLAYED), 0.0
    for _ in range(_COURSES):
        free = [_draw_epochs(curves[length], done, dice) for length, done in running]
        heapq.heapify(free)
        for length in survival.draw_lengths(running, played, dice):
            heapq.heapreplace(free, free[0] + _draw_epochs(curves[length], 0, dice))
        epochs += max(free) / _COURSES
    if to_start > played:
        lengths = survival.draw_lengths(running, 200, dice)
        epochs += (to_start - played) * sum(sum(curves[length]) for length in lengths) / len(lengths) / slots
    return epochs * each


def _draw_epochs(curve: Sequence[float], done: int, dice: random.Random) -> int:
    """Draw how many more epochs a trial trains."""
    least = dice.random() * curve[min(done, len(curve) - 1)]
    epoch = done
    while epoch < len(curve) and curve[epoch] > least:
        epoch += 1
    return epoch - done
