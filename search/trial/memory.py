"""What a trial needs of its device's memory: said before it starts, measured while it runs, recognised when it lacks.

The plan runs one training step and one validation batch on fake tensors: shapes without content. They go through the
trial's own code and the autograd engine, so that nothing here knows how a layer works.
"""

import copy
import gc
import resource
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # the only way to run a model without memory
from torch.nn.functional import cross_entropy

from data_pipeline.augment import AUGMENTS
from data_pipeline.batches import EncodedWafers, plain_batches, train_batches
from data_pipeline.encode import Encoding, Picture
from data_pipeline.mixing import MIXINGS, Mix
from search.trial.evaluation import autocast
from search.trial.fakes import LiveBytes, build_skeleton, fill_with_fakes, normalise_groups_in_float32
from search.trial.optimization import OPTIMIZERS
from search.trial.params import Chosen, TrialParams
from search.trial.prediction import Predictor, TestTime
from search.trial.vocabulary import Scalar

_CPU = torch.device("cpu")
_JUDGED = 512  # wafers in a batch of plain_batches
_LABEL_BYTES = 8
# What torch and its libraries say, besides torch.OutOfMemoryError: the CPU's allocator, C++, CUDA's libraries, oneDNN.
_OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", "out of memory", "alloc_failed", "could not create a memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """What one trial holds on its device at its peak, in bytes.

    Attributes:
        wafers: Encoded maps and labels of all parts, and a copy of the subset where it trains on one.
        weights: Parameters and buffers, and their average over the steps where there is one.
        gradients: One for each parameter that is trained; the last step's are there while the next one computes.
        optimizer: What it remembers of each parameter.
        batch: Input and labels of one step, before and after mixing.
        activations: What the forward pass keeps for the backward pass, and its result.
        workspace: What else is there at the moment of the peak: intermediate results and their gradients, or those of
            the validation where that takes more than training.
    """

    wafers: int
    weights: int
    gradients: int
    optimizer: int
    batch: int
    activations: int
    workspace: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())


def estimate_memory(
    params: TrialParams,
    *,
    image_size: int,
    n_wafers: int,
    n_classes: int,
    dtype: torch.dtype = torch.float32,
    encoding: Encoding = "coverage",
) -> MemoryEstimate:
    """Say what a trial will need, without computing or allocating it, and without reading weights.

    Counts the tensors. The allocator's slack, the workspaces of cuDNN, CUDA's own context and, on the CPU, the process
    (0.4 to 0.9 GiB with torch and Ray) are not among them: on a GPU leave a tenth and half a GiB free. On the CPU, over
    three steps at 64 pixels, the process's peak rose by 0.99 to 1.01 of the estimate for each of the four networks
    while freed memory was returned at once, by 0.90 to 1.48 with glibc's defaults. There was no GPU to compare with.

    Args:
        params: The configuration.
        image_size: S, pixels per side.
        n_wafers: On the device: training and validation.
        n_classes: K.
        dtype: What is computed in, see `choose_dtype`.
        encoding: What a pixel holds.

    Returns:
        The parts; equal arguments are computed once per process. A frozen backbone is counted as if it ran in every
        step, which is what it takes at most.
    """
    pixels = Picture(image_size=image_size, encoding=encoding).shape
    step = _Step(
        **{choice: _name(getattr(params, choice)) for choice in ("model", "optimizer", "augment", "mixing")},
        has_average=params.ema > 0,
        test_time=params.test_time,
        batch_size=params.batch_size,
        judged=min(_JUDGED, n_wafers),
        pixels=pixels,
        n_classes=n_classes,
        dtype=dtype,
    )
    copies = 1 + (params.subset if params.subset < 1 else 0)
    bytes_per_wafer = torch.Size(pixels).numel() + _LABEL_BYTES
    return MemoryEstimate(wafers=round(n_wafers * copies) * bytes_per_wafer, **_follow(step))


_Named = tuple[str, tuple[tuple[str, Scalar], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """All that the memory of a training step depends on; hashable."""

    model: _Named
    optimizer: _Named
    augment: _Named
    mixing: _Named
    has_average: bool
    test_time: TestTime
    batch_size: int
    judged: int
    pixels: tuple[int, ...]
    n_classes: int
    dtype: torch.dtype


def _name(chosen: Chosen) -> _Named:
    return chosen.name, tuple(chosen.options.items())


@lru_cache(maxsize=1024)
def _follow(step: _Step) -> dict[str, int]:
    """Follow one training step and the judging of one batch; return all parts but the wafers."""
    skeleton = build_skeleton(step.model[0], dict(step.model[1]), n_classes=step.n_classes)
    if step.dtype is torch.bfloat16:
        normalise_groups_in_float32(skeleton)
    second = copy.deepcopy(skeleton)
    name, options = step.mixing
    mix: Mix | None = MIXINGS[name](step.batch_size, torch.Generator(), **dict(options))
    with FakeTensorMode(), LiveBytes() as live:
        model = fill_with_fakes(skeleton).train()
        averaged = fill_with_fakes(second) if step.has_average else None
        parts = {"weights": live.now}
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
        parts["gradients"] = live.now - sum(parts.values())
        optimizer = _build_optimizer(model, *step.optimizer)
        parts["optimizer"] = live.now - sum(parts.values())

        inputs, labels = drawn = _make_batch(step)
        if mix is not None:
            inputs = replace(mix, partner=torch.arange(step.batch_size)).apply(inputs)[0]
        parts["batch"] = live.now - sum(parts.values())
        with autocast(_CPU, step.dtype):
            logits_NK: Tensor = model(inputs)
        loss = cross_entropy(logits_NK.float(), labels)
        parts["activations"] = live.now - sum(parts.values())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        del inputs, labels, drawn, logits_NK, loss
        _judge_batch(averaged or model, step)
        peak = live.peak
    return parts | {"workspace": peak - sum(parts.values())}


def _build_optimizer(model: nn.Module, name: str, options: tuple[tuple[str, Scalar], ...]) -> torch.optim.Optimizer:
    """Build an optimizer that has taken a step: most make room for what they remember only then."""
    optimizer = OPTIMIZERS[name](model, lr=1e-3, weight_decay=0.0, **dict(options))
    optimizer.step()
    return optimizer


def _make_batch(step: _Step) -> tuple[Tensor, Tensor]:
    n, (name, options) = step.batch_size, step.augment
    choices = AUGMENTS[name](n, torch.Generator(), **dict(options))
    return next(train_batches(_make_wafers(n, step.pixels), torch.arange(n), choices, batch_size=n))


def _judge_batch(model: nn.Module, step: _Step) -> None:
    """Do as `judge_model` does with one batch."""
    predictor = Predictor(model, shift=torch.empty(step.n_classes), test_time=step.test_time).eval()
    with torch.no_grad(), autocast(_CPU, step.dtype):
        predictor(next(plain_batches(_make_wafers(step.judged, step.pixels), batch_size=step.judged))[0])


def _make_wafers(n: int, pixels: tuple[int, ...]) -> EncodedWafers:
    return EncodedWafers(maps=torch.empty((n, *pixels), dtype=torch.uint8), labels=torch.empty(n, dtype=torch.int64))


def peak_memory(device: torch.device) -> int:
    """Measure the most bytes held so far: by tensors on a GPU, resident in this process on the CPU.

    The maximum begins anew with `restart_peak`.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def restart_peak(device: torch.device) -> None:
    """Let go of what an earlier trial left, and begin to measure anew.

    On the CPU only Linux can: elsewhere the peak stays that of the process so far.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was lacking, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def explain_out_of_memory(error: BaseException, *, batch_size: int, expected: int, peak: int) -> str:
    """Say what was lacking, in one line; sizes in bytes, `expected` is 0 if nobody planned.

    Example:
        >>> explain_out_of_memory(MemoryError(), batch_size=512, expected=2**33, peak=3 * 2**31)
        'out of memory at batch_size 512 (expected 8.00 GiB, peak 6.00 GiB): MemoryError'
    """
    planned = f"expected {byte_size(expected)}, " if expected else ""
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"out of memory at batch_size {batch_size} ({planned}peak {byte_size(peak)}): {first_line}"


def byte_size(size: int) -> str:
    """Write bytes for people.

    Example:
        >>> byte_size(450_000_000), byte_size(3_000_000)
        ('0.42 GiB', '2.9 MiB')
    """
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"
