"""Opening a study again goes on with it."""

import os
import re
import shutil
import socket

import pytest
from optuna.trial import TrialState

from search.errors import ConfigError
from search.study.records import StudyFolder
from search.study.rows import COMPLETE, STOPPED
from search.testing import drive, quality_by_lr

FIRST = "[{lr: 1e-4}, {lr: 3e-3}, {lr: 1e-3}, {lr: 1e-2}, {lr: 1e-1}, {lr: 3e-4}, {lr: 2e-2}, {lr: 2e-4}]"


def test_the_verdicts_do_not_depend_on_interruptions(new_folder, make_config, open_study):
    config, ends = make_config(trials=8, factor=2, first=FIRST), []
    for max_steps in (1, None):
        folder, n_steps = new_folder(), 1
        while n_steps:
            with open_study(folder, config) as study:
                n_steps = drive(study, quality_of=quality_by_lr, slots=1, max_steps=max_steps)
        ends.append([(record.status, record.values) for record in study.records.values()])

    assert ends[0] == ends[1]
    assert {status for status, _ in ends[0]} == {COMPLETE, STOPPED}


def test_interrupted_trials_go_on_first_and_under_their_numbers(folder, make_config, open_study):
    with open_study(folder, make_config()) as before:
        drive(before, quality_of=quality_by_lr, slots=3, max_steps=5)

    with open_study(folder, make_config()) as after:
        n_paused = len(after.paused)
        assignments = [after.ask() for _ in range(4)]

    assert n_paused == 3
    assert [each.number for each in assignments] == [0, 1, 2, 3]
    assert [each.epochs_done for each in assignments] == [2, 2, 1, 0]
    assert [each.config for each in assignments[:3]] == [record.config for record in before.records.values()]
    assert after.paused == []


def test_the_sampler_does_not_start_again_from_its_seed(folder, make_config, open_study):
    for sampler in ("random", "tpe", "random", "tpe"):
        with open_study(folder, make_config(trials=50, sampler=sampler)) as study:
            drive(study, quality_of=quality_by_lr, slots=1, max_steps=13)

    rates = [record.config["lr"] for record in study.records.values()]
    assert len(set(rates)) == len(rates) >= 12


def test_more_trials_extend_a_study(folder, make_config, open_study, assert_consistent):
    with open_study(folder, make_config(trials=3)) as before:
        drive(before, quality_of=quality_by_lr)

    with open_study(folder, make_config(trials=7)) as after:
        drive(after, quality_of=quality_by_lr)

    assert before.is_over
    assert after.count(COMPLETE) == 7
    assert [after.records[n].values for n in range(3)] == [before.records[n].values for n in range(3)]
    assert_consistent(folder, after)


def test_fewer_trials_end_a_study_and_leave_the_interrupted_ones_paused(folder, make_config, open_study):
    with open_study(folder, make_config(trials=6)) as before:
        drive(before, quality_of=quality_by_lr, slots=2, max_steps=10)

    with open_study(folder, make_config(trials=2)) as after:
        assert before.count(COMPLETE) == 2
        assert after.is_over
        assert after.ask() is None
        assert len(after.paused) == 2


def test_interrupted_trials_do_not_exceed_the_number_of_trials(folder, make_config, open_study):
    with open_study(folder, make_config(trials=6)) as before:
        drive(before, quality_of=quality_by_lr, slots=3, max_steps=3)

    with open_study(folder, make_config(trials=2)) as after:
        assignments = [after.ask() for _ in range(3)]

    assert [assignment and assignment.number for assignment in assignments] == [0, 1, None]


def test_first_points_are_not_queued_again(folder, make_config, open_study, journal_of):
    for max_steps in (2, 2, 9, None):
        with open_study(folder, make_config(trials=10, first=FIRST)) as study:
            drive(study, quality_of=quality_by_lr, max_steps=max_steps)

    points = [trial.user_attrs.get("first") for trial in journal_of(folder).trials]
    assert points == [*range(8), None, None]


def test_a_retry_is_not_lost_with_the_process_that_should_have_made_it(folder, make_config, open_study, journal_of):
    with open_study(folder, make_config(trials=2)) as study:
        broken = study.ask()
        study.fail(broken.number, "a bug")

    for _ in range(2):
        with open_study(folder, make_config(trials=2)) as study:
            drive(study, quality_of=quality_by_lr, slots=1, max_steps=1)

    assert [trial.user_attrs.get("retry_of") for trial in journal_of(folder).trials] == [None, broken.number]
    assert study.records[1].config == broken.config


def test_nothing_waits_in_the_journal(folder, make_config, open_study, journal_of):
    with open_study(folder, make_config(trials=6, first=FIRST)) as study:
        study.fail(study.ask().number, "a bug")

    assert [trial.state for trial in journal_of(folder).trials] == [TrialState.FAIL]


def test_a_length_that_is_set_in_a_branch_is_known_after_a_crash(folder, load, open_study):
    config = load(
        "data: {image_size: 16}\n"
        "space: {model: {choose: {wafer_cnn: {epochs: [3, 4]}}}}\n"
        "search: {trials: 1, stop: null}\n"
    )
    with open_study(folder, config) as before:
        assignment = before.ask()

    with open_study(folder, config) as after:
        drive(after, quality_of=quality_by_epoch)

    assert after.records[0].epochs == assignment.params.epochs
    assert after.count(COMPLETE) == 1


def quality_by_epoch(assignment, epoch):
    return 0.1 * epoch


def test_a_renamed_folder_goes_on(folder, make_config, open_study, assert_consistent):
    with open_study(folder, make_config()) as before:
        drive(before, quality_of=quality_by_lr, max_steps=9)
    renamed = StudyFolder(folder.path.with_name("renamed"))
    folder.path.rename(renamed.path)

    with open_study(renamed, make_config()) as after:
        n_before = len(after.records)
        drive(after, quality_of=quality_by_lr)

    assert n_before == len(before.records)
    assert after.count(COMPLETE) == 6
    assert_consistent(renamed, after)


def test_a_copy_of_a_living_study_goes_on_by_itself(folder, new_folder, make_config, open_study, assert_consistent):
    copy = new_folder()
    with open_study(folder, make_config()) as original:
        drive(original, quality_of=quality_by_lr, max_steps=7)
        shutil.copytree(folder.path, copy.path)
        with open_study(copy, make_config()) as study:
            drive(study, quality_of=quality_by_lr)

    assert study.count(COMPLETE) == 6
    assert_consistent(copy, study)
    assert_consistent(folder, original)


# Two at once.


def test_a_study_that_is_being_worked_on_is_refused_with_the_name_of_who_does(folder, make_config, open_study):
    holder = re.escape(f"process {os.getpid()} on {socket.gethostname()}")
    with (
        open_study(folder, make_config()),
        pytest.raises(ConfigError, match=f"a-study: {holder} is working on this study; wait, or use --study NAME"),
    ):
        open_study(folder, make_config())


def test_the_refused_one_changes_nothing(folder, make_config, open_study):
    with open_study(folder, make_config()) as study:
        drive(study, quality_of=quality_by_lr, max_steps=5)
        before = {path: path.read_bytes() for path in folder.path.iterdir()}
        with pytest.raises(ConfigError, match="is working on this study"):
            open_study(folder, make_config())

        assert {path: path.read_bytes() for path in folder.path.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, make_config, open_study):
    (tmp_path / "results").touch()

    with pytest.raises(ConfigError, match=r"results/a-study: cannot be written \(Not a directory\)"):
        open_study(StudyFolder(tmp_path / "results" / "a-study"), make_config())
