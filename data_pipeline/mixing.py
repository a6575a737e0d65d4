"""Training batches whose wafers are mixed with one another, and how much of its own label each wafer keeps.

A mixing draws one `Mix` per batch, on the CPU. Off unless asked for: half a scratch on half a ring is no wafer that a
machine would make, so whether mixing helps is for the search to find out.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mix:
    """How to mix one batch of N wafers.

    Attributes:
        partner: Which wafer of the batch each is mixed with, a permutation, shape (N,), int64; some may get themselves.
        keep: Share that was drawn for each wafer's own picture and label, in [0, 1]. Of a cut picture another share may
            be left; `apply` returns the true one.
        centre: Middle of the box that is cut out, as shares of height and width, in [0, 1); None blends whole pictures.
    """

    partner: Tensor
    keep: float
    centre: tuple[float, float] | None = None

    def to(self, device: torch.device) -> "Mix":
        """Move to a device, without waiting for it."""
        return Mix(partner=self.partner.to(device, non_blocking=True), keep=self.keep, centre=self.centre)

    def apply(self, channels: Tensor) -> tuple[Tensor, float]:
        """Mix the wafers; pure.

        Args:
            channels: Shape (N, C, H, W), float, on the device of `partner`; never written to.

        Returns:
            The mixed wafers, in the same memory order, and the share of its own label that each keeps, in [0, 1]: the
            loss is keep * loss(logits, labels) + (1 - keep) * loss(logits, labels[partner]).
        """
        if self.centre is None:
            return torch.lerp(channels[self.partner], channels, self.keep), self.keep
        height, width = channels.shape[2:]
        rows, columns = self._cut(height, self.centre[0]), self._cut(width, self.centre[1])
        mixed = channels.clone()
        mixed[:, :, rows, columns] = channels[:, :, rows, columns][self.partner]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        return mixed, 1 - area / (height * width)

    def _cut(self, side: int, centre: float) -> slice:
        """Place the box along one side, in pixels; what would lie beyond the picture is lost, as in the paper."""
        length = round(side * math.sqrt(1 - self.keep))
        start = int(side * centre) - length // 2
        return slice(max(start, 0), min(start + length, side))


def none(n: int, generator: torch.Generator) -> None:
    """Leave the batch as it is, and draw nothing."""
    return


def mixup(n: int, generator: torch.Generator, *, alpha: float = 0.2) -> Mix:
    """Blend each wafer with another one, pixel by pixel.

    Args:
        n: Wafers in the batch.
        generator: On the CPU.
        alpha: How evenly: the kept share is drawn from Beta(alpha, alpha), in (0, 10]. Towards 0 one of the two wafers
            all but vanishes; 1 makes every share equally likely; larger is closer to half and half.

    Raises:
        ValueError: If alpha is out of range.

    Source:
        Zhang et al. 2017, mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412.
    """
    keep = _draw_share(generator, alpha=alpha)
    return Mix(partner=torch.randperm(n, generator=generator), keep=keep)


def cutmix(n: int, generator: torch.Generator, *, alpha: float = 1.0) -> Mix:
    """Replace a box of each wafer by the same box of another one.

    Args:
        n: Wafers in the batch.
        generator: On the CPU.
        alpha: How large the box is: the share outside it is drawn from Beta(alpha, alpha), in (0, 10]; see mixup.

    Raises:
        ValueError: If alpha is out of range.

    Source:
        Yun et al. 2019, CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features,
        arXiv:1905.04899.
    """
    keep = _draw_share(generator, alpha=alpha)
    down, across = torch.rand(2, generator=generator).tolist()
    return Mix(partner=torch.randperm(n, generator=generator), keep=keep, centre=(down, across))


MIXINGS: Mapping[str, Callable[..., Mix | None]] = {"none": none, "mixup": mixup, "cutmix": cutmix}


def _draw_share(generator: torch.Generator, *, alpha: float) -> float:
    """Draw from Beta(alpha, alpha), with NumPy: torch draws it only from its global generator."""
    if not 0 < alpha <= 10:
        raise ValueError(f"alpha must be in (0, 10]; got {alpha}")
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))
