"""Those who watch a search: the screen, the gauges, TensorBoard. All hear the same, and none can hurt it."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self


class Observer(Protocol):
    """Watches a study while it runs; a context manager that is entered before the first trial."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing open."""

    def on_event(self, number: int) -> None:
        """Take note that a trial has reported or ended; the study knows of it already."""


class Observers:
    """Tells all of them; a context manager. One that breaks is named once and hears nothing more.

    Args:
        observers: In the order of telling.
        on_broken: Called with what broke, in one line.
    """

    def __init__(self, observers: Iterable[Observer], *, on_broken: Callable[[str], object]) -> None:
        self._observers = list(observers)
        self._on_broken = on_broken

    def __enter__(self) -> Self:
        self._call(lambda observer: observer.__enter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(lambda observer: observer.__exit__(kind, error, trace))

    def on_event(self, number: int) -> None:
        """Tell all that a trial has reported or ended."""
        self._call(lambda observer: observer.on_event(number))

    def _call(self, tell: Callable[[Observer], object]) -> None:
        for observer in list(self._observers):
            try:
                tell(observer)
            except Exception as error:  # noqa: BLE001 - a search that nobody can watch is still a search
                self._observers.remove(observer)
                with suppress(Exception):
                    observer.__exit__(None, None, None)
                self._on_broken(f"WARNING: {type(observer).__name__} is out of order ({type(error).__name__}: {error})")
