"""From a final model and labelled wafers to what users see and keep: logits, predictions, pictures, the table."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from data_pipeline.batches import EncodedWafers, plain_batches
from data_pipeline.wafer_set import WaferSet
from search.final.model_file import TrainedModel
from search.final.scoring import Scored, defect_curve, scored_table, sentences
from search.study.predictions import Origin, Predictions
from search.study.records import write_atomically
from search.study.winner import find_hardest
from search.trial.evaluation import choose_device, choose_dtype, predict_batches
from search.trial.params import Precision
from search.views.figures import draw_confusion, draw_escapes, draw_reliability, draw_wafers
from search.views.progress import show_progress
from search.views.terminal import page, say


def predict_logits(
    model: nn.Module, wafers: EncodedWafers, console: Console, *, precision: Precision
) -> tuple[Tensor, Tensor]:
    """Run a model on a GPU if there is one; return logits (N, K) and labels (N,) on the CPU."""
    device = choose_device()
    with show_progress(console, "calling wafers") as step:

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for inputs, labels in plain_batches(wafers.to(device)):
                yield inputs, labels
                step(len(labels), len(wafers))

        logits_NK, labels = predict_batches(model.to(device), batches(), dtype=choose_dtype(precision, device))
    return logits_NK.cpu(), labels.cpu()


def origin_of(
    trained: TrainedModel, wafers: WaferSet, *, study: str, model: str, split: str, protocol: str, when: str
) -> Origin:
    """Say where the predictions of a final model come from.

    Args:
        trained: The model.
        wafers: The data set that it has called wafers of.
        study: Name of the study whose model it is.
        model: Fingerprint of its file.
        split: Fingerprint of the division of the wafers; "" where they are not divided.
        protocol: How they were divided.
        when: Of the look, ISO 8601.
    """
    return Origin(
        study=study,
        model=model,
        data_fingerprint=wafers.fingerprint,
        split_fingerprint=split,
        protocol=protocol,
        synthetic=wafers.is_synthetic,
        leaky=trained.leaky,
        when=when,
        on=trained.on,
        n_parameters=trained.n_parameters,
        config=trained.config,
    )


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
    scored: Scored,
    trained: TrainedModel,
    wafers: WaferSet,
    rows: NDArray[np.int64],
    folder: Path,
    *,
    prefix: str,
    title: str,
) -> list[tuple[str, Path]]:
    """Draw confusion matrix, reliability, escapes where there is a class "none", and the hardest wafers.

    Args:
        scored: What was made of the wafers.
        trained: The model.
        wafers: The data set.
        rows: Those that were scored.
        folder: Where the pictures go.
        prefix: Of their names.
        title: Of all of them.

    Returns:
        What lies where.
    """
    drawn = [
        ("confusion matrix", "confusion", draw_confusion(scored.judgement, trained.classes, title=title)),
        ("reliability", "reliability", draw_reliability(scored.bins, title=title)),
    ]
    curve = defect_curve(scored, trained.classes)
    if curve is not None:
        threshold = trained.rule.defect_from
        drawn.append(("escapes", "escapes", draw_escapes(curve, threshold=threshold, title=title)))
    hardest = find_hardest(wafers, rows, scored.probabilities, scored.called)
    if hardest:
        names = trained.classes
        titles = [f"{names[h.actual]}, called\n{names[h.called]}, {h.probability:.0%}" for h in hardest]
        pictures = draw_wafers([h.map for h in hardest], titles, title=f"{title}: called wrong most surely")
        drawn.append(("hardest wafers", "hardest", pictures))
    paths = []
    for what, name, png in drawn:
        path = folder / f"{prefix}_{name}.png"
        write_atomically(path, png)
        paths.append((what, path))
    return paths


def show_scored(scored: Scored, trained: TrainedModel, console: Console, *, title: str) -> None:
    """Print the table, and what it does not say."""
    page(console).print(scored_table(scored, trained.classes, title=title))
    for sentence in sentences(scored, trained.rule):
        say(console, sentence)
