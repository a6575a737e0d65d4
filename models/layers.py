"""Pieces that our own networks share."""

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
    """Reduce (N, C, H, W) to (N, C): the mean, the maximum, or their sum.

    The mean tells how much of the wafer shows a pattern, the maximum whether any place does: a scratch is small.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise ModelError(f"pooling must be one of {', '.join(POOLINGS)}; got {kind!r}")
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Pool over height and width."""
        if self.kind == "avg":
            return x.mean((2, 3))
        if self.kind == "max":
            return torch.amax(x, (2, 3))
        return x.mean((2, 3)) + torch.amax(x, (2, 3))


def check_range(name: str, value: float, *, low: float, high: float) -> None:
    """Raise ModelError unless low <= value <= high."""
    if not low <= value <= high:
        raise ModelError(f"{name} must be in [{low:g}, {high:g}]; got {value}")
