"""Read wafer files and write our own Parquet.

Parquet schema, one row per wafer: `map` binary (height x width die codes, row-major), `height` and `width` int32,
`label` string (null: unlabelled), `lot` string, `official` string ("Training", "Test" or null: the published split).
File metadata: `wafers.format` "1", `wafers.classes` JSON list, `wafers.source`, `wafers.synthetic` "true" or "false".
"""

import json
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_pipeline.errors import DataError, first_line
from data_pipeline.files import replaced_atomically
from data_pipeline.sources.columns import view_cells
from data_pipeline.synthetic import make_wafers
from data_pipeline.wafer_set import OFFICIAL_PARTS, WaferSet, index_labels, index_lots, order_classes

PREPARED = Path("data/wafers.parquet")
_ROW_GROUP, _GROUP_CELLS = 10_000, 64 << 20  # at most; offsets within a group are of 32 bits
_SCHEMA = pa.schema(
    [
        ("map", pa.binary()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("label", pa.string()),
        ("lot", pa.string()),
        ("official", pa.string()),
    ]
)
_NPZ_ARRAYS = ("maps", "offset", "height", "width", "label", "lot")
# All that the readers raised when a fuzzer damaged or swapped their files.
_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error, pa.ArrowException,
)  # fmt: skip


def load_wafers(path: Path) -> WaferSet:
    """Read a wafer file and check all of it.

    Args:
        path: `.npz` (arrays maps, offset, height, width, label, lot; see docs/data.md) or our `.parquet`.

    Raises:
        DataError: If the file is missing, of another kind, damaged, or holds impossible wafers.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; give a .npz or .parquet file of wafer maps")
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give a .npz or .parquet file of wafer maps")
    readers = {".npz": _read_npz, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise DataError(
            f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(readers)}; "
            f"others become one by `python -m data_pipeline.prepare {path}`"
        )
    try:
        return readers[path.suffix.lower()](path)
    except PermissionError:
        raise DataError(f"{path}: may not be read; check its permissions") from None
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged or not a wafer file ({first_line(error)})") from None


def are_drawn(asked: str) -> bool:
    """Whether `find_wafers` draws wafers for this and reads no file."""
    return asked == "synthetic" or (asked == "auto" and not PREPARED.exists())


def find_wafers(asked: str, *, synthetic_wafers: int) -> WaferSet:
    """Load the wafers that a space or the command line asks for.

    Args:
        asked: A path, or "auto": `data/wafers.parquet` in the current folder where it exists, else synthetic
            wafers. "synthetic" asks for those outright.
        synthetic_wafers: How many to draw where they are synthetic.

    Raises:
        DataError: See `load_wafers`, and `make_wafers` where they are synthetic.
    """
    if are_drawn(asked):
        return make_wafers(synthetic_wafers)
    return load_wafers(PREPARED if asked == "auto" else Path(asked))


def check_parquet_name(path: Path) -> None:
    """Refuse a name that `load_wafers` would not take for Parquet, before any work is done for it.

    Raises:
        DataError: If it does not end in .parquet.
    """
    if path.suffix.lower() != ".parquet":
        raise DataError(f"{path}: must end in .parquet; got {path.suffix!r}")


def write_parquet(wafers: WaferSet, path: Path, *, progress: Callable[[int, int], None] | None = None) -> None:
    """Write `wafers` to `path` atomically; a reader sees the old file or the whole new one.

    Args:
        wafers: What to write.
        path: Where to; its folder is made if missing.
        progress: Called with the wafers written so far and all of them.

    Raises:
        DataError: If the file cannot be written.
    """
    metadata = {
        "wafers.format": "1",
        "wafers.classes": json.dumps(wafers.classes),
        "wafers.source": wafers.source,
        "wafers.synthetic": json.dumps(wafers.is_synthetic),
    }
    schema = _SCHEMA.with_metadata(metadata)
    with (
        replaced_atomically(path) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        stop = 0
        while stop < len(wafers):
            start, end = stop, wafers.offsets[stop] + _GROUP_CELLS
            fitting = int(np.searchsorted(wafers.offsets, end, side="right")) - 1
            stop = min(start + _ROW_GROUP, max(fitting, start + 1))
            writer.write_table(_to_table(wafers, start, stop, schema), row_group_size=_ROW_GROUP)
            if progress:
                progress(stop, len(wafers))


def _to_table(wafers: WaferSet, start: int, stop: int, schema: pa.Schema) -> pa.Table:
    bounds = wafers.offsets[start : stop + 1]
    cells = wafers.cells[bounds[0] : bounds[-1]]
    rows = slice(start, stop)
    names: tuple[str | None, ...] = (*wafers.classes, None)  # index -1 is UNLABELLED
    parts: tuple[str | None, ...] = (*OFFICIAL_PARTS, None)
    official = [None] * (stop - start) if wafers.official is None else [parts[i] for i in wafers.official[rows]]
    # Views of the cells, because a Python object for each map would double the memory of a large set.
    offsets = pa.py_buffer((bounds - bounds[0]).astype(np.int32))
    maps = pa.BinaryArray.from_buffers(pa.binary(), stop - start, [None, offsets, pa.py_buffer(cells)])
    columns = {
        "map": maps,
        "height": wafers.heights[rows].astype(np.int32),
        "width": wafers.widths[rows].astype(np.int32),
        "label": pa.array([names[label] for label in wafers.labels[rows]], pa.string()),
        "lot": pa.array([wafers.lot_names[lot] for lot in wafers.lots[rows]], pa.string()),
        "official": pa.array(official, pa.string()),
    }
    return pa.table(columns, schema=schema)


def _read_npz(path: Path) -> WaferSet:
    # Opened here, because np.load leaves a damaged file open.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        missing = [name for name in _NPZ_ARRAYS if name not in file]
        if missing:
            raise DataError(f"{path}: lacks the arrays {', '.join(missing)}; found {', '.join(file.files)}")
        # Every access through the open file decompresses again: take each array once.
        arrays = {name: file[name] for name in _NPZ_ARRAYS}
    names = [str(name) or None for name in arrays["label"].tolist()]
    classes = order_classes(name for name in names if name is not None)
    lots, lot_names = index_lots(arrays["lot"].tolist())
    return WaferSet(
        cells=arrays["maps"],
        offsets=_to_int64(arrays["offset"]),
        heights=_to_int64(arrays["height"]),
        widths=_to_int64(arrays["width"]),
        labels=index_labels(names, classes, source=str(path)),
        classes=classes,
        lots=lots,
        lot_names=lot_names,
        source=str(path),
    )


def _read_parquet(path: Path) -> WaferSet:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        metadata = {key.decode(): value.decode() for key, value in (file.schema_arrow.metadata or {}).items()}
        if metadata.get("wafers.format") != "1":
            raise DataError(f"{path}: not a wafer file of ours; make one: `python -m data_pipeline.prepare {path}`")
        cells, sizes = _read_maps(file, path)
        names = [name for name in _SCHEMA.names if name != "map" and name in file.schema_arrow.names]
        table = file.read(columns=names)
    classes = tuple(json.loads(metadata["wafers.classes"]))
    lots, lot_names = index_lots(table["lot"].to_pylist())
    wafers = WaferSet(
        cells=cells,
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        heights=_to_int64(table["height"].to_numpy()),
        widths=_to_int64(table["width"].to_numpy()),
        labels=index_labels(table["label"].to_pylist(), classes, source=str(path)),
        classes=classes,
        lots=lots,
        lot_names=lot_names,
        source=str(path),  # what the checks complain about
        is_synthetic=json.loads(metadata["wafers.synthetic"]),
        official=_read_official(table["official"].to_pylist(), path) if "official" in names else None,
    )
    return replace(wafers, source=metadata["wafers.source"])


def _read_maps(file: pq.ParquetFile, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the cells and the size of each map, without a Python object for each."""
    cells, sizes = [], []
    for batch in file.iter_batches(batch_size=_ROW_GROUP, columns=["map"]):
        maps = batch.column("map")
        if maps.null_count or maps.type != pa.binary():
            raise DataError(f"{path}: map must be binary and never null; got {maps.type}, {maps.null_count} null")
        batch_cells, batch_sizes = view_cells(maps)
        cells.append(batch_cells.copy())  # or the whole batch would stay in memory
        sizes.append(batch_sizes)
    return np.concatenate(cells or [np.empty(0, np.uint8)]), np.concatenate(sizes or [np.empty(0, np.int64)])


def _read_official(parts: list[str | None], path: Path) -> NDArray[np.int8] | None:
    if not any(parts):
        return None
    return index_labels(parts, OFFICIAL_PARTS, source=f"{path}: official").astype(np.int8)


def _to_int64(values: NDArray[np.generic]) -> NDArray[np.int64]:
    return np.asarray(values).astype(np.int64, casting="same_kind")
