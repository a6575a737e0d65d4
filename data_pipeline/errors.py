"""What this package raises when a user can mend it."""


class DataError(Exception):
    """A file or a data set that cannot be used as it is; the message says what to do about it."""
