"""Does the simulator tell the truth? The same search of our wafer table, simulated and by real Ray.

    python -m benchmarks.truth [--trials 40] [--speed 20]

Real slots replay the recorded trainings, `--speed` times as fast: they sleep as long as each epoch took and report what
it came to. In one slot both must agree report by report; in two, results that arrive nearly at once may swap.
"""

import argparse
import importlib
import json
import os
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import search.execution  # noqa: F401 - sets what Ray reads when it is imported

# isort: split
import numpy as np

import search.execution.tuner as tuner
from benchmarks.tables import Play, WaferTask, make_config
from data_pipeline.batches import wrap_arrays
from search.errors import TrialFailed
from search.execution.cluster import start_ray, stop_ray
from search.execution.interrupts import Interrupts
from search.execution.packing import Node
from search.execution.trainable import WaferTrial
from search.simulation import simulate
from search.space.config import ResourcesConfig, StudyConfig
from search.study.records import StudyFolder
from search.study.rows import COMPLETE, TrialRecord
from search.study.study import Assignment, Study
from search.trial.data import TrialData
from search.trial.params import from_flat
from search.trial.training import EpochReport

_SPEED = "WAFER_SEARCH_REPLAY_SPEED"
_TABLE = Path("benchmarks/wafer_table.npz").resolve()


class ReplayedTrial(WaferTrial):
    """Sleeps and reports what was recorded."""

    def _next_report(self) -> EpochReport:
        if self._training is None:
            config, number = json.loads(self._config["params"]), self._config["number"]
            params = from_flat(config, where="trial", image_size=self._image_size)
            task = load_task(_TABLE)
            assignment = Assignment(number=number, config=config, params=params, expected_memory=0, epochs_done=0)
            self._training = task.replay(task.find_row(config, ()), 0, assignment)  # type: ignore[assignment]
        seconds, outcome = next(self._training)  # type: ignore[misc,arg-type]
        time.sleep(seconds / float(os.environ[_SPEED]))
        if isinstance(outcome, TrialFailed):
            raise outcome
        return outcome


@cache
def load_task(path: Path) -> WaferTask:
    """Load the table, once per process."""
    return WaferTask(path)


def search_really(config: StudyConfig, classes: tuple[str, ...], slots: int) -> tuple[list[TrialRecord], float]:
    """Run the search on real Ray; return its trials and the seconds that it took, with the start of the slots."""
    cluster = start_ray(None, ResourcesConfig(), config.space.models, dashboard=False)
    cluster = replace(cluster, packing=replace(cluster.packing, nodes=(Node("here", slots, 0),)))
    empty = wrap_arrays(np.zeros((1, 8, 8), np.uint8), np.zeros(1, np.int64))
    data = TrialData(train=empty, val=empty, n_classes=len(classes), epoch_samples=1, features=None)
    tuner.WaferTrial = ReplayedTrial  # type: ignore[attr-defined, misc]
    try:
        with tempfile.TemporaryDirectory() as scratch, Interrupts() as interrupts:
            folder = StudyFolder(Path(scratch) / "study")
            with Study(folder, config, classes=classes) as study:
                tuner.run_trials(study, data, cluster, on_event=lambda number: None, interrupts=interrupts)
                return list(study.records.values()), study.elapsed
    finally:
        stop_ray()


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--speed", type=float, default=20.0)
    given = parser.parse_args()
    os.environ[_SPEED] = str(given.speed)  # slots inherit it
    os.environ["PYTHONPATH"] = str(Path.cwd())  # slots must find `benchmarks` too
    task = load_task(_TABLE)
    for slots in (1, 2):
        play = Play(task, 0)
        config = make_config("truth", play.space, {"search.trials": given.trials})
        simulated = simulate(config, play, classes=task.classes, workers=slots, check=task.check)
        real, seconds = search_really(config, task.classes, slots)
        same = sum(
            (a.config, a.status, a.values) == (b.config, b.status, b.values)
            for a, b in zip(simulated.records, real, strict=False)
        )
        best = max((record for record in real if record.status == COMPLETE), key=lambda record: record.value)
        assert simulated.shipped is not None
        n_reports = sum(len(record.values) for record in real)
        print(
            f"{slots} slots, {given.trials} trials: {same} of {len(real)} trials are the same to the last digit; "
            f"reports {simulated.n_reports} simulated, {n_reports} real; shipped {simulated.shipped.value:.4f} and "
            f"{best.value:.4f}; {simulated.seconds / given.speed:.0f} s simulated, {seconds:.0f} s real"
        )


if __name__ == "__main__":  # slots look the trial's class up by its module, which must not be __main__
    importlib.import_module("benchmarks.truth").main()
