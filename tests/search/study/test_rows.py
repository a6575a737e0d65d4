"""What a row of trials.jsonl says, and that everything can be read back from it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.study.records import to_line
from search.study.rows import (
    COMPLETE,
    FAILED,
    INFEASIBLE,
    RUNNING,
    STOPPED,
    TrialRecord,
    collect_rows,
    judgement_to_row,
    report_from_row,
    report_to_row,
    to_row,
)
from search.testing import fake_report
from search.trial.evaluation import Judgement
from search.trial.metrics import score_confusion

CONFIG = {"epochs": 4, "lr": 1e-4, "model": "wafer_cnn", "model.wafer_cnn.width": 8}
counts = st.integers(2, 6).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 50), min_size=k, max_size=k), min_size=k, max_size=k)
)


def make_record(n_reports, **more):
    record = TrialRecord(number=3, config=CONFIG, epochs=4, **more)
    for epoch in range(1, n_reports + 1):
        record.reports.append(fake_report(epoch, quality=0.9, n_classes=3))
        record.values.append(0.1 * epoch)
        record.shortfalls.append(0.5 / epoch)
    return record


def judge(confusion):
    rows = tuple(tuple(row) for row in confusion)
    return Judgement(loss=0.25, confusion=rows, scores=score_confusion(np.array(confusion)))


def through_json(row):
    return json.loads(to_line(row))


@given(epoch=st.integers(1, 99), quality=st.floats(0, 1), n_classes=st.integers(2, 9))
def test_a_report_is_read_back_from_its_row(epoch, quality, n_classes):
    report = fake_report(epoch, quality=quality, n_classes=n_classes)
    classes = tuple(f"class {k}" for k in range(n_classes))

    assert report_from_row(through_json(report_to_row(report, classes))) == report


def test_a_report_without_validation_is_read_back_too(classes):
    report = replace(fake_report(2, quality=0.9, n_classes=3), val=None)

    row = report_to_row(report, classes)

    assert not any(name.startswith("val_") for name in row.keys() - {"val_seconds"})
    assert report_from_row(through_json(row)) == report


def test_rows_from_before_memory_was_measured_are_read_too(classes):
    record = make_record(1)
    row = through_json(to_row(record, classes=classes, elapsed=1))
    del row["peak_memory"], row["expected_memory"]

    [found] = collect_rows([row]).values()

    assert found.expected_memory == 0
    assert found.reports == [replace(record.reports[0], peak_memory=0)]


def test_rows_from_before_there_were_floors_miss_none(classes):
    row = through_json(to_row(make_record(1), classes=classes, elapsed=1))
    del row["shortfall"]

    [found] = collect_rows([row]).values()

    assert found.shortfalls == [0.0]
    assert found.standing == (0.0, 0.1)


def test_expected_and_measured_memory_are_read_back(classes):
    record = make_record(1, expected_memory=2**29)

    [found] = collect_rows([through_json(to_row(record, classes=classes, elapsed=1))]).values()

    assert (found.expected_memory, found.reports[0].peak_memory) == (2**29, record.reports[0].peak_memory)


@given(confusion=counts.filter(lambda rows: sum(map(sum, rows)) > 0))
def test_every_judgement_is_json_and_its_scores_come_back(confusion):
    judgement = judge(confusion)
    report = replace(fake_report(1, quality=0.5, n_classes=2), val=judgement)
    classes = tuple(f"class {k}" for k in range(len(confusion)))

    again = report_from_row(through_json(report_to_row(report, classes)))

    assert again.val.confusion == judgement.confusion
    np.testing.assert_equal(again.val.scores.f1, judgement.scores.f1)


def test_a_class_without_wafers_has_null_scores(classes):
    row = judgement_to_row(judge([[5, 0, 1], [0, 0, 0], [2, 0, 3]]), classes, split="val")

    assert row["val_f1"]["Edge-Ring"] is None
    assert row["val_recall"]["Edge-Ring"] is None
    assert row["val_support"] == {"Center": 6, "Edge-Ring": 0, "none": 5}
    assert "NaN" not in to_line(row)


@pytest.mark.parametrize("split", ["val", "test"])
def test_every_score_is_named_after_its_split(classes, split):
    row = judgement_to_row(judge(np.eye(3, dtype=int).tolist()), classes, split=split)

    assert all(name.startswith(f"{split}_") for name in row)
    assert {f"{split}_macro_f1", f"{split}_balanced_macro_f1", f"{split}_f1", f"{split}_confusion"} <= row.keys()


@pytest.mark.parametrize("status", [RUNNING, COMPLETE, STOPPED])
def test_a_row_holds_the_last_report_its_objective_and_the_configuration(classes, status):
    row = to_row(make_record(2, status=status, reason="because"), classes=classes, elapsed=12.34567)

    assert (row["trial"], row["epoch"], row["epochs"], row["status"], row["reason"]) == (3, 2, 4, status, "because")
    assert (row["objective"], row["shortfall"]) == (0.2, 0.25)
    assert (row["elapsed"], row["config"]) == (12.346, CONFIG)
    assert row["val_macro_f1"] == make_record(2).scores.macro_f1


@pytest.mark.parametrize("status", [INFEASIBLE, FAILED])
@pytest.mark.parametrize("n_reports", [0, 2])
def test_the_row_of_an_end_without_a_report_repeats_none(classes, status, n_reports):
    row = to_row(make_record(n_reports, status=status, reason="nan"), classes=classes, elapsed=1)

    assert (row["epoch"], row["status"], row["reason"], row["config"]) == (n_reports, status, "nan", CONFIG)
    assert not {"objective", "shortfall"} & row.keys()


def test_rows_are_gathered_into_records(classes):
    record, written = make_record(0), []
    for epoch in (1, 2, 3):
        record.reports.append(fake_report(epoch, quality=0.9, n_classes=3))
        record.values.append(0.1 * epoch)
        record.shortfalls.append(0.5 / epoch)
        written.append(through_json(to_row(record, classes=classes, elapsed=epoch)))
    other = TrialRecord(number=7, config=CONFIG, epochs=4, status=FAILED, reason="a bug")
    written.insert(1, through_json(to_row(other, classes=classes, elapsed=1)))

    found = collect_rows(written)

    assert list(found) == [3, 7]
    assert (found[3].reports, found[3].values, found[3].epochs) == (record.reports, record.values, 4)
    assert (found[3].shortfalls, found[3].standing) == (record.shortfalls, record.standing)
    assert (found[3].status, found[3].value, found[3].scores) == (RUNNING, record.value, record.scores)
    assert (found[7].status, found[7].reason, found[7].reports) == (FAILED, "a bug", [])


def test_a_record_without_reports_has_no_value_and_no_scores():
    record = make_record(0)

    assert math.isnan(record.value)
    assert record.scores is None
    assert record.seconds == 0


def test_a_record_without_reports_stands_behind_all_others():
    worst = make_record(0)
    worst.values, worst.shortfalls = [0.0], [100.0]

    assert make_record(0).standing < worst.standing


def test_what_meets_the_floors_stands_above_what_does_not_and_then_the_objective_decides():
    records = [make_record(0) for _ in range(4)]
    for record, standing in zip(records, [(0.2, 0.9), (0.1, 0.5), (0.0, 0.3), (0.0, 0.4)], strict=True):
        record.shortfalls, record.values = [standing[0]], [standing[1]]

    assert sorted(records, key=lambda record: record.standing) == records


def test_the_seconds_of_a_record_are_those_of_its_epochs():
    assert make_record(3).seconds == 3 * (1.0 + 0.5)
