"""Finding and ending the processes of one run, and nobody else's."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol


class Process(Protocol):
    """What a run needs of a driver, however it was started."""

    pid: int

    def poll(self) -> int | None:
        """Return its exit code, -N after signal N, or None while it runs."""


class Forked:
    """A process that a warm Python is asked for.

    Args:
        address: Socket of that Python.
        argv: A module that it has imported, and arguments.
        cwd: Folder to run in.
        env: Environment.
        log: File that its output is added to.
    """

    def __init__(self, address: Path, argv: list[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(address))
        request = {"argv": argv, "cwd": str(cwd), "env": dict(env), "log": str(log)}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        self._heard = b""
        self._code: int | None = None
        self._socket.settimeout(30)
        while b"\n" not in self._heard:
            self._heard += self._hear()
        line, self._heard = self._heard.split(b"\n", 1)
        self.pid: int = json.loads(line)["pid"]
        self._socket.settimeout(0.0)

    def _hear(self) -> bytes:
        heard = self._socket.recv(4096)
        if not heard:
            raise RuntimeError("the warm Python has gone")
        return heard

    def poll(self) -> int | None:
        """See Process."""
        if self._code is None:
            with contextlib.suppress(BlockingIOError):
                self._heard += self._hear()
            if b"\n" in self._heard:
                self._code = json.loads(self._heard)["code"]
                self._socket.close()
        return self._code


def start_cold(argv: list[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """Start a process that imports everything itself."""
    with log.open("a") as file:
        return subprocess.Popen(
            argv, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )


def wait_for(condition: Callable[[], bool], *, patience_s: float, every_s: float = 0.03) -> bool:
    """Wait until something holds; return whether it does by then."""
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(every_s)
    return True


def marked(mark: str) -> list[int]:
    """The living processes whose environment, as they were started with it, holds this."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{mark}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def children(parent: int) -> list[int]:
    """The living children of a process, zombies left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            state, number = (folder / "stat").read_text().rpartition(") ")[2].split()[:2]
            if int(number) == parent and state != "Z":
                found.append(int(folder.name))
    return found


def name_of(number: int) -> str:
    """The title or program of a process; "" if it has gone."""
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""


def send(number: int, what: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal; return whether there was somebody to get it."""
    try:
        os.kill(number, what)
    except ProcessLookupError:
        return False
    return True
