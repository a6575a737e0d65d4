"""Ctrl-C and SIGTERM: the first ends a search where nothing is half written, the second ends the process."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from search.errors import BUG, INTERRUPTED
from search.views.terminal import leave_screen


class Interrupts:
    """Turns the first SIGINT or SIGTERM into a KeyboardInterrupt, but not within `shield`; a context manager.

    Everything that a study knows is on the disk after each of its steps, so nothing has to be saved: a second signal
    ends the process without further ado. Schedulers of clusters send SIGTERM.
    """

    def __init__(self) -> None:
        self._is_shielded = False
        self._came = False
        self._is_quiet = False
        self._before: dict[signal.Signals, object] = {}
        self._deadline: threading.Timer | None = None

    def __enter__(self) -> "Interrupts":
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._deadline:
            self._deadline.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal has returned

    def listen(self) -> None:
        """Take the signals over, again after Ray has started: it puts a handler of its own on SIGTERM."""
        for number in self._before:
            signal.signal(number, self._on_signal)

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Let a signal that comes meanwhile take effect at the end only."""
        self._is_shielded = True
        try:
            yield
        finally:
            self._is_shielded = False
        if self._came:
            raise KeyboardInterrupt

    def end_from_thread(self, reason: str, *, within_s: float) -> None:
        """Interrupt the main thread from another one, as a signal would; end the process if that does not help.

        Args:
            reason: Printed in the second case.
            within_s: Time to leave the `with` block of this object.
        """
        if self._came:
            return
        self._deadline = threading.Timer(within_s, _end_process, args=(BUG, f"aborted: {reason}\n"))
        self._deadline.daemon = True
        self._deadline.start()
        self._is_quiet = True
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGTERM)  # reaches it within a call of Ray's, too

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._came:
            _end_process(INTERRUPTED)
        self._came = True
        if not self._is_quiet:
            os.write(2, b"\ninterrupted; leaving (once more: at once)\n")  # print may be what was interrupted
        if not self._is_shielded:
            raise KeyboardInterrupt


def _end_process(code: int, words: str = "") -> None:
    leave_screen()
    os.write(2, words.encode())
    os._exit(code)
