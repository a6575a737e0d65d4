import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from data_pipeline.synthetic import make_wafers
from search.errors import ConfigError
from search.final.external_test import score_external
from search.final.model_file import save_model
from search.study.records import StudyFolder


@pytest.fixture
def wafers():
    return make_wafers(300, seed=5)


@pytest.fixture
def trained(make_trained):
    return make_trained()


@pytest.fixture
def score(tmp_path):
    study = StudyFolder(tmp_path / "study")

    def score_it(trained, wafers):
        save_model(trained, study.final / "model.pt")
        console = Console(file=io.StringIO(), width=160)
        assert score_external(study, trained, wafers, console, name="other") == 0
        [numbers] = study.final.glob("external-other.json")
        return json.loads(numbers.read_text("utf-8")), console.file.getvalue(), study

    return score_it


def test_all_labelled_wafers_are_scored_and_the_ledger_is_not_touched(score, trained, wafers):
    row, said, study = score(trained, wafers)

    assert np.sum(row["external_confusion"]) == 300
    assert "SYNTHETIC" in said
    assert not (study.final / "test.json").exists()
    assert len(list(study.final.glob("external-*"))) == 6  # numbers, predictions, four pictures
    assert sum(row["estimated_shares"].values()) == pytest.approx(1)


def test_wafers_that_the_model_has_seen_are_left_out(score, trained, wafers):
    seen = replace(trained, seen=np.sort(wafers.content[:100]))

    row, said, _ = score(seen, wafers)

    assert row["n_seen"] == np.isin(wafers.content, wafers.content[:100]).sum()
    assert np.sum(row["external_confusion"]) == 300 - row["n_seen"]
    assert f"{row['n_seen']} that the model has seen are left out" in said


def test_a_file_of_seen_wafers_only_is_refused(score, trained, wafers):
    with pytest.raises(ConfigError, match="nothing to score on: the model has seen all 300 labelled wafers"):
        score(replace(trained, seen=np.unique(wafers.content)), wafers)


def test_classes_are_matched_by_name(score, trained, wafers):
    order = [8, 7, 6, 5, 4, 3, 2, 1, 0]
    shuffled = replace(wafers, classes=tuple(wafers.classes[k] for k in order), labels=8 - wafers.labels)

    assert score(trained, shuffled)[0]["external_confusion"] == score(trained, wafers)[0]["external_confusion"]


def test_a_class_that_the_model_does_not_know_is_named(score, trained, wafers):
    renamed = replace(wafers, classes=("Centre", *wafers.classes[1:]))

    with pytest.raises(ConfigError, match="class 'Centre' is unknown to the model; did you mean 'Center'"):
        score(trained, renamed)


def test_unlabelled_wafers_and_missing_classes_are_said(score, trained, wafers):
    labels = np.where(wafers.labels == 0, -1, wafers.labels)

    row, said, _ = score(trained, replace(wafers, labels=labels))

    n = int((wafers.labels == 0).sum())
    assert row["n_unlabelled"] == n
    assert f"{n} of them unlabelled" in said
    assert f"no wafer of {wafers.classes[0]}: not in any mean" in said
