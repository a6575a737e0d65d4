"""The judge: asynchronous successive halving, of the kind that stops trials and never pauses them."""

import math
from collections import defaultdict

from search.space.config import AshaConfig
from search.study.rows import Standing


class Asha:
    """Stops a trial that is not among the best at a rung.

    A rung is an epoch: the first rung, then each `factor` times the one before, below the trial's own length. Only
    trials of the same length are compared: a short schedule has cooled down at an epoch where a long one still learns
    fast, so mixing them would reward shortness. Until a rung holds `peers` others, nobody is stopped there.

    A trial is judged again after every epoch, by how it stood at the last rung that it has passed: the first ones to
    come there find no peers, and would otherwise run to their end whatever comes after them.

    Source:
        Li et al. 2018, A System for Massively Parallel Hyperparameter Tuning, arXiv:1810.05934, algorithm 2, with
        stopping instead of promotion. Judging again is ours; docs/experiments.md says what it is worth.
    """

    def __init__(self, config: AshaConfig) -> None:
        self._config = config
        self._rungs: dict[tuple[int, int], dict[int, Standing]] = defaultdict(dict)  # (length, rung) -> trial

    def rungs(self, length: int) -> list[int]:
        """List the epochs after which a trial of `length` epochs may be stopped."""
        rungs, rung = [], self._config.first_rung
        while rung < length:
            rungs.append(rung)
            rung *= self._config.factor
        return rungs

    def remember(self, trial: int, *, epoch: int, length: int, standing: Standing) -> None:
        """Note how a trial stood; only epochs that are rungs are kept."""
        if epoch in self.rungs(length):
            self._rungs[length, epoch][trial] = standing

    def remember_failure(self, trial: int, *, epoch: int, length: int) -> None:
        """Note that a trial did not work in an epoch: at the next rung it stands below all that came there."""
        ahead = [rung for rung in self.rungs(length) if rung >= epoch]
        if ahead:
            self._rungs[length, ahead[0]][trial] = (-math.inf, -math.inf)

    def forget(self, trial: int) -> None:
        """Take back all that is known of a trial."""
        for rung in self._rungs.values():
            rung.pop(trial, None)

    def is_losing(self, trial: int, *, epoch: int, length: int, standing: Standing) -> bool:
        """Judge a trial by how it stands after an epoch, and remember it.

        Args:
            trial: Number of the trial.
            epoch: Nominal epoch just finished.
            length: Epochs that the trial would train in all.
            standing: Those that meet all floors come first, then the objective decides.

        Returns:
            True if the trial should be stopped.
        """
        self.remember(trial, epoch=epoch, length=length, standing=standing)
        passed = [rung for rung in self.rungs(length) if rung <= epoch]
        rung = self._rungs.get((length, passed[-1]), {}) if passed else {}
        if trial not in rung or len(rung) <= self._config.peers:
            return False
        n_better = sum(other > rung[trial] for other in rung.values())
        return n_better >= math.ceil(len(rung) / self._config.factor)
