"""Time and memory of reading all of WM-811K, on a synthetic file of the same layout and size.

    python -m benchmarks.full_lswmd [--wafers 811457] [--folder FOLDER] [--prepare]

Writes LSWMD.pkl as Python 2 and pandas 0.19 did (memo entries and nested labels included, 79 % unlabelled, lots of 25),
then reads it in a process of its own; with --prepare also runs the whole command.
"""

import argparse
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from data_pipeline.synthetic import make_wafers
from data_pipeline.wafer_set import FAIL, PASS, WaferSet

_UNLABELLED = 638_507 / 811_457
_LOT_SIZE = 25
_N_BASE, _N_CHANGED = 4_000, 6  # synthetic wafers to start from; dies changed in each copy
_SIZE_BIAS = 0.7
_COLUMNS = ("waferMap", "dieSize", "lotName", "waferIndex", "trianTestLabel", "failureType")
_READ = (
    "import sys, pathlib; from data_pipeline.sources.lswmd import read_lswmd as r; w = r(pathlib.Path(sys.argv[1])); "
)
_REPORT = "print(f'{len(w):,} wafers, {len(w.cells):,} cells, {w.labels.count(None):,} unlabelled, {w.left_out}')"


class LegacyWriter:
    """Writes the opcodes of cPickle, protocol 2, one memo entry for each object."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._n_memo = 2  # three are used by hand
        self._known: dict[str, bytes] = {}
        self.write(b"\x80\x02")

    def write(self, *parts: bytes) -> None:
        """Write opcodes."""
        self._stream.write(b"".join(parts))

    def put(self) -> bytes:
        """Opcode that remembers what was built last."""
        self._n_memo += 1
        return b"r" + struct.pack("<I", self._n_memo)

    def shared(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Opcodes for what is written once and then referred to."""
        if name in self._known:
            return self._known[name]
        code = make()
        self._known[name] = b"j" + struct.pack("<I", self._n_memo + 1)
        return code + self.put()

    def name(self, module: str, name: str) -> bytes:
        """Opcodes of a class or a function."""
        return self.shared(f"{module} {name}", f"c{module}\n{name}\n".encode)

    def text(self, value: bytes) -> bytes:
        """Opcodes of a byte string."""
        size = b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))
        return size + value + self.put()

    def dtype(self, code: str) -> bytes:
        """Opcodes of the type of an array."""
        size = 4 * int(code[1:]) if code[0] == "U" else 0
        order = b"U\x01<" if code[0] in "Ufi" else b"U\x01|"
        plain = b"J\xff\xff\xff\xff" * 2 + (b"K?" if code[0] == "O" else b"K\0")
        sizes = b"K%cK\x04K\x08" % size if size else plain
        head = self.name("numpy", "dtype") + self.text(code.encode()) + b"K\0K\1\x87R"
        return self.shared(code, lambda: head + b"(K\x03" + order + b"NNN" + sizes + b"tb")

    def head(self, shape: tuple[int, ...], code: str) -> bytes:
        """Opcodes of an array up to its data."""
        made = self.name("numpy.core.multiarray", "_reconstruct") + self.name("numpy", "ndarray")
        made += b"K\0\x85" + self.put() + b"U\1b" + self.put() + b"\x87" + self.put() + b"R" + self.put()
        sizes = b"".join(b"J" + struct.pack("<i", n) for n in shape)
        return made + b"(K\1(" + sizes + b"t" + self.put() + self.dtype(code) + b"\x89"

    def array(self, values: NDArray[np.generic], code: str) -> bytes:
        """Opcodes of an array of numbers or text."""
        return self.head(values.shape, code) + self.text(values.tobytes()) + b"t" + self.put() + b"b"

    def items(self, items: Iterable[bytes]) -> None:
        """Write a list in batches of a thousand, as picklers do."""
        self.write(b"]", self.put(), b"(")
        for i, item in enumerate(items, 1):
            self.write(item, b"e(" if i % 1000 == 0 else b"")
        self.write(b"e")


def write_lswmd(path: Path, n: int) -> None:
    """Write the frame: a block of two float columns and one of four object columns."""
    rng = np.random.default_rng(0)
    base, labelled = make_wafers(_N_BASE), rng.permutation(n) >= round(n * _UNLABELLED)
    with path.open("wb", buffering=1 << 22) as stream:
        writer = LegacyWriter(stream)
        _write_axes(writer, n)
        writer.write(b"](", writer.array(np.ones((2, n)), "f8"), b"q\0", writer.head((4, n), "O8"))
        writer.items(_cells(writer, base, labelled, rng))
        writer.write(b"tbq\1e](", _index(writer, [_COLUMNS[1], _COLUMNS[3]]))
        writer.write(_index(writer, [_COLUMNS[k] for k in (0, 2, 4, 5)]), b"e", _end(writer))


def _write_axes(writer: LegacyWriter, n: int) -> None:
    manager = writer.name("pandas.core.internals", "BlockManager")
    writer.write(writer.name("pandas.core.frame", "DataFrame"), b")\x81}U\5_data", manager, b")\x81(](")
    writer.write(_index(writer, list(_COLUMNS)))
    rows = writer.name("pandas.indexes.base", "_new_Index") + writer.name("pandas.indexes.range", "RangeIndex")
    bounds = b"}(U\5startK\0U\4stepK\1U\4stopJ" + struct.pack("<i", n) + b"U\4nameNu"
    writer.write(rows, bounds, b"\x86Req\2")


def _index(writer: LegacyWriter, names: list[str]) -> bytes:
    made = writer.name("pandas.indexes.base", "_new_Index") + writer.name("pandas.indexes.base", "Index")
    listed = b"](" + b"".join(writer.text(name.encode()) for name in names) + b"etb"
    return made + b"}(U\4data" + writer.head((len(names),), "O8") + listed + b"U\4nameNu\x86R"


def _end(writer: LegacyWriter) -> bytes:
    places = writer.array(np.array([0, 2, 4, 5]), "i8")
    blocks = (
        b"}(U\6valuesh\0U\x08mgr_locsc__builtin__\nslice\nK\1K\5K\2\x87Ru}(U\6valuesh\1U\x08mgr_locs" + places + b"u"
    )
    return b"}U\x060.14.1}(U\4axesh\2U\6blocks](" + blocks + b"eustbsU\4_typU\tdataframesb."


def _cells(
    writer: LegacyWriter, base: WaferSet, labelled: NDArray[np.bool_], rng: np.random.Generator
) -> Iterator[bytes]:
    # Real maps are larger than the generator's: the published file has 2.1 GB.
    weights = (base.heights * base.widths) ** _SIZE_BIAS
    chosen = rng.choice(len(base), size=len(labelled), p=weights / weights.sum())
    for i in chosen:
        yield writer.array(_vary(base.map(i), rng), "u1")
    for i in range(len(labelled)):
        yield writer.text(b"lot%d" % (i // _LOT_SIZE + 1))
    for known in labelled:
        yield _nested(writer, "Training" if known else "")
    for i, known in zip(chosen, labelled, strict=True):
        yield _nested(writer, base.classes[base.labels[i]] if known else "")


def _vary(one: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    varied = one.copy()
    dies = rng.integers(varied.size, size=_N_CHANGED)
    varied.flat[dies] = np.where(varied.flat[dies] == PASS, FAIL, varied.flat[dies])
    return varied


def _nested(writer: LegacyWriter, label: str) -> bytes:
    return writer.array(np.array([[label]]), f"U{len(label)}") if label else writer.array(np.empty((0, 0)), "f8")


def measure(command: list[str]) -> None:
    """Run a command; print its time and peak memory."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    seconds, code = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
    print(f"  {seconds:.1f} s, peak {used.ru_maxrss / 2**20:.2f} GiB, exit {code}")


def main() -> None:
    """Write, read, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wafers", type=int, default=811_457)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    parser.add_argument("--prepare", action="store_true")
    options = parser.parse_args()
    path = options.folder / f"LSWMD_{options.wafers}.pkl"
    start = time.perf_counter()
    write_lswmd(path, options.wafers)
    print(f"{path}: {path.stat().st_size / 1e9:.2f} GB, written in {time.perf_counter() - start:.0f} s")
    print("reading")
    measure([sys.executable, "-c", _READ + _REPORT, str(path)])
    if options.prepare:
        print("preparing")
        out = options.folder / "prepared.parquet"
        measure([sys.executable, "-m", "data_pipeline.prepare", str(path), "--out", str(out)])


if __name__ == "__main__":
    main()
