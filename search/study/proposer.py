"""Who proposes configurations: a sampler, kept away from what is known or may not be tried."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial

from search.space.dice import COUNTABLE, Dice
from search.space.space import Config, Space
from search.study.rows import TrialRecord
from search.study.samplers import OptunaSampler, Sampler, TakingTurns
from search.study.surrogate import Surrogate
from search.trial.vocabulary import Scalar

_THROWS = 2000  # of the dice, where the sampler finds nothing new


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A configuration that may be tried.

    Attributes:
        config: Flat, constants included.
        params: What of it is searched, by full name.
        distributions: What each of these was drawn from.
    """

    config: Config
    params: Config
    distributions: Mapping[str, BaseDistribution]


class Proposer:
    """Proposes configurations of a space that were not tried yet and break no rule.

    Args:
        space: What may be tried.
        sampler: Name of the sampler.
        seed: Of everything random here.
        forbids: Says why a flat configuration may not be tried, or returns None.
        rungs: Lists the epochs at which trials of a given length are judged.
        only_points: Whether nothing is proposed but what is asked for by its values.
    """

    def __init__(
        self,
        space: Space,
        sampler: str,
        *,
        seed: np.random.SeedSequence,
        forbids: Callable[[Config], str | None],
        rungs: Callable[[int], list[int]],
        only_points: bool = False,
    ) -> None:
        self._space = space
        self._forbids = forbids
        for_sampler, for_dice = (int(state) for state in seed.generate_state(2))
        self._sampler: Sampler
        match sampler:
            case "gp":
                self._sampler = Surrogate(space, seed=for_sampler, rungs=rungs)
            case "tpe_gp":
                optuna = OptunaSampler("tpe", space, seed=for_sampler, forbids=forbids)
                self._sampler = TakingTurns(optuna, Surrogate(space, seed=for_sampler, rungs=rungs))
            case _:
                self._sampler = OptunaSampler(sampler, space, seed=for_sampler, forbids=forbids)
        self._random = random.Random(for_dice)
        self._is_spent = only_points
        self._seen: set[frozenset[tuple[str, Scalar]]] = set()

    def propose(self, point: Config | None = None) -> Proposal | None:
        """Return a new configuration.

        Args:
            point: Values that it must have, by full name; the sampler fills up what they leave open.

        Returns:
            None if there is none: all have been tried, or are forbidden.
        """
        if self._is_spent and not point:
            return None
        config = self._sampler.suggest(point or {}, self._is_new)
        if config is None:
            config = self._draw(point or {})
        self._is_spent = config is None and not point  # for good: what is known or forbidden stays so
        return None if config is None else self.describe(config)

    def describe(self, config: Config) -> Proposal:
        """Say which values of a flat configuration are searched, and what each was drawn from."""
        fixed = FixedTrial(dict(config))
        flat = self._space.sample(fixed)
        return Proposal(config=flat, params=dict(fixed.params), distributions=dict(fixed.distributions))

    def begin(self, record: TrialRecord) -> None:
        """Note that a trial runs: others are proposed elsewhere meanwhile."""
        self._seen.add(_identity(record.config))
        self._sampler.begin(record)

    def end(self, record: TrialRecord, violations: Mapping[str, float]) -> None:
        """Learn how a trial that began has ended.

        Args:
            record: The trial.
            violations: By how much it misses each constraint; positive where it does.
        """
        self._sampler.end(record, violations)

    def learn(self, record: TrialRecord, violations: Mapping[str, float]) -> None:
        """Learn from a trial of an earlier study; its configuration may be tried here as well."""
        self._sampler.begin(record)
        self._sampler.end(record, violations)

    def _is_new(self, config: Config) -> bool:
        return self._forbids(config) is None and _identity(config) not in self._seen

    def _draw(self, point: Config) -> Config | None:
        """Draw something new at random; of a small space, the first that is left."""
        throws = (self._space.sample(Dice(self._random, point)) for _ in range(_THROWS))
        config = next(filter(self._is_new, throws), None)
        size = self._space.size()
        if config is None and not point and size is not None and size <= COUNTABLE:
            config = next(filter(self._is_new, self._space.configurations()), None)
        return config


def _identity(config: Config) -> frozenset[tuple[str, Scalar]]:
    """What makes two configurations one: of a range in steps, 0.3 is 0.1 + 2 * 0.1 but for rounding."""
    return frozenset(
        (name, float(f"{value:.12g}") if isinstance(value, float) else value) for name, value in config.items()
    )
