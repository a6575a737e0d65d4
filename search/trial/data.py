"""The wafers that one trial sees."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.batches import EncodedWafers
from data_pipeline.dataset import join_parts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Teacher:
    """What a better model makes of the training wafers, for a smaller one to learn from.

    Attributes:
        log_probabilities: For equal class shares, shape (N, K), float32, on the wafers' device.
        weight: Of the teacher in the loss, in (0, 1]; the labels have the rest.

    Source:
        Hinton et al. 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531.
    """

    log_probabilities: Tensor
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrialData:
    """What a trial may see, on its device: never the test part.

    Attributes:
        train: Wafers to learn from.
        val: Wafers to judge by; None where a final model learns from them too.
        n_classes: K.
        epoch_samples: Wafers in a nominal epoch.
        features: Folder where the features of frozen backbones are kept, for all trials together; None keeps none.
        teacher: To learn from beside the labels; None: from the labels alone.
    """

    train: EncodedWafers
    val: EncodedWafers | None
    n_classes: int
    epoch_samples: int
    features: Path | None = None
    teacher: Teacher | None = None

    def to(self, device: torch.device) -> "TrialData":
        """Copy to a device; on the CPU nothing is copied."""
        val = None if self.val is None else self.val.to(device)
        teacher = self.teacher and replace(self.teacher, log_probabilities=self.teacher.log_probabilities.to(device))
        return replace(self, train=self.train.to(device), val=val, teacher=teacher)


def take_rows(data: TrialData, train_rows: NDArray[np.int64], val_rows: NDArray[np.int64]) -> TrialData:
    """Divide the same wafers otherwise.

    Args:
        data: With a validation part; its wafers are counted through training and validation.
        train_rows: Which of them to learn from, ascending.
        val_rows: Which of them to judge by, ascending.
    """
    assert data.val is not None
    own_train, own_val, n = data.train, data.val, len(data.train)

    def take(rows: NDArray[np.int64]) -> EncodedWafers:
        first, second = (torch.from_numpy(part) for part in np.split(rows, [np.searchsorted(rows, n)]))
        device = own_train.labels.device
        return join_parts(own_train.select(first.to(device)), own_val.select((second - n).to(device)))

    return replace(data, train=take(train_rows), val=take(val_rows))
