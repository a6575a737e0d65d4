"""The study: asks for trials, records what they report, judges them, and knows the best.

The Optuna journal is the truth. Whatever drives the study (Ray, a simulator, a test) calls `ask`, `report` and `fail`;
opening the same folder again is the resume, and a larger number of trials or more time is the extension.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import TracebackType

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.space.config import StudyConfig
from search.space.space import epochs_of
from search.study.asha import Asha
from search.study.journal import open_journal, recover
from search.study.records import StudyFolder, append_line, lock_folder, write_atomically
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, STOPPED, TrialRecord, to_row
from search.trial.params import TrialParams, find_contradiction, from_flat
from search.trial.training import EpochReport
from search.trial.vocabulary import Scalar

JUDGED = (COMPLETE, STOPPED, INFEASIBLE)
_FAILURES_IN_A_ROW = 3
# Far above any shortfall of an F1, so that a sampler leaves the region rather than its edge.
_VIOLATION = 10.0


class Decision(Enum):
    """What becomes of a trial after a report."""

    CONTINUE = "continue"
    FINISHED = "finished"  # ran to its end, or was stopped: it is judged
    PAUSED = "paused"  # the study's time is up; more time takes it on from its checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A trial to be run.

    Attributes:
        number: Of the trial.
        config: Its flat configuration.
        params: The same, checked.
        expected_memory: What it will hold on its device, in bytes; 0 if nobody plans.
        epochs_done: Epochs reported by an earlier attempt; its checkpoint may hold fewer, or be missing.
    """

    number: int
    config: Mapping[str, Scalar]
    params: TrialParams
    expected_memory: int
    epochs_done: int


class Study:
    """One study in its folder, held by this process until `close`.

    Args:
        folder: Where it lives; made if missing.
        config: What is searched. For a folder that exists, it must be the one that it was made with, but for
            `search.trials`, `search.time` and `resources`.
        classes: Names of the K classes.
        clock: Tells the time in seconds, from anywhere; a simulator has its own.

    Attributes:
        plan: Says how many bytes a configuration will hold on its device; None until somebody knows that device.

    Raises:
        ConfigError: If the folder cannot be written, another process works on it, or its files are damaged.
    """

    def __init__(
        self,
        folder: StudyFolder,
        config: StudyConfig,
        *,
        classes: tuple[str, ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.config = config
        self.classes = classes
        self.plan: Callable[[TrialParams], int] | None = None
        self.abort_reason = ""
        self._clock = clock
        self._opened = clock()
        self._asha = Asha(config.search.stop.asha) if config.search.stop else None
        self._live: dict[int, optuna.trial.Trial] = {}
        self._failures_in_a_row = 0
        self._epochs_before_failure = 0  # the most that any of those had reported
        self._lock = lock_folder(folder.path)
        try:
            self._optuna = open_journal(folder, config)
            self.records, self._elapsed_before = recover(self._optuna, folder)
            self._tell_ended()
            self._to_resume = deque(trial.number for trial in self._unfinished())
            self._rebuild_asha()
            self._queue_first_points()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Study":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others work on the study; everything is on the disk already."""
        self._lock.close()

    # -- what a driver calls ------------------------------------------------------------------------------------------

    def ask(self) -> Assignment | None:
        """Return the next trial to run: an interrupted one, else a new one; None if none may start now.

        What the sampler proposes against a rule is rejected on the way, so that it learns from that too.
        """
        while not self.is_over and self.count(*JUDGED) + len(self._live) < self.config.search.trials:
            trial = self._reopen(self._to_resume.popleft()) if self._to_resume else self._optuna.ask()
            config = self.config.space.sample(trial)
            trial.set_user_attr("config", config)
            record = TrialRecord(number=trial.number, config=config, epochs=epochs_of(config))
            record = self.records.setdefault(trial.number, record)
            self._live[trial.number] = trial
            contradiction = find_contradiction(config)
            if contradiction is None:
                return self._assign(record)
            self.reject(trial.number, contradiction)
        return None

    def report(self, number: int, report: EpochReport) -> Decision:
        """Record one nominal epoch of a running trial and judge it.

        A resumed trial may report an epoch that is recorded already; it is neither recorded nor judged twice.
        """
        record = self.records[number]
        if report.epoch > self._epochs_before_failure:  # or trials that break in their second epoch go on for ever
            self._failures_in_a_row = self._epochs_before_failure = 0
        if report.epoch > len(record.reports):
            self._record(record, report)
        if record.status != RUNNING:
            self._tell(record)
            return Decision.FINISHED
        if self.is_over and not self._must_finish(number):
            del self._live[number]
            self._to_resume.append(number)
            return Decision.PAUSED
        return Decision.CONTINUE

    def reject(self, number: int, reason: str) -> None:
        """Record that a configuration does not work: it diverges, or does not fit into memory."""
        self._end(number, INFEASIBLE, reason)

    def fail(self, number: int, reason: str, *, details: str = "") -> None:
        """Record that a trial broke for another reason; it is tried once more under a new number.

        After three failures in a row the study is over: the fault is then not the configuration's.

        Args:
            number: Of the trial.
            reason: One line.
            details: A traceback, kept in the study's folder.
        """
        if number not in self._live:
            return  # told already, by the report that came before the process died
        self._failures_in_a_row += 1
        self._epochs_before_failure = max(self._epochs_before_failure, len(self.records[number].reports))
        if self._failures_in_a_row >= _FAILURES_IN_A_ROW:
            self.abort_reason = f"{_FAILURES_IN_A_ROW} trials failed in a row; the last: {reason}"
        is_retry = "retry_of" in self._live[number].user_attrs
        params = dict(self._live[number].params)
        if details:
            write_atomically(self.folder.failure(number), details)
        self._end(number, FAILED, reason)
        if not is_retry:
            self._optuna.enqueue_trial(params, user_attrs={"retry_of": number})

    def _assign(self, record: TrialRecord) -> Assignment:
        where, image_size = f"trial {record.number}", self.config.data.image_size
        params = from_flat(record.config, where=where, image_size=image_size)
        if self.plan and not record.expected_memory:
            record.expected_memory = self.plan(params)
        return Assignment(
            number=record.number,
            config=record.config,
            params=params,
            expected_memory=record.expected_memory,
            epochs_done=len(record.reports),
        )

    # -- what anybody may know ----------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds that the study has run, over all attempts."""
        return self._elapsed_before + self._clock() - self._opened

    @property
    def is_judged(self) -> bool:
        """Whether as many trials are judged as were asked for."""
        return self.count(*JUDGED) >= self.config.search.trials

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time is used up."""
        return self.config.search.time is not None and self.elapsed >= self.config.search.time

    @property
    def is_over(self) -> bool:
        """Whether no further trial starts; running ones may still be on their way to a pause or an end."""
        return self.is_judged or self.is_out_of_time or bool(self.abort_reason)

    @property
    def running(self) -> list[TrialRecord]:
        """The trials that a driver holds now."""
        return [self.records[number] for number in list(self._live)]

    @property
    def paused(self) -> list[TrialRecord]:
        """The interrupted trials that nobody has taken on yet."""
        return [self.records[number] for number in list(self._to_resume) if number in self.records]

    @property
    def best(self) -> TrialRecord | None:
        """The best of those that ran to their end; None if there are none."""
        complete = [record for record in list(self.records.values()) if record.status == COMPLETE]
        return max(complete, key=lambda record: record.value, default=None)

    def count(self, *statuses: str) -> int:
        """Count the trials of any of these statuses."""
        counts = Counter(record.status for record in list(self.records.values()))
        return sum(counts[status] for status in statuses)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _record(self, record: TrialRecord, report: EpochReport) -> None:
        assert report.val is not None
        assert report.epoch == len(record.reports) + 1
        value = self.config.objective.value(report.val.scores, self.classes)
        record.reports.append(report)
        record.values.append(value)
        if report.epoch == record.epochs:
            record.status = COMPLETE
        elif self._asha and self._asha.is_losing(record.number, epoch=report.epoch, length=record.epochs, value=value):
            record.status, record.reason = STOPPED, f"not among the best after epoch {report.epoch}"
        append_line(self.folder.trials, to_row(record, classes=self.classes, elapsed=self.elapsed))
        self._live[record.number].report(value, report.epoch)

    def _must_finish(self, number: int) -> bool:
        """A study whose time is up still ends with a result: the trial nearest to its end goes on if none got there."""
        if self.abort_reason or self.count(COMPLETE):
            return False
        left = {n: self.records[n].epochs - len(self.records[n].reports) for n in self._live}
        return number == min(left, key=lambda n: (left[n], n))

    def _end(self, number: int, status: str, reason: str) -> None:
        record = self.records[number]
        record.status, record.reason = status, reason
        append_line(self.folder.trials, to_row(record, classes=self.classes, elapsed=self.elapsed))
        self._tell(record)

    def _tell(self, record: TrialRecord) -> None:
        """Tell Optuna how a trial ended, and tidy its checkpoint away."""
        if record.status in (COMPLETE, STOPPED):
            self._failures_in_a_row = self._epochs_before_failure = 0
        trial = self._live.pop(record.number)
        trial.set_user_attr("status", record.status)
        if record.reason:
            trial.set_user_attr("reason", record.reason)
        if record.scores:
            f1 = {name: round(value, 4) for name, value in zip(self.classes, record.scores.f1, strict=True)}
            trial.set_user_attr("val_f1", {name: value for name, value in f1.items() if not math.isnan(value)})
        if record.status == INFEASIBLE and not trial.constraints:  # a crash may have come just after this
            trial.set_constraint("works", _VIOLATION)
        states = {COMPLETE: TrialState.COMPLETE, FAILED: TrialState.FAIL}
        value = record.value if record.status == COMPLETE else None
        self._optuna.tell(trial.number, value, state=states.get(record.status, TrialState.PRUNED))
        best = self.best
        for number in {record.number} | {n for n, r in self.records.items() if r.status == COMPLETE}:
            if best is None or number != best.number:
                self.folder.checkpoint(number).unlink(missing_ok=True)

    def _reopen(self, number: int) -> optuna.trial.Trial:
        return optuna.trial.Trial(self._optuna, self._optuna.trials[number]._trial_id)

    def _tell_ended(self) -> None:
        """Tell Optuna of trials that ended just before a crash: their last row is there, the telling is not."""
        for trial in self._unfinished():
            record = self.records.get(trial.number)
            if record and record.status != RUNNING:
                self._live[trial.number] = self._reopen(trial.number)
                self._tell(record)

    def _unfinished(self) -> list[FrozenTrial]:
        return self._optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _rebuild_asha(self) -> None:
        for record in self.records.values():
            if self._asha and record.status not in (INFEASIBLE, FAILED):
                for epoch, value in enumerate(record.values, start=1):
                    self._asha.remember(record.number, epoch=epoch, length=record.epochs, value=value)

    def _queue_first_points(self) -> None:
        queued = {trial.user_attrs.get("first") for trial in self._optuna.get_trials(deepcopy=False)}
        for i, point in enumerate(self.config.first):
            if i not in queued:
                self._optuna.enqueue_trial(dict(point), user_attrs={"first": i})
