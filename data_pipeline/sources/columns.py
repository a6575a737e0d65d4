"""Read Parquet files of wafer maps, a row per wafer, whoever wrote them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_pipeline.errors import DataError, first_line
from data_pipeline.sources.bombs import refuse_bomb
from data_pipeline.sources.raw import MAX_INDEXABLE, MAX_SIDE, RawWafers, list_names, to_codes

_NEEDED = ("map", "height", "width", "lot")
_OPTIONAL = ("label", "official")
_BATCH = 500  # rows decoded together: equal maps, stored once, unpack to megabytes each
_ROW_BYTES = 40  # at least, of a wafer in memory
_DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, RuntimeError, TypeError,
    ValueError, pa.ArrowException,
)  # fmt: skip


def read_parquet(path: Path) -> RawWafers:
    """Read a Parquet file with a row per wafer.

    Its columns: `map`, the height x width die codes, either binary (row-major, a byte per cell) or a list of rows;
    `height` and `width`; `lot`, a string or a number; and, if known, `label` and `official`, strings that may be null.
    More columns are ignored. Checksums are verified where the file has them.

    Raises:
        DataError: If the file is missing or damaged, lacks a column, or a map does not have the size that its row says.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_file(file, path)
            return _read(file, path)
    except FileNotFoundError:
        raise DataError(f"{path}: cannot be read (No such file or directory)") from None
    except PermissionError:
        raise DataError(f"{path}: cannot be read (Permission denied)") from None
    except (OSError, *_DAMAGE) as error:  # pyarrow reports damage as OSError too
        raise DataError(f"{path}: damaged or not a .parquet file ({first_line(error)}); get it again") from None


def stream_parquet(path: Path, *, size: int, n_cells: int) -> Iterator[tuple[RawWafers, int]]:
    """Read such a file piece by piece, and do without the rows that cannot be read.

    Args:
        path: The file.
        size: Rows in a piece, at most.
        n_cells: In a piece, about; fewer rows are read at once where maps are large.

    Yields:
        Wafers with their `rows` and what is `missing`, in order, and the number of all rows.

    Raises:
        DataError: If the file is missing, damaged as a whole, or lacks a column.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_file(file, path)
            first = 0
            n_rows, n_bytes = file.metadata.num_rows, 0
            for group in range(file.metadata.num_row_groups):
                n_bytes += file.metadata.row_group(group).total_byte_size
            at_once = min(size, max(1, n_cells * n_rows // max(n_bytes, 1)))
            for batch in _batches(file, size=at_once):
                yield _read_what_can_be_read(batch, first, path), n_rows
                first += len(batch)
    except FileNotFoundError:
        raise DataError(f"{path}: cannot be read (No such file or directory)") from None
    except PermissionError:
        raise DataError(f"{path}: cannot be read (Permission denied)") from None
    except (OSError, *_DAMAGE) as error:
        raise DataError(f"{path}: damaged or not a .parquet file ({first_line(error)}); get it again") from None


def _read_what_can_be_read(batch: pa.RecordBatch, first: int, path: Path) -> RawWafers:
    found, rows, missing = _Found(path=path), list[int](), _find_too_large(batch, first)
    # Halved until what is wrong stands alone; what is too large is not even decoded.
    todo = [(start, stop) for start, stop in _between(missing, first, first + len(batch))][::-1]
    while todo:
        start, stop = todo.pop()
        try:
            found.add(batch.slice(start - first, stop - start))
            rows += range(start, stop)
        except DataError as error:
            if stop - start == 1:
                missing[start] = str(error).removeprefix(f"{path}: ").split(" in row ")[0]
            else:
                middle = (start + stop) // 2
                todo += [(middle, stop), (start, middle)]
    return replace(found.to_raw(), rows=np.array(rows, dtype=np.int64), missing=missing)


def _find_too_large(batch: pa.RecordBatch, first: int) -> dict[int, str]:
    missing: dict[int, str] = {}
    for name in ("height", "width"):
        sides = batch.column(name)
        if pa.types.is_integer(sides.type):
            large = pc.fill_null(pc.greater(sides, MAX_SIDE), False).to_numpy(zero_copy_only=False)
            missing |= {
                first + i: f"{name}: must be at most {MAX_SIDE:,} dies; got {sides[i]}"
                for i in np.flatnonzero(large).tolist()
            }
    return missing


def _between(rows: Iterable[int], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """List the gaps between some of the rows from `start` to `stop`, each as its first row and the one after it."""
    for row in [*sorted(rows), stop]:
        if row > start:
            yield start, row
        start = row + 1


def view_cells(maps: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """View the cells of binary maps, without a Python object for each.

    Args:
        maps: N maps, of type binary, none of them null.

    Returns:
        All cells one after the other, a view of Arrow's buffer, and the number of cells of each map, shape (N,).
    """
    _, offsets, data = maps.buffers()
    bounds = np.frombuffer(offsets, np.int32, count=maps.offset + len(maps) + 1)[maps.offset :].astype(np.int64)
    cells = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    return cells, np.diff(bounds)


def _check_file(file: pq.ParquetFile, path: Path) -> None:
    names = file.schema_arrow.names
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise DataError(
            f"{path}: lacks the columns {', '.join(missing)}; found {list_names(names)}; "
            f"must have {', '.join(_NEEDED)}, may have {' and '.join(_OPTIONAL)}"
        )
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    refuse_bomb(sum(group.total_byte_size for group in groups), packed=path.stat().st_size, path=path, what="bytes")
    refuse_bomb(file.metadata.num_rows * _ROW_BYTES, packed=path.stat().st_size, path=path, what="bytes of rows")


@dataclass(kw_only=True)
class _Found:
    """What the batches read so far hold."""

    path: Path
    n_cells: int = 0
    cells: list[NDArray[np.uint8]] = field(default_factory=list)
    heights: list[NDArray[np.int64]] = field(default_factory=list)
    widths: list[NDArray[np.int64]] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    lots: list[str] = field(default_factory=list)
    official: list[str | None] = field(default_factory=list)

    def add(self, batch: pa.RecordBatch) -> None:
        first = len(self.lots)
        heights, widths = (self._to_sides(batch.column(name), name, first) for name in ("height", "width"))
        cells, sizes = self._to_cells(batch.column("map"), widths, first)
        wrong = sizes != heights * widths
        if wrong.any():
            bad = int(np.argmax(wrong))
            raise DataError(
                f"{self.path}: map: must have height x width cells; got {sizes[bad]:,} for "
                f"{heights[bad]}x{widths[bad]} in row {first + bad}"
            )
        lots = [str(lot) for lot in self._to_texts(batch, "lot", first, is_needed=True)]
        labels, official = (self._to_texts(batch, name, first) for name in ("label", "official"))
        n_cells = self.n_cells + len(cells)
        refuse_bomb(n_cells, packed=self.path.stat().st_size, path=self.path, what="cells")
        # Nothing before this line, so that a batch is taken whole or not at all.
        self.n_cells = n_cells
        self.cells.append(cells)
        self.heights.append(heights)
        self.widths.append(widths)
        self.lots += lots
        self.labels += labels
        self.official += official

    def to_raw(self) -> RawWafers:
        """Put all that was read together."""
        return RawWafers(
            cells=np.concatenate([np.empty(0, np.uint8), *self.cells]),
            heights=np.concatenate([np.empty(0, np.int64), *self.heights]),
            widths=np.concatenate([np.empty(0, np.int64), *self.widths]),
            labels=self.labels,
            lots=self.lots,
            official=self.official,
            source=str(self.path),
        )

    def _to_cells(
        self, maps: pa.Array, widths: NDArray[np.int64], first: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        self._check_no_null(maps, "map", first)
        if pa.types.is_binary(maps.type):
            cells, sizes = view_cells(maps)
            return to_codes(cells).copy(), sizes
        if not _is_list(maps.type) or not _is_list(maps.type.value_type) or not _is_number(maps.type.value_type):
            raise DataError(f"{self.path}: map: must be binary or a list of rows of numbers; got {maps.type}")
        lines = pc.list_flatten(maps)
        values = pc.list_flatten(lines)
        if lines.null_count or values.null_count:
            raise DataError(f"{self.path}: map: must hold no null among its cells; clean it first")
        n_lines = pc.list_value_length(maps).to_numpy().astype(np.int64)
        lengths = pc.list_value_length(lines).to_numpy().astype(np.int64)
        owner = np.repeat(np.arange(len(maps)), n_lines)
        uneven = lengths != widths[owner]
        if uneven.any():
            bad = int(np.argmax(uneven))
            raise DataError(
                f"{self.path}: map: must have rows of `width` cells; got one of {lengths[bad]} for a width of "
                f"{widths[owner[bad]]} in row {first + int(owner[bad])}"
            )
        sizes = np.bincount(owner, weights=lengths, minlength=len(maps)).astype(np.int64)
        return to_codes(values.to_numpy(zero_copy_only=False)), sizes

    def _to_sides(self, values: pa.Array, name: str, first: int) -> NDArray[np.int64]:
        if not pa.types.is_integer(values.type):
            raise DataError(f"{self.path}: {name}: must hold whole numbers; got {values.type}; convert it")
        self._check_no_null(values, name, first)
        sides = values.to_numpy()
        wrong = (sides < 0) | (sides >= MAX_INDEXABLE)
        if wrong.any():
            bad = int(np.argmax(wrong))
            raise DataError(f"{self.path}: {name}: must be a number of dies; got {sides[bad]} in row {first + bad}")
        return sides.astype(np.int64)  # type: ignore[no-any-return]  # pyarrow has no types

    def _to_texts(self, batch: pa.RecordBatch, name: str, first: int, *, is_needed: bool = False) -> list[str | None]:
        if name not in batch.schema.names:
            return [None] * len(batch)
        values = batch.column(name)
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
        if not (is_text or pa.types.is_integer(values.type) if is_needed else is_text or pa.types.is_null(values.type)):
            raise DataError(f"{self.path}: {name}: must hold strings; got {values.type}; convert it")
        if is_needed:
            self._check_no_null(values, name, first)
        coded = values.dictionary_encode()  # one object for each spelling, not one for each wafer
        texts = [None if text is None else str(text) or None for text in coded.dictionary.to_pylist()]
        return [None if i is None else texts[i] for i in coded.indices.to_pylist()]

    def _check_no_null(self, values: pa.Array, name: str, first: int) -> None:
        if values.null_count:
            bad = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
            raise DataError(f"{self.path}: {name}: must never be null; got null in row {first + bad}; fill or drop it")


def _read(file: pq.ParquetFile, path: Path) -> RawWafers:
    found = _Found(path=path)
    for batch in _batches(file, size=_BATCH):
        found.add(batch)
    metadata = file.schema_arrow.metadata or {}  # ours, where there is some
    return replace(found.to_raw(), is_synthetic=metadata.get(b"wafers.synthetic") == b"true")


def _batches(file: pq.ParquetFile, *, size: int) -> Iterator[pa.RecordBatch]:
    names = [name for name in (*_NEEDED, *_OPTIONAL) if name in file.schema_arrow.names]
    for batch in file.iter_batches(batch_size=size, columns=names):
        batch.validate(full=True)  # a damaged file may make offsets that lead out of their buffer
        yield batch


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type))
