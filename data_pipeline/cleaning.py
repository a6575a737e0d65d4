"""RawWafers -> WaferSet: wafers that cannot be right are dropped, with a reason and a count."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.labels import spell_labels
from data_pipeline.sources.raw import ILLEGAL, RawWafers
from data_pipeline.wafer_set import NO_DIE, OFFICIAL_PARTS, WaferSet, index_labels, index_lots, order_classes

MIN_DIES = 100
_CHUNK = 20_000  # wafers looked at together: keeps temporary arrays far below the size of a large file


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cleaned:
    """What is left, and what is not.

    Attributes:
        wafers: The usable wafers, unlabelled ones included.
        dropped: Wafers that are not among them, by reason, those that the reader left out included.
    """

    wafers: WaferSet
    dropped: Mapping[str, int]


def clean_wafers(
    raw: RawWafers, *, rename: Mapping[str, str | None] | None = None, keep_unknown: bool = False
) -> Cleaned:
    """Drop degenerate maps and spell the labels alike.

    A map is dropped if it holds values other than 0, 1 and 2, no die, or fewer than MIN_DIES dies: WM-811K has a
    labelled one of 15x3.

    Args:
        raw: From `read_source`.
        rename: See `spell_labels`.
        keep_unknown: See `spell_labels`.

    Raises:
        DataError: If no wafer is left, labels are unknown, or `rename` names one that is absent.
    """
    labels = spell_labels(raw.labels, rename=rename or {}, keep_unknown=keep_unknown, source=raw.source)
    verdicts = judge_maps(raw)
    dropped = dict(raw.left_out)
    for reason, verdict in verdicts.items():
        if verdict.any():
            dropped[reason] = dropped.get(reason, 0) + int(verdict.sum())
    kept = np.flatnonzero(~np.logical_or.reduce(list(verdicts.values())))
    if len(kept) == 0:
        raise DataError(f"{raw.source}: no usable wafer; {list_dropped(dropped) or 'the file holds none'}")
    return Cleaned(wafers=assemble(raw, kept, labels), dropped=dropped)


def list_dropped(dropped: Mapping[str, int]) -> str:
    """Say what was dropped, in one line; "" if nothing was."""
    return "; ".join(f"{count:,} wafers dropped: {reason}" for reason, count in dropped.items())


def judge_maps(raw: RawWafers) -> dict[str, NDArray[np.bool_]]:
    """Say for each reason which maps it strikes, shape (N,); no map is struck twice."""
    n = len(raw)
    illegal, n_dies = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.int64)
    offsets, filled = raw.offsets, np.flatnonzero(raw.heights * raw.widths)
    for start in range(0, len(filled), _CHUNK):
        rows = filled[start : start + _CHUNK]
        first, last = offsets[rows[0]], offsets[rows[-1] + 1]
        cells = raw.cells[first:last]
        starts = offsets[rows] - first
        illegal[rows] = np.maximum.reduceat(cells, starts) == ILLEGAL
        n_dies[rows] = np.add.reduceat(cells != NO_DIE, starts, dtype=np.int64)
    return {
        "values other than 0 (no die), 1 (pass), 2 (fail)": illegal,
        "no die": ~illegal & (n_dies == 0),
        f"fewer than {MIN_DIES} dies": ~illegal & (n_dies > 0) & (n_dies < MIN_DIES),
    }


def assemble(raw: RawWafers, kept: NDArray[np.int64], labels: list[str | None]) -> WaferSet:
    """Make a WaferSet of those wafers of a file that are kept.

    Args:
        raw: From a reader.
        kept: Their positions, ascending, at least one.
        labels: Of all wafers of the file, spelled as classes are; None where there is none.
    """
    heights, widths, offsets = raw.heights[kept], raw.widths[kept], raw.offsets
    cells = raw.cells
    if len(kept) < len(raw):
        # Runs of neighbours are copied as one: a large file has few gaps.
        runs = np.split(kept, np.flatnonzero(np.diff(kept) != 1) + 1)
        cells = np.concatenate([cells[offsets[run[0]] : offsets[run[-1] + 1]] for run in runs])
    names = [labels[i] for i in kept]
    classes = order_classes(name for name in names if name is not None)
    lots, lot_names = index_lots([raw.lots[i] for i in kept])
    return WaferSet(
        cells=cells,
        offsets=np.concatenate([[0], np.cumsum(heights * widths)]).astype(np.int64),
        heights=heights,
        widths=widths,
        labels=index_labels(names, classes, source=raw.source),
        classes=classes,
        lots=lots,
        lot_names=lot_names,
        source=raw.source,
        official=_read_official([raw.official[i] for i in kept]),
        is_synthetic=raw.is_synthetic,
    )


def _read_official(parts: list[str | None]) -> NDArray[np.int8] | None:
    codes = {part.casefold(): code for code, part in enumerate(OFFICIAL_PARTS)}
    official = np.array([codes.get((part or "").strip().casefold(), -1) for part in parts], dtype=np.int8)
    return official if (official >= 0).any() else None
