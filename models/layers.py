"""Pieces that the networks share, and the checks of their options."""

from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from models.errors import ModelError

POOLINGS = ("avg", "max", "avgmax")


def conv_bn_relu(n_in: int, n_out: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolve, normalise, rectify; the convolution has no bias because BatchNorm would remove it."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


class GlobalPool(nn.Module):
    """Reduce (N, C, H, W) to (N, C): the mean ("avg"), the maximum ("max"), or their sum ("avgmax").

    The mean tells how much of the wafer shows a pattern, the maximum whether any place does: a scratch is
    small.

    Raises:
        ModelError: If the kind is another.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        check_choice("pooling", kind, known=POOLINGS)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Pool over height and width."""
        if self.kind == "avg":
            return x.mean((2, 3))
        if self.kind == "max":
            return torch.amax(x, (2, 3))
        return x.mean((2, 3)) + torch.amax(x, (2, 3))


def check_range(name: str, value: float, *, low: float, high: float) -> None:
    """Raise ModelError unless value is a number with low <= value <= high."""
    if not isinstance(value, Real) or isinstance(value, bool) or not low <= value <= high:
        raise ModelError(f"{name} must be a number in [{low:g}, {high:g}]; got {value!r}")


def check_count(name: str, value: int, *, low: int, high: int) -> None:
    """Raise ModelError unless value is a whole number with low <= value <= high."""
    if not isinstance(value, Integral) or isinstance(value, bool) or not low <= value <= high:
        raise ModelError(f"{name} must be a whole number in [{low}, {high}]; got {value!r}")


def check_choice(name: str, value: str, *, known: Sequence[str]) -> None:
    """Raise ModelError unless value is one of the known words."""
    if value not in known:
        raise ModelError(f"{name} must be one of {', '.join(known)}; got {value!r}")
