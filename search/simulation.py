"""A simulator: a study searches recorded or made-up trainings in simulated time, without Ray and without training."""

import heapq
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from search.errors import TrialFailed
from search.space.config import StudyConfig
from search.study.records import StudyFolder
from search.study.rows import INFEASIBLE, TrialRecord
from search.study.study import Assignment, Decision, Study
from search.testing import FakeClock, fake_judgement, report_judgement
from search.trial.params import TrialParams, from_flat
from search.trial.training import EpochReport

CLASSES = ("one", "other")  # of `report_score`
_WAFERS_PER_CLASS = 10**12

# Simulated seconds that an epoch took, and what came of it.
Step = tuple[float, EpochReport | TrialFailed]


class Recording(Protocol):
    """Trainings that have been recorded, or are made up by a function."""

    def run(self, assignment: Assignment) -> Iterator[Step]:
        """Replay one trial, epoch by epoch, from the one after `assignment.epochs_done`.

        Yields:
            The seconds and the report of each epoch; a TrialFailed in place of a report is the last.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What a simulated search came to.

    Attributes:
        records: The trials in the order of asking; those that the budget cut off are "running".
        shipped: The trial whose configuration is handed over in the end; None if none may be.
        n_reports: Epochs that were run, each failed one included: a failure takes the slot as well.
        seconds: Simulated time from the first trial's start to the last report.
        course: Reports so far, and number of the trial that would have been shipped then, at each change.
    """

    records: tuple[TrialRecord, ...]
    shipped: TrialRecord | None
    n_reports: int
    seconds: float
    course: tuple[tuple[int, int], ...]

    @property
    def n_wasted(self) -> int:
        """Trials that turned out not to work."""
        return sum(record.status == INFEASIBLE for record in self.records)


class Driver(Protocol):
    """What the simulation of a search needs: our study, or another system behind the same calls."""

    def ask(self) -> Assignment | None:
        """Return the next trial; None if none may start now."""

    def report(self, number: int, report: EpochReport) -> bool:
        """Take one report; return whether the trial goes on."""

    def reject(self, number: int, failure: TrialFailed) -> None:
        """Hear that a trial does not work."""

    @property
    def winner(self) -> TrialRecord | None:
        """The trial that would be handed over now."""

    @property
    def trials(self) -> list[TrialRecord]:
        """All trials in the order of asking."""


@dataclass(frozen=True, slots=True)
class _StudyDriver:
    study: Study

    def ask(self) -> Assignment | None:
        return self.study.ask()

    def report(self, number: int, report: EpochReport) -> bool:
        return self.study.report(number, report) is Decision.CONTINUE

    def reject(self, number: int, failure: TrialFailed) -> None:
        self.study.reject(number, str(failure))

    @property
    def winner(self) -> TrialRecord | None:
        return self.study.best

    @property
    def trials(self) -> list[TrialRecord]:
        return list(self.study.records.values())


def simulate(
    config: StudyConfig,
    recording: Recording,
    *,
    classes: tuple[str, ...] = CLASSES,
    workers: int = 1,
    max_reports: int | None = None,
    folder: StudyFolder | None = None,
    check: Callable[..., TrialParams] = from_flat,
) -> Simulation:
    """Let a real study search a recording.

    Args:
        config: What is searched, and how.
        recording: Plays the trials.
        classes: Names of the classes that are reported on.
        workers: Trials side by side.
        max_reports: Leave after so many, as a killed process does; None: when the study is over.
        folder: Where the study lives, to be looked at or opened again; None: a temporary one.
        check: See `Study`; `accept_any` for a space of other parameters than ours.
    """
    clock = FakeClock()
    with tempfile.TemporaryDirectory(dir=_fast_disk(), ignore_cleanup_errors=True) as temporary:
        where = folder or StudyFolder(Path(temporary) / "study")
        with Study(where, config, classes=classes, clock=clock, check=check) as study:
            return replay(_StudyDriver(study), recording, clock=clock, workers=workers, max_reports=max_reports)


def replay(
    driver: Driver, recording: Recording, *, clock: FakeClock, workers: int, max_reports: int | None = None
) -> Simulation:
    """Run a search in simulated time: results arrive as their epochs end, at the same moment in the workers' order.

    Args:
        driver: The search.
        recording: Plays the trials.
        clock: Is set to each result's time before the search hears of it.
        workers: Trials side by side.
        max_reports: Leave after so many.
    """
    start = clock.now
    idle = list(range(workers))
    arriving: list[tuple[float, int]] = []  # a heap of time and worker
    at_work: dict[int, tuple[int, Iterator[Step], EpochReport | TrialFailed]] = {}
    course: list[tuple[int, int]] = []
    n_reports = 0

    def go_on(worker: int, number: int, steps: Iterator[Step]) -> None:
        seconds, outcome = next(steps)
        at_work[worker] = number, steps, outcome
        heapq.heappush(arriving, (clock.now + seconds, worker))

    while n_reports != max_reports:
        while idle and (assignment := driver.ask()):
            go_on(idle.pop(0), assignment.number, recording.run(assignment))
        if not arriving:
            break
        clock.now, worker = heapq.heappop(arriving)
        number, steps, outcome = at_work.pop(worker)
        n_reports += 1
        if isinstance(outcome, TrialFailed):
            driver.reject(number, outcome)
            idle = sorted([*idle, worker])
        elif driver.report(number, outcome):
            go_on(worker, number, steps)
        else:
            idle = sorted([*idle, worker])
        winner = driver.winner
        if winner is not None and (not course or course[-1][1] != winner.number):
            course.append((n_reports, winner.number))
    return Simulation(
        records=tuple(driver.trials),
        shipped=driver.winner,
        n_reports=n_reports,
        seconds=clock.now - start,
        course=tuple(course),
    )


def report_score(epoch: int, score: float, *, seconds: float) -> EpochReport:
    """Make up the report of one epoch on two classes, all of whose scores are `score`.

    Args:
        epoch: From 1.
        score: In [0, 1]; kept to 12 digits.
        seconds: That the epoch took.
    """
    val = fake_judgement(score, n_classes=len(CLASSES), wafers_per_class=_WAFERS_PER_CLASS)
    return report_judgement(epoch, val, train_seconds=seconds, val_seconds=0.0)


def accept_any(flat: Any, *, where: str, image_size: int) -> TrialParams:
    """Stand in for `from_flat` where the parameters are not those of our trials."""
    return TrialParams()


def _fast_disk() -> str | None:
    """A folder in memory if there is one: a study syncs every report to the disk."""
    shm = Path("/dev/shm")
    return str(shm) if shm.is_dir() else None
