"""Numbers, durations, configurations and scores as people read them."""

from collections.abc import Iterable, Mapping

from rich.table import Table

from search.study.space import Space
from search.trial.metrics import Scores
from search.trial.vocabulary import Scalar


def duration(seconds: float) -> str:
    """Write seconds as 8 s, 3:05 or 2:10:00.

    Example:
        >>> duration(185.2)
        '3:05'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value: Scalar) -> str:
    """Write a value with as many digits as help.

    Example:
        >>> number(0.00123456)
        '0.00123'
    """
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def configuration(config: Mapping[str, Scalar], space: Space) -> str:
    """Write what distinguishes a trial from the others of its space: the searched values, names shortened."""
    searched = space.parameters()
    parts = []
    for key, value in config.items():
        if key in searched:
            leaf = key.split(".")[-1]
            parts.append(str(value) if isinstance(value, str) else f"{leaf} {number(value)}")
    return ", ".join(parts) or "the only configuration"


def score_table(scores: Scores, classes: Iterable[str], *, title: str) -> Table:
    """Lay out precision, recall and F1 per class, and the means below."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("class")
    for column in ("precision", "recall", "F1", "balanced F1", "wafers"):
        table.add_column(column, justify="right")
    for k, name in enumerate(classes):
        values = (scores.precision[k], scores.recall[k], scores.f1[k], scores.balanced_f1[k])
        table.add_row(name, *(f"{100 * value:.2f}" for value in values), f"{scores.support[k]:,}")
    table.add_section()
    table.add_row("macro", "", "", f"{100 * scores.macro_f1:.2f}", f"{100 * scores.balanced_macro_f1:.2f}", "")
    table.add_row("worst class", "", "", f"{100 * scores.worst_class_f1:.2f}", "", "")
    table.add_row("accuracy", "", "", f"{100 * scores.accuracy:.2f}", "", f"{sum(scores.support):,}")
    return table
