"""The best trained again: a real process on real Ray, killed halfway; the same command goes on, and more seeds add."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from search.space.config_file import load_study_config
from search.study.best import load_best
from search.study.confirmed import read_confirmed, sentences
from search.study.data import open_data
from search.study.provenance import describe_data, record_attempt
from search.study.records import StudyFolder, confirm_folder, read_lines
from search.study.study import Study
from search.study.winner import read_winner
from search.testing import drive

pytestmark = pytest.mark.slow
PATIENCE_S = 400  # of waiting for what comes within a minute on a free machine
SPACE = """
name: tiny
data: {wafers: synthetic, synthetic_wafers: 800, image_size: 16, epoch_samples: 600}
space:
  epochs: [4, 6]
  model: {choose: {wafer_cnn: {width: [4, 6], lr: {low: 1e-3, high: 1e-2, log: true}}}}
search: {trials: 4, stop: none, sampler: random}
"""


@pytest.fixture
def study(tmp_path):
    """A study whose trials were made up; only its best are really trained."""
    (tmp_path / "tiny.yaml").write_text(SPACE, "utf-8")
    config = load_study_config(tmp_path / "tiny.yaml")
    dataset = open_data(config.data, results=tmp_path / "results")
    folder = StudyFolder(tmp_path / "results" / "tiny")
    with Study(folder, config, classes=dataset.wafers.classes) as study:
        drive(study, quality_of=lambda assignment, epoch: 0.9 - assignment.number / 20)
        record_attempt(folder, config, describe_data(dataset), space_text=SPACE, device="none")
    return folder


def start(study, *arguments):
    command = [sys.executable, "-m", "search.confirm", "tiny", "--no-dashboard", *arguments]
    # A background job of a shell ignores SIGINT, and hands that on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (study.path.parent.parent / "log").open("a") as log:
            return subprocess.Popen(
                command, cwd=study.path.parent.parent, stdout=log, stderr=log, start_new_session=True
            )
    finally:
        signal.signal(signal.SIGINT, before)


def finish(study, *arguments):
    process = start(study, *arguments)
    assert process.wait(timeout=PATIENCE_S) == 0, (study.path.parent.parent / "log").read_text()
    return (study.path.parent.parent / "log").read_text()


def ends_of(study):
    """How often a run of each configuration and seed came to its end."""
    rows = list(read_lines(confirm_folder(study).trials))
    return Counter(json.dumps(row["config"], sort_keys=True) for row in rows if row["status"] == "complete")


def test_a_killed_confirmation_goes_on_and_can_be_extended(study):
    process, end = start(study, "--top", "2", "--seeds", "2", "--folds", "2"), time.monotonic() + PATIENCE_S
    while len(list(read_lines(confirm_folder(study).trials))) < 8:
        assert process.poll() is None and time.monotonic() < end, (study.path.parent.parent / "log").read_text()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert read_confirmed(study) is None

    said = finish(study, "--top", "2", "--seeds", "2", "--folds", "2")

    found = read_confirmed(study)
    assert len(ends_of(study)) == 8
    assert set(ends_of(study).values()) == {1}
    assert (found.decided_by, found.n_seeds, found.n_folds) == ("folds", 2, 2)
    assert load_best(study.best).trial == found.chosen
    assert all(sentence in said for sentence in sentences(found))
    assert "going on" in said or "have begun before" in said
    assert study.report.is_file()
    assert found.chosen == 0 or read_winner(study).trial == found.chosen  # trial 0 has won the search

    finish(study, "--top", "1", "--seeds", "3")  # one more seed for both; nothing of what is there is left out

    more = read_confirmed(study)
    assert len(ends_of(study)) == 10
    assert set(ends_of(study).values()) == {1}
    assert (more.decided_by, more.n_seeds, more.n_folds) == ("folds", 3, 2)
    assert {row.trial: row.seed_values[:2] for row in more.candidates} == {
        row.trial: row.seed_values for row in found.candidates
    }


def test_ctrl_c_says_how_far_it_got(study):
    process, end = start(study, "--top", "2", "--seeds", "3"), time.monotonic() + PATIENCE_S
    while not list(read_lines(confirm_folder(study).trials)):
        assert process.poll() is None and time.monotonic() < end, (study.path.parent.parent / "log").read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)

    assert process.wait(timeout=PATIENCE_S) == 130
    assert "of 6 trainings are finished; the same command goes on from here" in (
        study.path.parent.parent / "log"
    ).read_text("utf-8")


def test_a_study_without_a_finished_trial_has_nothing_to_confirm(study, call):
    study.trials.write_text("", "utf-8")
    study.journal.unlink()

    ended = call("search.confirm", "tiny", cwd=study.path.parent.parent)

    assert ended.returncode == 2
    assert "no trial ran to its end, so there is nothing to confirm" in ended.stderr
