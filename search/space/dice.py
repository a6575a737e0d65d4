"""Drawing from a space at random, without a sampler."""

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from search.space.config import StudyConfig
from search.space.space import Config, Space
from search.trial.vocabulary import Scalar

COUNTABLE = 20_000  # a space of so many configurations is gone through
DRAWS = 10_000  # from a larger space


@dataclass(frozen=True, slots=True)
class Dice:
    """Stands in for an Optuna trial, see `search.space.space.Suggestions`: every parameter evenly over its range.

    Attributes:
        random: Source of randomness.
        fixed: Values, by full name, that are not drawn.
    """

    random: random.Random
    fixed: Config = field(default_factory=dict)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Return one of the choices."""
        return self.fixed[name] if name in self.fixed else self.random.choice(choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return a whole number in [low, high]."""
        if name in self.fixed:
            return int(self.fixed[name])
        if log:
            return round(self._log_uniform(low, high))
        return self.random.randrange(low, high + 1, step)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number in [low, high]."""
        if name in self.fixed:
            return float(self.fixed[name])
        if log:
            return self._log_uniform(low, high)
        if step:
            return min(high, low + step * self.random.randrange(int((high - low) / step + 1e-8) + 1))  # rounding
        return self.random.uniform(low, high)

    def _log_uniform(self, low: float, high: float) -> float:
        return min(high, max(low, math.exp(self.random.uniform(math.log(low), math.log(high)))))


def first_allowed(config: StudyConfig, draws: Iterable[Dice]) -> dict[str, Scalar] | None:
    """Return the first of some draws from a study's space that is not forbidden; None if all are."""
    drawn = (config.space.sample(draw) for draw in draws)
    return next((flat for flat in drawn if config.forbids(flat) is None), None)


def look_over(
    space: Space, source: random.Random, *, countable: int = COUNTABLE, n_draws: int = DRAWS
) -> tuple[Iterator[dict[str, Scalar]], bool]:
    """Go through all configurations of a small space; draw from a large one.

    Returns:
        The flat configurations, and whether they are all there are.
    """
    size, dice = space.size(), Dice(source)
    if size is not None and size <= countable:
        return space.configurations(), True
    return (space.sample(dice) for _ in range(n_draws)), False
