"""Where a study lives on disk, and how its files are written."""

import contextlib
import fcntl
import json
import os
import shlex
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from search.errors import ConfigError

RESULTS = Path("results")
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The files of one study; results/README.md says what each may be quoted for.

    Attributes:
        path: On the disk of the machine that searches.
        remote: Address of its copy in a store; "" if it has none.
    """

    path: Path
    remote: str = ""

    @property
    def name(self) -> str:
        """Of the study."""
        return self.path.name

    @property
    def in_commands(self) -> str:
        """What to type for it, quoted: its name where it lies in `results/` here, else its path."""
        is_by_name = self.path.parent == RESULTS.resolve()
        return shlex.quote(self.name if is_by_name else str(self.path))

    @property
    def space(self) -> Path:
        """The space as the user gave it."""
        return self.path / "space.yaml"

    @property
    def resolved(self) -> Path:
        """The space with all defaults."""
        return self.path / "resolved.yaml"

    @property
    def provenance(self) -> Path:
        """Versions, device, fingerprints, command of each attempt."""
        return self.path / "provenance.json"

    @property
    def journal(self) -> Path:
        """The Optuna study: the truth."""
        return self.path / "study.journal"

    @property
    def trials(self) -> Path:
        """One JSON line per epoch of every trial."""
        return self.path / "trials.jsonl"

    @property
    def best(self) -> Path:
        """The configuration to retrain."""
        return self.path / "best.yaml"

    @property
    def warm_start(self) -> Path:
        """What earlier studies have handed over."""
        return self.path / "warm_start.json"

    @property
    def packing(self) -> Path:
        """How trials share a GPU here, as tried out."""
        return self.path / "packing.json"

    @property
    def final(self) -> Path:
        """Folder of the retrained model and its numbers."""
        return self.path / "final"

    @property
    def winner(self) -> Path:
        """What the best trial's network makes of the validation wafers."""
        return self.path / "winner.npz"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def figures(self) -> Path:
        """Folder of the page's pictures, for slides."""
        return self.path / "figures"

    def checkpoint(self, trial: int) -> Path:
        """Where a running trial keeps its last state."""
        return self.path / "checkpoints" / f"trial-{trial:04d}.pt"

    def failure(self, trial: int) -> Path:
        """Traceback of a trial that broke."""
        return self.path / "failures" / f"trial-{trial:04d}.txt"

    def place(self, path: Path) -> str:
        """Where slots, on whatever machine, find and leave a file of this folder: in its copy if it has one."""
        return f"{self.remote}/{path.relative_to(self.path).as_posix()}" if self.remote else str(path)


def confirm_folder(folder: StudyFolder) -> StudyFolder:
    """Return where a study's confirmation lies: a study of its own."""
    path = folder.path / "confirm"
    return StudyFolder(path, folder.place(path) if folder.remote else "")


def remove_if_unstarted(folder: StudyFolder) -> None:
    """Remove what was made for a study that could not start; one that ever started is left alone."""
    if folder.provenance.exists() or folder.trials.exists():
        return
    with contextlib.suppress(OSError):  # the folder may have been there before, with files that are not ours
        for path in (folder.journal, folder.warm_start, folder.packing, folder.path / _LOCK):
            path.unlink(missing_ok=True)
        folder.path.rmdir()


def fingerprint_file(path: Path) -> str:
    """Return twelve hex digits that change with any byte of a file."""
    return sha256(path.read_bytes()).hexdigest()[:12]


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the whole new one.

    Raises:
        ConfigError: If the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name with nothing in it
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):  # below a file there is nothing to remove
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        ConfigError: If it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None


def to_line(row: dict[str, Any]) -> str:
    """Write plain values as one JSON line."""
    return json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n"


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON line; it is on the disk when this returns.

    Raises:
        ConfigError: If the disk does not take it.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(to_line(row))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error})") from None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines; a torn last one, as a crash leaves it, is left out.

    Raises:
        ConfigError: If any other line is damaged.
    """
    if path.exists():
        *whole, _ = path.read_bytes().split(b"\n")  # str.splitlines would also split within strings
        for number, line in enumerate(whole, start=1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{path}:{number}: is damaged ({error}); mend or remove the line") from None


def cut_torn_line(path: Path) -> None:
    """Cut what stands behind the last newline: the beginning of a line that a crash did not let finish."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)


def lock_folder(path: Path) -> IO[str]:
    """Make sure that nobody else writes into a study, for as long as the returned file is open.

    The lock is the kernel's: it goes with the process, however that ends.

    Raises:
        ConfigError: If another process holds it, or the folder cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / _LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error})") from None
    if not _flock(file, fcntl.LOCK_EX):
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise ConfigError(f"{path}: {holder} is working on this study; wait, or use --study NAME") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def read_lock(path: Path) -> tuple[bool, str]:
    """Look at the lock of a study without taking it, and without writing anything.

    Returns:
        Whether a process holds it, as far as this machine can tell; and who held it last, as in "process 7 on host", ""
        if nobody ever did.
    """
    try:
        with (path / _LOCK).open(encoding="utf-8") as file:
            is_held = not _flock(file, fcntl.LOCK_SH)
            return is_held, file.read().strip()
    except OSError:
        return False, ""


def _flock(file: IO[str], kind: int) -> bool:
    """Try to lock a file; somebody who only looks lets go at once, so a short patience tells him from a holder."""
    for attempt in range(3):
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01 * (attempt + 1))
        else:
            return True
    return False
