"""Record every cell of a grid once, so that search algorithms can be measured on our own task in seconds.

    OMP_NUM_THREADS=1 python -m benchmarks.record_table --data FILE [--out benchmarks/wafer_table.npz] [--cells 480]

Each cell of AXES is trained from one seed, its index in the grid, and judged after every nominal epoch. The cells come
in a random order, so that a part of them is a fair sample. What is finished is kept in `--out` with the ending
.partial.npz, and the same command goes on from there. The file holds, for n cells in the order of the grid:

    config          (n, 7) uint8, position on each axis; np.ravel_multi_index(config.T, lengths of the axes) is the seed
    confusion       (n, 12, K, K) uint16, after each epoch, rows actual, columns predicted; zeros after the last
    epochs_done     (n,) uint8, fewer than the cell's epochs if it diverged, then 0 if in the first
    train_seconds   (n, 12) float32, each epoch's time to draw, augment and learn; val_seconds: to validate; as above
    classes         (K,) text
    axes            JSON: name of each axis -> its values; width, lr and batch_size are the chosen model's
    about           JSON: what else was set, versions, device, date, fingerprints, sizes
"""

import argparse
import json
import math
import platform
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from scipy.stats import spearmanr

from data_pipeline.dataset import open_dataset
from data_pipeline.encode import Picture
from data_pipeline.files import replaced_atomically
from search.errors import TrialFailed
from search.trial.data import TrialData
from search.trial.evaluation import choose_dtype
from search.trial.memory import keep_freed_memory
from search.trial.metrics import score_confusion
from search.trial.params import from_flat
from search.trial.training import train_and_evaluate

AXES: Mapping[str, tuple[Any, ...]] = {
    "epochs": (6, 12), "sampling": ("imbalanced", "balanced", "power"), "loss": ("cross_entropy", "focal"),
    "model": ("wafer_cnn", "wafer_resnet"), "width": (8, 16), "lr": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "batch_size": (64, 256),
}  # fmt: skip
OPTIONS = {"power": {"sampling.power.alpha": 0.4}, "focal": {"loss.focal.gamma": 1.5}}  # of the values so named
FIXED = {"augment": "symmetries", "schedule": "cosine"}
PICTURE, CACHE = Picture(image_size=24), Path("results/.cache")
SHAPE = tuple(len(values) for values in AXES.values())
N_CELLS, MOST_EPOCHS, _NOTHING = math.prod(SHAPE), max(AXES["epochs"]), 255
Table = dict[str, NDArray[Any]]  # a row per cell of the grid; epochs_done is _NOTHING where none is recorded


def flat_config(index: int) -> dict[str, Any]:
    """Write cell `index` as a flat configuration."""
    values = {axis: AXES[axis][k] for axis, k in zip(AXES, np.unravel_index(index, SHAPE), strict=True)}
    flat = {key: values.pop(key) for key in ("epochs", "sampling", "loss", "model")}
    flat |= OPTIONS.get(flat["sampling"], {}) | OPTIONS.get(flat["loss"], {})
    return flat | {f"model.{flat['model']}.{key}": value for key, value in values.items()} | FIXED | {"seed": index}


def record_cell(table: Table, index: int, data: TrialData) -> None:
    """Train cell `index` and fill in its row, as far as it comes before it diverges."""
    params = from_flat(flat_config(index), where=f"cell {index}", image_size=PICTURE.image_size)
    table["epochs_done"][index] = 0
    with suppress(TrialFailed):
        for evaluation in train_and_evaluate(params, data, generator=torch.Generator().manual_seed(params.seed)):
            report = evaluation.report
            row = index, report.epoch - 1
            table["confusion"][row] = report.val.confusion if report.val else 0  # there is a validation part
            table["train_seconds"][row], table["val_seconds"][row] = report.train_seconds, report.val_seconds
            table["epochs_done"][index] = report.epoch


def open_table(path: Path, *, n_classes: int, about: Mapping[str, Any]) -> Table:
    """Make a table with what an earlier run has recorded in `path`, if that was set as this one."""
    table: Table = {f"{part}_seconds": np.zeros((N_CELLS, MOST_EPOCHS), np.float32) for part in ("train", "val")}
    table["confusion"] = np.zeros((N_CELLS, MOST_EPOCHS, n_classes, n_classes), np.uint16)
    table["epochs_done"] = np.full(N_CELLS, _NOTHING, np.uint8)
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            earlier = json.loads(str(file["about"]))
            if earlier | {"started": about["started"]} != about or str(file["axes"]) != json.dumps(AXES):
                raise SystemExit(f"error: {path}: was recorded with other settings ({earlier}); choose another --out")
            for name, array in table.items():
                array[np.ravel_multi_index(tuple(file["config"].T), SHAPE)] = file[name]
    return table


def write_table(path: Path, table: Table, *, classes: tuple[str, ...], about: Mapping[str, Any]) -> None:
    """Write the recorded cells in the order of the grid."""
    rows = np.flatnonzero(table["epochs_done"] != _NOTHING)
    arrays = {name: array[rows] for name, array in table.items()}
    arrays["config"] = np.stack(np.unravel_index(rows, SHAPE), axis=1).astype(np.uint8)
    with replaced_atomically(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays, classes=classes, axes=json.dumps(AXES), about=json.dumps(about))


def print_summary(table: Table) -> None:
    """Print the best cells, the spread, what an early look is worth, and the seconds."""
    whole = [i for i in range(N_CELLS) if table["epochs_done"][i] == flat_config(i)["epochs"]]
    last = table["epochs_done"][whole] - 1
    print(f"{(table['epochs_done'] != _NOTHING).sum()} of {N_CELLS} cells recorded; {len(whole)} ran to their end")
    pairs = [table["confusion"][i, [1, k]] for i, k in zip(whole, last, strict=True)]
    for name in ("balanced_macro_f1", "macro_f1"):
        early, end = 100 * np.array([[getattr(score_confusion(one), name) for one in pair] for pair in pairs]).T
        print(f"{name} in % at the end, quartiles: {np.quantile(end, [0, 0.25, 0.5, 0.75, 1]).round(2)}")
        ranks = [spearmanr(early[last == n - 1], end[last == n - 1]).statistic for n in AXES["epochs"]]
        print(f"  rank correlation of epoch 2 with the end, {AXES['epochs']} epochs: {np.round(ranks, 3)}")
        for k in np.argsort(-end)[:5]:
            print(f"  {end[k]:.2f}", *(f"{key}={value}" for key, value in flat_config(whole[k]).items()))
    print(f"seconds: {table['train_seconds'].sum():.0f} training, {table['val_seconds'].sum():.0f} validating")


def main() -> None:
    """Train what is missing, then print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/wafer_table.npz"))
    parser.add_argument("--epoch-samples", type=int, default=2_500)
    parser.add_argument("--cells", type=int, default=N_CELLS, help="stop when so many are recorded")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    dataset = open_dataset(
        given.data, synthetic_wafers=0, picture=PICTURE, by="lot", pool=0, val=0.2, test=0.15, seed=0, cache=CACHE
    )
    train, val, classes = dataset.encode("train"), dataset.encode("val"), dataset.wafers.classes
    data = TrialData(train=train, val=val, n_classes=len(classes), epoch_samples=given.epoch_samples)
    about = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "device": f"{platform.machine()} CPU, {torch.get_num_threads()} thread",
        "precision": str(choose_dtype("auto", train.labels.device)).removeprefix("torch."),
        "data": {"fingerprint": dataset.wafers.fingerprint, "split_fingerprint": dataset.splits.fingerprint},
        "wafers": {"train": len(train), "val": len(val)},
        "picture": {"image_size": PICTURE.image_size, "encoding": PICTURE.encoding},
        "epoch_samples": given.epoch_samples,
        "fixed": FIXED,
        "options": OPTIONS,
    }
    kept = given.out.with_suffix(".partial.npz")
    table = open_table(kept, n_classes=len(classes), about=about)
    order = np.random.default_rng(0).permutation(N_CELLS)[: given.cells]
    missing = [index for index in order.tolist() if table["epochs_done"][index] == _NOTHING]
    for index in track(missing, description=f"{len(missing)} cells"):
        record_cell(table, index, data)
        write_table(kept, table, classes=classes, about=about)
    if given.cells >= N_CELLS:
        kept.rename(given.out)
    print_summary(table)


if __name__ == "__main__":
    main()
