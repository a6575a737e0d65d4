"""The end of a search: who has won, by how much, in which classes, where everything lies and what to type next."""

from collections.abc import Iterator, Sequence

from rich.console import Console

from search.space.floors import find_shortfalls
from search.study.rows import FAILED, RUNNING, TrialRecord
from search.study.study import Study
from search.views.screen import trial_table
from search.views.snapshot import Snapshot
from search.views.terminal import page, say, tally_of
from search.views.words import (
    configuration,
    count,
    counts_words,
    duration,
    higher_words,
    memory_of,
    score_table,
    shorten,
)


def show_outcome(study: Study, console: Console, *, marks: Sequence[str], is_over: bool, note: str = "") -> None:
    """Print how a search has ended.

    Args:
        study: That has ended, or was interrupted.
        console: Where to.
        marks: What to say loudly of the data.
        is_over: Whether there is nothing left to run.
        note: What the report does not show, if anything.
    """
    wide = page(console)
    best, now = study.best, tally_of(study, marks).take([], elapsed=study.elapsed)
    say(console, f"\n{_headline(study, now, is_over=is_over)}")
    if best is None or best.scores is None:
        say(console, _why_no_best(study))
    else:
        say(console, f"best: trial {best.number}: {configuration(best.config, study.config.space)}; {memory_of(best)}")
        say(console, "")
        ascii_only = console.options.ascii_only
        wide.print(trial_table(now.about, now.top, wide.width, ascii_only=ascii_only, is_running=False))
        say(console, "")
        marks = ", ".join([*now.about.marks, "%", "one seed"])
        console.print(score_table(best.scores, study.classes, title=f"trial {best.number} on validation ({marks})"))
        is_judged = is_over and study.is_judged
        higher = higher_words(study.records.values(), best, is_judged=is_judged, is_out_of_time=is_over)
        if higher:
            say(console, higher)
    say(console, "")
    for name, text in _directions(study, best, is_over=is_over, note=note):
        # A terminal may break a line, but not within what is copied from it.
        console.print(f"{name:<20}{text}", highlight=False, markup=False, soft_wrap=True)


def _headline(study: Study, now: Snapshot, *, is_over: bool) -> str:
    left = study.count(RUNNING)
    words = ", ".join([*counts_words(now), *([f"{left} not finished"] if left else [])])
    ended = "done" if is_over else "interrupted"
    return f"{ended} after {duration(study.elapsed)}: {count(len(study.records), 'trial')}, {words}"


def _directions(study: Study, best: TrialRecord | None, *, is_over: bool, note: str) -> Iterator[tuple[str, str]]:
    folder = study.folder
    if best is not None:
        yield "best configuration", shorten(folder.best)
    yield "report", f"{shorten(folder.report)}{f' ({note})' if note else ''}"
    yield "all trials", shorten(folder.trials)
    if study.count(FAILED):
        yield "tracebacks", shorten(folder.failure(0).parent)
    if best is not None and not (is_over and study.config.confirm):  # then confirming is next, and says the rest
        yield "next", f"python -m search.retrain {folder.in_commands}"
        yield "then", f"python -m search.evaluate {folder.in_commands}"
    if not is_over:
        yield "go on", "the same command goes on from here"
    elif study.is_exhausted:
        yield "the end", "every configuration that the space allows has been tried, as far as one could be found"
    elif study.is_out_of_time and not study.is_judged:
        yield "search longer", "the time is used up; a larger --time goes on from here"
    else:
        yield "search longer", f"the same command with --trials {2 * study.config.search.trials} goes on from here"


def _why_no_best(study: Study) -> str:
    leader = study.leader
    if leader is None or leader.scores is None:
        return "no trial ran to its end, so there is no best.yaml; give it more time: --time"
    shortfalls = find_shortfalls(study.config.floors, leader.scores, study.classes)
    missed = [f"{floor} by {shortfall:.3f}" for floor, shortfall in shortfalls.items() if shortfall > 0]
    return (
        f"no trial that ran to its end meets the constraints, so there is no best.yaml; nearest is trial "
        f"{leader.number}, which misses {', '.join(missed)}; try more trials, or lower the floors in a new study"
    )
