"""Read a .csv with a row per die, as testers and wafer-map viewers write it."""

import contextlib
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pv
from numpy.typing import NDArray

from data_pipeline.errors import DataError, first_line
from data_pipeline.sources.bombs import refuse_bomb
from data_pipeline.sources.raw import ILLEGAL, MAX_SIDE, RawWafers
from data_pipeline.wafer_set import FAIL, NO_DIE, PASS

# What a column may be called, the surest first; letter case and separators do not matter.
_NAMES = {
    "lot": ("lot", "lotid", "lotname"),
    "wafer": ("wafer", "waferid", "waferindex"),
    "x": ("x", "diex", "col", "column"),
    "y": ("y", "diey", "row"),
    "result": ("bin", "result", "code", "diecode", "status"),
    "label": ("label", "class", "failuretype"),
}
_OPTIONAL = ("label",)
_WORDS = {
    "pass": PASS, "p": PASS, "good": PASS, "ok": PASS,
    "fail": FAIL, "f": FAIL, "bad": FAIL, "ng": FAIL,
}  # fmt: skip
_NO_LABEL = ("", "nan")  # not "none": that is a class
_MAX_COORDINATE = 1_000_000
_MAX_HEADER = 1 << 20
_SPARSE, _SPARSE_SIZE = 200, 256 << 20
_DAMAGE = (EOFError, OverflowError, MemoryError, TypeError, ValueError, csv.Error, zlib.error, pa.ArrowException)


def read_csv(path: Path) -> RawWafers:
    """Read a table of dies: the columns lot, wafer, x, y, bin (or result, code, status) and, if known, label.

    Fields are separated by commas, semicolons or tabs. Coordinates may start anywhere; the smallest ones of each wafer
    become 0, and places without a row have no die. A die with several rows keeps the last, as in a retest. Rows of a
    wafer without a label say nothing about it.

    A result is 0 (no die), 1 (pass), 2 (fail), or a word: pass, p, good, ok; fail, f, bad, ng. Anything else becomes
    ILLEGAL, except in a column called `bin`: by the usual convention of hard bins, bin 1 passes and every bin from 2
    on fails.

    Args:
        path: A .csv, or a .csv.gz.

    Raises:
        DataError: If the file is missing or damaged, lacks a column, a coordinate cannot be right, or the rows of a
            wafer disagree about its label.
    """
    try:
        with _open(path) as stream:
            table, is_bin = _read_table(stream, path)
        return _convert(table, is_bin=is_bin, path=path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except _DAMAGE as error:
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            raise DataError(f"{path}: must be encoded in UTF-8; save it again as such") from None
        raise DataError(
            f"{path}: damaged or not a table ({first_line(error)}); every row must fit the header"
        ) from None


class _Unpacked(io.RawIOBase):
    """Reads a gzip file and stops at a bomb, whose size is known only when it has gone off."""

    def __init__(self, path: Path, stream: gzip.GzipFile) -> None:
        self._path = path
        self._stream = stream
        self._packed = path.stat().st_size
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        n = self._stream.readinto(buffer)
        self._done += n
        refuse_bomb(self._done, packed=self._packed, path=self._path)
        return n


@contextlib.contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with contextlib.ExitStack() as stack:
        if path.suffix.lower() == ".gz":
            unpacked = _Unpacked(path, stack.enter_context(gzip.open(path)))
            yield cast(BinaryIO, stack.enter_context(io.BufferedReader(unpacked, 1 << 20)))
        else:
            yield stack.enter_context(path.open("rb"))


def _read_table(stream: BinaryIO, path: Path) -> tuple[pa.Table, bool]:
    # Not with pandas: it makes "007" a number even as a category, and overlooks rows that are too long. Dictionaries
    # are small, and each value is judged once, not once per row.
    header = stream.readline(_MAX_HEADER).decode("utf-8-sig")
    delimiter = max(",;\t", key=header.count)
    names = next(csv.reader([header], delimiter=delimiter), [])
    places = _find_columns(names, path)
    text = pa.dictionary(pa.int32(), pa.string())
    table = pv.read_csv(
        stream,
        read_options=pv.ReadOptions(column_names=[str(i) for i in range(len(names))]),
        parse_options=pv.ParseOptions(delimiter=delimiter),
        convert_options=pv.ConvertOptions(
            include_columns=[str(i) for i in places.values()],
            column_types={str(i): text for i in places.values()},
        ),
    )
    is_bin = _plain(names[places["result"]]) == "bin"
    return table.rename_columns(list(places)), is_bin


def _find_columns(names: Sequence[str], path: Path) -> dict[str, int]:
    plain = [_plain(name) for name in names]
    places = {}
    for meaning, known in _NAMES.items():
        name = next((one for one in known if one in plain), None)
        if name is not None and plain.count(name) > 1:
            raise DataError(f"{path}: must have one column called {name!r}; got {plain.count(name)}; rename one")
        if name is not None:
            places[meaning] = plain.index(name)
        elif meaning not in _OPTIONAL:
            raise DataError(
                f"{path}: must have a column called {' or '.join(known)} in its first row; got "
                f"{', '.join(repr(one[:50]) for one in names[:20]) or 'nothing'}; rename one"
            )
    return places


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _convert(table: pa.Table, *, is_bin: bool, path: Path) -> RawWafers:
    source = str(path)
    lots, wafers = (_to_names(table[name], name, source) for name in ("lot", "wafer"))
    x, y = (_to_coordinates(table[name], name, source) for name in ("x", "y"))
    codes = _to_codes(table["result"], is_bin=is_bin)
    n_wafers = len(wafers[1])
    owners, keys = pd.factorize(lots[0].astype(np.int64) * n_wafers + wafers[0])
    keys = np.asarray(keys, dtype=np.int64)
    keyed = [(lots[1][lot], wafers[1][wafer]) for lot, wafer in zip(keys // n_wafers, keys % n_wafers, strict=True)]
    left, widths = _measure(x, owners)
    top, heights = _measure(y, owners)
    _check_grids(heights, widths, len(table), keyed, source)
    offsets = np.concatenate([[0], np.cumsum(heights * widths)]).astype(np.int64)
    cells = np.full(int(offsets[-1]), NO_DIE, dtype=np.uint8)
    # Of several values for a place, numpy keeps the last.
    cells[offsets[owners] + (y - top[owners]) * widths[owners] + x - left[owners]] = codes
    return RawWafers(
        cells=cells,
        heights=heights,
        widths=widths,
        labels=_to_labels(table, owners, keyed, source),
        lots=[lot for lot, _ in keyed],
        official=[None] * len(keyed),
        source=source,
        names={i: wafer for i, (_, wafer) in enumerate(keyed)},
    )


def _split(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], list[str]]:
    """Give the position of each row's value, and the distinct values."""
    whole = column.unify_dictionaries().combine_chunks()
    return whole.indices.to_numpy(), [text.strip() for text in whole.dictionary.to_pylist()]


def _to_names(column: pa.ChunkedArray, name: str, source: str) -> tuple[NDArray[np.int32], list[str]]:
    positions, texts = _split(column)
    names = list(dict.fromkeys(["", *texts]))  # "A" and "A " are one
    numbers = {text: i for i, text in enumerate(names)}
    codes = np.array([numbers[text] for text in texts], dtype=np.int32)[positions]
    missing = codes == 0
    if missing.any():
        raise DataError(f"{source}: {name}: must be filled in; got nothing in row {_row(missing)}")
    return codes, names


def _to_coordinates(column: pa.ChunkedArray, name: str, source: str) -> NDArray[np.int32]:
    positions, texts = _split(column)
    numbers = np.array([_to_number(text) for text in texts])
    usable = (np.abs(numbers) <= _MAX_COORDINATE) & (numbers == np.floor(numbers))
    wrong = ~usable[positions]
    if wrong.any():
        got = texts[positions[int(np.argmax(wrong))]][:50]
        raise DataError(
            f"{source}: {name}: must be a whole number within {_MAX_COORDINATE:,}; got {got!r} in row {_row(wrong)}"
        )
    return np.where(usable, numbers, 0).astype(np.int32)[positions]


def _to_codes(column: pa.ChunkedArray, *, is_bin: bool) -> NDArray[np.uint8]:
    positions, texts = _split(column)
    return np.array([_to_code(text.lower(), is_bin=is_bin) for text in texts], dtype=np.uint8)[positions]


def _to_code(text: str, *, is_bin: bool) -> int:
    if text in _WORDS:
        return _WORDS[text]
    number = _to_number(text)
    if number in (NO_DIE, PASS, FAIL):
        return int(number)
    return FAIL if is_bin and number > FAIL and number.is_integer() else ILLEGAL


def _to_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _to_labels(
    table: pa.Table, owners: NDArray[np.int64], keyed: Sequence[tuple[str, str]], source: str
) -> list[str | None]:
    labels: list[str | None] = [None] * len(keyed)
    if "label" not in table.column_names:
        return labels
    positions, texts = _split(table["label"])
    names = list(dict.fromkeys(texts))
    numbers: Mapping[str, int] = {text: i for i, text in enumerate(names)}
    codes = np.array([numbers[text] if text.lower() not in _NO_LABEL else -1 for text in texts])[positions]
    told = np.flatnonzero(codes >= 0)
    found = np.full(len(keyed), -1, dtype=np.int64)
    found[owners[told]] = codes[told]
    differ = told[found[owners[told]] != codes[told]]
    if len(differ):
        first = differ[0]
        lot, wafer = keyed[owners[first]]
        raise DataError(
            f"{source}: label: must be the same in all rows of a wafer; got {names[codes[first]][:50]!r} and "
            f"{names[found[owners[first]]][:50]!r} for wafer {wafer[:50]!r} of lot {lot[:50]!r}"
        )
    return [names[code] if code >= 0 else None for code in found]


def _measure(values: NDArray[np.int32], owners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the smallest coordinate of each wafer, and how many there are from it to the largest."""
    groups = pd.Series(values).groupby(owners, sort=True)
    smallest = groups.min().to_numpy(dtype=np.int64)
    return smallest, groups.max().to_numpy(dtype=np.int64) - smallest + 1


def _check_grids(
    heights: NDArray[np.int64], widths: NDArray[np.int64], n_rows: int, keyed: Sequence[tuple[str, str]], source: str
) -> None:
    too_large = (heights > MAX_SIDE) | (widths > MAX_SIDE)
    n_cells = int((heights * widths).sum())
    if too_large.any() or n_cells > max(_SPARSE_SIZE, _SPARSE * n_rows):
        bad = int(np.argmax(too_large if too_large.any() else heights * widths))
        lot, wafer = keyed[bad]
        limit = f"at most {MAX_SIDE:,}x{MAX_SIDE:,} dies" if too_large.any() else "grids that are not nearly empty"
        raise DataError(
            f"{source}: must have {limit}; got {heights[bad]:,}x{widths[bad]:,} for wafer {wafer[:50]!r} of lot "
            f"{lot[:50]!r}; a coordinate is wrong"
        )


def _row(wrong: NDArray[np.bool_]) -> int:
    """Number the first wrong row as a spreadsheet does: from 1, the header being 1."""
    return int(np.argmax(wrong)) + 2
