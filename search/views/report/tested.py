"""The final model and what the locked test says of it."""

from collections.abc import Mapping
from typing import Any

from search.views.report.album import Album
from search.views.report.facts import Facts
from search.views.report.markup import Content, Html, join, paragraph, table, tag
from search.views.report.phrases import heat, percent
from search.views.report.verdict import test_score, test_size, test_span
from search.views.words import duration


def write_tested(facts: Facts, album: Album) -> Html:
    """Write about the final training and every look at the test part; nothing where there is neither."""
    return join(_training(facts.final), _looks(facts))


def _training(final: Mapping[str, Any]) -> Html:
    if not final:
        return Html("")
    seeds = final.get("seeds") or [final["seed"]]  # one, before there were several
    return paragraph(
        f"Trained on {final['on']} for {final['epochs']} nominal epochs, seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}, in {duration(final['seconds'])} on {final['device']}."
    )


def _looks(facts: Facts) -> Html:
    if not facts.looks:
        return Html("")
    last = facts.looks[-1]
    times = "once" if len(facts.looks) == 1 else f"{len(facts.looks)} times; this is the last look"
    rows: list[list[Content]] = [
        [
            name,
            *(percent(_value(last, key, name)) for key in ("precision", "recall")),
            tag("td", percent(_value(last, "f1", name)), style=f"background:{heat(_value(last, 'f1', name))}"),
            percent(_value(last, "balanced_f1", name)),
            f"{last['test_support'][name]:,}",
        ]
        for name in facts.classes
    ]
    return join(
        paragraph(
            f"The test part was opened {times}. ",
            tag("b", f"{facts.metric} {percent(test_score(facts, last))} %"),
            f" ({test_span(facts, last)}, 95 %, over its wafers alone), macro-F1 {percent(last['test_macro_f1'])}, "
            f"balanced macro-F1 {percent(last['test_balanced_macro_f1'])}, accuracy "
            f"{percent(last['test_accuracy'])} %, n = {test_size(last):,} wafers.",
        ),
        table(("class", "precision", "recall", "F1", "balanced F1", "wafers"), rows),
        _ledger(facts) if len(facts.looks) > 1 else None,
    )


def _value(look: Mapping[str, Any], name: str, class_name: str) -> float:
    value = look[f"test_{name}"][class_name]
    return float("nan") if value is None else float(value)


def _ledger(facts: Facts) -> Html:
    rows = [(str(look["when"]), str(look.get("model", "")), percent(test_score(facts, look))) for look in facts.looks]
    return join(
        tag("h3", "Every look"),
        table(("when", "model", f"{facts.metric}, %"), rows, words=(0, 1)),
        paragraph(
            "If earlier looks decided which model this is, the later ones are no honest test any more.", class_="small"
        ),
    )
