"""The wafers that one trial sees."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from data_pipeline.batches import EncodedWafers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrialData:
    """What a trial may see, on its device: never the test part.

    Attributes:
        train: Wafers to learn from.
        val: Wafers to judge by; None where a final model learns from them too.
        n_classes: K.
        epoch_samples: Wafers in a nominal epoch.
        features: Folder where the features of frozen backbones are kept, for all trials together; None keeps none.
    """

    train: EncodedWafers
    val: EncodedWafers | None
    n_classes: int
    epoch_samples: int
    features: Path | None = None

    def to(self, device: torch.device) -> "TrialData":
        """Copy to a device; on the CPU nothing is copied."""
        val = None if self.val is None else self.val.to(device)
        return replace(self, train=self.train.to(device), val=val)
