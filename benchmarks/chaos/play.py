"""One run: a small search that is hurt once, the same command again until it ends well, and what must hold then."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.checks import OTHER, WINNER, ZOMBIE, Known, check_study, compare_retrained, find_winner, read_rows
from benchmarks.chaos.faults import Fault, choose_fault
from benchmarks.chaos.lane import Lane
from benchmarks.chaos.processes import Process, marked, name_of, send, wait_for

SPACE = """
name: tiny
data: {{wafers: synthetic, synthetic_wafers: 800, image_size: 16, epoch_samples: 600}}
space:
  epochs: [3, 6]
  sampling: {{choose: {{imbalanced: {{}}, balanced: {{}}}}}}
  model: {{choose: {{wafer_cnn: {{width: [4, 5], lr: {{low: 1e-3, high: 1e-2, log: true}}, batch_size: [32, 64]}}}}}}
search: {{trials: {trials}, seed: {seed}, stop: {{asha: {{first_rung: 1 epoch, factor: 2}}}}}}
"""
_CODES = (0, 1, 2, 130, -9, -15)
_PATIENCE_S = 240.0  # for one attempt, on a machine that others use, too
_ATTEMPTS = 6
_ZOMBIES_S = 60.0
_ROWS = 24  # about as many as an undisturbed run writes


@dataclass
class Result:
    """What came of a run.

    Attributes:
        seed: Of everything in it.
        fault: The name that was asked for.
        what: The fault in detail.
        moment: When it struck, in words.
        has_hit: Whether there was anything to be hit.
        codes: Exit code of each attempt; None where it hung.
        violations: A line each, beginning with its kind.
        retrained: Trials that were trained alone for comparison.
        seconds: It took.
        folder: Where its files are, if it was kept.
    """

    seed: int
    fault: str
    what: str = ""
    moment: str = ""
    has_hit: bool = False
    codes: list[int | None] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    retrained: int = 0
    seconds: float = 0.0
    folder: str = ""


class Run:
    """One run in its folder.

    Args:
        lane: That it goes through.
        folder: New.
        seed: Of its dice.
        fault: Name.
    """

    def __init__(self, lane: Lane, folder: Path, *, seed: int, fault: str) -> None:
        self._lane = lane
        self._folder = folder
        self._dice = random.Random(f"{seed} {fault}")
        self._fault: Fault = choose_fault(fault, self._dice)
        self._settings = dict(self._fault.settings(self._dice))
        self._known = Known()
        self._drivers: list[Process] = []
        self._started: list[int] = []  # trials that had begun and not ended when the fault struck
        self._trials = self._dice.randint(6, 8)
        self.clock = folder / "clock"
        self.study = folder / "results" / "tiny-synthetic"
        self.result = Result(seed=seed, fault=fault, what=self._fault.name)

    def play(self) -> Result:
        """Do all of it."""
        start = time.monotonic()
        self._prepare()
        try:
            self._hurt()
            while self.result.codes[-1] != 0 and len(self.result.codes) < _ATTEMPTS:
                self._note(is_first=False)
                driver = self._start()
                self._finish(driver)
            self._check()
        finally:
            self._clear()
        self.result.seconds = round(time.monotonic() - start, 1)
        return self.result

    def slots(self) -> list[int]:
        """See Victim."""
        return self._lane.slots() + [n for n in self.others() if name_of(n).startswith("ray::WaferTrial")]

    def others(self) -> list[int]:
        """See Victim."""
        drivers = {driver.pid for driver in self._drivers}
        return [number for number in marked(f"CHAOS_RUN={self._folder}") if number not in drivers]

    def is_quiet(self) -> bool:
        """See Victim."""
        return not self.slots()

    def _prepare(self) -> None:
        (self._folder / "results").mkdir(parents=True)
        if self._fault.on_tmpfs:
            where = str(self._folder / "results")
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "chaos", where], check=True)
        space = SPACE.format(trials=self._trials, seed=self.result.seed)
        (self._folder / "tiny.yaml").write_text(space, "utf-8")
        self.clock.write_bytes(bytes(8))
        self._note(is_first=True)

    def _note(self, *, is_first: bool) -> None:
        """Write what hooks/sitecustomize.py goes by: everything at first, later what belongs to the configurations."""
        settings = self._settings
        if not is_first:
            settings = {key: value for key, value in settings.items() if value in ("nan", "oom")}
        partial = self._folder / "chaos.partial"
        partial.write_text(json.dumps({"seed": self.result.seed, **settings}), "utf-8")
        partial.replace(self._folder / "chaos.json")

    def _start(self) -> Process:
        is_first = not self._drivers
        argv = ["search.run", "--space", "tiny.yaml"]
        argv += ["--no-dashboard"] if self._fault.own_ray else ["--address", self._lane.address]
        env = {}
        if is_first and "clock-jump" in self._fault.name:
            env = {"CHAOS_CLOCK": str(self.clock), "LD_PRELOAD": str(self._lane.clock)}
        env |= {"WARM_PYTHON": ""} if self._fault.own_ray else {}
        log = self._folder / f"log-{len(self._drivers)}"
        is_cold = self._fault.is_cold and is_first
        driver = self._lane.start(argv, cwd=self._folder, log=log, is_cold=is_cold, env=env)
        self._drivers.append(driver)
        return driver

    def _hurt(self) -> None:
        driver, dice = self._start(), self._dice
        n_rows, delay = dice.choice((0, *range(1, _ROWS))), dice.uniform(0, 0.5)
        if n_rows == 0:
            delay = dice.uniform(0, 8)
        self.result.moment = f"{delay:.2f} s after {n_rows} reports"
        wait_for(lambda: driver.poll() is not None or self._n_rows() >= n_rows, patience_s=_PATIENCE_S)
        wait_for(lambda: driver.poll() is not None, patience_s=delay, every_s=0.01)
        if self._fault.strikes:
            self._known.remember(self.study)
            hits = [strike(self, driver, dice) for strike in self._fault.strikes]
            self.result.has_hit = any(hits)
            if "torn-tail" in self._fault.name:  # what was cut away is not known any more
                self._known = Known()
        self.result.has_hit |= "slow" in self._settings
        self._finish(driver)

    def _n_rows(self) -> int:
        path = self.study / "trials.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def _finish(self, driver: Process) -> None:
        """Wait for the end of an attempt, and remember what it leaves."""
        if not wait_for(lambda: driver.poll() is not None, patience_s=_PATIENCE_S):
            self._violate(OTHER, f"attempt {len(self._drivers)} hangs for {_PATIENCE_S:.0f} s, its log says where")
            send(driver.pid, signal.SIGUSR1)
            time.sleep(1)
            send(driver.pid)
            wait_for(lambda: driver.poll() is not None, patience_s=10)
            self.result.codes.append(None)
        else:
            self.result.codes.append(driver.poll())
        code = self.result.codes[-1]
        said = (self._folder / f"log-{len(self._drivers) - 1}").read_text("utf-8", errors="replace")
        if code is not None and code not in _CODES:
            self._violate(OTHER, f"attempt {len(self._drivers)} ends with {code}")
        if "Traceback (most recent call last)" in said:
            last = [line for line in said.splitlines() if line.strip()][-1][:150]
            self._violate(OTHER, f"attempt {len(self._drivers)} prints a traceback: {last}")
        self._known.remember(self.study)
        if len(self._drivers) == 1:
            rows = read_rows(self.study) if self._is_readable() else []
            last_rows = {row["trial"]: row["status"] for row in rows}
            self._started = [trial for trial, status in last_rows.items() if status == "running"]

    def _is_readable(self) -> bool:
        try:
            read_rows(self.study)
        except (OSError, ValueError):
            return False
        return True

    def _violate(self, kind: str, what: str) -> None:
        self.result.violations.append(f"{kind}: {what}")

    def _check(self) -> None:
        if self.result.codes[-1] != 0:
            said = (self._folder / f"log-{len(self._drivers) - 1}").read_text("utf-8", errors="replace")
            last = [line for line in said.splitlines() if line.strip()][-1:]
            self._violate(OTHER, f"never ends with 0: {self.result.codes}: {''.join(last)[:200]}")
            return
        self.result.violations += check_study(self.study, self._known, trials=self._trials, scratch=self._folder)
        if "training" in self._settings:  # by chance no configuration may have been one of those
            self.result.has_hit |= any(row["status"] in ("infeasible", "failed") for row in read_rows(self.study))
        if self.result.seed % 10 == 0 or "bad-checkpoint" in self._fault.name:
            self._retrain()
        self._check_nothing_is_left()

    def _retrain(self) -> None:
        """Train the winner, and what was interrupted, alone."""
        rows = read_rows(self.study)
        complete = [row["trial"] for row in rows if row["status"] == "complete"]
        trials = {find_winner(rows), *self._started} & set(complete)
        argv = ["benchmarks.chaos.retrain", str(self.study), *map(str, sorted(trials))]
        log = self._folder / "retrained"
        process = self._lane.start(argv, cwd=self._folder, log=log)
        if not wait_for(lambda: process.poll() is not None, patience_s=_PATIENCE_S) or process.poll() != 0:
            self._violate(WINNER, f"cannot be trained alone: {log.read_text()[-200:]}")
            return
        self.result.retrained = len(trials)
        again = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
        self.result.violations += compare_retrained(rows, again)

    def _left(self) -> list[int]:
        forked = [driver.pid for driver in self._drivers if driver.pid in self._lane.forks()]
        return [*self.others(), *self._lane.slots(), *forked]

    def _check_nothing_is_left(self) -> None:
        if not wait_for(lambda: not self._left(), patience_s=_ZOMBIES_S, every_s=0.2):
            names = ", ".join(f"{name_of(number).rsplit('/', 1)[-1]} ({number})" for number in self._left())
            self._violate(ZOMBIE, f"after {_ZOMBIES_S:.0f} s still there: {names}")

    def _clear(self) -> None:
        for number in self._left():
            send(number)
        if self._fault.on_tmpfs:
            kept = self._folder / "kept"
            if self.result.violations:
                shutil.copytree(self._folder / "results", kept)
            subprocess.run(["umount", "-l", str(self._folder / "results")], check=False)
            if kept.exists():
                shutil.copytree(kept, self._folder / "results", dirs_exist_ok=True)
        if self.result.violations or os.environ.get("CHAOS_KEEP"):
            self.result.folder = str(self._folder)
        else:
            shutil.rmtree(self._folder, ignore_errors=True)
