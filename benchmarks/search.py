"""Our search against stock Ray Tune and random search, on recorded trainings, in simulated time.

    OMP_NUM_THREADS=1 python -m benchmarks.search --tables ../shared/data/hpo_tables.npz [--seeds 20] [--jobs 2]

tables: 8 tables of final scores, 100 trials, 4 workers. taskset: 6 sets of curves of 51 points, as many reports as 20
whole curves have. own: wafer_table.npz, written by record_table.py. oom: a made-up space of which a fifth does not fit
into memory, beside the optimum, 80 trials. Both sides get the same study, seeds and recordings; what random search
reaches is an exact expectation. Numbers are means over the seeds with their standard errors.
"""

import argparse
import json
import math
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks.stock import simulate_stock
from benchmarks.tables import MemoryCornerTask, Play, Task, WaferTask, load_tasks, make_config
from search.simulation import Simulation, simulate
from search.study.rows import COMPLETE, TrialRecord

SIDES = ("ours", "stock")
WORKERS = 4
# What each part sets, before --set; and how many reports it may take.
_ASHA = {"search.stop.asha.first_rung": 3, "search.stop.asha.factor": 3}
PARTS: Mapping[str, tuple[Mapping[str, Any], int | None]] = {
    "tables": ({"search.trials": 100, "search.stop": "none"}, None),
    "taskset": ({"search.trials": 100_000, **_ASHA}, 20 * 51),
    "own": ({"search.trials": 100_000}, 360),
    "oom": ({"search.trials": 80}, None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One search.

    Attributes:
        part: A key of PARTS.
        task: Name of the task.
        side: One of SIDES.
        seed: Of the sampler and of the noise.
        tables: hpo_tables.npz.
        own: wafer_table.npz.
        settings: What the user set, by dotted path.
        confirm: How many trials are trained again, and how often each.
    """

    part: str
    task: str
    side: str
    seed: int
    tables: Path
    own: Path
    settings: Mapping[str, Any]
    confirm: tuple[int, int]


def run_job(job: Job) -> dict[str, Any]:
    """Simulate one search and return what it found: plain numbers, by name."""
    start = time.perf_counter()
    task = next(task for task in load(job.part, job.tables, job.own) if task.name == job.task)
    play = Play(task, job.seed)
    given, max_reports = PARTS[job.part]
    settings = {**given, "search.seed": job.seed, **job.settings}
    config = make_config(job.part, play.space, settings)
    if job.side == "ours":
        found = simulate(config, play, classes=task.classes, workers=WORKERS, max_reports=max_reports, check=task.check)
    else:
        found = simulate_stock(config, play, classes=task.classes, workers=WORKERS, max_reports=max_reports)
    shipped = math.nan if found.shipped is None else play.truth(found.shipped.number)
    numbers = {"shipped": shipped, "wasted": found.n_wasted, "trials": len(found.records), "reports": found.n_reports}
    numbers["course"] = [(n, play.truth(trial)) for n, trial in found.course]
    if job.part == "tables":
        numbers |= _look_closer(found, play, job)
    return numbers | {"seconds": time.perf_counter() - start}


def _look_closer(found: Simulation, play: Play, job: Job) -> dict[str, float]:
    best = max if play.task.maximise else min
    chosen = confirm(found.records, play, k=job.confirm[0], s=job.confirm[1])
    return {
        "best": best(play.truth(record.number) for record in found.records if record.values),
        "confirmed": play.truth(chosen.number),
    }


def confirm(records: Sequence[TrialRecord], play: Play, *, k: int, s: int) -> TrialRecord:
    """Train the best trials again from other seeds and choose by the mean of those repetitions.

    Args:
        records: All trials.
        play: Knows repetitions that nobody has seen.
        k: How many trials.
        s: How often each; fewer where a table has no more. Without any, its own score has to do.
    """
    complete = sorted((r for r in records if r.status == COMPLETE), key=lambda r: -r.value)
    if not k or not s:
        return complete[0]

    def mean(record: TrialRecord) -> float:
        row, (_, *unseen) = play.rows[record.number], play.columns(record.number)
        scores = [play.task.score(row, column) for column in unseen[:s]]
        return float(np.mean(scores)) if scores else record.value

    return max(complete[:k], key=mean)


@cache
def load(part: str, tables: Path, own: Path) -> list[Task]:
    """Load the tasks of one part; none where our table is not recorded yet."""
    if part == "oom":
        return [MemoryCornerTask()]
    if part == "own":
        return [WaferTask(own)] if own.exists() else []
    return load_tasks(tables, part)


def run_all(jobs: list[Job], n_processes: int) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Run every job and show how far it is."""
    description = f"{len(jobs)} searches"
    if n_processes == 1:
        yield from ((job, run_job(job)) for job in track(jobs, description=description))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_processes, mp_context=context) as pool:
        yield from zip(jobs, track(pool.map(run_job, jobs), description=description, total=len(jobs)), strict=True)


class Results:
    """What the searches of one part found, by task and side, in the order of the seeds."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)

    def column(self, task: str, side: str, name: str) -> np.ndarray:
        """Return one number of every seed."""
        return np.array([numbers[name] for numbers in self.found[task, side]], np.float64)

    def cell(self, task: str, side: str, name: str, show: Callable[[float], str] = "{:.5g}".format) -> str:
        """Write a mean and its standard error."""
        values = self.column(task, side, name)
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return f"{show(values.mean())} ± {error:.2g}"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text in columns."""
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    for row in (header, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def print_tables(tasks: list[Task], results: Results) -> None:
    """Print true scores of the best and of the chosen trials, beside what random search finds."""
    header = ("table", "random 100", "random 200", "ours best", "stock best", "ours shipped", "stock shipped")
    rows, wins = [], {"best": 0, "shipped": 0, "confirmed": 0}
    for task in tasks:
        sign = 1 if task.maximise else -1
        random = {"best": task.random_best(200), "shipped": task.random_best(100), "confirmed": task.random_best(100)}
        for name in wins:
            wins[name] += sign * (results.column(task.name, "ours", name).mean() - random[name]) >= 0
        cells = [results.cell(task.name, side, name) for name in ("best", "shipped") for side in SIDES]
        cells.append(results.cell(task.name, "ours", "confirmed"))
        rows.append((task.name + (" ↑" if task.maximise else " ↓"), f"{random['shipped']:.5g}",
                     f"{random['best']:.5g}", *cells))  # fmt: skip
    print_table((*header, "ours confirmed"), rows)
    print(
        f"ours: best >= random 200 on {wins['best']} of {len(tasks)}; shipped >= random 100 on {wins['shipped']}, "
        f"confirmed on {wins['confirmed']}"
    )


def print_taskset(tasks: list[Task], results: Results) -> None:
    """Print the final validation loss of what is shipped."""
    sizes = (20, 100, 200)
    header = ("task", "ours", "stock", *(f"random {n}" for n in sizes), "ours trials", "stock trials")
    rows, beats_random, beats_stock, loses = [], 0, 0, 0
    for task in tasks:
        ours, stock = (results.column(task.name, side, "shipped").mean() for side in SIDES)
        beats_random += ours <= task.random_best(200)
        beats_stock += ours < stock
        loses += ours > stock
        cells = [results.cell(task.name, side, "shipped") for side in SIDES]
        cells += [f"{task.random_best(n):.5g}" for n in sizes]
        cells += [results.cell(task.name, side, "trials", "{:.0f}".format) for side in SIDES]
        rows.append((task.name.removeprefix("taskset/"), *cells))
    print_table(header, rows)
    print(f"ours <= random 200 on {beats_random} of {len(tasks)}; better than stock on {beats_stock}, worse on {loses}")


def print_own(tasks: list[Task], results: Results) -> None:
    """Print what is shipped at parts of the budget, and when ours ships what stock does in the end."""
    for task in tasks:
        budget = PARTS["own"][1] or 1
        rows = []
        for share in (0.125, 0.25, 0.5, 0.75, 1.0):
            row = [f"{share:.3f}", f"{share * budget:.0f}"]
            for side in SIDES:
                values = np.array([_at(one["course"], share * budget) for one in results.found[task.name, side]])
                if np.isfinite(values).all():
                    row.append(f"{values.mean():.4f} ± {values.std(ddof=1) / math.sqrt(len(values)):.2g}")
                else:  # a mean over those that have something would favour whoever ships late
                    row.append(f"nothing yet in {np.isnan(values).sum()} of {len(values)}")
            rows.append(row)
        print_table(("share", "reports", *SIDES), rows)
        pairs = zip(*(results.found[task.name, side] for side in SIDES), strict=True)
        needed = [
            next((n / budget for n, worth in ours["course"] if worth >= stock["shipped"]), math.inf)
            for ours, stock in pairs
        ]
        random = f"random with {budget // 9} whole trainings: {task.random_best(budget // 9):.4f}"
        print(f"best of all {len(task.truth)} cells: {task.truth.max():.4f}; {random}")
        quartiles = np.quantile(needed, [0.25, 0.75], method="nearest").round(3)
        print(
            f"share of stock's budget in which ours ships as good a one: median {np.median(needed):.3f}, "
            f"quartiles {quartiles}"
        )


def print_oom(tasks: list[Task], results: Results) -> None:
    """Print how many trials did not fit."""
    [task] = tasks
    rows = [(side, results.cell(task.name, side, "wasted"), results.cell(task.name, side, "shipped")) for side in SIDES]
    print_table(("side", "wasted of 80", "shipped"), rows)
    ratio = results.column(task.name, "ours", "wasted").mean() / results.column(task.name, "stock", "wasted").mean()
    print(f"ours wastes {ratio:.2f} of what stock wastes")


def _at(course: Sequence[tuple[int, float]], n_reports: float) -> float:
    """What was shipped after so many reports; NaN before the first."""
    return next((worth for n, worth in reversed(course) if n <= n_reports), math.nan)


PRINTERS = {"tables": print_tables, "taskset": print_taskset, "own": print_own, "oom": print_oom}


def main() -> None:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, default=Path("../shared/data/hpo_tables.npz"))
    parser.add_argument("--own", type=Path, default=Path("benchmarks/wafer_table.npz"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", choices=PARTS, action="append", help="may be given several times")
    parser.add_argument("--task", help="only tasks whose name contains this")
    parser.add_argument("--set", action="append", default=[], metavar="search.sampler=random", dest="settings")
    parser.add_argument("--confirm", type=int, nargs=2, default=(5, 2), metavar=("K", "S"))
    given = parser.parse_args()
    settings = {key: _value(value) for key, _, value in (setting.partition("=") for setting in given.settings)}
    for part in given.only or PARTS:
        tasks = [t for t in load(part, given.tables, given.own) if not given.task or given.task in t.name]
        if not tasks:
            print(f"\n{part}: nothing recorded")
            continue
        jobs = [
            Job(part=part, task=task.name, side=side, seed=seed, tables=given.tables, own=given.own,
                settings=settings, confirm=tuple(given.confirm))
            for task in tasks for side in SIDES for seed in range(given.first_seed, given.first_seed + given.seeds)
        ]  # fmt: skip
        results = Results()
        for job, numbers in run_all(jobs, given.jobs):
            results.found[job.task, job.side].append(numbers)
        print(f"\n{part}, {given.seeds} seeds, {WORKERS} workers{', ' if settings else ''}{settings or ''}")
        PRINTERS[part](tasks, results)
        for side in SIDES:
            seconds = [one["seconds"] for task in tasks for one in results.found[task.name, side]]
            print(f"{side}: {np.mean(seconds):.2f} s per search")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
