"""From a model's logits to probabilities that mean what they say, and to calls."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NONE = "none"  # the class of wafers without a defect, in WM-811K and here


def defect_chance(probabilities_NK: NDArray[np.float64], classes: Sequence[str]) -> NDArray[np.float64] | None:
    """Return the probability that a wafer has any defect, shape (N,); None without a class "none"."""
    return 1 - probabilities_NK[:, classes.index(NONE)] if NONE in classes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRule:
    """What is fitted on wafers that the model was not trained on; as made, it changes nothing.

    Attributes:
        temperature: The logits are divided by it.
        shifts: Added to the log probabilities before the largest is called, one for each class; () for none. Thresholds
            per class are such shifts.
        sure_from: A call with less probability is unsure; None if nothing was fitted.
        defect_from: A wafer with this probability of any defect or more is called defective; None if nothing was
            fitted, or no class is called "none".
        fitted_on: Wafers that all this was fitted on, in words; of a rule that was not fitted why it was not, or "".
        n_fitted: How many they were; 0 if nothing was fitted.
    """

    temperature: float = 1.0
    shifts: tuple[float, ...] = ()
    sure_from: float | None = None
    defect_from: float | None = None
    fitted_on: str = ""
    n_fitted: int = 0

    def probabilities(self, logits_NK: Tensor) -> Tensor:
        """Turn logits, shape (N, K), into probabilities, shape (N, K), float32."""
        return (logits_NK.float() / self.temperature).softmax(1)

    def call(self, probabilities_NK: Tensor) -> Tensor:
        """Call one class for each wafer, shape (N,), int64."""
        if not self.shifts:
            return probabilities_NK.argmax(1)
        shifts = torch.tensor(self.shifts, device=probabilities_NK.device)
        return (probabilities_NK.clamp_min(1e-12).log() + shifts).argmax(1)
