"""What training the best again has shown: a card for the first screen, and a chapter."""

import math

from search.study.confirmed import Candidate, Confirmed, sentences
from search.trial.intervals import Interval
from search.views.report.album import Album
from search.views.report.facts import Facts
from search.views.report.forest import draw_forest
from search.views.report.markup import Html, join, listing, paragraph, table, tag
from search.views.report.phrases import NOTHING, percent, points, span
from search.views.words import configuration, count


def write_confirmed(facts: Facts, album: Album) -> Html:
    """Write every candidate with its scores, and what follows from them; nothing where nothing was confirmed."""
    found = facts.confirmed
    if found is None:
        return Html("")
    header = ["trial", "search, once"]
    header += [f"mean of {count(found.n_seeds, 'seed')}", "spread"] if found.n_seeds else []
    header += [count(found.n_folds, "fold")] if found.n_folds else []
    header += ["behind the best", "p"] if not found.is_alone else []
    header += ["MMAC per wafer"]
    configurations = [
        join(tag("b", f"Trial {row.trial}"), f": {configuration(facts.records[row.trial].config, facts.space)}")
        for row in found.candidates
    ]
    return join(
        paragraph(f"{facts.metric} in %, validation; brackets hold 95 %. The chosen one is bold.", class_="small"),
        table(header, [_row(found, row) for row in found.candidates], words=()),
        listing(sentences(found)),
        listing(configurations, class_="small"),
    )


def write_confirmed_card(found: Confirmed) -> Html:
    """Set the chosen one beside the others, with their intervals."""
    rows = [(f"{row.trial}", _interval(row, found)) for row in found.candidates]
    _, *told = sentences(found)
    how = count(found.n_folds, "fold") if found.n_folds else count(found.n_seeds, "fresh seed")
    return tag(
        "div",
        tag("h3", f"Trained again: {how}"),
        draw_forest(rows, chosen=str(found.chosen)),
        *(paragraph(sentence, class_="small") for sentence in told),
        class_="card wide",
    )


def confirmed_interval(found: Confirmed) -> Interval:
    """Return what the chosen one is worth, by what decided."""
    return _interval(found.winner, found)


def _interval(row: Candidate, found: Confirmed) -> Interval:
    if found.decided_by == "folds":
        return Interval(row.fold_low, row.fold_value, row.fold_high)
    return Interval(row.low, row.mean, row.high)


def _row(found: Confirmed, row: Candidate) -> list[Html | str]:
    cells = [str(row.trial), percent(row.search_value)]
    if found.n_seeds:
        cells += [f"{percent(row.mean)} ({span(Interval(row.low, row.mean, row.high))})"]
        cells += [NOTHING if math.isnan(row.spread) else percent(row.spread)]
    if found.n_folds:
        cells += [f"{percent(row.fold_value)} ({span(Interval(row.fold_low, row.fold_value, row.fold_high))})"]
    if row is found.best:
        cells += [NOTHING, NOTHING] if not found.is_alone else []
    else:
        cells += [f"{points(-row.behind)} ({points(-row.behind_high)} to {points(-row.behind_low)})"]
        cells += [f"{row.p_value:.3f}"]
    cells += [f"{row.macs / 1e6:.1f}"]
    return [tag("b", cell) for cell in cells] if row.trial == found.chosen else list(cells)
