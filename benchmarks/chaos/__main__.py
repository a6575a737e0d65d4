"""What a search survives: many small ones, real processes, real Ray, one seeded fault each, the same command again.

    python -m benchmarks.chaos [--runs 210] [--minutes 30] [--log chaos.jsonl] [--out chaos.md]
    python -m benchmarks.chaos --only torn-tail --only-run 11     # the same run again; its folder is kept and named

Runs go side by side through lanes, each with one long-lived Ray and a Python that has imported everything (warm.py);
what kills Ray itself has a Ray of its own. Faults come from outside: signals, a small disk that is filled, files that
are torn, and hooks/sitecustomize.py. With an existing log the next seeds are played, and all are counted. Linux, as
root for the small disks.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from rich.console import Console

from benchmarks.chaos.faults import NAMES
from benchmarks.chaos.lane import Lane, build_clock, copy_product
from benchmarks.chaos.play import Result, Run
from benchmarks.chaos.table import append_log, describe, read_log, to_markdown, to_rich


class Session:
    """Plays runs in several lanes until the time or the seeds are used up.

    Args:
        given: The command line.
        console: Where a line per run is said.
    """

    def __init__(self, given: argparse.Namespace, console: Console) -> None:
        self._given = given
        self._console = console
        self._end = time.monotonic() + 60 * given.minutes
        self._lock = threading.Lock()
        self.results = read_log(given.log)
        self._seeds = self._choose_seeds()
        self.is_over = threading.Event()

    def _choose_seeds(self) -> Iterator[int]:
        if self._given.only_run is not None:
            return iter((self._given.only_run,))
        done = {result.seed for result in self.results}
        seeds = (seed for seed in count(self._given.seed) if seed not in done)
        return (seed for _, seed in zip(range(max(0, self._given.runs - len(self.results))), seeds, strict=False))

    def run_lane(self, lane: Lane, folder: Path) -> None:
        """Play runs one after the other."""
        while not self.is_over.is_set() and time.monotonic() < self._end:
            with self._lock:
                seed = next(self._seeds, None)
            if seed is None:
                return
            name = self._given.only or NAMES[seed % len(NAMES)]
            run = Run(lane, folder / f"run-{seed}", seed=seed, fault=name)
            try:
                result = run.play()
            except Exception:  # noqa: BLE001 - of this suite, not of the product; the other runs go on
                self._console.print(f"run {seed} could not be played:\n{traceback.format_exc()}", markup=False)
                continue
            self._keep(result)

    def _keep(self, result: Result) -> None:
        with self._lock:
            self.results.append(result)
            append_log(self._given.log, result)
            verdict = "; ".join(result.violations) or "good"
            what = (
                f"{len(self.results):4d}  {describe(result)}: codes {result.codes}, {result.seconds:.0f} s: {verdict}"
            )
            self._console.print(what + (f"  [{result.folder}]" if result.folder else ""), markup=False)


def main() -> int:
    """Play, and print the counts; 1 if anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=210, help="in all, those of an existing log included")
    parser.add_argument("--minutes", type=float, default=30, help="no run begins after that")
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--only", choices=NAMES, help="this fault alone")
    parser.add_argument("--only-run", type=int, metavar="SEED", help="this run alone, and keep its folder")
    parser.add_argument("--log", type=Path, help="results, one JSON line each; an existing one is gone on with")
    parser.add_argument("--out", type=Path, help="Markdown")
    given = parser.parse_args()
    if given.only_run is not None:
        os.environ["CHAOS_KEEP"] = "1"
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 180)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    copy_product(folder / "product")
    build_clock(folder / "clock.so")
    session = Session(given, console)
    for number in (signal.SIGINT, signal.SIGTERM):  # the runs under way are played to their end
        signal.signal(number, lambda *_: session.is_over.set())
    n_lanes = 1 if given.only_run is not None else given.lanes
    threads = [threading.Thread(target=_play, args=(session, folder, k), daemon=True) for k in range(n_lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    console.print(to_rich(session.results))
    if given.out:
        given.out.write_text(to_markdown(session.results), "utf-8")
    if not any(folder.glob("run-*")):
        shutil.rmtree(folder, ignore_errors=True)
    return int(any(result.violations for result in session.results))


def _play(session: Session, folder: Path, k: int) -> None:
    with Lane(folder / str(k), folder / "product", clock=folder / "clock.so") as lane:
        session.run_lane(lane, folder)


if __name__ == "__main__":
    sys.exit(main())
