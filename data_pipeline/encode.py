"""Maps of any shape -> one uint8 array of die codes at one size, cached on disk.

By default maps are stretched to a square: dies are rectangles on a round wafer, so a 22x50 map is round again at 40x40.
"""

import hashlib
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from data_pipeline.files import replaced_atomically
from data_pipeline.wafer_set import FAIL, NO_DIE, PASS, WaferSet

Aspect = Literal["stretched", "kept"]

_VERSION = "2"  # raise it when the rule below changes: it is part of the cache key
# Cells or pixels per step: what fits into the processor's cache is encoded 1.6 times as fast as 4096 maps at a time.
_STEP = 2**18


def encode_maps(
    wafers: WaferSet, indices: NDArray[np.int64], *, image_size: int, aspect: Aspect = "stretched"
) -> NDArray[np.uint8]:
    """Resize maps to image_size x image_size without ever blending die codes.

    Each pixel looks at the dies under it, weighted by area. It shows a die if at least half of it is die, and that die
    fails if the fails cover at least 1 / (2 k) of its dies, where k is how many dies the pixel is wide or high,
    whichever is more. With k <= 1 that is the nearest die; with k > 1 a scratch of one die's width always survives,
    while the noise of single fails, which would fill the picture if any fail under a pixel counted, does not.

    Args:
        wafers: The maps.
        indices: Which of them, shape (N,).
        image_size: Pixels per side, at least 8.
        aspect: "stretched": the map fills the picture. "kept": it lies in the middle of a square of its longer side,
            with no die around it, so that dies stay square.

    Returns:
        Die codes 0, 1, 2, shape (N, image_size, image_size), uint8.
    """
    out = np.empty((len(indices), image_size, image_size), dtype=np.uint8)
    for rows in _steps(wafers, indices, image_size=image_size):
        maps = np.stack([wafers.map(i) for i in indices[rows]])
        out[rows] = _resize(_surround(maps) if aspect == "kept" else maps, image_size)
    return out


def load_encoded(
    wafers: WaferSet, indices: NDArray[np.int64], *, image_size: int, cache: Path, aspect: Aspect = "stretched"
) -> NDArray[np.uint8]:
    """Encode, or map the result of an earlier call into memory.

    Args:
        wafers: The maps.
        indices: Which of them, shape (N,).
        image_size: Pixels per side.
        cache: Folder for the arrays; made if missing. A damaged or foreign file there is written anew.
        aspect: See `encode_maps`.

    Returns:
        See `encode_maps`; read-only, backed by the file.

    Raises:
        DataError: If the cache cannot be written.
    """
    key = hashlib.sha256(f"{_VERSION} {aspect} {image_size} {wafers.fingerprint} ".encode() + indices.tobytes())
    path = cache / f"maps-{image_size}px-{key.hexdigest()[:16]}.npy"
    shape = (len(indices), image_size, image_size)
    if not _holds(path, shape):
        with replaced_atomically(path) as partial, partial.open("wb") as stream:
            np.save(stream, encode_maps(wafers, indices, image_size=image_size, aspect=aspect))
    encoded: NDArray[np.uint8] = open_memmap(path, mode="r")
    return encoded


def _steps(wafers: WaferSet, indices: NDArray[np.int64], *, image_size: int) -> Iterator[NDArray[np.int64]]:
    """Cut the positions in `indices` into steps of maps of one shape."""
    shapes = np.stack([wafers.heights[indices], wafers.widths[indices]], axis=1)
    for height, width in np.unique(shapes, axis=0):
        rows = np.flatnonzero((shapes == (height, width)).all(1))
        n_maps = max(1, _STEP // max(height, width, image_size) ** 2)
        yield from np.split(rows, range(n_maps, len(rows), n_maps))


def _surround(maps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put the maps, shape (N, h, w), into the middle of squares without other dies."""
    n, height, width = maps.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    squares = np.full((n, side, side), NO_DIE, dtype=np.uint8)
    squares[:, top : top + height, left : left + width] = maps
    return squares


def _resize(maps: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    _, height, width = maps.shape
    rows, columns = _area_weights(height, size), _area_weights(width, size)
    fail = rows @ (maps == FAIL).astype(np.float32) @ columns.T
    die = rows @ (maps != NO_DIE).astype(np.float32) @ columns.T
    # A hair below the exact share, so that a line split evenly between two pixels is not lost to rounding.
    threshold = np.float32(0.499 / max(height / size, width / size, 1.0))
    return np.where(die < 0.499, NO_DIE, np.where(fail >= threshold * die, FAIL, PASS)).astype(np.uint8)


def _area_weights(n_dies: int, n_pixels: int) -> NDArray[np.float32]:
    """Share of each pixel that each die covers along one axis, shape (n_pixels, n_dies), rows sum to 1."""
    edges = np.arange(n_pixels + 1) * (n_dies / n_pixels)
    dies = np.arange(n_dies)
    overlap = np.minimum(edges[1:, None], dies + 1) - np.maximum(edges[:-1, None], dies)
    weights: NDArray[np.float32] = (np.clip(overlap, 0, None) * (n_pixels / n_dies)).astype(np.float32)
    return weights


def _holds(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        found = open_memmap(path, mode="r")
    except (OSError, ValueError, TypeError, EOFError, tokenize.TokenError):
        return False
    return bool(found.shape == shape and found.dtype == np.uint8)
