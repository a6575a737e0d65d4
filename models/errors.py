"""What this package raises when a user can mend it."""


class ModelError(Exception):
    """An architecture that cannot be built as asked; the message says why."""
