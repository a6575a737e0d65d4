"""Searches in simulated time that look like real ones, for what shows them."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from search.space.config_file import load_study_config
from search.study.provenance import record_attempt
from search.study.records import StudyFolder
from search.study.study import Decision, Study
from search.testing import FakeClock, report_judgement
from search.trial.evaluation import Judgement
from search.trial.metrics import score_confusion
from search.trial.training import EpochReport

SPACE = """
name: fake
data: {wafers: synthetic, image_size: 16, epoch_samples: 9000}
space:
  epochs: [6, 12, 18]
  sampling: {choose: {imbalanced: {}, balanced: {}, power: {alpha: {low: 0.3, high: 0.9}}}}
  model: {choose: {wafer_cnn: {width: [16, 24], lr: {low: 1e-4, high: 1e-1, log: true}}, wafer_resnet: {}}}
constraints: CONSTRAINTS
search: {trials: TRIALS, sampler: random, stop: {asha: {first_rung: 2, factor: 3}}, MORE}
"""


def make_report(epoch: int, *, number: int, n_classes: int) -> EpochReport:
    """Make up a report in which the eighth class is the worst by far."""
    quality = (0.6 + 0.4 * np.random.default_rng(number).random()) * epoch / (epoch + 2)
    right = np.full(n_classes, round(1000 * quality))
    right[min(7, n_classes - 1)] = 310 + number
    confusion = np.diag(right) + np.roll(np.diag(1000 - right), 1, axis=1)
    counts = tuple(tuple(int(n) for n in row) for row in confusion)
    judgement = Judgement(loss=0.5, confusion=counts, scores=score_confusion(confusion))
    report = report_judgement(epoch, judgement, train_seconds=3.0, val_seconds=1.0)
    return dataclasses.replace(report, samples=9000 * epoch)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Make a folder in memory where there is one: a study syncs every report to the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


@pytest.fixture
def names() -> tuple[str, ...]:
    return ("Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full", "Random", "Scratch", "none")


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "results" / "a-study")


@pytest.fixture
def play(tmp_path: Path, names: tuple[str, ...], folder: StudyFolder) -> Iterator[Callable[..., Study]]:
    """Let a study run for so many epochs of all slots together, or until it is over, and leave it open."""
    opened: list[Study] = []

    def run(
        *,
        steps=None,
        slots=2,
        watch=lambda study: lambda number: None,
        classes=None,
        where=folder,
        trials=40,
        constraints="[]",
        more="seed: 0",
        rejected=None,
        failed=None,
    ):
        """Play.

        Args:
            steps: Epochs; None: all.
            slots: Trials side by side.
            watch: Called with the study before its first trial; what it returns, after each event.
            classes: Names of the classes.
            where: Folder of the study.
            trials: To be judged.
            constraints: Of the space, as YAML.
            more: More keys of `search`, as YAML.
            rejected: Why trials do not work, in their second epoch, by number.
            failed: Why they break, in their first.
        """
        path, classes = tmp_path / "space.yaml", classes or names
        text = SPACE.replace("MORE", more).replace("TRIALS", str(trials)).replace("CONSTRAINTS", constraints)
        path.write_text(text, "utf-8")
        config = load_study_config(path)
        clock = FakeClock()
        study = Study(where, config, classes=classes, clock=clock)
        opened.append(study)
        data = {"synthetic": True, "leaky": None, "classes": list(classes)}
        record_attempt(where, config, data, space_text=text, device="a test")
        on_event, under_way, done = watch(study), [], 0
        while done != steps:
            while len(under_way) < slots and (assignment := study.ask()):
                record = study.records[assignment.number]
                record.slot = next(n for n in range(1, 999) if n not in {other.slot for other in under_way})
                record.place = f"slot {record.slot} (GPU {record.slot - 1}) on node-1, pid {4000 + record.slot}"
                under_way.append(record)
            if not under_way:
                break
            record = under_way.pop(0)
            clock.now += 4.0 / slots
            done += 1
            number, epoch = record.number, len(record.reports) + 1
            if number in (rejected or {}) and epoch == 2:
                study.reject(number, rejected[number])
            elif number in (failed or {}):
                study.fail(number, failed[number], details="Traceback ...")
            elif study.report(number, make_report(epoch, number=number, n_classes=len(classes))) is Decision.CONTINUE:
                under_way.append(record)
            on_event(number)
        return study

    yield run
    for study in opened:
        study.close()
