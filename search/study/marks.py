"""What every table, page and file must say of the data behind it: SYNTHETIC, LEAKY."""

from collections.abc import Mapping
from typing import Any


def marks_of(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the words for titles.

    Args:
        data: As `search.study.provenance.describe_data` returns it, of now or of an earlier version.

    Example:
        >>> marks_of({"synthetic": True, "leaky": "LEAKY (random): wafers of one lot stand in training and test"})
        ('SYNTHETIC', 'LEAKY')
    """
    return (*(("SYNTHETIC",) if data["synthetic"] else ()), *(("LEAKY",) if data.get("leaky") else ()))


def name_wafers(data: Mapping[str, Any]) -> str:
    """Name the wafers with their marks, as in "SYNTHETIC, LEAKY wafers"."""
    return f"{', '.join(marks_of(data))} wafers".lstrip()


def warnings_of(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the whole sentences, for pages."""
    synthetic = "SYNTHETIC wafers: no number here says anything about real ones."
    leaky = f"{data.get('leaky')}: no number here says how well new wafers are recognised."
    return (*((synthetic,) if data["synthetic"] else ()), *((leaky,) if data.get("leaky") else ()))
