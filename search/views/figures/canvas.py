"""What all pictures share: colours, type, and the way to a small PNG."""

import io
import warnings
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator
from PIL import Image

# Okabe & Ito 2008: can be told apart with any kind of colour vision.
BLUE, VERMILLION, GREEN, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#E69F00"
INK, GREY, PALE, RULE = "#1b2530", "#8a949e", "#c3cad1", "#e3e7eb"
_DPI = 180
_FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK KR",
    "NanumGothic",
    "Malgun Gothic",
    "AppleGothic",
    "Noto Sans CJK JP",
    "SimHei",
)
_P = ParamSpec("_P")


def drawn(draw: Callable[_P, Figure]) -> Callable[_P, bytes]:
    """Make of a function that draws a figure one that returns a PNG, in the style of the house."""

    @wraps(draw)
    def to_png(*args: _P.args, **kwargs: _P.kwargs) -> bytes:
        with mpl.rc_context(_style()), warnings.catch_warnings():
            # Names in a script that no installed font has: boxes are drawn in their place, and the page has the names.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            return _to_png(draw(*args, **kwargs))

    return to_png


def new_axes(width: float, height: float, *, below: float | None = None) -> tuple[Figure, Axes]:
    """Begin a picture with one pair of axes.

    Args:
        width: In inches, of which a phone shows about four in a row.
        height: In inches.
        below: Inches left for what stands below the axes; None measures it and all other margins, which takes as long
            as the drawing itself.
    """
    if below is None:
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left=0.56 / width, right=1 - 0.08 / width, bottom=below / height, top=1 - 0.26 / height)
    return figure, figure.add_subplot()


def label(axis: Axes, *, x: str, y: str, title: str = "", is_whole: bool = True) -> None:
    """Name the axes and what is shown; whole numbers only along x if they count something."""
    if is_whole:
        axis.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    if title:
        axis.set_title(title, loc="left")


def explain(figure: Figure, axis: Axes, *, columns: int = 2) -> None:
    """Put the legend below the picture, where it covers nothing."""
    handles, names = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower left", ncols=columns)


def zoom(axis: Axes, values: list[float], *, all_values: list[float]) -> float:
    """Let the vertical axis show `values`, and of all others what is near; return its lower end."""
    shown = [value for value in values if np.isfinite(value)] or [v for v in all_values if np.isfinite(v)] or [0.0, 1.0]
    low, high = min(shown), max(shown)
    margin = max(0.15 * (high - low), 0.002 * max(abs(high), 1e-3))
    axis.set_ylim(low - 2 * margin, high + margin)
    return low - 2 * margin


@cache
def _style() -> Any:
    installed = {font.name for font in fontManager.ttflist}
    return {
        "font.family": [name for name in _FONTS if name in installed] or ["sans-serif"],
        "font.size": 9,
        "text.parse_math": False,  # names may hold dollar signs
        "axes.titlesize": 9,
        "axes.titlecolor": INK,
        "axes.labelcolor": "#4a5662",
        "axes.edgecolor": "#9aa5af",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "xtick.color": "#4a5662",
        "ytick.color": "#4a5662",
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "legend.handlelength": 1.4,
        "lines.solid_capstyle": "round",
        "figure.dpi": _DPI,
    }


def _to_png(figure: Figure) -> bytes:
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    buffer = io.BytesIO()
    # A palette makes it a third of the size; few of these pictures have more colours.
    small = picture.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    levels = np.array(small.getpalette()).reshape(-1, 3)
    levels[levels.sum(1).argmax()] = 255  # the brightest was white, and shall stay so beside the page's
    small.putpalette(levels.ravel().tolist())
    small.save(buffer, format="png")
    return buffer.getvalue()
