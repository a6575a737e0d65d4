"""What is going on in a study, read from its folder alone: by anybody, also on another host, while it runs or later."""

import json
import math
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from search.errors import DONE, ConfigError
from search.space.config import DataConfig, SearchConfig
from search.space.config_file import read_section
from search.space.grammar import parse_space
from search.space.problems import Problems
from search.space.space import Config, epochs_of
from search.space.strict_yaml import read_yaml
from search.study.journal import read_configs
from search.study.marks import marks_of
from search.study.records import StudyFolder, read_json, read_lock
from search.study.rows import COMPLETE, RUNNING
from search.views.screen import Screen
from search.views.snapshot import About, Snapshot, Tally, TrialNow, to_json
from search.views.terminal import FullScreen, heartbeat, page, say, shows_screens
from search.views.words import duration

State = Literal["running", "finished", "time is up", "interrupted", "seems to run", "seems interrupted"]
# Where the lock cannot be trusted, a study whose last report is older than this, and than three epochs, seems dead.
_SILENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A study and what becomes of it.

    Attributes:
        snapshot: How it stands. Trials that were interrupted count as running, unless a driver runs.
        state: Whether a driver works on it now.
        explanation: How that is known, and what can be done.
        age: Seconds since it last reported something; NaN if it never did.
        unreported: Trials under way that have not reported yet.
    """

    snapshot: Snapshot
    state: State
    explanation: str
    age: float
    unreported: int

    def screen(self, *, is_whole: bool) -> Screen:
        """Lay it out as the screen of the search; whole, or to fit a terminal."""
        return Screen(
            self.snapshot, state=self.state, footnote=self.explanation, is_whole=is_whole, prefers_places=True
        )


class StudyReader:
    """Reads a study again and again, each time only what is new; locks nothing and writes nothing.

    Args:
        folder: Of the study.

    Raises:
        ConfigError: If its first files are damaged.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._begin()

    def _begin(self) -> None:
        self._provenance = read_json(self._folder.provenance)
        self._about = _read_about(self._folder, self._provenance)
        self._tally = Tally(self._about)
        self._rows, self._journal = _Tail(self._folder.trials), _Tail(self._folder.journal)
        self._running: dict[int, TrialNow] = {}
        self._configs: list[Config] = []
        self._ended: set[int] = set()
        self._elapsed = 0.0
        self._longest = 0.0  # seconds of an epoch

    def read(self) -> Status:
        """Read what is new.

        Raises:
            ConfigError: If a file is damaged, other than by a torn last line.
        """
        if self._rows.was_replaced() or self._journal.was_replaced() or self._has_new_attempt():
            self._begin()  # somebody has opened the study again
        for row in self._rows.read():
            self._note(row)
        self._configs += read_configs(self._journal.read())
        waiting = [
            TrialNow(number=number, config=config, epochs=epochs_of(config))
            for number, config in enumerate(self._configs)
            if number not in self._running and number not in self._ended
        ]
        return self._judge(waiting)

    def _has_new_attempt(self) -> bool:
        return bool(read_json(self._folder.provenance)["attempts"] != self._provenance["attempts"])

    def _note(self, row: Mapping[str, Any]) -> None:
        number, before = row["trial"], self._running.get(row["trial"])
        trial = _read_trial(row, before, self._about.classes)
        self._elapsed = max(self._elapsed, row["elapsed"])
        if "objective" in row:
            seconds = row["train_seconds"] + row["val_seconds"]
            self._longest = max(self._longest, seconds)
            self._tally.note_epoch(number, trial.epoch, elapsed=row["elapsed"], seconds=seconds)
        if trial.status == RUNNING:
            self._running[number] = trial
        else:
            self._running.pop(number, None)
            self._ended.add(number)
            self._tally.note_end(trial, elapsed=row["elapsed"])

    def _judge(self, waiting: list[TrialNow]) -> Status:
        age = self._age()
        under_way = [*self._running.values(), *waiting]
        is_held, holder = read_lock(self._folder.path)
        host = holder.rpartition(" on ")[2]
        is_elsewhere = bool(host) and host != socket.gethostname()
        counted = self._tally.take([], elapsed=self._elapsed)
        is_judged = counted.n_judged >= self._about.search.trials
        limit = self._about.search.time
        is_lively = age < max(_SILENCE_S, 3 * self._longest)
        last = f"last report {duration(age)} ago" if not math.isnan(age) else "nothing reported yet"
        again = "the same command goes on from here"
        state: State
        if is_judged:
            held = f"{holder} holds it now" if is_held else "a larger --trials extends it"
            state, why = "finished", f"all trials are judged; {last}; {held}"
        elif is_held:
            state, why = "running", f"{holder} holds it now; {last}"
        elif not under_way and self._provenance["attempts"][-1].get("exhausted"):
            state, why = "finished", f"every configuration that the space allows has been tried; {last}"
        elif limit is not None and self._elapsed >= limit:
            n_complete = counted.counts.get(COMPLETE, 0)
            on = "a larger --time goes on" if n_complete or not under_way else f"no trial has ended; {again} to one"
            state, why = "time is up", f"its time of {duration(limit)} is used up; {last}; {on}"
        elif not is_elsewhere:
            state, why = "interrupted", f"no process works on it; {last}; {again}"
        elif is_lively:
            state = "seems to run"
            why = f"{holder} held it last, whose lock may not be seen from here; {last}, so it probably still does"
        else:
            state = "seems interrupted"
            why = f"{holder} held it last, whose lock may not be seen from here; but {last}; if it has ended, {again}"
        runs = state in ("running", "seems to run")
        elapsed = self._elapsed + (0.0 if math.isnan(age) else age) if runs else self._elapsed
        snapshot = self._tally.take(under_way if runs else [], elapsed=elapsed, n_paused=0 if runs else len(under_way))
        return Status(snapshot=snapshot, state=state, explanation=why, age=age, unreported=len(waiting))

    def _age(self) -> float:
        """Seconds since the last report, or since the last attempt began, as the clock of this machine has it."""
        times = [path.stat().st_mtime for path in (self._folder.trials,) if path.exists()]
        started = self._provenance["attempts"][-1]["started"]
        times.append(datetime.fromisoformat(started).timestamp())
        return max(time.time() - max(times), 0.0)


def status_to_json(status: Status) -> str:
    """Write all that is known as one JSON object."""
    known: dict[str, Any] = {"state": status.state, "explanation": status.explanation}
    known["seconds_since_last_report"] = None if math.isnan(status.age) else round(status.age, 1)
    return json.dumps(known | {"not_reported_yet": status.unreported} | to_json(status.snapshot), ensure_ascii=False)


def show_status(status: Status, console: Console, *, as_json: bool) -> None:
    """Print all that is known, as a page or for programs."""
    if as_json:
        console.file.write(f"{status_to_json(status)}\n")
        console.file.flush()
    else:
        page(console).print(status.screen(is_whole=True))


def watch_study(reader: StudyReader, console: Console, *, as_json: bool, every_s: float = 2.0) -> int:
    """Look again and again until Ctrl-C: on a screen; where none can be drawn, by a line whenever it is another.

    Returns:
        DONE.

    Raises:
        ConfigError: If the study's files are damaged meanwhile.
    """
    latest = reader.read()
    has_screen = shows_screens(console) and not as_json
    screen = FullScreen(console, lambda: latest.screen(is_whole=False), on_print=lambda line: None)
    said = ""
    with suppress(KeyboardInterrupt), screen if has_screen else nullcontext():
        while True:
            if as_json:
                show_status(latest, console, as_json=True)
            elif not has_screen:
                line = f"{duration(latest.snapshot.elapsed):>8}  {latest.state}: {heartbeat(latest.snapshot)}"
                if line != said:
                    say(console, line)
                said = line
            time.sleep(every_s)
            latest = reader.read()
    if has_screen:
        show_status(latest, console, as_json=False)
    return DONE


class _Tail:
    """Reads the whole lines that were added to a file of JSON lines since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._identity: tuple[int, int] | None = None

    def was_replaced(self) -> bool:
        """Whether the file is another one than before, or shorter."""
        if self._identity is None:
            return False
        try:
            found = self._path.stat()
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self._identity or found.st_size < self._offset

    def read(self) -> Iterator[dict[str, Any]]:
        """Read on; a torn last line is left for the next time.

        Raises:
            ConfigError: If any other line is damaged, or the file cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                found = self._path.stat()
                self._identity = (found.st_dev, found.st_ino)
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot be read ({error.strerror or error})") from None
        for line in content.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{self._path}: is damaged at byte {self._offset:,} ({error})") from None
            self._offset += len(line)
            yield row


def _read_about(folder: StudyFolder, provenance: Mapping[str, Any]) -> About:
    """Read what does not change; what this version does not understand of a space is left out, not refused."""
    tree, lines = read_yaml(folder.resolved)
    problems = Problems(folder.resolved, lines)
    data = read_section(DataConfig, tree, "data", problems)
    return About(
        name=folder.name,
        classes=tuple(provenance["data"]["classes"]),
        space=parse_space(tree.get("space"), problems, image_size=data.image_size),
        metric=tree["objective"].get("maximize", "weighted_f1"),
        marks=marks_of(provenance["data"]),
        search=read_section(SearchConfig, tree, "search", problems),
    )


def _read_trial(row: Mapping[str, Any], before: TrialNow | None, classes: tuple[str, ...]) -> TrialNow:
    """Read what one row of trials.jsonl says; a row about an end without a report keeps the numbers of the last."""
    slot = re.match(r"slot (\d+)", row.get("place", ""))
    known: dict[str, Any] = {"number": row["trial"], "config": row["config"], "epochs": row["epochs"]}
    known |= {"status": row["status"], "reason": row["reason"], "epoch": row["epoch"], "place": row.get("place", "")}
    known["slot"] = int(slot[1]) if slot else 0
    if "objective" not in row:
        numbers = ("value", "shortfall", "macro_f1", "f1", "samples", "speed")
        return TrialNow(**known, **{name: getattr(before, name) for name in numbers if before})
    f1 = (row["val_f1"].get(name) for name in classes)
    return TrialNow(
        **known,
        value=row["objective"],
        shortfall=row.get("shortfall", 0.0),
        macro_f1=row["val_macro_f1"],
        f1=tuple(math.nan if value is None else value for value in f1),
        samples=row["samples"],
        speed=(row["samples"] - (before.samples if before else 0)) / max(row["train_seconds"], 1e-9),
    )
