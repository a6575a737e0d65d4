"""How much memory the trials of a study will hold, said before they start."""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from search.errors import ConfigError
from search.space.config import DataConfig, StudyConfig
from search.space.dice import Dice, first_allowed
from search.space.space import Config
from search.trial.memory_plan import MemoryEstimate, estimate_memory
from search.trial.params import TrialParams, from_flat
from search.trial.vocabulary import Scalar

# So many draws that are all forbidden end the search for one that is not.
_TRIES = 2000
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Plans the trials of one study.

    Attributes:
        data: What is trained on.
        n_train: Wafers of the training part.
        n_val: Wafers of the validation part.
        n_classes: K.
        auto: What the device computes in where the precision is "auto".
    """

    data: DataConfig
    n_train: int
    n_val: int
    n_classes: int
    auto: torch.dtype

    def estimate(self, params: TrialParams) -> MemoryEstimate:
        """Say what a trial will hold; see `estimate_memory`."""
        return estimate_memory(
            params,
            image_size=self.data.image_size,
            n_train=self.n_train,
            n_val=self.n_val,
            n_classes=self.n_classes,
            dtype=_DTYPES.get(params.precision, self.auto),
            encoding=self.data.encoding,
        )

    def total(self, params: TrialParams) -> int:
        """Say how many bytes a trial will hold; 0 if that fails, which is no reason not to run it."""
        try:
            return self.estimate(params).total
        except Exception:  # noqa: BLE001 - the real network may do what fake tensors cannot
            return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Largest:
    """The largest of the configurations looked at.

    Attributes:
        estimate: What it will hold.
        params: The configuration, checked.
        n_samples: How many were looked at.
    """

    estimate: MemoryEstimate
    params: TrialParams
    n_samples: int


def find_largest(
    config: StudyConfig,
    planner: Planner,
    *,
    n_samples: int = 64,
    budget_s: float = 4.0,
    clock: Callable[[], float] = time.monotonic,
) -> Largest:
    """Look for a large configuration of a space.

    First, for each model, one in which every number is the largest that the space allows it, or, where the rules forbid
    that, as many as they leave; then the `first` points; then random ones, because words take memory too. None of them
    is forbidden.

    Args:
        config: Of the study.
        planner: For its data.
        n_samples: Configurations to look at, at least 1.
        budget_s: Seconds after which no further one is looked at; the first one always is.
        clock: Tells seconds.

    Raises:
        ConfigError: If none was found that may be tried.
    """
    start, dice = clock(), random.Random(0)
    largest: Largest | None = None
    for n, flat in enumerate(itertools.islice(filter(None, _draw_configs(config, dice)), n_samples), start=1):
        params = from_flat(flat, where="a sample", image_size=config.data.image_size)
        estimate = planner.estimate(params)
        if largest is not None and estimate.total <= largest.estimate.total:
            estimate, params = largest.estimate, largest.params
        largest = Largest(estimate=estimate, params=params, n_samples=n)
        if clock() - start > budget_s:
            break
    if largest is None:
        raise ConfigError(f"forbid: {_TRIES:,} configurations drawn in a row are all forbidden; relax the rules")
    return largest


def plan_largest_of(config: StudyConfig, planner: Planner, model: str) -> int:
    """Say how many bytes the trials of one model will hold, those with the largest numbers that the rules allow.

    Returns:
        0 if none was found, or planning fails.
    """
    dice = random.Random(0)
    flat = _draw_largest(config, dice, {"model": model} if config.space.values_of("model") else {})
    return planner.total(from_flat(flat, where="a sample", image_size=config.data.image_size)) if flat else 0


def _draw_configs(config: StudyConfig, dice: random.Random) -> Iterator[dict[str, Scalar] | None]:
    """Draw flat configurations that a study would run: the largest, the `first` points, then random ones.

    Yields:
        None in place of one that was not found.
    """
    corners: list[dict[str, Scalar]] = [{"model": name} for name in config.space.values_of("model")] or [{}]
    for corner in corners:
        yield _draw_largest(config, dice, corner)
    for point in config.first:
        yield first_allowed(config, itertools.repeat(Dice(dice, point), _TRIES))
    while flat := first_allowed(config, itertools.repeat(Dice(dice), _TRIES)):
        yield flat


def _draw_largest(config: StudyConfig, dice: random.Random, corner: Config) -> dict[str, Scalar] | None:
    """Draw the largest numbers beside some fixed values, or, where the rules forbid that, as many as they leave."""
    return first_allowed(config, (_LargestDraw(dice, corner, 1 - i / _TRIES) for i in range(_TRIES)))


@dataclass(frozen=True, slots=True)
class _LargestDraw(Dice):
    """Takes the largest of a number, or with some chance any; words, which have no order, at random.

    Attributes:
        chance: Of the largest.
    """

    chance: float = 1.0

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        is_word = any(isinstance(choice, str) for choice in choices)
        if is_word or self._lets_go():
            return Dice.suggest_categorical(self, name, choices)
        return max(choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if self._lets_go():
            return Dice.suggest_int(self, name, low, high, step=step, log=log)
        return high  # steps divide a range without a rest

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if self._lets_go():
            return Dice.suggest_float(self, name, low, high, step=step, log=log)
        return high

    def _lets_go(self) -> bool:
        return self.random.random() >= self.chance
