"""The study: asks for trials, records what they report, judges them, and knows the best.

The journal is the truth. Whatever drives the study (Ray, a simulator, a test) calls `ask`, `report`, `reject` and
`fail`; opening the same folder again is the resume, and a larger number of trials or more time is the extension.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import TracebackType

import numpy as np

from search.errors import ConfigError, StudyAborted
from search.space.config import StudyConfig
from search.space.floors import find_shortfalls
from search.space.space import Config, epochs_of, model_of
from search.study.agenda import Agenda
from search.study.journal import Journal, describe_end, find_violations, recover
from search.study.pasha import make_judge
from search.study.places import remove_place
from search.study.proposer import Proposer
from search.study.records import StudyFolder, append_line, lock_folder, write_atomically
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, STOPPED, TrialRecord, to_row
from search.study.warm_start import read_warm_start
from search.trial.params import TrialParams, from_flat
from search.trial.training import EpochReport

JUDGED = (COMPLETE, STOPPED, INFEASIBLE)


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
    config: Config
    params: TrialParams
    expected_memory: int
    epochs_done: int


class Study:
    """One study in its folder, held by this process until `close`.

    Args:
        folder: Where it lives; made if missing.
        config: What is searched. For a folder that exists, it must be the one that it was made with, but for what
            `check_same_study` lets differ.
        classes: Names of the K classes.
        clock: Tells the time in seconds, from anywhere; a simulator has its own.
        check: Reads a flat configuration as `from_flat` does; the simulation of another task's space has its own.
        only_first: Whether nothing is tried but the `first` points.
        forget: Removes a checkpoint that is no longer needed, by its place.

    Attributes:
        plan: Says how many bytes a configuration will hold on its device; None until somebody knows that device.
        gpus_of: Says how many GPUs the trials of a model have; counted against `search.gpu_hours`.
        failure: Why the search cannot go on now; None if it can.
        is_exhausted: Whether every configuration that the space allows has been tried.

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
        check: Callable[..., TrialParams] = from_flat,
        only_first: bool = False,
        forget: Callable[[str], None] = remove_place,
    ) -> None:
        self.folder = folder
        self.config = config
        self.classes = classes
        self.plan: Callable[[TrialParams], int] | None = None
        self.gpus_of: Callable[[str], float] = lambda model: 0.0
        self.failure: Exception | None = None
        self.is_exhausted = False
        self._clock = clock
        self._check = check
        self._only_first = only_first
        self._forget = forget
        self._opened = clock()
        self._asha = make_judge(config.search.stop.asha) if config.search.stop else None
        self._live: set[int] = set()
        self._leader: int | None = None
        self._failures_in_a_row = 0
        self._epochs_before_failure = 0  # the most that any of those had reported
        self._lock = lock_folder(folder.path)
        try:
            self._journal = Journal(folder)
            self.records, self._elapsed_before = recover(self._journal, folder)
            self._remember_records()
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
        """Return the next trial to run: an interrupted one, else a new one; None if none may start now."""
        if self.is_over or self.count(*JUDGED) + len(self._live) >= self.config.search.trials:
            return None
        is_late = self.is_out_of_time
        if is_late and self._live:
            return None
        interrupted = self._agenda.resume(self._left if is_late else None)
        record = self._start_trial() if interrupted is None else self.records[interrupted]
        if record is None:
            return None
        self._live.add(record.number)
        params = self._check(record.config, where=f"trial {record.number}", image_size=self.config.data.image_size)
        if self.plan and not record.expected_memory:
            record.expected_memory = self.plan(params)
        return Assignment(
            number=record.number,
            config=record.config,
            params=params,
            expected_memory=record.expected_memory,
            epochs_done=len(record.reports),
        )

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
        too_long = self._exceeds_trial_time(record)
        if too_long:
            self.reject(number, too_long)
            return Decision.FINISHED
        if (self.is_over or self.is_out_of_time) and not self._must_finish(number):
            self._pause(number)
            return Decision.PAUSED
        return Decision.CONTINUE

    def reject(self, number: int, reason: str) -> None:
        """Record that a configuration does not work: it diverges, does not fit into memory, or takes too long."""
        record = self.records[number]
        if self._asha:
            self._asha.remember_failure(number, epoch=len(record.values) + 1, length=record.epochs)
        self._end(number, INFEASIBLE, reason)

    def fail(self, number: int, reason: str, *, details: str = "") -> None:
        """Record that a trial broke for another reason; it is tried once more under a new number.

        After `search.failures` in a row the study is over: the fault is then not the configuration's.

        Args:
            number: Of the trial.
            reason: One line.
            details: A traceback, kept in the study's folder.
        """
        if number not in self._live:
            return  # told already, by the report that came before the process died
        self._failures_in_a_row += 1
        self._epochs_before_failure = max(self._epochs_before_failure, len(self.records[number].reports))
        if self._failures_in_a_row >= self.config.search.failures:
            what = f"{self._failures_in_a_row} trials failed in a row; the last: {reason}"
            self.failure = self.failure or StudyAborted(what)
        if details:
            write_atomically(self.folder.failure(number), details)
        if self._asha:
            self._asha.forget(number)  # or its retry would be judged by itself
        self._end(number, FAILED, reason)

    def lose(self, number: int, reason: str, *, details: str = "") -> bool:
        """Take note that a trial's process has died, or its machine: it goes on elsewhere from its checkpoint.

        A machine that goes takes several trials with it, which says nothing of them. A trial that loses its process a
        second time has failed: it may be what kills it.

        Returns:
            Whether it goes on.
        """
        if number not in self._live:
            return False
        record = self.records[number]
        if record.was_lost or "retry_of" in record.origin:
            self.fail(number, reason, details=details)
            return False
        record.was_lost = True
        self._pause(number)
        return True

    def halt(self, number: int, reason: str) -> None:
        """Pause a trial, and the search with it, because the machine lacks something that the user can provide."""
        if number in self._live:
            self._pause(number)
        self.give_up(reason)

    def give_up(self, reason: str) -> None:
        """End the search here; what is on the disk by now can be gone on from."""
        self.failure = self.failure or ConfigError(f"{reason}; mend that, and the same command goes on from here")

    def learn_from_earlier(self) -> None:
        """Take on what earlier studies have handed over in the folder's warm start, if anything."""
        points, trials = read_warm_start(self.folder)
        self._agenda.add(points)
        for record, missing in trials:
            self._proposer.learn(record, find_violations(record, missing))

    # -- what anybody may know ----------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds that the study has run, over all attempts."""
        return self._elapsed_before + self._clock() - self._opened

    @property
    def gpu_hours(self) -> float:
        """Hours that trials have trained and judged, times the GPUs of each."""
        return sum(seconds * self.gpus_of(model) for model, seconds in self._busy.items()) / 3600

    @property
    def gpus_in_use(self) -> float:
        """GPUs of the trials that a driver holds now, together."""
        return sum(self.gpus_of(model_of(record.config)) for record in self.running)

    @property
    def is_judged(self) -> bool:
        """Whether as many trials are judged as were asked for."""
        return self.count(*JUDGED) >= self.config.search.trials

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time or the GPU hours are used up."""
        limits = self.config.search
        return (limits.time is not None and self.elapsed >= limits.time) or (
            limits.gpu_hours is not None and self.gpu_hours >= limits.gpu_hours
        )

    @property
    def is_over(self) -> bool:
        """Whether no further trial starts; running ones may still be on their way to a pause or an end.

        When the time is up without any result, the interrupted trials go on, one at a time, until one gets to its end.
        """
        is_late = self.is_out_of_time and bool(self.count(COMPLETE) or not (self._live or self._agenda.paused))
        return self.is_judged or is_late or self.is_exhausted or self.failure is not None

    @property
    def running(self) -> list[TrialRecord]:
        """The trials that a driver holds now."""
        return [self.records[number] for number in sorted(self._live)]

    @property
    def paused(self) -> list[TrialRecord]:
        """The interrupted trials that nobody has taken on yet."""
        return [self.records[number] for number in self._agenda.paused]

    @property
    def best(self) -> TrialRecord | None:
        """The best of those that ran to their end and meet all floors; None if there are none."""
        leader = self.leader
        return leader if leader is not None and not leader.shortfalls[-1] else None

    @property
    def leader(self) -> TrialRecord | None:
        """The best of those that ran to their end, or the one nearest to the floors; None if there are none."""
        return None if self._leader is None else self.records[self._leader]

    def count(self, *statuses: str) -> int:
        """Count the trials of any of these statuses."""
        return sum(self._counts[status] for status in statuses)

    # -- starting a trial ---------------------------------------------------------------------------------------------

    def _start_trial(self) -> TrialRecord | None:
        """Record a new trial; None if all is tried."""
        found = self._agenda.propose()
        if found is None:
            self.is_exhausted = not self._live  # those under way may still fail, and be tried again
            return None
        proposal, origin = found
        attributes = {"config": dict(proposal.config), **origin}
        number = self._journal.add(proposal.params, proposal.distributions, attributes)
        record = TrialRecord(number=number, config=proposal.config, epochs=epochs_of(proposal.config), origin=origin)
        self.records[number] = record
        self._counts[RUNNING] += 1
        self._proposer.begin(record)
        return record

    # -- what a report leads to ---------------------------------------------------------------------------------------

    def _record(self, record: TrialRecord, report: EpochReport) -> None:
        assert report.val is not None
        assert report.epoch == len(record.reports) + 1
        record.reports.append(report)
        scores = [known.val.scores for known in record.reports if known.val]
        record.values.append(self.config.objective.value(scores, self.classes))
        shortfalls = self._shortfalls(record)
        record.shortfalls.append(sum(max(0.0, shortfall) for shortfall in shortfalls.values()))
        self._busy[model_of(record.config)] += report.train_seconds + report.val_seconds
        if report.epoch == record.epochs:
            self._set_status(record, COMPLETE)
        elif self._asha and self._asha.is_losing(
            record.number, epoch=report.epoch, length=record.epochs, standing=record.standing
        ):
            self._set_status(record, STOPPED, f"not among the best after epoch {report.epoch}")
        append_line(self.folder.trials, to_row(record, classes=self.classes, elapsed=self.elapsed))
        self._journal.report(record.number, epoch=report.epoch, value=record.value)

    def _shortfalls(self, record: TrialRecord) -> dict[str, float]:
        """By how much the last report misses each floor; nothing before the first."""
        return find_shortfalls(self.config.floors, record.scores, self.classes)

    def _exceeds_trial_time(self, record: TrialRecord) -> str:
        """Say that a trial takes longer than it may, as soon as that shows; the first epoch also warms up."""
        limit, reports = self.config.search.trial_time, record.reports
        if limit is None:
            return ""
        later = [report.train_seconds + report.val_seconds for report in reports[1:]]
        left = (record.epochs - len(reports)) * sum(later) / len(later) if later else 0.0
        total = record.seconds + left
        return f"would train {total:.0f} s, longer than search.trial_time ({limit:g} s)" if total > limit else ""

    def _must_finish(self, number: int) -> bool:
        """A study whose time is up still ends with a result: the trial nearest to its end goes on if none got there."""
        if self.failure or self.count(COMPLETE):
            return False
        return number == min(self._live, key=self._left)

    def _left(self, number: int) -> tuple[int, int]:
        """Order trials by what they still have to train."""
        record = self.records[number]
        return record.epochs - len(record.reports), number

    def _pause(self, number: int) -> None:
        self._live.remove(number)
        self._agenda.pause(number)

    def _end(self, number: int, status: str, reason: str) -> None:
        record = self.records[number]
        self._set_status(record, status, reason)
        append_line(self.folder.trials, to_row(record, classes=self.classes, elapsed=self.elapsed))
        self._tell(record)

    def _tell(self, record: TrialRecord) -> None:
        """Tell the journal and the sampler how a trial ended, and tidy its checkpoint away."""
        self._live.discard(record.number)
        shortfalls = self._shortfalls(record)
        violations = find_violations(record, shortfalls)
        self._journal.end(record, attributes=describe_end(record, self.classes, shortfalls), violations=violations)
        self._proposer.end(record, violations)
        if record.status in (COMPLETE, STOPPED):
            self._failures_in_a_row = self._epochs_before_failure = 0
        if record.status == FAILED:
            self._agenda.retry(record)
        former = self._leader
        self._consider(record)
        for number in {former, record.number} - {None, self._leader}:
            assert number is not None
            self._forget(self.folder.place(self.folder.checkpoint(number)))

    def _set_status(self, record: TrialRecord, status: str, reason: str = "") -> None:
        self._counts[record.status] -= 1
        self._counts[status] += 1
        record.status, record.reason = status, reason

    def _consider(self, record: TrialRecord) -> None:
        """Take a trial as the leader if it ran to its end and stands higher."""
        leader = self.leader
        rank = (record.standing, -record.number)
        if record.status == COMPLETE and (leader is None or rank > (leader.standing, -leader.number)):
            self._leader = record.number

    # -- going on -----------------------------------------------------------------------------------------------------

    def _remember_records(self) -> None:
        """Bring everything that is derived from the records to where they stand."""
        records = self.records.values()
        self._counts = Counter(record.status for record in records)
        self._busy: dict[str, float] = defaultdict(float)
        for record in records:
            self._busy[model_of(record.config)] += record.seconds
        # A sampler that starts again from the same seed would propose its first configurations a second time.
        seed = np.random.SeedSequence([self.config.search.seed, len(records)])
        self._proposer = Proposer(
            self.config.space,
            self.config.search.sampler,
            seed=seed,
            forbids=self.config.forbids,
            rungs=self._asha.rungs if self._asha else lambda length: [],
            only_points=self._only_first,
        )
        untold = self._journal.unfinished()
        first = enumerate(self.config.first)
        self._agenda = Agenda(self._proposer, records, first=first, untold=untold)
        self.learn_from_earlier()
        for record in records:
            self._proposer.begin(record)
            self._rebuild_rungs(record)
            if record.status != RUNNING and record.number not in untold:
                self._proposer.end(record, find_violations(record, self._shortfalls(record)))
                self._consider(record)
        for number in untold:
            if self.records[number].status != RUNNING:  # it ended just before a crash: only its last row is there
                self._tell(self.records[number])

    def _rebuild_rungs(self, record: TrialRecord) -> None:
        if self._asha and record.status != FAILED:
            for epoch, (value, shortfall) in enumerate(zip(record.values, record.shortfalls, strict=True), start=1):
                self._asha.remember(record.number, epoch=epoch, length=record.epochs, standing=(-shortfall, value))
            if record.status == INFEASIBLE:
                self._asha.remember_failure(record.number, epoch=len(record.values) + 1, length=record.epochs)
