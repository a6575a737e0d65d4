"""The training that search, retraining and tests share: a generator that yields one report per nominal epoch."""

import math
import time
from collections.abc import Generator
from dataclasses import dataclass

import torch

from search.errors import TrialFailed
from search.trial.data import TrialData
from search.trial.evaluation import Judgement
from search.trial.learner import Learner, State
from search.trial.memory import peak_memory
from search.trial.params import TrialParams
from search.trial.prediction import Predictor


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
        train_accuracy: Of the drawn, augmented wafers, while learning; of mixed ones, for the larger share's class.
        val: On the validation part; None without one.
        train_seconds: Time to draw, augment and learn.
        val_seconds: Time to validate.
        peak_memory: The most bytes held so far, see `search.trial.memory.peak_memory`; 0 in reports from before it.
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
    peak_memory: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """What the generator yields: the report, and what it takes to go on from here in another process.

    Attributes:
        report: The epoch's numbers.
        state: Tensors, numbers and lists only. It is live: save it, or copy it, before asking for the next epoch.
    """

    report: EpochReport
    state: State


def train_and_evaluate(
    params: TrialParams, data: TrialData, *, generator: torch.Generator, state: State | None = None
) -> Generator[Evaluation, None, Predictor]:
    """Train one configuration and judge it after every nominal epoch.

    On the CPU, the same parameters, data, generator seed and number of threads give the same reports bit for bit, but
    for the seconds and the memory; so does a run that stops and goes on from a saved state.

    Args:
        params: The configuration.
        data: Wafers on the device to train on.
        generator: On the CPU; the only source of randomness.
        state: Of an earlier `Evaluation` with the same parameters and data, to go on from there.

    Yields:
        One evaluation per epoch, `params.epochs` in all.

    Returns:
        The trained network with its rule of decision, in evaluation mode.

    Raises:
        TrialFailed: If the training or validation loss becomes NaN or infinite.
    """
    learner = Learner(params, data, generator=generator)
    done = 0 if state is None else learner.restore(state)

    for epoch in range(done + 1, params.epochs + 1):
        start = time.perf_counter()
        train_loss, train_accuracy = learner.learn(epoch)
        trained = time.perf_counter()
        val = None if data.val is None else learner.judge(data.val)
        if val and not math.isfinite(val.loss):  # the last step broke the weights; no later training loss need show it
            raise TrialFailed("diverged", f"validation loss became {val.loss} in epoch {epoch}")
        report = EpochReport(
            epoch=epoch,
            samples=epoch * data.epoch_samples,
            lr=learner.lr,
            precision=str(learner.dtype).removeprefix("torch."),
            n_parameters=sum(p.numel() for p in learner.model.parameters() if p.requires_grad),
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val=val,
            train_seconds=trained - start,
            val_seconds=time.perf_counter() - trained,
            peak_memory=peak_memory(learner.device),
        )
        yield Evaluation(report=report, state=learner.capture(epoch))
    return learner.predictor.eval()
