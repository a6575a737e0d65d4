"""Losses between logits and classes.

Every factory takes the number of training wafers of each class first, shape (K,), on the device. A class without any
counts as one wafer, so that no logarithm is infinite.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from data_pipeline.sampling import count_effectively


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """A mean loss of logits (N, K) and labels (N,).

    Attributes:
        compute: The loss.
        prior_tilt: Factors by which the class shares that the logits speak of differ from those that were drawn, shape
            (K,): what corrects the prior must be known, or a decision would correct it once more.
    """

    compute: Callable[[Tensor, Tensor], Tensor]
    prior_tilt: Tensor

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return one number."""
        return self.compute(logits, labels)


def cross_entropy(counts: Tensor, *, label_smoothing: float = 0.0) -> Loss:
    """Take the plain cross-entropy.

    Args:
        counts: See the module.
        label_smoothing: Share of each target spread evenly over all classes, in [0, 0.5].

    Raises:
        ValueError: If label_smoothing is out of range.

    Source:
        Szegedy et al. 2015, Rethinking the Inception Architecture, arXiv:1512.00567, section 7.
    """
    _check_range("label_smoothing", label_smoothing, high=0.5)
    return Loss(partial(functional.cross_entropy, label_smoothing=label_smoothing), torch.ones(len(counts)))


def focal(counts: Tensor, *, gamma: float = 1.0) -> Loss:
    """Let wafers count less the better they are classified already.

    Args:
        counts: See the module.
        gamma: Exponent of one minus the probability of the right class, in [0, 5]; 0 is the plain cross-entropy.

    Raises:
        ValueError: If gamma is out of range.

    Source:
        Lin et al. 2017, Focal Loss for Dense Object Detection, arXiv:1708.02002.
    """
    _check_range("gamma", gamma, high=5)

    def compute(logits: Tensor, labels: Tensor) -> Tensor:
        losses = functional.cross_entropy(logits, labels, reduction="none")
        # 1 - p, never quite 0: a power below 1 has no slope there.
        return (-torch.expm1(-losses)).clamp(min=1e-6).pow(gamma).mul(losses).mean()

    return Loss(compute, torch.ones(len(counts)))


def logit_adjusted(counts: Tensor, *, tau: float = 1.0) -> Loss:
    """Add the logarithm of each class's share to its logit in training, and leave it out afterwards.

    Args:
        counts: See the module.
        tau: Factor on the logarithm, in [0, 2]: 1 makes the logits speak of equally frequent classes.

    Raises:
        ValueError: If tau is out of range.

    Source:
        Menon et al. 2020, Long-Tail Learning via Logit Adjustment, arXiv:2007.07314, equation 10.
    """
    _check_range("tau", tau, high=2)
    offset = tau * _shares(counts).log()
    return Loss(lambda logits, labels: functional.cross_entropy(logits + offset, labels), (-offset).exp().cpu())


def class_balanced(counts: Tensor, *, beta: float = 0.999) -> Loss:
    """Weigh each class by the inverse of the effective number of its wafers.

    Args:
        counts: See the module.
        beta: How much wafers overlap, in [0, 1); see `data_pipeline.sampling.effective_number`, which draws by the same
            rule.

    Raises:
        ValueError: If beta is out of range.

    Source:
        Cui et al. 2019, Class-Balanced Loss Based on Effective Number of Samples, arXiv:1901.05555.
    """
    effective = torch.from_numpy(count_effectively(counts.clamp(min=1).cpu().numpy(), beta=beta)).to(counts.device)
    weight = (1 / effective / (_shares(counts) / effective).sum()).float()  # 1 on average over the wafers

    def compute(logits: Tensor, labels: Tensor) -> Tensor:
        # Not torch's own mean, which divides by the batch's weights: a rare class would weigh less where it is alone.
        return functional.cross_entropy(logits, labels, weight, reduction="sum") / len(labels)

    return Loss(compute, weight.cpu())


LOSSES: Mapping[str, Callable[..., Loss]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "logit_adjusted": logit_adjusted,
    "class_balanced": class_balanced,
}
# They correct the classes' prior, which a strategy that draws rare classes more often would correct a second time.
PRIOR_CORRECTING = ("logit_adjusted", "class_balanced")


def _shares(counts: Tensor) -> Tensor:
    known = counts.clamp(min=1).float()
    return known / known.sum()


def _check_range(name: str, value: float, *, high: float) -> None:
    if not 0 <= value <= high:
        raise ValueError(f"{name} must be in [0, {high:g}]; got {value}")
