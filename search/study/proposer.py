"""Who proposes configurations: an Optuna sampler with a bounded memory, kept away from what may not be tried."""

import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from search.space.dice import Dice
from search.space.space import Space
from search.study.rows import COMPLETE, FAILED, TrialRecord
from search.trial.vocabulary import Scalar

# Far above any shortfall of an F1, so that a sampler leaves the region rather than its edge.
VIOLATION = 10.0
# A sampler that insists on what is known or forbidden is asked so often, then the dice decide.
_ASKS, _THROWS = 3, 2000
# Ended trials that a sampler looks back on; with more, a proposal would keep the slots waiting.
_HORIZON = 200

Forbids = Callable[[Mapping[str, Scalar]], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A configuration that may be tried.

    Attributes:
        config: Flat, constants included.
        params: What of it is searched, by full name.
        distributions: What each of these was drawn from.
    """

    config: Mapping[str, Scalar]
    params: Mapping[str, Scalar]
    distributions: Mapping[str, BaseDistribution]


class Proposer:
    """Proposes configurations of a space that were not tried yet and break no rule.

    The sampler works on an Optuna study of its own, in memory, which is made again from the records when a search goes
    on. It holds every running trial, and the best and the latest of the ended ones, so that the time for a proposal
    does not grow with the search.

    Args:
        space: What may be tried.
        sampler: Name of the sampler.
        seed: Of everything random here.
        forbids: Says why a flat configuration may not be tried, or returns None.
    """

    def __init__(self, space: Space, sampler: str, *, seed: np.random.SeedSequence, forbids: Forbids) -> None:
        self._space = space
        self._forbids = forbids
        for_sampler, for_dice = (int(state) for state in seed.generate_state(2))
        self._sampler = make_sampler(sampler, seed=for_sampler)
        self._dice = Dice(random.Random(for_dice))
        self._seen: set[frozenset[tuple[str, Scalar]]] = set()
        self._running: dict[int, tuple[int, FrozenTrial]] = {}  # by trial: number in the memory, and what it is
        self._ended: list[tuple[TrialRecord, FrozenTrial]] = []
        self._memory = optuna.create_study(direction="maximize", sampler=self._sampler)

    def propose(self, point: Mapping[str, Scalar] | None = None) -> Proposal | None:
        """Return a new configuration.

        Args:
            point: Values that it must have, by full name; the sampler fills up what they leave open.

        Returns:
            None if none could be found: all have been tried, or are forbidden.
        """
        for _ in range(_ASKS):
            if point:
                self._memory.enqueue_trial(dict(point))
            trial = self._memory.ask()
            config = self._space.sample(trial)
            why = self._forbids(config)
            if why:
                trial.set_constraint("allowed", VIOLATION)
            # What may be tried comes back as a known trial once it has its number.
            self._memory.tell(trial, state=TrialState.PRUNED if why else TrialState.FAIL)
            if not why and _identity(config) not in self._seen:
                return self.describe(config)
        for _ in range(_THROWS):
            config = self._space.sample(Dice(self._dice.random, point or {}))
            if not self._forbids(config) and _identity(config) not in self._seen:
                return self.describe(config)
        return None

    def describe(self, config: Mapping[str, Scalar]) -> Proposal:
        """Say which values of a flat configuration are searched, and what each was drawn from."""
        fixed = FixedTrial(dict(config))
        flat = self._space.sample(fixed)
        return Proposal(config=flat, params=dict(fixed.params), distributions=dict(fixed.distributions))

    def begin(self, record: TrialRecord) -> None:
        """Note that a trial runs: others are proposed elsewhere meanwhile."""
        self._seen.add(_identity(record.config))
        proposal = self.describe(record.config)
        trial = create_trial(
            state=TrialState.RUNNING, params=dict(proposal.params), distributions=dict(proposal.distributions)
        )
        self._running[record.number] = (self._remember(trial), trial)

    def end(self, record: TrialRecord, violations: Mapping[str, float]) -> None:
        """Learn how a trial that began has ended.

        Args:
            record: The trial.
            violations: By how much it misses each constraint; positive where it does.
        """
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
        if len(self._memory.get_trials(deepcopy=False)) > 3 * _HORIZON:
            self._start_memory()

    def _start_memory(self) -> None:
        """Begin anew with the running trials, and the best and the latest of those that ended."""
        former = self._memory
        self._memory = optuna.create_study(direction="maximize", sampler=self._sampler)
        for key, value in former._storage.get_study_system_attrs(former._study_id).items():  # how far qmc has got
            self._memory._storage.set_study_system_attr(self._memory._study_id, key, value)
        best = sorted(self._ended, key=lambda pair: _rank(*pair), reverse=True)[: _HORIZON // 2]
        kept = {record.number for record, _ in [*best, *self._ended[-_HORIZON // 2 :]]}
        self._ended = [pair for pair in self._ended if pair[0].number in kept]
        for _, trial in self._ended:
            self._remember(trial)
        for number, (_, trial) in self._running.items():
            self._running[number] = (self._remember(trial), trial)

    def _remember(self, trial: FrozenTrial) -> int:
        """Add a trial to the memory; return its number there."""
        self._memory.add_trial(trial)
        return len(self._memory.get_trials(deepcopy=False)) - 1


def make_sampler(name: str, *, seed: int) -> BaseSampler:
    """Make an Optuna sampler by its name in a space file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group, in Optuna since 2021
        match name:
            case "tpe":
                return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
            case "qmc":
                return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
            case "gp":
                return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        return optuna.samplers.RandomSampler(seed=seed)


def _identity(config: Mapping[str, Scalar]) -> frozenset[tuple[str, Scalar]]:
    """What makes two configurations one: of a range in steps, 0.3 is 0.1 + 2 * 0.1 but for rounding."""
    return frozenset(
        (name, float(f"{value:.12g}") if isinstance(value, float) else value) for name, value in config.items()
    )


def _rank(record: TrialRecord, trial: FrozenTrial) -> tuple[float, bool, int, float]:
    """The better an ended trial, the higher: nothing missed, run to its end, far, well."""
    missed = sum(max(0.0, violation) for violation in trial.constraints.values())
    return -missed, record.status == COMPLETE, len(record.values), record.value if record.values else 0.0
