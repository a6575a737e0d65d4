"""What a search loses by being killed twenty times: nothing, if the same command goes on.

    OMP_NUM_THREADS=1 python -m benchmarks.kills [--seeds 20]

Searches of our own table in simulated time, each once as a whole and once killed after 3 to 25 reports, twenty times,
and opened again. Printed is what the shipped configurations are worth, and the reports that both took. That a real
`kill -9` leaves nothing else behind is what tests/end_to_end/test_chaos.py shows.
"""

import argparse
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.progress import track

from benchmarks.tables import Play, WaferTask, make_config
from search.simulation import Simulation, simulate
from search.study.records import StudyFolder
from search.study.rows import COMPLETE, RUNNING

_TABLE = Path(__file__).parent / "wafer_table.npz"
_WORKERS, _TRIALS, _KILLS = 4, 80, 20


def run_search(task: WaferTask, *, seed: int, kills: int) -> tuple[float, int]:
    """Return what the shipped configuration is worth, and the reports of all attempts together."""
    play = Play(task, seed)
    config = make_config("kills", play.space, {"search.trials": _TRIALS, "search.seed": seed})
    dice = random.Random(seed)
    n_reports = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = StudyFolder(Path(scratch) / "study")
        for killed_after in [dice.randint(3, 25) for _ in range(kills)] + [None]:
            found = simulate(
                config,
                play,
                classes=task.classes,
                workers=_WORKERS,
                max_reports=killed_after,
                folder=folder,
                check=task.check,
            )
            n_reports += found.n_reports
    _check(found)
    assert found.shipped is not None
    return play.truth(found.shipped.number), n_reports


def _check(found: Simulation) -> None:
    """Nothing is lost, twice there, or left running."""
    configs: list[Mapping[str, object]] = [record.config for record in found.records]
    assert len({tuple(sorted(config.items())) for config in configs}) == len(configs) == _TRIALS
    assert all(record.status != RUNNING for record in found.records)
    assert all(len(record.reports) == record.epochs for record in found.records if record.status == COMPLETE)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    task = WaferTask(_TABLE)
    worth = {}
    for kills in (0, _KILLS):
        runs = [run_search(task, seed=seed, kills=kills) for seed in track(range(given.seeds), f"{kills} kills")]
        worth[kills], reports = np.array(runs).T
        error = worth[kills].std(ddof=1) / np.sqrt(given.seeds)
        print(f"{kills} kills: shipped {worth[kills].mean():.4f} ± {error:.4f}, {reports.mean():.0f} reports")
    gain = worth[_KILLS] - worth[0]
    print(f"paired difference {gain.mean():+.4f} ± {gain.std(ddof=1) / np.sqrt(given.seeds):.4f}, n = {given.seeds}")


if __name__ == "__main__":
    main()
