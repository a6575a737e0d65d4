"""The other judge: ASHA under a cap that rises only where longer training changes the order of the trials."""

import itertools
from collections import defaultdict

from search.space.config import AshaConfig
from search.study.asha import Asha
from search.study.rows import Standing


class Pasha(Asha):
    """Lets only the best train past a cap, until trials that get there are seen to overtake each other.

    The cap is the second rung at first. Once it holds more than `peers` trials, and any of them has overtaken another
    since the rung before, the order there settles nothing and the next rung is the cap; past the last there is none.
    Two curves that have crossed more than once by then are noise and do not count.

    Who stands best at the cap goes on, so that what is handed over has been trained to its end, as under ASHA. The cap
    follows from the standings alone, in whatever order they came: a study that is opened again has the same.

    Source:
        Bohdal et al. 2023, PASHA: Efficient HPO and NAS with Progressive Resource Allocation, arXiv:2207.06940. There
        nobody trains past the cap, and the noise of all pairs together gives a tolerance; docs/experiments.md says what
        became of that here.
    """

    def __init__(self, config: AshaConfig) -> None:
        super().__init__(config)
        self._peers = config.peers
        self._seen: dict[tuple[int, int], dict[int, Standing]] = defaultdict(dict)  # (length, epoch) -> trial
        self._compared: dict[tuple[int, int], set[int]] = defaultdict(set)  # (length, rung) -> trials
        self._unsettled: set[tuple[int, int]] = set()  # (length, rung) where somebody has overtaken

    def remember(self, trial: int, *, epoch: int, length: int, standing: Standing) -> None:
        """Note how a trial stood; every epoch tells how often two curves cross."""
        super().remember(trial, epoch=epoch, length=length, standing=standing)
        self._seen[length, epoch][trial] = standing

    def forget(self, trial: int) -> None:
        """Take back all that is known of a trial, and whom it has overtaken."""
        super().forget(trial)
        for seen in self._seen.values():
            seen.pop(trial, None)
        self._compared.clear()
        self._unsettled.clear()

    def cap(self, length: int) -> int:
        """Return the epoch past which only the best of the trials of `length` epochs train; `length` if all may."""
        for before, rung in itertools.pairwise(self.rungs(length)):
            if not self._is_unsettled(length, before, rung):
                return rung
        return length

    def is_losing(self, trial: int, *, epoch: int, length: int, standing: Standing) -> bool:
        """Judge a trial as ASHA does, and by the cap if that is the last rung it has passed."""
        if super().is_losing(trial, epoch=epoch, length=length, standing=standing):
            return True
        cap = self.cap(length)
        passed = [rung for rung in self.rungs(length) if rung <= epoch]
        rung = self._seen[length, cap] if cap in passed[-1:] else {}
        return trial in rung and rung[trial] < max(rung.values())

    def _is_unsettled(self, length: int, before: int, rung: int) -> bool:
        """Compare whoever is new at a rung with all others there, until one pair is found."""
        compared = self._compared[length, rung]
        for trial in self._seen[length, rung].keys() - compared:
            if (length, rung) in self._unsettled:
                break
            if any(self._have_swapped(trial, other, length, before, rung) for other in compared):
                self._unsettled.add((length, rung))
            compared.add(trial)
        return (length, rung) in self._unsettled and len(self._seen[length, rung]) > self._peers

    def _have_swapped(self, one: int, other: int, length: int, before: int, rung: int) -> bool:
        """Whether two curves have crossed between two rungs, and nowhere else until then."""
        if self._lead(one, other, length, before) * self._lead(one, other, length, rung) >= 0:
            return False
        ahead = filter(None, (self._lead(one, other, length, epoch) for epoch in range(1, rung + 1)))
        return sum(a != b for a, b in itertools.pairwise(ahead)) == 1

    def _lead(self, one: int, other: int, length: int, epoch: int) -> int:
        """Say who is ahead after an epoch: 1, -1, or 0 if neither is or one was not seen."""
        seen = self._seen[length, epoch]
        if one not in seen or other not in seen:
            return 0
        return (seen[one] > seen[other]) - (seen[one] < seen[other])


def make_judge(config: AshaConfig) -> Asha:
    """Return the judge that a study asks for."""
    return Pasha(config) if config.progressive else Asha(config)
