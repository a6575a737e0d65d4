"""Every trial in one table, and what went wrong, by reason."""

import re
from collections import defaultdict
from collections.abc import Sequence

from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, TrialRecord
from search.views.report.album import Album
from search.views.report.facts import Facts
from search.views.report.markup import Html, fold, join, paragraph, table, tag
from search.views.report.phrases import NOTHING, percent
from search.views.words import configuration, count, duration, memory_of


def write_trials(facts: Facts, album: Album) -> Html:
    """Write failures by reason, then all trials, folded."""
    if not facts.trials:
        return Html("")
    ranks = {record.number: place for place, record in enumerate(facts.ranked)}
    ordered = sorted(facts.trials, key=lambda record: (ranks.get(record.number, len(ranks)), record.number))
    header = (
        *("trial", "status", "epochs", f"{facts.metric}, %", "macro-F1, %", "worst class, %", "time"),
        *("memory", "configuration", "reason"),
    )
    rows = [_row(facts, record) for record in ordered]
    return join(
        _failures(facts),
        fold(f"All {count(len(rows), 'trial')}, the best first", table(header, rows, words=(7, 8, 9))),
    )


def group_reasons(records: Sequence[TrialRecord]) -> list[tuple[str, list[TrialRecord]]]:
    """Put broken trials of the same reason together, whatever numbers and paths it holds; the most frequent first."""
    groups: dict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for record in records:
        if record.status in (INFEASIBLE, FAILED):
            pattern = re.sub(r"\d[\w.+-]*", "#", record.reason or "no reason recorded")
            groups[record.status, pattern].append(record)
    return sorted(((status, group) for (status, _), group in groups.items()), key=lambda item: -len(item[1]))


def _failures(facts: Facts) -> Html:
    groups = group_reasons(facts.trials)
    if not groups:
        return paragraph("No trial failed.") if any(r.status == COMPLETE for r in facts.trials) else Html("")
    rows = []
    for status, group in groups:
        numbers = ", ".join(str(record.number) for record in group[:12]) + (", …" if len(group) > 12 else "")
        rows.append((status, str(len(group)), group[0].reason or "no reason recorded", numbers))
    kept = any(facts.folder.failure(record.number).exists() for record in facts.trials if record.status == FAILED)
    return join(
        tag("h3", "What went wrong"),
        table(("", "trials", "reason (of the first)", "which"), rows, words=(0, 2, 3)),
        paragraph(
            "Infeasible: the configuration does not work, and the search learned from it. Failed: something else "
            f"broke; it was tried once more.{' Tracebacks are in failures/.' if kept else ''}",
            class_="small",
        ),
    )


def _row(facts: Facts, record: TrialRecord) -> list[str]:
    scores = record.scores
    return [
        str(record.number),
        facts.unfinished if record.status == RUNNING else record.status,
        f"{len(record.reports)} / {record.epochs}",
        percent(record.value),
        percent(scores.macro_f1) if scores else NOTHING,
        percent(scores.worst_class_f1) if scores else NOTHING,
        duration(record.seconds),
        memory_of(record).removeprefix("memory "),
        configuration(record.config, facts.space),
        record.reason,
    ]
