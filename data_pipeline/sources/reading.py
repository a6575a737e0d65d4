"""Read wafer maps from whatever file or folder the user has."""

from collections.abc import Callable
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.sources.arrays import read_npz
from data_pipeline.sources.columns import read_parquet
from data_pipeline.sources.die_table import read_csv
from data_pipeline.sources.folders import read_folders
from data_pipeline.sources.lswmd import read_lswmd
from data_pipeline.sources.raw import RawWafers

_READERS: dict[str, Callable[[Path], RawWafers]] = {
    ".npz": read_npz,
    ".parquet": read_parquet,
    ".csv": read_csv,
    ".csv.gz": read_csv,
}
_PICKLES = (".pkl", ".pickle", ".zip")
_KNOWN = f"{', '.join((*_READERS, *_PICKLES))}, or a folder of .png or .npy maps (labelled: in class-named folders)"


def read_source(path: Path, *, progress: Callable[[int, int], None] | None = None) -> RawWafers:
    """Read wafer maps in any form that we know.

    Args:
        path: A file, whose kind its suffix tells, or a folder of maps.
        progress: Called with the bytes read so far and all of them, where reading takes long: for pickles.

    Raises:
        DataError: If there is nothing, its kind is unknown, or its reader refuses it.
    """
    if _is_folder(path):
        return read_folders(path)
    suffix = next((one for one in (*_READERS, *_PICKLES) if path.name.lower().endswith(one)), None)
    if suffix is None:
        raise DataError(f"{path}: unknown kind of file {path.suffix!r}; known: {_KNOWN}")
    return read_lswmd(path, progress=progress) if suffix in _PICKLES else _READERS[suffix](path)


def _is_folder(path: Path) -> bool:
    """Say whether it is a folder rather than a file, and refuse everything else."""
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file; give one of {_KNOWN}")
        if path.is_dir():
            return True
        if not path.is_file():  # to open a pipe would wait for ever
            raise DataError(f"{path}: must be a file or a folder; got a device or a pipe; give one of {_KNOWN}")
        with path.open("rb") as stream:
            is_empty = not stream.read(1)
    except PermissionError:
        raise DataError(f"{path}: may not be read; check its permissions; known: {_KNOWN}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); known: {_KNOWN}") from None
    if is_empty:
        raise DataError(f"{path}: is empty; give one of {_KNOWN}")
    return False
