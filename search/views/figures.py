"""Pictures as PNG: learning curves, confusion matrices, the course of a search."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from search.study.rows import COMPLETE, STOPPED, TrialRecord
from search.trial.evaluation import Judgement
from search.trial.training import EpochReport

# Okabe & Ito 2008: can be told apart with any kind of colour vision.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#999999"


def draw_curves(reports: Sequence[EpochReport], *, title: str) -> bytes:
    """Draw loss, accuracy and macro-F1 over the nominal epochs, training and validation where there is one."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    epochs = [report.epoch for report in reports]
    axes[0].plot(epochs, [report.train_loss for report in reports], color=_BLUE, label="train")
    axes[1].plot(epochs, [100 * report.train_accuracy for report in reports], color=_BLUE, label="train")
    judged = [(report.epoch, report.val) for report in reports if report.val is not None]
    if judged:
        at = [epoch for epoch, _ in judged]
        axes[0].plot(at, [val.loss for _, val in judged], color=_ORANGE, label="validation")
        axes[1].plot(at, [100 * val.scores.accuracy for _, val in judged], color=_ORANGE, label="validation")
        axes[2].plot(at, [100 * val.scores.macro_f1 for _, val in judged], color=_ORANGE, label="macro-F1")
        balanced = [100 * val.scores.balanced_macro_f1 for _, val in judged]
        axes[2].plot(at, balanced, color=_GREEN, label="balanced macro-F1")
    labels = ("loss", "accuracy (%)", "F1 on validation (%)")
    for axis, label in zip(axes, labels, strict=True):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("nominal epoch")
        axis.set_ylabel(label)
        if axis.lines:
            axis.legend(frameon=False)
        else:
            axis.text(0.5, 0.5, "no validation part", ha="center", transform=axis.transAxes)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    return _to_png(figure)


def draw_confusion(judgement: Judgement, classes: Sequence[str], *, title: str) -> bytes:
    """Draw a confusion matrix in % of the actual label, with the number of wafers of each."""
    counts = np.array(judgement.confusion, dtype=np.float64)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2.6 + 0.62 * len(classes)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(share):
        if counts[i, j]:
            colour = "white" if value > 55 else "black"
            axis.text(j, i, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=9)
    names = [f"{name} ({int(n):,})" for name, n in zip(classes, counts.sum(1), strict=True)]
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("actual (wafers)")
    axis.set_title(title)
    return _to_png(figure)


def draw_history(records: Sequence[TrialRecord], *, metric: str) -> bytes:
    """Draw the objective of each trial, and the best of those that ran to their end so far."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for status, colour in ((STOPPED, _GREY), (COMPLETE, _BLUE)):
        chosen = [record for record in records if record.status == status and record.values]
        axis.scatter([r.number for r in chosen], [r.value for r in chosen], s=18, color=colour, label=status)
    complete = [record for record in records if record.status == COMPLETE]
    if complete:
        best = np.maximum.accumulate([record.value for record in complete])
        numbers = [record.number for record in complete]
        axis.step(numbers, best, where="post", color=_ORANGE, label="best so far")
    _label(axis, x="trial", y=f"validation {metric}")
    return _to_png(figure)


def draw_all_curves(records: Sequence[TrialRecord], *, metric: str, best: TrialRecord | None) -> bytes:
    """Draw the objective of every trial over its epochs, coloured by how it ended."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    colours = {COMPLETE: _BLUE, STOPPED: _GREY}
    for record in records:
        axis.plot(
            range(1, len(record.values) + 1), record.values, color=colours.get(record.status, _GREEN), alpha=0.6, lw=1
        )
    if best:
        axis.plot(range(1, len(best.values) + 1), best.values, color=_ORANGE, lw=2, label=f"best: trial {best.number}")
    for colour, label in ((_BLUE, "ran to their end"), (_GREY, "stopped"), (_GREEN, "others")):
        axis.plot([], [], color=colour, label=label)
    _label(axis, x="nominal epoch", y=f"validation {metric}")
    return _to_png(figure)


def _label(axis: Axes, *, x: str, y: str) -> None:
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
