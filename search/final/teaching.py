"""Distillation: a final model, averaged over all its members and views, as the teacher of a smaller one."""

import torch
from rich.console import Console

from data_pipeline.batches import wrap_arrays
from data_pipeline.dataset import Dataset
from data_pipeline.encode import load_encoded
from search.errors import ConfigError
from search.final.model_file import TrainedModel
from search.final.outcome import predict_logits
from search.trial.data import Teacher
from search.trial.prediction import Predictor


def make_teacher(trained: TrainedModel, dataset: Dataset, *, on: str, weight: float, console: Console) -> Teacher:
    """Let a model call the wafers that a student will be trained on.

    Args:
        trained: The teacher.
        dataset: The student's.
        on: "train" or "train+val": what the student learns from.
        weight: Of the teacher in the student's loss.
        console: Shows how far it is.

    Raises:
        ConfigError: If it knows other classes, or has seen wafers that the student is judged by.
    """
    if trained.classes != dataset.wafers.classes:
        raise ConfigError(f"--teacher: knows other classes: {', '.join(trained.classes)}")
    if trained.split_fingerprint != dataset.splits.fingerprint:
        raise ConfigError(
            f"--teacher: was trained on the split {trained.split_fingerprint}, not {dataset.splits.fingerprint}: it "
            "may have seen wafers that the student is judged by"
        )
    if trained.on != on and on == "train":
        raise ConfigError(f"--teacher: was trained on {trained.on}, so it has seen the student's validation wafers")
    members: list[Predictor] = list(trained.model.members)  # type: ignore[arg-type]
    for member in members:
        member.test_time = "symmetries"  # so that what it says fits every flip and turn
    parts = ("train",) if on == "train" else ("train", "val")
    logits = []
    for part in parts:
        rows = dataset.splits.part(part)
        maps = load_encoded(dataset.wafers, rows, picture=trained.picture, cache=dataset.cache)
        wafers = wrap_arrays(maps, dataset.wafers.labels[rows])
        logits.append(predict_logits(trained.model, wafers, console, precision=trained.precision)[0])
    shares = torch.from_numpy(trained.shares).float()
    equal = torch.cat(logits).log_softmax(1) - shares.clamp_min(1e-12).log()
    return Teacher(log_probabilities=equal.log_softmax(1), weight=weight)
