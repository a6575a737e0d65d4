"""Keeping a study's copy in a store while a command works on the study."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from search.study.mirror import Mirror
from search.study.places import remove_place
from search.study.records import StudyFolder

# Removes a file of the study that slots have written.
Forget = Callable[[str], None]


@contextmanager
def keep_copy(folder: StudyFolder) -> Iterator[Forget]:
    """Take over what the study's copy has, and keep that up to date; does nothing for a study without one.

    Yields:
        What removes the study's checkpoints.

    Raises:
        ConfigError: See `Mirror`.
    """
    if not folder.remote:
        yield remove_place
        return
    with Mirror(folder, on_trouble=_say, on_lost=_leave) as mirror:
        yield mirror.forget


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")  # a screen that is drawn meanwhile shows it as a message


def _leave(reason: str) -> None:
    """End the search as Ctrl-C would: what it finds from now on belongs to the other driver."""
    _say(f"WARNING: {reason}; leaving it to that")
    os.kill(os.getpid(), signal.SIGTERM)
