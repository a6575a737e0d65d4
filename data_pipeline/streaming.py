"""Any source of wafer maps, piece by piece, with what is wrong with single wafers instead of an error for all."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.cleaning import assemble, judge_maps
from data_pipeline.labels import spell_labels
from data_pipeline.sources.columns import stream_parquet
from data_pipeline.sources.folders import stream_folders
from data_pipeline.sources.raw import MAX_SIDE, RawWafers
from data_pipeline.sources.reading import read_source
from data_pipeline.wafer_set import WaferSet

PIECE = 2048  # wafers
_PIECE_CELLS = 64 << 20  # of real maps a piece has a tenth of that


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some wafers of a source.

    Attributes:
        wafers: The usable ones; None if there is none. Labels that are unknown classes are kept as such.
        rows: Number of each one's row in the source, from 0, shape (N,), ascending.
        problems: By row, what is wrong with those that are not usable.
        lots: By row, the lot of those, where it could be read.
        names: By row, what these wafers, and maybe others, are called in the source; empty if only numbers tell them
            apart.
        left_out: What else the reader left out, by reason: it is told once, with the first piece.
        n_all: Wafers in the whole source.
    """

    wafers: WaferSet | None
    rows: NDArray[np.int64]
    problems: Mapping[int, str]
    lots: Mapping[int, str]
    names: Mapping[int, str]
    left_out: Mapping[str, int]
    n_all: int


def stream_wafers(path: Path, *, size: int = PIECE) -> Iterator[Piece]:
    """Go through a source that `prepare` reads.

    A Parquet file and a folder are read in pieces, and what is damaged in them costs its own wafer alone; all others
    are read as a whole first, by the readers that they have.

    Args:
        path: A file or a folder.
        size: Wafers in a piece, at most.

    Raises:
        DataError: If there is nothing, its kind is unknown, or its reader refuses it.
    """
    for raw, n_all in _read(path, size):
        rows = np.arange(len(raw)) if raw.rows is None else raw.rows
        problems, lots = dict(raw.missing), dict[int, str]()
        strikes = judge_maps(raw) | {
            f"more than {MAX_SIDE:,} dies high or wide": np.maximum(raw.heights, raw.widths) > MAX_SIDE
        }
        for reason, is_struck in strikes.items():
            for i in np.flatnonzero(is_struck).tolist():
                problems[int(rows[i])] = reason
                lots[int(rows[i])] = raw.lots[i]
        kept = np.flatnonzero(~np.logical_or.reduce(list(strikes.values())))
        labels = spell_labels(raw.labels, rename={}, keep_unknown=True, source=raw.source)
        told = set(raw.missing.values())
        yield Piece(
            wafers=assemble(raw, kept, labels) if len(kept) else None,
            rows=rows[kept],
            problems=problems,
            lots=lots,
            names=raw.names,
            left_out={reason: n for reason, n in raw.left_out.items() if reason not in told},
            n_all=n_all,
        )


def _read(path: Path, size: int) -> Iterator[tuple[RawWafers, int]]:
    if path.is_dir():
        return stream_folders(path, size=size, n_cells=_PIECE_CELLS)
    if path.is_file() and path.stat().st_size and path.name.lower().endswith(".parquet"):
        return stream_parquet(path, size=size, n_cells=_PIECE_CELLS)
    return _cut(read_source(path), size)


def _cut(whole: RawWafers, size: int) -> Iterator[tuple[RawWafers, int]]:
    """Cut what was read as a whole; each piece takes along what is missing up to the next one's first wafer."""
    rows = np.arange(len(whole)) if whole.rows is None else whole.rows
    missing, offsets = np.sort(np.fromiter(whole.missing, dtype=np.int64)), whole.offsets
    told = set(whole.missing.values())
    rest = {reason: n for reason, n in whole.left_out.items() if reason not in told}
    for start in range(0, max(len(whole), 1), size):
        stop = min(start + size, len(whole))
        bounds = (rows[start] if start else 0, rows[stop] if stop < len(whole) else np.iinfo(np.int64).max)
        first, last = np.searchsorted(missing, bounds)
        yield (
            RawWafers(
                cells=whole.cells[offsets[start] : offsets[stop]],
                heights=whole.heights[start:stop],
                widths=whole.widths[start:stop],
                labels=whole.labels[start:stop],
                lots=whole.lots[start:stop],
                official=whole.official[start:stop],
                source=whole.source,
                left_out={} if start else rest,
                rows=rows[start:stop],
                missing={row: whole.missing[row] for row in missing[first:last].tolist()},
                names=whole.names,
            ),
            len(whole) + len(missing),
        )
