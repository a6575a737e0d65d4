"""One training: its curves, and what it confuses."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from search.trial.evaluation import Judgement
from search.trial.training import EpochReport
from search.views.figures.canvas import BLUE, GREEN, SKY, VERMILLION, drawn, label, new_axes

_SIZE = (3.4, 2.6)


@drawn
def draw_curves(trainings: Mapping[str, Sequence[EpochReport]], *, title: str) -> Figure:
    """Draw loss, accuracy and macro-F1 over the nominal epochs of trainings by name, a row for each."""
    figure = Figure(figsize=(12, 0.3 + 3.3 * len(trainings)), layout="constrained")
    rows = figure.subplots(len(trainings), 3, squeeze=False)
    for (name, reports), axes in zip(trainings.items(), rows, strict=True):
        for axis, fill in zip(axes, (_fill_loss, _fill_accuracy, _fill_f1), strict=True):
            fill(axis, reports)
        axes[0].set_title(name, loc="left")
    figure.suptitle(title)
    return figure


@drawn
def draw_loss(reports: Sequence[EpochReport], *, title: str) -> Figure:
    """Draw the loss in training and on validation."""
    return _draw_one(_fill_loss, reports, title)


@drawn
def draw_accuracy(reports: Sequence[EpochReport], *, title: str) -> Figure:
    """Draw the accuracy in training and on validation."""
    return _draw_one(_fill_accuracy, reports, title)


@drawn
def draw_f1(reports: Sequence[EpochReport], *, title: str) -> Figure:
    """Draw macro-F1, balanced macro-F1 and the worst class on validation."""
    return _draw_one(_fill_f1, reports, title)


@drawn
def draw_confusion(judgement: Judgement, classes: Sequence[str], *, title: str) -> Figure:
    """Draw a confusion matrix: counts, and % of the actual label."""
    counts = np.array(judgement.confusion, dtype=np.float64)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2.6 + 0.62 * len(classes)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axis = figure.subplots()
    axis.grid(False)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(share):
        if counts[i, j]:
            colour = "white" if value > 55 else "black"
            text = f"{int(counts[i, j]):,}\n{value:.1f} %"
            axis.text(j, i, text, ha="center", va="center", color=colour, fontsize=7, linespacing=1.3)
    names = [f"{name} ({int(n):,})" for name, n in zip(classes, counts.sum(1), strict=True)]
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("actual (wafers)")
    axis.set_title(title, loc="left")
    return figure


def _draw_one(
    fill: Callable[[Axes, Sequence[EpochReport]], None], reports: Sequence[EpochReport], title: str
) -> Figure:
    figure, axis = new_axes(*_SIZE, below=0.45)
    fill(axis, reports)
    axis.set_title(title, loc="left")
    return figure


def _fill_loss(axis: Axes, reports: Sequence[EpochReport]) -> None:
    _plot(axis, reports, [report.train_loss for report in reports], BLUE, "train")
    _plot(axis, reports, [report.val.loss if report.val else np.nan for report in reports], VERMILLION, "validation")
    _finish(axis, "mean cross-entropy")


def _fill_accuracy(axis: Axes, reports: Sequence[EpochReport]) -> None:
    _plot(axis, reports, [100 * report.train_accuracy for report in reports], BLUE, "train")
    _plot(axis, reports, _scores(reports, "accuracy"), VERMILLION, "validation")
    _finish(axis, "accuracy (%)")


def _fill_f1(axis: Axes, reports: Sequence[EpochReport]) -> None:
    _plot(axis, reports, _scores(reports, "balanced_macro_f1"), GREEN, "balanced macro-F1")
    _plot(axis, reports, _scores(reports, "macro_f1"), VERMILLION, "macro-F1")
    _plot(axis, reports, _scores(reports, "worst_class_f1"), SKY, "worst class")
    _finish(axis, "F1 on validation (%)")


def _scores(reports: Sequence[EpochReport], name: str) -> list[float]:
    return [100 * getattr(report.val.scores, name) if report.val else np.nan for report in reports]


def _plot(axis: Axes, reports: Sequence[EpochReport], values: Sequence[float], colour: str, words: str) -> None:
    if np.isfinite(values).any():
        epochs = [report.epoch for report in reports]
        axis.plot(epochs, values, color=colour, label=words, marker=".", markersize=5 if len(epochs) < 30 else 0)


def _finish(axis: Axes, y: str) -> None:
    label(axis, x="nominal epoch", y=y)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axis.lines:
        axis.legend()
    else:
        axis.text(0.5, 0.5, "no validation part", ha="center", transform=axis.transAxes)
