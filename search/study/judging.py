"""Judging the candidates of a confirmation by what their runs have kept."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.dataset import Dataset
from models import build_model
from search.errors import ConfigError
from search.space.config import StudyConfig
from search.study.confirmation import Division, finished_runs, fold_of, has_lots, read_logits, runs_of
from search.study.confirmed import Candidate, Confirmed
from search.study.ranking import Ranking, rank_by_folds, rank_by_seeds
from search.study.records import StudyFolder
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, TrialRecord
from search.trial.params import from_flat
from search.trial.prediction import symmetric_views


def conclude(
    config: StudyConfig,
    candidates: Sequence[TrialRecord],
    runs: Mapping[int, TrialRecord],
    folder: StudyFolder,
    dataset: Dataset,
    divisions: Sequence[Division],
) -> Confirmed | None:
    """Judge candidates by their runs.

    Those seeds count that all candidates finished; a candidate that lacks one because it broke is left out.

    Args:
        config: Of the search.
        candidates: Trials of the search, its winner first.
        runs: Trials of the confirmation.
        folder: Of the confirmation.
        dataset: The study's.
        divisions: From `divide`: the search's own, and those by fold to decide by, if any.

    Returns:
        None if nobody has finished a run that all others have finished.
    """
    n_folds = len(divisions) - 1
    found = {record.number: finished_runs(runs, record.config) for record in candidates}
    broken = {record.number: _count_broken(runs, record) for record in candidates}
    whole = [record for record in candidates if not broken[record.number]] or list(candidates)
    common = set.intersection(*({int(run.config["seed"]) for run in found[record.number]} for record in whole))
    seeds = sorted(seed for seed in common if fold_of(seed)[0] == 0) if has_lots(dataset) else []
    folds = sorted(seed for seed in common if n_folds and fold_of(seed)[1] == n_folds)

    def count(seeds: Sequence[int], divisions: Sequence[Division]) -> NDArray[np.int64]:
        return _count_by_lot(whole, found, seeds, folder, divisions, dataset)

    by_seeds, by_folds = _rank(config, dataset, count, seeds, folds, divisions)
    decides = by_folds or by_seeds
    if decides is None:
        return None
    values = [[float(run.value) for run in found[record.number] if run.config["seed"] in seeds] for record in whole]
    rows = [
        _describe(record, i, values[i], by_seeds, by_folds, decides, broken[record.number], config, dataset)
        for i, record in enumerate(whole)
    ]
    ordered = [rows[i] for i in decides.order]
    winner = next((row for row in rows if row.trial == candidates[0].number and row.seed_values), None)
    judged = divisions[1:] if by_folds else divisions[:1]
    return Confirmed(
        metric=config.objective.metric,
        decided_by="folds" if by_folds else "seeds",
        candidates=ordered,
        chosen=_choose(ordered).trial,
        n_seeds=len(seeds),
        n_folds=n_folds if by_folds else 0,
        n_lots=decides.n_lots,
        n_wafers=sum(len(division.val) for division in judged),
        seed_sd=by_seeds.seed_sd if by_seeds else math.nan,
        optimism=winner.search_value - float(np.mean(winner.seed_values)) if winner else math.nan,
        split_fingerprint=dataset.splits.fingerprint,
        left_out=[record.number for record in candidates if record not in whole],
    )


def _rank(
    config: StudyConfig,
    dataset: Dataset,
    count: Callable[[Sequence[int], Sequence[Division]], NDArray[np.int64]],
    seeds: Sequence[int],
    folds: Sequence[int],
    divisions: Sequence[Division],
) -> tuple[Ranking | None, Ranking | None]:
    """Rank by the seeds on the search's own division, and by the folds where all of them are there."""
    statistic = config.objective.statistic(dataset.wafers.classes)
    by_seeds = rank_by_seeds(count(seeds, [divisions[0]] * len(seeds)), statistic) if seeds else None
    if not folds or len(folds) < len(divisions) - 1:
        return by_seeds, None
    counts = count(folds, divisions[1:])
    df = len(counts) * (len(seeds) - 1) if seeds else 0
    seed_sd = by_seeds.seed_sd if by_seeds and df else math.nan
    return by_seeds, rank_by_folds(counts, statistic, seed_sd=seed_sd, seed_df=df)


def _count_broken(runs: Mapping[int, TrialRecord], candidate: TrialRecord) -> int:
    """Count the runs that did not work; one that failed for another reason and then went well is none of them."""
    finished = {run.config["seed"] for run in finished_runs(runs, candidate.config)}
    broke = {run.config["seed"] for run in runs_of(runs, candidate.config) if run.status in (INFEASIBLE, FAILED)}
    return len(broke - finished)


def _count_by_lot(
    candidates: Sequence[TrialRecord],
    found: Mapping[int, Sequence[TrialRecord]],
    seeds: Sequence[int],
    folder: StudyFolder,
    divisions: Sequence[Division],
    dataset: Dataset,
) -> NDArray[np.int64]:
    """Return confusion matrices by lot, shape (C, S, L, K, K), from what the runs of these seeds have kept."""
    wafers, k = dataset.wafers, len(dataset.wafers.classes)
    lots = np.unique(np.concatenate([wafers.lots[division.val] for division in divisions]))
    counts = np.zeros((len(candidates), len(seeds), len(lots), k, k), dtype=np.int64)
    for c, candidate in enumerate(candidates):
        by_seed = {int(run.config["seed"]): run for run in found[candidate.number]}
        for s, (seed, division) in enumerate(zip(seeds, divisions, strict=True)):
            logits = read_logits(folder, by_seed[seed])
            if logits is None or len(logits) != len(division.val):
                number = by_seed[seed].number
                raise ConfigError(
                    f"{folder.path}: the predictions of run {number} are missing or damaged; remove the folder, and "
                    "the same command trains anew"
                )
            places = np.searchsorted(lots, wafers.lots[division.val])
            np.add.at(counts[c, s], (places, wafers.labels[division.val], logits.argmax(1)), 1)
    return counts


def _describe(
    record: TrialRecord,
    i: int,
    values: Sequence[float],
    by_seeds: Ranking | None,
    by_folds: Ranking | None,
    decides: Ranking,
    broken: int,
    config: StudyConfig,
    dataset: Dataset,
) -> Candidate:
    nothing = (math.nan, math.nan, math.nan)
    low, mean, high = _bounds(by_seeds.means[i]) if by_seeds else nothing
    fold_low, fold_value, fold_high = _bounds(by_folds.means[i]) if by_folds else nothing
    contest = decides.contests[i]
    return Candidate(
        trial=record.number,
        search_value=record.value,
        seed_values=list(values),
        mean=mean,
        low=low,
        high=high,
        spread=by_seeds.spreads[i] if by_seeds else math.nan,
        fold_value=fold_value,
        fold_low=fold_low,
        fold_high=fold_high,
        behind=0.0 - contest.difference.value,
        behind_low=0.0 - contest.difference.high,
        behind_high=0.0 - contest.difference.low,
        p_value=contest.p_value,
        is_tied=contest.is_tied,
        is_close=contest.is_close,
        macs=count_macs(record, image_size=config.data.image_size, n_classes=len(dataset.wafers.classes)),
        broken=broken,
        left_after=0 if record.status == COMPLETE else len(record.reports),
    )


def _bounds(interval: Any) -> tuple[float, float, float]:
    return interval.low, interval.value, interval.high


def _choose(rows: Sequence[Candidate]) -> Candidate:
    """Take the cheapest of those less than one standard error behind the best; of equally cheap ones the best.

    Source:
        Breiman et al. 1984, Classification and Regression Trees, the one-standard-error rule.
    """
    return min((row for row in rows if row.is_close), key=lambda row: row.macs)


def count_macs(record: TrialRecord, *, image_size: int, n_classes: int) -> int:
    """Count the multiplications of convolutions and linear layers for one wafer, all views of it together."""
    params = from_flat(record.config, where=f"trial {record.number}", image_size=image_size)
    grown = {key: "none" for key in params.model.options if key in ("weights", "freeze")}
    network = build_model(
        params.model.name, n_classes=n_classes, options={**params.model.options, **grown}, seed=0
    ).eval()
    picture = torch.zeros(1, 2, image_size, image_size)
    total = 0

    def count(module: torch.nn.Module, _: Any, out: torch.Tensor) -> None:
        nonlocal total
        total += module.weight[0].numel() * out[0].numel()  # type: ignore[index]

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        network(picture)
    return total * (len(symmetric_views(picture)) if params.test_time == "symmetries" else 1)
