"""What a trial will need of its device's memory, said before it starts.

One training step and one validation batch run on fake tensors: shapes without content. Network, optimizer,
augmentation, mixing and predictor are the trial's own, and autograd keeps what it keeps, so that nothing here knows how
a layer works. The order of a step is the learner's, repeated here, but with plain cross-entropy and without clipping
of gradients: other losses differ by a few tensors of the size of the logits, and clipping by one number for each weight
tensor.
"""

import copy
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # the only way to run a model without memory
from torch.nn.functional import cross_entropy

from data_pipeline.augment import AUGMENTS
from data_pipeline.batches import EVALUATION_BATCH, EncodedWafers, plain_batches, train_batches
from data_pipeline.encode import Encoding, Picture
from data_pipeline.mixing import MIXINGS, Mix
from search.trial.evaluation import autocast
from search.trial.fake_tensors import LiveBytes, build_skeleton, fill_with_fakes, normalise_groups_in_float32
from search.trial.optimization import OPTIMIZERS
from search.trial.params import Chosen, TrialParams
from search.trial.prediction import Predictor, TestTime
from search.trial.vocabulary import Scalar, options_of

_CPU = torch.device("cpu")
_LABEL_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """What one trial holds on its device at its peak, in bytes.

    Attributes:
        wafers: Encoded maps and labels of both parts, and a copy of the subset where it trains on one.
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
    n_train: int,
    n_val: int,
    n_classes: int,
    dtype: torch.dtype = torch.float32,
    encoding: Encoding = "coverage",
) -> MemoryEstimate:
    """Say what a trial will need, without computing or allocating it, and without reading weights.

    Counts the tensors. The allocator's slack, the workspaces of cuDNN, CUDA's own context and, on the CPU, the process
    (0.4 to 0.9 GiB with torch and Ray) are not among them; see `usable_memory`. On the CPU, over three steps at 64
    pixels, the process's peak rose by 0.99 to 1.01 of the estimate for each of the four networks while freed memory was
    returned at once, by 0.90 to 1.48 with glibc's defaults. There was no GPU to compare with.

    Args:
        params: The configuration.
        image_size: S, pixels per side.
        n_train: Wafers of the training part.
        n_val: Wafers of the validation part; 0 if there is none.
        n_classes: K.
        dtype: What is computed in, see `choose_dtype`.
        encoding: What a pixel holds.

    Returns:
        The parts. Configurations that differ in nothing that takes memory are computed once per process. A frozen
        backbone is counted as if it ran in every step, which is what it takes at most.
    """
    pixels = Picture(image_size=image_size, encoding=encoding).shape
    step = _Step(
        **{choice: _name(choice, getattr(params, choice)) for choice in ("model", "optimizer", "augment", "mixing")},
        has_average=params.ema > 0,
        test_time=params.test_time,
        batch_size=params.batch_size,
        judged=min(EVALUATION_BATCH, n_val),
        pixels=pixels,
        n_classes=n_classes,
        dtype=dtype,
    )
    n_copied = round(params.subset * n_train) if params.subset < 1 else 0
    bytes_per_wafer = torch.Size(pixels).numel() + _LABEL_BYTES
    return MemoryEstimate(wafers=(n_train + n_val + n_copied) * bytes_per_wafer, **_follow(step))


def usable_memory(memory: int, *, on_gpu: bool) -> int:
    """Leave room for what an estimate does not count; return what is left for its tensors, in bytes.

    Args:
        memory: What a trial gets of its device, in bytes.
        on_gpu: A tenth and half a GiB stay free on a GPU, for the allocator, cuDNN and CUDA's context; on the CPU
            0.9 GiB, for a process with torch and Ray.

    Example:
        >>> usable_memory(10 * 2**30, on_gpu=True) / 2**30, usable_memory(2**29, on_gpu=False)
        (8.5, 0)
    """
    left = 0.9 * memory - 2**29 if on_gpu else memory - 0.9 * 2**30
    return max(0, round(left))


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


def _name(choice: str, chosen: Chosen) -> _Named:
    """Name what was chosen; one number stands for all others that take as much, so that they are planned once."""
    defaults = options_of(choice, chosen.name)
    return chosen.name, tuple((key, _representative(value, defaults[key])) for key, value in chosen.options.items())


def _representative(value: Scalar, default: Scalar) -> Scalar:
    """Return the default for a rate or strength that is not 0: only whether there is any makes or spares a tensor."""
    return default if isinstance(default, float) and default and value else value


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
        if step.judged:
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
