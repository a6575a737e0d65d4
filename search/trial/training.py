"""The training that search, retraining and tests share: a generator that yields one report per nominal epoch."""

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from data_pipeline.augment import AUGMENTS
from data_pipeline.batches import EncodedWafers, count_batches, train_batches
from data_pipeline.sampling import SAMPLINGS, WaferDraws, choose_subset
from models import build_model
from search.errors import TrialFailed
from search.trial.evaluation import Judgement, autocast, choose_dtype, judge_model
from search.trial.losses import LOSSES, Loss
from search.trial.optimization import OPTIMIZERS, SCHEDULES
from search.trial.params import TrialParams

State = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrialData:
    """What a trial may see, on its device: never the test part.

    Attributes:
        train: Wafers to learn from.
        val: Wafers to judge by; None where a final model learns from them too.
        n_classes: K.
        epoch_samples: Wafers in a nominal epoch.
    """

    train: EncodedWafers
    val: EncodedWafers | None
    n_classes: int
    epoch_samples: int

    def to(self, device: torch.device) -> "TrialData":
        """Copy to a device; on the CPU nothing is copied."""
        return TrialData(
            train=self.train.to(device),
            val=None if self.val is None else self.val.to(device),
            n_classes=self.n_classes,
            epoch_samples=self.epoch_samples,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """One nominal epoch.

    Attributes:
        epoch: Number of the epoch just finished, from 1.
        samples: Wafers drawn since the start.
        lr: Learning rate of the last step, read from the optimizer.
        precision: "bfloat16" or "float32", as computed.
        n_parameters: Parameters that are trained.
        train_loss: Mean over the epoch, augmented and regularised as trained.
        train_accuracy: Of the drawn, augmented wafers, while learning.
        val: On the validation part; None without one.
        train_seconds: Time to draw, augment and learn.
        val_seconds: Time to validate.
    """

    epoch: int
    samples: int
    lr: float
    precision: str
    n_parameters: int
    train_loss: float
    train_accuracy: float
    val: Judgement | None
    train_seconds: float
    val_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """What the generator yields: the report, and what it takes to go on from here in another process.

    Attributes:
        report: The epoch's numbers.
        state: Tensors, numbers and lists only. It is live: save it, or copy it, before asking for the next epoch.
    """

    report: EpochReport
    state: State


@dataclass(slots=True, kw_only=True, eq=False)
class _Learner:
    """The objects that learn, as the parameters made them."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    lr_at_step: Callable[[int], float]
    grad_clip: float
    draws: WaferDraws
    dtype: torch.dtype


def train_and_evaluate(
    params: TrialParams, data: TrialData, *, generator: torch.Generator, state: State | None = None
) -> Generator[Evaluation, None, nn.Module]:
    """Train one configuration and judge it after every nominal epoch.

    On the CPU, the same parameters, data, generator seed and number of threads give the same reports bit for bit, but
    for the seconds; so does a run that stops and goes on from a saved state.

    Args:
        params: The configuration.
        data: Wafers on the device to train on.
        generator: On the CPU; the only source of randomness.
        state: Of an earlier `Evaluation` with the same parameters and data, to go on from there.

    Yields:
        One evaluation per epoch, `params.epochs` in all.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        TrialFailed: If the training or validation loss becomes NaN or infinite.
    """
    train = data.train
    if params.subset < 1:
        train = train.select(torch.from_numpy(choose_subset(train.labels.cpu().numpy(), fraction=params.subset)))
    learner = _build(params, train, data=data, generator=generator)
    done = 0 if state is None else _restore(learner, state, generator)

    for epoch in range(done + 1, params.epochs + 1):
        start = time.perf_counter()
        train_loss, train_accuracy = _learn(learner, params, train, epoch=epoch, generator=generator)
        trained = time.perf_counter()
        val = None
        if data.val is not None:
            val = judge_model(learner.model, data.val, n_classes=data.n_classes, dtype=learner.dtype)
            if not math.isfinite(val.loss):  # the last step broke the weights; no later training loss need show it
                raise TrialFailed("diverged", f"validation loss became {val.loss} in epoch {epoch}")
        report = EpochReport(
            epoch=epoch,
            samples=epoch * data.epoch_samples,
            lr=learner.optimizer.param_groups[0]["lr"],
            precision=str(learner.dtype).removeprefix("torch."),
            n_parameters=sum(p.numel() for p in learner.model.parameters() if p.requires_grad),
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val=val,
            train_seconds=trained - start,
            val_seconds=time.perf_counter() - trained,
        )
        yield Evaluation(report=report, state=_capture(learner, epoch, generator))
    return learner.model.eval()


def _build(params: TrialParams, train: EncodedWafers, *, data: TrialData, generator: torch.Generator) -> _Learner:
    device = train.labels.device
    model = build_model(
        params.model.name, n_classes=data.n_classes, options=params.model.options, seed=_draw_seed(generator)
    ).to(device)
    counts = torch.bincount(train.labels, minlength=data.n_classes).cpu().numpy()
    plan = SAMPLINGS[params.sampling.name](counts, **params.sampling.options)
    n_steps = params.epochs * count_batches(data.epoch_samples, params.batch_size)
    factor = partial(SCHEDULES[params.schedule.name], **params.schedule.options)
    return _Learner(
        model=model,
        optimizer=OPTIMIZERS[params.optimizer.name](
            model, lr=params.lr, weight_decay=params.weight_decay, **params.optimizer.options
        ),
        loss=LOSSES[params.loss.name](**params.loss.options),
        lr_at_step=lambda step: params.lr * factor((step + 0.5) / n_steps),
        grad_clip=params.grad_clip,
        draws=WaferDraws(train.labels, plan=plan, epoch_samples=data.epoch_samples),
        dtype=choose_dtype(params.precision, device),
    )


def _learn(
    learner: _Learner, params: TrialParams, train: EncodedWafers, *, epoch: int, generator: torch.Generator
) -> tuple[float, float]:
    """Train for one nominal epoch; return the mean loss and the accuracy."""
    device = train.labels.device
    progress = (epoch - 1) / max(params.epochs - 1, 1)
    drawn = learner.draws.next_epoch(generator, progress=progress)
    choices = AUGMENTS[params.augment.name](len(drawn), generator, **params.augment.options)
    step = (epoch - 1) * count_batches(len(drawn), params.batch_size)
    losses, n_right = [], torch.zeros((), dtype=torch.int64, device=device)
    learner.model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        _seed_dropout(_draw_seed(generator), device)
        for channels, labels in train_batches(train, drawn, choices, batch_size=params.batch_size):
            for group in learner.optimizer.param_groups:
                group["lr"] = learner.lr_at_step(step)
            with autocast(device, learner.dtype):
                logits_NK: Tensor = learner.model(channels)
            loss = learner.loss(logits_NK.float(), labels)
            learner.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if learner.grad_clip:
                nn.utils.clip_grad_norm_(learner.model.parameters(), learner.grad_clip)
            learner.optimizer.step()
            losses.append(loss.detach() * len(labels))
            n_right += (logits_NK.detach().argmax(1) == labels).sum()
            step += 1
    total = torch.stack(losses).double().cpu()  # the only time in an epoch that the device is waited for
    _check_finite(total, epoch=epoch, last_step=step)
    return total.sum().item() / len(drawn), n_right.item() / len(drawn)


def _seed_dropout(seed: int, device: torch.device) -> None:
    """Dropout knows only the global generators."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _check_finite(losses: Tensor, *, epoch: int, last_step: int) -> None:
    bad = torch.nonzero(~torch.isfinite(losses)).flatten()
    if len(bad):
        step = last_step - len(losses) + int(bad[0]) + 1
        raise TrialFailed("diverged", f"loss became {losses[bad[0]].item()} in epoch {epoch} (step {step})")


def _capture(learner: _Learner, epoch: int, generator: torch.Generator) -> State:
    return {
        "epoch": epoch,
        "model": learner.model.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "draws": learner.draws.state_dict(),
        "generator": generator.get_state(),
    }


def _restore(learner: _Learner, state: State, generator: torch.Generator) -> int:
    """Put the learner back where the state was taken; return the epochs already done."""
    learner.model.load_state_dict(state["model"])
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.draws.load_state_dict(state["draws"])
    generator.set_state(state["generator"])
    return int(state["epoch"])


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**31, (1,), generator=generator))
