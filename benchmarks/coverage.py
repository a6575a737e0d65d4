"""Do the intervals of a confirmation hold the truth as often as they say? On recorded trainings, of real wafers.

    OMP_NUM_THREADS=1 python -m benchmarks.coverage --record --data FILE    # 2 x 16 trainings, once
    python -m benchmarks.coverage                                           # benchmarks/seed_table.npz, seconds

Two configurations are trained from 16 seeds each on one split by lot; the file holds what every model called each
validation wafer. The truth of a configuration is then its mean score over all seeds and all lots. A confirmation sees
less: some seeds, and as many lots, drawn anew. How often its intervals hold the truth, is counted.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from data_pipeline.batches import plain_batches
from data_pipeline.dataset import open_dataset
from data_pipeline.encode import Picture
from search.study.ranking import rank_by_seeds
from search.trial.data import TrialData
from search.trial.evaluation import choose_dtype, predict_batches
from search.trial.intervals import Statistic, balanced_macro_f1, macro_f1
from search.trial.params import from_flat
from search.trial.training import train_and_evaluate

TABLE = Path("benchmarks/seed_table.npz")
N_SEEDS, N_DRAWS = 16, 400
# Alike on purpose: a confirmation has to tell apart what is close.
CONFIGS: tuple[dict[str, Any], ...] = (
    {"epochs": 6, "lr": 3e-3, "batch_size": 128, "sampling": "balanced", "model.wafer_cnn.width": 8},
    {"epochs": 6, "lr": 6e-3, "batch_size": 128, "sampling": "power", "model.wafer_cnn.width": 8},
)
STATISTICS: dict[str, Statistic] = {"balanced macro-F1": balanced_macro_f1, "macro-F1": macro_f1}


def record(wafers: str) -> None:
    """Train every configuration from every seed, and keep what each model calls the validation wafers."""
    dataset = open_dataset(
        wafers,
        synthetic_wafers=0,
        picture=Picture(image_size=24),
        by="lot",
        pool=0,
        val=0.2,
        test=0.15,
        seed=0,
        cache=Path("results/.cache"),
    )
    k = len(dataset.wafers.classes)
    data = TrialData(train=dataset.encode("train"), val=dataset.encode("val"), n_classes=k, epoch_samples=6000)
    assert data.val is not None
    calls = np.zeros((len(CONFIGS), N_SEEDS, len(data.val)), dtype=np.uint8)
    for c, seed in track([*np.ndindex(calls.shape[:2])], description="training"):
        params = from_flat({**CONFIGS[c], "seed": 100 + seed}, where="a cell", image_size=24)
        training = train_and_evaluate(params, data, generator=torch.Generator().manual_seed(params.seed))
        while True:
            try:
                next(training)
            except StopIteration as end:
                dtype = choose_dtype(params.precision, torch.device("cpu"))
                logits, _ = predict_batches(end.value, plain_batches(data.val), dtype=dtype)
                calls[c, seed] = logits.argmax(1).numpy()
                break
    val = dataset.splits.val
    np.savez_compressed(
        TABLE,
        calls=calls,
        labels=dataset.wafers.labels[val].astype(np.uint8),
        lots=np.unique(dataset.wafers.lots[val], return_inverse=True)[1].astype(np.uint16),
    )


def count_by_lot(table: dict[str, NDArray[Any]], *, n_classes: int) -> NDArray[np.int64]:
    """Return confusion matrices by lot, shape (C, S, L, K, K)."""
    calls, labels, lots = table["calls"], table["labels"], table["lots"]
    counts = np.zeros((*calls.shape[:2], int(lots.max()) + 1, n_classes, n_classes), dtype=np.int64)
    for c, s in np.ndindex(calls.shape[:2]):
        np.add.at(counts[c, s], (lots, labels, calls[c, s]), 1)
    return counts


def measure(counts: NDArray[np.int64], statistic: Statistic, *, n_seeds: int, n_lots: int, n: int) -> list[float]:
    """Return how often intervals hold the first configuration's truth, and the difference's; and their mean widths."""
    truths = statistic(counts.sum(2).reshape(-1, *counts.shape[-2:])).reshape(counts.shape[:2]).mean(1)
    random, hits, gaps, widths = np.random.default_rng(0), 0, 0, []
    for i in range(n):
        seeds = np.stack([random.permutation(counts.shape[1])[:n_seeds] for _ in counts])
        lots = random.integers(counts.shape[2], size=n_lots)
        seen = np.stack([counts[c][seeds[c]][:, lots] for c in range(len(counts))])
        found = rank_by_seeds(seen, statistic, n=N_DRAWS, seed=i)
        hits += found.means[0].low <= truths[0] <= found.means[0].high
        best, other = found.order
        gap = found.contests[other].difference
        gaps += gap.low <= truths[other] - truths[best] <= gap.high
        widths.append((found.means[0].high - found.means[0].low, gap.high - gap.low))
    return [hits / n, gaps / n, *np.mean(widths, axis=0)]


def main() -> None:
    """Record, or count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--data", default="data/wafers.parquet")
    parser.add_argument("--repeats", type=int, default=500)
    given = parser.parse_args()
    if given.record:
        record(given.data)
    table = dict(np.load(TABLE))
    counts = count_by_lot(table, n_classes=int(table["labels"].max()) + 1)
    n_all = counts.shape[2]
    print(f"{counts.shape[1]} seeds, {n_all} lots, {len(table['labels']):,} wafers; {given.repeats} confirmations each")
    print("score              seeds  lots  score held  difference held  width of score, of difference (points)")
    for name, statistic in STATISTICS.items():
        scores = statistic(counts.sum(2).reshape(-1, *counts.shape[-2:])).reshape(counts.shape[:2])
        spread = ", ".join(f"{100 * row.mean():.2f} +- {100 * row.std(ddof=1):.2f}" for row in scores)
        print(f"{name}: of the two, over seeds: {spread}")
        for n_seeds in (2, 3, 5):
            for n_lots in (20, 40, n_all):
                found = measure(counts, statistic, n_seeds=n_seeds, n_lots=n_lots, n=given.repeats)
                print(
                    f"{name:<18} {n_seeds:>5} {n_lots:>5}  {100 * found[0]:>10.1f}  {100 * found[1]:>15.1f}  "
                    f"{100 * found[2]:>14.2f} {100 * found[3]:>14.2f}"
                )


if __name__ == "__main__":
    main()
