"""What can go wrong in a study, and what each kind means for it."""

import os
import signal
import sys
from collections.abc import Callable


class ConfigError(Exception):
    """Something the user can mend before any trial runs; the message says where and how."""


class TrialFailed(Exception):
    """This configuration does not work; the study records why and learns from it.

    Args:
        status: "diverged" or "out_of_memory".
        reason: What happened, for people.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class StudyAborted(Exception):
    """Trials fail one after the other for a reason that more trials would not mend."""


DONE, BUG, USER_ERROR, INTERRUPTED = 0, 1, 2, 130


def exit_code(command: Callable[[], int]) -> int:
    """Run a command and turn what it raises into its exit code: 2 and one message where the user can mend it.

    A bug keeps its traceback: Python prints it and exits with 1.
    """
    try:
        return command()
    except StudyAborted as error:
        print(f"aborted: {error}", file=sys.stderr)
        return BUG
    except Exception as error:
        # Not at the top: these packages bring torch, which takes seconds, and a command may end before it needs that.
        from data_pipeline.errors import DataError
        from models.errors import ModelError

        if not isinstance(error, ConfigError | DataError | ModelError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))  # a second one must not break the ending
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
