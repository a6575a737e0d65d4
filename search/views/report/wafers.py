"""The hardest validation wafers: called wrong, and most surely."""

from collections.abc import Iterable
from itertools import groupby

from search.study.winner import HardWafer, Winner
from search.views.figures import draw_map, draw_wafers
from search.views.report.album import Album
from search.views.report.facts import Facts
from search.views.report.markup import Html, join, paragraph, picture, tag
from search.views.report.phrases import enumerate_words, percent


def write_wafers(facts: Facts, album: Album) -> Html:
    """Show the wafers that the winner gets most wrong, by class."""
    found = facts.judged_again
    if found is None:
        return paragraph(f"Not shown: {_why_missing(facts)}.", class_="small") if facts.leader else Html("")
    if not found.hardest:
        return paragraph(f"None: every one of {len(found.labels):,} validation wafers is called right.")
    classes = facts.classes
    titles = [f"{classes[each.actual]} → {classes[each.called]}\n{each.probability:.2f}" for each in found.hardest]
    sheet_title = " · ".join(["hardest validation wafers, actual → called", *facts.marks])
    album.pictures["hardest_wafers"] = draw_wafers([each.map for each in found.hardest], titles, title=sheet_title)
    groups = [_write_class(facts, k, list(group)) for k, group in groupby(found.hardest, key=lambda each: each.actual)]
    return join(_introduce(found), tag("div", *groups, class_="hard"), _whole_classes(facts, found))


def _why_missing(facts: Facts) -> str:
    if facts.folder.winner.exists():
        return "winner.npz is damaged, or of another trial; the same search or confirmation makes it again"
    return (
        "the best trial's network was not run once more, as a search does when it ends (it was interrupted, or the "
        "checkpoint is missing); the same search command makes up for it"
    )


def _introduce(found: Winner) -> Html:
    n_wrong = int((found.probabilities.argmax(1) != found.labels).sum())
    some = "" if found.is_whole else f" (a random part of {found.n_val:,}: time was short)"
    return paragraph(
        f"Trial {found.trial} calls {n_wrong:,} of {len(found.labels):,} validation wafers wrong{some}. Here are those "
        "of each class of which it is most sure, up to four. Look whether the label is right before blaming the "
        "network. ",
        tag("span", "■ failing die", class_="fail"),
        ", ",
        tag("span", "■ passing die", class_="pass"),
        "; below each what it is called, how surely, and its lot.",
    )


def _write_class(facts: Facts, k: int, group: list[HardWafer]) -> Html:
    return tag(
        "div",
        tag("h3", f"actual: {facts.classes[k]}"),
        tag("div", *(_write_wafer(facts, each) for each in group), class_="maps"),
    )


def _write_wafer(facts: Facts, each: HardWafer) -> Html:
    actual, called = facts.classes[each.actual], facts.classes[each.called]
    caption = join(
        tag("span", f"→ {called}"),
        tag("b", f"{percent(each.probability, 0)} %"),
        tag("small", each.lot, title=each.lot),
    )
    words = f"wafer {each.index}: {actual}, called {called}"
    return picture(draw_map(each.map), words=words, caption=caption, class_="map")


def _whole_classes(facts: Facts, found: Winner) -> Html:
    shown: Iterable[int] = {each.actual for each in found.hardest}
    flawless = [name for k, name in enumerate(facts.classes) if k not in shown and bool((found.labels == k).any())]
    if not flawless:
        return Html("")
    return paragraph(f"No wafer of {enumerate_words(flawless)} is called wrong.", class_="small")
