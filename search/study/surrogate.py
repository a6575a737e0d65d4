"""A sampler of ours: it models where every configuration would end, from how others stood on their way."""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, qmc, rankdata

from search.space.space import Config, Space
from search.study.encoder import Encoder
from search.study.gaussian_process import GaussianProcess
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, Standing, TrialRecord
from search.study.samplers import HORIZON

Array = NDArray[np.float64]

_STARTUP = 10  # quasi-random configurations before the first that the model proposes
_ANYWHERE, _NEARBY, _PARENTS = 200, 400, 10  # candidates: from anywhere, and changed from the most promising
_OBSERVATIONS, _FITTED = 300, 120  # that the model holds; that its length scales are fitted to
_BELIEVED = 200  # of the running trials of which nothing is known yet, the latest that the model is told to expect
_CONFIDENT = 0.75  # that a candidate works, of what is 1 if it is sure
_WORST: Standing = (-math.inf, -math.inf)


class Surrogate:
    """Proposes what is best in one draw of what it believes: Thompson sampling.

    A Gaussian process learns from how trials stood at the judge's rungs and at their ends; one of its dimensions is the
    logarithm of the epoch, so that what was seen of a trial that was stopped, or runs, says something about where
    others like it will end. Standings count by their ranks alone, and what did not work ranks last where it broke.
    Trials of which nothing is known yet are taken to reach what the model expects.

    Args:
        space: What may be tried.
        seed: Of everything random.
        rungs: Lists the epochs at which trials of a given length are judged.

    Source:
        Thompson sampling, here of every candidate by itself: Thompson 1933. Believing the model for what runs:
        Ginsbourger et al. 2010. Epochs as a dimension: Swersky et al. 2013, Multi-Task Bayesian Optimization, with a
        kernel of numbers. What was tried beside it: docs/experiments.md.
    """

    def __init__(self, space: Space, *, seed: int, rungs: Callable[[int], list[int]]) -> None:
        self._space = space
        self._rungs = rungs
        self._encoder = Encoder(space)
        self._rng = np.random.default_rng(seed)
        d = len(self._encoder.is_word)
        self._sobol = qmc.Sobol(d, rng=seed) if d else None
        self._model = GaussianProcess(np.append(self._encoder.is_word, False))
        self._doubt = GaussianProcess(self._encoder.is_word)
        self._fitted_at = self._doubted_at = 0
        self._longest = space.longest
        self._begun: dict[int, tuple[TrialRecord, Array]] = {}
        self._n_begun = 0

    def suggest(self, point: Config, is_new: Callable[[Config], bool]) -> Config | None:
        """See Sampler."""
        if point or self._sobol is None:  # a first point: the dice fill up what it leaves open
            return None
        seen, standings = self._observe()
        if self._n_begun < _STARTUP or len(set(standings)) < 2:
            vectors = iter(self._encoder.spread(self._sobol.random(1)))
        else:
            vectors = self._rank_candidates(seen, _to_normal(standings))
        return next(filter(is_new, map(self._encoder.decode, vectors)), None)

    def begin(self, record: TrialRecord) -> None:
        """See Sampler."""
        self._begun[record.number] = (record, self._encoder.encode(record.config))
        self._n_begun += 1

    def end(self, record: TrialRecord, violations: Mapping[str, float]) -> None:
        """See Sampler; what a trial misses is part of how it stands."""
        if record.status == FAILED:  # which says nothing of its configuration
            del self._begun[record.number]
        if len(self._begun) > 2 * HORIZON:
            self._forget()

    def _forget(self) -> None:
        """Keep the running trials, and the best and the latest of those that ended."""
        ended = [record for record, _ in self._begun.values() if record.status != RUNNING]
        best = sorted(ended, key=lambda record: (record.status == COMPLETE, record.standing))[-HORIZON // 2 :]
        kept = {record.number for record in (*best, *ended[-HORIZON // 2 :])}
        self._begun = {n: pair for n, pair in self._begun.items() if n in kept or pair[0].status == RUNNING}

    def _observe(self) -> tuple[Array, list[Standing]]:
        """Collect where trials stood: vectors with the epoch in the last dimension, shape (n, d + 1), and standings."""
        rows: list[Array] = []
        epochs: list[float] = []
        standings: list[Standing] = []
        for record, vector in self._begun.values():
            for epoch, standing in self._stages(record):
                rows.append(vector)
                epochs.append(epoch)
                standings.append(standing)
        vectors = np.array(rows).reshape(len(rows), len(self._encoder.is_word))
        return np.column_stack([vectors, self._stage(np.array(epochs, np.float64))]), standings

    def _stages(self, record: TrialRecord) -> Iterator[tuple[int, Standing]]:
        for epoch in (*self._rungs(record.epochs), record.epochs):
            if epoch <= len(record.values):
                yield epoch, (-record.shortfalls[epoch - 1], record.values[epoch - 1])
        if record.status == INFEASIBLE:
            yield min(len(record.values) + 1, record.epochs), _WORST

    def _stage(self, epochs: Array) -> Array:
        """Where epochs lie between the first and the longest schedule's last, in the logarithm."""
        return np.log(epochs) / math.log(self._longest) if self._longest > 1 else np.ones_like(epochs)

    def _rank_candidates(self, x: Array, y: Array) -> Iterator[Array]:
        """Go through candidates, the best of the draw first."""
        x, y = self._choose(x, y, _OBSERVATIONS)
        if self._fitted_at == 0 or self._n_begun - self._fitted_at >= max(1, self._n_begun // 20):
            self._model.fit(*self._choose(x, y, _FITTED))
            self._fitted_at = self._n_begun
        self._model.condition(x, y)
        begun = list(self._begun.values())
        known = np.array([vector for record, vector in begun if record.status != RUNNING or record.values])
        parents = known[np.argsort(-self._predict(known)[0], kind="stable")[:_PARENTS]]
        unknown = [vector for record, vector in begun if record.status == RUNNING and not record.values][-_BELIEVED:]
        if unknown:
            believed = self._at_end(np.array(unknown))
            self._model.condition(np.vstack([x, believed]), np.append(y, self._model.predict(believed)[0]))
        anywhere = self._encoder.spread(self._rng.random((_ANYWHERE, len(self._encoder.is_word))))
        nearby = self._encoder.mutate(parents[self._rng.integers(len(parents), size=_NEARBY)], self._rng)
        candidates = np.vstack([nearby, anywhere])
        mean, deviation = self._predict(candidates)
        drawn = mean + deviation * self._rng.normal(size=len(mean))
        yield from candidates[np.lexsort((-drawn, ~self._may_work(candidates)))]

    def _may_work(self, candidates: Array) -> NDArray[np.bool_]:
        """Tell where a second model, of whether trials worked, expects a yes."""
        ended = [(record, vector) for record, vector in self._begun.values() if record.status != RUNNING]
        worked = np.array([record.status != INFEASIBLE for record, _ in ended], np.float64)
        if worked.all():
            return np.ones(len(candidates), bool)
        x = np.array([vector for _, vector in ended])
        if self._n_begun - self._doubted_at >= max(1, self._n_begun // 10):
            self._doubt.fit(*self._choose(x, worked, _FITTED))
            self._doubted_at = self._n_begun
        self._doubt.condition(x, worked)
        return self._doubt.predict(candidates)[0] > _CONFIDENT

    def _predict(self, vectors: Array) -> tuple[Array, Array]:
        """Predict where configurations end."""
        return self._model.predict(self._at_end(vectors))

    def _at_end(self, vectors: Array) -> Array:
        """Put configurations at the ends of their own schedules."""
        return np.column_stack([vectors, self._stage(self._encoder.lengths(vectors))])

    def _choose(self, x: Array, y: Array, n: int) -> tuple[Array, Array]:
        """Choose `n` observations: the best third, and others at random."""
        if len(y) <= n:
            return x, y
        order = np.argsort(-y, kind="stable")
        others = self._rng.choice(order[n // 3 :], n - n // 3, replace=False)
        chosen = np.concatenate([order[: n // 3], others])
        return x[chosen], y[chosen]


def _to_normal(standings: list[Standing]) -> Array:
    """Replace standings by normal quantiles of their ranks."""
    order = {standing: place for place, standing in enumerate(sorted(set(standings)))}
    ranks = rankdata([order[standing] for standing in standings])
    return np.asarray(norm.ppf((ranks - 0.5) / len(ranks)), np.float64)
