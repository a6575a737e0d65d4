"""The page as a whole: its chapters in their order, its skeleton, and its files."""

import importlib.resources
import time
from collections.abc import Callable

from search.study.records import StudyFolder, write_atomically
from search.views.report.album import Album
from search.views.report.answer import write_answer
from search.views.report.branches import write_branches
from search.views.report.budget import write_budget
from search.views.report.classes import write_classes
from search.views.report.confirmed import write_confirmed
from search.views.report.course import write_course
from search.views.report.facts import Facts, gather
from search.views.report.markup import Html, join, paragraph, section, tag
from search.views.report.origin import write_origin
from search.views.report.parameters import write_parameters
from search.views.report.searched import write_searched
from search.views.report.tested import write_tested
from search.views.report.trials import write_trials
from search.views.report.wafers import write_wafers

Chapter = Callable[[Facts, Album], Html]
# Anchor, title and author of each chapter. One that has nothing to tell is left out.
_CHAPTERS: tuple[tuple[str, str, Chapter], ...] = (
    ("confirmed", "Trained again", write_confirmed),
    ("classes", "Classes", write_classes),
    ("wafers", "Hardest wafers", write_wafers),
    ("test", "Final model and locked test", write_tested),
    ("searched", "What was searched", write_searched),
    ("budget", "Budget", write_budget),
    ("course", "Course of the search", write_course),
    ("branches", "Strategies and architectures", write_branches),
    ("parameters", "Parameters", write_parameters),
    ("trials", "Trials", write_trials),
    ("origin", "Where this comes from", write_origin),
)
_PATIENCE_S = 5.0


def write_report(folder: StudyFolder, *, say: Callable[[str], None] | None = None) -> None:
    """Write report.html, and its pictures into `figures/`; what the study does not have yet is left out.

    Args:
        folder: Of the study; nothing else is read, and no wafer.
        say: Hears how far it is, if it takes longer than five seconds.

    Raises:
        ConfigError: If the folder holds no study, or cannot be written.
    """
    start = time.monotonic()
    facts, album = gather(folder), Album()
    answer = _attempt(write_answer, facts, album)
    chapters = []
    for n, (anchor, title, write) in enumerate(_CHAPTERS):
        if say and time.monotonic() - start > _PATIENCE_S:
            start = time.monotonic()
            say(f"still making the report: {title.lower()}, chapter {n + 1} of {len(_CHAPTERS)}")
        content = _attempt(write, facts, album)
        if content:
            chapters.append((anchor, title, section(title, content, id_=anchor)))
    links = [tag("a", title, href=f"#{anchor}") for anchor, title, _ in chapters]
    contents = tag("nav", *links, aria_label="chapters")
    body = tag("body", tag("main", answer, contents, *(chapter for _, _, chapter in chapters)))
    write_atomically(folder.report, "<!doctype html>\n" + tag("html", _head(facts), body, lang="en") + "\n")
    for name, png in album.pictures.items():
        write_atomically(folder.figures / f"{name}.png", png)


def _attempt(write: Chapter, facts: Facts, album: Album) -> Html:
    """Write a chapter; a page without one is worth more than no page at the end of a long search."""
    try:
        return write(facts, album)
    except Exception as error:  # noqa: BLE001 - said on the page, in its place
        return paragraph(f"This chapter could not be made ({type(error).__name__}: {error}).", class_="note")


def _head(facts: Facts) -> Html:
    style = Html(importlib.resources.files("search.views.report").joinpath("style.css").read_text("utf-8"))
    title = " · ".join([facts.folder.name, *facts.marks])
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        join(Html(f"<style>{style}</style>")),
    )
