"""Any source of wafer maps, piece by piece, with what is wrong with single wafers instead of an error for all."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.cleaning import assemble, judge_maps
from data_pipeline.labels import spell_labels
from data_pipeline.sources.columns import stream_parquet
from data_pipeline.sources.raw import RawWafers
from data_pipeline.sources.reading import read_source
from data_pipeline.wafer_set import WaferSet

PIECE = 2048  # wafers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """Some wafers of a source.

    Attributes:
        wafers: The usable ones; None if there is none. Labels that are unknown classes are kept as such.
        rows: Number of each one's row in the source, from 0, shape (N,).
        problems: By row, what is wrong with those that are not usable.
        lots: By row, the lot of those, where it could be read.
    """

    wafers: WaferSet | None
    rows: NDArray[np.int64]
    problems: dict[int, str]
    lots: dict[int, str]


def stream_wafers(path: Path, *, size: int = PIECE) -> Iterator[Piece]:
    """Go through a source that `prepare` reads.

    A Parquet file is read in pieces; all others are read as a whole first, by the readers that they have.

    Args:
        path: A file or a folder.
        size: Wafers in a piece, at most.

    Raises:
        DataError: If there is nothing, its kind is unknown, or its reader refuses it.
    """
    for raw, rows, problems in _read(path, size):
        strikes = judge_maps(raw)
        lots: dict[int, str] = {}
        for reason, is_struck in strikes.items():
            for i in np.flatnonzero(is_struck).tolist():
                problems[int(rows[i])] = reason
                lots[int(rows[i])] = raw.lots[i]
        kept = np.flatnonzero(~np.logical_or.reduce(list(strikes.values())))
        labels = spell_labels(raw.labels, rename={}, keep_unknown=True, source=raw.source)
        wafers = assemble(raw, kept, labels) if len(kept) else None
        yield Piece(wafers=wafers, rows=rows[kept], problems=problems, lots=lots)


def _read(path: Path, size: int) -> Iterator[tuple[RawWafers, NDArray[np.int64], dict[int, str]]]:
    if path.is_file() and path.name.lower().endswith(".parquet"):
        yield from stream_parquet(path, size=size)
        return
    whole = read_source(path)
    offsets = whole.offsets
    for start in range(0, len(whole), size):
        stop = min(start + size, len(whole))
        piece = RawWafers(
            cells=whole.cells[offsets[start] : offsets[stop]],
            heights=whole.heights[start:stop],
            widths=whole.widths[start:stop],
            labels=whole.labels[start:stop],
            lots=whole.lots[start:stop],
            official=whole.official[start:stop],
            source=whole.source,
        )
        yield piece, np.arange(start, stop), {}
