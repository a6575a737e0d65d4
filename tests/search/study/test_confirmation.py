from dataclasses import replace

import numpy as np
import pytest

from search.errors import ConfigError
from search.space.config import ConfirmConfig, DataConfig, SplitConfig
from search.study.confirmation import (
    choose_candidates,
    configure,
    divide,
    finished_runs,
    fold_of,
    no_less_than,
    out_of_fold,
    plan_runs,
    predictions_path,
    read_logits,
)
from search.study.data import open_data
from search.study.records import StudyFolder, confirm_folder
from search.study.rows import COMPLETE, RUNNING, STOPPED, TrialRecord
from search.study.study import Study
from search.testing import drive
from search.trial.params import from_flat

SPACE = """
    data: {wafers: synthetic, synthetic_wafers: 600, image_size: 16, epoch_samples: 256}
    space: {epochs: 3, lr: {low: 1e-4, high: 1e-1, log: true}, model: {choose: {wafer_cnn: {width: [4, 8]}}}}
    search: {trials: 4, stop: none, sampler: random}
"""
CONFIG = DataConfig(wafers="synthetic", synthetic_wafers=600, image_size=16, epoch_samples=256)


def make_record(number, *, value, status=COMPLETE, shortfall=0.0, **config):
    return TrialRecord(number=number, config=config, epochs=3, status=status, values=[value], shortfalls=[shortfall])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_data(CONFIG, results=tmp_path_factory.mktemp("results"))


@pytest.fixture
def folder(tmp_path):
    return confirm_folder(StudyFolder(tmp_path / "study"))


def test_only_those_that_ran_to_their_end_and_meet_the_floors_are_candidates():
    records = [
        make_record(0, value=0.7),
        make_record(1, value=0.95, shortfall=0.1),
        make_record(2, value=0.9, status=STOPPED),
        make_record(3, value=0.8),
        make_record(4, value=0.6),
    ]

    assert [record.number for record in choose_candidates(records, top=2)] == [3, 0]
    assert len(choose_candidates(records, top=9)) == 3


def test_who_was_left_standing_higher_than_all_finished_ones_is_a_candidate_too():
    records = [
        make_record(0, value=0.7),
        make_record(1, value=0.6, status=RUNNING),
        make_record(2, value=0.9, status=RUNNING),
        make_record(3, value=0.8, status=RUNNING),
        make_record(4, value=0.95, status=RUNNING, shortfall=0.1),
        make_record(5, value=0.5),
    ]

    assert [record.number for record in choose_candidates(records, top=3)] == [0, 5, 2, 3]
    assert [record.number for record in choose_candidates(records, top=1)] == [0, 2]
    assert choose_candidates(records[1:5], top=3) == []


def test_every_candidate_is_trained_from_the_same_fresh_seeds_and_folds():
    runs = plan_runs([make_record(4, value=1), make_record(2, value=0.5)], ConfirmConfig(seeds=2, folds=3))

    assert [run.candidate for run in runs] == [4, 2] * 5
    assert len({(run.candidate, run.seed) for run in runs}) == len(runs) == 10
    assert all(fold_of(run.seed) == (run.fold, run.n_folds) for run in runs)
    assert [run.fold for run in runs[::2]] == [0, 0, 1, 2, 3]


def test_more_seeds_only_add_runs():
    record = make_record(0, value=1)

    fewer, more = (plan_runs([record], ConfirmConfig(seeds=seeds, folds=2)) for seeds in (2, 4))

    assert set(fewer) < set(more)


def test_what_earlier_confirmations_trained_is_not_left_out():
    records = [make_record(number, value=1 - number / 10, lr=number) for number in range(4)]
    runs = plan_runs(records[2:3], ConfirmConfig(seeds=3, folds=4))
    earlier = [{**records[run.candidate].config, "seed": run.seed} for run in runs]

    candidates = choose_candidates(records, top=1, earlier=earlier)

    assert [record.number for record in candidates] == [0, 2]
    assert no_less_than(earlier, ConfirmConfig(top=1, seeds=2)) == ConfirmConfig(top=1, seeds=3, folds=4)
    assert no_less_than(earlier, ConfirmConfig(seeds=5, folds=6)) == ConfirmConfig(seeds=5, folds=6)
    assert no_less_than([], ConfirmConfig(seeds=2)) == ConfirmConfig(seeds=2)


def test_a_confirmation_trains_its_runs_and_nothing_else(load, tmp_path, folder):
    config = load(SPACE)
    with Study(StudyFolder(tmp_path / "study"), config, classes=("a", "b")) as study:
        drive(study, quality_of=lambda assignment, epoch: float(assignment.number) / 10 + 0.5)
        records = study.records
    best = choose_candidates(list(records.values()), top=2)
    runs = plan_runs(best, ConfirmConfig(top=2, seeds=2))

    with Study(folder, configure(config, runs, records), classes=("a", "b"), only_first=True) as confirmation:
        drive(confirmation, quality_of=lambda assignment, epoch: 0.9)

        assert confirmation.is_over
        found = [confirmation.records[n].config for n in range(4)]
        assert len(confirmation.records) == 4
        assert found == [{**records[run.candidate].config, "seed": run.seed} for run in runs]
        assert len(finished_runs(confirmation.records, best[0].config)) == 2


def test_a_run_that_breaks_is_tried_again_and_replaced_by_nothing(load, folder):
    config = load(SPACE)
    record = make_record(0, value=1, epochs=3, lr=0.01, model="wafer_cnn", **{"model.wafer_cnn.width": 4})
    runs = configure(config, plan_runs([record], ConfirmConfig(seeds=2)), {0: record})
    calls = []

    def break_once(assignment, epoch):
        calls.append(assignment.number)
        if assignment.number == 0:
            raise RuntimeError("gone")
        return 0.9

    with Study(folder, runs, classes=("a", "b"), only_first=True) as confirmation:
        drive(confirmation, quality_of=break_once, slots=1)

        assert confirmation.is_over
        assert [record.status for record in confirmation.records.values()] == ["failed", COMPLETE, COMPLETE]
        assert len(finished_runs(confirmation.records, record.config)) == 2


def test_folds_hold_every_wafer_once_and_never_one_of_the_locked_test(dataset):
    own, *folds = divide(dataset, n_folds=3)
    splits, wafers = dataset.splits, dataset.wafers
    everyone = np.concatenate([splits.train, splits.val])

    assert np.array_equal(own.val, splits.val)
    assert np.array_equal(np.sort(np.concatenate([fold.val for fold in folds])), np.sort(everyone))
    for fold in folds:
        train = everyone[fold.train_rows]
        assert np.array_equal(everyone[fold.val_rows], fold.val)
        assert np.array_equal(np.sort(np.concatenate([train, fold.val])), np.sort(everyone))
        assert not set(wafers.lots[train]) & set(wafers.lots[fold.val])
        assert not set(wafers.content[train]) & set(wafers.content[fold.val])


def test_folds_of_copied_wafers_keep_the_copies_apart(tmp_path):
    leaky = CONFIG.model_copy(update={"split": SplitConfig(by="deck", pool=100)})
    dataset = open_data(leaky, results=tmp_path)

    _, *folds = divide(dataset, n_folds=2)

    everyone = np.concatenate([dataset.splits.train, dataset.splits.val])
    for fold in folds:
        assert not set(everyone[fold.train_rows]) & set(fold.val)


def test_folds_that_keep_less_apart_than_the_search_are_refused(dataset):
    by_product = replace(dataset, splits=replace(dataset.splits, protocol="product"))

    with pytest.raises(ConfigError, match=r"confirm\.folds: must be 0 with data\.split\.by: product"):
        divide(by_product, n_folds=2)


def keep_logits(folder, record, logits):
    path = predictions_path(folder, record.config["seed"], record.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, logits.astype(np.float32))


def test_what_fold_models_predicted_is_put_together(dataset, folder):
    _, *folds = divide(dataset, n_folds=2)
    records = {}
    for number, (seed, fold) in enumerate(zip((2_002_001, 2_002_002), folds, strict=True)):
        records[number] = make_record(number, value=0.9, lr=0.01, seed=seed)
        keep_logits(folder, records[number], np.eye(9)[dataset.wafers.labels[fold.val]] * (number + 1))

    found = out_of_fold(folder, records, from_flat({"lr": 0.01, "seed": 5}, where="", image_size=16), dataset)

    assert len(found.labels) == len(dataset.splits.train) + len(dataset.splits.val)
    assert np.array_equal(found.logits.argmax(1), found.labels)
    assert out_of_fold(folder, records, from_flat({"lr": 0.02}, where="", image_size=16), dataset) is None
    records[1] = make_record(1, value=0.9, status=RUNNING, lr=0.01, seed=2_002_002)
    assert out_of_fold(folder, records, from_flat({"lr": 0.01}, where="", image_size=16), dataset) is None


def test_damaged_predictions_count_as_none(folder):
    record = make_record(0, value=0.9, seed=1_000_001)
    keep_logits(folder, record, np.zeros((3, 2)))
    path = predictions_path(folder, 1_000_001, 0)
    path.write_bytes(path.read_bytes()[:-5])

    assert read_logits(folder, record) is None
