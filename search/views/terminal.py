"""The search as it runs: one calm screen on a terminal, one line per event elsewhere."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, STOPPED, TrialRecord
from search.study.study import JUDGED, Study
from search.views.words import configuration, duration

_HEARTBEAT_S = 30.0


def say(console: Console, text: str) -> None:
    """Print a message: wrapped between words on a terminal, never elsewhere, where programs read lines."""
    console.print(text, highlight=False, markup=False, soft_wrap=not console.is_terminal)


class SearchView:
    """Shows a study while it runs; a context manager.

    Args:
        study: What to show; only read.
        console: Where to.
        marks: What to say loudly of the data, see `search.study.marks`.
    """

    def __init__(self, study: Study, console: Console, *, marks: Sequence[str] = ()) -> None:
        self._study = study
        self._console = console
        self._marks = marks
        self._live = Live(get_renderable=self._screen, console=console, refresh_per_second=2, transient=True)
        self._announced_best: int | None = study.best.number if study.best else None
        self._last_line = time.monotonic()

    def __enter__(self) -> "SearchView":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def on_event(self, number: int) -> None:
        """Take note that a trial reported or ended."""
        record, best = self._study.records[number], self._study.best
        if record.status != RUNNING:
            self._say(self._end_of(record))
        if best and best.number != self._announced_best:
            self._announced_best = best.number
            self._say(f"best so far: trial {best.number}, {self._f1_line(best)}")
        if not self._console.is_terminal and time.monotonic() - self._last_line > _HEARTBEAT_S:
            running = "; ".join(_progress_of(other) for other in self._study.running)
            self._say(f"{self._counts()}; {self._time_left()}; running: {running}")

    def _say(self, line: str) -> None:
        self._last_line = time.monotonic()
        say(self._console, f"{duration(self._study.elapsed):>8}  {line}")

    def _end_of(self, record: TrialRecord) -> str:
        score = f"{record.value:.4f}" if record.values else "no score"
        why = f" ({record.reason})" if record.reason else ""
        config = configuration(record.config, self._study.config.space)
        return f"trial {record.number} {record.status}{why} after {len(record.reports)} epochs: {score}; {config}"

    def _f1_line(self, record: TrialRecord) -> str:
        scores = record.scores
        f1 = (
            ""
            if scores is None
            else "  ".join(f"{name} {value:.2f}" for name, value in zip(self._study.classes, scores.f1, strict=True))
        )
        return f"{self._study.config.objective.metric} {record.value:.4f}; F1 {f1}"

    def _counts(self) -> str:
        study = self._study
        words = [f"{study.count(status)} {status}" for status in (COMPLETE, STOPPED, INFEASIBLE, FAILED)]
        return f"{study.count(*JUDGED)} of {study.config.search.trials} trials judged: {', '.join(words)}"

    def _time_left(self) -> str:
        study = self._study
        judged, limit = study.count(*JUDGED), study.config.search.time
        by_trials = study.elapsed / judged * (study.config.search.trials - judged) if judged else None
        by_time = max(limit - study.elapsed, 0.0) if limit else None
        known = [seconds for seconds in (by_trials, by_time) if seconds is not None]
        spent = f"{duration(study.elapsed)} of {duration(limit)}" if limit else duration(study.elapsed)
        return f"{spent}, at most {duration(min(known))} left" if known else f"{spent}, time left not known yet"

    def _screen(self) -> Group:
        study, best = self._study, self._study.best
        head = Text(study.folder.name, style="bold")
        if self._marks:
            head.append(f"  {', '.join(self._marks)} wafers", style="bold yellow")
        head.append(f"  {self._time_left()}")
        progress = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=study.config.search.trials, completed=study.count(*JUDGED), width=24)
        progress.add_row(bar, self._counts())
        trials = Table.grid(padding=(0, 2))
        trials.add_column(no_wrap=True)
        trials.add_column(no_wrap=True, overflow="ellipsis", style="dim")
        for record in study.running:
            trials.add_row(_progress_of(record), configuration(record.config, study.config.space))
        best_line = self._f1_line(best) if best else "none has run to its end yet"
        winner = Text(f"best: {f'trial {best.number}, ' if best else ''}{best_line}", style="green")
        return Group(head, progress, winner, trials)


def _progress_of(record: TrialRecord) -> str:
    text = f"trial {record.number} epoch {len(record.reports)}/{record.epochs}"
    scores = record.scores
    return text if scores is None else f"{text} macro-F1 {scores.macro_f1:.3f} worst {scores.worst_class_f1:.3f}"
