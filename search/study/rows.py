"""One epoch of one trial as a row of trials.jsonl, and back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from search.space.space import Config
from search.trial.evaluation import Judgement
from search.trial.metrics import Scores, score_confusion
from search.trial.training import EpochReport

# First, whether the floors are met or by how much they are missed, then the objective; the higher, the better.
Standing = tuple[float, float]
RUNNING, COMPLETE, STOPPED, INFEASIBLE, FAILED = "running", "complete", "stopped", "infeasible", "failed"


@dataclass(slots=True, kw_only=True, eq=False)
class TrialRecord:
    """What a study knows of one trial.

    Attributes:
        number: From 0, in the order of asking.
        config: Flat configuration, constants included.
        epochs: Epochs that it would train in all.
        status: "running" (also while paused), "complete", "stopped", "infeasible" or "failed".
        reason: Why it was stopped or did not work.
        slot: Number of the slot that trains or has trained it, from 1; 0 before.
        place: The slot, its GPUs, machine and process in words.
        expected_memory: What it was planned to hold on its device, in bytes; 0 if nobody planned.
        was_lost: Whether its process died once, in this attempt.
        reports: One per nominal epoch so far.
        values: Objective of each report.
        shortfalls: By how much each report misses the floors, together; 0 if it misses none.
        origin: Where the configuration comes from if nobody proposed it: `first` or `retry_of` with a number or name.
    """

    number: int
    config: Config
    epochs: int
    status: str = RUNNING
    reason: str = ""
    slot: int = 0
    place: str = ""
    expected_memory: int = 0
    was_lost: bool = False
    reports: list[EpochReport] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    shortfalls: list[float] = field(default_factory=list)
    origin: Mapping[str, int | str] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """Objective of the last report; NaN before the first."""
        return self.values[-1] if self.values else math.nan

    @property
    def standing(self) -> Standing:
        """By which trials are compared after the last report."""
        return (-self.shortfalls[-1], self.values[-1]) if self.values else (-math.inf, -math.inf)

    @property
    def seconds(self) -> float:
        """Time that its reported epochs took."""
        return sum(report.train_seconds + report.val_seconds for report in self.reports)

    @property
    def scores(self) -> Scores | None:
        """Validation scores of the last report."""
        last = self.reports[-1].val if self.reports else None
        return last.scores if last else None


def to_row(record: TrialRecord, *, classes: tuple[str, ...], elapsed: float) -> dict[str, Any]:
    """Write a record's last report, or its end without one, as plain JSON values.

    Args:
        record: The trial.
        classes: Names of the K classes.
        elapsed: Seconds that the study has run, over all attempts.
    """
    row: dict[str, Any] = {"trial": record.number, "epoch": len(record.reports), "status": record.status}
    row |= {"reason": record.reason, "elapsed": round(elapsed, 3), "epochs": record.epochs}
    row |= {"expected_memory": record.expected_memory, "place": record.place}
    if record.status in (INFEASIBLE, FAILED) or not record.reports:
        return row | {"config": dict(record.config)}
    report = record.reports[-1]
    row |= {"objective": record.value, "shortfall": record.shortfalls[-1], **report_to_row(report, classes)}
    return row | {"config": dict(record.config)}


def report_to_row(report: EpochReport, classes: tuple[str, ...]) -> dict[str, Any]:
    """Write a report as plain JSON values: metrics by split, per-class ones by class name."""
    row: dict[str, Any] = {
        "epoch": report.epoch,
        "samples": report.samples,
        "train_loss": report.train_loss,
        "train_accuracy": report.train_accuracy,
        "lr": report.lr,
        "precision": report.precision,
        "n_parameters": report.n_parameters,
        "train_seconds": round(report.train_seconds, 4),
        "val_seconds": round(report.val_seconds, 4),
        "peak_memory": report.peak_memory,
    }
    return row | ({} if report.val is None else judgement_to_row(report.val, classes, split="val"))


def judgement_to_row(judgement: Judgement, classes: tuple[str, ...], *, split: str) -> dict[str, Any]:
    """Write all scores on one part, each name beginning with the split; None for a class without wafers."""
    scores = judgement.scores
    row: dict[str, Any] = {"loss": judgement.loss}
    row |= {name: getattr(scores, name) for name in ("macro_f1", "balanced_macro_f1", "worst_class_f1", "accuracy")}
    for name in ("precision", "recall", "f1", "balanced_f1", "support"):
        values = [None if math.isnan(value) else value for value in getattr(scores, name)]
        row[name] = dict(zip(classes, values, strict=True))
    row["confusion"] = [list(counts) for counts in judgement.confusion]
    return {f"{split}_{name}": value for name, value in row.items()}


def report_from_row(row: Mapping[str, Any]) -> EpochReport:
    """Read a report back; its scores are computed again from the confusion matrix."""
    val = None
    if "val_confusion" in row:
        confusion = tuple(tuple(counts) for counts in row["val_confusion"])
        val = Judgement(loss=row["val_loss"], confusion=confusion, scores=score_confusion(np.array(confusion)))
    names = ("epoch", "samples", "lr", "precision", "n_parameters", "train_loss", "train_accuracy")
    seconds = ("train_seconds", "val_seconds")
    peak_memory = row.get("peak_memory", 0)  # rows from before it was measured lack it
    return EpochReport(**{name: row[name] for name in (*names, *seconds)}, peak_memory=peak_memory, val=val)


def collect_rows(rows: list[dict[str, Any]]) -> dict[int, TrialRecord]:
    """Gather the rows of trials.jsonl into records, by trial number."""
    records: dict[int, TrialRecord] = {}
    for row in rows:
        number = row["trial"]
        record = records.setdefault(number, TrialRecord(number=number, config=row["config"], epochs=row["epochs"]))
        record.expected_memory, record.place = row.get("expected_memory", 0), row.get("place", "")
        record.status, record.reason = row["status"], row["reason"]
        if "objective" in row:
            record.reports.append(report_from_row(row))
            record.values.append(row["objective"])
            record.shortfalls.append(row.get("shortfall", 0.0))  # rows from before floors lack it
    return records
