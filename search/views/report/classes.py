"""Classes: per-class F1 of the best trials, what the winner confuses, and how it learned."""

import math

from search.study.rows import TrialRecord
from search.trial.metrics import Scores
from search.views.figures import draw_accuracy, draw_confusion, draw_f1, draw_loss
from search.views.report.album import Album
from search.views.report.facts import Facts
from search.views.report.markup import Content, Html, join, paragraph, scrolling, table, tag
from search.views.report.matrix import confusion_table
from search.views.report.phrases import heat, percent
from search.views.words import configuration, count, memory_of

_TOP = 10


def write_classes(facts: Facts, album: Album) -> Html:
    """Write what is known of each class, from the validation part."""
    leader = facts.leader
    if leader is None or leader.scores is None:
        return Html("")
    return join(
        _scores(facts, leader, leader.scores),
        _confusion(facts, leader, album),
        _top(facts),
        _curves(leader, album),
    )


def _scores(facts: Facts, leader: TrialRecord, scores: Scores) -> Html:
    rows: list[list[Content]] = [
        [
            name,
            percent(scores.precision[k]),
            percent(scores.recall[k]),
            tag("td", percent(scores.f1[k]), style=f"background:{heat(scores.f1[k])}"),
            percent(scores.balanced_f1[k]),
            f"{scores.support[k]:,}",
        ]
        for k, name in enumerate(facts.classes)
    ]
    rows.append(
        [
            tag("b", "macro"),
            "",
            "",
            tag("b", percent(scores.macro_f1)),
            tag("b", percent(scores.balanced_macro_f1)),
            f"{sum(scores.support):,}",
        ]
    )
    header = ("class", "precision", "recall", "F1", "balanced F1", "wafers")
    return join(
        table(header, rows),
        paragraph(
            f"Trial {leader.number} on validation after epoch {len(leader.reports)} of {leader.epochs}, in %; one seed."
            " Balanced: as if all classes were equally frequent. "
            f"Accuracy {percent(scores.accuracy)} %, which says little where most wafers have no defect.",
            class_="small",
        ),
    )


def _confusion(facts: Facts, leader: TrialRecord, album: Album) -> Html:
    val = leader.reports[-1].val
    assert val is not None
    title = ", ".join([f"trial {leader.number} on validation", "counts and % of the actual label", *facts.marks])
    album.pictures["confusion"] = draw_confusion(val, facts.classes, title=title)
    return join(
        tag("h3", "What it confuses"),
        scrolling(confusion_table(val.confusion, facts.classes)),
        paragraph("Wafers, and % of the actual label; rows are actual, columns called.", class_="small"),
    )


def _top(facts: Facts) -> Html:
    records = facts.ranked[:_TOP]
    rows = []
    for record in records:
        scores = record.scores
        assert scores is not None
        known = [value for value in scores.f1 if not math.isnan(value)]
        cells = [
            tag(
                "td",
                percent(value, 1),
                style=f"background:{heat(value)}",
                class_="worst" if value == min(known) else None,
            )
            for value in scores.f1
        ]
        words = configuration(record.config, facts.space)
        rows.append([str(record.number), percent(record.value), *cells, words])
    header = ("trial", facts.metric, *facts.classes, "configuration")
    n = len(facts.ranked)
    note = f"The best {len(records)} of {n} that ran to their end; the worst class of each is outlined."
    return join(
        tag("h3", "F1 per class of the best trials, %"),
        table(header, rows, words=(len(header) - 1,), class_="heat"),
        paragraph(note, class_="small"),
    )


def _curves(leader: TrialRecord, album: Album) -> Html:
    title = f"trial {leader.number}, {count(len(leader.reports), 'epoch')}"
    draws = {"loss": draw_loss, "accuracy": draw_accuracy, "f1": draw_f1}
    figures = [
        album.show(f"winner_{name}", draw(leader.reports, title=title), words=f"{name} over the epochs")
        for name, draw in draws.items()
    ]
    note = (
        "In training, augmented and drawn wafers count while the network learns; on validation plain ones, after each "
        f"epoch. {memory_of(leader)[:1].upper()}{memory_of(leader)[1:]}."
    )
    return join(
        tag("h3", "How the best trial learned"),
        tag("div", *figures, class_="grid three"),
        paragraph(note, class_="small"),
    )
