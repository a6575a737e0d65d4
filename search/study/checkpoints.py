"""Where a training stands, on disk: its last report, and what it takes to go on from there."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from search.study.places import read_place, write_place
from search.study.rows import report_from_row, report_to_row
from search.trial.learner import State
from search.trial.training import EpochReport, Evaluation


class Saved(NamedTuple):
    """What a checkpoint holds: the last report, the state to go on from, the reports before where they were kept."""

    report: EpochReport
    state: State
    earlier: list[EpochReport]


def save_checkpoint(
    place: Path | str,
    evaluation: Evaluation,
    *,
    classes: tuple[str, ...],
    key: str,
    earlier: Sequence[EpochReport] = (),
) -> None:
    """Write a checkpoint atomically.

    Args:
        place: Where to, see `places`.
        evaluation: What `train_and_evaluate` has just yielded.
        classes: Names of the K classes.
        key: Says which training this is; only the same training may go on from it.
        earlier: Reports of the epochs before, where whoever goes on may not know them.
    """
    report, *before = (json.dumps(report_to_row(each, classes)) for each in (evaluation.report, *earlier))
    save_tensors({"key": key, "report": report, "earlier": before, "state": evaluation.state}, place)


def save_tensors(content: Mapping[str, Any], place: Path | str) -> None:
    """Write tensors, numbers, words and collections of these atomically; `torch.load(weights_only=True)` reads them."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_place(str(place), buffer.getvalue())


def load_checkpoint(place: Path | str, *, key: str) -> Saved | None:
    """Read a checkpoint; None if there is none, it is damaged, or it belongs to another training.

    Raises:
        ConfigError: If the store that holds it cannot be reached.
    """
    found = read_place(str(place))
    if found is None:
        return None
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(found), map_location="cpu", weights_only=True)
        if content["key"] != key:
            return None
        report, *earlier = (report_from_row(json.loads(row)) for row in (content["report"], *content["earlier"]))
        return Saved(report, content["state"], earlier)
    except Exception:  # noqa: BLE001 - torch raises anything on a damaged file; training then starts from the beginning
        return None
