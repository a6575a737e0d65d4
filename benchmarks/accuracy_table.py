"""Kept logits -> the tables that `accuracy.py` prints."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.wafer_set import WaferSet
from search.trial.metrics import Scores, score_confusion
from search.trial.prediction import DECIDE_FOR

# Column, decision, score: a balanced score belongs to decisions for equal shares, a natural one to those of the data.
COLUMNS = (
    ("balanced", "drawn", "balanced_macro_f1"),
    ("natural", "drawn", "macro_f1"),
    ("balanced, decided for equal shares", "uniform", "balanced_macro_f1"),
    ("natural, decided for the data's shares", "natural", "macro_f1"),
)
_RESAMPLES = 500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """What one model, or one per fold, says of the wafers that it has not seen.

    Attributes:
        logits: By decision, log-probabilities up to a constant per wafer, shape (N, K).
        labels: Shape (N,).
        lots: Block of lots of each wafer, from 0, shape (N,).
        seconds: Of training.
    """

    logits: Mapping[str, NDArray[np.float32]]
    labels: NDArray[np.int64]
    lots: NDArray[np.int64]
    seconds: float


def read_judged(paths: Sequence[Path], wafers: WaferSet, *, views: str) -> Judged | None:
    """Pool the parts of one seed; None if they were not judged from so many views."""
    found = [np.load(path) for path in paths]
    if not all(views in file for file in found):
        return None
    rows = np.concatenate([file["rows"] for file in found])
    return Judged(
        logits={wanted: np.concatenate([file[views] + file[wanted] for file in found]) for wanted in DECIDE_FOR},
        labels=np.concatenate([file["labels"] for file in found]),
        lots=np.unique(wafers.lots[rows], return_inverse=True)[1],
        seconds=sum(float(file["seconds"]) for file in found),
    )


def put_together(seeds: Sequence[Judged]) -> Judged:
    """Average the probabilities of several models."""
    first = seeds[0]
    logits = {name: np.logaddexp.reduce([one.logits[name] for one in seeds], axis=0) for name in first.logits}
    return Judged(logits=logits, labels=first.labels, lots=first.lots, seconds=sum(one.seconds for one in seeds))


def count_by_lot(judged: Judged, decision: str) -> NDArray[np.int64]:
    """Count a confusion matrix per lot, shape (L, K, K)."""
    logits = judged.logits[decision]
    n_lots, k = int(judged.lots.max()) + 1, logits.shape[1]
    cells = (judged.lots * k + judged.labels) * k + logits.argmax(1)
    return np.bincount(cells, minlength=n_lots * k * k).reshape(n_lots, k, k)


def lot_interval(counts: Sequence[NDArray[np.int64]], score: str) -> tuple[float, float]:
    """Resample whole lots, because wafers of one lot are not independent; 95 % of the mean score over models."""
    generator = np.random.default_rng(0)
    n_lots = len(counts[0])
    means = []
    for weights in generator.multinomial(n_lots, np.full(n_lots, 1 / n_lots), size=_RESAMPLES):
        means.append(np.mean([getattr(score_confusion(np.tensordot(weights, one, 1)), score) for one in counts]))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def line_of(name: str, seeds: Sequence[Judged], *, views: str) -> str:
    """Write one line: mean over seeds, their range, and the interval over lots."""
    cells = []
    for _, decision, score in COLUMNS:
        counts = [count_by_lot(one, decision) for one in seeds]
        values = [getattr(score_confusion(one.sum(0)), score) for one in counts]
        seen = f" ({100 * min(values):.2f} to {100 * max(values):.2f})" if len(values) > 1 else ""
        low, high = lot_interval(counts, score)
        cells.append(f"{100 * np.mean(values):.2f}{seen} [{100 * low:.1f}, {100 * high:.1f}]")
    seconds = np.mean([one.seconds for one in seeds])
    return f"| {name} | {views} | " + " | ".join(cells) + f" | {seconds:.0f} |"


def lines_of(arm: str, paths: Mapping[int, Sequence[Path]], wafers: WaferSet) -> Iterator[str]:
    """Write an arm's lines: single models from one view and from eight, then all seeds together."""
    for views in ("one", "eight"):
        seeds = [judged for parts in paths.values() if (judged := read_judged(parts, wafers, views=views))]
        if len(seeds) == len(paths):
            yield line_of(f"{arm}, n = {len(seeds)}", seeds, views=views)
        if len(seeds) == len(paths) > 1:
            yield line_of(f"{arm}, {len(seeds)} together", [put_together(seeds)], views=views)


def class_lines(paths: Mapping[int, Sequence[Path]], wafers: WaferSet) -> Iterator[str]:
    """Write F1 of each class: mean over seeds from one view, and all seeds together from as many as there are."""
    seeds = [judged for parts in paths.values() if (judged := read_judged(parts, wafers, views="one"))]
    many = [judged for parts in paths.values() if (judged := read_judged(parts, wafers, views="eight"))] or seeds
    alone = {decision: [_scores(one, decision) for one in seeds] for decision in ("natural", "uniform")}
    together = {decision: _scores(put_together(many), decision) for decision in ("natural", "uniform")}
    for k, name in enumerate(wafers.classes):
        cells = [
            np.mean([one.f1[k] for one in alone["natural"]]),
            np.mean([one.balanced_f1[k] for one in alone["uniform"]]),
            together["natural"].f1[k],
            together["uniform"].balanced_f1[k],
        ]
        yield (
            f"| {name} | "
            + " | ".join(f"{100 * cell:.1f}" for cell in cells)
            + f" | {alone['natural'][0].support[k]} |"
        )


def _scores(judged: Judged, decision: str) -> Scores:
    return score_confusion(count_by_lot(judged, decision).sum(0))
