"""Kept calls -> the deck's tables beside ours, confusion matrices side by side, and curves: results/published/deck/."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter
from numpy.typing import NDArray

from search.trial.evaluation import Judgement
from search.trial.metrics import Scores, score_confusion
from search.views.figures import draw_confusion
from search.views.figures.canvas import BLUE, VERMILLION, drawn

PRINTED = Path(__file__).with_name("deck_printed.yaml")
_TITLES = {
    "imbalanced": "CNN, imbalanced training",
    "augmented": "CNN, 30 % of the wafers, the deck's augmentation",
    "balanced": "CNN, balanced training",
    "transfer": "EfficientNet-B0, frozen features, balanced training",
}
Calls = Mapping[str, NDArray[Any]]


def write_tables(out: Path, classes: Sequence[str], *, epochs: int, weights: str) -> None:
    """Write tables.md and the pictures from what `deck.py` has kept so far."""
    found = {(arm, side): out / f"{arm}-{side}-{epochs}.npz" for arm in _TITLES for side in ("leaky", "honest")}
    kept: dict[tuple[str, str], Calls] = {key: dict(np.load(path)) for key, path in found.items() if path.exists()}
    text = "\n".join(_page(kept, classes, epochs=epochs, weights=weights))
    (out / "tables.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    for (arm, side), calls in kept.items():
        counts = count(calls, len(classes))
        judgement = Judgement(loss=0.0, confusion=tuple(map(tuple, counts.tolist())), scores=score_confusion(counts))
        title = f"{_TITLES[arm]}, {side} ({len(calls['labels']):,} wafers)"
        (out / f"confusion-{arm}-{side}.png").write_bytes(draw_confusion(judgement, classes, title=title))
    if kept:
        (out / "curves.png").write_bytes(_draw_curves(kept))


def count(calls: Calls, n_classes: int, *, only: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Return the confusion matrix, of some wafers or of all."""
    rows = slice(None) if only is None else only
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(counts, (calls["labels"][rows], calls["calls"][rows]), 1)
    return counts


def _page(kept: Mapping[tuple[str, str], Calls], classes: Sequence[str], *, epochs: int, weights: str) -> Iterator[str]:
    printed = yaml.safe_load(PRINTED.read_text("utf-8"))
    yield f"{epochs} epochs of 18,000 drawn wafers, one seed; EfficientNet-B0 weights: {Path(weights).name}.\n"
    yield "| training | deck | leaky, ours | of it seen in training | leaky, unseen only | honest (by lot) |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for arm, title in _TITLES.items():
        deck = _mean_f1(printed[arm], classes) if arm in printed else None
        yield f"| {title} | {'-' if deck is None else f'{deck:.2f}'} | {' | '.join(_summary(kept, arm, classes))} |"
    yield "\nBalanced macro-F1 in %. The deck's are means of its nine F1: of the first it printed 82.89, the harmonic"
    yield "mean of its average precision and recall.\n"
    for arm, title in _TITLES.items():
        yield from _table(arm, title, kept, printed, classes)


def _summary(kept: Mapping[tuple[str, str], Calls], arm: str, classes: Sequence[str]) -> list[str]:
    cells = ["-"] * 4
    if (arm, "leaky") in kept:
        calls = kept[arm, "leaky"]
        unseen = ~calls["seen"].astype(bool)
        cells[0] = f"{100 * score_confusion(count(calls, len(classes))).balanced_macro_f1:.2f}"
        cells[1] = f"{1 - unseen.mean():.1%}"
        left = count(calls, len(classes), only=unseen)
        lacking = [name for name, n in zip(classes, left.sum(1), strict=True) if not n]
        cells[2] = f"{100 * score_confusion(left).balanced_macro_f1:.2f} (n = {unseen.sum():,}"
        cells[2] += f"; no {', '.join(lacking)})" if lacking else ")"
    if (arm, "honest") in kept:
        cells[3] = f"{100 * score_confusion(count(kept[arm, 'honest'], len(classes))).balanced_macro_f1:.2f}"
    return cells


def _table(
    arm: str,
    title: str,
    kept: Mapping[tuple[str, str], Calls],
    printed: Mapping[str, Any],
    classes: Sequence[str],
) -> Iterator[str]:
    sides = {
        side: score_confusion(count(kept[arm, side], len(classes)))
        for side in ("leaky", "honest")
        if (arm, side) in kept
    }
    columns = [*(["deck"] if arm in printed else []), *sides]
    yield f"**{title}**: precision / recall / F1 in %, after giving every class equally many wafers\n"
    yield f"| class | {' | '.join(columns)} |\n|{' --- |' * (1 + len(columns))}"
    for k, name in enumerate(classes):
        cells = [" / ".join(f"{value:.2f}" for value in printed[arm][name])] if arm in printed else []
        cells += [_balanced(kept[arm, side], scores, k, len(classes)) for side, scores in sides.items()]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _balanced(calls: Calls, scores: Scores, k: int, n_classes: int) -> str:
    counts = count(calls, n_classes)
    rates = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    called = rates[:, k].sum()
    precision = rates[k, k] / called if called else 0.0
    return f"{100 * precision:.2f} / {100 * scores.recall[k]:.2f} / {100 * scores.balanced_f1[k]:.2f}"


def _mean_f1(rows: Mapping[str, Any], classes: Sequence[str]) -> float:
    return float(np.mean([rows[name][2] for name in classes]))


@drawn
def _draw_curves(kept: Mapping[tuple[str, str], Calls]) -> Figure:
    """Draw the loss of every training, training dashed and validation whole."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    for axis, (arm, title) in zip(figure.subplots(2, 2).flat, _TITLES.items(), strict=True):
        for side, colour in (("leaky", VERMILLION), ("honest", BLUE)):
            if (arm, side) in kept:
                epoch, train, val, _ = kept[arm, side]["curves"].T
                axis.plot(epoch, train, color=colour, linestyle="--")
                axis.plot(epoch, val, color=colour)
        axis.set_title(title, fontsize=8)
        axis.set_xlabel("nominal epoch")
        axis.set_yscale("log")
        for formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            formatter(FormatStrFormatter("%.3g"))
    figure.axes[0].plot([], [], color=VERMILLION, label="leaky")
    figure.axes[0].plot([], [], color=BLUE, label="honest")
    figure.axes[0].legend()
    figure.axes[0].set_ylabel("loss (training dashed)")
    return figure
