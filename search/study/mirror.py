"""A study's copy in a store: kept up to date while it runs, taken on by a driver on another machine.

The journal stays on the disk of the driver, where a line is safe in a millisecond and only one process writes. A thread
copies the folder to the store whenever something has changed. What a driver that vanished had not yet copied is lost,
some seconds of reports; the checkpoints, which the slots write to the store themselves, are younger than that.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType

from search.errors import ConfigError
from search.study.journal import read_configs
from search.study.places import PATIENCE_S, age_of, list_places, read_place, remove_place, write_place
from search.study.records import StudyFolder, write_atomically

_EVERY_S = 5.0
# A copy that takes long is made less often: the thread rests this many times as long as it has worked.
_REST = 10
# So long without a sign of life, and a driver counts as gone.
_GONE_S = 60.0
# Before the user hears of a store that does not answer; and for the last copy, when the search is over.
_PATIENCE_S, _LAST_PATIENCE_S = 10.0, 60.0
_DRIVER = "driver.json"
# What is written by the slots, or is of no use on another machine.
_NOT_COPIED = ("checkpoints/", "predictions/", "confirm/checkpoints/", "confirm/predictions/")


class Mirror:
    """Keeps the copy of one study; a context manager that is entered before the study is opened.

    Entering takes over what the copy has and the disk has not, and tells other drivers to stay away. Leaving brings the
    copy up to date.

    Args:
        folder: Of the study, with its remote address.
        on_trouble: Called in the thread, with one line, when the store does not answer and when it answers again.
        on_lost: Called once, in the thread, with the reason, when another driver has taken the study over.

    Raises:
        ConfigError: If the store cannot be used, another driver works on the study, or copy and disk have gone
            different ways.
    """

    def __init__(
        self, folder: StudyFolder, *, on_trouble: Callable[[str], object], on_lost: Callable[[str], object]
    ) -> None:
        self._folder = folder
        self._on_trouble = on_trouble
        self._on_lost = on_lost
        self._me = {"driver": f"process {os.getpid()} on {socket.gethostname()}", "id": uuid.uuid4().hex}
        self._copied: dict[str, tuple[int, int]] = {}
        self._forgotten: SimpleQueue[str] = SimpleQueue()
        self._is_over = threading.Event()
        self._is_lost = False
        self._beaten = 0.0
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def __enter__(self) -> "Mirror":
        check_store(self._folder.remote)
        self._refuse_second_driver()
        fetch(self._folder)
        self._beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        if self._is_lost:
            return
        try:
            if other := self._find_other():
                self._on_trouble(f"WARNING: {other} has taken this study over; nothing more of it is copied")
                return
            self.copy(patience_s=_LAST_PATIENCE_S)
        except ConfigError as problem:
            self._on_trouble(f"WARNING: the copy of the study is not up to date: {problem}; {self._folder.path} is")
        with suppress(ConfigError):  # a last copy that took long may have made another driver take this one for gone
            if not self._find_other():
                remove_place(self._driver)

    def forget(self, place: str) -> None:
        """Remove a file from the store, some time later: nobody's search waits for that."""
        self._forgotten.put(place)

    def copy(self, *, patience_s: float = PATIENCE_S) -> None:
        """Bring the copy up to date.

        The journals are read first and written last: the rows of trials.jsonl that a journal in the store does not know
        are dropped when a driver takes over, while rows that are missing could not be made up.

        Args:
            patience_s: Seconds for which a store that does not answer is tried again.

        Raises:
            ConfigError: If it does not answer by then.
        """
        changed = {name: stamp for name, stamp in self._stamps().items() if self._copied.get(name) != stamp}
        journals = [name for name in changed if name.endswith(".journal")]
        known = {name: (self._folder.path / name).read_bytes() for name in journals}
        for name in [*(name for name in changed if name not in known), *journals]:
            if time.monotonic() - self._beaten > _EVERY_S:
                if self._find_other():
                    return  # who notices that acts on it: the next round, or the end
                self._beat()
            content = known[name] if name in known else _read(self._folder, name)
            if content is not None:
                write_place(f"{self._folder.remote}/{name}", content, patience_s=patience_s)
                self._copied[name] = changed[name]
        while not self._forgotten.empty():
            remove_place(self._forgotten.get())

    @property
    def _driver(self) -> str:
        return f"{self._folder.remote}/{_DRIVER}"

    def _run(self) -> None:
        next_copy, trouble = 0.0, ""
        while not self._is_over.wait(_EVERY_S):
            try:
                if other := self._find_other():
                    self._is_lost = True
                    self._on_lost(f"{other} has taken this study over")
                    return
                self._beat()
                if (start := time.monotonic()) < next_copy:
                    continue
                self.copy(patience_s=_PATIENCE_S)
                next_copy = time.monotonic() + _REST * (time.monotonic() - start)
            except ConfigError as error:
                trouble = str(error)
                self._on_trouble(f"WARNING: the copy of the study falls behind: {trouble}")
            else:
                if trouble:
                    self._on_trouble("the copy of the study is up to date again")
                trouble = ""

    def _beat(self) -> None:
        """Give a sign of life."""
        write_place(self._driver, json.dumps(self._me).encode(), patience_s=_PATIENCE_S)
        self._beaten = time.monotonic()

    def _find_other(self) -> str:
        """Name the driver that has taken over; "" if none has. One that has finished left no sign of life, nor ours."""
        found = read_place(self._driver, patience_s=_PATIENCE_S)
        if not found:
            return "another driver, which has finished since,"
        driver = json.loads(found)
        return "" if driver["id"] == self._me["id"] else str(driver["driver"])

    def _refuse_second_driver(self) -> None:
        found, age = read_place(self._driver), age_of(self._driver)
        if found is None or age is None or age > _GONE_S:
            return
        driver = json.loads(found)["driver"]
        if driver.endswith(f" on {socket.gethostname()}") and not _is_alive(driver):
            return
        raise ConfigError(
            f"{self._folder.remote}: {driver} is working on this study (last sign of life {age:.0f} s ago); wait a "
            "minute if it is gone, or use --study NAME"
        )

    def _stamps(self) -> dict[str, tuple[int, int]]:
        """What tells that a file has changed, by its name in the folder."""
        stamps = {}
        for path in sorted(self._folder.path.rglob("*")):
            name = path.relative_to(self._folder.path).as_posix()
            hidden = any(part.startswith(".") for part in path.relative_to(self._folder.path).parts)
            if hidden or name.startswith(_NOT_COPIED) or name.endswith(".lock"):
                continue
            try:
                if path.is_file():
                    found = path.stat()
                    stamps[name] = (found.st_size, found.st_mtime_ns)
            except OSError:  # it has just gone
                continue
        return stamps


def check_store(address: str) -> None:
    """Write a file to a store, read it and remove it.

    Raises:
        ConfigError: If any of that fails.
    """
    probe, content = f"{address}/probe-{uuid.uuid4().hex}", os.urandom(64)
    write_place(probe, content, patience_s=5)
    found = read_place(probe, patience_s=5)
    remove_place(probe)
    if found != content:
        raise ConfigError(f"{address}: what was written there does not come back; is it a store?")


def fetch(folder: StudyFolder) -> bool:
    """Take over from a study's copy what the disk has not; return whether there was anything.

    Raises:
        ConfigError: If each of them has what the other has not.
    """
    names = [name for name in list_places(folder.remote) if not name.startswith(_NOT_COPIED) and name != _DRIVER]
    journals = [name for name in names if name.endswith(".journal")]
    if not journals:  # they are copied last: there is nothing yet
        return False
    copies = {name: _whole_lines(read_place(f"{folder.remote}/{name}") or b"") for name in journals}
    here = {name: _whole_lines(_read(folder, name) or b"") for name in journals}
    if all(here[name].startswith(copies[name]) for name in journals):
        return False  # the disk is ahead, or both are equal
    if not all(copies[name].startswith(here[name]) for name in journals):
        raise ConfigError(
            f"{folder.path} and its copy {folder.remote} have gone different ways; remove or rename one of them"
        )
    if strange := [name for name in names if not set(name.split("/")).isdisjoint({"", ".", ".."})]:
        raise ConfigError(f"{folder.remote}: holds {strange[0]!r}, a name that would leave the folder")
    for name in names:
        content = copies[name] if name in copies else read_place(f"{folder.remote}/{name}")
        if content is not None and name not in copies:
            if name.endswith(folder.trials.name):
                journal = name.replace(folder.trials.name, folder.journal.name)
                content = _drop_unknown(content, copies.get(journal, b""))  # which is copied after the rows
            write_atomically(folder.path / name, content)
    for name, content in copies.items():
        write_atomically(folder.path / name, content)
    return True


def _drop_unknown(rows: bytes, journal: bytes) -> bytes:
    """Drop the rows of trials that a journal, which was read before them, does not know yet."""
    n_trials = len(read_configs(json.loads(line) for line in journal.splitlines()))
    lines = _whole_lines(rows).splitlines(keepends=True)
    return b"".join(line for line in lines if json.loads(line)["trial"] < n_trials)


def _whole_lines(content: bytes) -> bytes:
    """Leave out a line that was being written: the driver cuts it when it opens the journal again."""
    return content[: content.rfind(b"\n") + 1]


def _read(folder: StudyFolder, name: str) -> bytes | None:
    try:
        return (folder.path / name).read_bytes()
    except OSError:
        return None


def _is_alive(driver: str) -> bool:
    """Whether a driver that was on this machine is still there."""
    try:
        os.kill(int(driver.split()[1]), 0)
    except (ProcessLookupError, ValueError, IndexError):
        return False
    except PermissionError:
        return True
    return True
