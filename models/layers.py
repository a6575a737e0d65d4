"""Pieces that the networks share, and the checks of their options."""

from collections.abc import Sequence
from math import gcd, log
from numbers import Integral, Real

import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from models.errors import ModelError

NORMS = ("batch", "group", "none")
POOLINGS = ("avg", "max", "avgmax", "gem")
STEMS = ("full", "strided")


def make_stem(kind: str, width: int, *, norm: str, mask_channel: bool, halve: bool = False) -> list[nn.Module]:
    """Begin a network on passing and failing dies: a 3x3 convolution ("full") or a 5x5 one in steps of two ("strided").

    Its output has `width` channels and may be halved, see `conv_norm_relu`.

    Raises:
        ModelError: If an option is out of range.
    """
    check_choice("stem", kind, known=STEMS)
    check_flag("mask_channel", mask_channel)
    n_in = 3 if mask_channel else 2
    kernel, stride = (3, 1) if kind == "full" else (5, 2)
    first = conv_norm_relu(n_in, width, norm=norm, kernel=kernel, stride=stride, halve=halve)
    return [MaskChannel(), first] if mask_channel else [first]


class MaskChannel(nn.Module):
    """Add the share of no die as a last channel: outside of the wafer it is 1, where convolutions pad it is 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 2, S, S) to (N, 3, S, S)."""
        return torch.cat([x, 1 - x.sum(1, keepdim=True)], dim=1)


def conv_norm_relu(
    n_in: int, n_out: int, *, norm: str, kernel: int = 3, stride: int = 1, halve: bool = False
) -> nn.Sequential:
    """Convolve, normalise, rectify; to halve the map, take the largest of each 2x2 right after the convolution.

    Pooling first leaves a quarter of the work to the norm and the rectifier, and commutes with the latter.

    Source:
        He et al. 2015, Delving Deep into Rectifiers, arXiv:1502.01852: the first kernels where there is no norm.
    """
    conv, normalise = conv_norm(n_in, n_out, norm=norm, kernel=kernel, stride=stride)
    if norm == "none":
        # torch's own kernels more than halve the signal each time: after 13 layers the wafers differ by 1e-6.
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    pool = [nn.MaxPool2d(2)] if halve else []
    return nn.Sequential(conv, *pool, normalise, nn.ReLU(inplace=True))


def conv_norm(n_in: int, n_out: int, *, norm: str, kernel: int = 3, stride: int = 1) -> tuple[nn.Conv2d, nn.Module]:
    """Make a convolution and what normalises it; the convolution has a bias only where no norm brings its own.

    Raises:
        ModelError: If there is no such norm.
    """
    conv = nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=norm == "none")
    return conv, make_norm(norm, n_out)


def make_norm(kind: str, n_channels: int) -> nn.Module:
    """Normalise over the batch ("batch"), over groups of channels of each wafer ("group"), or not ("none").

    There are eight groups, or the most that still divide the channels and eight.

    Raises:
        ModelError: If the kind is another.

    Source:
        Wu and He 2018, Group Normalization, arXiv:1803.08494.
    """
    check_choice("norm", kind, known=NORMS)
    if kind == "batch":
        return nn.BatchNorm2d(n_channels)
    return nn.GroupNorm(gcd(8, n_channels), n_channels) if kind == "group" else nn.Identity()


def make_squeeze(n_channels: int, *, wanted: bool) -> list[nn.Module]:
    """Weigh the channels by what the whole map shows, or do nothing.

    A quarter of the channels decide, at least four; the sixteenth of the paper would leave narrow networks two.

    Raises:
        ModelError: If the wish is not a bool.

    Source:
        Hu et al. 2017, Squeeze-and-Excitation Networks, arXiv:1709.01507.
    """
    check_flag("squeeze", wanted)
    return [SqueezeExcitation(n_channels, max(4, n_channels // 4))] if wanted else []


class GlobalPool(nn.Module):
    """Reduce (N, C, H, W) to (N, C).

    The mean ("avg") tells how much of the wafer shows a pattern, the maximum ("max") whether any place does: a
    scratch is small. "avgmax" is their sum, "gem" a learned mean between them.

    Raises:
        ModelError: If the kind is another.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        check_choice("pooling", kind, known=POOLINGS)
        self.kind = kind
        if kind == "gem":
            self.exponent = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        """Pool over height and width."""
        if self.kind == "avg":
            return x.mean((2, 3))
        if self.kind == "max":
            return torch.amax(x, (2, 3))
        if self.kind == "avgmax":
            return x.mean((2, 3)) + torch.amax(x, (2, 3))
        return generalized_mean(x, self.exponent)


def generalized_mean(x: Tensor, exponent: Tensor) -> Tensor:
    """Pool (N, C, H, W) to (N, C), between the mean (exponent 1) and the maximum (exponent towards infinity).

    Args:
        x: Rectified maps of any floating type; what is below 1e-6 counts as 1e-6 and gets no gradient.
        exponent: One number; below 1 it counts as 1, or a large step could take it to 0, where the mean breaks down.

    Returns:
        The mean of x**exponent, to the power of 1 / exponent, in the type of x.

    Source:
        Radenovic et al. 2017, Fine-tuning CNN Image Retrieval with No Human Annotation, arXiv:1711.02512, equation 3.

    Example:
        >>> round(generalized_mean(torch.tensor([[[[1.0, 7.0]]]]), torch.tensor(2.0)).item(), 3)
        5.0
    """
    p = exponent.float().clamp(min=1)
    # By way of logarithms, because the power itself overflows; bfloat16 would keep two digits of them.
    log_sums = torch.logsumexp(p * x.float().clamp(min=1e-6).log(), (2, 3))
    return ((log_sums - log(x.shape[2] * x.shape[3])) / p).exp().to(x.dtype)


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


def check_flag(name: str, value: bool) -> None:
    """Raise ModelError unless value is True or False."""
    if not isinstance(value, bool):
        raise ModelError(f"{name} must be true or false; got {value!r}")
