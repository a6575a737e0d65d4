"""Stock Ray Tune in simulated time: its own OptunaSearch and ASHAScheduler, called as its controller calls them.

Read in ray 2.60, `tune/execution/tune_controller.py`: `_process_trial_result`, `stop_trial`, `_process_trial_failure`.
A slot that is free gets a new trial at once, as with `max_concurrent_trials` set to the number of slots; without it
Tune draws one trial ahead, which only makes its knowledge older. A training that does not work raises, as out of
memory does by itself; one that reported NaN instead would run to its end and stay RUNNING in Optuna for ever.
"""

import math
from types import SimpleNamespace
from typing import Any

import optuna
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from search.errors import TrialFailed
from search.simulation import Recording, Simulation, replay
from search.space.config import StudyConfig
from search.space.space import epochs_of
from search.study.rows import COMPLETE, INFEASIBLE, RUNNING, STOPPED, TrialRecord
from search.study.study import Assignment
from search.testing import FakeClock
from search.trial.params import TrialParams
from search.trial.training import EpochReport

_METRIC, _MODE = "score", "max"


class StockTune:
    """Stock Tune behind the calls of `search.simulation.Driver`.

    Args:
        config: The same study as ours gets: the space, the metric, the number of trials, the seed, and from the judge
            the first rung and the factor. The sampler is whatever OptunaSearch takes by itself.
        classes: Names of the classes.
    """

    def __init__(self, config: StudyConfig, *, classes: tuple[str, ...]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config = config
        self._classes = classes
        self._searcher = OptunaSearch(space=config.space.sample, metric=_METRIC, mode=_MODE, seed=config.search.seed)
        self._scheduler: Any = FIFOScheduler()
        if config.search.stop:
            asha = config.search.stop.asha
            longest = max(int(length) for length in config.space.values_of("epochs"))
            self._scheduler = ASHAScheduler(
                metric=_METRIC,
                mode=_MODE,
                max_t=longest,
                grace_period=min(asha.first_rung, longest),
                reduction_factor=asha.factor,
            )
        self.trials: list[TrialRecord] = []

    def ask(self) -> Assignment | None:
        """Draw a trial, as `TuneController` does for a free slot."""
        number = len(self.trials)
        if number >= self._config.search.trials:
            return None
        config = self._searcher.suggest(_id(number))
        self._correct(number, config)
        self._scheduler.on_trial_add(None, _trial(number))
        self.trials.append(TrialRecord(number=number, config=config, epochs=epochs_of(config)))
        return Assignment(number=number, config=config, params=TrialParams(), expected_memory=0, epochs_done=0)

    def report(self, number: int, report: EpochReport) -> bool:
        """Pass a result on as `_process_trial_result` does."""
        assert report.val
        record = self.trials[number]
        record.reports.append(report)
        record.values.append(self._config.objective.value([report.val.scores], self._classes))
        result = {"training_iteration": report.epoch, _METRIC: record.value}
        if self._scheduler.on_trial_result(None, _trial(number), result) == TrialScheduler.STOP:
            self._stop(record, result)
            return False
        self._searcher.on_trial_result(_id(number), result)  # only where the trial goes on
        if report.epoch == record.epochs:  # the function returns; Tune hears its last result again, as done
            self._stop(record, result)
            return False
        return True

    def reject(self, number: int, failure: TrialFailed) -> None:
        """Pass an exception on as `_process_trial_failure` does."""
        self._scheduler.on_trial_error(None, _trial(number))
        self._searcher.on_trial_complete(_id(number), error=True)
        self.trials[number].status, self.trials[number].reason = INFEASIBLE, str(failure)

    @property
    def winner(self) -> TrialRecord | None:
        """What `ResultGrid.get_best_result` returns: the best last result, of trials in whatever state."""
        best: TrialRecord | None = None
        for record in self.trials:
            if math.isfinite(record.value) and (best is None or record.value > best.value):
                best = record
        return best

    def _correct(self, number: int, config: dict[str, Any]) -> None:
        """Let Optuna know what was tried where a recording had only something near: a real training would be exact."""
        trial = self._searcher._ot_trials[_id(number)]
        for name, distribution in trial.distributions.items():
            if config[name] != trial.params[name]:
                value = distribution.to_internal_repr(config[name])
                trial.storage.set_trial_param(trial._trial_id, name, value, distribution)

    def _stop(self, record: TrialRecord, result: dict[str, Any]) -> None:
        """As `stop_trial` does."""
        assert record.status == RUNNING
        self._scheduler.on_trial_complete(None, _trial(record.number), result)
        self._searcher.on_trial_complete(_id(record.number), result=result)
        record.status = COMPLETE if len(record.reports) == record.epochs else STOPPED


def simulate_stock(
    config: StudyConfig,
    recording: Recording,
    *,
    classes: tuple[str, ...],
    workers: int,
    max_reports: int | None = None,
) -> Simulation:
    """Let stock Tune search a recording; see `search.simulation.simulate`."""
    driver = StockTune(config, classes=classes)
    return replay(driver, recording, clock=FakeClock(), workers=workers, max_reports=max_reports)


def _id(number: int) -> str:
    return f"{number:08d}"


def _trial(number: int) -> Any:
    """All that the scheduler looks at."""
    return SimpleNamespace(trial_id=_id(number))
