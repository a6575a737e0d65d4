"""Collects everything that is wrong with one file, so that the user learns all of it at once."""

from collections.abc import Collection
from pathlib import Path

from search.errors import ConfigError
from search.space.strict_yaml import KeyPath, Lines


class Problems:
    """The problems of one YAML file, each with its line and key.

    Args:
        file: What is read, for messages.
        lines: Line of each key path, from `read_yaml`.
        given: Dotted keys whose values come from the command line instead.
    """

    def __init__(self, file: Path, lines: Lines, *, given: Collection[str] = ()) -> None:
        self._file = file
        self._lines = lines
        self._given = given
        self._found: dict[str, int] = {}

    def add(self, path: KeyPath, what: str) -> None:
        """Note that what stands at `path` is wrong; the same words twice count once."""
        known = path
        while known and known not in self._lines:
            known = known[:-1]
        line = self._lines.get(known, 1)
        key = ".".join(str(part) for part in path)
        if key in self._given:
            what = f"{what} (from the command line)"
        self._found.setdefault(f"{key}: {what}" if key else what, line)

    def raise_if_any(self) -> None:
        """Raise ConfigError with all problems, in the order of their lines."""
        if not self._found:
            return
        found = sorted(self._found.items(), key=lambda item: item[1])
        if len(found) == 1:
            what, line = found[0]
            raise ConfigError(f"{self._file}:{line} {what}")
        listed = "\n".join(f"  :{line} {what}" for what, line in found)
        raise ConfigError(f"{self._file}: {len(found)} problems\n{listed}")
