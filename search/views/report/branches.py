"""Strategies and architectures: really worse, or just less tried?"""

import statistics
from collections import defaultdict
from collections.abc import Sequence

from search.space.space import Branch, Choice
from search.study.hindsight import spread_of_best
from search.study.rows import COMPLETE, TrialRecord
from search.trial.params import TrialParams
from search.views.report.album import Album
from search.views.report.facts import Facts
from search.views.report.markup import Content, Html, join, listing, paragraph, table, tag
from search.views.report.phrases import NOTHING, heat, percent
from search.views.words import count

_FEW = 5  # complete trials, below which a branch is called hardly tried


def write_branches(facts: Facts, album: Album) -> Html:
    """Write the table of strategies by architectures, and what it allows to say."""
    reported = [record for record in facts.trials if record.reports]
    searched = [name for name in ("sampling", "model") if isinstance(facts.space.nodes.get(name), Branch | Choice)]
    if not reported or not searched:
        return Html("")
    groups: dict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for record in facts.trials:
        groups[option_of(record, "sampling"), option_of(record, "model")].append(record)
    rows = [_row(facts, *key, group) for key, group in sorted(groups.items(), key=lambda item: -_best(item[1]))]
    floors = ("meet the floors",) if facts.floors else ()
    header = ("strategy", "architecture", "trials", "to their end", *floors, f"best {facts.metric}, %", "median, %")
    remarks = [remark for name in searched for remark in _compare(facts, name)]
    return join(
        table(header, rows, words=(0, 1)),
        paragraph("Median: of those that ran to their end; stopped ones would lower it.", class_="small"),
        tag("h3", "Really worse, or just less tried?") if remarks else None,
        listing(remarks),
    )


def option_of(record: TrialRecord, choice: str) -> str:
    """Name the strategy ("sampling") or architecture ("model") of a trial, the default's where none is given."""
    return str(record.config.get(choice, TrialParams.model_fields[choice].default.name))


def _scores(group: Sequence[TrialRecord]) -> list[float]:
    return [record.value for record in group if record.status == COMPLETE]


def _best(group: Sequence[TrialRecord]) -> float:
    return max(_scores(group), default=-1.0)


def _row(facts: Facts, sampling: str, model: str, group: Sequence[TrialRecord]) -> list[Content]:
    values = _scores(group)
    best: Content = tag("td", percent(max(values)), style=f"background:{heat(max(values))}") if values else "none"
    median = percent(statistics.median(values)) if values else NOTHING
    meeting = [record for record in group if record.status == COMPLETE and not record.shortfalls[-1]]
    floors = [str(len(meeting))] if facts.floors else []
    return [sampling, model, str(len(group)), str(len(values)), *floors, best, median]


def _compare(facts: Facts, choice: str) -> list[Html]:
    """Compare each option with the best one, as if that had had as few trials."""
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in facts.trials:
        if record.reports:
            groups[option_of(record, choice)].append(record)
    if len(groups) < 2:
        return []
    first = max(groups, key=lambda name: _best(groups[name]))
    values = _scores(groups[first])
    if not values:
        return []
    return [_remark(facts, name, groups[name], first, groups[first]) for name in sorted(groups) if name != first]


def _remark(facts: Facts, name: str, group: list[TrialRecord], first: str, leading: list[TrialRecord]) -> Html:
    """Say whether an option is worse than the best one, or only had fewer chances."""
    values, best_values = _scores(group), _scores(leading)
    tried = f"{count(len(group), 'trial')}, {len(values)} to the end"
    if not values:
        return join(tag("b", name), f" ({tried}): none ran to its end, so nothing is known of what it can reach.")
    reach = f"Its best, {percent(max(values))} %, "
    if len(group) >= len(leading):
        difference = facts.difference(_best_of(leading), _best_of(group))
        is_worse = difference is not None and difference.low > 0
        verdict = "worse, as far as these trials say" if is_worse else "not shown to be worse"
        reach += f"stands against {percent(max(best_values))} % of {first}, which was tried no more often"
    else:
        low, high = spread_of_best(best_values, n=len(group), n_never=len(leading) - len(best_values))
        few = "probably worse, but hardly tried" if len(values) < _FEW else "worse, as far as these trials say"
        verdict = few if max(values) < low else "not shown to be worse, just less tried"
        reach += (
            f"stands against {percent(low)} to {percent(high)} %, where the best of {len(group)} drawn from {first}'s "
            f"{count(len(leading), 'trial')} lies nine times out of ten"
        )
    return join(tag("b", name), f" ({tried}): {verdict}. {reach}.")


def _best_of(group: list[TrialRecord]) -> TrialRecord:
    return max((record for record in group if record.status == COMPLETE), key=lambda record: record.value)
