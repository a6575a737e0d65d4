"""What this package raises when a user can mend it, and how its commands end."""

import sys
from collections.abc import Callable


class DataError(Exception):
    """A file or a data set that cannot be used as it is; the message says what to do about it."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind if it says nothing; at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def exit_code(command: Callable[[], None]) -> int:
    """Run a command that writes files whole or not at all, and turn what it raises into its exit code.

    Returns:
        0 done, 2 the user can mend it, 130 interrupted.
    """
    try:
        command()
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0
