"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.errors import DataError


@contextmanager
def replaced_atomically(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of `path` when the block ends well; else nothing is left.

    Raises:
        DataError: If the folder cannot be written, or the disk is full.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)  # of a process that was killed, and had the same number
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file; raises as `replaced_atomically` does."""
    with replaced_atomically(path) as partial:
        partial.write_bytes(content)
