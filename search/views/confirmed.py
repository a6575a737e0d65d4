"""What a confirmation has found, as people read it: a table, and the sentences that matter."""

import math
import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from search.study.confirmed import Confirmed, sentences, with_bounds
from search.study.records import RESULTS
from search.study.study import Study
from search.views.terminal import page, say
from search.views.words import metric_words, short_configuration


def show_confirmed(found: Confirmed, study: Study, console: Console, *, marks: Sequence[str]) -> None:
    """Print who is best, by how much, whether to believe it, and what to type next."""
    say(console, "")
    page(console).print(confirmed_table(found, study, marks=marks))
    for sentence in sentences(found):
        say(console, sentence)
    folder = study.folder
    target = shlex.quote(folder.name if folder.path.parent == RESULTS.resolve() else str(folder.path))
    say(console, f"\nbest configuration  {folder.best}")
    say(console, f"report              {folder.report}")
    say(console, f"next                python -m search.retrain {target}")


def confirmed_table(found: Confirmed, study: Study, *, marks: Sequence[str]) -> Table:
    """Lay out the candidates, the best first; scores in percent."""
    about = ", ".join([*marks, f"{metric_words(found.metric)}, %"])
    table = Table(title=f"confirmed: {about}", title_justify="left", title_style="bold")
    table.add_column("trial", justify="right")
    table.add_column("search", justify="right")
    if found.n_seeds:
        table.add_column(f"mean of {found.n_seeds} seeds", justify="right")
        table.add_column("spread", justify="right")
    if found.n_folds:
        table.add_column(f"{found.n_folds} folds", justify="right")
    for name in ("behind the best", "p", "MMAC"):
        table.add_column(name, justify="right")
    table.add_column("configuration", overflow="ellipsis", no_wrap=True)
    for row in found.candidates:
        cells = [f"{row.trial}{' *' if row.trial == found.chosen else ''}", f"{100 * row.search_value:.2f}"]
        if found.n_seeds:
            cells += [with_bounds(row.mean, row.low, row.high), _percent(row.spread)]
        if found.n_folds:
            cells += [with_bounds(row.fold_value, row.fold_low, row.fold_high)]
        is_best = row is found.best
        cells += ["" if is_best else with_bounds(row.behind, row.behind_low, row.behind_high)]
        cells += ["" if is_best else f"{row.p_value:.2f}", f"{row.macs / 1e6:.1f}"]
        config = short_configuration(study.records[row.trial].config, study.config.space)
        table.add_row(*cells, config + (f" ({row.broken} runs broke)" if row.broken else ""))
    return table


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
