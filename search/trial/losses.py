"""Losses between logits and classes."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(*, label_smoothing: float = 0.0) -> Loss:
    """Return the mean cross-entropy of logits (N, K) and labels (N,).

    Args:
        label_smoothing: Share of each target spread evenly over all classes, in [0, 0.5].

    Raises:
        ValueError: If label_smoothing is out of range.

    Source:
        Szegedy et al. 2015, Rethinking the Inception Architecture, arXiv:1512.00567, section 7.
    """
    if not 0 <= label_smoothing <= 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5]; got {label_smoothing}")
    return partial(functional.cross_entropy, label_smoothing=label_smoothing)


LOSSES: Mapping[str, Callable[..., Loss]] = {"cross_entropy": cross_entropy}
