"""Whether probabilities mean what they say, and what a threshold for defects costs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from search.trial.calibration import Bin, EscapeCurve
from search.views.figures.canvas import BLUE, GREY, VERMILLION, drawn, explain, label, new_axes

_SIZE = (4.2, 3.6)


@drawn
def draw_reliability(bins: Sequence[Bin], *, title: str) -> Figure:
    """Draw how often calls of about one probability are right; on the diagonal they are as right as they are sure."""
    figure, axis = new_axes(*_SIZE)
    sure, right = (100 * np.array([getattr(each, name) for each in bins]) for name in ("sure", "right"))
    low = min(sure.min(), right.min(), 95.0)
    axis.plot([low, 100], [low, 100], color=GREY, linestyle="--", label="as right as sure")
    axis.plot(sure, right, color=BLUE, marker="o", markersize=4, label=f"{len(bins)} bins of equal weight")
    label(axis, x="probability of the called class (%)", y="called right (%)", title=title, is_whole=False)
    explain(figure, axis)
    return figure


@drawn
def draw_escapes(curve: EscapeCurve, *, threshold: float | None, title: str) -> Figure:
    """Draw escapes against false alarms over all thresholds, and where the rule stands."""
    figure, axis = new_axes(*_SIZE)
    axis.plot(100 * curve.alarms, 100 * curve.escapes, color=BLUE, label="all thresholds")
    if threshold is not None:
        at = int(np.searchsorted(curve.thresholds, threshold))
        axis.plot(
            100 * curve.alarms[at],
            100 * curve.escapes[at],
            "o",
            color=VERMILLION,
            label=f"P(defect) from {threshold:.3f}",
        )
    axis.set_xscale("symlog", linthresh=0.1)
    axis.set_yscale("symlog", linthresh=0.1)
    axis.set_xlim(0, 100)
    axis.set_ylim(0, 100)
    label(
        axis,
        x="wafers without defect that raise an alarm (%)",
        y="defective wafers that escape (%)",
        title=title,
        is_whole=False,
    )
    explain(figure, axis)
    return figure
