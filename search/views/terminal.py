"""The search as it runs: one calm screen on a terminal, one line per event elsewhere."""

import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from search.study.rows import COMPLETE, FAILED, RUNNING, STOPPED
from search.study.study import Study
from search.views.machine import Machine
from search.views.screen import Screen
from search.views.snapshot import About, Snapshot, Tally, TrialNow, look_at
from search.views.words import counts_words, duration, message_words, report_words, time_words

Detail = Literal["quiet", "normal", "verbose"]
_HEARTBEAT_S = 30.0
# Of the running trials, so many are named in a heartbeat.
_NAMED = 4
# What strangers have printed and is shown again when the screen is gone.
_KEPT_LINES = 100
_PAGE_WIDTH = 140
_open_screens = 0


def say(console: Console, text: str) -> None:
    """Print a message: wrapped between words on a terminal, never elsewhere, where programs read lines."""
    console.print(text, highlight=False, markup=False, soft_wrap=not console.is_terminal or console.is_dumb_terminal)


def open_console() -> Console:
    """Return the console of a command; what its terminal cannot write becomes a question mark, and no error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console()


def page(console: Console) -> Console:
    """Return where tables go: as wide as the terminal; wider than the usual 80 cells where there is none."""
    return console if console.is_terminal else Console(file=console.file, width=max(console.width, _PAGE_WIDTH))


class WarningsOnly(Console):
    """A console that prints warnings and nothing else: what `--quiet` leaves of what is said before a search."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print those lines that begin with WARNING."""
        lines = [line for each in objects for line in str(each).splitlines()]
        warnings = [line for line in lines if line.startswith("WARNING")]
        if warnings:
            super().print("\n".join(warnings), **options)


def shows_screens(console: Console) -> bool:
    """Whether a console can be drawn on: a terminal that understands control codes, even if FORCE_COLOR is set."""
    return console.is_terminal and not console.is_dumb_terminal and console.file.isatty()


def leave_screen() -> None:
    """Give the terminal back as it was, in a process that ends at once."""
    if _open_screens:
        os.write(1, b"\x1b[?1049l")
    if sys.__stdout__ and sys.__stdout__.isatty():
        os.write(1, b"\x1b[?25h")


class FullScreen:
    """Draws on the whole terminal once a second, until it is left; a context manager.

    What other code prints meanwhile does not tear it: it is handed on line by line, and printed afterwards. Only what
    is written past Python disturbs it, until the next second.

    Args:
        console: A terminal.
        draw: Returns what to show; called in a thread.
        on_print: Hears every line that somebody prints.
    """

    def __init__(
        self, console: Console, draw: Callable[[], RenderableType], *, on_print: Callable[[str], None]
    ) -> None:
        self._console = console
        self._draw = draw
        self._last: RenderableType = Text()
        self._printed: list[str] = []
        self._on_print = on_print
        self._live = Live(
            get_renderable=self._draw_safely,
            console=console,
            screen=True,
            refresh_per_second=1,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._before: tuple[TextIO, TextIO] | None = None

    def __enter__(self) -> Self:
        global _open_screens  # noqa: PLW0603 - a signal handler must know what to restore
        self._before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (_Lines(stream, self._take) for stream in self._before)
        _open_screens += 1
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _open_screens  # noqa: PLW0603
        self._live.stop()
        _open_screens -= 1
        if self._before:
            sys.stdout, sys.stderr = self._before
        for line in self._printed:
            sys.stderr.write(f"{line}\n")

    def refresh(self) -> None:
        """Draw now."""
        self._live.refresh()

    def _take(self, line: str) -> None:
        self._printed = [*self._printed[-_KEPT_LINES:], line]
        self._on_print(line)

    def _draw_safely(self) -> RenderableType:
        with contextlib.suppress(Exception):  # the trials change while they are read; a second later all is well
            self._last = self._draw()
        return self._last


class _Lines(io.TextIOBase):
    """Stands in for standard output: hands whole lines on. Rich goes on writing to the real one."""

    def __init__(self, stream: TextIO, on_line: Callable[[str], None]) -> None:
        self.rich_proxied_file = stream
        self._on_line = on_line
        self._rest = ""

    def write(self, text: str) -> int:
        *whole, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, whole):
            self._on_line(line)
        return len(text)

    def fileno(self) -> int:
        return self.rich_proxied_file.fileno()

    def isatty(self) -> bool:
        return self.rich_proxied_file.isatty()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.rich_proxied_file.encoding


class SearchView:
    """Shows a study while it runs; a context manager.

    Args:
        study: What to show; only read.
        console: Where to.
        marks: What to say loudly of the data, see `search.study.marks`.
        detail: "quiet": only what goes wrong; "verbose": every report, on a line of its own. Neither draws a screen.
        heartbeat_s: Where no screen is drawn, something is said after so many seconds of silence.
    """

    def __init__(
        self,
        study: Study,
        console: Console,
        *,
        marks: Sequence[str] = (),
        detail: Detail = "normal",
        heartbeat_s: float = _HEARTBEAT_S,
    ) -> None:
        self._study = study
        self._console = console
        self._detail = detail
        self._heartbeat_s = heartbeat_s
        self._tally = tally_of(study, marks)
        self._about = self._tally.about
        self._lock = threading.Lock()  # the screen is drawn in a thread
        self._machine = Machine()
        self._has_screen = detail == "normal" and shows_screens(console)
        self._screen = FullScreen(console, self.draw, on_print=self.tell)
        self._spoke = threading.Event()
        self._is_over = threading.Event()
        self._pulse = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        if self._has_screen:
            self._machine.start()
            self._screen.__enter__()
        elif self._detail != "quiet":
            self._pulse.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._spoke.set()
        self._machine.stop()
        if self._has_screen:
            self._screen.__exit__(kind, error, trace)
            say(self._console, "stopping Ray ...")

    def on_event(self, number: int) -> None:
        """Take note that a trial reported or ended."""
        record, elapsed = self._study.records[number], self._study.elapsed
        trial = look_at(record)
        with self._lock:
            if trial.epoch:
                last = record.reports[-1]
                seconds = last.train_seconds + last.val_seconds
                slots = len(self._study.running) + (trial.status != RUNNING)
                self._tally.note_epoch(number, trial.epoch, elapsed=elapsed, seconds=seconds, slots=slots)
            told = self._tally.note_end(trial, elapsed=elapsed)
        if self._has_screen:
            return
        if self._detail == "verbose" and trial.status in (RUNNING, COMPLETE, STOPPED):
            self._say(report_words(self._about, trial, is_whole=True))
        for message in told:
            is_problem = message.trial is not None and message.trial.status == FAILED
            if self._detail != "quiet" or is_problem:
                self._say(message_words(self._about, message, is_whole=True))

    def tell(self, text: str) -> None:
        """Show what somebody else has to say: on the screen, or as a line."""
        with self._lock:
            self._tally.note(text, elapsed=self._study.elapsed)
        if not self._has_screen:
            self._say(text)

    def draw(self) -> RenderableType:
        """Lay out the screen."""
        return Screen(self.snapshot(), footnote=self._machine.words)

    def snapshot(self) -> Snapshot:
        """Say how the study stands."""
        study = self._study
        running = [look_at(record) for record in study.running]
        with self._lock:
            return self._tally.take(
                running, elapsed=study.elapsed, n_paused=len(study.paused), seconds_at_most=self._gpu_seconds_left()
            )

    def _gpu_seconds_left(self) -> float:
        limit, gpus = self._study.config.search.gpu_hours, self._study.gpus_in_use
        return 3600 * (limit - self._study.gpu_hours) / gpus if limit is not None and gpus else float("inf")

    def _say(self, line: str) -> None:
        self._spoke.set()
        say(self._console, f"{duration(self._study.elapsed):>8}  {line}")

    def _beat(self) -> None:
        """Speak up when nothing was said for a while, so that nobody takes the search for dead."""
        while not self._is_over.is_set():
            if self._spoke.wait(self._heartbeat_s):
                self._spoke.clear()
                continue
            with contextlib.suppress(Exception):  # the trials change while they are read
                self._say(heartbeat(self.snapshot()))
                self._spoke.clear()


def tally_of(study: Study, marks: Sequence[str]) -> Tally:
    """Add up what a study knows already."""
    about = About(
        name=study.folder.name,
        classes=study.classes,
        space=study.config.space,
        metric=study.config.objective.metric,
        marks=tuple(marks),
        search=study.config.search,
    )
    tally = Tally(about)
    for record in study.records.values():
        tally.note_end(look_at(record), elapsed=study.elapsed)
    tally.forget_messages()
    return tally


def heartbeat(now: Snapshot) -> str:
    """Say in one line how a search stands."""
    known: list[TrialNow] = sorted(now.running, key=lambda trial: trial.rank, reverse=True)
    named = [report_words(now.about, trial) for trial in known[:_NAMED]]
    more = [f"{len(known) - _NAMED} more"] if len(known) > _NAMED else []
    running = f"; running: {'; '.join([*named, *more])}" if known else ""
    judged = f"{now.n_judged:,} of {now.about.search.trials:,} trials judged"
    return f"{judged} ({', '.join(counts_words(now))}); {time_words(now)}{running}"
