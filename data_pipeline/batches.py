"""Wafers that live on the device, and the batches cut from them."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.augment import Choices, apply_choices, to_channels

EVALUATION_BATCH = 512  # wafers; larger ones are no faster


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedWafers:
    """One part of the data, ready for a device.

    Attributes:
        maps: Die codes, shape (N, S, S), or coverage by passing and failing dies, shape (N, S, S, 2); uint8, see
            `encode_maps`. May be shared between processes: never written to.
        labels: Class of each, shape (N,), int64.
    """

    maps: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Tensor) -> "EncodedWafers":
        """Keep the wafers at positions `rows`."""
        return EncodedWafers(maps=self.maps[rows], labels=self.labels[rows])

    def to(self, device: torch.device) -> "EncodedWafers":
        """Copy to a device; on the CPU nothing is copied."""
        return EncodedWafers(maps=self.maps.to(device), labels=self.labels.to(device))


def wrap_arrays(maps: NDArray[np.uint8], labels: NDArray[np.int64]) -> EncodedWafers:
    """View arrays, read-only ones too, as tensors without copying them."""
    with warnings.catch_warnings():
        # Torch warns that it would write through to a read-only array. Nothing here writes to maps or labels.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return EncodedWafers(maps=torch.from_numpy(maps), labels=torch.from_numpy(labels))


def train_batches(
    wafers: EncodedWafers, drawn: Tensor, choices: Choices, *, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut one drawn epoch into augmented batches.

    The last batch is smaller when the epoch does not divide evenly; a single wafer left over, on which BatchNorm
    cannot train, joins the batch before it.

    Args:
        wafers: The training part, on the device.
        drawn: Positions of the epoch's wafers, shape (E,), on the CPU.
        choices: Augmentation of each, on the CPU.
        batch_size: Wafers per step, in [2, E].

    Yields:
        Input (B, 2, S, S) float32 in channels-last order, and labels (B,).
    """
    device = wafers.labels.device
    rows, chosen = drawn.to(device, non_blocking=True), choices.to(device)
    for batch in cut_epoch(len(drawn), batch_size):
        yield apply_choices(wafers.maps[rows[batch]], chosen[batch]), wafers.labels[rows[batch]]


def cut_epoch(epoch_samples: int, batch_size: int) -> list[slice]:
    """Cut an epoch as `train_batches` does.

    Example:
        >>> cut_epoch(9, 4)
        [slice(0, 4, None), slice(4, 9, None)]
    """
    starts = list(range(0, epoch_samples - 1, batch_size))
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], epoch_samples], strict=True)]


def count_batches(epoch_samples: int, batch_size: int) -> int:
    """Count the batches that `train_batches` cuts from an epoch."""
    return len(cut_epoch(epoch_samples, batch_size))


def plain_batches(wafers: EncodedWafers, *, batch_size: int = EVALUATION_BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut all wafers in order, without augmentation; yields as `train_batches` does."""
    for start in range(0, len(wafers), batch_size):
        yield to_channels(wafers.maps[start : start + batch_size]), wafers.labels[start : start + batch_size]
