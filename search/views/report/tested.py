"""The final model and what the locked test says of it."""

from collections.abc import Mapping
from typing import Any

from search.trial.intervals import Interval
from search.views.report.album import Album
from search.views.report.facts import Facts
from search.views.report.markup import Content, Html, join, listing, paragraph, picture, table, tag
from search.views.report.phrases import heat, percent, span
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
    columns = ("precision", "recall", "f1")
    rows: list[list[Content]] = [
        [
            name,
            *(_with_interval(last, column, name) for column in columns),
            percent(_value(last, "balanced_f1", name)),
            f"{last['test_support'][name]:,}",
        ]
        for name in facts.classes
    ]
    return join(
        paragraph(
            f"The test part was opened {times}. ",
            tag("b", f"{facts.metric} {percent(test_score(facts, last))} %"),
            f" ({test_span(facts, last)}, 95 %), macro-F1 {percent(last['test_macro_f1'])}, "
            f"balanced macro-F1 {percent(last['test_balanced_macro_f1'])}, accuracy "
            f"{percent(last['test_accuracy'])} %, n = {test_size(last):,} wafers. ",
            tag("b", facts.other_model(last)),
        ),
        table(("class", "precision", "recall", "F1", "balanced F1", "wafers"), rows),
        _decisions(facts, last),
        _ledger(facts) if len(facts.looks) > 1 else None,
    )


def _with_interval(look: Mapping[str, Any], column: str, class_name: str) -> Content:
    """Write a score with its interval, which looks of earlier versions lack; F1 in its colour."""
    value = _value(look, column, class_name)
    low, high = look.get(f"test_{column}_interval", {}).get(class_name, (None, None))
    bounds = "" if low is None else f" ({span(Interval(low, value, high))})"
    text = f"{percent(value)}{bounds}"
    return tag("td", text, style=f"background:{heat(value)}") if column == "f1" else text


def _decisions(facts: Facts, look: Mapping[str, Any]) -> Html:
    """Say whether probabilities mean what they say, who is sure, and what escapes, with the pictures of `evaluate`."""
    if "test_calibration_error" not in look:
        return Html("")
    before, after = look["test_calibration_error"]
    told = [f"Calibration error {percent(after)} points ({percent(before)} before the temperature)."]
    if look["test_sure"]:
        sure, right = look["test_sure"]
        share = f"; {percent(right / sure)} % of these calls are right" if sure else ""
        told.append(f"Sure of {sure:,} of {test_size(look):,} wafers{share}.")
    if look["test_defects"]:
        found = look["test_defects"]
        told.append(
            f"Called defective from P(defect) = {found['threshold']:.3f}: {found['n_escaped']:,} of "
            f"{found['n_defective']:,} defective wafers escape, {found['n_alarms']:,} of {found['n_fine']:,} others "
            "raise a false alarm."
        )
    shown = {"reliability": "how often calls are right", "escapes": "what a threshold for defects costs"}
    pictures = [
        picture(path.read_bytes(), words=words)
        for name, words in shown.items()
        if (path := facts.folder.final / f"test_{name}.png").exists()
    ]
    hardest = facts.folder.final / "test_hardest.png"
    return join(
        tag("h3", "Decisions"),
        listing(told),
        tag("div", *pictures, class_="pair"),
        picture(hardest.read_bytes(), words="test wafers called wrong most surely") if hardest.exists() else None,
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
