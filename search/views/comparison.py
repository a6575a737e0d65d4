"""The page of a comparison: studies side by side, on the same test wafers."""

import importlib.resources
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from search.study.marks import warnings_of
from search.study.records import StudyFolder, write_atomically
from search.trial.intervals import Difference
from search.views.comparison_text import (
    better_of,
    cautions,
    letter_of,
    print_comparison,
    tested_on,
    three_scores,
    verdicts,
    with_interval,
)
from search.views.contenders import HEADLINES, Comparison, Contender, Pair, compare_studies
from search.views.report.markup import Content, Html, join, listing, paragraph, scrolling, section, table, tag
from search.views.report.matrix import confusion_table
from search.views.report.phrases import percent, points
from search.views.words import number

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#666666"  # Okabe & Ito 2008: told apart with any colour vision
_TRACK, _ROW = 150, 18  # of the drawn intervals, pixels
_STYLE = """
.group { border-left: 1px solid var(--rule); } th.group { text-align: center; }
.verdicts { padding: 0; list-style: none; max-width: none; } .interval { vertical-align: middle; }
.comparison th, .comparison h3 { white-space: normal; overflow-wrap: break-word; } .pair > * { min-width: 0; }
.differences th:nth-child(n+5) { min-width: 4rem; } .differences td.words:first-child { min-width: 6rem; }
.comparison .confusion thead span { writing-mode: vertical-rl; transform: rotate(180deg); display: inline-block;
  white-space: normal; text-align: left; max-height: 9rem; }
.comparison .confusion td { min-width: 2.6rem; }
@media print { .interval { width: 6rem; } .comparison .pair { grid-template-columns: 1fr; } }
"""


def write_comparison(folders: Sequence[StudyFolder], console: Console, *, out: Path) -> Path:
    """Print a comparison of two or more studies and write its page; return where to.

    Raises:
        ConfigError: If they cannot be compared, see `compare_studies`, or the page cannot be written.
    """
    comparison = compare_studies(folders)
    write_atomically(out, to_page(comparison))
    print_comparison(comparison, console)
    return out


def default_name(folders: Sequence[StudyFolder]) -> str:
    """Name the page of these studies, in their order."""
    return f"comparison-{'-'.join(folder.name for folder in folders)}.html"


def to_page(comparison: Comparison) -> str:
    """Write the page: one file, no network."""
    names = " and ".join(contender.name for contender in comparison.contenders)
    style = importlib.resources.files("search.views.report").joinpath("style.css").read_text("utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", " · ".join([names, *comparison.marks])),
        tag("style", Html(style + _STYLE)),
    )
    chapters = [
        _head(comparison, names),
        _scores(comparison),
        *(_differences(comparison, pair) for pair in comparison.pairs),
        _confusions(comparison),
        _budgets(comparison),
        _origins(comparison),
    ]
    body = tag("body", tag("main", *chapters, class_="comparison"))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _head(comparison: Comparison, names: str) -> Html:
    return join(
        paragraph("Studies side by side", class_="kicker"),
        tag("h1", names),
        *(paragraph(warning, class_="loud") for warning in warnings_of(comparison.data)),
        tag(
            "ul", *(tag("li", tag("span", one.letter), f" {one.name}") for one in comparison.contenders), class_="chips"
        ),
        listing((tag("b", line) for line in verdicts(comparison)), class_="verdicts lead"),
        paragraph(tested_on(comparison)),
        tag("div", tag("h3", "What this does not contain"), listing(cautions(comparison)), class_="belief"),
    )


def _scores(comparison: Comparison) -> Html:
    top = [tag("th", "class, %", rowspan="2", class_="words"), tag("th", "wafers", rowspan="2")]
    top += [
        tag("th", f"{contender.letter} · {contender.name}", colspan="3", class_="group")
        for contender in comparison.contenders
    ]
    below = [tag("th", word) for _ in comparison.contenders for word in ("precision", "recall", "F1")]
    rows = []
    for k, name in enumerate(comparison.classes):
        cells = [
            _edge(i, cell) for contender in comparison.contenders for i, cell in enumerate(three_scores(contender, k))
        ]
        rows.append((tag("td", name, class_="words"), f"{comparison.contenders[0].scores.support[k]:,}", *cells))
    for key, words in {**HEADLINES, "worst_class_f1": "worst class"}.items():
        cells = [
            _edge(i, cell)
            for contender in comparison.contenders
            for i, cell in enumerate(("", "", percent(getattr(contender.scores, key))))
        ]
        rows.append((tag("td", words, class_="words"), "", *cells))
    body = [tag("tr", *(cell if isinstance(cell, Html) else tag("td", cell) for cell in row)) for row in rows]
    made = tag("table", tag("thead", tag("tr", *top), tag("tr", *below)), tag("tbody", *body))
    return section("Scores on the locked test", scrolling(made), id_="scores")


def _edge(position: int, cell: str) -> Html:
    """Make a cell of the three of a study: a line before the first, the last in bold."""
    return tag("td", tag("b", cell) if position == 2 else cell, class_="group" if position == 0 else None)


def _differences(comparison: Comparison, pair: Pair) -> Html:
    first, second = pair.first.letter, pair.second.letter
    both, only_first, only_second, none = pair.right
    found = [*pair.headlines.values(), *pair.f1]
    reach = max((abs(end) for one in found for end in (one.low, one.high) if not math.isnan(end)), default=0) or 0.01

    def row(words: str, one: Difference, n_units: int, support: str = "", a: str = "", b: str = "") -> list[Content]:
        better = better_of(pair, one, n_units=n_units)
        colour = _GREY if better is None else _BLUE if better is pair.first else _ORANGE
        return [words, with_interval(one), _drawing(one, reach, colour), letter_of(better), support, a, b]

    rows = [row(HEADLINES[key], one, comparison.n_units) for key, one in pair.headlines.items()]
    for k, (name, one) in enumerate(zip(comparison.classes, pair.f1, strict=True)):
        only = (f"{counts[k]:,}" for counts in (pair.only_first, pair.only_second))
        rows.append(row(name, one, comparison.units[k], _support(comparison, k), *only))
    scale = f"{points(-reach, 0)} to {points(reach, 0)}"
    wafers = "wafers (lots)" if comparison.n_lots else "wafers"
    header = ("F1 of", "difference (95 %)", scale, "better", wafers, f"only {first} right", f"only {second} right")
    together = table(
        ("wafers", f"{second} right", f"{second} wrong"),
        ((f"{first} right", f"{both:,}", f"{only_first:,}"), (f"{first} wrong", f"{only_second:,}", f"{none:,}")),
    )
    return section(
        f"{first} minus {second}",
        paragraph(f"{first} is {pair.first.name}, {second} is {pair.second.name}. In points.", class_="small"),
        table(header, rows, words=(0, 3), class_="differences"),
        tag("h3", "Who is right"),
        together,
        id_=f"pair-{comparison.pairs.index(pair) + 1}",
    )


def _support(comparison: Comparison, k: int) -> str:
    lots = f" ({comparison.units[k]:,})" if comparison.n_lots else ""
    return f"{comparison.contenders[0].scores.support[k]:,}{lots}"


def _drawing(found: Difference, reach: float, colour: str) -> Content:
    """Draw an interval around its value, 0 in the middle."""
    if math.isnan(found.value):
        return ""
    low, value, high = (f"{_TRACK / 2 * (1 + 0.94 * end / reach):.1f}" for end in (found.low, found.value, found.high))
    middle = f"{_ROW / 2:g}"
    return tag(
        "svg",
        tag("line", x1=f"{_TRACK / 2:g}", x2=f"{_TRACK / 2:g}", y1="0", y2=str(_ROW), stroke="#bbbbbb"),
        tag("line", x1=low, x2=high, y1=middle, y2=middle, stroke=colour, stroke_width="3"),
        tag("circle", cx=value, cy=middle, r="4.5", fill=colour),
        viewBox=f"0 0 {_TRACK} {_ROW}",
        width=str(_TRACK),
        height=str(_ROW),
        class_="interval",
        role="img",
        aria_label=with_interval(found),
    )


def _confusions(comparison: Comparison) -> Html:
    made = [_confusion(contender, comparison.classes) for contender in comparison.contenders]
    note = "Wafers, and % of the actual label; rows are actual, columns called."
    return section(
        "What they confuse", tag("div", *made, class_="pair"), paragraph(note, class_="small"), id_="confusions"
    )


def _confusion(contender: Contender, classes: Sequence[str]) -> Html:
    made = confusion_table(contender.confusion.tolist(), classes)
    return tag("div", tag("h3", f"{contender.letter} · {contender.name}"), scrolling(made))


def _budgets(comparison: Comparison) -> Html:
    names = [f"{contender.letter} · {contender.name}" for contender in comparison.contenders]
    keys = list(dict.fromkeys(key for contender in comparison.contenders for key in contender.budget))
    spent = [(key, *(contender.budget.get(key, "") for contender in comparison.contenders)) for key in keys]
    configs = [contender.origin.config for contender in comparison.contenders]
    settings = list(dict.fromkeys(key for config in configs for key in config))
    differing = [
        (key, *(number(config[key]) if key in config else "" for config in configs))
        for key in settings
        if len({(config.get(key), key in config) for config in configs}) > 1
    ]
    wide = range(len(names) + 1)
    return section(
        "What went into them",
        table(("", *names), spent, words=wide),
        tag("h3", "Where the configurations differ"),
        table(("parameter", *names), differing, words=wide) if differing else paragraph("Nowhere."),
        id_="budgets",
    )


def _origins(comparison: Comparison) -> Html:
    rows = [
        (
            contender.name,
            contender.origin.model,
            contender.origin.when,
            str(contender.n_looks),
            str(contender.folder.path),
        )
        for contender in comparison.contenders
    ]
    again = shlex.join(["python", "-m", "search.report", *(str(c.folder.path) for c in comparison.contenders)])
    return section(
        "Where this comes from",
        table(("study", "model", "evaluated", "looks", "folder"), rows, words=(0, 4)),
        tag("pre", again),
        id_="origin",
    )
