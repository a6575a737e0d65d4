"""Optuna's samplers, with a bounded memory."""

import warnings
from collections.abc import Callable, Mapping
from typing import Protocol

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from search.space.space import Config, Space
from search.study.rows import COMPLETE, FAILED, TrialRecord

# Far above any shortfall of an F1, so that a sampler leaves the region rather than its edge.
VIOLATION = 10.0
# Ended trials that a sampler looks back on; with more, a proposal would keep the slots waiting.
HORIZON = 200
_ASKS = 3  # for a proposal, if it insists on what is known or forbidden


class Sampler(Protocol):
    """Suggests configurations, and hears what becomes of every trial."""

    def suggest(self, point: Config, is_new: Callable[[Config], bool]) -> Config | None:
        """Return a configuration that may be tried and was not, or None if the sampler does not find one.

        Args:
            point: Values that it must have, by full name.
            is_new: Whether a configuration is neither known nor forbidden.
        """

    def begin(self, record: TrialRecord) -> None:
        """Note that a trial runs."""

    def end(self, record: TrialRecord, violations: Mapping[str, float]) -> None:
        """Learn how a trial that began has ended, and by how much it misses each constraint."""


class OptunaSampler:
    """A sampler of Optuna's on an Optuna study of its own, in memory.

    It holds every running trial, and the best and the latest of the ended ones, so that the time for a proposal does
    not grow with the search.

    Args:
        name: tpe, qmc or random.
        space: What may be tried.
        seed: Of the sampler.
        forbids: Says why a configuration may not be tried, or returns None.
    """

    def __init__(self, name: str, space: Space, *, seed: int, forbids: Callable[[Config], str | None]) -> None:
        self._space = space
        self._forbids = forbids
        self._sampler = _make_sampler(name, seed=seed)
        self._running: dict[int, tuple[int, FrozenTrial]] = {}  # by trial: number in the memory, and what it is
        self._ended: list[tuple[TrialRecord, FrozenTrial]] = []
        self._memory = optuna.create_study(direction="maximize", sampler=self._sampler)

    def suggest(self, point: Config, is_new: Callable[[Config], bool]) -> Config | None:
        """See Sampler."""
        for _ in range(_ASKS):
            if point:
                self._memory.enqueue_trial(dict(point))
            trial = self._memory.ask()
            config = self._space.sample(trial)
            is_forbidden = self._forbids(config) is not None
            if is_forbidden:
                trial.set_constraint("allowed", VIOLATION)
            # What may be tried comes back as a running trial once it has its number.
            self._memory.tell(trial, state=TrialState.PRUNED if is_forbidden else TrialState.FAIL)
            if is_new(config):
                return config
        return None

    def begin(self, record: TrialRecord) -> None:
        """See Sampler."""
        fixed = FixedTrial(dict(record.config))
        self._space.sample(fixed)
        trial = create_trial(
            state=TrialState.RUNNING, params=dict(fixed.params), distributions=dict(fixed.distributions)
        )
        self._running[record.number] = (self._remember(trial), trial)

    def end(self, record: TrialRecord, violations: Mapping[str, float]) -> None:
        """See Sampler."""
        position, running = self._running.pop(record.number)
        self._memory.tell(position, state=TrialState.FAIL)  # what it was is said again, now with its end
        if record.status == FAILED:  # which says nothing of its configuration
            return
        is_complete = record.status == COMPLETE
        trial = create_trial(
            state=TrialState.COMPLETE if is_complete else TrialState.PRUNED,
            value=record.value if is_complete else None,
            params=running.params,
            distributions=running.distributions,
            intermediate_values={len(record.values): record.value} if record.values else {},
            constraints=dict(violations),
        )
        self._ended.append((record, trial))
        self._remember(trial)
        # Beginning anew copies every running trial: only once the memory has doubled, or each end would do it.
        if len(self._memory.get_trials(deepcopy=False)) > max(3 * HORIZON, 2 * (HORIZON + len(self._running))):
            self._start_memory()

    def _start_memory(self) -> None:
        """Begin anew with the running trials, and the best and the latest of those that ended."""
        former = self._memory
        self._memory = optuna.create_study(direction="maximize", sampler=self._sampler)
        for key, value in former._storage.get_study_system_attrs(former._study_id).items():  # how far qmc has got
            self._memory._storage.set_study_system_attr(self._memory._study_id, key, value)
        best = sorted(self._ended, key=lambda pair: _rank(*pair), reverse=True)[: HORIZON // 2]
        kept = {record.number for record, _ in [*best, *self._ended[-HORIZON // 2 :]]}
        self._ended = [pair for pair in self._ended if pair[0].number in kept]
        for _, trial in self._ended:
            self._remember(trial)
        for number, (_, trial) in self._running.items():
            self._running[number] = (self._remember(trial), trial)

    def _remember(self, trial: FrozenTrial) -> int:
        """Add a trial to the memory; return its number there."""
        self._memory.add_trial(trial)
        return len(self._memory.get_trials(deepcopy=False)) - 1


class TakingTurns:
    """Several samplers that suggest in turn and all learn from everything: they seldom fail in the same place."""

    def __init__(self, *samplers: Sampler) -> None:
        self._samplers = samplers
        self._n_suggested = 0

    def suggest(self, point: Config, is_new: Callable[[Config], bool]) -> Config | None:
        """See Sampler."""
        self._n_suggested += 1
        return self._samplers[self._n_suggested % len(self._samplers)].suggest(point, is_new)

    def begin(self, record: TrialRecord) -> None:
        """See Sampler."""
        for sampler in self._samplers:
            sampler.begin(record)

    def end(self, record: TrialRecord, violations: Mapping[str, float]) -> None:
        """See Sampler."""
        for sampler in self._samplers:
            sampler.end(record, violations)


def _make_sampler(name: str, *, seed: int) -> BaseSampler:
    """Make an Optuna sampler by its name in a space file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group, in Optuna since 2021
        match name:
            case "tpe":
                return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
            case "qmc":
                return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
        return optuna.samplers.RandomSampler(seed=seed)


def _rank(record: TrialRecord, trial: FrozenTrial) -> tuple[float, bool, int, float]:
    """The better an ended trial, the higher: nothing missed, run to its end, else far, well."""
    missed = sum(max(0.0, violation) for violation in trial.constraints.values())
    is_complete = record.status == COMPLETE
    epochs = 0 if is_complete else len(record.values)  # a short schedule that is complete is not worse for being short
    return -missed, is_complete, epochs, record.value if record.values else 0.0
