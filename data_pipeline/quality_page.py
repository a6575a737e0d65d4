"""wafers.report.html: the quality report as one self-contained page, with wafers to look at."""

import base64
import io
from collections.abc import Iterable, Mapping
from html import escape

import numpy as np
import pandas as pd
from PIL import Image

from data_pipeline.encode import Picture, encode_maps
from data_pipeline.quality import UNLABELLED_NAME, Quality, format_number
from data_pipeline.wafer_set import WaferSet

_SAMPLES = 12
_SIDE = 64
# No die, pass, fail: fails must be seen first, also by people who cannot tell red from green.
_COLOURS = np.array([[255, 255, 255], [196, 208, 222], [170, 30, 30]], dtype=np.uint8)

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 64rem; margin: 0 auto; padding: 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
.loud { background: #ffd54f; padding: .5rem 1rem; font-weight: 700; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .7rem; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { image-rendering: pixelated; max-width: 100%; display: block; }
"""


def draw_page(wafers: WaferSet, quality: Quality, dropped: Mapping[str, int]) -> str:
    """Write the page as HTML.

    Args:
        wafers: What was kept.
        quality: From `measure_quality`.
        dropped: Wafers that were not kept, by reason.
    """
    loud = '<p class="loud">SYNTHETIC wafers</p>' if wafers.is_synthetic else ""
    title = escape(wafers.source)
    low, middle, high = quality.wafers_per_lot
    n_lots = len(wafers.lot_names)
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>
{loud}<h1>{title}</h1>
<p>{len(wafers):,} wafers in {n_lots:,} lot{"s" * (n_lots != 1)} ({low} to {high} wafers a lot, median {middle:g}),
fingerprint {wafers.fingerprint}.</p>
<h2>Dropped</h2>{_dropped(dropped)}
<h2>Classes</h2>{_frame(quality.classes)}
<h2>Maps that stand there twice</h2>{_duplicates(quality)}
<h2>Lots shared between classes</h2>
<p>How many lots hold wafers of both classes; on the diagonal, lots of the class.</p>{_frame(quality.shared_lots)}
<h2>Sizes</h2>{_sizes(quality)}
<h2>Samples</h2><p>{_SAMPLES} wafers of each class at most, chosen at random, stretched to {_SIDE} x {_SIDE} pixels.
Grey: pass; red: fail.</p>{_contact_sheet(wafers)}
</body></html>
"""


def _dropped(dropped: Mapping[str, int]) -> str:
    if not dropped:
        return "<p>Nothing.</p>"
    return _table(["reason", "wafers"], ((reason, f"{count:,}") for reason, count in dropped.items()))


def _duplicates(quality: Quality) -> str:
    found = quality.duplicates
    across = "" if found.n_across_official is None else f", {found.n_across_official:,} of them in both official parts"
    text = (
        f"<p>{found.n_maps:,} maps stand there more than once, bit for bit, on {found.n_wafers:,} wafers{across}. "
        f"{found.n_conflicting:,} carry labels that contradict each other. Honest splits keep identical maps together."
        "</p>"
    )
    rows = ((f"{a} and {b}", f"{count:,}") for (a, b), count in found.conflicts.items())
    return text + (_table(["labels of one map", "maps"], rows) if found.conflicts else "")


def _sizes(quality: Quality) -> str:
    shown = list(quality.sizes.items())[:12]
    rest = len(quality.sizes) - len(shown)
    more = f"<p>and {rest:,} more sizes</p>" if rest > 0 else ""
    rows = ((f"{height} x {width}", f"{count:,}") for (height, width), count in shown)
    return _table(["rows x columns", "wafers"], rows) + more


def _contact_sheet(wafers: WaferSet) -> str:
    rng = np.random.default_rng(0)
    strips = []
    for label, name in [*enumerate(wafers.classes), (-1, UNLABELLED_NAME)]:
        members = np.flatnonzero(wafers.labels == label)
        if len(members):
            chosen = rng.permutation(members)[:_SAMPLES]
            strips.append(f"<tr><td>{escape(name)}</td><td>{_strip(wafers, chosen)}</td></tr>")
    return f'<div class="scroll"><table>{"".join(strips)}</table></div>'


def _strip(wafers: WaferSet, chosen: np.typing.NDArray[np.int64]) -> str:
    picture = Picture(image_size=_SIDE, encoding="states")
    maps = np.pad(encode_maps(wafers, chosen, picture=picture), ((0, 0), (0, 0), (4, 4)))
    stream = io.BytesIO()
    Image.fromarray(_COLOURS[np.concatenate(list(maps), axis=1)]).save(stream, "PNG", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{len(chosen)} wafer maps" src="data:image/png;base64,{data}">'


def _frame(frame: pd.DataFrame) -> str:
    rows = (
        [str(name), *(format_number(value) for value in row)]
        for name, row in zip(frame.index, frame.values, strict=True)
    )
    return _table([str(frame.index.name or ""), *map(str, frame.columns)], rows)


def _table(head: list[str], rows: Iterable[Iterable[str]]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{titles}</tr>{body}</table></div>'
