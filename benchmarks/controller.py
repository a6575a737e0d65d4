"""Whether one controller keeps up with a thousand slots.

    OMP_NUM_THREADS=1 python -m benchmarks.controller [--slots 1000] [--trials 10000] [--seed 0] [--sampler NAME]

Searches balanced_cnn.yaml in simulated time through what Ray Tune calls: the searcher is asked for trials, and the
scheduler is handed results as a slot returns them. Study, sampler, ASHA and files are the real ones, each line synced
to the disk of --folder; there is no Ray and no training. One trial in 100 diverges, one in 500 breaks.

Printed are the real milliseconds of every call, which part of it took long, the results per second that a controller
can take, its memory as the search grows, and how long the study takes to open again. What Tune itself adds is not in
it. A full run takes most of an hour; the time of the disk is in it, so say which disk.
"""

import argparse
import heapq
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from optuna.storages.journal import JournalFileBackend
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from data_pipeline.wafer_set import WM811K_CLASSES as CLASSES
from search.execution.adapters import StudyScheduler, StudySearcher
from search.execution.garbage import Tidying
from search.execution.interrupts import Interrupts
from search.execution.packing import Node, Packing, Slice
from search.execution.trainable import FAILED, OK, REJECTED
from search.space.config import StudyConfig
from search.space.config_file import find_space, load_study_config
from search.study import study
from search.study.asha import Asha
from search.study.gaussian_process import GaussianProcess
from search.study.journal import Journal
from search.study.records import StudyFolder
from search.study.rows import report_to_row
from search.study.samplers import OptunaSampler
from search.study.study import Study
from search.study.surrogate import Surrogate
from search.testing import FakeClock, fake_report

_SLOW_MS = 50
_EPOCH_S = 10.0  # of a simulated nominal epoch of the median trial
_DIVERGES, _BREAKS = 1 / 100, 1 / 500  # of trials
# What calls are made of. A part's time is its own, without that of the parts that it calls.
_PARTS: tuple[tuple[Any, str, str], ...] = (
    (Tidying, "before_suggestion", "garbage"),
    (OptunaSampler, "suggest", "TPE: suggest"),
    (OptunaSampler, "begin", "TPE: note a start"),
    (OptunaSampler, "end", "TPE: note an end"),
    (OptunaSampler, "_start_memory", "TPE: make its memory again"),
    (Surrogate, "suggest", "surrogate: suggest"),
    (Surrogate, "begin", "surrogate: note a start"),
    (Surrogate, "end", "surrogate: note an end"),
    (GaussianProcess, "fit", "surrogate: fit"),
    (GaussianProcess, "condition", "surrogate: condition"),
    (GaussianProcess, "predict", "surrogate: predict"),
    (Asha, "is_losing", "ASHA"),
    (Journal, "add", "journal: begin a trial"),
    (Journal, "report", "journal: report"),
    (Journal, "end", "journal: end a trial"),
    (JournalFileBackend, "append_logs", "journal: write and sync"),
    (study, "append_line", "trials.jsonl: write and sync"),
    (StudySearcher, "_free_slot", "number the slot"),
    (Packing, "has_room", "look for room"),
)  # fmt: skip


@dataclass
class Call:
    """One call of the controller: of which kind, how many trials had begun, and the milliseconds of each part.

    Its share of a core, `cpu_milliseconds`, does not change with what else the machine does.
    """

    kind: str
    n_begun: int
    milliseconds: float = 0.0
    cpu_milliseconds: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class Stopwatch:
    """Times calls, and the parts that they are made of."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._open: list[list[float]] = []  # of each part that is under way: milliseconds of the parts within it

    @contextmanager
    def call(self, kind: str, n_begun: int) -> Iterator[None]:
        """Time one call."""
        self.calls.append(Call(kind, n_begun))
        start, cpu_start = time.perf_counter(), time.thread_time()
        yield
        self.calls[-1].milliseconds = 1000 * (time.perf_counter() - start)
        self.calls[-1].cpu_milliseconds = 1000 * (time.thread_time() - cpu_start)

    @contextmanager
    def watch_parts(self) -> Iterator[None]:
        """Time all parts while this is open."""
        patches = [patch.object(owner, name, self._wrap(getattr(owner, name), part)) for owner, name, part in _PARTS]
        for one in patches:
            one.start()
        try:
            yield
        finally:
            for one in patches:
                one.stop()

    def _wrap(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._open.append([0.0])
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                took = 1000 * (time.perf_counter() - start)
                inner = self._open.pop()[0]
                if self._open:
                    self._open[-1][0] += took
                if self.calls:
                    self.calls[-1].parts[part] += took - inner

        return timed


@dataclass
class FakeTrial:
    """Stands in for Tune's Trial, and for the slot that trains it."""

    trial_id: str
    config: dict[str, Any]
    quality: float
    epoch_s: float
    breaks: bool
    diverges: bool
    epoch: int = 0
    error_file: str | None = None
    pickled_error_file: str | None = None

    def step(self) -> dict[str, Any]:
        """Return what `WaferTrial.step` and Tune would."""
        self.epoch += 1
        about = {
            "hostname": "node",
            "node_ip": "127.0.0.1",
            "pid": 1000 + self.config["slot"],
            "training_iteration": self.epoch,
        }
        if self.breaks and self.epoch == 2:
            return about | {"outcome": FAILED, "reason": "RuntimeError: broken", "traceback": "RuntimeError: broken"}
        if self.diverges and self.epoch == 2:
            return about | {"outcome": REJECTED, "reason": "loss became nan in epoch 2"}
        report = fake_report(self.epoch, quality=self.quality, n_classes=len(CLASSES))
        place = {"slot": self.config["slot"], "place": f"slot {self.config['slot']}"}
        return about | place | {"outcome": OK, "row": json.dumps(report_to_row(report, CLASSES))}


@dataclass
class Search:
    """A simulated search: `run` plays it to its end and leaves the times in `watch`, memory in `memory`."""

    study: Study
    clock: FakeClock
    slots: int
    seed: int
    watch: Stopwatch = field(default_factory=Stopwatch)
    memory: list[tuple[int, float]] = field(default_factory=list)  # trials begun, MiB

    def __post_init__(self) -> None:
        interrupts = Interrupts()  # not entered: Ctrl-C ends a benchmark at once
        models = [str(model) for model in self.study.config.space.values_of("model")]
        packing = Packing(nodes=(Node("simulated", self.slots, 0),), slices=dict.fromkeys(models, Slice(1, 0.0)))
        self._searcher = StudySearcher(
            self.study, packing=packing, arrays=None, brief=lambda record: {}, interrupts=interrupts
        )
        self._scheduler = StudyScheduler(self.study, on_event=lambda number: None, interrupts=interrupts)
        self._rng = np.random.default_rng(self.seed)
        self._arriving: list[tuple[float, int, FakeTrial]] = []  # a heap of time and trial
        self._n_begun = 0

    def run(self) -> None:
        """Play it: results arrive in the order of simulated time, and every free slot is filled at once."""
        goal = self.study.config.search.trials
        with Progress() as progress, self.watch.watch_parts():
            task = progress.add_task(f"{self.slots:,} slots", total=goal)
            self._fill()
            while self._arriving:
                self.clock.now, _, trial = heapq.heappop(self._arriving)
                if self._take(trial):
                    self._go_on(trial)
                else:
                    self._fill()
                progress.update(task, completed=self._n_begun)

    def _fill(self) -> None:
        while len(self._arriving) < self.slots:
            name = f"{self._n_begun:06d}"
            with self.watch.call("suggest", self._n_begun):
                config = self._searcher.suggest(name)
            if config is None or config == Searcher.FINISHED:
                self.watch.calls[-1].kind = "suggest: nothing left"
                return
            self._n_begun += 1
            self._go_on(self._make_trial(name, config))
            if self._n_begun % 1000 == 0:
                self.memory.append((self._n_begun, resident_mib()))

    def _make_trial(self, name: str, config: dict[str, Any]) -> FakeTrial:
        rng, params = self._rng, json.loads(config["params"])
        lr = next(float(value) for key, value in params.items() if key.endswith(".lr"))
        quality = 0.9 - 0.1 * (np.log10(lr) + 2.4) ** 2 + 0.02 * rng.normal()
        breaks, diverges = rng.random(2) < (_BREAKS, _DIVERGES)
        epoch_s = _EPOCH_S * float(rng.lognormal(0.0, 0.4))
        return FakeTrial(name, config, min(1.0, quality), epoch_s, breaks=bool(breaks), diverges=bool(diverges))

    def _go_on(self, trial: FakeTrial) -> None:
        heapq.heappush(self._arriving, (self.clock.now + trial.epoch_s, int(trial.trial_id), trial))

    def _take(self, trial: FakeTrial) -> bool:
        """Hand a result over; return whether the trial goes on."""
        result = trial.step()
        with self.watch.call("result", self._n_begun):
            decision = self._scheduler.on_trial_result(None, trial, result)
        if result["outcome"] == FAILED:  # its next step raises
            with self.watch.call("error", self._n_begun):
                self._scheduler.on_trial_error(None, trial)
        if result["outcome"] != FAILED and decision == TrialScheduler.CONTINUE:
            return True
        self._scheduler.on_trial_complete(None, trial, result)
        self._searcher.on_trial_complete(trial.trial_id, result, error=result["outcome"] == FAILED)
        return False


def resident_mib() -> float:
    """Return the memory that this process holds."""
    status = Path("/proc/self/status").read_text("utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def print_calls(console: Console, calls: list[Call]) -> None:
    """Print the times of each kind of call, and what slow ones did."""
    table = Table("call", "n", "median ms", "99 %", "longest", f"over {_SLOW_MS} ms", "seconds", "on the CPU")
    for kind in ("suggest", "suggest: nothing left", "result", "error"):
        times = np.array([call.milliseconds for call in calls if call.kind == kind])
        cpu_s = sum(call.cpu_milliseconds for call in calls if call.kind == kind) / 1000
        if len(times):
            spread = [f"{value:.1f}" for value in (np.median(times), np.quantile(times, 0.99), times.max())]
            slow = f"{(times > _SLOW_MS).sum():,} ({100 * (times > _SLOW_MS).mean():.1f} %)"
            table.add_row(kind, f"{len(times):,}", *spread, slow, f"{times.sum() / 1000:.0f}", f"{cpu_s:.0f}")
    console.print(table)
    table = Table("part", "seconds in all", "share", "longest ms", f"largest part of calls over {_SLOW_MS} ms")
    total: dict[str, float] = defaultdict(float)
    longest: dict[str, float] = defaultdict(float)
    blamed: dict[str, int] = defaultdict(int)
    for call in calls:
        parts = {**call.parts, "the rest": call.milliseconds - sum(call.parts.values())}
        for part, milliseconds in parts.items():
            total[part] += milliseconds
            longest[part] = max(longest[part], milliseconds)
        if call.milliseconds > _SLOW_MS:
            blamed[max(parts, key=lambda part: parts[part])] += 1
    for part in sorted(total, key=lambda part: -total[part]):
        share = f"{100 * total[part] / sum(total.values()):.1f} %"
        table.add_row(part, f"{total[part] / 1000:.1f}", share, f"{longest[part]:.1f}", f"{blamed[part]:,}")
    console.print(table)


def print_growth(console: Console, search: Search) -> None:
    """Print speed and memory as the search grows, and what that means for more slots."""
    calls, held = search.watch.calls, dict(search.memory)
    table = Table("trials begun", "suggest ms", "result ms", "results per second", "memory MiB")
    ends = [end for end in (1, 2, 3, 5, 7, 10) if 1000 * end in held]
    for end in ends:
        window = [call for call in calls if 1000 * (end - 1) <= call.n_begun < 1000 * end]
        times = {kind: [call.milliseconds for call in window if call.kind == kind] for kind in ("suggest", "result")}
        medians = [f"{np.median(each):.1f}" if each else "-" for each in times.values()]
        rate = 1000 * len(times["result"]) / sum(call.milliseconds for call in window)
        table.add_row(f"{1000 * end:,}", *medians, f"{rate:.0f}", f"{held[1000 * end]:.0f}")
    console.print(table)
    if len(held) > 1:
        slope = np.polyfit(list(held), list(held.values()), 1)[0]
        console.print(f"memory grows by {1024 * slope:.1f} KiB per trial")
    n_results = sum(call.kind == "result" for call in calls)
    seconds = sum(call.milliseconds for call in calls) / 1000 / n_results
    cpu_ms = sum(call.cpu_milliseconds for call in calls) / n_results
    each = f"{1000 * seconds:.1f} ms each, suggestions included ({cpu_ms:.1f} ms on the CPU)"
    console.print(f"{n_results:,} results, {each}: {1 / seconds:.0f} per second")
    for slots in sorted({search.slots, 10_000}):
        honest = "" if slots == search.slots else ", if a call took no longer then than it does here"
        console.print(
            f"{slots:,} slots with epochs of E seconds send {slots:,}/E results per second: one controller is busy all "
            f"the time at E = {slots * seconds:.0f} s, half of it at E = {2 * slots * seconds:.0f} s{honest}"
        )


def print_files(console: Console, folder: StudyFolder, config: StudyConfig) -> None:
    """Print the sizes of the files, and how long opening the study takes."""
    for path in (folder.journal, folder.trials):
        size = path.stat().st_size
        console.print(f"{path.name}: {size / 2**20:.1f} MiB, {size / config.search.trials / 1024:.1f} KiB per trial")
    start = time.perf_counter()
    with Study(folder, config, classes=CLASSES) as opened:
        seconds = time.perf_counter() - start
        console.print(f"opened again in {seconds:.1f} s: {len(opened.records):,} trials")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampler", default="tpe_gp")
    parser.add_argument("--folder", help="where the study lies while it runs (default: the system's temporary folder)")
    given = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    overrides = {"search.trials": given.trials, "search.time": None, "search.seed": given.seed}
    overrides["search.sampler"] = given.sampler
    config = load_study_config(find_space("balanced_cnn"), overrides=overrides)
    clock = FakeClock()
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        folder = StudyFolder(Path(scratch) / "study")
        start = time.perf_counter()
        with Study(folder, config, classes=CLASSES, clock=clock) as opened:
            search = Search(opened, clock, given.slots, given.seed)
            search.run()
        console.print(
            f"{given.slots:,} slots, {given.trials:,} trials, {given.sampler}, seed {given.seed}: "
            f"{time.perf_counter() - start:.0f} s for {clock.now:.0f} s of simulated time"
        )
        print_calls(console, search.watch.calls)
        print_growth(console, search)
        print_files(console, folder, config)


if __name__ == "__main__":
    main()
