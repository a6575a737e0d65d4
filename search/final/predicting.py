"""Calling the class of every wafer of a source: read and encoded in one thread, called in another."""

import math
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from data_pipeline.batches import plain_batches, wrap_arrays
from data_pipeline.encode import encode_maps
from data_pipeline.streaming import Piece, stream_wafers
from data_pipeline.wafer_set import UNLABELLED
from search.errors import ConfigError
from search.final.model_file import TrainedModel
from search.trial.calibration import correct_shares
from search.trial.decision import defect_chance
from search.trial.evaluation import choose_device, choose_dtype, predict_batches
from search.trial.vocabulary import nearest

_AHEAD = 3  # pieces that are read before they are called


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Called:
    """What became of one piece.

    Attributes:
        piece: Its wafers.
        rows: One row per wafer of the source, those with a problem among them, in order; see `docs/shipping.md`.
        probabilities: Of the usable wafers, shape (N, K).
        called: Their classes, shape (N,).
    """

    piece: Piece
    rows: pd.DataFrame
    probabilities: NDArray[np.float64]
    called: NDArray[np.int64]


def read_shares(given: Sequence[str], classes: Sequence[str]) -> NDArray[np.float64] | None:
    """Read "none=0.85 Center=0.02 ..." as shares of the classes among the wafers to come; they are made to sum to 1.

    Raises:
        ConfigError: If a class is unknown or missing, or a share is no number above 0.
    """
    if not given:
        return None
    shares = dict.fromkeys(classes, math.nan)
    for text in given:
        name, _, number = text.rpartition("=")
        if name not in shares:
            raise ConfigError(f"--shares {text}: no such class; {nearest(name, list(classes))}")
        try:
            shares[name] = float(number)
        except ValueError:
            raise ConfigError(f"--shares {text}: must be CLASS=NUMBER") from None
        if not 0 < shares[name] < math.inf:
            raise ConfigError(f"--shares {text}: must be above 0")
    missing = [name for name, share in shares.items() if math.isnan(share)]
    if missing:
        raise ConfigError(f"--shares: must name every class of the model; missing: {', '.join(missing)}")
    values = np.array(list(shares.values()))
    result: NDArray[np.float64] = values / values.sum()
    return result


def call_wafers(trained: TrainedModel, source: Path, *, shares: NDArray[np.float64] | None = None) -> Iterator[Called]:
    """Call all wafers of a source, piece by piece and in order.

    Args:
        trained: The model.
        source: Whatever `prepare` reads.
        shares: Of the classes among these wafers, shape (K,), if they are known to be others than in training. Then
            the most probable class is called, without the thresholds that were fitted for the old shares.

    Raises:
        DataError: If the source cannot be read.
    """
    device = choose_device()
    model, dtype = trained.model.to(device), choose_dtype(trained.precision, device)

    def encode() -> Iterator[tuple[Piece, NDArray[np.uint8] | None, NDArray[np.bool_]]]:
        for piece in stream_wafers(source):
            wafers = piece.wafers
            if wafers is None:
                yield piece, None, np.empty(0, dtype=np.bool_)
            else:
                maps = encode_maps(wafers, np.arange(len(wafers)), picture=trained.picture)
                yield piece, maps, np.isin(wafers.content, trained.seen)

    for piece, maps, seen in _ahead(encode()):
        k = len(trained.classes)
        probabilities, called = np.empty((0, k)), np.empty(0, dtype=np.int64)
        if maps is not None:
            batches = plain_batches(wrap_arrays(maps, np.zeros(len(maps), dtype=np.int64)).to(device))
            logits, _ = predict_batches(model, batches, dtype=dtype)
            calibrated = trained.rule.probabilities(logits.cpu())
            if shares is not None:
                corrected = correct_shares(calibrated.double().numpy(), assumed=trained.shares, wanted=shares)
                calibrated = torch.from_numpy(corrected).float()
            # Thresholds were fitted for the shares of the training: for others, the most probable class is called.
            called = (trained.rule.call(calibrated) if shares is None else calibrated.argmax(1)).numpy()
            probabilities = calibrated.double().numpy()
        yield Called(
            piece=piece,
            rows=_tabulate(trained, piece, probabilities, called, seen),
            probabilities=probabilities,
            called=called,
        )


def _tabulate(
    trained: TrainedModel,
    piece: Piece,
    probabilities: NDArray[np.float64],
    called: NDArray[np.int64],
    seen: NDArray[np.bool_],
) -> pd.DataFrame:
    """Write what is known of each wafer of a piece; what is unknown stays empty."""
    names, rule, wafers = np.array(trained.classes, dtype=object), trained.rule, piece.wafers
    columns: dict[str, Any] = {"wafer": piece.rows, "name": [piece.names.get(row) for row in piece.rows.tolist()]}
    if wafers is not None:
        here = np.arange(len(called))
        chance = probabilities[here, called]
        others = probabilities.copy()
        others[here, called] = -1
        second = others.argmax(1)
        known: Sequence[str | None] = [*wafers.classes, None]
        columns |= {
            "lot": [wafers.lot_names[lot] for lot in wafers.lots],
            "label": [known[label] if label != UNLABELLED else None for label in wafers.labels],
            "class": names[called],
            "probability": chance,
            "second": names[second],
            "second_probability": probabilities[here, second],
            "unsure": None if rule.sure_from is None else chance < rule.sure_from,
            "seen": seen,
        }
        defect = defect_chance(probabilities, trained.classes)
        if defect is not None:
            columns["defect_probability"] = defect
            columns["defective"] = None if rule.defect_from is None else defect >= rule.defect_from
    table = pd.DataFrame(columns)
    problems = pd.DataFrame(
        [
            {"wafer": row, "name": piece.names.get(row), "lot": piece.lots.get(row), "problem": why}
            for row, why in piece.problems.items()
        ],
        columns=["wafer", "name", "lot", "problem"],
    )
    whole = pd.concat([table, problems]) if len(problems) else table
    return whole.reindex(columns=COLUMNS).sort_values("wafer", ignore_index=True).astype(_TYPES)


_TYPES: Mapping[str, str] = {
    "wafer": "int64",
    "name": "string",
    "lot": "string",
    "label": "string",
    "class": "string",
    "probability": "float32",
    "second": "string",
    "second_probability": "float32",
    "unsure": "boolean",
    "defect_probability": "float32",
    "defective": "boolean",
    "seen": "boolean",
    "problem": "string",
}
COLUMNS = list(_TYPES)


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
    """Make items in a thread, a few of them ahead; what is raised there is raised here."""
    done, waiting = object(), queue.Queue[Any](maxsize=_AHEAD)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                put((item, None))
                if stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - handed on to who asks
            put((done, error))
        else:
            put((done, None))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is done:
                return
            yield item
    finally:
        stop.set()
        thread.join()
