"""Judging a model on one part of the data."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from data_pipeline.batches import EncodedWafers, plain_batches
from search.trial.metrics import Scores, score_confusion
from search.trial.params import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How a model does on one part.

    Attributes:
        loss: Mean plain cross-entropy.
        confusion: Counts, K rows actual, K columns predicted.
        scores: What the confusion matrix says.
    """

    loss: float
    confusion: tuple[tuple[int, ...], ...]
    scores: Scores


def judge_model(model: nn.Module, wafers: EncodedWafers, *, n_classes: int, dtype: torch.dtype) -> Judgement:
    """Run a model over all wafers, without augmentation; leaves it in evaluation mode.

    Args:
        model: Maps (N, 2, S, S) to logits (N, K), on the wafers' device.
        wafers: At least one.
        n_classes: K.
        dtype: See `choose_dtype`.
    """
    return judge_batches(model, plain_batches(wafers), n_classes=n_classes, dtype=dtype)


def judge_batches(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, n_classes: int, dtype: torch.dtype
) -> Judgement:
    """Run a model over batches of its input and labels; leaves it in evaluation mode.

    The device is waited for once, at the end.

    Args:
        model: Maps what the batches hold to logits (N, K).
        batches: At least one.
        n_classes: K.
        dtype: See `choose_dtype`.
    """
    return judge_logits(*predict_batches(model, batches, dtype=dtype), n_classes=n_classes)


@torch.inference_mode()
def predict_batches(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Run a model over batches of its input and labels without waiting for the device; see `judge_batches`.

    Returns:
        Logits of all wafers in order, shape (N, K), float32, and their labels, shape (N,), on the batches' device.
    """
    model.eval()
    logits_NK, labels_N = [], []
    for inputs, labels in batches:
        with autocast(labels.device, dtype):
            logits: Tensor = model(inputs)
        logits_NK.append(logits.float())
        labels_N.append(labels)
    return torch.cat(logits_NK), torch.cat(labels_N)


def judge_logits(logits_NK: Tensor, labels: Tensor, *, n_classes: int) -> Judgement:
    """Compare the largest of each row of logits, shape (N, K), with labels, shape (N,); waits for the device once."""
    return judge_calls(logits_NK, logits_NK.argmax(1), labels, n_classes=n_classes)


@torch.inference_mode()
def judge_calls(logits_NK: Tensor, called: Tensor, labels: Tensor, *, n_classes: int) -> Judgement:
    """Compare called classes, shape (N,), with labels; the logits, shape (N, K), are for the loss."""
    confusion = torch.bincount(labels * n_classes + called, minlength=n_classes * n_classes)
    counts = confusion.reshape(n_classes, n_classes).cpu().numpy()
    return Judgement(
        loss=cross_entropy(logits_NK, labels, reduction="none").double().mean().item(),
        confusion=tuple(tuple(int(n) for n in row) for row in counts),
        scores=score_confusion(counts),
    )


def choose_device() -> torch.device:
    """Return the GPU, if there is one; trials of a search go by what Ray lends them instead."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type to compute in; "auto" is bfloat16 where the device has instructions for it.

    Emulated bfloat16 is slower than float32, so support alone is not enough.
    """
    if precision == "auto":
        native = torch.cuda.is_bf16_supported(False) if device.type == "cuda" else _cpu_has_bf16()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Compute convolutions and products in `dtype`; float32 changes nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16)


def _cpu_has_bf16() -> bool:
    # Torch before 2.12 cannot tell; it then computes in float32.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
