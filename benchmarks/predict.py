"""Throughput of predict, the whole command, and of the bare forward pass it cannot beat, in one process.

    python -m benchmarks.predict [--data data/wafers.parquet] [--image-size 40] [--width 32] [--threads 2]

Ours reads the file, encodes, calls and writes, as `python -m search.predict` does, without the start of Python. Bare is
the same network on one fixed batch again and again. The rounds alternate, so that a machine whose speed drifts does not
favour one of them; each ratio is of one round's two sides. Where others use the machine too, the rates compare badly,
for ours has a thread more to claim its share with: then look at the ratio of processor times, with --threads 1.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console

from data_pipeline.augment import to_channels
from data_pipeline.batches import EVALUATION_BATCH
from data_pipeline.encode import Picture, encode_maps
from data_pipeline.streaming import stream_wafers
from data_pipeline.wafer_set import WM811K_CLASSES
from models import build_model
from search.final.model_file import TrainedModel, load_model, save_model
from search.final.prediction_run import PredictRequest, predict
from search.trial.decision import DecisionRule
from search.trial.evaluation import choose_dtype, predict_batches
from search.trial.memory import keep_freed_memory
from search.trial.params import from_flat
from search.trial.prediction import Ensemble, Predictor

_ROUNDS = 5


@dataclass(frozen=True)
class _Given:
    """The command line."""

    data: Path
    image_size: int
    width: int
    threads: int
    rounds: int
    copies: int


@dataclass(frozen=True)
class _Speed:
    """Of one side in one round: wafers per second, and processor time of each wafer in microseconds."""

    rate: float
    cpu_us: float

    @classmethod
    def of(cls, n: int, start: float, used: float) -> Self:
        return cls(rate=n / (time.perf_counter() - start), cpu_us=(time.process_time() - used) / n * 1e6)


def make_model(given: _Given) -> TrainedModel:
    """Make an untrained model: it is as fast as a trained one."""
    params = from_flat({"model.wafer_cnn.width": given.width}, where="benchmark", image_size=given.image_size)
    network = build_model("wafer_cnn", n_classes=len(WM811K_CLASSES), options=params.model.options, seed=0)
    return TrainedModel(
        model=Ensemble([Predictor(network, shift=torch.zeros(len(WM811K_CLASSES)))]).eval(),
        config=params.to_flat(),
        seeds=(0,),
        classes=WM811K_CLASSES,
        picture=Picture(image_size=given.image_size),
        on="train",
        data_fingerprint="",
        split_fingerprint="",
        is_synthetic=False,
        rule=DecisionRule(sure_from=0.5, defect_from=0.5),
    )


def repeat_rows(source: Path, out: Path, copies: int) -> Path:
    """Write a file with the rows of another several times over: as many wafers as a large data set has."""
    with pq.ParquetFile(source) as file, pq.ParquetWriter(out, file.schema_arrow, compression="zstd") as writer:
        for _ in range(copies):
            for group in range(file.metadata.num_row_groups):
                writer.write_table(file.read_row_group(group))
    return out


def time_ours(model: Path, data: Path, out: Path, threads: int) -> _Speed:
    """Run the whole command."""
    start, used = time.perf_counter(), time.process_time()
    predict(PredictRequest(model=model, source=data, out=out, threads=threads), Console(file=StringIO()))
    return _Speed.of(pq.ParquetFile(data).metadata.num_rows, start, used)


def time_bare(trained: TrainedModel, data: Path, n: int, threads: int) -> _Speed:
    """Run the network alone on `n` wafers."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    first = next(iter(stream_wafers(data, size=EVALUATION_BATCH))).wafers
    assert first is not None
    maps = torch.from_numpy(encode_maps(first, np.arange(len(first)), picture=trained.picture)).to(device)
    batch, labels = to_channels(maps), torch.zeros(len(first), dtype=torch.int64, device=device)
    model, dtype = trained.model.to(device), choose_dtype(trained.precision, device)
    times = -(-n // len(first))
    start, used = time.perf_counter(), time.process_time()
    logits, _ = predict_batches(model, ((batch, labels) for _ in range(times)), dtype=dtype)
    logits.cpu()
    return _Speed.of(times * len(first), start, used)


def measure(given: _Given) -> None:
    """Time both sides in turn and print them."""
    with tempfile.TemporaryDirectory() as folder:
        model, out = Path(folder) / "model.pt", Path(folder) / "calls.csv"
        save_model(make_model(given), model)
        data = given.data
        if given.copies > 1:
            data = repeat_rows(given.data, Path(folder) / "wafers.parquet", given.copies)
        n = pq.ParquetFile(data).metadata.num_rows
        print(f"{n:,} wafers of {data.name}, wafer_cnn width {given.width}, {given.image_size} px, no averaging")
        ours: list[_Speed] = []
        bare: list[_Speed] = []
        trained = load_model(model)
        keep_freed_memory()  # as predict does
        time_bare(trained, data, 4096, given.threads)  # warms up
        for _ in range(given.rounds):
            bare.append(time_bare(trained, data, min(n, 20_000), given.threads))
            ours.append(time_ours(model, data, out, given.threads))
            load = os.getloadavg()[0]
            print(f"  ours {_say(ours[-1])}   bare {_say(bare[-1])}   load {load:.1f}", flush=True)
    for name, speeds in (("ours, the whole command", ours), ("bare forward pass", bare)):
        rates = [speed.rate for speed in speeds]
        low, high = min(rates), max(rates)
        print(f"  {statistics.median(rates):>8,.0f} wafers/s ({low:,.0f} to {high:,.0f}, n={given.rounds})  {name}")
    shares = {
        "ours / bare, wafers/s": [mine.rate / most.rate for mine, most in zip(ours, bare, strict=True)],
        "bare / ours, processor time": [most.cpu_us / mine.cpu_us for mine, most in zip(ours, bare, strict=True)],
    }
    for name, values in shares.items():
        print(f"  {statistics.median(values):>8.2f} ({min(values):.2f} to {max(values):.2f})  {name}")
    print(f"  memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def _say(speed: _Speed) -> str:
    return f"{speed.rate:>7,.0f} wafers/s, {speed.cpu_us:>5,.0f} us of processor each"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/wafers.parquet"))
    parser.add_argument("--image-size", type=int, default=40)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--copies", type=int, default=1, help="of every row, to measure large files")
    given = _Given(**vars(parser.parse_args()))
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {given.threads} threads"
    print(f"{where}, torch {torch.__version__}")
    measure(given)


if __name__ == "__main__":
    main()
