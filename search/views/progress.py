"""A bar for what takes longer than a moment: on a terminal only, elsewhere programs read lines."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn


@contextmanager
def show_progress(console: Console, what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar while the block runs; it takes how many were just done, and of how many, None if that is unknown."""
    text = TextColumn("{task.description}")
    columns = (SpinnerColumn(), text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda n, total: progress.update(task, advance=n, total=total)
