"""RawWafers: what a reader found in a file, before anything is judged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.wafer_set import FAIL

ILLEGAL = 255  # stands for every value that is not a die code
MAX_SIDE = 2_000  # dies; real maps have at most a few hundred
MAX_INDEXABLE = 1 << 31  # dies; keeps height x width within int64


@dataclass(frozen=True, kw_only=True, eq=False)
class RawWafers:
    """Wafer maps as they stand in a file: labels in any spelling, maps of any quality.

    Attributes:
        cells: All maps one after the other, row-major, uint8: 0, 1, 2, and ILLEGAL for any other value.
        heights: Rows of each map, shape (N,), int64.
        widths: Columns of each map, shape (N,), int64.
        labels: Label of each as written, None where there is none.
        lots: Name of each wafer's lot.
        official: Its part of the published split as written, "Training" or "Test", None where there is none.
        source: Where they came from, for people.
        left_out: How many wafers the reader could not take, by reason.
        rows: Number of each wafer in the source, from 0, shape (N,), ascending; None: all are here.
        missing: By number, what is wrong with wafers that are not here, as far as the reader can tell which they are.
        names: By number, what wafers are called in the source, missing ones included; empty if only numbers tell them
            apart.
        is_synthetic: Whether a generator drew them, as the file says.
    """

    cells: NDArray[np.uint8]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    labels: Sequence[str | None]
    lots: Sequence[str]
    official: Sequence[str | None]
    source: str
    left_out: Mapping[str, int] = field(default_factory=dict)
    rows: NDArray[np.int64] | None = None
    missing: Mapping[int, str] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    is_synthetic: bool = False

    def __post_init__(self) -> None:
        n = len(self.heights)
        for name in ("widths", "labels", "lots", "official"):
            if len(getattr(self, name)) != n:
                raise DataError(f"{self.source}: {name} has {len(getattr(self, name))} entries for {n} maps")
        if self.rows is not None and len(self.rows) != n:
            raise DataError(f"{self.source}: rows has {len(self.rows)} entries for {n} maps")
        if int((self.heights * self.widths).sum()) != len(self.cells):
            raise DataError(f"{self.source}: the maps have {len(self.cells)} cells, their sizes ask for other ones")

    def __len__(self) -> int:
        return len(self.heights)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Start of each map in `cells`, shape (N + 1,)."""
        return np.concatenate([[0], np.cumsum(self.heights * self.widths)]).astype(np.int64)


def to_codes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn cells of any numeric type into die codes; what is not 0, 1 or 2 becomes ILLEGAL.

    Example:
        >>> to_codes(np.array([[0.0, 2.0], [1.5, np.nan]]))
        array([[  0,   2],
               [255, 255]], dtype=uint8)
    """
    if values.dtype == np.uint8:
        return np.where(values <= FAIL, values, np.uint8(ILLEGAL)) if values.size and values.max() > FAIL else values
    codes = np.full(values.shape, ILLEGAL, dtype=np.uint8)
    for code in range(FAIL + 1):
        codes[values == code] = code
    return codes


def gather(
    maps: Iterable[NDArray[np.uint8]],
    *,
    labels: Sequence[str | None],
    lots: Sequence[str],
    official: Sequence[str | None] | None = None,
    source: str,
    left_out: Mapping[str, int] | None = None,
    rows: Sequence[int] | None = None,
    missing: Mapping[int, str] | None = None,
    names: Mapping[int, str] | None = None,
) -> RawWafers:
    """Put single maps of codes, each of shape (height, width), one after the other.

    Raises:
        DataError: If the sequences differ in length.
    """
    # One buffer that grows in place: a list and its concatenation would hold gigabytes twice.
    cells = bytearray()
    shapes: list[tuple[int, ...]] = []
    for one in maps:
        cells += one.tobytes()
        shapes.append(one.shape)
    heights, widths = np.array(shapes, dtype=np.int64).reshape(-1, 2).T
    return RawWafers(
        cells=np.frombuffer(cells, dtype=np.uint8),
        heights=heights,
        widths=widths,
        labels=labels,
        lots=lots,
        official=[None] * len(shapes) if official is None else official,
        source=source,
        left_out=left_out or {},
        rows=None if rows is None else np.array(rows, dtype=np.int64),
        missing=missing or {},
        names=names or {},
    )


def list_names(names: Sequence[str]) -> str:
    """Write the names that a file holds for people, shortened: they may be hostile.

    Example:
        >>> list_names(["maps", "lot"]), list_names([])
        ("'maps', 'lot'", 'none at all')
    """
    return ", ".join(repr(name[:50]) for name in names[:20]) or "none at all"
