"""Spellings of class names: "edge ring", "EdgeRing" and "Edge_ring" are all Edge-Ring."""

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from data_pipeline.errors import DataError
from data_pipeline.wafer_set import WM811K_CLASSES


def spell_labels(
    labels: Sequence[str | None], *, rename: Mapping[str, str | None], keep_unknown: bool, source: str
) -> list[str | None]:
    """Write every label in WM-811K's spelling.

    Args:
        labels: As written in a file, None where there is none.
        rename: What the user said about single spellings; None as a value marks those wafers unlabelled.
        keep_unknown: Let unknown labels be classes of their own, as written.
        source: Where they stand, for messages.

    Raises:
        DataError: If labels are unknown and nobody said what to do with them, or `rename` names one that is absent.
    """
    counts = Counter(label for label in labels if label is not None)
    if absent := [name for name in rename if name not in counts]:
        raise DataError(f"{source}: --label {absent[0]}=…: no wafer has that label; found {', '.join(sorted(counts))}")
    meant = {label: rename[label] if label in rename else _known(label) for label in counts}
    unknown = [label for label in counts if meant[label] is None and label not in rename]
    if unknown and not keep_unknown:
        raise DataError(_ask(unknown, counts, source))
    meant |= {label: label for label in unknown}
    return [None if label is None else meant[label] for label in labels]


def _key(label: str) -> str:
    return "".join(letter for letter in label.casefold() if letter.isalnum())


_NAMES = {_key(name): name for name in WM811K_CLASSES}


def _known(label: str) -> str | None:
    return _NAMES.get(_key(label))


def _ask(unknown: list[str], counts: Mapping[str, int], source: str) -> str:
    lines = [f"{source}: {len(unknown)} unknown label{'s' if len(unknown) > 1 else ''}"]
    for label in sorted(unknown, key=lambda name: (-counts[name], name))[:20]:
        near = get_close_matches(_key(label), _NAMES, n=1)
        hint = f"; did you mean {_NAMES[near[0]]}?" if near else ""
        lines.append(f"  {label!r}: {counts[label]:,} wafers{hint}")
    lines.append(
        f"say what each means: --label {unknown[0]}=CLASS (one of {', '.join(WM811K_CLASSES)}), --label {unknown[0]}= "
        "to treat its wafers as unlabelled, or --keep-labels to make every unknown label a class of its own"
    )
    return "\n".join(lines)
