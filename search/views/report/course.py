"""The course of the search against luck, and the learning curves of all trials."""

import numpy as np
from numpy.typing import NDArray

from search.study.hindsight import expect_best, spread_of_best
from search.study.rows import COMPLETE, TrialRecord
from search.views.figures import draw_all_curves, draw_course
from search.views.report.album import Album
from search.views.report.facts import Facts
from search.views.report.markup import Html, join, paragraph, tag
from search.views.report.phrases import percent
from search.views.words import count


def write_course(facts: Facts, album: Album) -> Html:
    """Write how the best came about."""
    reported = [record for record in facts.trials if record.reports]
    if not reported:
        return Html("")
    ended = [facts.records[number] for number in facts.ended]
    able = [may_win(facts, record) for record in ended]
    best = best_so_far(ended, able)
    values = [record.value for record, ok in zip(ended, able, strict=True) if ok]
    expected = expect_best(values, n_never=len(ended) - len(values))
    figures = []
    if any(record.reports for record in ended):
        figures.append(
            album.show(
                "course",
                draw_course(ended, best, expected, metric=facts.metric),
                words="objective of each trial in the order of their ends, and the best so far",
                caption=f"Objective by trial, n = {len(ended)} ended. Triangles lie below the picture.",
            )
        )
    figures.append(
        album.show(
            "learning_curves",
            draw_all_curves(facts.trials, metric=facts.metric, best=facts.leader),
            words="objective of every trial over its epochs",
            caption=f"Learning curves of all {len(reported)} trials that reported, by how they ended.",
        )
    )
    return join(tag("div", *figures, class_="pair"), _compare_with_luck(ended, best, expected, values))


def may_win(facts: Facts, record: TrialRecord) -> bool:
    """Whether a trial may be the best: it ran to its end and meets the floors, where anyone does."""
    return record.status == COMPLETE and (facts.winner is None or not record.shortfalls[-1])


def best_so_far(ended: list[TrialRecord], able: list[bool]) -> list[float]:
    """Return the best after each end; NaN before the first that may be."""
    best, course = np.nan, []
    for record, ok in zip(ended, able, strict=True):
        best = float(np.fmax(best, record.value)) if ok else best
        course.append(best)
    return course


def _compare_with_luck(
    ended: list[TrialRecord], best: list[float], expected: NDArray[np.float64], values: list[float]
) -> Html:
    """Say precisely what the dashed line is, and where the search stood against it half-way."""
    if len(values) < 2:
        return Html("")
    what = (
        "Dashed: the best after k trials that these same trials would have had on average, had they ended in random "
        "order (exact, over all orders with at least one that ran to its end; stopped and broken ones are never the "
        "best). It is no random search: the sampler's later proposals are in it, so as long as those are no worse than "
        "chance, it is an upper bound for random search of this space."
    )
    half = len(ended) // 2
    if np.isnan(best[half - 1]):
        return paragraph(what, class_="small")
    low, high = spread_of_best(values, n=half, n_never=len(ended) - len(values))
    told = (
        f"After {half} of {count(len(ended), 'trial')} the best so far was {percent(best[half - 1])} %; in random "
        f"order it would be {percent(float(expected[half - 1]))} % on average, {percent(low)} to {percent(high)} % "
        "nine times out of ten"
    )
    if best[half - 1] > high:
        meaning = "the good trials came early, by luck or because they were put first"
    elif best[half - 1] < low:
        meaning = "the best came late, as they do where a search learns"
    else:
        meaning = "the order does not stand out"
    return join(paragraph(f"{told}: {meaning}."), paragraph(what, class_="small"))
