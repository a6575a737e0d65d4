"""Trials per hour against slots.

    OMP_NUM_THREADS=1 python -m benchmarks.scaling [--slots 1 2 4 8] [--epoch-seconds 1] [--repeats 3]
    python -m benchmarks.scaling --gpus --slots 1 2 4 8        one GPU each, real training; not run yet

Real searches on a real Ray of this machine. Without --gpus an epoch sleeps, so that what is measured is whether Tune,
the study and its sampler keep up with their slots, and not how many cores there are. Efficiency is the trials per hour
of n slots over n times those of one, from when every slot has ended a trial to the end of its last. Beside it stand
those of the whole run, with the start of the slots, and what a slot waits between two reports of a trial, and from one
trial to the next. Medians of repeats, smallest and largest beside them. --trials-per-slot must outlast the start of all
slots.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import search.execution  # noqa: F401 - sets what Ray reads when it is imported

# isort: split
import ray
from rich.console import Console
from rich.table import Table

import search.execution.tuner as tuner
from search.errors import ConfigError
from search.execution.cluster import Cluster, stop_ray
from search.execution.interrupts import Interrupts
from search.execution.packing import Node, Packing, Slice
from search.execution.trainable import WaferTrial
from search.space.config_file import load_study_config
from search.study.data import open_data, trial_data
from search.study.records import StudyFolder
from search.study.study import Study
from search.testing import fake_report
from search.trial.training import EpochReport

_SPACE = """
name: scaling
data: {{wafers: synthetic, synthetic_wafers: 1500, image_size: 24, epoch_samples: {samples}}}
space:
  epochs: {epochs}
  weight_decay: {{low: 1e-6, high: 1e-1, log: true}}
  model: {{choose: {{wafer_cnn: {{width: 16, lr: {{low: 1e-4, high: 1e-2, log: true}}, batch_size: 128}}}}}}
search: {{trials: {trials}, stop: none}}
"""


class SleepingTrial(WaferTrial):
    """Sleeps in place of training, and writes no checkpoint."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """See WaferTrial."""
        self._epoch = 0
        return super().reset_config(new_config)

    def _next_report(self) -> EpochReport:
        start = time.perf_counter()
        time.sleep(self._config["epoch_seconds"])
        self._epoch += 1
        report = fake_report(self._epoch, quality=0.5 + self._config["number"] / 1e6, n_classes=len(self._classes))
        return replace(report, train_seconds=time.perf_counter() - start, val_seconds=0.0)


@dataclass(frozen=True, slots=True)
class Event:
    """A report, as the driver has heard of it: when, from which slot and trial, how far that is, and its seconds."""

    at: float
    slot: int
    number: int
    is_last: bool
    busy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One search: trials per hour of the started slots, and of all of it; what a slot waits, in milliseconds."""

    per_hour: float
    per_hour_in_all: float
    between_reports: float
    between_trials: float


def run_search(cluster: Cluster, given: argparse.Namespace) -> Run:
    """Run one search on so many slots."""
    trials = cluster.packing.slots * given.trials_per_slot
    events: list[Event] = []
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "scaling.yaml"
        file.write_text(_SPACE.format(trials=trials, epochs=given.epochs, samples=given.epoch_samples), "utf-8")
        config = load_study_config(file)
        dataset = open_data(config.data, results=Path(scratch))
        folder = StudyFolder(Path(scratch) / "study")
        with Study(folder, config, classes=dataset.wafers.classes) as study, Interrupts() as interrupts:

            def on_event(number: int) -> None:
                record = study.records[number]
                busy = record.reports[-1].train_seconds + record.reports[-1].val_seconds
                is_last = len(record.reports) == record.epochs
                events.append(Event(time.monotonic(), record.slot, number, is_last, busy))

            data = trial_data(dataset, config.data)
            brief: Callable[[Any], dict[str, object]] = lambda record: {"epoch_seconds": given.epoch_seconds}  # noqa: E731
            with patch.object(tuner, "WaferTrial", WaferTrial if given.gpus else SleepingTrial):
                start = time.monotonic()
                if not tuner.run_trials(study, data, cluster, on_event=on_event, interrupts=interrupts, brief=brief):
                    raise KeyboardInterrupt
    return summarise(events, start=start)


def summarise(events: list[Event], *, start: float) -> Run:
    """Leave out what came before all slots had ended a trial, but for what is said of all of the run."""
    of_slot: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        of_slot[event.slot].append(event)
    warm = max(next(event.at for event in heard if event.is_last) for heard in of_slot.values())
    per_second, within, across = 0.0, [], []
    for heard in of_slot.values():
        ends = [event.at for event in heard if event.is_last and event.at >= warm]
        if len(ends) < 2:
            raise ConfigError("a slot has run fewer than two trials beside the others; ask for more --trials-per-slot")
        per_second += (len(ends) - 1) / (ends[-1] - ends[0])
        for before, after in pairwise(event for event in heard if event.at >= warm):
            waited = 1000 * (after.at - before.at - after.busy)
            (within if before.number == after.number else across).append(waited)
    n_trials = sum(event.is_last for event in events)
    return Run(
        per_hour=3600 * per_second,
        per_hour_in_all=3600 * n_trials / (events[-1].at - start),
        between_reports=statistics.median(within),
        between_trials=statistics.median(across),
    )


@contextmanager
def local_ray(given: argparse.Namespace) -> Iterator[float]:
    """Start a Ray with as many cores as slots are asked for, whatever there are; yield the seconds that it took."""
    start = time.monotonic()
    n_gpus = max(given.slots) if given.gpus else 0
    n_cpus = max(given.slots) if not given.gpus else os.cpu_count()
    ray.init(
        address="local", num_cpus=n_cpus, num_gpus=n_gpus, include_dashboard=False, log_to_driver=False,
        logging_level="error",
    )  # fmt: skip
    try:
        yield time.monotonic() - start
    finally:
        stop_ray()


def spread(values: list[float]) -> str:
    """Write a median, and the smallest and largest beside it."""
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def print_runs(console: Console, runs: dict[int, list[Run]]) -> None:
    """Print one line per number of slots."""
    table = Table("slots", "trials per hour", "efficiency", "with start of slots", "between reports ms", "trials ms")
    least = min(runs)
    alone = statistics.median(run.per_hour for run in runs[least]) / least
    for slots, found in runs.items():
        rates = [run.per_hour for run in found]
        table.add_row(
            str(slots),
            spread(rates),
            f"{100 * statistics.median(rates) / slots / alone:.1f} %",
            spread([run.per_hour_in_all for run in found]),
            spread([run.between_reports for run in found]),
            spread([run.between_trials for run in found]),
        )
    console.print(table)
    console.print(f"load of the machine now: {os.getloadavg()[0]:.1f}, where {os.cpu_count()} cores are")


def main() -> None:
    """Measure on one Ray and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--epoch-seconds", type=float, default=1.0, help="that an epoch sleeps")
    parser.add_argument("--epochs", type=int, default=3, help="of each trial")
    parser.add_argument("--trials-per-slot", type=int, default=14)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gpus", action="store_true", help="train really, each slot on a GPU of its own")
    parser.add_argument("--epoch-samples", type=int, default=12_000, help="wafers of an epoch that trains")
    given = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    runs: dict[int, list[Run]] = {slots: [] for slots in sorted(given.slots)}
    cpus = max(1, (os.cpu_count() or 1) // max(given.slots)) if given.gpus else 1
    with local_ray(given) as seconds:
        console.print(f"Ray started in {seconds:.1f} s")
        for repeat in range(given.repeats):
            for slots, found in runs.items():
                node = Node("this machine", slots * cpus, slots * given.gpus)
                packing = Packing(nodes=(node,), slices={"wafer_cnn": Slice(cpus, float(given.gpus))})
                found.append(run_search(Cluster(packing=packing), given))
                console.print(f"repeat {repeat + 1}, {slots} slots: {found[-1].per_hour:,.0f} trials per hour")
    what = "real training" if given.gpus else f"{given.epochs} epochs of {given.epoch_seconds:g} s"
    console.print(f"{what}, {given.trials_per_slot} trials per slot, n = {given.repeats}")
    print_runs(console, runs)


if __name__ == "__main__":
    main()
