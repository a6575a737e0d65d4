"""Unpickle files of strangers without executing anything that they ask for.

A pickle names callables and has them called. Here every name leads to a stand-in of ours that only keeps what it is
given, and a name without one is refused, so neither pandas nor numpy ever sees what stands in the file.

All stand-ins have `__slots__` and their own `__setstate__`: without, the BUILD opcode could change their attributes,
and those of their classes, for the rest of the process.

Not stopped: a tuple made to nest a million deep or to double itself, used as a key, crashes or stalls Python's hash().
"""

import contextlib
import copyreg
import functools
import gc
import math
import pickle
import re
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeGuard

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError

if sys.platform == "linux":
    import resource

_DTYPE = re.compile("[biufSU][0-9]{1,6}")
_SLACK = 1 << 30  # bytes that reading may take on top of what a file of this size needs
_DAMAGE = (
    *(pickle.UnpicklingError, struct.error, ArithmeticError, AttributeError, BufferError, EOFError, LookupError),
    *(RuntimeError, SystemError, TypeError, ValueError),
)


class Array:
    """Stand-in for a numpy array: its bytes and what they mean, decoded on demand.

    Real arrays must not exist while the file is read: BUILD would pass their own `__setstate__` anything at all.
    """

    __slots__ = ("_dtype", "_fortran", "_raw", "shape")

    shape: tuple[int, ...]
    _dtype: "_Dtype"
    _fortran: bool
    _raw: Any

    def __init__(self, kind: object = None, shape: object = None, code: object = None) -> None:
        self.shape = ()

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self._dtype, self._fortran, self._raw = state
        if type(self.shape) is not tuple or type(self._dtype) is not _Dtype:
            raise ValueError("an array without shape or type")

    @property
    def kind(self) -> str:
        """Numpy's letter for the type of the elements; O stands for objects."""
        return self._dtype.code[:1]

    @property
    def is_number(self) -> bool:
        """Whether the elements are numbers or truth values."""
        return self.kind in ("b", "i", "u", "f")

    @property
    def is_map(self) -> bool:
        """Whether this is a two-dimensional array of numbers with at least one cell."""
        return len(self.shape) == 2 and self.is_number and 0 not in self.shape

    def objects(self) -> list[Any]:
        """Elements of an array of objects, row-major.

        Raises:
            ValueError: If there are more or fewer than the shape asks for.
        """
        if type(self._raw) is not list or len(self._raw) != self._size():
            raise ValueError("an array of objects whose shape and elements differ")
        return self._raw

    def decode(self) -> NDArray[Any]:
        """Give an array of numbers or strings as numpy's; it is a view of the file's bytes and cannot be written to.

        Raises:
            ValueError: If shape and bytes do not fit, or the type is not one of numbers or strings.
        """
        raw, dtype = self._raw, _make_dtype(self._dtype.order, self._dtype.code)
        if type(raw) is str:  # protocols 0 and 1
            raw = raw.encode("latin-1")
        if not isinstance(raw, bytes | bytearray) or len(raw) != self._size() * dtype.itemsize:
            raise ValueError("an array whose shape and bytes differ")
        if not raw:
            return np.empty(0, dtype)
        return np.frombuffer(raw, dtype).reshape(self.shape, order="F" if self._fortran else "C")

    def to_list(self) -> list[Any]:
        """Elements in row-major order."""
        return self.objects() if self.kind == "O" else self.decode().ravel().tolist()

    def row(self, index: int) -> list[Any]:
        """Row of a two-dimensional array; a one-dimensional one is its only row."""
        if len(self.shape) == 1:
            return self.to_list()
        _, n = self.shape
        return self.objects()[index * n : (index + 1) * n] if self.kind == "O" else self.decode()[index].tolist()

    def _size(self) -> int:
        if not all(type(n) is int and n >= 0 for n in self.shape):
            raise ValueError("an array whose shape is no sequence of sizes")
        return math.prod(self.shape)


def unpickle(stream: BinaryIO, *, source: str, size: int) -> object:
    """Read a pickle into stand-ins: an Array for each array, a Kept for whatever else has a class.

    While it reads, memory is limited (see limit_memory) and the garbage collector rests: it would go through millions
    of new objects time and again.

    Args:
        stream: The pickle. Give it a `peek` method, or reading is slow.
        source: Name of the file, for errors.
        size: Its size in bytes.

    Raises:
        DataError: If it asks for anything but a frame's parts, or is damaged.
    """
    with damage(source), limit_memory(size), _no_collection():
        # Otherwise the EXT opcodes would find what this process has called before, past find_class.
        copyreg.clear_extension_cache()
        try:
            return _Unpickler(stream, source=source).load()
        finally:
            copyreg.clear_extension_cache()


@contextlib.contextmanager
def damage(source: str) -> Iterator[None]:
    """Turn whatever damaged bytes raise into a DataError that names the file."""
    try:
        yield
    except MemoryError:
        raise DataError(
            f"{source}: must fit into memory; damaged, or too large for this machine; get it again, or a larger machine"
        ) from None
    except _DAMAGE as error:
        # Never str() or repr() of what the file holds: a nested one of a hundred bytes can fill the memory.
        reason = str(error)[:100] or type(error).__name__
        raise DataError(f"{source}: damaged or truncated pickle ({reason}); get it again") from None


@contextlib.contextmanager
def limit_memory(size: int) -> Iterator[None]:
    """Let the process take four times a file's size and 1 GiB more memory than it has; on Linux only.

    A damaged or hostile file of a hundred bytes can claim any number of bytes or wafers. All threads are limited.

    Raises:
        MemoryError: If that is not enough.
    """
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    known = [limit for limit in (used + 4 * size + _SLACK, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(known), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO, *, source: str) -> None:
        super().__init__(stream, encoding="bytes")  # strings of Python 2 are text or raw cells
        self._source = source

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        found = _STAND_INS.get(module_name.partition(".")[0], {}).get(global_name)
        if found is None:
            asked = ascii(f"{module_name}.{global_name}"[:100])[1:-1]
            raise DataError(
                f"{self._source}: asks to call {asked}, which no wafer file needs; refused, nothing was executed"
            )
        return found

    def persistent_load(self, pid: Any, /) -> Any:
        raise DataError(f"{self._source}: asks for a persistent id, which no wafer file needs; refused")


class Kept:
    """Stand-in that keeps what it is called with and its state; each name has a class of its own."""

    __slots__ = ("args", "state")

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: object) -> Self:
        """Keep the arguments."""
        kept = super().__new__(cls)
        kept.args, kept.state = args, None
        return kept

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype:
    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object) -> None:  # whether aligned, and copied
        self.code = to_text(code)
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        self.order = to_text(state[1])
        if self.order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise ValueError("an array of records")


class _Function:
    """Stand-in for a function; an instance, because BUILD could set attributes of a function."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __call__(self, *args: object) -> object:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a state for a function")


def to_text(value: object) -> str:
    """Give a name as text, whichever Python wrote it.

    Raises:
        ValueError: If it is no name.
    """
    if not isinstance(value, str | bytes):
        raise ValueError("a number or an object where a name belongs")
    return value if isinstance(value, str) else value.decode("latin-1")


@functools.lru_cache(maxsize=64)
def _make_dtype(order: str, code: str) -> np.dtype[Any]:
    if not _DTYPE.fullmatch(code):
        raise ValueError("an array of a type that is neither numbers nor strings")
    return np.dtype(code if order == "|" else order + code)


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> Array:
    """Stand in for how protocol 5 holds an array."""
    if order not in ("C", "F"):
        raise ValueError("an array in neither row nor column order")
    array = Array()
    array.__setstate__((1, shape, dtype, order == "F", raw))
    return array


def _scalar(dtype: object, raw: object = None) -> object:
    return raw if isinstance(dtype, _Dtype) and dtype.code[:1] == "O" else _from_buffer(raw, dtype, (), "C")


def _encode(text: object, encoding: object) -> bytes:
    """Stand in for how protocol 2 holds bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1", b"latin1", b"latin-1"):
        raise ValueError("bytes in an unknown spelling")
    return text.encode("latin-1")


def _to_bytes(raw: object = b"", encoding: object = "latin-1") -> bytes:
    """Stand in for bytes() and bytearray(), which would also allocate as many bytes as a number says."""
    return bytes(raw) if isinstance(raw, bytes | bytearray) else _encode(raw, encoding)


def _keep(*names: str) -> dict[str, type[Kept]]:
    return {name: type(name, (Kept,), {"__slots__": ()}) for name in names}


# Stand-ins for the classes and functions of pandas, by name.
PANDAS = _keep(
    *("DataFrame", "BlockManager", "_unpickle_block", "new_block", "CategoricalDtype", "StringDtype", "NA"),
    *("_new_Index", "Index", "RangeIndex", "Int64Index", "UInt64Index", "Float64Index"),
    *("ArrowStringArray", "__pyx_unpickle_NDArrayBacked", "Categorical", "StringArray"),
    # Kinds that are not decoded, so that a file with them can be read up to there.
    *("DatetimeArray", "TimedeltaArray", "IntegerArray", "FloatingArray", "BooleanArray", "BooleanDtype"),
    *(f"{number}{bits}Dtype" for number in ("Int", "UInt", "Float") for bits in (8, 16, 32, 64)),
)
_ARROW = _keep("_restore_array", "chunked_array", "type_for_alias")
_BUILTINS = {"slice": _keep("slice")["slice"], "bytes": _Function(_to_bytes), "bytearray": _Function(_to_bytes)}
_NUMPY = {
    "_reconstruct": Array,
    "_frombuffer": _Function(_from_buffer),
    "scalar": _Function(_scalar),
    "dtype": _Dtype,
    **_keep("ndarray"),
}
# By package and name: within numpy and pandas, modules move from version to version.
_STAND_INS: Mapping[str, Mapping[str, object]] = {
    "numpy": _NUMPY,
    "pandas": PANDAS,
    "pyarrow": {**_ARROW, "py_buffer": _Function(_to_bytes)},
    "builtins": _BUILTINS,
    "__builtin__": _BUILTINS,
    "_codecs": {"encode": _Function(_encode)},
}


def is_kept(value: object, name: str) -> TypeGuard[Kept]:
    """Whether a value stands in for one of the class of this name, whichever module had it."""
    return isinstance(value, Kept) and type(value).__name__ == name


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
