"""From a trained network to decisions: for which class shares, and from how many views of a wafer."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

DecideFor = Literal["drawn", "natural", "uniform"]
TestTime = Literal["single", "symmetries"]
DECIDE_FOR, TEST_TIME = get_args(DecideFor), get_args(TestTime)


class Predictor(nn.Module):
    """A network with its rule of decision.

    Args:
        network: Maps (N, 2, S, S) to logits (N, K).
        shift: Added to the logits, shape (K,); see `shift_prior`.
        shares: Of the classes that the logits then take for granted, shape (K,), sum 1; None: equal ones.
        test_time: "single", or "symmetries": average the probabilities of the eight flips and quarter turns, at eight
            times the cost.
    """

    shift: Tensor
    shares: Tensor

    def __init__(
        self, network: nn.Module, *, shift: Tensor, shares: Tensor | None = None, test_time: TestTime = "single"
    ) -> None:
        super().__init__()
        self.network = network
        self.test_time = test_time
        self.register_buffer("shift", shift.float())
        self.register_buffer("shares", torch.full_like(self.shift, 1 / len(shift)) if shares is None else shares)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 2, S, S) to logits (N, K), float32."""
        if self.test_time == "single":
            logits: Tensor = self.network(x)
            return logits.float() + self.shift
        views = torch.stack([self.network(view).float().log_softmax(1) for view in symmetric_views(x)])
        return views.logsumexp(0) + self.shift


class Ensemble(nn.Module):
    """Several trained predictors, whose probabilities are averaged.

    Args:
        members: At least one; they must know the same classes.
    """

    def __init__(self, members: Sequence[Predictor]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 2, S, S) to logits (N, K), float32: of one member its own, of several log probabilities."""
        if len(self.members) == 1:
            logits: Tensor = self.members[0](x)
            return logits
        views = torch.stack([member(x).log_softmax(1) for member in self.members])
        return views.logsumexp(0) - math.log(len(self.members))


def symmetric_views(x: Tensor) -> list[Tensor]:
    """Return the eight flips and quarter turns of pictures, shape (N, C, S, S) each; the first is the picture."""
    turned = [x, x.transpose(2, 3)]
    return [picture.flip(axes) if axes else picture for picture in turned for axes in ((), (2,), (3,), (2, 3))]


def shift_prior(wanted: DecideFor, *, natural: Tensor, drawn: Tensor, tilt: Tensor) -> Tensor:
    """Compute what must be added to logits so that they speak of other class shares.

    Args:
        wanted: "drawn": as they are; "natural": shares as in the training part; "uniform": equal shares.
        natural: Training wafers of each class, or their shares, shape (K,).
        drawn: Shares at which the classes were drawn at the end of training, shape (K,).
        tilt: See `search.trial.losses.Loss`, shape (K,).

    Returns:
        Shape (K,), float32; 0 for classes that were never drawn, of which the logits know nothing.

    Source:
        Saerens et al. 2002, Adjusting the Outputs of a Classifier to New a Priori Probabilities, equation 2.4.
    """
    if wanted == "drawn":
        return torch.zeros(len(drawn))
    known = drawn > 0
    target = torch.where(known, natural.double() if wanted == "natural" else 1.0, 0.0)
    spoken = torch.where(known, drawn.double() * tilt.double(), 0.0)
    ratio = (target / target.sum()) / (spoken / spoken.sum())
    return torch.where(known & (target > 0), ratio.log(), 0.0).float()
