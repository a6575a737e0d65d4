"""How much of the real task the synthetic wafers hold: train on them alone, then name real ones.

    python -m benchmarks.synthetic_to_real --data FILE [--wafers 15000] [--epochs 10] [--seed 0]

Trains one `wafer_cnn` (width 32, 40 px, sampling balanced, symmetries) and judges it on every labelled wafer of FILE.
Prints the recall of each class, their mean, and the confusion matrix in per cent of each row. The wafers, the weights
and the draws all come from the seed.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.batches import EncodedWafers, wrap_arrays
from data_pipeline.encode import Picture, encode_maps
from data_pipeline.synthetic import make_wafers
from data_pipeline.wafer_files import load_wafers
from data_pipeline.wafer_set import WM811K_CLASSES, WaferSet
from search.study.provenance import describe_device
from search.trial.data import TrialData
from search.trial.evaluation import choose_dtype, judge_model
from search.trial.params import TrialParams, from_flat
from search.trial.training import train_and_evaluate

IMAGE_SIZE = 40


def main() -> None:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="real wafers, .npz or .parquet")
    parser.add_argument("--wafers", type=int, default=15_000, help="synthetic wafers (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="passes of that many draws (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: %(default)s)")
    given = parser.parse_args()
    flat = {"epochs": given.epochs, "seed": given.seed, "sampling": "balanced", "model.wafer_cnn.width": 32}
    params = from_flat(flat, where="benchmark", image_size=IMAGE_SIZE)
    real = load_wafers(given.data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    model = train(params, make_wafers(given.wafers, seed=given.seed), device)
    dtype = choose_dtype(params.precision, device)
    judgement = judge_model(model, encode(real).to(device), n_classes=len(WM811K_CLASSES), dtype=dtype)
    print(
        f"trained on {given.wafers:,} synthetic wafers (seed {given.seed}, {given.epochs} epochs), judged on "
        f"{sum(judgement.scores.support):,} wafers of {given.data}; {describe_device(device)}"
    )
    print_confusion(np.array(judgement.confusion))


def encode(wafers: WaferSet) -> EncodedWafers:
    """Encode the labelled wafers; labels count in WM811K_CLASSES."""
    labelled = np.flatnonzero(wafers.labels >= 0)
    positions = np.array([WM811K_CLASSES.index(name) for name in wafers.classes])
    maps = encode_maps(wafers, labelled, picture=Picture(image_size=IMAGE_SIZE))
    return wrap_arrays(maps, positions[wafers.labels[labelled]])


def train(params: TrialParams, wafers: WaferSet, device: torch.device) -> torch.nn.Module:
    """Train for the whole length on all wafers, a line per epoch."""
    data = TrialData(train=encode(wafers), val=None, n_classes=len(WM811K_CLASSES), epoch_samples=len(wafers))
    training = train_and_evaluate(params, data.to(device), generator=torch.Generator().manual_seed(params.seed))
    start = time.perf_counter()
    while True:
        try:
            report = next(training).report
        except StopIteration as end:
            model: torch.nn.Module = end.value
            return model
        print(
            f"epoch {report.epoch:>3}/{params.epochs}  loss {report.train_loss:.4f}  "
            f"accuracy {100 * report.train_accuracy:.1f} %  {time.perf_counter() - start:.0f} s",
            flush=True,
        )


def print_confusion(counts: NDArray[np.int64]) -> None:
    """Print rows actual, columns predicted, in per cent of the row; the recall is on the diagonal."""
    support = counts.sum(axis=1)
    occurring = np.flatnonzero(support)
    shares = 100 * counts[occurring] / support[occurring, None]
    recalls = shares[np.arange(len(occurring)), occurring]
    print(f"\n{'real class':<11}{'wafers':>7}{'recall':>8}   called" + "".join(f"{n:>10}" for n in WM811K_CLASSES))
    for k, row, recall in zip(occurring, shares, recalls, strict=True):
        cells = "".join(f"{share:>10.1f}" for share in row)
        print(f"{WM811K_CLASSES[k]:<11}{support[k]:>7,}{recall:>8.1f}         {cells}")
    hardest = ", ".join(WM811K_CLASSES[occurring[i]] for i in np.argsort(recalls)[:3])
    print(f"\nbalanced recall {recalls.mean():.1f} % (mean over {len(occurring)} classes); hardest: {hardest}")


if __name__ == "__main__":
    main()
