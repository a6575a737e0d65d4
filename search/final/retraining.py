"""The final training of the best configuration: watched as users know it, and resumable after every epoch."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import torch
from rich.console import Console

from data_pipeline.dataset import join_parts
from search.errors import DONE
from search.final.model_file import TrainedModel, save_model
from search.study.best import load_best
from search.study.checkpoints import load_checkpoint, save_checkpoint
from search.study.data import check_same_data, describe, open_data, trial_data
from search.study.marks import marks_of
from search.study.provenance import describe_data, describe_device
from search.study.records import append_line, lock_folder, read_lines, write_atomically, write_json
from search.study.rows import report_from_row, report_to_row
from search.trial.data import TrialData
from search.trial.memory import keep_freed_memory
from search.trial.params import TrialParams
from search.trial.prediction import Ensemble, Predictor
from search.trial.training import EpochReport, train_and_evaluate
from search.views.figures import draw_curves
from search.views.terminal import say
from search.views.words import duration, score_table

TRAIN, TRAIN_VAL = "train", "train+val"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainRequest:
    """What the user asks for.

    Attributes:
        best: A best.yaml.
        out: Folder for the model and its numbers.
        results: Folder of all studies; encoded maps are kept there.
        on: TRAIN, watching validation, or TRAIN_VAL, which has no validation left.
        data: Wafers to use instead of those that best.yaml names; they must be the same ones.
        seed: Instead of the trial's.
        threads: CPU threads instead of the trial's.
    """

    best: Path
    out: Path
    results: Path
    on: str = TRAIN
    data: str | None = None
    seed: int | None = None
    threads: int | None = None


def retrain(request: RetrainRequest, console: Console) -> int:
    """Train the configuration of a best.yaml for its full length and write `model.pt`, its numbers and its curves.

    On train, with the trial's seed and threads, a CPU yields the trial's reports again bit for bit.

    Raises:
        ConfigError: If best.yaml cannot be used, or the folder cannot be written.
        DataError: If the wafers cannot be used.
        TrialFailed: If the training diverges.
    """
    best = load_best(request.best)
    params = best.params if request.seed is None else best.params.model_copy(update={"seed": request.seed})
    config = best.data if request.data is None else best.data.model_copy(update={"wafers": request.data})
    dataset = open_data(config, results=request.results)
    check_same_data(dataset, fingerprint=best.data_fingerprint, split_fingerprint=best.split_fingerprint)
    torch.set_num_threads(request.threads or best.cpu_threads)
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    say(console, describe(dataset))
    data = _choose_parts(trial_data(dataset, config), on=request.on).to(device)
    with lock_folder(request.out):
        say(
            console,
            f"training trial {best.trial} of {best.study} on {request.on} ({len(data.train):,} wafers), "
            f"seed {params.seed}, {params.epochs} nominal epochs of {data.epoch_samples:,}, {describe_device(device)}",
        )
        what = f"{request.on} {best.data_fingerprint} {best.split_fingerprint} {dataset.picture}"
        key = f"{what} {sorted(params.to_flat().items())}"
        classes = dataset.wafers.classes
        reports, model = _train(params, data, key=key, out=request.out, classes=classes, console=console)
        trained = TrainedModel(
            model=Ensemble([model]),
            config=params.to_flat(),
            seeds=(params.seed,),
            classes=classes,
            picture=dataset.picture,
            on=request.on,
            data_fingerprint=best.data_fingerprint,
            split_fingerprint=best.split_fingerprint,
            is_synthetic=dataset.wafers.is_synthetic,
            leaky=dataset.splits.leaky,
        )
        save_model(trained, request.out / "model.pt")
        marks = marks_of(describe_data(dataset))
        _write_numbers(request, reports, classes=classes, seed=params.seed, device=device, marks=marks)
        (request.out / "checkpoint.pt").unlink(missing_ok=True)
    last = reports[-1].val
    if last:
        title = f"validation after the last epoch ({', '.join([*marks, '%'])})"
        console.print(score_table(last.scores, classes, title=title))
    for name in ("model.pt", "metrics.json", "curves.png"):
        say(console, str(request.out / name))
    return DONE


def _choose_parts(data: TrialData, *, on: str) -> TrialData:
    if on == TRAIN:
        return data
    assert data.val is not None
    everything = join_parts(data.train, data.val)
    return replace(data, train=everything, val=None)


def _train(
    params: TrialParams, data: TrialData, *, key: str, out: Path, classes: tuple[str, ...], console: Console
) -> tuple[list[EpochReport], Predictor]:
    """Train to the end, from where an interrupted call of the same training stopped."""
    checkpoint, log = out / "checkpoint.pt", out / "epochs.jsonl"
    saved = load_checkpoint(checkpoint, key=key)
    reports = [report_from_row(row) for row in read_lines(log)][: saved[0].epoch - 1] if saved else []
    reports += [saved[0]] if saved else []
    write_atomically(log, "")
    for report in reports:
        append_line(log, report_to_row(report, classes))
    if reports:
        say(console, f"going on after epoch {len(reports)}")
    training = train_and_evaluate(
        params, data, generator=torch.Generator().manual_seed(params.seed), state=saved[1] if saved else None
    )
    start, first = time.monotonic(), len(reports)
    while True:
        try:
            evaluation = next(training)
        except StopIteration as end:
            return reports, end.value
        save_checkpoint(checkpoint, evaluation, classes=classes, key=key)
        reports.append(evaluation.report)
        append_line(log, report_to_row(evaluation.report, classes))
        line = epoch_line(reports, epochs=params.epochs, elapsed=time.monotonic() - start, timed=len(reports) - first)
        say(console, line)


def epoch_line(reports: Sequence[EpochReport], *, epochs: int, elapsed: float, timed: int) -> str:
    """Write one line of the epoch log.

    Args:
        reports: All so far.
        epochs: How many there will be.
        elapsed: Seconds that the last `timed` epochs took.
        timed: See `elapsed`.
    """
    last = reports[-1]
    left = elapsed / timed * (epochs - last.epoch)
    end = datetime.now() + timedelta(seconds=left)
    parts = [
        f"epoch {last.epoch:>3}/{epochs}",
        f"train loss {last.train_loss:.4f} acc {100 * last.train_accuracy:5.2f} %",
    ]
    if last.val:
        accuracies = [report.val.scores.accuracy for report in reports if report.val]
        parts[0] += " +" if last.val.scores.accuracy >= max(accuracies) else " -"
        scores = last.val.scores
        parts.append(
            f"val loss {last.val.loss:.4f} acc {100 * scores.accuracy:5.2f} % macro-F1 {100 * scores.macro_f1:5.2f} "
            f"balanced {100 * scores.balanced_macro_f1:5.2f}"
        )
    parts.append(f"{last.train_seconds + last.val_seconds:.1f} s/epoch")
    parts.append(f"{duration(elapsed)} elapsed, ends {end:%H:%M:%S}")
    return "  ".join(parts)


def _write_numbers(
    request: RetrainRequest,
    reports: list[EpochReport],
    *,
    classes: tuple[str, ...],
    seed: int,
    device: torch.device,
    marks: tuple[str, ...],
) -> None:
    metrics = {
        "on": request.on,
        "marks": list(marks),
        "epochs": len(reports),
        "seed": seed,
        "device": describe_device(device),
        "seconds": sum(report.train_seconds + report.val_seconds for report in reports),
        "last_epoch": report_to_row(reports[-1], classes),
    }
    write_json(request.out / "metrics.json", metrics)
    title = ", ".join([f"final training on {request.on}", *marks])
    write_atomically(request.out / "curves.png", draw_curves(reports, title=title))
