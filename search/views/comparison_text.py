"""What a comparison of studies says in words, and its tables in a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.study.marks import warnings_of
from search.trial.intervals import Difference
from search.views.contenders import FEW, HEADLINES, TOO_FEW, Comparison, Contender, Pair
from search.views.report.phrases import percent, points
from search.views.terminal import say
from search.views.words import count

_DECISIVE = ("balanced_macro_f1", "macro_f1")  # accuracy lies on rare defects; it is shown and not judged by
_SIDE_BY_SIDE = 2  # in 80 columns


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print scores, differences and what they mean; letters stand for the studies."""
    for warning in warnings_of(comparison.data):
        say(console, warning)
    say(console, tested_on(comparison))
    for contender in comparison.contenders:
        say(console, f"  {contender.letter} = {contender.name}")
    for start in range(0, len(comparison.contenders), _SIDE_BY_SIDE):
        console.print(_score_table(comparison, comparison.contenders[start : start + _SIDE_BY_SIDE]))
    for pair in comparison.pairs:
        console.print(_difference_table(comparison, pair))
        both, only_first, only_second, none = pair.right
        only = f"only {pair.first.letter} {only_first:,}, only {pair.second.letter} {only_second:,}"
        say(console, f"right: both {both:,}, {only}, none {none:,}")
    for line in (*verdicts(comparison), *cautions(comparison)):
        say(console, line)


def tested_on(comparison: Comparison) -> str:
    """Say on which wafers, and how the intervals are drawn."""
    origin = comparison.contenders[0].origin
    lots = f" of {count(comparison.n_lots, 'lot')}" if comparison.n_lots else ""
    how = "whole lots" if comparison.n_lots else "wafers within each class"
    return (
        f"Final models on the same {comparison.n_wafers:,} test wafers{lots}, split {origin.split_fingerprint} "
        f"({origin.protocol}) of data {origin.data_fingerprint}. Intervals: 2,000 draws of {how}, the same draws for "
        "both of a pair."
    )


def verdicts(comparison: Comparison) -> list[str]:
    """Say of every two whether one is better, by both headline scores."""
    return [verdict for pair in comparison.pairs for verdict in _verdicts_of(comparison, pair)]


def cautions(comparison: Comparison) -> list[str]:
    """Say what the numbers do not contain."""
    n_intervals = len(comparison.pairs) * (len(HEADLINES) + len(comparison.classes))
    lines = [
        "The intervals hold no spread between trainings: other seeds may turn a small difference round.",
        f"Of {n_intervals} intervals of 95 %, about {max(1, round(n_intervals / 20))} would leave 0 out by chance.",
        "Whoever chooses between them by this chooses by the test part: the score of the chosen one then flatters it.",
    ]
    if not comparison.n_lots:
        lines.append(
            "No lots are known, so wafers were drawn one by one: where wafers of one lot resemble each other, the "
            "intervals are too narrow."
        )
    elif comparison.n_lots < FEW:
        lines.append(f"{comparison.n_lots} lots are few: with fewer than {FEW}, the intervals are too narrow.")
    units = "lots" if comparison.n_lots else "wafers"
    rare = [f"{name} ({n})" for name, n in zip(comparison.classes, comparison.units, strict=True) if 0 < n < TOO_FEW]
    if rare:
        lines.append(f"In too few {units} to be told apart by: {', '.join(rare)}.")
    absent = [name for name, n in zip(comparison.classes, comparison.units, strict=True) if not n]
    if absent:
        lines.append(f"Without a test wafer, and in no mean: {', '.join(absent)}.")
    for contender in comparison.contenders:
        if contender.n_looks > 1:
            lines.append(f"{contender.name}: its ledger counts {contender.n_looks} looks at the test part.")
        if contender.is_outdated:
            lines.append(
                f"{contender.name}: its final model was trained anew since; these predictions are of the one before "
                f"({contender.origin.model})."
            )
    return lines


def with_interval(found: Difference) -> str:
    """Write a difference in points, its bounds behind it."""
    return f"{points(found.value)} ({points(found.low)} to {points(found.high)})" if found.value == found.value else ""


def better_of(pair: Pair, found: Difference, *, n_units: int) -> Contender | None:
    """Return the better one; None where the interval, or too few units, leave it open."""
    if n_units < TOO_FEW or not found.is_separable:
        return None
    return pair.first if found.low > 0 else pair.second


def letter_of(better: Contender | None) -> str:
    """Name the better one in a table."""
    return better.letter if better else "open"


def three_scores(contender: Contender, k: int) -> list[str]:
    """Write precision, recall and F1 of a class in %."""
    scores = contender.scores
    return [percent(values[k]) for values in (scores.precision, scores.recall, scores.f1)]


def _verdicts_of(comparison: Comparison, pair: Pair) -> list[str]:
    first, second = pair.first.name, pair.second.name
    if (pair.first.predictions.predicted == pair.second.predictions.predicted).all():
        return [f"{first} and {second} call every wafer the same."]
    lines = []
    for key in _DECISIVE:
        found = pair.headlines[key]
        better = better_of(pair, found, n_units=comparison.n_units)
        # With 2,000 draws smaller ones are not told from one another.
        p = "p < 0.01" if found.p_value < 0.01 else f"p = {found.p_value:.2f}"
        if better:
            low, high = sorted((abs(found.low), abs(found.high)))
            worse = second if better is pair.first else first
            lines.append(
                f"{better.name} is better than {worse} in {HEADLINES[key]}: by {percent(abs(found.value))} points "
                f"(95 %: {percent(low)} to {percent(high)}; {p})."
            )
        else:
            lines.append(
                f"{first} and {second} cannot be told apart in {HEADLINES[key]}: {points(found.value)} points between "
                f"them (95 %: {points(found.low)} to {points(found.high)}; {p})."
            )
    return lines


def _score_table(comparison: Comparison, contenders: Sequence[Contender]) -> Table:
    mark = "".join(f"{mark}, " for mark in comparison.marks)
    title = f"locked test ({mark}precision, recall and F1 in %)"
    made = Table(title=title, title_justify="left", title_style="bold")
    made.add_column("class")
    made.add_column("wafers", justify="right", no_wrap=True)
    for contender in contenders:
        for name in ("P", "R", "F1"):
            made.add_column(f"{contender.letter} {name}", justify="right", no_wrap=True)
    for k, name in enumerate(comparison.classes):
        cells = [cell for contender in contenders for cell in three_scores(contender, k)]
        made.add_row(Text(name), f"{contenders[0].scores.support[k]:,}", *cells)
    made.add_section()
    for key, words in HEADLINES.items():
        means = [percent(getattr(contender.scores, key)) for contender in contenders]
        made.add_row(words, "", *(cell for mean in means for cell in ("", "", mean)))
    return made


def _difference_table(comparison: Comparison, pair: Pair) -> Table:
    first, second = pair.first.letter, pair.second.letter
    made = Table(title=f"{first} minus {second}, points", title_justify="left", title_style="bold")
    made.add_column("F1 of")
    made.add_column("difference (95 %)", justify="right", no_wrap=True)
    for letter in (first, second):
        made.add_column(f"only {letter}", justify="right", no_wrap=True)
    made.add_column("better", no_wrap=True)
    for key, found in pair.headlines.items():
        better = letter_of(better_of(pair, found, n_units=comparison.n_units))
        made.add_row(HEADLINES[key], with_interval(found), "", "", better)
    made.add_section()
    for k, (name, found) in enumerate(zip(comparison.classes, pair.f1, strict=True)):
        better = letter_of(better_of(pair, found, n_units=comparison.units[k]))
        made.add_row(Text(name), with_interval(found), f"{pair.only_first[k]:,}", f"{pair.only_second[k]:,}", better)
    return made
