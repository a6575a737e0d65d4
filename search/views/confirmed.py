"""What a confirmation has found, as people read it: a table, and the sentences that matter."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from search.study.confirmed import Confirmed, sentences
from search.study.study import Study
from search.views.terminal import page, say
from search.views.words import count, metric_words, short_configuration, shorten


def show_confirmed(found: Confirmed, study: Study, console: Console, *, marks: Sequence[str]) -> None:
    """Print who is best, by how much, whether to believe it, and what to type next."""
    say(console, "")
    page(console).print(confirmed_table(found, marks=marks))
    for row in found.candidates:
        config = short_configuration(study.records[row.trial].config, study.config.space)
        broken = f" ({count(row.broken, 'run')} broke)" if row.broken else ""
        say(console, f"trial {row.trial}: {config}{broken}")
    say(console, "")
    for sentence in sentences(found):
        say(console, sentence)
    folder = study.folder
    say(console, f"\nbest configuration  {shorten(folder.best)}")
    say(console, f"report              {shorten(folder.report)}")
    say(console, f"next                python -m search.retrain {folder.in_commands}")


def confirmed_table(found: Confirmed, *, marks: Sequence[str]) -> Table:
    """Lay out the candidates, the best first; scores in percent, bounds below them, so that 80 columns hold it."""
    about = ", ".join([*marks, f"{metric_words(found.metric)}, %"])
    table = Table(title=f"confirmed: {about}", title_justify="left", title_style="bold", padding=(0, 1, 0, 0))
    names = ["trial", "search"]
    names += [count(found.n_seeds, "seed"), "spread"] if found.n_seeds else []
    names += [count(found.n_folds, "fold")] if found.n_folds else []
    names += ["behind", "p"] if not found.is_alone else []
    for name in (*names, "MMAC"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.candidates:
        cells = [f"{row.trial}{' *' if row.trial == found.chosen else ''}", f"{100 * row.search_value:.2f}"]
        if found.n_seeds:
            cells += [_below(row.mean, row.low, row.high), _percent(row.spread)]
        if found.n_folds:
            cells += [_below(row.fold_value, row.fold_low, row.fold_high)]
        if not found.is_alone:
            is_best = row is found.best
            cells += ["" if is_best else _below(row.behind, row.behind_low, row.behind_high)]
            cells += ["" if is_best else f"{row.p_value:.3f}"]
        table.add_row(*cells, f"{row.macs / 1e6:.1f}")
    return table


def _below(value: float, low: float, high: float) -> str:
    return f"{100 * value:.2f}\n[{100 * low:.1f}, {100 * high:.1f}]"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
