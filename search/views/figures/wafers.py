"""Wafer maps as pictures."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from search.views.figures.canvas import drawn

_COLOURS = ("#ffffff", "#d5dfe8", "#D55E00")  # no die, pass, fail
_COLUMNS = 8


def draw_map(cells: NDArray[np.uint8]) -> bytes:
    """Draw one map, a pixel for each die: no die white, passing pale, failing vermillion.

    Args:
        cells: Die codes, shape (H, W).
    """
    picture = Image.fromarray(np.ascontiguousarray(cells))
    picture.putpalette([int(colour[i : i + 2], 16) for colour in _COLOURS for i in (1, 3, 5)])
    buffer = io.BytesIO()
    picture.save(buffer, format="png", bits=2)
    return buffer.getvalue()


@drawn
def draw_wafers(maps: Sequence[NDArray[np.uint8]], titles: Sequence[str], *, title: str) -> Figure:
    """Draw maps of die codes, each of shape (H, W), in rows of eight, each below its title."""
    rows = max(1, -(-len(maps) // _COLUMNS))
    width, height = 1.3 * _COLUMNS, 1.6 * rows + 0.5
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.75 / height, hspace=0.36, wspace=0.06)
    for axis in figure.subplots(rows, _COLUMNS, squeeze=False).flat:
        axis.axis("off")
    for axis, cells, words in zip(figure.axes, maps, titles, strict=False):
        axis.imshow(cells, cmap=ListedColormap(list(_COLOURS)), vmin=0, vmax=2, interpolation="nearest", aspect="auto")
        axis.set_box_aspect(1)
        axis.set_title(words, fontsize=7, loc="center")
    figure.text(0.012, 1 - 0.2 / height, title, fontsize=9, va="center")
    return figure
