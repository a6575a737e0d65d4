"""A whole search: its course, the learning curves, and who was left after which epoch."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from search.study.rows import COMPLETE, STOPPED, TrialRecord
from search.views.figures.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    SKY,
    VERMILLION,
    drawn,
    explain,
    label,
    new_axes,
    zoom,
)
from search.views.words import count

_SIZE = (4.7, 3.5)


@drawn
def draw_course(
    ended: Sequence[TrialRecord], best: Sequence[float], expected: NDArray[np.float64], *, metric: str
) -> Figure:
    """Draw the objective of each trial in the order in which they ended, the best so far, and what luck expects.

    Args:
        ended: The trials, in the order of their ends.
        best: Best so far after each of them; NaN before there is one.
        expected: The same, expected if they had ended in random order.
        metric: The objective, in words.
    """
    figure, axis = new_axes(*_SIZE)
    places = range(1, len(ended) + 1)
    complete = [(at, r) for at, r in zip(places, ended, strict=True) if r.status == COMPLETE]
    others = [(at, r) for at, r in zip(places, ended, strict=True) if r.status != COMPLETE and r.values]
    bottom = zoom(
        axis, [100 * r.value for _, r in complete], all_values=[100 * record.value for record in ended if record.values]
    )
    within = [(at, 100 * r.value) for at, r in others if 100 * r.value > bottom]
    below = [at for at, r in others if 100 * r.value <= bottom]
    axis.scatter(*_columns(within), s=16, color=PALE, label=f"stopped or broken (n = {len(others)})", zorder=2)
    axis.scatter(below, [bottom] * len(below), s=14, marker="v", color=PALE, clip_on=False, zorder=2)
    for meets, colour, words in ((True, BLUE, "ran to its end"), (False, SKY, "ran to its end, misses a floor")):
        mine = [(at, 100 * r.value) for at, r in complete if (not r.shortfalls[-1]) is meets]
        if mine:
            axis.scatter(*_columns(mine), s=20, color=colour, label=f"{words} (n = {len(mine)})", zorder=3)
    if np.isfinite(expected).any():
        axis.plot(places, 100 * expected, color=GREY, ls=(0, (4, 2)), lw=1.3, label="expected in random order")
        axis.step(places, 100 * np.asarray(best), where="post", color=VERMILLION, lw=1.8, label="best so far")
    label(axis, x="trials that have ended", y=f"validation {metric} (%)")
    explain(figure, axis)
    return figure


@drawn
def draw_all_curves(records: Sequence[TrialRecord], *, metric: str, best: TrialRecord | None) -> Figure:
    """Draw the objective of every trial over its epochs, coloured by how it ended."""
    figure, axis = new_axes(*_SIZE)
    groups = {
        "stopped": (STOPPED, PALE, 0.8, 0.8),
        "ran to its end": (COMPLETE, BLUE, 0.55, 0.9),
        "others": ("", ORANGE, 0.9, 0.9),
    }
    for words, (status, colour, alpha, width) in groups.items():
        mine = [
            r
            for r in records
            if r.values and (r.status == status or (not status and r.status not in (COMPLETE, STOPPED)))
        ]
        if mine:
            lines = [np.column_stack([np.arange(1, len(r.values) + 1), 100 * np.array(r.values)]) for r in mine]
            axis.add_collection(LineCollection(lines, colors=colour, alpha=alpha, linewidths=width, rasterized=True))
            points = np.concatenate([line for line in lines if len(line) == 1] or [np.empty((0, 2))])
            axis.scatter(points[:, 0], points[:, 1], s=9, color=colour, linewidths=0)
            axis.plot([], [], color=colour, lw=2, label=f"{words} (n = {len(mine)})")
    if best and best.values:
        epochs = np.arange(1, len(best.values) + 1)
        axis.plot(epochs, 100 * np.array(best.values), color=VERMILLION, lw=2, label=f"trial {best.number}, the best")
    axis.autoscale()
    label(axis, x="nominal epoch", y=f"validation {metric} (%)")
    explain(figure, axis)
    return figure


@drawn
def draw_survival(reached: Mapping[int, Sequence[int]], rungs: Mapping[int, Sequence[int]]) -> Figure:
    """Draw how many trials reached each epoch; one step line for each length of training.

    Args:
        reached: By length: how many trials reported epoch 1, 2, ...
        rungs: By length: after which epochs a trial may be stopped; of the same lengths.
    """
    figure, axis = new_axes(*_SIZE)
    colours = (BLUE, VERMILLION, GREEN, ORANGE, SKY, INK)
    for i, (length, counts) in enumerate(reached.items()):
        colour = colours[i % len(colours)]
        epochs = np.arange(1, len(counts) + 1)
        axis.step(
            epochs, counts, where="mid", color=colour, lw=1.8, label=f"{count(length, 'epoch')} (n = {max(counts)})"
        )
        at = [rung for rung in rungs[length] if rung <= len(counts)]
        axis.plot(at, [counts[rung - 1] for rung in at], "o", color=colour, markersize=5, markerfacecolor="white")
    axis.plot([], [], "o", color=GREY, markersize=5, markerfacecolor="white", label="rung")
    axis.set_ylim(0, 1.06 * max(max(counts) for counts in reached.values()))
    label(axis, x="nominal epoch", y="trials that reached it")
    explain(figure, axis, columns=3)
    return figure


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [at for at, _ in points], [value for _, value in points]
