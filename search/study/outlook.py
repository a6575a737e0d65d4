"""What a search will come to, said before it starts: what its rules leave of the space, and what ASHA of its trials."""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.errors import ConfigError
from search.space.config import StudyConfig
from search.space.dice import COUNTABLE, DRAWS, Dice, first_allowed, look_over
from search.space.space import Config, epochs_of
from search.study.asha import Asha
from search.trial.intervals import wilson
from search.trial.params import find_contradiction
from search.trial.vocabulary import Scalar

# A larger search is simulated with so many trials, and scaled up.
_MOST_TRIALS = 1_000
# So many draws that are all forbidden end the search for one that is not.
_TRIES = 2000
# Fewer searches are simulated, but not fewer than the second number, when they take more than so many comparisons.
_WORK, _FEWEST_SEARCHES = 15_000_000, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden:
    """How much of a space may not be tried.

    Attributes:
        n: Configurations looked at.
        n_forbidden: How many of them at least one rule forbids.
        is_exact: Whether they are all there are; else they were drawn, every parameter evenly over its range.
        by_rule: How many of them each rule forbids, by its condition or, of a contradiction, by its words; the most
            first. A configuration may break several rules.
    """

    n: int
    n_forbidden: int
    is_exact: bool
    by_rule: Mapping[str, int]

    @property
    def share(self) -> float:
        """Of what was looked at."""
        return self.n_forbidden / self.n

    @property
    def n_allowed(self) -> int | None:
        """Configurations that may be tried; None if they were not counted."""
        return self.n - self.n_forbidden if self.is_exact else None

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share of the space lies, with 95 % confidence; one number twice if it is exact."""
        if self.is_exact:
            return self.share, self.share
        found = wilson(self.n_forbidden, self.n)
        return found.low, found.high


def measure_forbidden(config: StudyConfig, *, countable: int = COUNTABLE, n_draws: int = DRAWS) -> Forbidden:
    """Measure which share of a space its rules and contradictions forbid.

    Args:
        config: Of the study.
        countable: The largest space of which every configuration is looked at.
        n_draws: Configurations drawn from a larger one.
    """
    looked_at, is_exact = look_over(config.space, random.Random(0), countable=countable, n_draws=n_draws)
    n, n_forbidden, by_rule = 0, 0, Counter[str]()
    for flat in looked_at:
        broken = list(_broken_rules(config, flat))
        by_rule.update(broken)
        n, n_forbidden = n + 1, n_forbidden + bool(broken)
    return Forbidden(n=n, n_forbidden=n_forbidden, is_exact=is_exact, by_rule=dict(by_rule.most_common()))


def _broken_rules(config: StudyConfig, flat: Config) -> Iterator[str]:
    contradiction = find_contradiction(flat)
    if contradiction:
        yield contradiction
    yield from (rule.condition.text for rule in config.forbid if rule.condition.holds(flat))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What becomes of the trials of one length; all numbers but the first two are expected values.

    Attributes:
        length: Nominal epochs.
        rungs: Epochs at which ASHA compares.
        trials: That start.
        reaching: That train as far as each rung.
        finishing: That run to their end.
    """

    length: int
    rungs: tuple[int, ...]
    trials: float
    reaching: tuple[float, ...]
    finishing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is to be expected of a search.

    Attributes:
        trials: That it judges.
        n_searches: Simulated, to find the rest.
        schedules: By length, the shortest first.
        epochs: Nominal epochs of all trials together, expected.
        epochs_range: Between which they were in nine of ten simulated searches.
        makespan: Nominal epochs from the first trial's start to the last one's end, expected.
        ends: After how many epochs the trials of each simulated search had ended, in order, shape (searches, T).
    """

    trials: int
    n_searches: int
    schedules: tuple[Schedule, ...]
    epochs: float
    epochs_range: tuple[float, float]
    makespan: float
    ends: np.ndarray[tuple[int, int], np.dtype[np.float64]]

    def judged_within(self, epochs: float) -> float:
        """Expect so many trials to have ended after so many nominal epochs on the clock."""
        scale = self.trials / self.ends.shape[1]
        return float((self.ends * scale <= epochs).sum(axis=1).mean() * scale)


def foresee(config: StudyConfig, *, slots: int, allowed: int | None = None, n_searches: int = 200) -> Outlook:
    """Simulate the judge itself on made-up trials.

    The first trials have the lengths of the `first` points; the others are drawn as `Dice` draws from the space,
    without what is forbidden. They start in random order of merit, and keep that order from rung to rung: on six tables
    of recorded curves (TaskSet, 24 and 120 random configurations of 50 epochs, rungs 3-9-27) that gave 0 to 4 % more
    epochs than the curves did, and a new order at every rung 0 to 4 % fewer. A sampler that learns makes later trials
    better, so that fewer are stopped. All epochs count as equally long; no trial fails.

    Args:
        config: Of the study.
        slots: Trials side by side.
        allowed: Configurations that may be tried; None if they are endless, or not counted.
        n_searches: To simulate; fewer of very long searches.

    Raises:
        ConfigError: If the rules seem to forbid everything.
    """
    dice = random.Random(0)
    trials = config.search.trials if allowed is None else min(config.search.trials, allowed)
    n = min(trials, _MOST_TRIALS)
    firsts = [_draw_length(config, dice, point) for point in config.first[:n]]
    pool = [_draw_length(config, dice) for _ in range(1000)]
    asha = config.search.stop.asha if config.search.stop else None
    courses: list[_Course] = []
    work = 0
    while len(courses) < n_searches and (work < _WORK or len(courses) < _FEWEST_SEARCHES):
        lengths = [*firsts, *dice.choices(pool, k=n - len(firsts))]
        courses.append(_simulate(lengths, Asha(asha) if asha else None, slots=slots, dice=dice))
        work += sum(courses[-1].done) * (20 + n // 4)
    epochs = np.array([sum(course.done) for course in courses]) * (trials / n)
    ends = np.array([sorted(course.ends) for course in courses])
    low, high = np.quantile(epochs, [0.05, 0.95])
    return Outlook(
        trials=trials,
        n_searches=len(courses),
        schedules=_summarise(courses, Asha(asha) if asha else None, scale=trials / n),
        epochs=float(epochs.mean()),
        epochs_range=(float(low), float(high)),
        makespan=float(ends[:, -1].mean()) * (trials / n),
        ends=ends,
    )


def draw_allowed(config: StudyConfig, dice: random.Random, point: Config | None = None) -> dict[str, Scalar]:
    """Draw a flat configuration that may be tried, every parameter evenly over its range.

    Args:
        config: Of the study.
        dice: Source of randomness.
        point: Values that it must have, by full name.

    Raises:
        ConfigError: If all draws are forbidden.
    """
    flat = first_allowed(config, itertools.repeat(Dice(dice, point or {}), _TRIES))
    if flat is not None:
        return flat
    where = f"with {dict(point)}" if point else "in the space"
    raise ConfigError(f"forbid: {_TRIES:,} of {_TRIES:,} configurations drawn {where} are forbidden; relax the rules")


def _draw_length(config: StudyConfig, dice: random.Random, point: Config | None = None) -> int:
    return epochs_of(draw_allowed(config, dice, point))


@dataclass(frozen=True, slots=True)
class _Course:
    """One simulated search, by trial: the length, the epochs trained, and when it ended, in epochs."""

    lengths: Sequence[int]
    done: Sequence[int]
    ends: Sequence[float]


def _simulate(lengths: Sequence[int], asha: Asha | None, *, slots: int, dice: random.Random) -> _Course:
    """Let trials of random merit train side by side, epoch by epoch, each as long as the judge lets it."""
    merits = [dice.random() for _ in lengths]
    done, ends = [0] * len(lengths), [0.0] * len(lengths)
    waiting = iter(range(len(lengths)))
    steps = [1] * len(lengths) if asha else lengths
    under_way = [(steps[i], i) for i in itertools.islice(waiting, slots)]
    heapq.heapify(under_way)
    while under_way:
        now, i = heapq.heappop(under_way)
        done[i] += steps[i]
        if done[i] == lengths[i] or (
            asha and asha.is_losing(i, epoch=done[i], length=lengths[i], standing=(0.0, merits[i]))
        ):
            ends[i] = now
            i = next(waiting, -1)
        if i >= 0:
            heapq.heappush(under_way, (now + steps[i], i))
    return _Course(lengths, done, ends)


def _summarise(courses: Sequence[_Course], asha: Asha | None, *, scale: float) -> tuple[Schedule, ...]:
    trained: dict[int, list[int]] = {}
    for course in courses:
        for length, epochs in zip(course.lengths, course.done, strict=True):
            trained.setdefault(length, []).append(epochs)

    def expect(events: Iterable[bool]) -> float:
        return sum(events) * scale / len(courses)

    schedules = []
    for length, done in sorted(trained.items()):
        rungs = tuple(asha.rungs(length)) if asha else ()
        schedules.append(
            Schedule(
                length=length,
                rungs=rungs,
                trials=expect(True for _ in done),
                reaching=tuple(expect(epochs >= rung for epochs in done) for rung in rungs),
                finishing=expect(epochs == length for epochs in done),
            )
        )
    return tuple(schedules)
