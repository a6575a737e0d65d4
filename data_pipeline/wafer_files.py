"""Read wafer files and write our own Parquet.

Parquet schema, one row per wafer: `map` binary (height x width die codes, row-major), `height` and `width` int32,
`label` string (null: unlabelled), `lot` string. File metadata: `wafers.format` "1", `wafers.classes` JSON list,
`wafers.source`, `wafers.synthetic` "true" or "false".
"""

import itertools
import json
import os
import tokenize
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.synthetic import make_wafers
from data_pipeline.wafer_set import WaferSet, index_labels, index_lots, order_classes

PREPARED = Path("data/wafers.parquet")
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
        raise DataError(f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(readers)}")
    try:
        return readers[path.suffix.lower()](path)
    except PermissionError:
        raise DataError(f"{path}: may not be read; check its permissions") from None
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged or not a wafer file ({_first_line(error)})") from None


def find_wafers(asked: str, *, synthetic_wafers: int) -> WaferSet:
    """Load the wafers that a space or the command line asks for.

    Args:
        asked: A path, or "auto": `data/wafers.parquet` in the current folder where it exists, else synthetic
            wafers. "synthetic" asks for those outright.
        synthetic_wafers: How many to draw where they are synthetic.

    Raises:
        DataError: See `load_wafers`.
    """
    if asked == "auto" and PREPARED.exists():
        return load_wafers(PREPARED)
    if asked in ("auto", "synthetic"):
        return make_wafers(synthetic_wafers)
    return load_wafers(Path(asked))


def write_parquet(wafers: WaferSet, path: Path) -> None:
    """Write `wafers` to `path` atomically; a reader sees the old file or the whole new one.

    Raises:
        DataError: If the folder cannot be written.
    """
    cells = wafers.cells.data
    starts = wafers.offsets.tolist()
    names: tuple[str | None, ...] = (*wafers.classes, None)  # index -1 is UNLABELLED
    table = pa.table(
        {
            "map": pa.array([bytes(cells[a:b]) for a, b in itertools.pairwise(starts)], pa.binary()),
            "height": wafers.heights.astype(np.int32),
            "width": wafers.widths.astype(np.int32),
            "label": pa.array([names[label] for label in wafers.labels], pa.string()),
            "lot": pa.array([wafers.lot_names[lot] for lot in wafers.lots], pa.string()),
        }
    ).replace_schema_metadata(
        {
            "wafers.format": "1",
            "wafers.classes": json.dumps(wafers.classes),
            "wafers.source": wafers.source,
            "wafers.synthetic": json.dumps(wafers.is_synthetic),
        }
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            pq.write_table(table, partial, compression="zstd", row_group_size=10_000, write_page_checksum=True)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from None


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
    table = pq.read_table(path, partitioning=None, page_checksum_verification=True)
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if metadata.get("wafers.format") != "1":
        raise DataError(f"{path}: not a wafer file of ours; write one with `python -m data_pipeline.prepare`")
    maps = table["map"].to_pylist()
    classes = tuple(json.loads(metadata["wafers.classes"]))
    lots, lot_names = index_lots(table["lot"].to_pylist())
    wafers = WaferSet(
        cells=np.frombuffer(b"".join(maps), dtype=np.uint8),
        offsets=np.concatenate([[0], np.cumsum([len(one) for one in maps])]).astype(np.int64),
        heights=_to_int64(table["height"].to_numpy()),
        widths=_to_int64(table["width"].to_numpy()),
        labels=index_labels(table["label"].to_pylist(), classes, source=str(path)),
        classes=classes,
        lots=lots,
        lot_names=lot_names,
        source=str(path),  # what the checks complain about
        is_synthetic=json.loads(metadata["wafers.synthetic"]),
    )
    return replace(wafers, source=metadata["wafers.source"])


def _to_int64(values: NDArray[np.generic]) -> NDArray[np.int64]:
    return np.asarray(values).astype(np.int64, casting="same_kind")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
