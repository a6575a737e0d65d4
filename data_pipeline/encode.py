"""Maps of any shape -> one uint8 array of pictures of one size, cached on disk.

By default maps are stretched to a square: dies are rectangles on a round wafer, so a 22x50 map is round again at 40x40.
"""

import hashlib
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from data_pipeline.files import replaced_atomically
from data_pipeline.wafer_set import FAIL, NO_DIE, PASS, WaferSet

Aspect = Literal["stretched", "kept"]
Encoding = Literal["states", "coverage"]

_VERSIONS = {"states": "2", "coverage": "coverage 1"}  # raise one when its rule changes: it is part of the cache key
# Cells or pixels per step: what fits into the processor's cache is encoded 1.6 times as fast as 4096 maps at a time.
_STEP = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a map becomes; the fields are named as in a study's data section.

    Attributes:
        image_size: S, pixels per side, at least 8.
        aspect: "stretched": the map fills the picture. "kept": it lies in the middle of a square of its longer side,
            with no die around it, so that dies stay square.
        encoding: What a pixel holds. "coverage": how much of it is passing and failing die. "states": one die code,
            which costs half the memory and, at 40 pixels on real wafers, 1 to 2 points of macro-F1.
    """

    image_size: int
    aspect: Aspect = "stretched"
    encoding: Encoding = "coverage"

    @property
    def shape(self) -> tuple[int, ...]:
        """(S, S); of coverage (S, S, 2), the last axis for passing and failing dies."""
        return (self.image_size,) * 2 + (2,) * (self.encoding == "coverage")


def encode_maps(wafers: WaferSet, indices: NDArray[np.int64], *, picture: Picture) -> NDArray[np.uint8]:
    """Resize maps to pictures; each pixel looks at the dies under it, weighted by area.

    "states" never blends die codes. A pixel shows a die if at least half of it is die, and that die fails if the fails
    cover at least 1 / (2 k) of its dies, where k is how many dies the pixel is wide or high, whichever is more. With
    k <= 1 that is the nearest die; with k > 1 a scratch of one die's width always survives, while the noise of single
    fails, which would fill the picture if any fail under a pixel counted, does not.

    "coverage" holds the shares themselves, in 255ths of the pixel's area: failing dies are rounded to the nearest, and
    passing dies are what is left of all dies, rounded likewise, so that the two never sum to more than 255.

    Args:
        wafers: The maps.
        indices: Which of them, shape (N,).
        picture: What they become.

    Returns:
        Die codes 0, 1, 2 of shape (N, S, S), or coverage in [0, 255] of shape (N, S, S, 2), passing and failing; uint8.
    """
    out = np.empty((len(indices), *picture.shape), dtype=np.uint8)
    for rows in _steps(wafers, indices, image_size=picture.image_size):
        maps = np.stack([wafers.map(i) for i in indices[rows]])
        out[rows] = _resize(_surround(maps) if picture.aspect == "kept" else maps, picture)
    return out


def load_encoded(wafers: WaferSet, indices: NDArray[np.int64], *, picture: Picture, cache: Path) -> NDArray[np.uint8]:
    """Encode, or map the result of an earlier call into memory.

    Args:
        wafers: The maps.
        indices: Which of them, shape (N,).
        picture: What they become.
        cache: Folder for the arrays; made if missing. A damaged or foreign file there is written anew.

    Returns:
        See `encode_maps`; read-only, backed by the file.

    Raises:
        DataError: If the cache cannot be written.
    """
    rule = f"{_VERSIONS[picture.encoding]} {picture.aspect} {picture.image_size}"
    key = hashlib.sha256(f"{rule} {wafers.fingerprint} ".encode() + indices.tobytes())
    path = cache / f"maps-{picture.image_size}px-{key.hexdigest()[:16]}.npy"
    if not _holds(path, (len(indices), *picture.shape)):
        with replaced_atomically(path) as partial, partial.open("wb") as stream:
            np.save(stream, encode_maps(wafers, indices, picture=picture))
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


def _resize(maps: NDArray[np.uint8], picture: Picture) -> NDArray[np.uint8]:
    _, height, width = maps.shape
    size = picture.image_size
    rows, columns = _overlaps(height, size), _overlaps(width, size)
    # Sums of whole numbers, which float32 holds exactly up to 2^24 cells: the same on every machine, and in a graph.
    fail = (rows @ (maps == FAIL).astype(np.float32) @ columns.T) / np.float32(height * width)
    die = (rows @ (maps != NO_DIE).astype(np.float32) @ columns.T) / np.float32(height * width)
    if picture.encoding == "coverage":
        return _in_255ths(die, fail)
    # A hair below the exact share, so that a line split evenly between two pixels is not lost to rounding.
    threshold = np.float32(0.499 / max(height / size, width / size, 1.0))
    return np.where(die < 0.499, NO_DIE, np.where(fail >= threshold * die, FAIL, PASS)).astype(np.uint8)


def _in_255ths(die: NDArray[np.float32], fail: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round shares of pixels, shape (N, S, S), to coverage by passing and failing dies, shape (N, S, S, 2)."""
    # A hair above one half, so that a pixel half covered is rounded alike on either side of a wafer.
    dies = (255 * die + np.float32(0.501)).astype(np.uint8)
    fails = (255 * fail + np.float32(0.501)).astype(np.uint8)
    return np.stack([dies - fails, fails], axis=-1)


def _overlaps(n_dies: int, n_pixels: int) -> NDArray[np.float32]:
    """How much each die covers of each pixel along one axis, shape (n_pixels, n_dies), in whole numbers.

    A die is n_pixels long and a pixel n_dies, so that rows sum to n_dies.
    """
    edges, dies = np.arange(n_pixels + 1) * n_dies, np.arange(n_dies) * n_pixels
    overlap = np.minimum(edges[1:, None], dies + n_pixels) - np.maximum(edges[:-1, None], dies)
    whole: NDArray[np.float32] = np.clip(overlap, 0, None).astype(np.float32)
    return whole


def _holds(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        found = open_memmap(path, mode="r")
    except (OSError, ValueError, TypeError, EOFError, tokenize.TokenError):
        return False
    return bool(found.shape == shape and found.dtype == np.uint8)
