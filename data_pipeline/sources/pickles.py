"""Read a pickled pandas frame: which block holds which column, in whatever layout pandas has written it.

This reads files of Python 2 and of any pandas from 0.14 to 3, whose classes have long been moved or dropped.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.sources.unpickling import PANDAS, Array, Kept, damage, is_kept, to_text, unpickle

_NA = PANDAS["NA"]


class Frame:
    """The columns of a pickled frame; each is decoded when it is asked for.

    Drop the frame once all needed columns are taken: it holds on to everything that the file had.
    """

    def __init__(self, columns: Mapping[str, tuple[object, int]], *, source: str) -> None:
        self._columns = columns
        self._source = source

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self._columns)

    def column(self, name: str) -> list[Any]:
        """Elements of a column: plain values, None where one is missing, and an Array wherever an array stood.

        Raises:
            DataError: If the column is damaged or of a kind this reader does not know.
        """
        values, row = self._columns[name]
        with damage(self._source):
            if _is_known(values):
                return [None if value is _NA else value for value in _to_list(values, row)]
        raise DataError(
            f"{self._source}: column {name[:50]!r} must hold plain numbers, strings or objects; got another kind; "
            "save it with .astype(object)"
        )


def read_frame(stream: BinaryIO, *, source: str, size: int) -> Frame:
    """Read a pickled frame; arguments as `unpickle` takes them.

    Raises:
        DataError: If the file asks for anything but a frame's parts, is damaged, or holds no frame.
    """
    found = unpickle(stream, source=source, size=size)
    if not is_kept(found, "DataFrame"):
        raise DataError(f"{source}: must hold a pandas DataFrame; got something else; save the frame with .to_pickle()")
    with damage(source):
        return Frame(_find_columns(found), source=source)


def _is_known(values: object) -> bool:
    if is_kept(values, "__pyx_unpickle_NDArrayBacked"):
        return values.args[0] in (PANDAS["Categorical"], PANDAS["StringArray"])
    return is_kept(values, "ArrowStringArray") or (isinstance(values, Array) and values.kind in ("O", *"biufSU"))


def _get(parts: Any, key: str) -> Any:
    """Look up what Python 2 wrote as bytes and Python 3 as text."""
    if type(parts) is not dict:
        raise ValueError(f"no {key} where one belongs")
    return parts.get(key, parts.get(key.encode()))


def _find_columns(frame: Kept) -> dict[str, tuple[object, int]]:
    """Say for every column which block it is in, and which row of it."""
    manager = _get(frame.state, "_mgr") or _get(frame.state, "_data")
    if manager.args:
        blocks, axes = [block.args[:2] for block in manager.args[0]], manager.args[1]
    else:  # before pandas 1.3
        parts = _get(manager.state[3], "0.14.1")
        blocks, axes = (
            [(_get(one, "values"), _get(one, "mgr_locs")) for one in _get(parts, "blocks")],
            _get(parts, "axes"),
        )
    names = [to_text(name) if isinstance(name, str | bytes) else f"column {k}" for k, name in _names(axes[0])]
    columns: dict[str, tuple[object, int]] = {}
    for values, places in blocks:
        for row, place in enumerate(_list_places(places, len(names))):
            columns.setdefault(names[place], (values, row))
    return {name: columns[name] for name in names}


def _names(index: Any) -> Iterator[tuple[int, object]]:
    if not is_kept(index, "_new_Index"):
        raise ValueError("a frame without column names")
    return enumerate(_to_list(index, 0))


def _list_places(places: object, n: int) -> Sequence[int]:
    return range(n)[slice(*places.args)] if is_kept(places, "slice") else _to_list(places, 0)


def _to_list(values: object, row: int) -> list[Any]:
    """List a block's row; only an Array has more than one."""
    if isinstance(values, Array):
        return values.row(row)
    if is_kept(values, "_new_Index"):
        return _to_list(_get(values.args[1], "data"), 0)
    if is_kept(values, "ArrowStringArray"):
        return _list_strings(_get(values.state, "_pa_array") or _get(values.state, "_data"))
    if is_kept(values, "__pyx_unpickle_NDArrayBacked"):
        (array,) = (part for part in values.state if isinstance(part, Array))
        dtypes = [part for part in values.state if is_kept(part, "CategoricalDtype")]
        return _pick(array.to_list(), _to_list(_get(dtypes[0].state, "categories"), 0)) if dtypes else array.to_list()
    raise ValueError("a column or an index of an unknown kind")


def _pick(codes: list[Any], categories: list[Any]) -> list[Any]:
    """Replace each code by its category; -1 stands for a missing one."""
    if codes and not -1 <= min(codes) <= max(codes) < len(categories):
        raise ValueError("a category that does not exist")
    values = [*categories, None]
    return [values[code] for code in codes]


def _list_strings(array: Any) -> list[str | None]:
    """Decode Arrow's layout: which are valid (bits), where each starts, and all of them one after the other.

    Source:
        https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-layout
    """
    if is_kept(array, "chunked_array"):
        return [text for chunk in array.args[0] if is_kept(chunk, "_restore_array") for text in _list_strings(chunk)]
    kind, n, _, start, (valid, bounds, text) = array.args[0][:5]
    if n == 0:
        return []
    integers = {"large_string": np.int64, "string": np.int32}[to_text(kind.args[0])]
    found, text = np.frombuffer(bounds, integers)[start : start + n + 1].tolist(), text or b""
    if len(found) != n + 1 or found[0] < 0 or found[-1] > len(text) or found != sorted(found):
        raise ValueError("strings without their characters")
    texts = [text[a:b].decode() for a, b in itertools.pairwise(found)]
    if valid is None:
        return texts
    bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")[start : start + n].tolist()
    return [text if bit else None for text, bit in zip(texts, bits, strict=True)]
