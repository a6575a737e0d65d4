"""Optimizers, and schedules of their learning rate."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn


def adam(model: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adam; weight decay is an L2 penalty (Kingma & Ba 2014, arXiv:1412.6980)."""
    return torch.optim.Adam(_parameter_groups(model, weight_decay), lr=lr, fused=True)


def adamw(model: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017, arXiv:1711.05101)."""
    return torch.optim.AdamW(_parameter_groups(model, weight_decay), lr=lr, fused=True)


def sgd(model: nn.Module, *, lr: float, weight_decay: float, momentum: float = 0.9) -> torch.optim.Optimizer:
    """Stochastic gradient descent, with Nesterov's step where there is momentum.

    Args:
        model: What to train; parameters that need no gradient are left out.
        lr: Peak learning rate.
        weight_decay: L2 penalty.
        momentum: In [0, 1).

    Raises:
        ValueError: If momentum is out of range.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1); got {momentum}")
    groups = _parameter_groups(model, weight_decay)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)


OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {"adam": adam, "adamw": adamw, "sgd": sgd}


def cosine(progress: float, *, warmup: float = 0.05) -> float:
    """Rise linearly over the warm-up, then fall to zero along half a cosine.

    Args:
        progress: Share of the training done, in [0, 1].
        warmup: Share of the training spent rising, in [0, 0.9].

    Returns:
        Factor on the peak learning rate, in [0, 1].

    Raises:
        ValueError: If warmup is out of range.

    Source:
        Loshchilov & Hutter 2016, SGDR, arXiv:1608.03983, without restarts.
    """
    _check_warmup(warmup)
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def one_cycle(progress: float, *, warmup: float = 0.3) -> float:
    """Rise from 1/25 along half a cosine, then fall to 1/250,000 along another.

    Args:
        progress: Share of the training done, in [0, 1].
        warmup: Share of the training spent rising, in [0, 0.9].

    Returns:
        Factor on the peak learning rate, in (0, 1].

    Raises:
        ValueError: If warmup is out of range.

    Source:
        Smith & Topin 2017, Super-Convergence, arXiv:1708.07120, with torch's default divisors (25 and 1e4).
    """
    _check_warmup(warmup)
    if progress < warmup:
        return _half_cosine(1 / 25, 1.0, progress / warmup)
    return _half_cosine(1.0, 1 / 25 / 1e4, (progress - warmup) / (1 - warmup))


def warmup_stable_decay(progress: float, *, warmup: float = 0.05, decay: float = 0.2) -> float:
    """Rise linearly, stay at the peak, and fall to zero at the end as one minus a square root.

    With a warm-up of equally many steps, the rate until the fall does not depend on how long the training will be.

    Args:
        progress: Share of the training done, in [0, 1].
        warmup: Share of the training spent rising, in [0, 0.9].
        decay: Share of what follows the warm-up that is spent falling, in (0, 1].

    Returns:
        Factor on the peak learning rate, in [0, 1].

    Raises:
        ValueError: If an option is out of range.

    Source:
        Hägele et al. 2024, Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations, arXiv:2405.18392.
    """
    _check_warmup(warmup)
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be in (0, 1]; got {decay}")
    if progress < warmup:
        return progress / warmup
    left = (1 - progress) / (1 - warmup)
    return 1 - math.sqrt(max(0.0, 1 - left / decay))


def constant(progress: float, *, warmup: float = 0.0) -> float:
    """Rise linearly, then stay at the peak to the end, as the project's deck did.

    Args:
        progress: Share of the training done, in [0, 1].
        warmup: Share of the training spent rising, in [0, 0.9].

    Returns:
        Factor on the peak learning rate, in [0, 1].

    Raises:
        ValueError: If warmup is out of range.
    """
    _check_warmup(warmup)
    return min(1.0, progress / warmup) if warmup else 1.0


SCHEDULES: Mapping[str, Callable[..., float]] = {
    "cosine": cosine,
    "one_cycle": one_cycle,
    "warmup_stable_decay": warmup_stable_decay,
    "constant": constant,
}


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Spare biases and BatchNorm's scales the decay: shrinking them does not regularise."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def _check_warmup(warmup: float) -> None:
    if not 0 <= warmup <= 0.9:
        raise ValueError(f"warmup must be in [0, 0.9]; got {warmup}")
