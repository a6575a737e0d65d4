"""The first screen: what won, by how much, whether to believe it, and which class is still bad."""

import math

from search.study.marks import warnings_of
from search.study.rows import FAILED, INFEASIBLE, RUNNING, STOPPED, TrialRecord
from search.trial.intervals import Difference, bootstrap_confusion, f1_of
from search.views.report.album import Album
from search.views.report.confirmed import confirmed_interval, write_confirmed_card
from search.views.report.facts import Facts, confusion_of
from search.views.report.forest import draw_forest
from search.views.report.markup import Html, join, paragraph, tag
from search.views.report.phrases import (
    differing,
    enumerate_words,
    heat,
    percent,
    points,
    settings_of,
    span,
    title_of,
)
from search.views.report.verdict import write_belief
from search.views.words import count, duration

_MOST_DIFFERENCES = 5
_OVER = {"mean_last_3": "mean of the last three epochs", "ema": "moving average over the epochs"}


def write_answer(facts: Facts, album: Album) -> Html:
    """Write what a stranger must know within a minute."""
    loud = [paragraph(warning, class_="loud") for warning in warnings_of(facts.data)]
    started = str(facts.attempts[-1]["started"])[:10]
    eyebrow = " · ".join(filter(None, ("Search report", facts.folder.name, started)))
    unfinished = _say_unfinished(facts)
    leader = facts.leader
    content = _write_leader(facts, leader) if leader else _write_nobody(facts)
    return tag("header", paragraph(eyebrow, class_="eyebrow"), *loud, unfinished, content)


def _say_unfinished(facts: Facts) -> Html:
    """Say that less was judged than asked for, and why, as far as the folder tells."""
    limits = facts.tree["search"]
    if facts.n_judged >= limits["trials"]:
        return Html("")
    asked = f"{facts.n_judged} of the {count(limits['trials'], 'trial')} asked for judged so far"
    if limits.get("time") and facts.elapsed >= limits["time"]:
        return paragraph(f"The time was used up ({duration(limits['time'])}): {asked}.", class_="note")
    under_way = sum(record.status == RUNNING for record in facts.trials)
    more = f"; {count(under_way, 'trial')} {facts.unfinished}" if under_way else ""
    return paragraph(
        tag("b", "Not finished. "),
        f"{asked}{more}. The search was interrupted, still runs, or found nothing left to try; the same command "
        "goes on.",
        class_="note",
    )


def _write_nobody(facts: Facts) -> Html:
    statuses = {STOPPED: "stopped", INFEASIBLE: "infeasible", FAILED: "failed", RUNNING: facts.unfinished}
    counts = [
        f"{n} {words}" for status, words in statuses.items() if (n := sum(r.status == status for r in facts.trials))
    ]
    told = f"Of {count(len(facts.trials), 'trial')}: {enumerate_words(counts)}." if counts else "No trial has started."
    return join(
        tag("h1", "No winner yet"),
        paragraph(f"No trial has run to its end, so nothing can be recommended. {told}", class_="lead"),
    )


def _write_leader(facts: Facts, leader: TrialRecord) -> Html:
    chips = [
        tag("li", tag("span", name), " ", tag("b", value)) for name, value in settings_of(leader.config, facts.space)
    ]
    what = "Winner" if facts.winner else "Nearest to the floors, but no winner"
    return join(
        paragraph(f"{what}: trial {leader.number} of {len(facts.trials)}", class_="kicker"),
        tag("h1", title_of(leader, facts.space)),
        tag("ul", *chips, class_="chips") if chips else None,
        tag("div", *_write_cards(facts, leader), class_="cards"),
        _write_classes(facts, leader),
        write_belief(facts, leader),
    )


def _write_cards(facts: Facts, leader: TrialRecord) -> list[Html]:
    found = facts.confirmed
    if found is None:
        return [_write_score(facts, leader), _write_duel(facts, leader)]
    worth = confirmed_interval(found)
    what = f"over {count(found.n_folds, 'fold')}" if found.n_folds else f"mean of {count(found.n_seeds, 'fresh seed')}"
    score = tag(
        "div",
        tag("h3", f"{facts.metric}, {what}"),
        paragraph(percent(worth.value), tag("small", " %"), class_="big"),
        paragraph(f"{span(worth)} (95 % interval)", class_="small"),
        paragraph(f"The search, once: {percent(leader.value)} %", class_="small"),
        class_="card",
    )
    return [score, write_confirmed_card(found)]


def _write_score(facts: Facts, leader: TrialRecord) -> Html:
    interval = facts.interval(leader)
    over = _OVER.get(facts.objective.over)
    notes = []
    if over and interval:
        notes.append(f"{over}; its last epoch alone {percent(interval.value)} %, {span(interval)} (95 % interval)")
    elif interval:
        notes.append(f"{span(interval)} (95 % interval)")
    missed = [f"{floor} by {percent(short)} points" for floor, short in facts.shortfalls(leader).items() if short > 0]
    if missed:
        notes.append(f"misses {enumerate_words(missed)}")
    elif facts.floors:
        n = len(facts.floors)
        notes.append(f"meets {'the floor' if n == 1 else 'both floors' if n == 2 else f'all {n} floors'}")
    return tag(
        "div",
        tag("h3", f"{facts.metric}, validation"),
        paragraph(percent(leader.value), tag("small", " %"), class_="big"),
        *(paragraph(note, class_="small") for note in notes),
        class_="card",
    )


def _write_duel(facts: Facts, leader: TrialRecord) -> Html:
    """Set the winner beside the second: both with their intervals, and the difference."""
    second = facts.runner_up
    if second is None:
        only = "No other trial ran to its end" + (" and meets the floors" if facts.floors else "")
        return tag(
            "div", tag("h3", "Runner-up"), paragraph(f"{only}: there is nothing to compare with."), class_="card"
        )
    difference = facts.difference(leader, second)
    assert difference is not None
    pair = [(record, facts.interval(record)) for record in (leader, second)]
    epochs = ", last epochs" if facts.objective.over != "last" else ""
    return tag(
        "div",
        tag("h3", f"Runner-up: trial {second.number}{epochs}"),
        draw_forest([(f"{record.number}", interval) for record, interval in pair if interval]),
        paragraph(
            tag("b", f"{points(leader.value - second.value)} points"),
            f" ahead of trial {second.number}, {_tell_difference(facts, leader, second)}.",
        ),
        paragraph(_tell_apart(facts, difference), class_="small"),
        class_="card wide",
    )


def _tell_difference(facts: Facts, leader: TrialRecord, second: TrialRecord) -> str:
    found = differing(leader.config, second.config, facts.space)
    if not found:
        return "the same configuration"
    more = f" and {len(found) - _MOST_DIFFERENCES} more" if len(found) > _MOST_DIFFERENCES else ""
    return f"which has {', '.join(found[:_MOST_DIFFERENCES])}{more}"


def _tell_apart(facts: Facts, difference: Difference) -> Html:
    last = " of the last epochs" if facts.objective.over != "last" else ""
    bounds = (
        f"Difference{last}: {points(difference.value)} ({points(difference.low)} to {points(difference.high)}, 95 %), "
        "reckoned as if on different wafers, so rather too wide."
    )
    if math.isnan(difference.low):
        return join(bounds)
    if difference.low > 0:
        words = "Told apart by these wafers; whether another seed agrees is open."
    elif difference.high < 0:
        words = "In its last epoch alone the runner-up is ahead: the order hangs on the averaging."
    else:
        words = "They cannot be told apart by these wafers: take either."
    return join(tag("b", words), " ", bounds)


def _write_classes(facts: Facts, leader: TrialRecord) -> Html:
    """Write the heat row: F1 of each class, the worst named."""
    scores, counts = leader.scores, confusion_of(leader)
    assert scores is not None and counts is not None
    present = [k for k, value in enumerate(scores.f1) if not math.isnan(value)]
    worst = min(present, key=lambda k: scores.f1[k])
    tiles = []
    for k, name in enumerate(facts.classes):
        value = scores.f1[k]
        bounds = span(bootstrap_confusion(counts, f1_of(k)), 0) if k in present else "no wafers"
        tiles.append(
            tag(
                "li",
                tag("span", name, class_="name"),
                tag("b", percent(value, 1)),
                tag("span", bounds, class_="bounds"),
                style=f"background:{heat(value)}",
                class_="worst" if k == worst and len(present) > 1 else None,
            )
        )
    n = scores.support[worst]
    missed, called = round(n * (1 - scores.recall[worst])), int(counts[:, worst].sum() - counts[worst, worst])
    sentence = (
        f"{missed or 'None'} of its {n:,} validation wafers are missed, and {count(called, 'other wafer')} "
        f"{'is' if called == 1 else 'are'} called so."
    )
    return join(
        tag("h3", "F1 of each class, %"),
        tag("ul", *tiles, class_="tiles"),
        paragraph(
            "Still bad: " if scores.f1[worst] < 0.9 else "Weakest: ", tag("b", facts.classes[worst]), f". {sentence}"
        ),
    )
