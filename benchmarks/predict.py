"""How fast `search.predict` calls wafers, beside the bare forward pass of the same network on encoded maps in memory.

    python -m benchmarks.predict [--data data/wafers.parquet] [--wafers 20000] [--repeats 5] [--threads 2]

The network is `wafer_cnn` of width 32 at 40 pixels, untrained, from one view. Both sides take turns in one process;
the rates are medians, and the share is the median of the pairs.
"""

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from data_pipeline.batches import plain_batches, wrap_arrays
from data_pipeline.encode import Picture, encode_maps
from data_pipeline.wafer_files import load_wafers, write_parquet
from data_pipeline.wafer_set import WaferSet
from models import build_model
from search.final.model_file import TrainedModel, save_model
from search.final.prediction_run import PredictRequest, predict
from search.trial.decision import DecisionRule
from search.trial.evaluation import choose_dtype, predict_batches
from search.trial.memory import keep_freed_memory
from search.trial.params import from_flat
from search.trial.prediction import Ensemble, Predictor


def make_model(classes: tuple[str, ...]) -> TrainedModel:
    """Make the model that is timed."""
    params = from_flat({"model": "wafer_cnn", "model.wafer_cnn.width": 32}, where="benchmark", image_size=40)
    network = build_model("wafer_cnn", n_classes=len(classes), options=params.model.options, seed=0)
    return TrainedModel(
        model=Ensemble([Predictor(network, shift=torch.zeros(len(classes)))]).eval(),
        config=params.to_flat(),
        seeds=(0,),
        classes=classes,
        picture=Picture(image_size=40),
        on="train",
        data_fingerprint="",
        split_fingerprint="",
        is_synthetic=False,
        rule=DecisionRule(sure_from=0.5, defect_from=0.5, fitted_on="nothing", n_fitted=1),
    )


def take(wafers: WaferSet, n: int) -> WaferSet:
    """Take the first wafers of a set."""
    return WaferSet(
        cells=wafers.cells[: wafers.offsets[n]],
        offsets=wafers.offsets[: n + 1],
        heights=wafers.heights[:n],
        widths=wafers.widths[:n],
        labels=wafers.labels[:n],
        classes=wafers.classes,
        lots=wafers.lots[:n],
        lot_names=wafers.lot_names,
        source=wafers.source,
    )


def main() -> None:
    """Time both sides in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/wafers.parquet"))
    parser.add_argument("--wafers", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    whole = load_wafers(given.data)
    wafers = take(whole, min(given.wafers, len(whole)))
    trained, n = make_model(wafers.classes), len(wafers)
    dtype = choose_dtype(trained.precision, torch.device("cpu"))
    maps = encode_maps(wafers, np.arange(n), picture=trained.picture)
    bare, ours = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_model(trained, folder / "model.pt")
        write_parquet(wafers, folder / "wafers.parquet")
        request = PredictRequest(
            model=folder / "model.pt",
            source=folder / "wafers.parquet",
            out=folder / "calls.csv",
            threads=given.threads,
        )
        for _ in range(given.repeats):
            start = time.perf_counter()
            predict_batches(trained.model, plain_batches(wrap_arrays(maps, wafers.labels)), dtype=dtype)
            bare.append(n / (time.perf_counter() - start))
            start = time.perf_counter()
            predict(request, Console(file=io.StringIO()))
            ours.append(n / (time.perf_counter() - start))
    shares = [100 * b / a for a, b in zip(bare, ours, strict=True)]
    print(f"{n:,} wafers, {given.threads} threads, {dtype}, torch {torch.__version__}, {given.repeats} pairs")
    for name, rates in (("bare forward pass", bare), ("search.predict", ours)):
        print(f"{name:<20}{statistics.median(rates):>8,.0f} wafers/s ({min(rates):,.0f}-{max(rates):,.0f})")
    print(f"{'share':<20}{statistics.median(shares):>7.1f} % ({min(shares):.1f}-{max(shares):.1f})")


if __name__ == "__main__":
    main()
