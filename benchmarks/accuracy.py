"""What each lever of the training is worth: the same training with one thing changed, several seeds, held-out wafers.

    python -m benchmarks.accuracy --data FILE --protocol lot --epochs 6 --seeds 0 1 [--arms base ema ...] [--workers 2]
    python -m benchmarks.accuracy --data FILE --protocol folds --epochs 18 --seeds 0 1 2 --arms best

`lot`, `product` and `time` train on the training part of that division and judge on its validation part; `folds` pools
five folds that share no lot and no identical map, each wafer judged by the model that has not seen it. The last epoch
is judged, none is chosen. Every finished training is kept in `--out`, so that the command goes on where it stopped.
"""

import argparse
import hashlib
import json
import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.accuracy_table import COLUMNS, class_lines, lines_of
from benchmarks.arms import ARMS, BASE
from data_pipeline.batches import EncodedWafers, plain_batches, wrap_arrays
from data_pipeline.encode import Picture, load_encoded
from data_pipeline.protocols import PROTOCOLS, k_folds
from data_pipeline.splits import Splits
from data_pipeline.wafer_files import load_wafers
from search.trial.data import TrialData
from search.trial.evaluation import autocast
from search.trial.learner import Learner
from search.trial.memory import keep_freed_memory
from search.trial.params import from_flat
from search.trial.prediction import DECIDE_FOR, Predictor, TestTime

N_FOLDS = 5
VIEWS: Mapping[str, TestTime] = {"one": "single", "eight": "symmetries"}
Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training."""

    data: str
    out: str
    protocol: str
    part: int
    arm: str
    seed: int
    epochs: int
    epoch_samples: int
    views: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where its result is kept: another name for other wafers, or if the arm has changed since."""
        what = hashlib.sha256(f"{self.data} {BASE} {ARMS[self.arm]} {self.views}".encode()).hexdigest()[:8]
        run = f"{self.epochs}x{self.epoch_samples}-s{self.seed}"
        return Path(self.out) / f"{self.protocol}-{self.part}-{self.arm}-{run}-{what}.npz"


def split_wafers(job: Job) -> tuple[Any, Splits]:
    """Load the wafers and divide them as the job asks."""
    wafers = load_wafers(Path(job.data))
    if job.protocol == "folds":
        return wafers, k_folds(wafers, k=N_FOLDS, seed=0)[job.part]
    return wafers, PROTOCOLS[job.protocol](wafers, val=0.2, test=0.15, seed=0)


def run_job(job: Job) -> Job:
    """Train, keep the logits of the wafers of the validation part, from one view and, if asked for, from eight."""
    torch.set_num_threads(1)
    keep_freed_memory()
    wafers, splits = split_wafers(job)
    picture = Picture(**BASE["data"] | ARMS[job.arm].get("data", {}))
    parts = [
        wrap_arrays(load_encoded(wafers, rows, picture=picture, cache=Path(job.out) / "cache"), wafers.labels[rows])
        for rows in (splits.train, splits.val)
    ]
    asked = {**BASE, **ARMS[job.arm], "epochs": job.epochs, "seed": job.seed}
    flat = {key: value for key, value in asked.items() if key != "data" and value is not None}
    params = from_flat(flat, where=job.arm, image_size=picture.image_size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, val = (part.to(device) for part in parts)
    data = TrialData(train=train, val=None, n_classes=len(wafers.classes), epoch_samples=job.epoch_samples)
    start = time.perf_counter()
    learner = Learner(params, data, generator=torch.Generator().manual_seed(job.seed))
    for epoch in range(1, params.epochs + 1):
        learner.learn(epoch)
    seconds = time.perf_counter() - start
    network = learner.predictor.network
    logits = {view: compute_logits(network, val, test_time=VIEWS[view], dtype=learner.dtype) for view in job.views}
    shifts = {wanted: learner.shift_for(wanted).cpu().numpy() for wanted in DECIDE_FOR}
    partial = job.path.with_suffix(".partial.npz")
    np.savez(partial, **logits, labels=val.labels.cpu(), rows=splits.val, seconds=seconds, **shifts)
    partial.rename(job.path)
    return job


@torch.inference_mode()
def compute_logits(
    network: torch.nn.Module, wafers: EncodedWafers, *, test_time: TestTime, dtype: torch.dtype
) -> Logits:
    """Return log-probabilities (N, K), uncorrected."""
    rule = Predictor(network, shift=torch.zeros(1), test_time=test_time)
    rule.to(wafers.labels.device).eval()
    logits = []
    for channels, labels in plain_batches(wafers):
        with autocast(labels.device, dtype):
            logits.append(rule(channels).log_softmax(1).cpu())
    return torch.cat(logits).numpy()


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", default="results/accuracy")
    parser.add_argument("--protocol", choices=["lot", "product", "time", "folds"], default="lot")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--epoch-samples", type=int, default=12_000)
    parser.add_argument("--workers", type=int, default=2, help="trainings side by side, one thread each")
    parser.add_argument("--eight-views", action="store_true", help="also judge the mean over the eight symmetries")
    parser.add_argument("--classes", action="store_true", help="also F1 per class: natural and balanced, one and all")
    given = parser.parse_args()
    Path(given.out).mkdir(parents=True, exist_ok=True)
    jobs = {
        arm: {
            seed: [
                Job(
                    data=str(Path(given.data).resolve()), out=given.out, protocol=given.protocol, part=part, arm=arm,
                    seed=seed, epochs=given.epochs, epoch_samples=given.epoch_samples,
                    views=tuple(VIEWS) if given.eight_views else ("one",),
                )
                for part in range(N_FOLDS if given.protocol == "folds" else 1)
            ]
            for seed in given.seeds
        }
        for arm in given.arms
    }  # fmt: skip
    missing = [job for seeds in jobs.values() for parts in seeds.values() for job in parts if not job.path.exists()]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.workers, mp_context=context) as pool:
        waiting = as_completed([pool.submit(run_job, job) for job in missing])
        for done in track(waiting, total=len(missing), description=f"{len(missing)} trainings"):
            print(json.dumps(asdict(done.result())), flush=True)
    wafers = load_wafers(Path(given.data))
    print(f"{given.protocol}, {given.epochs} epochs of {given.epoch_samples:,}, torch {torch.__version__}")
    print("macro-F1 in %: mean over seeds (their range) [95 % over lots]; seconds of one training, all folds")
    print(f"| arm | views | {' | '.join(name for name, *_ in COLUMNS)} | s |\n|{' --- |' * (len(COLUMNS) + 3)}")
    for arm, by_seed in jobs.items():
        paths = {seed: [job.path for job in parts] for seed, parts in by_seed.items()}
        print("\n".join(lines_of(arm, paths, wafers)), flush=True)
        if given.classes:
            print("\n".join(class_lines(paths, wafers)))


if __name__ == "__main__":
    main()
