"""How far the winner's score may be believed, in plain sentences."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from search.study.rows import TrialRecord
from search.trial.intervals import bootstrap_confusion
from search.views.report.facts import Facts
from search.views.report.markup import Html, join, paragraph, tag
from search.views.report.phrases import percent, span
from search.views.words import count, higher_words


def write_belief(facts: Facts, leader: TrialRecord) -> Html:
    """Say whether to believe the score, and what stands against it."""
    n = len(facts.ranked)
    scores = leader.scores
    assert scores is not None
    wafers = sum(scores.support)
    picked = (
        f"is the best of {n} noisy scores, each from a single training with one seed, on the same {wafers:,} "
        "validation wafers that it was picked by: the score flatters the winner"
        if n > 1
        else f"is the score of a single training with one seed on {wafers:,} validation wafers"
    )
    reasons = _about_confirmed(facts) or (
        f"{percent(leader.value)} % {picked}. The intervals come from drawing those wafers anew; they hold "
        "neither the spread between seeds nor the optimism of picking the best."
    )
    return tag(
        "div",
        tag("h3", "Whether to believe it"),
        paragraph(tag("b", _headline(facts)), " ", reasons),
        _about_higher(facts, leader),
        paragraph(_about_test(facts)),
        class_="belief",
    )


def _about_confirmed(facts: Facts) -> str:
    found = facts.confirmed
    if found is None:
        return ""
    basis = (
        f"Models that had not seen their lots judged {found.n_wafers:,} wafers of {found.n_lots:,} lots in "
        f"{found.n_folds} folds."
        if found.n_folds
        else f"{found.n_seeds} trainings with fresh seeds were judged on the search's own {found.n_wafers:,} "
        "validation wafers: no lucky seed is left in the score, but candidates were picked on these wafers."
    )
    rest = "The intervals hold the spread between seeds and between lots." if not math.isnan(found.seed_sd) else ""
    return f"{basis} {rest}".strip()


def _about_higher(facts: Facts, leader: TrialRecord) -> Html | None:
    limits = facts.tree["search"]
    is_judged = facts.n_judged >= limits["trials"]
    is_out_of_time = bool(limits.get("time")) and facts.elapsed >= limits["time"]
    higher = higher_words(facts.trials, leader, is_judged=is_judged, is_out_of_time=is_out_of_time)
    return paragraph(higher[:1].upper() + higher[1:] + ".") if higher else None


def _headline(facts: Facts) -> str:
    if facts.data["synthetic"]:
        return "Not for real wafers: these are SYNTHETIC."
    if facts.data.get("leaky"):
        return "No: the split is LEAKY, so wafers to judge by resemble those learned from."
    if facts.winner is None:
        return "It is no winner: nobody who ran to the end meets the floors."
    if facts.looks and not facts.other_model(facts.first_look):
        return "As far as the locked test says, below."
    if facts.looks:
        return "As a candidate; the locked test was about another model."
    if facts.confirmed:
        return "As a confirmed candidate; the locked test has not spoken yet."
    return "As a candidate, not as a promise."


def _about_test(facts: Facts) -> Html:
    if facts.winner is None and not facts.looks:
        return join("So there is no best.yaml to retrain. Try more trials, or lower the floors in a new study.")
    if not facts.looks:
        return join(
            tag("b", "The locked test was not opened yet. "),
            "Only it says what the winner is worth: ",
            tag("code", f"python -m search.retrain {facts.folder.in_commands}"),
            ", then ",
            tag("code", f"python -m search.evaluate {facts.folder.in_commands}"),
            ".",
        )
    first = facts.first_look
    often = (
        "opened once"
        if len(facts.looks) == 1
        else f"opened {len(facts.looks)} times; this is the first look, the only one that nothing can have been chosen "
        "by"
        if first is facts.looks[0]
        else f"opened {len(facts.looks)} times; this is the first look at this model"
    )
    return join(
        tag("b", f"Locked test: {facts.metric} {percent(test_score(facts, first))} %"),
        f" ({test_span(facts, first)}, 95 %) on {count(test_size(first), 'wafer')}, {often}. ",
        facts.other_model(first),
    )


def test_score(facts: Facts, look: Mapping[str, Any]) -> float:
    """Return the objective's metric of one look at the locked test."""
    return float(facts.statistic(np.array([look["test_confusion"]]))[0])


def test_span(facts: Facts, look: Mapping[str, Any]) -> str:
    """Write the interval around it."""
    return span(bootstrap_confusion(np.array(look["test_confusion"]), facts.statistic))


def test_size(look: Mapping[str, Any]) -> int:
    """Count the wafers of the locked test."""
    return int(np.sum(look["test_confusion"]))
