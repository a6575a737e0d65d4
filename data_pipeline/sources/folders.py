"""Read a folder of .png or .npy maps, in class-named folders or without labels."""

import re
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.errors import DataError, first_line
from data_pipeline.sources.arrays import read_npy
from data_pipeline.sources.raw import ILLEGAL, MAX_SIDE, RawWafers, gather, to_codes
from data_pipeline.wafer_set import FAIL, NO_DIE, PASS

_UNLABELLED = ("unlabelled", "unlabeled", "unknown")
_LOT = re.compile(r"(?<![a-z])lot(\d+)", re.IGNORECASE)  # no pilot7
_GREYS = {0: NO_DIE, 127: PASS, 128: PASS, 255: FAIL}
_DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


def read_folders(path: Path) -> RawWafers:
    """Read maps from the folders in `path`, each named after the class of what is in it, or from `path` itself.

    The folders unlabelled, unlabeled and unknown hold wafers without a label, and so does `path` where no folder in it
    has a map; else what lies there beside the folders is left out. A file called like lot12_wafer3.png
    belongs to lot 12; every other wafer is a lot of its own. Hidden and other files are left out and counted.

    A .npy is a two-dimensional array of die codes. A .png is grey, or of colours that are: its levels are 0, 1, 2, or
    0, 127 or 128, 255, for no die, pass, fail. Anything else becomes ILLEGAL.

    Raises:
        DataError: If there is no map, or one of the maps is damaged or larger than 2,000 x 2,000.
    """
    try:
        files, left_out = _list_files(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    maps = (_read_map(file) for file in files)
    return _gather_files(path, files, maps, left_out=left_out, rows=range(len(files)), missing={})


def stream_folders(path: Path, *, size: int, n_cells: int) -> Iterator[tuple[RawWafers, int]]:
    """Read such a folder piece by piece, and do without the maps that cannot be read.

    Args:
        path: The folder.
        size: Maps in a piece, at most.
        n_cells: In a piece, about; a map that is larger is a piece of its own.

    Yields:
        Wafers with their `rows` and what is `missing`, in order, and the number of all maps.

    Raises:
        DataError: If there is no map.
    """
    try:
        files, left_out = _list_files(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    read: dict[int, NDArray[np.uint8]] = {}
    missing: dict[int, str] = {}
    first = 0
    for row, file in enumerate(files):
        try:
            read[row] = _read_map(file)
        except DataError as error:
            missing[row] = str(error).removeprefix(f"{file}: ")
        is_last = row == len(files) - 1
        if is_last or row - first + 1 == size or sum(one.size for one in read.values()) >= n_cells:
            told = {} if first else left_out
            raw = _gather_files(path, files, read.values(), left_out=told, rows=list(read), missing=missing)
            yield raw, len(files)
            first, read, missing = row + 1, {}, {}


def _gather_files(
    path: Path,
    files: Sequence[Path],
    maps: Iterable[NDArray[np.uint8]],
    *,
    left_out: Mapping[str, int],
    rows: Sequence[int],
    missing: Mapping[int, str],
) -> RawWafers:
    found = [files[row] for row in rows]
    return gather(
        maps,
        labels=[_to_label(file, path) for file in found],
        lots=[_to_lot(file, path) for file in found],
        source=str(path),
        left_out=dict(left_out),
        rows=rows,
        missing=missing,
        names={row: _name_of(files[row], path) for row in (*rows, *missing)},
    )


def _read_map(file: Path) -> NDArray[np.uint8]:
    return _read_png(file) if file.suffix.lower() == ".png" else _read_npy(file)


def _list_files(path: Path) -> tuple[list[Path], Counter[str]]:
    entries = sorted(path.iterdir())
    folders = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    inside = [entry for folder in folders for entry in sorted(folder.iterdir())]
    beside = [entry for entry in entries if entry not in set(folders)]
    labelled, loose = ([entry for entry in these if _is_map(entry)] for these in (inside, beside))
    if not labelled and not loose:
        raise DataError(
            f"{path}: must have .png or .npy maps in it, or a folder of them for each class, like "
            f"{path.name}/Center/lot12_wafer3.png; got {len(folders)} folders and no map"
        )
    others = len(inside) + len(beside) - len(labelled) - len(loose)
    left_out = Counter({"another kind of file": others, "in no class folder": len(loose) if labelled else 0})
    return labelled or loose, +left_out


def _is_map(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() in (".png", ".npy") and path.is_file()


def _to_label(file: Path, path: Path) -> str | None:
    folder = _to_text(file.parent.name)
    return None if file.parent == path or folder.lower() in _UNLABELLED else folder


def _to_lot(file: Path, path: Path) -> str:
    found = _LOT.search(file.stem)
    return f"lot {found[1]}" if found else _name_of(file, path)


def _name_of(file: Path, path: Path) -> str:
    return _to_text(file.relative_to(path).as_posix())


def _to_text(name: str) -> str:
    """Replace what is no character: a name that is not UTF-8 could not be written later."""
    return name.encode("utf-8", "replace").decode()


def _read_npy(path: Path) -> NDArray[np.uint8]:
    values = read_npy(path)
    if values.ndim != 2:
        raise DataError(f"{path}: must have two dimensions; got shape {values.shape}")
    _check_size(values.shape[0], values.shape[1], path)
    return to_codes(values)


def _read_png(path: Path) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # we refuse far smaller images than the ones pillow warns of
            with Image.open(path, formats=["PNG"]) as image:
                _check_size(image.height, image.width, path)
                return _to_die_codes(image)
    except Image.DecompressionBombError:
        raise DataError(f"{path}: must have at most {MAX_SIDE:,}x{MAX_SIDE:,} dies; got far more") from None
    except PermissionError:
        raise DataError(f"{path}: cannot be read (Permission denied)") from None
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged or not a .png file ({first_line(error)}); get it again") from None


def _check_size(height: int, width: int, path: Path) -> None:
    if max(height, width) > MAX_SIDE:
        raise DataError(f"{path}: must have at most {MAX_SIDE:,}x{MAX_SIDE:,} dies; got {height:,}x{width:,}")


def _to_die_codes(image: Image.Image) -> NDArray[np.uint8]:
    levels = _to_levels(image)
    if levels.size and levels.max() <= FAIL:
        return to_codes(levels)
    codes = np.full(levels.shape, ILLEGAL, dtype=np.uint8)
    for level, code in _GREYS.items():
        codes[levels == level] = code
    return codes


def _to_levels(image: Image.Image) -> NDArray[Any]:
    """Give the grey level of each cell; ILLEGAL + 1 where it has a colour."""
    if image.mode == "1":
        return np.asarray(image).astype(np.int64) * 255
    if image.mode == "L" or image.mode.startswith("I"):
        return np.asarray(image).astype(np.int64)
    red, green, blue, _ = np.moveaxis(np.asarray(image.convert("RGBA")).astype(np.int64), -1, 0)
    return np.where((red == green) & (green == blue), red, ILLEGAL + 1)
