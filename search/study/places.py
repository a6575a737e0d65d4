"""Files that slots on other machines write and read: a path that all of them have mounted, or an object in a store.

A place is a path, or an address such as s3://bucket/folder/file. Addresses are opened by pyarrow, or by fsspec where
pyarrow does not know them; who may read and write there is decided by the environment, never by the address.
"""

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from pyarrow import fs

from data_pipeline.errors import first_line
from search.errors import ConfigError
from search.study.records import write_atomically

T = TypeVar("T")
# A store that cannot be reached is tried again for so long before a search gives up.
PATIENCE_S = 300.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
# Stores in which a file is there as a whole or not at all; elsewhere it is written to the side and moved.
_ATOMIC = ("s3", "gcs", "abfs", "gs")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_address(place: str) -> bool:
    """Whether this is the address of a store, not a path.

    Example:
        >>> is_address("s3://bucket/results"), is_address("/mnt/results")
        (True, False)
    """
    return _SCHEME.match(place) is not None


def check_address(address: str, *, option: str) -> str:
    """Return an address without its last slash.

    Raises:
        ConfigError: If it cannot be opened, or holds more than a place: a password would be written to many files.
    """
    if re.search(r"[@?#\s]", address):
        raise ConfigError(
            f"{option}: must be like s3://bucket/folder, without a key, a password or options; what opens the store "
            "comes from the environment (AWS_ACCESS_KEY_ID and so on, AWS_ENDPOINT_URL), or from the machine's role"
        )
    try:
        _open(address.rstrip("/"))
    except (OSError, ValueError, ImportError, TypeError) as error:
        raise ConfigError(f"{option} {address}: cannot be opened ({first_line(error)})") from None
    return address.rstrip("/")


def write_place(place: str, content: bytes, *, patience_s: float = PATIENCE_S) -> None:
    """Write a file as a whole.

    Args:
        place: Where to.
        content: Of the file.
        patience_s: Seconds for which a store that does not answer is tried again.

    Raises:
        ConfigError: If that is impossible.
    """
    if not is_address(place):
        write_atomically(Path(place), content)
        return

    def write() -> None:
        store, path = _open(place)
        if store.type_name in _ATOMIC:
            _put(store, path, content)
        else:
            store.create_dir(path.rpartition("/")[0], recursive=True)
            _put(store, f"{path}.partial", content)
            store.move(f"{path}.partial", path)

    _persist(write, place, "written", patience_s)


def read_place(place: str, *, patience_s: float = PATIENCE_S) -> bytes | None:
    """Read a file; None if there is none.

    Raises:
        ConfigError: If the store cannot be reached.
    """
    if not is_address(place):
        try:
            return Path(place).read_bytes()
        except OSError:
            return None

    def read() -> bytes | None:
        store, path = _open(place)
        try:
            with store.open_input_stream(path) as stream:
                content: bytes = stream.read()
                return content
        except FileNotFoundError:
            return None

    return _persist(read, place, "read", patience_s)


def remove_place(place: str) -> None:
    """Remove a file, if that can be done at once; one that stays is in nobody's way."""
    with suppress(OSError):
        if is_address(place):
            store, path = _open(place)
            store.delete_file(path)
        else:
            Path(place).unlink()


def list_places(address: str) -> list[str]:
    """Return the names of all files below an address, relative to it.

    Raises:
        ConfigError: If the store cannot be reached.
    """

    def look() -> list[str]:
        store, path = _open(address)
        found = store.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
        return sorted(
            info.path.strip("/").removeprefix(f"{path.strip('/')}/") for info in found if info.type == fs.FileType.File
        )

    return _persist(look, address, "listed", PATIENCE_S)


def age_of(place: str, *, patience_s: float = PATIENCE_S) -> float | None:
    """Return the seconds since a file in a store was written, by the store's clock; None if there is none, or no clock.

    Raises:
        ConfigError: If the store cannot be reached.
    """

    def look() -> float | None:
        store, path = _open(place)
        info = store.get_file_info(path)
        if info.type != fs.FileType.File or info.mtime_ns is None:
            return None
        probe = f"{path}.now"
        _put(store, probe, b"")
        now = store.get_file_info(probe).mtime_ns
        store.delete_file(probe)
        return float(now - info.mtime_ns) / 1e9

    return _persist(look, place, "looked at", patience_s)


def _open(place: str) -> tuple[Any, str]:
    """Return the store and the path in it."""
    scheme, _, path = place.partition("://")
    host, _, rest = path.partition("/")
    store, root = _open_root(scheme.lower(), host)
    return store, f"{root}/{rest}".rstrip("/")


@lru_cache(maxsize=16)
def _open_root(scheme: str, host: str) -> tuple[Any, str]:
    """Open a store, once per process, and return the path of what its address begins with."""
    if scheme == "s3":  # its own reading of the environment knows no other endpoints than Amazon's
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return fs.S3FileSystem(endpoint_override=endpoint, connect_timeout=5, request_timeout=30), host
    try:
        store, path = fs.FileSystem.from_uri(f"{scheme}://{host}/")
    except (ValueError, NotImplementedError):
        store, path = fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme))), host
    return store, path.rstrip("/")


def _put(store: Any, path: str, content: bytes) -> None:
    with store.open_output_stream(path) as stream:
        stream.write(content)


def _persist(call: Callable[[], T], place: str, what: str, patience_s: float) -> T:
    """Call until it works."""
    end, pause = time.monotonic() + patience_s, _FIRST_PAUSE_S
    while True:
        try:
            return call()
        except (OSError, ValueError) as error:
            if time.monotonic() + pause > end:
                raise ConfigError(f"{place}: cannot be {what} ({first_line(error)})") from None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
