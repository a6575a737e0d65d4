"""Parameters: how much each mattered, how scores lie along it, and all of them beside each other."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from search.space.space import Node, Range, values_of
from search.study.hindsight import place_in
from search.study.importance import Importances
from search.study.rows import COMPLETE, STOPPED, TrialRecord
from search.trial.vocabulary import Scalar
from search.views.figures.canvas import BLUE, GREY, INK, PALE, VERMILLION, drawn, explain, label, new_axes, zoom
from search.views.words import number

Points = NDArray[np.float64]
_ABSENT = -0.16  # where parallel coordinates put trials that do not have a parameter


@drawn
def draw_importance(found: Importances) -> Figure:
    """Draw the share of each parameter, and what chance would give it."""
    figure, axis = new_axes(5.2, 1.3 + 0.27 * len(found.parameters))
    places = np.arange(len(found.parameters))[::-1]
    for at, each in zip(places, found.parameters, strict=True):
        axis.barh(at, 100 * each.share, height=0.62, color=BLUE if each.stands_out else PALE, zorder=2)
        axis.plot([100 * each.by_chance] * 2, [at - 0.4, at + 0.4], color=INK, lw=1.4, zorder=3)
    axis.barh([0], [0], color=BLUE, label="more than chance gives")
    axis.barh([0], [0], color=PALE, label="no more than chance gives")
    axis.plot([], [], color=INK, lw=1.4, label="chance stays below in 19 of 20 cases")
    axis.set_yticks(places, [each.name for each in found.parameters])
    axis.grid(False, axis="y")
    # Shares by chance may be endless; what lies outside is known to be outside.
    axis.set_xlim(0, 108 * max(max(each.share, min(each.by_chance, 1.0)) for each in found.parameters))
    title = f"best {found.n_top} of {found.n_ended} ended trials"
    label(axis, x="share of the importance (%)", y="", title=title, is_whole=False)
    explain(figure, axis)
    return figure


@drawn
def draw_slice(
    name: str, node: Node, records: Sequence[TrialRecord], *, metric: str, best: TrialRecord | None
) -> Figure:
    """Draw the objective along one parameter, of the trials that have it.

    Args:
        name: Full name of the parameter.
        node: What it may be.
        records: All trials.
        metric: The objective, in words.
        best: Is marked.
    """
    is_long = _has_long_names(node)
    figure, axis = new_axes(3.3, 2.75 if is_long else 2.5, below=0.72 if is_long else 0.45)
    mine = [record for record in records if name in record.config and record.values]
    complete = [record for record in mine if record.status == COMPLETE]
    stopped = [record for record in mine if record.status == STOPPED]
    bottom = zoom(axis, [100 * r.value for r in complete], all_values=[100 * r.value for r in mine])
    random = np.random.default_rng(0)
    for group, colour, size in ((stopped, PALE, 10), (complete, BLUE, 15)):
        x = _positions(node, [record.config[name] for record in group], random)
        y = np.array([100 * record.value for record in group])
        axis.scatter(x[y > bottom], y[y > bottom], s=size, color=colour, linewidths=0, zorder=2)
        axis.scatter(x[y <= bottom], np.full((y <= bottom).sum(), bottom), s=8, marker="v", color=colour, clip_on=False)
    if best is not None and name in best.config and best.values:
        x = _positions(node, [best.config[name]], None)
        axis.scatter(x, [100 * best.value], s=60, facecolors="none", edgecolors=VERMILLION, linewidths=1.6, zorder=4)
    title = f"n = {len(complete)}" + (f" + {len(stopped)} stopped" if stopped else "")
    label(axis, x=name, y=f"{metric} (%)", title=title, is_whole=False)
    _scale(axis, node)
    return figure


def _positions(node: Node, values: Sequence[Scalar], random: np.random.Generator | None) -> Points:
    """Place values along an axis; names, and numbers to choose from, side by side and scattered a little."""
    if isinstance(node, Range):
        return np.array([float(value) for value in values])
    known = list(values_of(node))
    places = np.array([known.index(value) if value in known else np.nan for value in values], dtype=np.float64)
    return places if random is None else places + random.uniform(-0.16, 0.16, len(places))


def _has_long_names(node: Node) -> bool:
    return not isinstance(node, Range) and sum(len(number(value)) for value in values_of(node)) > 30


def _scale(axis: Axes, node: Node) -> None:
    if isinstance(node, Range):
        span = node.high - node.low
        axis.set_xlim(node.low - 0.04 * span, node.high + 0.04 * span)
        if node.log:
            axis.set_xscale("log")
            axis.set_xlim(node.low * (node.low / node.high) ** 0.04, node.high * (node.high / node.low) ** 0.04)
            axis.xaxis.set_minor_formatter(NullFormatter())
            _tick(axis, node)
        else:
            axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=node.is_whole))
        return
    names = [number(value) for value in values_of(node)]
    axis.set_xlim(-0.6, len(names) - 0.4)
    is_long = _has_long_names(node)
    axis.set_xticks(range(len(names)), names, rotation=25 if is_long else 0, ha="right" if is_long else "center")
    axis.grid(False, axis="x")


def _tick(axis: Axes, node: Range) -> None:
    """Name the powers of ten, and more where a range holds hardly one."""
    subs = (1.0, 2.0, 5.0) if node.high / node.low < 100 else (1.0,)
    ticks = [float(tick) for tick in LogLocator(subs=subs).tick_values(node.low, node.high)]
    within = [tick for tick in ticks if node.low * 0.999 <= tick <= node.high * 1.001]
    few = within[:: -(-len(within) // 5) or 1]
    axis.set_xticks(few, [f"{tick:g}" for tick in few])
    axis.xaxis.set_minor_locator(NullLocator())


@drawn
def draw_parallel(
    axes: Mapping[str, tuple[Node, Mapping[int, Scalar]]],
    records: Sequence[TrialRecord],
    *,
    metric: str,
    best: TrialRecord | None,
) -> Figure:
    """Draw each trial as a line through its parameters, coloured by the objective; stopped ones pale.

    Args:
        axes: By the name of the axis: what the parameter may be, and its value by trial number where it has one.
        records: All trials.
        metric: The objective, in words.
        best: Is drawn on top.
    """
    figure, axis = new_axes(max(5.2, 1.15 * (len(axes) + 1)), 3.6)
    axis.grid(False)
    axis.spines[["left", "bottom"]].set_visible(False)
    complete = sorted((r for r in records if r.status == COMPLETE), key=lambda record: record.value)
    stopped = [record for record in records if record.status == STOPPED and record.values]
    low, high = (complete[0].value, complete[-1].value) if complete else (0.0, 1.0)
    colours: Colormap = colormaps["cividis_r"]
    random = np.random.default_rng(0)
    for group, alpha in ((stopped, 0.5), (complete, 0.85)):
        lines = [_line(record, axes, low, high, random) for record in group]
        ranks = [(record.value - low) / (high - low or 1) for record in group]
        shades = [PALE] * len(group) if group is stopped else [colours(0.1 + 0.9 * rank) for rank in ranks]
        axis.add_collection(LineCollection(lines, colors=shades, alpha=alpha, linewidths=0.9, rasterized=True))
    if best is not None:
        line = _line(best, axes, low, high, None)
        axis.plot(line[:, 0], line[:, 1], color=VERMILLION, lw=2.2, marker="o", markersize=4, zorder=5)
    for at, (node, _) in enumerate(axes.values()):
        _draw_axis(axis, at, node)
    at = len(axes)
    axis.plot([at, at], [0, 1], color=GREY, lw=1)
    for y, value in ((0.0, low), (1.0, high)):
        axis.text(at + 0.04, y, f"{100 * value:.1f}", fontsize=7.5, va="center", color=INK)
    axis.set_xticks(range(at + 1), [*axes, f"{metric}\n(%)"], rotation=20, ha="right", fontsize=8)
    axis.set_yticks([])
    axis.set_xlim(-0.3, at + 0.45)
    axis.set_ylim(_ABSENT - 0.06, 1.05)
    title = f"n = {len(complete)} complete"
    axis.set_title(f"{title}, {len(stopped)} stopped (pale)" if stopped else title, loc="left")
    return figure


def _line(
    record: TrialRecord,
    axes: Mapping[str, tuple[Node, Mapping[int, Scalar]]],
    low: float,
    high: float,
    random: np.random.Generator | None,
) -> Points:
    heights = []
    for node, values in axes.values():
        value = values.get(record.number)
        height = _ABSENT if value is None else _height(node, value)
        if random is not None and (value is None or not isinstance(node, Range)):
            height += random.uniform(-0.025, 0.025)
        heights.append(height)
    score = min(max((record.value - low) / (high - low or 1), -0.05), 1.0)
    return np.column_stack([np.arange(len(heights) + 1), [*heights, score]])


def _height(node: Node, value: Scalar) -> float:
    if isinstance(node, Range):
        return place_in(node, float(value))
    known = list(values_of(node))
    return known.index(value) / max(len(known) - 1, 1) if value in known else _ABSENT


def _draw_axis(axis: Axes, at: int, node: Node) -> None:
    axis.plot([at, at], [0, 1], color=GREY, lw=1, zorder=4)
    values = values_of(node)
    heights = [0.0, 1.0] if isinstance(node, Range) else [i / max(len(values) - 1, 1) for i in range(len(values))]
    for value, height in zip(values, heights, strict=True):
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
        text = number(value)
        axis.text(at + 0.04, height, text[:16], fontsize=7.5, va="center", color=INK, zorder=6, bbox=box)
