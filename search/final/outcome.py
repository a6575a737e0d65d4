"""From a final model and labelled wafers to what users see and keep: logits, predictions, pictures, the table."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from data_pipeline.batches import EncodedWafers, plain_batches
from data_pipeline.wafer_set import WaferSet
from search.final.model_file import TrainedModel
from search.final.scoring import Scored, defect_curve, scored_table, sentences
from search.study.predictions import Origin, Predictions
from search.study.records import write_atomically
from search.trial.evaluation import choose_dtype, predict_batches
from search.views.figures import draw_confusion, draw_escapes, draw_reliability
from search.views.terminal import say


def predict_logits(trained: TrainedModel, wafers: EncodedWafers) -> tuple[Tensor, Tensor]:
    """Run the model on a GPU if there is one; return logits (N, K) and labels (N,) on the CPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = choose_dtype(trained.precision, device)
    logits_NK, labels = predict_batches(trained.model.to(device), plain_batches(wafers.to(device)), dtype=dtype)
    return logits_NK.cpu(), labels.cpu()


def to_predictions(
    scored: Scored, classes: tuple[str, ...], wafers: WaferSet, rows: NDArray[np.int64], origin: Origin
) -> Predictions:
    """Put together what was made of the wafers at `rows`."""
    return Predictions(
        origin=origin,
        classes=classes,
        wafers=rows,
        lots=[wafers.lot_names[lot] for lot in wafers.lots[rows]],
        labels=scored.labels,
        probabilities=scored.probabilities.astype(np.float32),
        predicted=scored.called,
    )


def draw_pictures(
    scored: Scored, trained: TrainedModel, folder: Path, *, prefix: str, title: str
) -> list[tuple[str, Path]]:
    """Draw confusion matrix, reliability and, where there is a class "none", escapes; return what lies where."""
    drawn = [
        ("confusion matrix", "confusion", draw_confusion(scored.judgement, trained.classes, title=title)),
        ("reliability", "reliability", draw_reliability(scored.bins, title=title)),
    ]
    curve = defect_curve(scored, trained.classes)
    if curve is not None:
        threshold = trained.rule.defect_from
        drawn.append(("escapes", "escapes", draw_escapes(curve, threshold=threshold, title=title)))
    paths = []
    for what, name, png in drawn:
        path = folder / f"{prefix}_{name}.png"
        write_atomically(path, png)
        paths.append((what, path))
    return paths


def show_scored(scored: Scored, trained: TrainedModel, console: Console, *, title: str) -> None:
    """Print the table, and what it does not say."""
    console.print(scored_table(scored, trained.classes, title=title))
    for sentence in sentences(scored, trained.rule):
        say(console, sentence)


def fingerprint_file(path: Path) -> str:
    """Return twelve hex digits that change with any byte of a file."""
    return sha256(path.read_bytes()).hexdigest()[:12]
