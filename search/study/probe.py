"""How long a nominal epoch takes here, found out by training for some seconds."""

import contextlib
import io
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from data_pipeline.batches import EVALUATION_BATCH
from search.errors import ConfigError
from search.space.config import StudyConfig
from search.space.space import Config
from search.study.outlook import draw_allowed
from search.study.records import to_line
from search.study.rows import TrialRecord, to_row
from search.trial.data import TrialData
from search.trial.params import TrialParams, from_flat
from search.trial.training import EpochReport, Evaluation, train_and_evaluate
from search.trial.vocabulary import Scalar

# Wafers to begin with: few enough for the slowest network.
_FEW = 32
# What is still to be trained is cut to this share of the time that is left, because a rate is only known afterwards.
_CAUTION = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was measured of one configuration.

    Attributes:
        params: The configuration, checked.
        seconds: Of a nominal epoch, validation included.
        is_whole: Whether one was trained from start to end; else the seconds are extrapolated from a part.
        checkpoint: Bytes of what it takes to go on from there.
        row: Bytes of an epoch in trials.jsonl.
    """

    params: TrialParams
    seconds: float
    is_whole: bool
    checkpoint: int
    row: int


def choose_probes(config: StudyConfig, *, n: int = 4) -> list[dict[str, Scalar]]:
    """Choose flat configurations to probe: as many of each model, the `first` points before random ones.

    Args:
        config: Of the study.
        n: How many; one of each model at least.

    Returns:
        None of a model that the rules forbid altogether.
    """
    models = [str(name) for name in config.space.values_of("model")]
    corners: list[dict[str, Scalar]] = [{"model": name} for name in models] or [{}]
    dice, points = random.Random(0), list(config.first)
    chosen = []
    for i in range(max(n, len(corners))):
        corner = corners[i % len(corners)]
        fitting = [point for point in points if point.get("model", corner.get("model")) == corner.get("model")]
        if fitting:
            points.remove(fitting[0])
        with contextlib.suppress(ConfigError):
            chosen.append(draw_allowed(config, dice, {**corner, **(fitting[0] if fitting else {})}))
    return chosen


def probe(
    flat: Config,
    data: TrialData,
    *,
    classes: tuple[str, ...],
    image_size: int,
    budget_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Probe:
    """Train one configuration for some seconds and scale up to a nominal epoch.

    It begins with few wafers, and goes on with as many as should fit into what is left of the time: a nominal epoch at
    most. Only the first step of a network that is very slow can therefore take longer than the time given. Features of
    frozen backbones are not kept, so that nothing is written: such trials are as slow here as in their first epoch.

    Args:
        flat: The configuration.
        data: On the device to train on.
        classes: Names of the K classes.
        image_size: Pixels per side of the encoded maps.
        budget_s: Seconds.
        clock: Tells seconds.

    Raises:
        TrialFailed: If the configuration diverges at once.
        Exception: Whatever keeps the network from being built or trained.
    """
    params = from_flat(flat, where="the probe", image_size=image_size)
    assert data.val is not None
    end = clock() + budget_s
    n_train, n_val = min(_FEW, data.epoch_samples), min(_FEW, len(data.val))
    small = params.model_copy(update={"batch_size": min(params.batch_size, n_train)})
    evaluation = _train(small, data, n_train=n_train, n_val=n_val)
    seconds = _scale(evaluation.report, data, n_train=n_train, n_val=n_val)
    for _ in range(4):
        share = min(1.0, _CAUTION * (end - clock()) / seconds)
        wanted = _round_up(share * data.epoch_samples, params.batch_size, most=data.epoch_samples)
        worth = 2 * n_train if share < 1 else n_train + 1
        if wanted < worth or share * data.epoch_samples < params.batch_size:
            break  # no more is left to train, or no time for much more than was trained already
        n_train, n_val = wanted, _round_up(share * len(data.val), EVALUATION_BATCH, most=len(data.val))
        evaluation = _train(params, data, n_train=n_train, n_val=n_val)
        seconds = _scale(evaluation.report, data, n_train=n_train, n_val=n_val)
    buffer = io.BytesIO()
    torch.save(evaluation.state, buffer)
    record = TrialRecord(
        number=0, config=flat, epochs=params.epochs, reports=[evaluation.report], values=[1 / 3], shortfalls=[0.0]
    )
    return Probe(
        params=params,
        seconds=seconds,
        is_whole=n_train == data.epoch_samples and n_val == len(data.val),
        checkpoint=buffer.getbuffer().nbytes,
        row=len(to_line(to_row(record, classes=classes, elapsed=1000.0)).encode()),
    )


def probe_all(
    chosen: Sequence[Config],
    data: TrialData,
    *,
    classes: tuple[str, ...],
    image_size: int,
    budget_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Probe | Exception]:
    """Probe one configuration after the other, each for its share of the time that is left.

    Args:
        chosen: From `choose_probes`.
        data: See `probe`, and so are the others.
        classes: See there.
        image_size: See there.
        budget_s: Of all together.
        clock: See there.

    Yields:
        What was measured of each, or why that was impossible; fewer than there are when the time is used up.
    """
    end = clock() + budget_s
    for i, flat in enumerate(chosen):
        left = end - clock()
        if i and left <= 0:
            return
        try:
            share = left / (len(chosen) - i)
            yield probe(flat, data, classes=classes, image_size=image_size, budget_s=share, clock=clock)
        except Exception as error:  # noqa: BLE001 - a plan tells what a search would run into
            yield error


def _train(params: TrialParams, data: TrialData, *, n_train: int, n_val: int) -> Evaluation:
    """Train one epoch of `n_train` drawn wafers, and judge on `n_val`."""
    assert data.val is not None
    val = data.val if n_val == len(data.val) else data.val.select(torch.arange(n_val, device=data.val.labels.device))
    part = replace(data, epoch_samples=n_train, val=val, features=None)
    return next(train_and_evaluate(params, part, generator=torch.Generator().manual_seed(params.seed)))


def _scale(report: EpochReport, data: TrialData, *, n_train: int, n_val: int) -> float:
    assert data.val is not None
    return report.train_seconds * data.epoch_samples / n_train + report.val_seconds * len(data.val) / n_val


def _round_up(n: float, batch: int, *, most: int) -> int:
    return min(most, -int(-n // batch) * batch)
