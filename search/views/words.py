"""Numbers, durations, configurations and scores as people read them."""

from collections.abc import Iterable, Mapping

from rich.table import Table

from search.space.space import Space
from search.study.planning import Largest
from search.study.rows import TrialRecord
from search.trial.memory import byte_size
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


def memory_of(record: TrialRecord) -> str:
    """Write what a trial was expected to hold and what was measured, as far as that is known."""
    measured = max((report.peak_memory for report in record.reports), default=0)
    known = {"expected": record.expected_memory, "measured": measured}
    parts = [f"{byte_size(size)} {word}" for word, size in known.items() if size]
    return f"memory {', '.join(parts) or 'unknown'}"


def memory_plan(largest: Largest, *, usable: int | None) -> str:
    """Write the largest trial that was found, and a warning where its tensors exceed what they may take.

    Args:
        largest: From `find_largest`.
        usable: Memory of one trial for its tensors, in bytes; None if unknown.
    """
    estimate, params = largest.estimate, largest.params
    parts = {"activations": estimate.activations + estimate.workspace, "wafers": estimate.wafers}
    parts["weights and optimizer"] = estimate.weights + estimate.gradients + estimate.optimizer
    listed = ", ".join(f"{name} {byte_size(size)}" for name, size in parts.items())
    n = largest.n_samples
    looked = "the only configuration looked at" if n == 1 else f"largest of {n} configurations looked at"
    which = f"{params.model.name} at batch_size {params.batch_size}"
    text = f"memory: up to about {byte_size(estimate.total)} per trial ({looked}: {which}; {listed})"
    if usable is not None and estimate.total > usable:
        text += (
            f"\nWARNING: a trial's share leaves {byte_size(usable)} for that: such trials may run out of memory; "
            "lower batch_size or data.image_size, or give each trial more by resources.cpus or resources.gpus"
        )
    return text


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
