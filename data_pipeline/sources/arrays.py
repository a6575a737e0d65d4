"""Read .npz files of wafer maps: our own layout and MixedWM38's."""

import contextlib
import lzma
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError, first_line
from data_pipeline.sources.bombs import refuse_bomb
from data_pipeline.sources.raw import MAX_INDEXABLE, RawWafers, list_names, to_codes

_OURS = ("maps", "offset", "height", "width", "label", "lot")
_MIXED = ("arr_0", "arr_1")
_SEVERAL = "several defects at once"
_MIXED_CLASSES = ("Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full", "Scratch", "Random")

_NUMBERS, _INTEGERS, _TEXTS = "buif", "iu", "US"  # kinds of dtype
_MEANING = {
    _NUMBERS: "numbers",
    _INTEGERS: "whole numbers",
    _TEXTS: "strings",
    _TEXTS + _INTEGERS: "strings or whole numbers",
}
_KINDS = {
    "maps": _NUMBERS, "offset": _INTEGERS, "height": _INTEGERS, "width": _INTEGERS,
    "label": _TEXTS, "lot": _TEXTS + _INTEGERS, "official": _TEXTS,
    "arr_0": _NUMBERS, "arr_1": _NUMBERS,
}  # fmt: skip

_CHUNK = 4 << 20
# SystemError is what numpy raises for strings of impossible characters.
_DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, RuntimeError, SyntaxError,
    SystemError, TypeError, ValueError, lzma.LZMAError, struct.error, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip


def read_npz(path: Path) -> RawWafers:
    """Read a .npz in our layout or in that of MixedWM38.

    Ours has `maps` (all cells one after the other), `offset` (N + 1), `height`, `width`, `label` (empty: none), `lot`
    and, if known, `official`. MixedWM38 has `arr_0`, maps of shape (N, 52, 52), and `arr_1`, of shape (N, 8), with a 1
    for each defect a wafer has; wafers with several are left out. It knows no lots, so that every wafer becomes a lot
    of its own; its cells of value 3 become ILLEGAL.

    Raises:
        DataError: If the file is missing or damaged, unpacks to far more than its size, or its arrays do not fit.

    Source:
        Wang et al. 2020, Deformable Convolutional Networks for Efficient Mixed-Type Wafer Defect Pattern Recognition,
        doi:10.1109/TSM.2020.3020985.
    """
    with _refused(path), zipfile.ZipFile(path) as archive:
        _check_size(archive, path)
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        wanted = _MIXED if set(_MIXED) <= set(names) and "maps" not in names else _OURS
        missing = [name for name in wanted if name not in names]
        if missing:
            raise DataError(
                f"{path}: lacks the arrays {', '.join(missing)}; found {list_names(names)}; "
                f"must have {', '.join(_OURS)}, or {' and '.join(_MIXED)} of MixedWM38"
            )
        optional = [name for name in ("official",) if wanted is _OURS and name in names]
        arrays = {name: _read_member(archive, name, path) for name in (*wanted, *optional)}
        return _convert_mixed(arrays, path) if wanted is _MIXED else _convert_ours(arrays, path)


def read_npy(path: Path) -> NDArray[Any]:
    """Read a .npy of numbers.

    Raises:
        DataError: If the file is missing, damaged, or holds anything but numbers.
    """
    with _refused(path), path.open("rb") as stream:
        return _read_array(stream, path.stat().st_size, _NUMBERS, str(path))


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except _DAMAGE as error:
        raise DataError(
            f"{path}: damaged or not a {path.suffix.lower()} file ({first_line(error)}); get it again"
        ) from None


def _check_size(archive: zipfile.ZipFile, path: Path) -> None:
    refuse_bomb(sum(member.file_size for member in archive.infolist()), packed=path.stat().st_size, path=path)


def _read_member(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError:
        member = archive.getinfo(name)
    with archive.open(member) as stream:
        return _read_array(stream, member.file_size, _KINDS[name], f"{path}: {name}")


def _read_array(stream: IO[bytes], size: int, kinds: str, where: str) -> NDArray[Any]:
    """Read an array that takes `size` bytes, its header included; nothing is allocated before that is sure."""
    shape, is_fortran, dtype = _read_header(stream)
    if dtype.kind not in kinds or dtype.subdtype is not None:
        raise DataError(f"{where}: must hold {_MEANING[kinds]}; got {dtype}; convert it")
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes != size - stream.tell():
        raise ValueError(f"an array of {n_bytes:,} bytes, where there are {size - stream.tell():,}")
    buffer = np.empty(n_bytes, dtype=np.uint8)
    done = 0
    while done < n_bytes:
        chunk = stream.read(min(_CHUNK, n_bytes - done))
        if not chunk:
            raise EOFError(f"it ends after {done:,} of {n_bytes:,} bytes")
        buffer[done : done + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
        done += len(chunk)
    return buffer.view(dtype).reshape(shape, order="F" if is_fortran else "C")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:  # 3.0 is for named fields alone
        raise ValueError(f"version {version[0]}.{version[1]} of the .npy format")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # headers that Python 2 wrote, and old names of types
        shape, is_fortran, dtype = readers[version](stream)
    return shape, is_fortran, dtype


def _convert_ours(arrays: Mapping[str, NDArray[Any]], path: Path) -> RawWafers:
    for name, array in arrays.items():
        if array.ndim != 1:
            raise DataError(f"{path}: {name}: must have one dimension; got shape {array.shape}; see docs/data.md")
    n = len(arrays["height"])
    for name in arrays.keys() - {"maps"}:
        expected = n + 1 if name == "offset" else n
        if len(arrays[name]) != expected:
            raise DataError(
                f"{path}: {name}: must have {expected:,} entries for {n:,} heights; got {len(arrays[name]):,}"
            )
    heights, widths = _to_sides(arrays["height"], "height", path), _to_sides(arrays["width"], "width", path)
    _check_offsets(arrays["offset"], heights, widths, len(arrays["maps"]), path)
    return RawWafers(
        cells=to_codes(arrays["maps"]),
        heights=heights,
        widths=widths,
        labels=_to_texts(arrays["label"]),
        lots=[lot or "" for lot in _to_texts(arrays["lot"])],
        official=_to_texts(arrays["official"]) if "official" in arrays else [None] * n,
        source=str(path),
    )


def _to_sides(values: NDArray[Any], name: str, path: Path) -> NDArray[np.int64]:
    wrong = (values < 0) | (values >= MAX_INDEXABLE)
    if wrong.any():
        bad = int(np.argmax(wrong))
        raise DataError(f"{path}: {name}: must be a number of dies; got {values[bad]} for map {bad}")
    return values.astype(np.int64)


def _check_offsets(
    offsets: NDArray[Any], heights: NDArray[np.int64], widths: NDArray[np.int64], n_cells: int, path: Path
) -> None:
    outside = (offsets < 0) | (offsets > n_cells)
    if outside.any() or offsets[0] != 0 or offsets[-1] != n_cells:
        bad = int(np.argmax(outside)) if outside.any() else (0 if offsets[0] != 0 else -1)
        raise DataError(f"{path}: offset: must run from 0 to the {n_cells:,} cells of maps; got {offsets[bad]}")
    found, asked = np.diff(offsets.astype(np.int64)), heights * widths
    if (found != asked).any():
        bad = int(np.argmax(found != asked))
        complaint = "leave a gap after" if found[bad] > asked[bad] else "let the next one overlap"
        complaint = "run backwards at" if found[bad] < 0 else complaint
        raise DataError(
            f"{path}: offset: must give each map its height x width cells; they {complaint} map {bad}, which is "
            f"{heights[bad]}x{widths[bad]} and gets {found[bad]:,} cells"
        )


def _to_texts(values: NDArray[Any]) -> list[str | None]:
    """Turn names or numbers into strings, one object for each spelling; an empty one becomes None."""
    unique, positions = np.unique(values, return_inverse=True)
    texts = [one.decode() if isinstance(one, bytes) else str(one) for one in unique.tolist()]
    for text in texts:
        text.encode()  # lone surrogates would break whatever is written later
    return [texts[i] or None for i in positions.tolist()]


def _convert_mixed(arrays: Mapping[str, NDArray[Any]], path: Path) -> RawWafers:
    maps, defects = arrays["arr_0"], arrays["arr_1"]
    n = len(maps) if maps.ndim else 0
    if maps.ndim != 3 or defects.shape != (n, len(_MIXED_CLASSES)):
        raise DataError(
            f"{path}: must be N maps of shape (N, height, width) in arr_0, and (N, {len(_MIXED_CLASSES)}) defects in "
            f"arr_1, like MixedWM38; got {maps.shape} and {defects.shape}"
        )
    if ((defects != 0) & (defects != 1)).any():
        bad = int(np.argmax(((defects != 0) & (defects != 1)).any(axis=1)))
        raise DataError(f"{path}: arr_1: must be 0 or 1 for each defect; got {defects[bad].tolist()} for map {bad}")
    n_defects = (defects != 0).sum(axis=1)
    kept = np.flatnonzero(n_defects <= 1)
    names = ["none" if n_defects[i] == 0 else _MIXED_CLASSES[int(np.argmax(defects[i]))] for i in kept]
    n_several = n - len(kept)
    return RawWafers(
        cells=to_codes(maps[kept]).ravel(),
        heights=np.full(len(kept), maps.shape[1], dtype=np.int64),
        widths=np.full(len(kept), maps.shape[2], dtype=np.int64),
        labels=names,
        lots=[f"wafer {i}" for i in kept],
        official=[None] * len(kept),
        source=str(path),
        left_out={_SEVERAL: n_several} if n_several else {},
        rows=kept,
        missing=dict.fromkeys(np.flatnonzero(n_defects > 1).tolist(), _SEVERAL),
    )
