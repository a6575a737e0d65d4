"""How long a search is kept from its slots by a suggestion, as it grows.

    OMP_NUM_THREADS=1 python -m benchmarks.suggest [--trials 10000] [--samplers tpe gp]

A study of balanced_cnn.yaml runs made-up trials, and every call of `ask` and `report` is timed: both keep the process
that serves the slots from serving them. Beside it, for as many trials as is bearable, a plain Optuna study on a journal
is asked for the same parameters.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rich.progress import track

from search.errors import ConfigError
from search.execution.garbage import Tidying
from search.simulation import report_score
from search.space.config_file import find_space, load_study_config
from search.study.records import StudyFolder
from search.study.study import Decision, Study

_WINDOWS = (500, 2_000, 5_000, 10_000)


def time_ours(sampler: str, n_trials: int) -> tuple[list[float], list[float]]:
    """Return milliseconds of every suggestion, and of every report."""
    overrides = {"search.sampler": sampler, "search.trials": n_trials, "search.time": None}
    config = load_study_config(find_space("balanced_cnn"), overrides=overrides)
    rng = np.random.default_rng(0)
    asks: list[float] = []
    reports: list[float] = []
    tidying = Tidying()
    with tempfile.TemporaryDirectory() as scratch:
        folder = StudyFolder(Path(scratch) / "study")
        with Study(folder, config, classes=("one", "other")) as study:
            for _ in track(range(n_trials), description=f"ours, {sampler}"):
                start = time.perf_counter()
                tidying.before_suggestion()
                assignment = study.ask()
                asks.append(1000 * (time.perf_counter() - start))
                if assignment is None:
                    raise ConfigError("the space is exhausted")
                lr = next(float(value) for name, value in assignment.config.items() if name.endswith(".lr"))
                quality = 0.9 - 0.1 * (np.log10(lr) + 2.4) ** 2 + 0.02 * rng.normal()
                for epoch in range(1, assignment.params.epochs + 1):
                    report = report_score(epoch, quality * epoch / (epoch + 2), seconds=1.0)
                    start = time.perf_counter()
                    decision = study.report(assignment.number, report)
                    reports.append(1000 * (time.perf_counter() - start))
                    if decision is not Decision.CONTINUE:
                        break
    return asks, reports


def time_plain(n_trials: int) -> list[float]:
    """Return milliseconds of every `ask` with its suggestions, of a plain Optuna study on a journal."""
    space = load_study_config(find_space("balanced_cnn")).space
    milliseconds = []
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, group=True, constant_liar=True)
        storage = JournalStorage(JournalFileBackend(str(Path(scratch) / "journal")))
        study = optuna.create_study(storage=storage, sampler=sampler, direction="maximize")
        rng = np.random.default_rng(0)
        for _ in track(range(n_trials), description="plain Optuna"):
            start = time.perf_counter()
            trial = study.ask()
            space.sample(trial)
            milliseconds.append(1000 * (time.perf_counter() - start))
            study.tell(trial, float(rng.normal()))
    return milliseconds


def describe(milliseconds: list[float]) -> str:
    """Write the spread around each size of the history."""
    parts = []
    for end in _WINDOWS:
        window = milliseconds[max(0, end - 300) : end]
        if len(milliseconds) >= end:
            parts.append(f"at {end:,}: {np.median(window):.0f} (99 %: {np.quantile(window, 0.99):.0f})")
    return f"{'; '.join(parts)}; longest of all {max(milliseconds):.0f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--samplers", nargs="+", default=["tpe", "gp"])
    parser.add_argument("--plain", type=int, default=2_000, help="trials of plain Optuna")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for sampler in given.samplers:
        asks, reports = time_ours(sampler, given.trials)
        print(f"ours, {sampler}, ms per suggestion: {describe(asks)}")
        print(f"ours, {sampler}, ms per report: median {np.median(reports):.1f}, longest {max(reports):.0f}")
    print(f"plain TPE on a journal, ms per suggestion: {describe(time_plain(given.plain))}")


if __name__ == "__main__":
    main()
