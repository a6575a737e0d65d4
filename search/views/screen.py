"""A snapshot of a study, laid out to fit: `Screen` fills a terminal, its parts serve `search.status` too."""

import math
import re
from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from search.study.rows import FAILED, INFEASIBLE
from search.views.snapshot import About, Message, Snapshot, TrialNow
from search.views.words import (
    counts_words,
    duration,
    message_words,
    metric_words,
    score,
    short_configuration,
    short_count,
    time_words,
)

# Purple to orange, ColorBrewer's PuOr: also red-green blind people tell them apart, and the numbers stand there.
_HEAT = (
    (0.95, "#ffffff on #542788"),
    (0.90, "#000000 on #998ec3"),
    (0.80, "#000000 on #d8daeb"),
    (0.65, "#000000 on #fee0b6"),
    (0.50, "#000000 on #f1a340"),
    (-1.0, "#ffffff on #b35806"),
)
_CELL = 4  # "0.91"
# Configurations narrower than this say little; other columns go first, and those from `_LUXURY` on even earlier.
_WORDS, _WORDS_BEFORE_LUXURY, _LUXURY = 22, 44, 9


class Screen:
    """A whole snapshot; never higher or wider than the place it is put in.

    Args:
        snapshot: What to show.
        state: What to say of the search behind its name.
        footnote: A line below the counts, such as how busy the machine is; "" if there is nothing to say.
        is_whole: Whether as many lines are taken as there is to show, as in a file.
        prefers_places: Whether where a trial runs matters more than how fast.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        state: str = "",
        footnote: str = "",
        is_whole: bool = False,
        prefers_places: bool = False,
    ) -> None:
        self._now = snapshot
        self._state = state
        self._footnote = footnote
        self._is_whole = is_whole
        self._prefers_places = prefers_places

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay it out for the place that there is."""
        width, height = options.max_width, 10**6 if self._is_whole else options.size.height
        inner = options.update(width=width, height=None)
        lines: list[list[Segment]] = []
        for part in self._parts(console, inner, height):
            lines += console.render_lines(part, inner, pad=False)
        for line in lines[: height - 1]:
            # Rich shortens with an ellipsis whatever the terminal knows.
            yield from [Segment(s.text.replace("…", "~"), s.style) for s in line] if options.ascii_only else line
            yield Segment.line()

    def _parts(self, console: Console, options: ConsoleOptions, height: int) -> Iterable[RenderableType]:
        """Choose what fits: what matters less goes first, then rows of tables."""
        now, width = self._now, options.max_width
        ascii_only = options.ascii_only

        def lines_of(part: RenderableType) -> int:
            return len(console.render_lines(part, options, pad=False))

        top = [title(now, self._state, width), progress(now, width, ascii_only=ascii_only), *counts(now, width)]
        footnote = [Text(self._footnote, style="dim", no_wrap=True, overflow="ellipsis")] if self._footnote else []
        best = [winner(now), *([] if now.best is None else [heat(now.about.classes, now.best.f1, width)])]
        n_best = sum(map(lines_of, best))
        n_running = len(now.running) + 1 if now.running else 0
        left = height - len(top) - 1  # a line at the end stays free: a terminal would scroll
        has_footnote = left >= n_best + min(n_running, 3) + 2 and bool(footnote)
        left -= has_footnote
        gaps = 3 if left >= n_best + min(n_running, 4) + 6 else 0
        left -= gaps
        has_best = left >= n_best
        left -= n_best if has_best else 0
        n_messages = min(3, len(now.messages), max(left - min(n_running, 4), 0))
        left -= n_messages
        n_rows = min(n_running, max(left, 0))
        left -= n_rows
        # What is still free goes to the next best, then to older messages.
        n_next = min(len(now.top) - 1, max(left - 3, 0), 4) if now.best and gaps else 0
        left -= n_next + 2 if n_next else 0
        n_messages = min(len(now.messages), n_messages + max(min(left, 7), 0))
        gap = [Text()] if gaps else []

        yield from top
        yield from footnote if has_footnote else []
        if has_best:
            yield from gap
            yield from best
        if n_rows > 1:
            yield from gap
            yield from running(now, width, rows=n_rows - 1, ascii_only=ascii_only, prefers_places=self._prefers_places)
        if n_next:
            yield from gap
            following = now.top[1 : 1 + n_next]
            yield trial_table(now.about, following, width, ascii_only=ascii_only, is_running=False, first="next")
        if n_messages > 0:
            yield from gap
            yield from (message(now.about, each) for each in now.messages[-n_messages:])


def title(now: Snapshot, state: str, width: int) -> RenderableType:
    """Name the study, shout what must be shouted, and say the time."""
    name = Text(now.about.name, style="bold", no_wrap=True, overflow="ellipsis")
    if now.about.marks:
        name.append(f"  {', '.join(now.about.marks)} wafers", style="bold yellow")
    if state:
        name.append(f"  {state}", style="not bold")
    return _ends(name, Text(time_words(now, spent_only=True)), width)


def progress(now: Snapshot, width: int, *, ascii_only: bool) -> RenderableType:
    """Draw how many trials are judged, and say how long the rest takes."""
    asked = now.about.search.trials
    said = Text(f"{now.n_judged:,} of {asked:,} trials judged, {time_words(now)}", no_wrap=True, overflow="ellipsis")
    rest = width - said.cell_len - 2
    drawn = bar(now.n_judged, asked, min(rest, 60), ascii_only=ascii_only) if rest >= 8 else Text()
    return _join([drawn, said]) if rest >= 8 else said


def counts(now: Snapshot, width: int) -> list[RenderableType]:
    """Count the trials by what became of them, with the reasons, on as many lines as it takes."""
    lines, line = [], Text(no_wrap=True, overflow="ellipsis")
    for words in counts_words(now):
        part = Text(words, style="" if words.partition(" ")[0] != "0" else "dim")
        if line.cell_len and line.cell_len + 3 + part.cell_len > width:
            lines.append(line)
            line = Text(no_wrap=True, overflow="ellipsis")
        line.append("   " if line.cell_len else "").append_text(part)
    return [*lines, line]


def winner(now: Snapshot) -> RenderableType:
    """Say which trial is the best so far, with its numbers and its configuration in words: two lines."""
    best, about = now.best, now.about
    if best is None:
        return Text(no_best_words(now), style="dim", no_wrap=True, overflow="ellipsis")
    line = Text(no_wrap=True, overflow="ellipsis").append("best  ", style="dim").append(f"trial {best.number}", "bold")
    line.append(f"  {metric_words(about.metric)} ").append(score(best.value, digits=4), style="bold")
    if about.metric != "macro_f1":
        line.append(f"  macro-F1 {score(best.macro_f1)}")
    line.append(f"  worst {worst_words(about, best)}")
    words = Text(
        f"      epochs {best.epochs}, {short_configuration(best.config, about.space)}",
        style="dim",
        no_wrap=True,
        overflow="ellipsis",
    )
    return _stack([line, words])


def no_best_words(now: Snapshot) -> str:
    """Say why there is no best trial yet."""
    if not now.top:
        return "best  no trial has run to its end yet"
    nearest = now.top[0]
    return (
        f"best  none meets the constraints yet; nearest is trial {nearest.number}, "
        f"{metric_words(now.about.metric)} {score(nearest.value)}, {score(nearest.shortfall)} short of them"
    )


def worst_words(about: About, trial: TrialNow) -> str:
    """Name the class with the lowest F1, and that."""
    return "" if trial.worst is None else f"{about.classes[trial.worst]} {score(trial.f1[trial.worst], digits=2)}"


def heat(classes: Sequence[str], f1: Sequence[float], width: int) -> RenderableType:
    """Show the F1 of each class under its name; in several rows where there are many classes."""
    indent = 6
    room = width - indent
    per_row = max(1, min(len(classes), room // (_CELL + 2)))
    n_rows = math.ceil(len(classes) / per_row)
    per_row = math.ceil(len(classes) / n_rows)
    chunks = [classes[begin : begin + per_row] for begin in range(0, len(classes), per_row)]
    limit = min(_fit_widths(chunk, room) for chunk in chunks)
    rows: list[RenderableType] = []
    left = iter(f1)
    for chunk in chunks:
        names = abbreviate(chunk, limit)
        widths = [max(cell_len(name), _CELL) for name in names]
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=indent - 1)
        for size in widths:
            table.add_column(width=size, justify="center", no_wrap=True)
        table.add_row("", *(Text(name, style="dim") for name in names))
        table.add_row(Text("F1", style="dim"), *(heat_cell(next(left), size) for size in widths))
        rows.append(table)
    return _stack(rows)


def heat_cell(value: float, width: int = _CELL) -> Text:
    """Write an F1 on the colour that stands for it; a dash where the class has no wafers."""
    if math.isnan(value):
        return Text("-".center(width), style="dim")
    style = next(style for least, style in _HEAT if value >= least)
    return Text(f"{value:.2f}".center(width), style=style)


def _fit_widths(names: Sequence[str], room: int) -> int:
    """Return the widest limit on each name at which all of them, and a space behind each, fit."""
    for limit in range(max(map(cell_len, names)), _CELL, -1):
        if sum(max(min(cell_len(name), limit), _CELL) + 1 for name in names) <= room:
            return limit
    return _CELL


def abbreviate(names: Sequence[str], limit: int) -> list[str]:
    """Shorten names to so many cells each, no two alike.

    Example:
        >>> abbreviate(["Edge-Loc", "Edge-Ring", "Scratch"], 5)
        ['E-Loc', 'E-Rin', 'Scrat']
    """
    short = []
    for name in names:
        first, dash, last = name.partition("-")
        fitting = name if cell_len(name) <= limit or not (dash and first) else f"{first[0]}-{last}"
        short.append(fitting if cell_len(fitting) <= limit else set_cell_size(fitting, limit).rstrip())
    for i, name in enumerate(short):
        if name in short[:i]:
            mark = str(i)
            short[i] = set_cell_size(name, max(limit - len(mark), 0)).rstrip() + mark
    return short


def running(
    now: Snapshot, width: int, *, rows: int, ascii_only: bool, prefers_places: bool
) -> Iterable[RenderableType]:
    """List the trials under way; of more than fit, the best, and how many more there are."""
    shown = sorted(now.running, key=lambda trial: (trial.slot, trial.number))
    if len(shown) > rows:
        best = sorted(now.running, key=lambda trial: trial.rank, reverse=True)
        shown = best[: max(rows - 1, 0)]
    if shown:
        yield trial_table(
            now.about, shown, width, ascii_only=ascii_only, is_running=True, prefers_places=prefers_places
        )
    more = len(now.running) - len(shown)
    if more:
        yield Text(f"  + {more:,} more", style="dim")


def trial_table(
    about: About,
    trials: Sequence[TrialNow],
    width: int,
    *,
    ascii_only: bool,
    is_running: bool,
    prefers_places: bool = False,
    first: str = "trial",
) -> RenderableType:
    """Lay out one trial per row: of what there is to say, as many columns as fit.

    Args:
        about: The study.
        trials: To be shown.
        width: Cells that there are.
        ascii_only: Whether the terminal knows no other characters.
        is_running: Whether they are under way; else they are the next best.
        prefers_places: Whether where a trial runs matters more than how fast.
        first: Header of the column with their numbers.
    """
    columns = _columns(about, trials, ascii_only=ascii_only, is_running=is_running, first=first)
    if prefers_places and "where" in columns:
        columns["where"] = (4, *columns["where"][1:])
    kept = _choose(columns, width, about)
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", width=width)
    for name in kept:
        _, cells, justify = columns[name]
        is_words = name == "configuration"
        size = None if is_words else _size(name, cells, about)
        table.add_column(
            Text(name),
            justify="right" if justify else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=size,
            ratio=1 if is_words else None,
        )
    for i in range(len(trials)):
        table.add_row(*(columns[name][1][i] for name in kept))
    return table


# Of a table: by its header, how early a column goes where there is little room, its cells, whether they are numbers.
_Columns = dict[str, tuple[int, list[Text], bool]]


def _columns(about: About, trials: Sequence[TrialNow], *, ascii_only: bool, is_running: bool, first: str) -> _Columns:
    def column(order: int, cells: Iterable[str | Text], *, right: bool = True) -> tuple[int, list[Text], bool]:
        return order, [cell if isinstance(cell, Text) else Text(cell) for cell in cells], right

    columns: _Columns = {first: column(0, (str(trial.number) for trial in trials))}
    if is_running and any(trial.slot for trial in trials):
        columns["slot"] = column(7, (str(trial.slot or "") for trial in trials))
    if is_running:
        bars = [bar(trial.epoch, trial.epochs, 6, ascii_only=ascii_only) for trial in trials]
        columns[""] = column(6, bars, right=False)
        columns["epoch"] = column(1, (f"{trial.epoch}/{trial.epochs}" for trial in trials))
    else:
        columns["epochs"] = column(1, (str(trial.epochs) for trial in trials))
    is_macro = about.metric == "macro_f1"
    if not is_macro:
        objective = "balanced" if about.metric == "balanced_macro_f1" else "objective"
        columns[objective] = column(8, (score(trial.value) for trial in trials))
    columns["macro"] = column(2, (score(trial.macro_f1) for trial in trials))
    columns["worst"] = column(3, (_worst_cell(about, trial) for trial in trials), right=False)
    if len(about.classes) <= 12 and any(trial.f1 for trial in trials):
        for k, name in enumerate(abbreviate(about.classes, 7)):
            cells = (heat_cell(trial.f1[k]) if trial.f1 else "" for trial in trials)
            columns[name] = column(10, cells)
    if is_running:
        columns["samples"] = column(9, (short_count(trial.samples) for trial in trials))
        columns["img/s"] = column(5, (short_count(trial.speed).rjust(5) for trial in trials))
    if is_running and any(trial.place for trial in trials):
        columns["where"] = column(11, (_place(trial) for trial in trials), right=False)
    words = (Text(short_configuration(trial.config, about.space), style="dim") for trial in trials)
    columns["configuration"] = column(0, words, right=False)
    return columns


def _place(trial: TrialNow) -> str:
    """Where it runs, without the slot, which has a column."""
    return re.sub(
        r"^slot \d+ ?(?:\((.*?)\))? ?(?:on )?", lambda found: f"{found[1]}, " if found[1] else "", trial.place
    )


def _worst_cell(about: About, trial: TrialNow) -> Text:
    words = worst_words(about, trial)
    return Text(words if words else "no report yet", style="" if words else "dim")


def _size(name: str, cells: Sequence[Text], about: About) -> int:
    """How wide a column is; that of the worst class stays the same whichever class that is, so that nothing jumps."""
    widest = min(max(map(cell_len, about.classes)), 12) + _CELL + 1 if name == "worst" else 0
    return max([widest, cell_len(name), *(cell.cell_len for cell in cells)])


def _choose(columns: _Columns, width: int, about: About) -> list[str]:
    """Leave out columns, the least important first, until the configuration has room."""
    sizes = {name: _size(name, cells, about) for name, (_, cells, _) in columns.items()}
    words = sizes["configuration"]
    kept = list(columns)
    for order in sorted({order for order, _, _ in columns.values()} - {0}, reverse=True):
        sizes["configuration"] = min(words, _WORDS if order < _LUXURY else _WORDS_BEFORE_LUXURY)
        if sum(sizes[name] + 2 for name in kept) - 2 <= width:
            break
        kept = [name for name in kept if columns[name][0] != order]
    return kept


def message(about: About, told: Message) -> Text:
    """Write one message on one line, with its time."""
    line = Text(no_wrap=True, overflow="ellipsis").append(f"{duration(told.elapsed):>8}  ", style="dim")
    is_problem = told.trial is None or told.trial.status in (INFEASIBLE, FAILED)
    words = message_words(about, told).replace("\n", " ")
    return line.append(words, style="" if told.is_best or is_problem else "dim")


def bar(done: float, total: float, width: int, *, ascii_only: bool) -> Text:
    """Draw a share as a heavy line on a light one."""
    full, rest = ("#", "-") if ascii_only else ("━", "─")
    n = min(width, math.floor(width * done / total)) if total else 0
    return Text(full * n, style="cyan", no_wrap=True).append(rest * (width - n), style="dim")


def _ends(left: Text, right: Text, width: int) -> RenderableType:
    """Put two texts at the two ends of a line; the left one is shortened."""
    room = width - right.cell_len - 2
    if room < 10:
        left.truncate(width, overflow="ellipsis")
        return left
    left.truncate(room, overflow="ellipsis")
    left.append(" " * (width - left.cell_len - right.cell_len)).append_text(right)
    left.no_wrap = True
    return left


def _join(texts: Sequence[Text]) -> Text:
    return Text("  ", no_wrap=True, overflow="ellipsis").join(texts)


def _stack(parts: Sequence[RenderableType]) -> RenderableType:
    table = Table.grid()
    table.add_column(no_wrap=True, overflow="ellipsis")
    for part in parts:
        table.add_row(part)
    return table
