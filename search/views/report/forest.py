"""A small drawing of scores with their intervals, one below the other."""

from collections.abc import Sequence

from search.trial.intervals import Interval
from search.views.report.markup import Html, tag
from search.views.report.phrases import percent, span


def draw_forest(rows: Sequence[tuple[str, Interval]], *, chosen: str = "") -> Html:
    """Draw a dot and its interval for each trial, as SVG.

    Args:
        rows: Number of each trial, and its score.
        chosen: The one in colour; the first if none is named.
    """
    low, high = min(each.low for _, each in rows), max(each.high for _, each in rows)
    pad = 0.12 * (high - low) or 0.005
    low, high = low - pad, high + pad

    def x(value: float) -> str:
        return f"{46 + 244 * (value - low) / (high - low):.1f}"

    marks = []
    for i, (name, each) in enumerate(rows):
        y, colour = str(18 + 26 * i), "#0072B2" if name == (chosen or rows[0][0]) else "#6b7782"
        marks += [
            tag("text", f"trial {name}", x="0", y=str(22 + 26 * i), font_size="11", fill="#4a5662"),
            tag(
                "line",
                x1=x(each.low),
                x2=x(each.high),
                y1=y,
                y2=y,
                stroke=colour,
                stroke_width="3",
                stroke_linecap="round",
            ),
            tag("circle", cx=x(each.value), cy=y, r="5.5", fill=colour),
        ]
    ends = [
        tag(
            "text",
            percent(each, 1),
            x=x(each),
            y=str(26 * len(rows) + 16),
            font_size="10",
            fill="#6b7782",
            text_anchor="middle",
        )
        for each in (low + pad, high - pad)
    ]
    words = "; ".join(f"trial {name} {percent(each.value)} ({span(each)})" for name, each in rows)
    return tag(
        "svg", *marks, *ends, viewBox=f"0 0 300 {26 * len(rows) + 20}", role="img", aria_label=words, class_="forest"
    )
