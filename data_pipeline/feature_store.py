"""What a frozen backbone makes of each wafer in each orientation: computed once, kept on disk, shared by processes."""

import fcntl
import hashlib
import mmap
import os
import struct
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.errors import DataError
from data_pipeline.files import replaced_atomically

N_VIEWS = 8  # the symmetries of `apply_symmetry`; view 0 is the wafer as it is

_MAGIC = b"wafer features 1"  # raise it when the layout changes
_PAGE = mmap.PAGESIZE
_BLOCK = 64  # wafers per call of `compute`
# Rows are moved as whole numbers, since numpy knows no bfloat16.
_BITS = {torch.float32: torch.uint32, torch.bfloat16: torch.uint16, torch.float16: torch.uint16}

Compute = Callable[[Tensor, Tensor], Tensor]


class FeatureStore:
    """The features of (wafer, view) pairs in one file, which every process with the same key reads and fills.

    The file is sparse: what was never computed takes no disk. At most it takes wafers x 8 views x D x bytes, which is
    676 MB for 33,000 wafers, 1280 features and bfloat16, and twice that for float32.

    Layout: a page that says what the file is, a checksum per pair, the features. A pair counts as kept only if its
    checksum fits. So no order of writing matters: whatever a crash, a full disk or another process left half
    written is computed again. Two processes that compute the same pair write the same bytes and need no lock.
    """

    def __init__(self, folder: Path, *, key: str, n_wafers: int, n_features: int, dtype: torch.dtype) -> None:
        """Open the file of this key, or make it.

        Args:
            folder: Made if missing. A damaged or foreign file of this name is made anew.
            key: Names all that the features depend on: wafers and their order, weights, precision, machine.
            n_wafers: N, at least 1.
            n_features: D, at least 1.
            dtype: Of the features: float32, bfloat16 or float16; kept bit for bit.

        Raises:
            DataError: If the folder cannot be written.
        """
        name = hashlib.sha256(f"{key} {n_wafers} {N_VIEWS} {n_features} {dtype}".encode()).digest()
        self._path = folder / f"features-{name.hex()[:16]}.bin"
        self._dtype, n_pairs = dtype, n_wafers * N_VIEWS
        self._rows_at, self._row_bytes = _PAGE + 8 * n_pairs, n_features * dtype.itemsize
        size = self._rows_at + n_pairs * self._row_bytes
        self._file = _open(self._path, header=_MAGIC + name, size=size)
        weakref.finalize(self, os.close, self._file)
        content = mmap.mmap(self._file, size, prot=mmap.PROT_READ)
        self._checks = np.frombuffer(content, np.uint64, n_pairs, offset=_PAGE)
        rows = np.frombuffer(content, f"u{dtype.itemsize}", n_pairs * n_features, offset=self._rows_at)
        self._rows = rows.reshape(n_pairs, n_features)
        self._is_sound = np.zeros(n_pairs, dtype=bool)  # checked by this process

    def fill(self, wafers: Tensor, views: Tensor, compute: Compute) -> int:
        """Compute what is missing.

        `compute` always gets 64 pairs, the last of them repeated if fewer are missing, because kernels are chosen by
        shape: a pair's features must not depend on what happened to be missing beside it.

        Args:
            wafers: Positions, shape (E,), int64 in [0, N), on the CPU; pairs may repeat.
            views: Of each, shape (E,), int64 in [0, 8), on the CPU.
            compute: Maps positions and views of 64 pairs, on the CPU, to their features, shape (64, D), anywhere.

        Returns:
            How many pairs were computed.

        Raises:
            DataError: If the file cannot be written, or does not keep what is written.
        """
        pairs = np.unique(_pairs(wafers, views))
        missing = self._missing(pairs)
        # Processes that start together go through the same wafers. In different orders they share the work.
        np.random.default_rng(os.getpid()).shuffle(missing)
        n_computed = 0
        while len(missing):
            block, missing = missing[:_BLOCK], missing[_BLOCK:]
            padded = torch.from_numpy(np.pad(block, (0, _BLOCK - len(block)), mode="edge"))
            self._write(block, compute(padded // N_VIEWS, padded % N_VIEWS)[: len(block)])
            n_computed += len(block)
            missing = self._missing(missing)  # others may have been here meanwhile
        if len(self._missing(pairs)):
            raise DataError(f"{self._path}: does not keep what is written to it; give results on a local disk")
        return n_computed

    def read(self, wafers: Tensor, views: Tensor, *, device: torch.device) -> Tensor:
        """Read pairs that `fill` was given before; arguments as there.

        Returns:
            Features, shape (E, D), on the device.

        Raises:
            KeyError: If one of them was not filled.
        """
        pairs = _pairs(wafers, views)
        if not self._is_sound[pairs].all():
            raise KeyError("features that were never filled")
        return torch.from_numpy(self._rows[pairs]).view(self._dtype).to(device, non_blocking=True)

    def _missing(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Keep the pairs that the file lacks; each that it has is checked once."""
        new = pairs[~self._is_sound[pairs]]
        claimed = new[self._checks[new] != 0]
        for part in np.array_split(claimed, len(claimed) // 4096 + 1):  # a copy of all rows could fill the memory
            self._is_sound[part] = self._checks[part] == _checksums(self._rows[part])
        return new[~self._is_sound[new]]

    def _write(self, pairs: NDArray[np.int64], features: Tensor) -> None:
        # By system calls and not through the map: on a full disk a map kills the process, a call raises.
        rows = features.to("cpu", self._dtype).contiguous().view(_BITS[self._dtype]).numpy()
        try:
            for pair, row, check in zip(pairs.tolist(), rows, _checksums(rows).tolist(), strict=True):
                os.pwrite(self._file, row.tobytes(), self._rows_at + pair * self._row_bytes)
                os.pwrite(self._file, struct.pack("=Q", check), _PAGE + 8 * pair)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written ({error.strerror or error})") from None


def _open(path: Path, *, header: bytes, size: int) -> int:
    """Open a file if it is the right one; else put an empty one in its place."""
    try:
        with _locked(path.parent):
            if not _is_whole(path, header=header, size=size):
                with replaced_atomically(path) as partial, partial.open("wb") as file:
                    file.write(header)
                    file.truncate(size)
            return os.open(path, os.O_RDWR)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror or error})") from None


def _is_whole(path: Path, *, header: bytes, size: int) -> bool:
    try:
        with path.open("rb") as file:
            return path.stat().st_size == size and file.read(len(header)) == header
    except OSError:
        return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time make files: one that replaced another's new file would share nothing with it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _pairs(wafers: Tensor, views: Tensor) -> NDArray[np.int64]:
    pairs: NDArray[np.int64] = (wafers * N_VIEWS + views).numpy()
    return pairs


def _checksums(rows: NDArray[np.unsignedinteger]) -> NDArray[np.uint64]:
    """Sum the bits of each row; never 0, which means that there is none."""
    sums: NDArray[np.uint64] = rows.sum(axis=1, dtype=np.uint64) + np.uint64(1)
    return sums
