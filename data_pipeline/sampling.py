"""Which training wafers are drawn: strategies as shares of the classes, and the draws themselves.

A strategy only says which share of a nominal epoch each class gets, and which of its wafers may be drawn. The draws
then walk through each class in shuffled passes, so that within a class no wafer comes a second time before all others
came once: a class with fewer wafers than its share is over-sampled, one with more is under-sampled, and every epoch
shows other wafers.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What a strategy asks for. All shares have shape (K,), sum 1, and 0 for classes without wafers.

    Attributes:
        start: Share of each class in the first epoch.
        end: Share in the last one; in between the shares move in a straight line.
        pool: Draw from so many wafers of each class, copies counted; None: from all, without copies.
    """

    start: Shares
    end: Shares
    pool: int | None = None

    def shares(self, progress: float) -> Shares:
        """Return the shares after this part of the training, in [0, 1]."""
        shares: Shares = (1 - progress) * self.start + progress * self.end
        return shares


def imbalanced(counts: NDArray[np.int64]) -> Plan:
    """Draw the classes as often as they occur.

    Example:
        >>> imbalanced(np.array([30, 10, 0])).start
        array([0.75, 0.25, 0.  ])
    """
    return power(counts, alpha=1.0)


def balanced(counts: NDArray[np.int64]) -> Plan:
    """Draw every class that occurs equally often.

    Example:
        >>> balanced(np.array([30, 10, 0])).start
        array([0.5, 0.5, 0. ])
    """
    return power(counts, alpha=0.0)


def power(counts: NDArray[np.int64], *, alpha: float = 0.5) -> Plan:
    """Draw each class in proportion to its count to the power alpha.

    Args:
        counts: Training wafers of each class, shape (K,).
        alpha: In [0, 1]: 0 is balanced, 1 is imbalanced, 0.5 the square root.

    Raises:
        ValueError: If alpha is outside [0, 1].

    Source:
        Mahajan et al. 2018, Exploring the Limits of Weakly Supervised Pretraining, arXiv:1805.00932 (alpha 0.5).
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1]; got {alpha}")
    return _steady(np.where(counts > 0, np.maximum(counts, 1) ** float(alpha), 0.0))


def progressive(counts: NDArray[np.int64]) -> Plan:
    """Draw the classes as often as they occur at first, equally often at last, in a straight line between.

    Source:
        Kang et al. 2020, Decoupling Representation and Classifier for Long-Tailed Recognition, arXiv:1910.09217
        (progressively-balanced sampling).
    """
    return Plan(start=imbalanced(counts).start, end=balanced(counts).start)


def effective_number(counts: NDArray[np.int64], *, beta: float = 0.999) -> Plan:
    """Draw each wafer in inverse proportion to the effective number of wafers of its class.

    Of n wafers that overlap, (1 - beta^n) / (1 - beta) count; a class gets a share in proportion to n over that.

    Args:
        counts: Training wafers of each class, shape (K,).
        beta: How much wafers overlap, in [0, 1): 0 is imbalanced; towards 1 it becomes balanced. Classes much larger
            than 1 / (1 - beta) are drawn as often as they occur, much smaller ones equally often.

    Raises:
        ValueError: If beta is outside [0, 1).

    Source:
        Cui et al. 2019, Class-Balanced Loss Based on Effective Number of Samples, arXiv:1901.05555, its weights of the
        loss used as probabilities.
    """
    n = np.maximum(counts, 1)
    return _steady(np.where(counts > 0, n / count_effectively(n, beta=beta), 0.0))


def count_effectively(counts: NDArray[np.int64], *, beta: float) -> NDArray[np.float64]:
    """Return the effective number of wafers of each class, (1 - beta^n) / (1 - beta); see `effective_number`.

    Args:
        counts: Wafers of each class, at least 1, shape (K,).
        beta: How much wafers overlap, in [0, 1): at 0 all of a class count as one.

    Raises:
        ValueError: If beta is outside [0, 1).

    Example:
        >>> count_effectively(np.array([1, 2, 1000]), beta=0.5)
        array([1. , 1.5, 2. ])
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1); got {beta}")
    if beta == 0:
        return np.ones(len(counts))
    effective: NDArray[np.float64] = -np.expm1(counts * math.log(beta)) / (1 - beta)
    return effective


def per_class(counts: NDArray[np.int64], *, per_class: int = 2000) -> Plan:
    """Draw every class equally often, from a fixed pool of equally many wafers, as the project's deck did.

    Args:
        counts: Training wafers of each class, shape (K,).
        per_class: Wafers in the pool of each class, in [1, 1000000]: a choice of them where there are more, else all
            of them, copied.

    Raises:
        ValueError: If per_class is outside its range.
    """
    if not 1 <= per_class <= 1_000_000:
        raise ValueError(f"per_class must be in [1, 1000000]; got {per_class}")
    shares = balanced(counts).start
    return Plan(start=shares, end=shares, pool=per_class)


SAMPLINGS: Mapping[str, Callable[..., Plan]] = {
    "imbalanced": imbalanced,
    "balanced": balanced,
    "power": power,
    "progressive": progressive,
    "effective_number": effective_number,
    "per_class": per_class,
}


def make_pool(members: NDArray[np.int64], *, size: int) -> NDArray[np.int64]:
    """Take the first `size` wafers, or all of them copied evenly until there are so many; the first get one copy more.

    Example:
        >>> make_pool(np.array([7, 3, 5]), size=4)
        array([7, 3, 5, 7])
    """
    return np.resize(members, size)


def choose_subset(labels: NDArray[np.int64], *, fraction: float) -> NDArray[np.int64]:
    """Choose the same share of every class, at least one wafer each.

    The order is fixed, so that trials with equal fractions see the same wafers and a larger fraction holds a smaller
    one: `subset` then compares amounts of data and not luck.

    Args:
        labels: Class of each wafer, shape (N,).
        fraction: In (0, 1].

    Returns:
        Ascending positions in `labels`.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    kept = []
    for k in np.unique(labels):
        members = order[labels[order] == k]
        kept.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(kept))


class WaferDraws:
    """An endless supply of nominal epochs of wafer indices.

    Args:
        labels: Class of each training wafer, shape (N,), int64.
        plan: Shares of the classes, and what is drawn from.
        epoch_samples: Wafers per nominal epoch.
    """

    def __init__(self, labels: Tensor, *, plan: Plan, epoch_samples: int) -> None:
        n_classes = len(plan.start)
        members = [torch.nonzero(labels == k).flatten().cpu() for k in range(n_classes)]
        self._members = members if plan.pool is None else [_choose_pool(rows, size=plan.pool) for rows in members]
        self._plan = plan
        self._epoch_samples = epoch_samples
        self._orders = [torch.empty(0, dtype=torch.int64)] * n_classes  # what is left of each class's pass

    def next_epoch(self, generator: torch.Generator, *, progress: float = 0.0) -> Tensor:
        """Draw the next nominal epoch, in random order.

        Args:
            generator: On the CPU.
            progress: How far the training is, in [0, 1]: 0 in its first epoch, 1 in its last.

        Returns:
            Positions of the wafers, shape (epoch_samples,), int64, on the CPU.
        """
        counts = self._next_counts(self._plan.shares(progress), generator)
        drawn = torch.cat([self._take(k, n, generator) for k, n in enumerate(counts)])
        return drawn[torch.randperm(len(drawn), generator=generator)]

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to draw the same wafers."""
        return {"orders": list(self._orders)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._orders = list(state["orders"])

    def _next_counts(self, shares: Shares, generator: torch.Generator) -> list[int]:
        """Round the shares: the sum is exact, and over many epochs so is every class (systematic sampling)."""
        bounds = np.concatenate([[0.0], np.cumsum(shares)]) * self._epoch_samples
        bounds[bounds > self._epoch_samples - 1e-6] = self._epoch_samples
        offset = torch.rand(1, generator=generator, dtype=torch.float64).item()
        return [int(n) for n in np.diff(np.floor(bounds + offset))]

    def _take(self, k: int, n: int, generator: torch.Generator) -> Tensor:
        parts = [self._orders[k]]
        while sum(len(part) for part in parts) < n:
            members = self._members[k]
            parts.append(members[torch.randperm(len(members), generator=generator)])
        supply = torch.cat(parts)
        self._orders[k] = supply[n:].clone()  # a clone, or a checkpoint would hold the whole pass
        return supply[:n]


def _steady(weights: NDArray[np.float64]) -> Plan:
    shares: Shares = weights / weights.sum()
    return Plan(start=shares, end=shares)


def _choose_pool(members: Tensor, *, size: int) -> Tensor:
    """Fill a class's pool; the order is fixed, as in `choose_subset`, and a resumed run has the same pool."""
    if len(members) == 0:
        return members
    order = np.random.default_rng(0).permutation(members.numpy())
    return torch.from_numpy(make_pool(order, size=size))
