"""Which training wafers are drawn: strategies as shares of the classes, and the draws themselves.

A strategy only says which share of a nominal epoch each class gets. The draws then walk through each class in shuffled
passes, so that within a class no wafer comes a second time before all others came once: a class with fewer wafers than
its share is over-sampled, one with more is under-sampled, and every epoch shows other wafers.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Shares = NDArray[np.float64]


def imbalanced(counts: NDArray[np.int64]) -> Shares:
    """Draw the classes as often as they occur.

    Example:
        >>> imbalanced(np.array([30, 10, 0]))
        array([0.75, 0.25, 0.  ])
    """
    return power(counts, alpha=1.0)


def balanced(counts: NDArray[np.int64]) -> Shares:
    """Draw every class that occurs equally often.

    Example:
        >>> balanced(np.array([30, 10, 0]))
        array([0.5, 0.5, 0. ])
    """
    return power(counts, alpha=0.0)


def power(counts: NDArray[np.int64], *, alpha: float = 0.5) -> Shares:
    """Draw each class in proportion to its count to the power alpha.

    Args:
        counts: Training wafers of each class, shape (K,).
        alpha: In [0, 1]: 0 is balanced, 1 is imbalanced, 0.5 the square root.

    Returns:
        Share of each class, shape (K,), sum 1; a class without wafers gets 0.

    Raises:
        ValueError: If alpha is outside [0, 1].

    Source:
        Mahajan et al. 2018, Exploring the Limits of Weakly Supervised Pretraining, arXiv:1805.00932 (alpha 0.5).
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1]; got {alpha}")
    weights = np.where(counts > 0, np.maximum(counts, 1) ** float(alpha), 0.0)
    shares: Shares = weights / weights.sum()
    return shares


SAMPLINGS: Mapping[str, Callable[..., Shares]] = {"imbalanced": imbalanced, "balanced": balanced, "power": power}


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
        shares: Share of each class, shape (K,), sum 1, 0 for classes without wafers.
        epoch_samples: Wafers per nominal epoch.
    """

    def __init__(self, labels: Tensor, *, shares: Shares, epoch_samples: int) -> None:
        self._members = [torch.nonzero(labels == k).flatten().cpu() for k in range(len(shares))]
        self._shares = shares
        self._epoch_samples = epoch_samples
        self._orders = [torch.empty(0, dtype=torch.int64)] * len(shares)  # what is left of each class's pass

    def next_epoch(self, generator: torch.Generator) -> Tensor:
        """Draw the next nominal epoch, in random order.

        Args:
            generator: On the CPU.

        Returns:
            Positions of the wafers, shape (epoch_samples,), int64, on the CPU.
        """
        drawn = torch.cat([self._take(k, n, generator) for k, n in enumerate(self._next_counts(generator))])
        return drawn[torch.randperm(len(drawn), generator=generator)]

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to draw the same wafers."""
        return {"orders": list(self._orders)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._orders = list(state["orders"])

    def _next_counts(self, generator: torch.Generator) -> list[int]:
        """Round the shares: the sum is exact, and over many epochs so is every class (systematic sampling)."""
        bounds = np.concatenate([[0.0], np.cumsum(self._shares)]) * self._epoch_samples
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
