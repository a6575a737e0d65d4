"""What a study looks like at one moment: one source for the screen of a search and for `search.status`."""

import math
import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from search.space.config import SearchConfig
from search.space.space import Config, Space
from search.study.forecast import Pace, Survival, seconds_left
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, STOPPED, TrialRecord
from search.study.study import JUDGED

# Of the best trials and the last messages, so many are kept.
_TOP, _MESSAGES = 5, 20
# What the reason of a trial contains, by the short name of its group.
_GROUPS = {"loss became": "diverged", "out of memory": "out of memory", "would train": "takes too long"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialNow:
    """What is known of one trial after its last report.

    Attributes:
        number: Of the trial.
        config: Its flat configuration.
        epochs: Epochs that it would train in all.
        epoch: Epochs that it has reported.
        status: As in `TrialRecord`.
        reason: The same.
        slot: Number of its slot, from 1; 0 if unknown.
        place: The slot, its GPUs, machine and process in words; "" if unknown.
        value: The objective; NaN before the first report, as all numbers below.
        shortfall: By how much it misses the floors of single classes, together.
        macro_f1: On the validation part.
        f1: The same of each class; NaN of a class without wafers; empty before the first report.
        samples: Wafers trained on.
        speed: Wafers trained on per second, in the last epoch.
    """

    number: int
    config: Config
    epochs: int
    epoch: int = 0
    status: str = RUNNING
    reason: str = ""
    slot: int = 0
    place: str = ""
    value: float = math.nan
    shortfall: float = math.nan
    macro_f1: float = math.nan
    f1: tuple[float, ...] = ()
    samples: int = 0
    speed: float = math.nan

    @property
    def worst(self) -> int | None:
        """Index of the class with the lowest F1; None before the first report."""
        known = [k for k, value in enumerate(self.f1) if not math.isnan(value)]
        return min(known, key=lambda k: self.f1[k], default=None)

    @property
    def rank(self) -> tuple[float, float, int]:
        """The higher, the better; a trial without a report stands last."""
        return (-self.shortfall, self.value, -self.number) if self.f1 else (-math.inf, -math.inf, -self.number)


def look_at(record: TrialRecord) -> TrialNow:
    """Take down what a record says now; also while another thread adds to it."""
    n = min(len(record.reports), len(record.values), len(record.shortfalls))
    now = TrialNow(
        number=record.number,
        config=record.config,
        epochs=record.epochs,
        epoch=n,
        status=record.status,
        reason=record.reason,
        slot=record.slot,
        place=record.place,
    )
    if not n:
        return now
    last, before = record.reports[n - 1], record.reports[n - 2].samples if n > 1 else 0
    assert last.val is not None  # a search always validates
    return replace(
        now,
        value=record.values[n - 1],
        shortfall=record.shortfalls[n - 1],
        macro_f1=last.val.scores.macro_f1,
        f1=tuple(last.val.scores.f1),
        samples=last.samples,
        speed=(last.samples - before) / max(last.train_seconds, 1e-9),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One thing that happened.

    Attributes:
        elapsed: When, in seconds that the study has run.
        trial: That ended, or is the best from now on; None for words of others.
        is_best: Which of the two.
        text: Words of others.
    """

    elapsed: float
    trial: TrialNow | None = None
    is_best: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What does not change while a study is watched.

    Attributes:
        name: Of the study.
        classes: Names of the K classes.
        space: What is searched.
        metric: What is maximised.
        marks: What to say loudly of the data.
        search: Its limits.
    """

    name: str
    classes: tuple[str, ...]
    space: Space
    metric: str
    marks: tuple[str, ...]
    search: SearchConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A study at one moment.

    Attributes:
        about: What does not change.
        elapsed: Seconds that it has run, over all attempts.
        left: Seconds that it still takes, as far as one can tell; None if that is not known yet.
        is_timed: Whether the time that it may take ends it, rather than its number of trials.
        counts: Trials by status; "paused" are those that were interrupted and wait.
        reasons: By status: how many trials for which reason, the most first.
        top: The best of those that ran to their end, the best first.
        running: The trials under way.
        messages: What happened last, the latest at the end.
    """

    about: About
    elapsed: float
    left: float | None
    is_timed: bool
    counts: Mapping[str, int]
    reasons: Mapping[str, Mapping[str, int]]
    top: tuple[TrialNow, ...]
    running: tuple[TrialNow, ...]
    messages: tuple[Message, ...]

    @property
    def n_judged(self) -> int:
        """Trials that count against those that were asked for."""
        return sum(self.counts[status] for status in JUDGED)

    @property
    def best(self) -> TrialNow | None:
        """The best of those that ran to their end and meet all floors."""
        return self.top[0] if self.top and not self.top[0].shortfall else None


class Tally:
    """Adds up what trials report, one after the other, so that a snapshot of a long study costs little.

    Args:
        about: The study.
    """

    def __init__(self, about: About) -> None:
        self.about = about
        self._survival = Survival(about.search)
        self._pace = Pace()
        self._ended: set[int] = set()
        self._epochs: Counter[int] = Counter()  # of the trials under way
        self._counts: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {INFEASIBLE: Counter(), FAILED: Counter()}
        self._forecast: tuple[tuple[list[tuple[int, int]], int], float] = ([], -1), math.nan
        self._top: list[TrialNow] = []
        self._messages: deque[Message] = deque(maxlen=_MESSAGES)

    def note_epoch(self, trial: int, epoch: int, *, elapsed: float, seconds: float, slots: int = 0) -> None:
        """Take note of a reported epoch, and of how long it took; once is enough.

        Args:
            trial: Its number.
            epoch: That it has reported.
            elapsed: Seconds that the study had run then.
            seconds: That the epoch took.
            slots: That train side by side; 0 if unknown.
        """
        if epoch > self._epochs[trial]:
            self._epochs[trial] = epoch
            self._pace.add(elapsed=elapsed, seconds=seconds, slots=slots)

    def note_end(self, trial: TrialNow, *, elapsed: float) -> list[Message]:
        """Take note of a trial that has ended; once is enough.

        Returns:
            What there is to say about it.
        """
        if trial.status == RUNNING or trial.number in self._ended:
            return []
        self._ended.add(trial.number)
        self._epochs.pop(trial.number, None)
        self._counts[trial.status] += 1
        if trial.status in self._reasons:
            self._reasons[trial.status][group(trial.reason)] += 1
        if trial.status != FAILED:  # it is tried again, and counted then
            is_cut_short = trial.status != COMPLETE
            self._survival.add(length=trial.epochs, epochs=trial.epoch, is_cut_short=is_cut_short)
        said = [Message(elapsed=elapsed, trial=trial)]
        if trial.status == COMPLETE:
            self._top = sorted([*self._top, trial], key=lambda each: each.rank, reverse=True)[:_TOP]
            if self._top[0] is trial and not trial.shortfall:
                said.append(Message(elapsed=elapsed, trial=trial, is_best=True))
        self._messages.extend(said)
        return said

    def note(self, text: str, *, elapsed: float) -> None:
        """Take note of what somebody else has to say."""
        self._messages.append(Message(elapsed=elapsed, text=text))

    def forget_messages(self) -> None:
        """Begin anew with what is said: all of it is known."""
        self._messages.clear()

    def take(
        self, running: Iterable[TrialNow], *, elapsed: float, n_paused: int = 0, seconds_at_most: float = math.inf
    ) -> Snapshot:
        """Take a snapshot.

        Args:
            running: The trials under way.
            elapsed: Seconds that the study has run.
            n_paused: Trials that were interrupted and wait.
            seconds_at_most: Until some other limit ends the search.
        """
        under_way = tuple(running)
        left, is_timed = self._left(under_way, elapsed, seconds_at_most)
        counts = {status: self._counts[status] for status in (COMPLETE, STOPPED, INFEASIBLE, FAILED)}
        return Snapshot(
            about=self.about,
            elapsed=elapsed,
            left=left,
            is_timed=is_timed,
            counts=counts | {RUNNING: len(under_way), "paused": n_paused},
            reasons={status: dict(reasons.most_common()) for status, reasons in self._reasons.items()},
            top=tuple(self._top),
            running=under_way,
            messages=tuple(self._messages),
        )

    def _left(self, running: Sequence[TrialNow], elapsed: float, seconds_at_most: float) -> tuple[float | None, bool]:
        """Expect what is left in seconds, None if that is not known yet, and say whether time ends it, not trials."""
        limits = self.about.search
        n_judged = sum(self._counts[status] for status in JUDGED)
        to_start = max(limits.trials - n_judged - len(running), 0)
        courses = [(trial.epochs, trial.epoch) for trial in running]
        by_trials = self._seconds_left(courses, to_start, elapsed)
        by_time = min(seconds_at_most, limits.time - elapsed if limits.time is not None else math.inf)
        if n_judged >= limits.trials and not running:
            return 0.0, False
        if math.isnan(by_trials) or by_time < by_trials:
            return (None, False) if math.isinf(by_time) else (max(by_time, 0.0), True)
        return max(by_trials, 0.0), False

    def _seconds_left(self, courses: list[tuple[int, int]], to_start: int, elapsed: float) -> float:
        """Expect an end; between two reports the clock runs down."""
        if (courses, to_start) != self._forecast[0]:
            left = seconds_left(self._survival, self._pace, courses, to_start=to_start)
            self._forecast = (courses, to_start), elapsed + left
        return self._forecast[1] - elapsed


def group(reason: str) -> str:
    """Shorten a reason to what it has in common with others.

    Example:
        >>> group("loss became nan in epoch 3 (step 120)")
        'diverged'
    """
    for words, name in _GROUPS.items():
        if words in reason:
            return name
    return re.sub(r"\d[\d.,]*", "N", reason.split("\n")[0])[:60] or "no reason given"


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """Write a snapshot as plain JSON values; what is not known is None."""
    about, best = snapshot.about, snapshot.best
    return {
        "study": about.name,
        "marks": list(about.marks),
        "objective": about.metric,
        "trials_asked": about.search.trials,
        "trials_judged": snapshot.n_judged,
        "time_limit_s": about.search.time,
        "elapsed_s": round(snapshot.elapsed, 3),
        "left_s": None if snapshot.left is None else round(snapshot.left, 3),
        "counts": dict(snapshot.counts),
        "reasons": {status: dict(reasons) for status, reasons in snapshot.reasons.items()},
        "best": _trial_to_json(best, about.classes) if best else None,
        "top": [_trial_to_json(trial, about.classes) for trial in snapshot.top],
        "running": [_trial_to_json(trial, about.classes) for trial in snapshot.running],
    }


def _trial_to_json(trial: TrialNow, classes: Sequence[str]) -> dict[str, Any]:
    known = {"trial": trial.number, "status": trial.status, "epoch": trial.epoch, "epochs": trial.epochs}
    known |= {"place": trial.place, "config": dict(trial.config), "samples": trial.samples}
    numbers = {"objective": trial.value, "shortfall": trial.shortfall, "val_macro_f1": trial.macro_f1}
    numbers |= {"samples_per_second": trial.speed}
    known |= {key: _known(value) for key, value in numbers.items()}
    worst = None if trial.worst is None else classes[trial.worst]
    f1 = {name: _known(value) for name, value in zip(classes, trial.f1, strict=False)}
    return known | {"worst_class": worst, "val_f1": f1}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
