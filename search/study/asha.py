"""The judge: asynchronous successive halving, of the kind that stops trials and never pauses them."""

import math
from collections import defaultdict

from search.space.config import AshaConfig


class Asha:
    """Stops a trial that is not among the best at a rung.

    A rung is an epoch: the first rung, then each `factor` times the one before, below the trial's own length. Only
    trials of the same length are compared: a short schedule has cooled down at an epoch where a long one still learns
    fast, so mixing them would reward shortness. Until a rung holds more than `factor` trials, nobody is stopped there.

    Source:
        Li et al. 2018, A System for Massively Parallel Hyperparameter Tuning, arXiv:1810.05934, algorithm 2, with
        stopping instead of promotion.
    """

    def __init__(self, config: AshaConfig) -> None:
        self._config = config
        self._values: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)  # (length, rung) -> trial -> value

    def rungs(self, length: int) -> list[int]:
        """List the epochs after which a trial of `length` epochs may be stopped."""
        rungs, rung = [], self._config.first_rung
        while rung < length:
            rungs.append(rung)
            rung *= self._config.factor
        return rungs

    def remember(self, trial: int, *, epoch: int, length: int, value: float) -> None:
        """Note what a trial scored; only epochs that are rungs are kept."""
        if epoch in self.rungs(length):
            self._values[length, epoch][trial] = value

    def is_losing(self, trial: int, *, epoch: int, length: int, value: float) -> bool:
        """Judge a trial by its score after an epoch, and remember it.

        Args:
            trial: Number of the trial.
            epoch: Nominal epoch just finished.
            length: Epochs that the trial would train in all.
            value: Objective, higher is better.

        Returns:
            True if the trial should be stopped.
        """
        self.remember(trial, epoch=epoch, length=length, value=value)
        rung = self._values.get((length, epoch), {})
        if trial not in rung or len(rung) <= self._config.factor:
            return False
        n_better = sum(other > value for other in rung.values())
        return n_better >= math.ceil(len(rung) / self._config.factor)
