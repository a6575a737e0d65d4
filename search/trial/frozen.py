"""Training the head of a frozen backbone on kept features, instead of running the backbone again in every epoch."""

import hashlib
from collections.abc import Iterator
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from data_pipeline.augment import Choices, apply_choices
from data_pipeline.batches import EVALUATION_BATCH, EncodedWafers, cut_epoch
from data_pipeline.feature_store import FeatureStore
from search.trial.evaluation import autocast

_VERSION = "1"  # raise it when what lies between a map and its features changes: it is part of the store's key
_fingerprints = WeakTensorKeyDictionary()  # of the maps that this process has seen


class HasBackbone(Protocol):
    """What a model shows whose backbone may be frozen; `forward` must be head(embed(x)), see models.efficientnet."""

    frozen: bool
    n_features: int
    head: nn.Module

    def embed(self, x: Tensor) -> Tensor:
        """Map (N, 2, S, S) to (N, n_features); in evaluation mode, if frozen, whatever mode the head is in."""
        ...

    def fingerprint_backbone(self) -> str:
        """Name all that `embed` depends on but its input."""
        ...


class FrozenBackbone:
    """Features of one part's wafers, in the place of their channels.

    Attributes:
        head: Maps what the batches hold to logits.
    """

    def __init__(
        self,
        model: HasBackbone,
        wafers: EncodedWafers,
        *,
        folder: Path,
        dtype: torch.dtype,
        rows: Tensor | None = None,
    ) -> None:
        """Say whose features these are; the store is opened on first use, when a resumed model has its weights.

        Args:
            model: Frozen, on the wafers' device.
            wafers: The whole part, so that trials with different subsets of it share their features.
            folder: Where features are kept: at most 676 MB for 33,000 wafers in bfloat16, see FeatureStore.
            dtype: What the backbone computes in, and features are kept in; see `choose_dtype`.
            rows: Positions of the wafers in training, shape (M,), int64; None for all.
        """
        self.head = model.head
        self._model, self._wafers, self._folder, self._dtype = model, wafers, folder, dtype
        self._rows = torch.arange(len(wafers)) if rows is None else rows.cpu()

    def train_batches(self, drawn: Tensor, views: Tensor, *, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Cut one drawn epoch into batches exactly as `data_pipeline.batches.train_batches` does.

        Args:
            drawn: Positions among the wafers in training, shape (E,), on the CPU.
            views: From `views_of`, shape (E,).
            batch_size: Wafers per step, in [2, E].

        Yields:
            Features (B, D), in what the backbone computes in, and labels (B,), on the wafers' device.

        Raises:
            DataError: If the folder cannot be written.
        """
        return self._batches(self._rows[drawn], views, cut_epoch(len(drawn), batch_size))

    def plain_batches(self, *, batch_size: int = EVALUATION_BATCH) -> Iterator[tuple[Tensor, Tensor]]:
        """Cut all wafers in order, without augmentation; yields and raises as `train_batches` does."""
        parts = [slice(start, start + batch_size) for start in range(0, len(self._rows), batch_size)]
        return self._batches(self._rows, torch.zeros_like(self._rows), parts)

    @cached_property
    def _store(self) -> FeatureStore:
        maps, model = self._wafers.maps, self._model
        key = (_VERSION, _fingerprint(maps), model.fingerprint_backbone(), _describe_arithmetic(maps.device))
        return FeatureStore(
            self._folder, key=" ".join(key), n_wafers=len(maps), n_features=model.n_features, dtype=self._dtype
        )

    def _batches(self, rows: Tensor, views: Tensor, parts: list[slice]) -> Iterator[tuple[Tensor, Tensor]]:
        """Compute what is missing now, not when the first batch is asked for: a full disk must show here."""
        labels = self._wafers.labels[rows.to(self._wafers.labels.device)]
        self._store.fill(rows, views, self._compute)
        return ((self._store.read(rows[part], views[part], device=labels.device), labels[part]) for part in parts)

    @torch.no_grad()
    def _compute(self, rows: Tensor, views: Tensor) -> Tensor:
        device = self._wafers.maps.device
        channels = apply_choices(self._wafers.maps[rows.to(device)], Choices(symmetry=views.to(device)))
        with autocast(device, self._dtype):
            return self._model.embed(channels)


def open_frozen(
    model: nn.Module, wafers: EncodedWafers, *, folder: Path | None, dtype: torch.dtype, rows: Tensor | None = None
) -> FrozenBackbone | None:
    """Find the features of a model's frozen backbone; None without a folder, or if the model's backbone trains.

    Args:
        model: Any.
        wafers: See `FrozenBackbone`, and so are the others.
        folder: See there.
        dtype: See there.
        rows: See there.
    """
    if folder is None or not getattr(model, "frozen", False):
        return None
    backbone: HasBackbone = model  # type: ignore[assignment]  # isinstance sees no submodule of a Module from Python 3.12
    return FrozenBackbone(backbone, wafers, folder=folder, dtype=dtype, rows=rows)


def views_of(choices: Choices, *, n: int) -> Tensor | None:
    """Number the view of each of n wafers, shape (n,), int64 in [0, 8); None if an augmentation has endless views."""
    for field in fields(choices):  # all but one, so that what is yet to be invented counts as endless
        value = getattr(choices, field.name)
        if field.name != "symmetry" and (isinstance(value, Tensor) or value != field.default):
            return None
    return torch.zeros(n, dtype=torch.int64) if choices.symmetry is None else choices.symmetry


def _fingerprint(maps: Tensor) -> str:
    """Hash the maps once per process: 80 MB take 50 ms."""
    if maps not in _fingerprints:
        digest = hashlib.sha256(f"{tuple(maps.shape)} {maps.dtype}".encode())
        digest.update(maps.cpu().contiguous().numpy().data)
        _fingerprints[maps] = digest.hexdigest()
    return str(_fingerprints[maps])


def _describe_arithmetic(device: torch.device) -> str:
    """Name what the last bits of a sum depend on, so that a rerun's reports stay the same bit for bit."""
    if device.type == "cuda":
        return f"{torch.__version__} {torch.cuda.get_device_name(device)}"
    return f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
