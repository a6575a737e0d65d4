"""Read WM-811K as it circulates: LSWMD.pkl of Kaggle, WM811K.pkl of MIR, or a zip with one of them."""

import contextlib
import io
import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.sources.bombs import refuse_bomb
from data_pipeline.sources.pickles import Frame, read_frame
from data_pipeline.sources.raw import RawWafers, gather, list_names, to_codes
from data_pipeline.sources.unpickling import Array, damage, limit_memory

Progress = Callable[[int, int], None]

# Columns by pattern, the surest first: the published files alone spell the split trianTestLabel and trainTestLabel.
_MAP = ("wafer.?map",)
_OFFICIAL = ("tr.*test.*label",)
_LABEL = ("fail.*type", "label", "defect")
_LOT = ("lot.?name", "(?<![a-z])lot")

_CHUNK = 4 << 20  # bytes between two calls of progress
_MAX_PARTS = 64  # of one label
_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def read_lswmd(path: Path, *, progress: Progress | None = None) -> RawWafers:
    """Read a pickled frame of wafers, without executing anything that the file asks for.

    Labels may be nested ([['Loc']]); an empty one, a number and an empty string are none. Several labels of one wafer
    are joined by "+".

    Args:
        path: A .pkl, or a .zip that has exactly one.
        progress: Called with the bytes read so far and the bytes of the pickle, every 4 MiB.

    Raises:
        DataError: If the file is missing, damaged, or asks for anything but a frame's parts; or if it has no column, or
            several, that could be the map, the label or the lot.
    """
    source = str(path)
    with _open(path, progress) as (stream, size), damage(source), limit_memory(size):
        columns = _take_columns(read_frame(stream, source=source, size=size), source)
        return _convert(*columns, source=source)


def _convert(
    maps: list[Any], labels: Sequence[Any], lots: Sequence[Any], official: Sequence[Any] | None, *, source: str
) -> RawWafers:
    texts: dict[str, str] = {}  # one object for each spelling, not one for each wafer

    def spell(values: Sequence[Any], read: Callable[[object], str | None]) -> list[str | None]:
        return [None if text is None else texts.setdefault(text, text) for text in map(read, values)]

    names = spell(lots, _to_lot)
    are_maps = [isinstance(one, Array) and one.is_map for one in maps]
    kept = [i for i, name in enumerate(names) if are_maps[i] and name is not None]
    missing = {
        i: "no lot" if is_map else "not a two-dimensional map"
        for i, (is_map, name) in enumerate(zip(are_maps, names, strict=True))
        if not is_map or name is None
    }
    return gather(
        _release(maps, kept),
        labels=spell([labels[i] for i in kept], _to_label),
        lots=[name for i in kept if (name := names[i]) is not None],
        official=None if official is None else spell([official[i] for i in kept], _to_label),
        source=source,
        left_out=Counter(missing.values()),
        rows=kept,
        missing=missing,
    )


def _release(maps: list[Any], kept: list[int]) -> Iterator[NDArray[np.uint8]]:
    """Decode map after map, and let go of each: together they are gigabytes."""
    for i in kept:
        one, maps[i] = maps[i], None
        yield to_codes(one.decode())


def _take_columns(frame: Frame, source: str) -> tuple[list[Any], list[Any], list[Any], list[Any] | None]:
    official = _find(frame.names, _OFFICIAL, "part of the published split", source)
    others = [name for name in frame.names if name != official]
    wanted = []
    for patterns, meaning in ((_MAP, "wafer map"), (_LABEL, "label"), (_LOT, "lot")):
        name = _find(others, patterns, meaning, source)
        if name is None:
            raise DataError(
                f"{source}: must have a column with the {meaning}, named like {_example(patterns)}; "
                f"got the columns {list_names(frame.names)}; rename one"
            )
        wanted.append(frame.column(name))
    parts = None if official is None else frame.column(official)
    if len({len(column) for column in (*wanted, *([] if parts is None else [parts]))}) != 1:
        raise DataError(f"{source}: damaged pickle (columns of different lengths); get it again")
    return wanted[0], wanted[1], wanted[2], parts


def _find(names: Sequence[str], patterns: Sequence[str], meaning: str, source: str) -> str | None:
    for pattern in patterns:
        found = [name for name in names if re.search(pattern, name[:200], re.IGNORECASE)]
        exact = [name for name in found if re.fullmatch(pattern, name[:200], re.IGNORECASE)]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if found:
            raise DataError(f"{source}: must have one column with the {meaning}; got {list_names(found)}; rename one")
    return None


def _example(patterns: Sequence[str]) -> str:
    return {_MAP: "'waferMap'", _LABEL: "'failureType'", _LOT: "'lotName'"}[tuple(patterns)]


def _to_label(value: object) -> str | None:
    return "+".join(text for text in _flatten(value) if text) or None


def _to_lot(value: object) -> str | None:
    if isinstance(value, Array) and value.is_number and math.prod(value.shape) == 1:
        (value,) = value.to_list()
    if isinstance(value, int | float):
        return None if value != value else f"{value:.15g}"
    return next(iter(_flatten(value)), None)


def _flatten(value: object) -> list[str]:
    """List the strings within a value, however nested; the limit is for a value that holds itself."""
    found: list[str] = []
    todo = [value]
    for _ in range(_MAX_PARTS):
        if not todo:
            break
        one = todo.pop()
        if isinstance(one, str | bytes):
            found.append(one if isinstance(one, str) else one.decode())
        else:
            todo += _parts(one)
    return found


def _parts(value: object) -> list[object]:
    # A whole map of text would be listed again for every wafer that refers to it.
    if isinstance(value, Array) and not value.is_number and math.prod(value.shape) <= _MAX_PARTS:
        value = value.to_list()
    return list(value[:_MAX_PARTS][::-1]) if isinstance(value, list | tuple) else []


class _Counted(io.RawIOBase):
    """Says after every read how far it is; meant to be read through a buffer."""

    def __init__(self, stream: BinaryIO, *, size: int, progress: Progress) -> None:
        self._stream = stream
        self._size = size
        self._progress = progress
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        n: int = self._stream.readinto(buffer)  # type: ignore[attr-defined]  # BinaryIO lacks what every one has
        self._done += n
        self._progress(self._done, self._size)
        return n


@contextlib.contextmanager
def _open(path: Path, progress: Progress | None) -> Iterator[tuple[BinaryIO, int]]:
    try:
        with contextlib.ExitStack() as stack:
            if path.suffix.lower() == ".zip":
                stream, size = _open_member(stack, path)
            else:
                stream, size = stack.enter_context(path.open("rb", buffering=0)), path.stat().st_size
            counted = _Counted(stream, size=size, progress=progress or (lambda done, total: None))
            yield io.BufferedReader(counted, _CHUNK), size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except _ZIP_DAMAGE as error:
        raise DataError(f"{path}: damaged or locked zip ({str(error)[:100]}); get it again") from None


def _open_member(stack: contextlib.ExitStack, path: Path) -> tuple[Any, int]:
    archive = stack.enter_context(zipfile.ZipFile(path))
    # A Mac adds a ._ file beside each of its own.
    found = [one for one in archive.infolist() if re.search(r"(^|/)(?!\._)[^/]*\.pkl$", one.filename)]
    if len(found) != 1:
        raise DataError(f"{path}: must have exactly one .pkl inside; got {len(found)}; unpack it and name the file")
    (member,) = found
    refuse_bomb(member.file_size, packed=member.compress_size, path=path)
    return stack.enter_context(archive.open(member)), member.file_size
