"""What a trial costs beside its training.

    python -m benchmarks.overhead [--rounds 3]

Slots should train, not wait. Printed are, of real searches on this machine, the share of the slots' time that was spent
inside training and validation, for trials of about 2 and 10 seconds, and what a trial that trains nothing costs: ours,
and that of the usual way, a function trainable with OptunaSearch and ASHAScheduler, in the same run. Starting Ray and
the first trial of each slot are left out on both sides.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import search.execution  # noqa: F401 - sets what Ray reads when it is imported

# isort: split
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console

import search.execution.tuner as tuner
from search.execution.cluster import Cluster, start_ray, stop_ray
from search.execution.interrupts import Interrupts
from search.execution.trainable import WaferTrial
from search.space.config import ResourcesConfig
from search.space.config_file import load_study_config
from search.study.data import open_data, trial_data
from search.study.records import StudyFolder, read_lines
from search.study.study import Study
from search.testing import fake_report
from search.trial.training import EpochReport

_EPOCHS = 5
_SPACE = """
name: overhead
data: {{wafers: synthetic, synthetic_wafers: 1500, image_size: 24, epoch_samples: {samples}}}
space:
  epochs: {epochs}
  model: {{choose: {{wafer_cnn: {{width: 8, lr: {{low: 1e-4, high: 1e-2, log: true}}, batch_size: 64}}}}}}
search: {{trials: {trials}, stop: none}}
"""


class EmptyTrial(WaferTrial):
    """Trains nothing."""

    def _next_report(self) -> EpochReport:
        return fake_report(1, quality=0.5, n_classes=len(self._classes))


def run_ours(cluster: Cluster, *, trials: int, epochs: int, samples: int) -> tuple[float, float, float]:
    """Run one search of ours.

    Returns:
        Share of the slots' time inside training and validation; seconds of a trial; seconds from one end to the next.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "overhead.yaml"
        file.write_text(_SPACE.format(trials=trials, epochs=epochs, samples=samples), "utf-8")
        config = load_study_config(file)
        dataset = open_data(config.data, results=Path(scratch))
        folder = StudyFolder(Path(scratch) / "study")
        with Study(folder, config, classes=dataset.wafers.classes) as study, Interrupts() as interrupts:
            data = trial_data(dataset, config.data)
            tuner.run_trials(study, data, cluster, on_event=lambda number: None, interrupts=interrupts)
        return _read_shares(list(read_lines(folder.trials)), slots=cluster.packing.slots)


def _read_shares(rows: list[dict[str, Any]], *, slots: int) -> tuple[float, float, float]:
    """Leave out what came before the first trial of each slot had ended."""
    ends = [row for row in rows if row["epoch"] == row["epochs"]]
    start, end = ends[slots - 1]["elapsed"], ends[-1]["elapsed"]
    busy = 0.0
    for row in rows:  # an epoch that was under way at the start counts with what lay after it
        seconds = row["train_seconds"] + row["val_seconds"]
        busy += max(0.0, min(seconds, row["elapsed"] - start))
    n = len(ends) - slots
    return busy / slots / (end - start), busy / n, (end - start) / n


def _train_nothing(config: dict[str, Any]) -> None:
    tune.report({"f1": config["lr"], "epoch": 1})


def run_stock(*, trials: int, slots: int) -> float:
    """Return the seconds from one end of an empty trial to the next, in the usual way."""
    ends: list[float] = []

    class Watch(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ends.append(time.monotonic())

    with tempfile.TemporaryDirectory() as scratch:
        tune.Tuner(
            tune.with_resources(_train_nothing, {"cpu": 1}),
            param_space={"lr": tune.loguniform(1e-4, 1e-2)},
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(metric="f1", mode="max", seed=0),
                scheduler=ASHAScheduler(metric="f1", mode="max", time_attr="epoch", max_t=10),
                num_samples=trials,
                max_concurrent_trials=slots,
            ),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0, callbacks=[Watch()]),
        ).fit()
    return (ends[-1] - ends[slots - 1]) / (len(ends) - slots)


def _measure_shares(cluster: Cluster, console: Console) -> None:
    samples = 3000  # of an epoch; made to fit by a first short search
    for target, trials in ((2.0, 30), (10.0, 12)):
        _, seconds, _ = run_ours(cluster, trials=2 * cluster.packing.slots, epochs=_EPOCHS, samples=samples)
        samples = max(64, round(samples * target / seconds))
        busy, seconds, _ = run_ours(cluster, trials=trials, epochs=_EPOCHS, samples=samples)
        console.print(f"ours, trials of {seconds:.2f} s: slots train {100 * busy:.1f} % of the time (n = {trials})")


def _measure_empty(cluster: Cluster, console: Console, *, rounds: int) -> None:
    ours, stock = [], []
    for _ in range(rounds):
        whole, tuner.WaferTrial = tuner.WaferTrial, EmptyTrial  # type: ignore[attr-defined, misc]
        ours.append(run_ours(cluster, trials=60, epochs=1, samples=64)[2])
        tuner.WaferTrial = whole  # type: ignore[attr-defined, misc]
        stock.append(run_stock(trials=12, slots=cluster.packing.slots))
    for name, each in (("ours", ours), ("OptunaSearch + ASHAScheduler, function", stock)):
        spread = f"{min(each):.3f} to {max(each):.3f}"
        console.print(f"{name}: an empty trial every {statistics.median(each):.3f} s ({spread}, {rounds} rounds)")


def main() -> None:
    """Measure on one Ray and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="of empty trials (default: %(default)s)")
    given = parser.parse_args()
    console = Console(highlight=False)
    cluster = start_ray(None, ResourcesConfig(), ["wafer_cnn"], dashboard=False)
    console.print(cluster.packing.describe())
    try:
        _measure_empty(cluster, console, rounds=given.rounds)
        _measure_shares(cluster, console)
    finally:
        stop_ray()


if __name__ == "__main__":
    main()
