"""Fakes for tests and simulations: learning curves without training, a clock, and a driver without Ray.

They ship with the package so that worker processes can import them.
"""

import math
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from search.errors import TrialFailed
from search.study.study import Assignment, Decision, Study
from search.trial.evaluation import Judgement
from search.trial.metrics import score_confusion
from search.trial.training import EpochReport

_WAFERS_PER_CLASS = 100_000

QualityOf = Callable[[Assignment, int], float]


@dataclass(slots=True)
class FakeClock:
    """A clock for `Study` that stands still until `now` is changed; in seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def fake_score(epoch: int, *, quality: float) -> float:
    """Return every score of `fake_report`: it rises with the epochs, from a third of `quality` towards all of it."""
    return round(quality * epoch / (epoch + 2) * _WAFERS_PER_CLASS) / _WAFERS_PER_CLASS


def fake_report(epoch: int, *, quality: float, n_classes: int) -> EpochReport:
    """Make up the report of one epoch, as consistent as a real one.

    Every class has equally many wafers and is confused with the next one only, so that macro-F1, balanced macro-F1,
    worst-class F1 and accuracy are all `fake_score`.

    Args:
        epoch: From 1.
        quality: What the training would reach in the end, in [0, 1].
        n_classes: K, at least 2.
    """
    val = fake_judgement(fake_score(epoch, quality=quality), n_classes=n_classes, wafers_per_class=_WAFERS_PER_CLASS)
    return report_judgement(epoch, val, train_seconds=1.0, val_seconds=0.5)


def fake_judgement(score: float, *, n_classes: int, wafers_per_class: int) -> Judgement:
    """Make up a judgement, all of whose scores are `score`, as exactly as the wafers allow."""
    n_right = round(score * wafers_per_class)
    same = np.eye(n_classes, dtype=np.int64)
    confusion = n_right * same + (wafers_per_class - n_right) * np.roll(same, 1, axis=1)
    return Judgement(
        loss=1 - score,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        scores=score_confusion(confusion),
    )


def report_judgement(epoch: int, val: Judgement, *, train_seconds: float, val_seconds: float) -> EpochReport:
    """Make up the report of one epoch around what a network was judged to do; training looks as good."""
    return EpochReport(
        epoch=epoch,
        samples=1000 * epoch,
        lr=1e-3,
        precision="float32",
        n_parameters=1000,
        train_loss=val.loss,
        train_accuracy=val.scores.accuracy,
        val=val,
        train_seconds=train_seconds,
        val_seconds=val_seconds,
        peak_memory=2**28,
    )


def quality_by_lr(assignment: Assignment, epoch: int) -> float:
    """Return 1 at a learning rate of 0.01, a third less with each power of ten away from it: for `drive`."""
    return max(0.0, 1 - abs(math.log10(float(assignment.config["lr"])) + 2) / 3)


def drive(
    study: Study, *, quality_of: QualityOf, slots: int = 2, max_steps: int | None = None, lost_epochs: int = 0
) -> int:
    """Run a study's trials as a real driver would, one epoch of each slot's trial in turn, until nothing may start.

    Args:
        study: Asks, records and decides.
        quality_of: Called before each report with the assignment and the epoch; the quality for `fake_report`. It
            raises TrialFailed for a configuration that does not work, and anything else for a trial that breaks.
        slots: Trials side by side.
        max_steps: Leave after so many epochs as a killed process does: trials are under way, and nobody is told.
        lost_epochs: By how many the checkpoints of interrupted trials lag behind their reports.

    Returns:
        How many epochs were run, those that failed included.
    """
    running: deque[tuple[Assignment, int]] = deque()
    n_steps = 0
    while n_steps != max_steps:
        while len(running) < slots and (assignment := study.ask()):
            running.append((assignment, max(0, assignment.epochs_done - lost_epochs) + 1))
        if not running:
            break
        assignment, epoch = running.popleft()
        n_steps += 1
        if _run_epoch(study, assignment, epoch, quality_of):
            running.append((assignment, epoch + 1))
    return n_steps


def _run_epoch(study: Study, assignment: Assignment, epoch: int, quality_of: QualityOf) -> bool:
    """Return whether the trial goes on."""
    try:
        quality = quality_of(assignment, epoch)
    except TrialFailed as failure:
        study.reject(assignment.number, str(failure))
        return False
    except Exception as error:  # noqa: BLE001 - the fake of a bug, told as the real driver tells one
        study.fail(assignment.number, f"{type(error).__name__}: {error}", details=traceback.format_exc())
        return False
    report = fake_report(epoch, quality=quality, n_classes=len(study.classes))
    return study.report(assignment.number, report) is Decision.CONTINUE
