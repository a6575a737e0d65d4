"""Numbers, durations, configurations and scores as people read them."""

import math
from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from search.space.space import Config, Space
from search.study.hindsight import unfinished_above
from search.study.planning import Largest
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, STOPPED, TrialRecord
from search.trial.memory import byte_size
from search.trial.metrics import Scores
from search.trial.vocabulary import Scalar
from search.views.snapshot import About, Message, Snapshot, TrialNow

_STATUS_WORDS = {
    RUNNING: "running",
    COMPLETE: "complete",
    STOPPED: "stopped by ASHA",
    INFEASIBLE: "infeasible",
    FAILED: "failed",
    "paused": "interrupted",
}
_METRICS = {
    "balanced_macro_f1": "balanced macro-F1",
    "macro_f1": "macro-F1",
    "worst_class_f1": "worst-class F1",
    "weighted_f1": "weighted F1",
}


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


def shorten(path: Path) -> str:
    """Write a path from here if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def number(value: Scalar) -> str:
    """Write a value with as many digits as help.

    Example:
        >>> number(0.00123456)
        '0.00123'
    """
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def count(n: int, one: str, several: str = "") -> str:
    """Write a number with its noun.

    Example:
        >>> count(1, "trial"), count(1200, "class", "classes")
        ('1 trial', '1,200 classes')
    """
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def score(value: float, *, digits: int = 3) -> str:
    """Write a score in [0, 1]; a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def short_count(value: float) -> str:
    """Write a count in at most five characters, "" if it is not known.

    Example:
        >>> [short_count(n) for n in (950, 9_400, 54_000, 1_234_567)]
        ['950', '9,400', '54k', '1.2M']
    """
    if math.isnan(value) or not value:
        return ""
    if value < 9_999.5:
        return f"{value:,.0f}"
    return (
        f"{value / 1e3:.0f}k"
        if value < 999_500
        else f"{value / 1e6:.1f}M"
        if value < 99.95e6
        else f"{value / 1e6:.0f}M"
    )


def time_words(now: Snapshot, *, spent_only: bool = False) -> str:
    """Say how long a search has run, or how long it still takes and what ends it."""
    limit = now.about.search.time
    if spent_only:
        return f"after {duration(now.elapsed)}{f' of {duration(limit)}' if limit else ''}"
    if not now.running:
        return "done" if now.n_judged >= now.about.search.trials else "none is running"
    if now.left is None:
        return "time left not known yet"
    if now.is_timed:
        return f"{duration(now.left)} left, then its time is up" if now.left else "its time is up, the last trials end"
    return f"about {duration(now.left)} left"


def metric_words(metric: str) -> str:
    """Write the name of an objective."""
    return _METRICS.get(metric, metric)


def end_words(about: About, trial: TrialNow) -> str:
    """Say how a trial ended."""
    head, words = f"trial {trial.number} {_STATUS_WORDS[trial.status]}", short_configuration(trial.config, about.space)
    if trial.status in (INFEASIBLE, FAILED):
        return f"{head} in epoch {trial.epoch + 1} of {trial.epochs}: {trial.reason}; {words}"
    after = "after all" if trial.status == COMPLETE else f"after {trial.epoch} of"
    return f"{head} {after} {count(trial.epochs, 'epoch')}, {score(trial.value, digits=4)}; {words}"


def best_words(about: About, trial: TrialNow, *, is_whole: bool = False) -> str:
    """Say which trial is the best from now on, and with which F1 of its worst class, or of all."""
    words = f"best so far: trial {trial.number}, {metric_words(about.metric)} {score(trial.value, digits=4)}"
    if not is_whole and trial.worst is not None:
        return f"{words}, worst {about.classes[trial.worst]} {score(trial.f1[trial.worst], digits=2)}"
    f1 = (f"{name} {score(value, digits=2)}" for name, value in zip(about.classes, trial.f1, strict=False))
    return f"{words}; F1 {'  '.join(f1)}"


def message_words(about: About, told: Message, *, is_whole: bool = False) -> str:
    """Write a message without its time; `is_whole` leaves nothing out."""
    if told.trial is None:
        return told.text
    return best_words(about, told.trial, is_whole=is_whole) if told.is_best else end_words(about, told.trial)


def report_words(about: About, trial: TrialNow, *, is_whole: bool = False) -> str:
    """Say where a trial stands; `is_whole` adds the configuration and where it trains."""
    words = f"trial {trial.number} epoch {trial.epoch}/{trial.epochs}"
    if trial.worst is not None:
        worst = f"{about.classes[trial.worst]} {score(trial.f1[trial.worst], digits=2)}"
        words += f": macro-F1 {score(trial.macro_f1)}, worst {worst}"
    if not is_whole:
        return words
    speed = f", {trial.samples:,} wafers at {trial.speed:,.0f} per second" if trial.epoch else ""
    place = f"; {trial.place}" if trial.place else ""
    return f"{words}, {metric_words(about.metric)} {score(trial.value, digits=4)}{speed}{place}"


def higher_words(records: Iterable[TrialRecord], best: TrialRecord, *, is_judged: bool, is_out_of_time: bool) -> str:
    """Say which trial stood higher than the best when it was left unfinished; "" if none did.

    Args:
        records: All trials.
        best: Of those that ran to their end.
        is_judged: Whether as many trials are judged as were asked for.
        is_out_of_time: Whether the time is used up.
    """
    higher = unfinished_above(records, best)
    if not higher:
        return ""
    trial = higher[0]
    epochs = f"{len(trial.reports)} of {count(trial.epochs, 'epoch')}"
    stood = f"trial {trial.number}, not finished, stood at {100 * trial.value:.2f} after {epochs}"
    on = "a larger --trials" if is_judged else "a larger --time" if is_out_of_time else "the same command"
    return f"{stood}; {on} goes on with it"


def counts_words(now: Snapshot) -> list[str]:
    """Count the trials by what became of them, with the reasons; what has not happened goes without saying."""
    parts = []
    for status in (COMPLETE, STOPPED, INFEASIBLE, FAILED, "paused"):
        n, reasons = now.counts[status], now.reasons.get(status, {})
        listed = ", ".join(f"{m:,} {reason}" for reason, m in reasons.items())
        if n or status in (COMPLETE, STOPPED):
            parts.append(f"{n:,} {_STATUS_WORDS[status]}{f' ({listed})' if listed else ''}")
    return parts


def short_configuration(config: Config, space: Space) -> str:
    """Do as `configuration`, the model first and without the epochs, where something else tells them."""
    leading = {key: config[key] for key in ("model",) if key in config}
    return configuration({key: value for key, value in (leading | dict(config)).items() if key != "epochs"}, space)


def configuration(config: Config, space: Space) -> str:
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
    # On the CPU it is the whole process that is measured, see `search.trial.memory.peak_memory`.
    how = "measured" if "(GPU " in record.place else "measured with Python and torch"
    known = {"expected": record.expected_memory, how: measured}
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
