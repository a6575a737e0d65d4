"""The study in numbers, for Ray's metrics endpoint, and so for Prometheus and Grafana (`deploy/grafana/`).

Series are named by slot, not by trial: a search of 10,000 trials leaves no more of them than one of ten.
"""

import math
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Self

from ray.util.metrics import Gauge

from search.study.rows import INFEASIBLE
from search.study.study import Study
from search.views.snapshot import Snapshot, TrialNow

PREFIX = "wafer_search_"
# By name without prefix: what it is, and its tags besides `study`. Ray puts `ray_` before the whole name.
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "best_trial": ("Number of the best trial of those that ran to their end", ()),
    "best_meets_floors": ("1 if it meets all floors, 0 if it is only the one nearest to them", ()),
    "best_objective": ("Objective of the best trial", ()),
    "best_macro_f1": ("Macro-F1 of the best trial on the validation part", ()),
    "best_balanced_macro_f1": ("The same, as if all classes were equally frequent", ()),
    "best_f1": ("F1 of each class of the best trial", ("class",)),
    "running_trial": ("Number of the trial in a slot", ("slot",)),
    "running_epoch": ("Nominal epochs that it has reported", ("slot",)),
    "running_epochs": ("Nominal epochs that it would train in all", ("slot",)),
    "running_objective": ("Its objective after its last report", ("slot",)),
    "running_macro_f1": ("Its macro-F1 on the validation part", ("slot",)),
    "running_balanced_macro_f1": ("The same, as if all classes were equally frequent", ("slot",)),
    "running_f1": ("Its F1 of each class", ("slot", "class")),
    "running_samples_per_second": ("Wafers that it trains on per second, of its last epoch", ("slot",)),
    "trials": ("Trials by state: running, paused, complete, stopped, infeasible, failed", ("state",)),
    "infeasible": ("Configurations that do not work, by reason", ("reason",)),
    "trials_judged": ("Trials judged", ()),
    "trials_asked": ("Trials asked for", ()),
    "seconds": ("Seconds that the study has run, over all attempts", ()),
    "seconds_left": ("Seconds that it still takes, as far as one can tell; absent before that is known", ()),
}
# Reasons are free text; what does not fall into one of these groups shares a tag.
REASONS, OTHER = ("diverged", "out of memory", "takes too long"), "other"
# Ray hands a value on once, in its next report (every 10 s), and forgets it 20 s later.
_REPEAT_EVERY_S = 5.0
# So often in a row may it fail: the study changes while it is read.
_MOST_FAILURES = 3


class Sample(NamedTuple):
    """One value: its gauge, by name without prefix, its tags besides `study`, and the number."""

    gauge: str
    tags: Mapping[str, str]
    value: float


class Gauges:
    """Shows a study on Ray's metrics endpoint, from a thread of its own; a context manager, for a running Ray.

    Values are handed to Ray again and again, whether trials report or not: how long an epoch takes must not decide
    whether they are there.

    Args:
        study: What to show; only read.
        snapshot: Says how it stands.
    """

    def __init__(self, study: Study, snapshot: Callable[[], Snapshot]) -> None:
        self._study = study
        self._snapshot = snapshot
        self._gauges = {
            name: Gauge(f"{PREFIX}{name}", description=what, tag_keys=("study", *tags))
            for name, (what, tags) in GAUGES.items()
        }
        self._is_over = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="gauges", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()

    def on_event(self, number: int) -> None:
        """Do nothing, so that no event takes the driver's time.

        Raises:
            Exception: Because of which the thread has ended, if it has.
        """
        if self._failure is not None:
            raise self._failure

    def samples(self) -> list[Sample]:
        """Return what there is to show; a series that is not in here is gone from the endpoint half a minute later."""
        now = self._snapshot()
        search = now.about.search
        samples = [Sample("trials_judged", {}, now.n_judged), Sample("trials_asked", {}, search.trials)]
        samples += [Sample("seconds", {}, now.elapsed)]
        samples += [Sample("seconds_left", {}, now.left)] if now.left is not None else []
        samples += [Sample("trials", {"state": state}, n) for state, n in now.counts.items()]
        reasons = dict.fromkeys((*REASONS, OTHER), 0)
        for reason, n in now.reasons[INFEASIBLE].items():
            reasons[reason if reason in REASONS else OTHER] += n
        samples += [Sample("infeasible", {"reason": reason}, n) for reason, n in reasons.items()]
        for best in now.top[:1]:
            samples += [Sample("best_trial", {}, best.number)]
            samples += [Sample("best_meets_floors", {}, float(not best.shortfall)), *self._scores(best, "best", {})]
        for trial in now.running:
            samples += self._of_running(trial)
        return [sample for sample in samples if math.isfinite(sample.value)]

    def _of_running(self, trial: TrialNow) -> list[Sample]:
        slot = {"slot": str(trial.slot)}
        values = {"trial": trial.number, "epoch": trial.epoch, "epochs": trial.epochs}
        samples = [Sample(f"running_{name}", slot, value) for name, value in values.items()]
        samples.append(Sample("running_samples_per_second", slot, trial.speed))
        return samples + self._scores(trial, "running", slot)

    def _scores(self, trial: TrialNow, whose: str, tags: Mapping[str, str]) -> list[Sample]:
        scores = self._study.records[trial.number].scores
        values = {"objective": trial.value, "macro_f1": trial.macro_f1}
        values |= {"balanced_macro_f1": scores.balanced_macro_f1} if scores else {}
        samples = [Sample(f"{whose}_{name}", tags, value) for name, value in values.items()]
        per_class = zip(self._study.classes, trial.f1, strict=False)  # no values before the first report
        return samples + [Sample(f"{whose}_f1", {**tags, "class": name}, value) for name, value in per_class]

    def _run(self) -> None:
        study, n_failures = Text(self._study.folder.name), 0
        while not self._is_over.is_set():
            try:
                for name, tags, value in self.samples():
                    self._gauges[name].set(value, {"study": study, **{key: Text(tag) for key, tag in tags.items()}})
                n_failures = 0
            except Exception as error:  # noqa: BLE001 - raised again in `on_event`
                n_failures += 1
                if n_failures == _MOST_FAILURES:
                    self._failure = error
                    return
            self._is_over.wait(_REPEAT_EVERY_S)


class Text(str):
    """A tag that may hold any script: Ray would encode it as ASCII, and raise."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Encode as UTF-8, whatever is asked for."""
        return super().encode("utf-8", errors)
