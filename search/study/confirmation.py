"""Confirming the best of a search: which of them are trained again, from which seeds, and on which division.

A confirmation is a study of its own, in the folder `confirm/` of the search's: every run is a trial, so that it
survives a kill as a search does, and `search.status` shows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.dataset import Dataset
from data_pipeline.protocols import k_folds
from search.errors import ConfigError
from search.space.config import ConfirmConfig, StudyConfig
from search.space.space import Config, Range, Space
from search.study.hindsight import rank, unfinished_above
from search.study.records import StudyFolder
from search.study.rows import COMPLETE, TrialRecord
from search.trial.params import TrialParams, from_flat

# Seeds that no search asks for; each stands for one division, so that a run's seed says on which it was trained.
_OWN_SEED, _FOLD_SEED = 1_000_000, 2_000_000
_DIVISION_SEED = 7  # of the folds
_NO_FOLDS = ("product", "time")  # divisions that keep more apart than lots
# What two configurations may differ in and still be one.
_NOT_TRAINED = ("seed", "test_time")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Division:
    """Which of the training and validation wafers one run learns from and is judged on.

    Attributes:
        train_rows: Positions of those to learn from, counted through both parts, ascending, int64.
        val_rows: Of those to judge by, which are of other lots.
        val: Indices of the latter in the wafer file, in the same order.
    """

    train_rows: NDArray[np.int64]
    val_rows: NDArray[np.int64]
    val: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training of one candidate.

    Attributes:
        candidate: Number of its trial in the search.
        seed: Fresh.
        fold: On the division without this fold, from 1; 0: on the search's own.
        n_folds: Of that division.
    """

    candidate: int
    seed: int
    fold: int = 0
    n_folds: int = 0


def choose_candidates(records: Sequence[TrialRecord], *, top: int, earlier: Sequence[Config] = ()) -> list[TrialRecord]:
    """Choose the best that ran to their end and meet all floors, the best first; then who was left standing higher.

    A short search may leave trials unfinished that stand above all finished ones. Their score is no last word, but
    every candidate is trained to its end here.

    Args:
        records: Of the search.
        top: So many of both.
        earlier: Runs of earlier confirmations; whose they are is chosen again, so that what is known of it counts.
    """
    able = [record for record in rank(records) if not record.shortfalls[-1]]
    higher = unfinished_above(records, able[0]) if able else []
    return [
        record
        for part in (able, higher)
        for n, record in enumerate(part)
        if n < top or any(_is_run_of(run, record) for run in earlier)
    ]


def no_less_than(earlier: Sequence[Config], wanted: ConfirmConfig) -> ConfirmConfig:
    """Ask for as many seeds and folds as earlier confirmations did, if that is more: their runs are there and count.

    Args:
        earlier: The runs of these.
        wanted: What is asked for now.
    """
    seeds = [int(run["seed"]) for run in earlier]
    n_seeds = max((seed - _OWN_SEED for seed in seeds if seed < _FOLD_SEED), default=0)
    n_folds = max((fold_of(seed)[1] for seed in seeds), default=0)
    return wanted.model_copy(update={"seeds": max(wanted.seeds, n_seeds), "folds": max(wanted.folds, n_folds)})


def plan_runs(candidates: Sequence[TrialRecord], wanted: ConfirmConfig) -> list[Run]:
    """List the runs; those of one seed or fold follow each other, so that an early end leaves all equally far."""
    own = [(_OWN_SEED + j, 0, 0) for j in range(1, wanted.seeds + 1)]
    folds = [(_FOLD_SEED + 1000 * wanted.folds + f, f, wanted.folds) for f in range(1, wanted.folds + 1)]
    return [
        Run(candidate=record.number, seed=seed, fold=fold, n_folds=n)
        for seed, fold, n in [*own, *folds]
        for record in candidates
    ]


def configure(config: StudyConfig, runs: Sequence[Run], records: Mapping[int, TrialRecord]) -> StudyConfig:
    """Make the study that trains these runs and nothing else, each to its end."""
    seeds = Range(0, 2**31 - 1)
    points: list[Config] = [{**records[run.candidate].config, "seed": run.seed} for run in runs]
    limits = {"trials": max(1, len(runs)), "time": None, "gpu_hours": None, "trial_time": None, "stop": None}
    return replace(
        config,
        name=f"{config.name}-confirm",
        space=Space({**config.space.nodes, "seed": seeds}),
        first=tuple(points),
        search=config.search.model_copy(update={**limits, "sampler": "random"}),
        floors=(),
        confirm=None,
    )


def fold_of(seed: int) -> tuple[int, int]:
    """Return the fold that a run's seed stands for, and of how many; (0, 0) for the search's own division."""
    return divmod(seed - _FOLD_SEED, 1000)[::-1] if seed >= _FOLD_SEED else (0, 0)


def has_lots(dataset: Dataset) -> bool:
    """Whether the search's own validation part is of two lots or more: of a single one, nothing follows for others."""
    return len(np.unique(dataset.wafers.lots[dataset.splits.val])) > 1


def fit_to_lots(dataset: Dataset, wanted: ConfirmConfig) -> ConfirmConfig:
    """Leave out the seeds where nothing would follow from them.

    Raises:
        ConfigError: If nothing else is left.
    """
    if has_lots(dataset):
        return wanted
    if not wanted.folds:
        folds = "" if dataset.splits.protocol in _NO_FOLDS else "judge by folds (seeds: 0, folds: 3), or "
        raise ConfigError(
            f"the validation wafers are of a single lot, which says nothing of others; {folds}bring wafers of more lots"
        )
    return wanted.model_copy(update={"seeds": 0})


def divide(dataset: Dataset, *, n_folds: int) -> list[Division]:
    """Return the divisions by fold: first the search's own, then one for each fold of its training and validation part.

    Raises:
        ConfigError: If folds would not keep apart what the search's split does.
        DataError: If there are too few lots.
    """
    splits = dataset.splits
    everyone = np.concatenate([splits.train, splits.val])
    rows = np.arange(len(everyone))
    n_train = len(splits.train)
    divisions = [Division(train_rows=rows[:n_train], val_rows=rows[n_train:], val=splits.val)]
    if n_folds:
        if splits.protocol in _NO_FOLDS:
            raise ConfigError(
                f"confirm.folds: must be 0 with data.split.by: {splits.protocol}; folds keep lots apart, not more"
            )
        wafers, first = np.unique(everyone, return_index=True)
        for fold in k_folds(dataset.wafers, k=n_folds, seed=_DIVISION_SEED, within=wafers):
            train_rows, val_rows = (np.sort(first[np.searchsorted(wafers, part)]) for part in (fold.train, fold.val))
            divisions.append(Division(train_rows=train_rows, val_rows=val_rows, val=everyone[val_rows]))
    return divisions


def predictions_path(folder: StudyFolder, seed: int, number: int) -> Path:
    """Return where a run keeps its logits, by the folder of the confirmation, its seed and its number as a trial."""
    return folder.path / "predictions" / f"trial-{number:04d}-seed-{seed}.npy"


def read_logits(folder: StudyFolder, record: TrialRecord) -> NDArray[np.float32] | None:
    """Read a run's logits of the wafers it was judged on, shape (N, K), in their order; None if missing or damaged."""
    path = predictions_path(folder, int(record.config["seed"]), record.number)
    try:
        logits: NDArray[np.float32] = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError, EOFError):
        return None
    return logits if logits.ndim == 2 else None


def finished_runs(records: Mapping[int, TrialRecord], candidate: Config) -> list[TrialRecord]:
    """Return the runs of a candidate that came to their end, by seed."""
    complete = [record for record in runs_of(records, candidate) if record.status == COMPLETE]
    return sorted(complete, key=lambda record: int(record.config["seed"]))


def runs_of(records: Mapping[int, TrialRecord], candidate: Config) -> list[TrialRecord]:
    """Return all runs of a candidate, however they ended: those that differ from it in the seed alone."""
    return [record for record in records.values() if _without_seed(record.config) == _without_seed(candidate)]


def _is_run_of(run: Config, candidate: TrialRecord) -> bool:
    return _without_seed(run) == _without_seed(candidate.config)


def _without_seed(config: Config) -> Config:
    return {**config, "seed": 0}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutOfFold:
    """What models make of wafers that they were not trained on; each wafer of the training and validation part once.

    Attributes:
        logits: Shape (N, K), float32.
        labels: Shape (N,), int64.
        lots: Shape (N,), int64.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    lots: NDArray[np.int64]


def out_of_fold(
    folder: StudyFolder, records: Mapping[int, TrialRecord], params: TrialParams, dataset: Dataset
) -> OutOfFold | None:
    """Put together what the fold runs of one configuration predicted.

    Args:
        folder: Of the confirmation.
        records: Its trials.
        params: The configuration; its seed and its views at test time may be others. What it
            decides for may not: the shift for that is in the logits.
        dataset: The study's.

    Returns:
        None unless all folds of one division are there.
    """
    runs: dict[int, dict[int, TrialRecord]] = {}
    size = dataset.picture.image_size
    for record in records.values():
        fold, n_folds = fold_of(int(record.config["seed"]))
        if fold and record.status == COMPLETE and _is_same(record.config, params, image_size=size):
            runs.setdefault(n_folds, {})[fold] = record
    for n_folds, found in sorted(runs.items(), reverse=True):
        if len(found) == n_folds:
            divisions = divide(dataset, n_folds=n_folds)
            logits = [read_logits(folder, found[fold]) for fold in range(1, n_folds + 1)]
            rows = np.concatenate([division.val for division in divisions[1:]])
            whole = [each for each in logits if each is not None]
            if len(whole) == n_folds and sum(map(len, whole)) == len(rows):
                wafers = dataset.wafers
                return OutOfFold(logits=np.concatenate(whole), labels=wafers.labels[rows], lots=wafers.lots[rows])
    return None


def _is_same(config: Config, params: TrialParams, *, image_size: int) -> bool:
    flat = from_flat(config, where="a run", image_size=image_size).to_flat()
    asked = params.to_flat()
    return all(flat[key] == asked.get(key) for key in flat if key not in _NOT_TRAINED) and flat.keys() == asked.keys()
