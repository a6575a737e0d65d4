"""The project deck's four trainings, under its protocol and under ours, on real wafers.

    OMP_NUM_THREADS=1 python -m benchmarks.deck [--data FILE] [--epochs 12] [--weights FILE] [--arms ...]

`leaky`: as the deck did. Its balanced pool copies rare wafers before the division, so that copies of one wafer stand in
training and test; its imbalanced set is divided wafer by wafer. Every model is judged on the balanced pool's test part.
`honest`: the same training on the training part of a split by lot, judged on the validation part after the last epoch,
which nothing was chosen by; balanced scores come from the confusion matrix, no wafer is copied. The locked test part is
not opened.

Every epoch leaves a checkpoint and every finished training its calls in `--out`: the command goes on where it
stopped, and then writes tables.md and the pictures from what is there. The deck trained 50 epochs; `--epochs 50` does.
EfficientNet-B0 has random weights unless `--weights` names a file of ImageNet's; the tables say which.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models import efficientnet_b0

from benchmarks.deck_tables import write_tables
from data_pipeline.batches import plain_batches, wrap_arrays
from data_pipeline.encode import Picture, load_encoded
from data_pipeline.protocols import PROTOCOLS
from data_pipeline.splits import Splits
from data_pipeline.wafer_files import load_wafers
from data_pipeline.wafer_set import WaferSet
from search.study.checkpoints import load_checkpoint, save_checkpoint
from search.trial.data import TrialData
from search.trial.evaluation import choose_dtype, predict_batches
from search.trial.memory import keep_freed_memory
from search.trial.params import TrialParams, from_flat
from search.trial.training import train_and_evaluate

# The deck's own shares: 65.0 : 18.6 : 16.4 of all wafers, and 2000 : 615 : 462 of each class's pool.
_SHARES = {"val": 0.186, "test": 0.164}
_POOL = {"val": 0.20, "test": 0.15}
_CNN = {"lr": 1e-3, "batch_size": 112, "optimizer": "adam", "schedule": "constant", "weight_decay": 0.0}
_NET = {"model": "efficientnet_b0", "model.efficientnet_b0.freeze": "backbone", "augment": "none", "batch_size": 24}
ARMS: Mapping[str, Mapping[str, Any]] = {
    "imbalanced": {**_CNN, "augment": "none"},
    "augmented": {**_CNN, "augment": "deck"},
    "balanced": {**_CNN, "augment": "none"},
    "transfer": {**_CNN, **_NET},
}
_LEAKY = {"imbalanced": "random", "augmented": "deck_subset", "balanced": "deck", "transfer": "deck"}
# What the honest side does instead of copying wafers before the division, or leaving them out.
_HONEST: Mapping[str, Mapping[str, Any]] = {
    "imbalanced": {},
    "augmented": {"subset": 0.3},
    "balanced": {"sampling": "balanced"},
    "transfer": {"sampling": "balanced"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training."""

    arm: str
    side: str
    params: TrialParams
    picture: Picture
    out: Path

    @property
    def path(self) -> Path:
        """Where its calls are kept."""
        return self.out / f"{self.arm}-{self.side}-{self.params.epochs}.npz"


def divide(wafers: WaferSet, job: Job) -> tuple[Splits, NDArray[np.int64]]:
    """Return the division, and the wafers to be judged by in the end."""
    if job.side == "honest":
        splits = PROTOCOLS["lot"](wafers, val=0.2, test=0.15, seed=0)
        return splits, splits.val
    protocol = _LEAKY[job.arm]
    splits = PROTOCOLS[protocol](wafers, seed=0, **(_POOL if protocol == "deck" else _SHARES))
    pool = splits if protocol == "deck" else PROTOCOLS["deck"](wafers, seed=0, **_POOL)
    return splits, pool.test


def run(wafers: WaferSet, job: Job) -> None:
    """Train to the end, and keep what the model calls the judged wafers."""
    splits, judged = divide(wafers, job)
    cache = job.out / "cache"

    def encode(rows: NDArray[np.int64]) -> Any:
        return wrap_arrays(load_encoded(wafers, rows, picture=job.picture, cache=cache), wafers.labels[rows])

    data = TrialData(
        train=encode(splits.train),
        val=encode(splits.val),
        n_classes=len(wafers.classes),
        epoch_samples=18_000,
        features=(cache / "features").resolve(),
    )
    checkpoint, key = job.path.with_suffix(".pt"), str(sorted(job.params.to_flat().items()))
    saved = load_checkpoint(checkpoint, key=key)
    generator = torch.Generator().manual_seed(job.params.seed)
    training = train_and_evaluate(job.params, data, generator=generator, state=saved[1] if saved else None)
    reports = []
    while True:
        try:
            evaluation = next(training)
        except StopIteration as end:
            model = end.value
            break
        save_checkpoint(checkpoint, evaluation, classes=wafers.classes, key=key)
        report = evaluation.report
        assert report.val is not None
        reports.append((report.epoch, report.train_loss, report.val.loss, report.val.scores.accuracy))
        print(
            f"{job.arm} {job.side} epoch {report.epoch}/{job.params.epochs} train {report.train_loss:.4f} "
            f"val {report.val.loss:.4f} accuracy {100 * report.val.scores.accuracy:.2f} balanced macro-F1 "
            f"{100 * report.val.scores.balanced_macro_f1:.2f}  {report.train_seconds + report.val_seconds:.1f} s",
            flush=True,
        )
    dtype = choose_dtype(job.params.precision, torch.device("cpu"))
    logits, labels = predict_batches(model, plain_batches(encode(judged)), dtype=dtype)
    partial = job.path.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        calls=logits.argmax(1).numpy(),
        labels=labels.numpy(),
        seen=np.isin(wafers.content[judged], wafers.content[splits.train]),
        curves=np.array(reports),
    )
    partial.rename(job.path)
    checkpoint.unlink(missing_ok=True)


def plan(given: argparse.Namespace) -> Iterator[Job]:
    """List the trainings asked for."""
    weights = given.weights or _random_weights(given.out)
    for arm in given.arms:
        for side in ("leaky", "honest"):
            flat = {
                **ARMS[arm],
                **(_HONEST[arm] if side == "honest" else {}),
                "epochs": given.epochs,
                "seed": given.seed,
            }
            if arm == "transfer":
                flat |= {"model.efficientnet_b0.weights": str(weights), "model.efficientnet_b0.input_size": given.size}
            picture = Picture(image_size=min(given.size, 64) if arm == "transfer" else 40)
            params = from_flat(flat, where=arm, image_size=picture.image_size)
            yield Job(arm=arm, side=side, params=params, picture=picture, out=given.out)


def _random_weights(out: Path) -> Path:
    path = out / "random.pth"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        torch.save(efficientnet_b0(weights=None).state_dict(), path)
    return path.resolve()


def main() -> None:
    """Train what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/wafers.parquet"))
    parser.add_argument("--out", type=Path, default=Path("results/published/deck"))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=64, help="input size of EfficientNet-B0, in pixels")
    parser.add_argument("--weights", type=Path, help="a file of EfficientNet-B0's ImageNet weights")
    given = parser.parse_args()
    keep_freed_memory()
    wafers = load_wafers(given.data)
    for job in plan(given):
        if not job.path.exists():
            run(wafers, job)
    write_tables(given.out, wafers.classes, epochs=given.epochs, weights=str(given.weights or "random"))


if __name__ == "__main__":
    main()
