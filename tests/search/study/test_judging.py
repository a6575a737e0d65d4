"""What a confirmation says of its candidates, from the predictions that their runs have kept."""

import io
import math

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from search.errors import ConfigError
from search.space.config import ConfirmConfig, DataConfig
from search.study.best import load_best, write_best
from search.study.confirmation import choose_candidates, divide, fold_of, plan_runs, predictions_path
from search.study.confirmed import describe_candidate, read_confirmed, sentences, write_confirmed
from search.study.data import open_data
from search.study.judging import conclude, count_macs
from search.study.provenance import describe_data, record_attempt
from search.study.records import StudyFolder, confirm_folder, read_json, write_json
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, TrialRecord
from search.study.study import Study
from search.testing import drive
from search.views.confirmed import confirmed_table
from search.views.report import write_report

DATA = DataConfig(wafers="synthetic", synthetic_wafers=1200, image_size=16, epoch_samples=256)
SPACE = """
    data: {wafers: synthetic, synthetic_wafers: 1200, image_size: 16, epoch_samples: 256}
    space: {epochs: 3, lr: [0.001, 0.002, 0.003, 0.004], model: {choose: {wafer_cnn: {width: [4, 8]}}}}
    search: {trials: 3, stop: none, sampler: random}
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_data(DATA, results=tmp_path_factory.mktemp("results"))


@pytest.fixture
def config(load):
    return load(SPACE)


def make_candidate(number, *, value, width=4, lr=0.001):
    config = {"epochs": 3, "lr": lr, "model": "wafer_cnn", "model.wafer_cnn.width": width}
    return TrialRecord(number=number, config=config, epochs=3, status=COMPLETE, values=[value], shortfalls=[0.0])


@pytest.fixture
def judge(tmp_path, config, dataset):
    """Let candidates call so many wafers right in all their runs, and conclude."""

    def conclude_from(candidates, skills, *, seeds=2, folds=0, break_run=None, status=INFEASIBLE):
        folder = confirm_folder(StudyFolder(tmp_path / "study"))
        divisions = divide(dataset, n_folds=folds)
        random, records = np.random.default_rng(0), {}
        for number, run in enumerate(plan_runs(candidates, ConfirmConfig(seeds=seeds, folds=folds))):
            candidate = next(record for record in candidates if record.number == run.candidate)
            config_of = {**candidate.config, "seed": run.seed}
            labels = dataset.wafers.labels[divisions[fold_of(run.seed)[0]].val]
            is_right = random.random(len(labels)) < skills[run.candidate]
            called = np.where(is_right, labels, (labels + 1) % 9)
            record = TrialRecord(number=number, config=config_of, epochs=3, status=COMPLETE, values=[is_right.mean()])
            if number == break_run:
                record.status = status
            else:
                path = predictions_path(folder, run.seed, number)
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, np.eye(9, dtype=np.float32)[called])
            records[number] = record
        return conclude(config, candidates, records, folder, dataset, divisions)

    return conclude_from


def test_the_winner_of_the_search_need_not_be_the_best(judge):
    lucky, good = make_candidate(0, value=0.95), make_candidate(1, value=0.94, lr=0.002)

    found = judge([lucky, good], {0: 0.6, 1: 0.9})

    assert found.best.trial == found.chosen == 1
    assert [row.trial for row in found.candidates] == [1, 0]
    assert not found.candidates[1].is_tied
    assert found.candidates[1].behind > 0.1
    assert found.optimism == pytest.approx(0.95 - np.mean(found.candidates[1].seed_values))
    assert any("flattered its winner" in sentence for sentence in sentences(found))


def test_of_equals_the_cheaper_one_is_chosen_and_that_is_said(judge):
    wide, narrow = make_candidate(0, value=0.9, width=8), make_candidate(1, value=0.9, width=4)

    found = judge([wide, narrow], {0: 0.9, 1: 0.9})

    assert len(found.tied) == 2
    assert found.winner.macs < max(row.macs for row in found.candidates)
    assert found.chosen == 1
    is_said = any("Chosen (*): trial 1, the cheapest" in sentence for sentence in sentences(found))
    assert is_said == (found.best.trial != 1)


def test_folds_decide_where_there_are_some(judge, dataset):
    found = judge([make_candidate(0, value=0.9), make_candidate(1, value=0.8, lr=0.002)], {0: 0.7, 1: 0.9}, folds=2)

    assert (found.decided_by, found.n_folds, found.n_seeds) == ("folds", 2, 2)
    assert found.n_wafers == len(dataset.splits.train) + len(dataset.splits.val)
    assert found.best.trial == 1
    assert found.best.fold_low < found.best.fold_value < found.best.fold_high


def test_seeds_judged_on_a_single_lot_do_not_count_beside_folds(judge, monkeypatch):
    monkeypatch.setattr("search.study.judging.has_lots", lambda dataset: False)

    found = judge([make_candidate(0, value=0.9), make_candidate(1, value=0.8, lr=0.002)], {0: 0.7, 1: 0.9}, folds=2)

    assert (found.decided_by, found.n_seeds, found.best.trial) == ("folds", 0, 1)
    assert math.isnan(found.best.mean)
    assert "nan" not in describe_candidate(found.best, is_alone=False)


def test_folds_alone_are_enough(judge):
    found = judge([make_candidate(0, value=0.9)], {0: 0.9}, seeds=0, folds=2)

    assert math.isnan(found.optimism)
    assert math.isnan(found.best.mean)
    assert any("the only candidate" in sentence for sentence in sentences(found))
    assert any("over lots alone" in sentence for sentence in sentences(found))


@pytest.mark.parametrize("status", [INFEASIBLE, FAILED])
def test_a_candidate_that_breaks_with_a_fresh_seed_is_left_out(judge, status):
    candidates = [make_candidate(0, value=0.9), make_candidate(1, value=0.8, lr=0.002)]

    found = judge(candidates, {0: 0.9, 1: 0.8}, break_run=2, status=status)

    assert [row.trial for row in found.candidates] == [1]
    assert any("Left out: trial 0, which broke" in sentence for sentence in sentences(found))


def test_best_yaml_holds_the_confirmed_trial_where_the_winner_of_the_search_broke(searched, judge, dataset):
    found = judge([searched.records[0], searched.records[1]], {0: 0.9, 1: 0.8}, break_run=2)
    write_confirmed(searched.folder, found)

    record = write_best(searched, describe_data(dataset))

    assert record.number == found.chosen == load_best(searched.folder.best).trial == 1


def test_nothing_is_concluded_where_every_run_broke(judge):
    assert judge([make_candidate(0, value=0.9)], {0: 0.9}, seeds=1, break_run=0) is None


def test_eight_views_cost_eight_times_as_much():
    once, often = make_candidate(0, value=0.9), make_candidate(1, value=0.9)
    often.config["test_time"] = "symmetries"

    assert count_macs(often, image_size=16, n_classes=9) == 8 * count_macs(once, image_size=16, n_classes=9)


def test_the_finding_survives_its_file(judge, tmp_path):
    found = judge([make_candidate(0, value=0.9), make_candidate(1, value=0.8, lr=0.002)], {0: 0.9, 1: 0.8})
    folder = StudyFolder(tmp_path / "study")
    assert read_confirmed(folder) is None

    write_confirmed(folder, found)

    assert repr(read_confirmed(folder)) == repr(found)
    path = confirm_folder(folder).path / "confirmed.json"
    write_json(path, read_json(path) | {"format": 99})
    assert read_confirmed(folder) is None


@pytest.fixture
def searched(tmp_path, config):
    with Study(StudyFolder(tmp_path / "study"), config, classes=tuple("abcdefghi")) as study:
        drive(study, quality_of=lambda assignment, epoch: 0.9 - assignment.number / 10)
    return study


def test_the_table_fits_eighty_columns_and_shows_every_number(searched, judge):
    found = judge([searched.records[number] for number in (0, 1, 2)], {0: 0.6, 1: 0.95, 2: 0.5}, folds=2)
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, _environ={})

    console.print(confirmed_table(found, marks=["SYNTHETIC"]))

    text = console.file.getvalue()
    assert "SYNTHETIC" in text
    for row in found.candidates:
        assert f"{100 * row.mean:.2f}" in text and f"{100 * row.fold_value:.2f}" in text
        assert f"[{100 * row.low:.1f}, {100 * row.high:.1f}]" in text
    assert max(map(cell_len, text.splitlines())) <= 80


def test_best_yaml_holds_the_confirmed_configuration_with_its_numbers(searched, judge, dataset):
    data = describe_data(dataset)
    candidates = [searched.records[number] for number in (0, 1, 2)]
    found = judge(candidates, {0: 0.5, 1: 0.95, 2: 0.5})
    write_confirmed(searched.folder, found)

    record = write_best(searched, data)

    text = searched.folder.best.read_text("utf-8")
    assert searched.best.number == 0
    assert record.number == load_best(searched.folder.best).trial == found.chosen == 1
    assert all(f"# {line}" in text for line in sentences(found))
    assert all(describe_candidate(row, is_alone=found.is_alone) in text for row in found.candidates)


def test_a_trial_that_was_left_unfinished_can_be_confirmed_as_the_best(tmp_path, config, judge, dataset):
    folder, data = StudyFolder(tmp_path / "study"), describe_data(dataset)
    record_attempt(folder, config, data, space_text=SPACE, device="none")
    with Study(folder, config, classes=dataset.wafers.classes) as study:
        drive(study, quality_of=lambda assignment, epoch: 0.3 + 0.6 * assignment.number, max_steps=5)
    candidates = choose_candidates(list(study.records.values()), top=3)
    assert [(record.number, record.status) for record in candidates] == [(0, COMPLETE), (1, RUNNING)]
    found = judge(candidates, {0: 0.4, 1: 0.95})
    write_confirmed(folder, found)

    record = write_best(study, data)
    write_report(folder)

    assert record.number == load_best(folder.best).trial == 1
    assert "Trial 1 after 2 of 3 nominal epochs" in folder.best.read_text("utf-8")
    assert found.optimism == pytest.approx(study.records[0].value - np.mean(found.candidates[1].seed_values))
    assert any("left trial 1 unfinished, after epoch 2 higher" in sentence for sentence in sentences(found))
    page = folder.report.read_text("utf-8")
    assert "left trial 1 unfinished, after epoch 2 higher" in page
    assert "after epoch 2 of 3" in page


def test_a_search_that_has_found_something_better_since_is_not_confirmed_any_more(searched, judge, dataset):
    found = judge([searched.records[1]], {1: 0.9})  # the winner, trial 0, was not there yet
    write_confirmed(searched.folder, found)

    record = write_best(searched, describe_data(dataset))

    assert record.number == 0
    assert "search.confirm" in searched.folder.best.read_text("utf-8")


def test_a_confirmation_of_another_division_does_not_count(searched, judge, dataset):
    write_confirmed(searched.folder, judge([searched.records[0], searched.records[1]], {0: 0.5, 1: 0.9}))

    assert write_best(searched, describe_data(dataset) | {"split_fingerprint": "other"}).number == 0


def test_missing_predictions_are_named(judge, monkeypatch):
    monkeypatch.setattr("search.study.judging.read_logits", lambda folder, record: None)

    with pytest.raises(ConfigError, match="predictions of run 0 are missing or damaged"):
        judge([make_candidate(0, value=0.9)], {0: 0.9})
