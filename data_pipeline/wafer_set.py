"""WaferSet: labelled wafer maps of any size, as they came from the tester."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError

NO_DIE, PASS, FAIL = 0, 1, 2
UNLABELLED = -1
OFFICIAL_PARTS = ("Training", "Test")  # of the split that WM-811K was published with

# The nine classes of WM-811K; a data set with other names brings its own.
WM811K_CLASSES = (
    "Center",
    "Donut",
    "Edge-Loc",
    "Edge-Ring",
    "Loc",
    "Near-full",
    "none",
    "Random",
    "Scratch",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class WaferSet:
    """Wafer maps at native resolution, with what is known about each.

    All maps lie one after the other in `cells`, row-major: map i is
    `cells[offsets[i]:offsets[i + 1]].reshape(heights[i], widths[i])`. Treat the arrays as read-only.

    Attributes:
        cells: Die codes of all maps, uint8: 0 no die, 1 pass, 2 fail.
        offsets: Start of each map in `cells`, shape (N + 1,), int64.
        heights: Rows of each map, shape (N,), int64.
        widths: Columns of each map, shape (N,), int64.
        labels: Index into `classes`, shape (N,), int64; UNLABELLED (-1) where nobody looked.
        classes: Names of the K classes.
        lots: Index into `lot_names`, shape (N,), int64. Wafers of one lot were processed together.
        lot_names: Name of each lot.
        source: Where the maps came from, for people.
        is_synthetic: True if a generator drew them; every page then says SYNTHETIC.
        official: Index into OFFICIAL_PARTS, shape (N,), int8; -1 where unknown. None if it is unknown for all.

    Raises:
        DataError: If the arrays do not fit together or hold values out of range.
    """

    cells: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    lots: NDArray[np.int64]
    lot_names: tuple[str, ...]
    source: str
    is_synthetic: bool = False
    official: NDArray[np.int8] | None = None

    def __post_init__(self) -> None:
        n = len(self.heights)
        for name in ("widths", "labels", "lots"):
            if len(getattr(self, name)) != n:
                raise DataError(f"{self.source}: {name} has {len(getattr(self, name))} entries for {n} maps")
        if n == 0:
            raise DataError(f"{self.source}: holds no wafer")
        sizes = self.heights * self.widths
        if len(self.offsets) != n + 1 or self.offsets[0] != 0 or self.offsets[-1] != len(self.cells):
            raise DataError(f"{self.source}: offsets must run from 0 to the {len(self.cells)} cells")
        if self.heights.min() < 1 or self.widths.min() < 1 or (np.diff(self.offsets) != sizes).any():
            bad = int(np.argmax((np.diff(self.offsets) != sizes) | (sizes < 1)))
            raise DataError(
                f"{self.source}: map {bad} is {self.heights[bad]}x{self.widths[bad]} dies but has "
                f"{self.offsets[bad + 1] - self.offsets[bad]} cells"
            )
        if self.cells.dtype != np.uint8 or self.cells.max() > FAIL:
            raise DataError(f"{self.source}: die codes must be uint8 0 (no die), 1 (pass) or 2 (fail)")
        if self.labels.min() < UNLABELLED or self.labels.max() >= len(self.classes):
            raise DataError(f"{self.source}: a label lies outside the {len(self.classes)} classes")
        if self.lots.min() < 0 or self.lots.max() >= len(self.lot_names):
            raise DataError(f"{self.source}: a lot lies outside the {len(self.lot_names)} lot names")
        if self.official is not None and (
            len(self.official) != n or self.official.min() < -1 or self.official.max() >= len(OFFICIAL_PARTS)
        ):
            raise DataError(
                f"{self.source}: official must be -1 (unknown), 0 (Training) or 1 (Test) for each of {n} maps"
            )

    def __len__(self) -> int:
        return len(self.heights)

    def map(self, index: int) -> NDArray[np.uint8]:
        """Return map `index` as a view of shape (height, width)."""
        flat = self.cells[self.offsets[index] : self.offsets[index + 1]]
        return flat.reshape(int(self.heights[index]), int(self.widths[index]))

    @cached_property
    def content(self) -> NDArray[np.uint64]:
        """Hash of each map's shape and cells, shape (N,): equal exactly for bit-identical maps."""
        hashes = np.empty(len(self), dtype=np.uint64)
        for i in range(len(self)):
            shape = self.heights[i].tobytes() + self.widths[i].tobytes()
            cells = self.cells[self.offsets[i] : self.offsets[i + 1]]
            digest = hashlib.blake2b(cells.data, digest_size=8, key=shape)
            hashes[i] = int.from_bytes(digest.digest(), "little")
        return hashes

    @property
    def fail_rates(self) -> NDArray[np.float64]:
        """Share of each map's dies that fail, shape (N,); 0 where there is no die."""
        n_fails, n_dies = np.empty(len(self)), np.empty(len(self))
        for start in range(0, len(self), 20_000):  # in pieces: the temporary arrays are several times the cells
            first, stop = self.offsets[start], self.offsets[min(start + 20_000, len(self))]
            cells, starts = self.cells[first:stop], self.offsets[start : start + 20_000][: len(self) - start] - first
            rows = slice(start, start + len(starts))
            n_fails[rows] = np.add.reduceat(cells == FAIL, starts, dtype=np.int64)
            n_dies[rows] = np.add.reduceat(cells != NO_DIE, starts, dtype=np.int64)
        return n_fails / np.maximum(n_dies, 1)

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits that change with any map, label, lot or class name."""
        digest = hashlib.sha256(self.content.tobytes())
        digest.update(self.labels.tobytes())
        digest.update(self.lots.tobytes())
        digest.update("\0".join((*self.classes, "|", *self.lot_names)).encode())
        return digest.hexdigest()[:12]

    def counts(self) -> NDArray[np.int64]:
        """Count the wafers of each class, shape (K,)."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes)).astype(np.int64)


def make_wafer_set(
    maps: Iterable[NDArray[np.uint8]],
    labels: Sequence[str | None],
    lots: Sequence[str],
    *,
    source: str,
    classes: Sequence[str] | None = None,
    is_synthetic: bool = False,
    official: Sequence[int] | None = None,
) -> WaferSet:
    """Collect single maps into a WaferSet.

    Args:
        maps: One array of die codes per wafer, shape (height, width).
        labels: Class name of each wafer, None where unlabelled.
        lots: Lot name of each wafer.
        source: Where the maps came from, for messages.
        classes: Names and order of the classes; by default those that occur, see `order_classes`.
        is_synthetic: Whether a generator drew them.
        official: Index into OFFICIAL_PARTS of each wafer, -1 where unknown.

    Raises:
        DataError: If lengths differ, a label is not among `classes`, or a map is not two-dimensional.
    """
    kept = [np.ascontiguousarray(one, dtype=np.uint8) for one in maps]
    if any(one.ndim != 2 for one in kept):
        raise DataError(f"{source}: every map must have two dimensions")
    heights = np.array([one.shape[0] for one in kept], dtype=np.int64)
    widths = np.array([one.shape[1] for one in kept], dtype=np.int64)
    names = order_classes(label for label in labels if label is not None) if classes is None else tuple(classes)
    codes, lot_names = index_lots(lots)
    return WaferSet(
        cells=np.concatenate([one.ravel() for one in kept]) if kept else np.empty(0, np.uint8),
        offsets=np.concatenate([[0], np.cumsum(heights * widths)]).astype(np.int64),
        heights=heights,
        widths=widths,
        labels=index_labels(labels, names, source=source),
        classes=names,
        lots=codes,
        lot_names=lot_names,
        source=source,
        is_synthetic=is_synthetic,
        official=None if official is None else np.array(official, dtype=np.int8),
    )


def order_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """List the class names that occur: WM-811K's in their usual order, else alphabetically.

    Example:
        >>> order_classes(["Scratch", "none", "Scratch"])
        ('none', 'Scratch')
        >>> order_classes(["ring", "arc"])
        ('arc', 'ring')
    """
    found = set(labels)
    if found <= set(WM811K_CLASSES):
        return tuple(name for name in WM811K_CLASSES if name in found)
    return tuple(sorted(found))


def index_labels(labels: Sequence[str | None], classes: Sequence[str], *, source: str) -> NDArray[np.int64]:
    """Turn class names into indices; None becomes UNLABELLED.

    Raises:
        DataError: If a label is not among `classes`.
    """
    positions: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    positions[None] = UNLABELLED
    unknown = sorted({str(label) for label in labels if label not in positions})
    if unknown:
        raise DataError(f"{source}: unknown class {', '.join(unknown)}; known: {', '.join(classes)}")
    return np.array([positions[label] for label in labels], dtype=np.int64)


def index_lots(lots: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Number the lots in the order in which they first appear."""
    numbers: dict[str, int] = {}
    codes = np.array([numbers.setdefault(str(lot), len(numbers)) for lot in lots], dtype=np.int64)
    return codes, tuple(numbers)
