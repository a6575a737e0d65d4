"""What the search spent, what the judge spared, and who got how far."""

from search.study.hindsight import Rung, Saving, count_survivors, measure_saving
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, STOPPED
from search.views.figures import draw_survival
from search.views.report.album import Album
from search.views.report.facts import Facts
from search.views.report.markup import Html, join, paragraph, table, tag
from search.views.report.phrases import NOTHING
from search.views.words import count, duration

_WORDS = {
    COMPLETE: "ran to their end",
    STOPPED: "stopped by ASHA",
    INFEASIBLE: "infeasible",
    FAILED: "failed",
}


def write_budget(facts: Facts, album: Album) -> Html:
    """Write epochs and seconds, run and saved, and the rungs."""
    if not facts.trials:
        return Html("")
    saving = measure_saving(facts.trials)
    statuses = {**_WORDS, RUNNING: facts.unfinished}
    counts = [
        f"{n} {words}" for status, words in statuses.items() if (n := sum(r.status == status for r in facts.trials))
    ]
    attempts = f" in {len(facts.attempts)} attempts" if len(facts.attempts) > 1 else ""
    return join(
        paragraph(
            f"{count(len(facts.trials), 'trial')} ({', '.join(counts)}) in {duration(facts.elapsed)}{attempts}: "
            f"{count(saving.epochs_run, 'nominal epoch')}, {duration(saving.seconds_run)} of training and validation, "
            "all slots together."
        ),
        _saved(saving),
        _rungs(facts, album),
    )


def _saved(saving: Saving) -> Html:
    if not saving.n_stopped:
        return Html("")
    would = saving.epochs_run + saving.epochs_saved
    share = saving.epochs_saved / would
    bar = tag(
        "div",
        tag("span", f"run {saving.epochs_run:,}", style=f"width:{100 - 100 * share:.1f}%", class_="run"),
        tag("span", f"saved {saving.epochs_saved:,}", style=f"width:{100 * share:.1f}%", class_="saved"),
        class_="bar",
    )
    return join(
        bar,
        paragraph(
            tag("b", f"ASHA saved {100 * share:.0f} % of the epochs"),
            f": {count(saving.n_stopped, 'trial')} stopped early left {saving.epochs_saved:,} of {would:,} epochs "
            f"untrained, about {duration(saving.seconds_saved)} at each trial's own seconds per epoch. Whether one "
            "of them would have won, nobody knows.",
        ),
    )


def _rungs(facts: Facts, album: Album) -> Html:
    reported = [record for record in facts.trials if record.reports]
    if facts.asha is None or not reported:
        return Html("")
    survivors = count_survivors(facts.trials, facts.asha.rungs)
    reached = {
        length: [
            sum(len(record.reports) >= epoch for record in reported if record.epochs == length)
            for epoch in range(1, length + 1)
        ]
        for length in sorted({record.epochs for record in reported})
    }
    rungs = {length: facts.asha.rungs(length) for length in reached}
    figure = album.show(
        "survival",
        draw_survival(reached, rungs),
        words="how many trials reached each epoch, by length of training",
        caption="Trials that reached each nominal epoch, by the length they were to train. Trials of different length "
        "are never compared by ASHA.",
    )
    return tag("div", figure, _rung_table(survivors), class_="pair")


def _rung_table(survivors: list[Rung]) -> Html:
    rows = [(str(r.length), str(r.epoch), str(r.reached), str(r.stopped), str(r.went_on), _rate(r)) for r in survivors]
    header = ("length", "rung", "reached", "stopped", "went on", "")
    note = (
        "In nominal epochs and trials. Stopped: before the next rung. What is missing of a sum broke, or is under way."
    )
    return tag("div", table(header, rows, words=()), paragraph(note, class_="small"))


def _rate(rung: Rung) -> str:
    return f"{100 * rung.went_on / rung.reached:.0f} %" if rung.reached else NOTHING
