"""Opening a study again goes on with it, however the last attempt ended."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.errors import ConfigError, TrialFailed
from search.space.config import StudyConfig
from search.space.strict_yaml import dump_yaml
from search.study.records import StudyFolder
from search.study.rows import COMPLETE, FAILED, RUNNING, STOPPED
from search.study.study import JUDGED, Decision, Study
from search.testing import drive, fake_report, quality_by_lr

FIRST = "[{lr: 1e-4}, {lr: 3e-3}, {lr: 1e-3}, {lr: 1e-2}, {lr: 1e-1}, {lr: 3e-4}, {lr: 2e-2}, {lr: 2e-4}]"


def eventful(assignment, epoch):
    """Reject the fourth trial, and break the second one whenever it is tried under its own number."""
    events = {(3, 2): TrialFailed("diverged", "loss became nan"), (1, 2): RuntimeError("a bug")}
    if (assignment.number, epoch) in events:
        raise events[assignment.number, epoch]
    return quality_by_lr(assignment, epoch)


def announces_a_row(line):
    """Whether a line of the journal is one that a row of trials.jsonl was written before."""
    return '"intermediate_value"' in line or '"status":"failed"' in line or '"status":"infeasible"' in line


class Whole(NamedTuple):
    """A study from beginning to end; named in one word, or Hypothesis shows 30 kB of it with every failure."""

    config: StudyConfig
    study: Study
    journal: list[str]
    rows: list[str]

    def __repr__(self):
        return "a whole study"


@pytest.fixture(scope="module")
def whole(new_folder, make_config, open_study):
    """The files of an eventful study that nobody interrupted, and what it knew."""
    folder, config = new_folder(), make_config(trials=6, factor=2, first=FIRST)
    with open_study(folder, config) as study:
        drive(study, quality_of=eventful)
    journal = folder.journal.read_text("utf-8").splitlines(keepends=True)
    rows = folder.trials.read_text("utf-8").splitlines(keepends=True)
    return Whole(config, study, journal, rows)


def lay_out(folder, *, journal, rows):
    folder.path.mkdir(parents=True)
    folder.journal.write_text(journal, "utf-8")
    folder.trials.write_text(rows, "utf-8")


@settings(max_examples=50)
@given(
    at=st.integers(0, 999),
    torn=st.integers(0, 99),
    row_written=st.sampled_from([0, 0.5, 1]),
    lost_epochs=st.integers(0, 2),
)
def test_a_crash_between_any_two_writes_is_healed(
    whole, new_folder, open_study, assert_consistent, at, torn, row_written, lost_epochs
):
    config, _, journal, rows = whole
    n = at % len(journal)
    n_rows = sum(map(announces_a_row, journal[:n]))
    next_row = "".join(rows[n_rows : n_rows + announces_a_row(journal[n])])
    folder = new_folder()
    lay_out(
        folder,
        journal="".join(journal[:n]) + journal[n][: torn * len(journal[n]) // 100],
        rows="".join(rows[:n_rows]) + next_row[: int(row_written * len(next_row))],
    )

    with open_study(folder, config) as study:
        drive(study, quality_of=eventful, lost_epochs=lost_epochs)

    assert study.is_judged
    assert study.count(*JUDGED) == 6
    assert study.count(RUNNING) == 0
    assert_consistent(folder, study)
    firsts = {r.origin["first"]: r.config["lr"] for r in study.records.values() if "first" in r.origin}
    assert firsts == dict(enumerate([1e-4, 3e-3, 1e-3, 1e-2, 1e-1, 3e-4]))
    retried = [record.origin["retry_of"] for record in study.records.values() if "retry_of" in record.origin]
    assert retried == [number for number, record in study.records.items() if record.status == FAILED] == [1]
    assert len(study.records) == 7


@settings(max_examples=20)
@given(stops=st.lists(st.integers(1, 9), max_size=4), lost_epochs=st.integers(0, 2), slots=st.integers(1, 4))
@example(stops=[1] * 40, lost_epochs=0, slots=2)
@example(stops=[0, 0, 1, 0], lost_epochs=0, slots=2)
def test_a_study_may_be_left_at_any_point_and_as_often_as_one_likes(
    new_folder, make_config, open_study, assert_consistent, stops, lost_epochs, slots
):
    folder, config = new_folder(), make_config(trials=6, factor=2)
    for max_steps in [*stops, None]:
        with open_study(folder, config) as study:
            drive(study, quality_of=eventful, slots=slots, max_steps=max_steps, lost_epochs=lost_epochs)

    assert study.count(*JUDGED) == 6
    assert study.count(RUNNING) == 0
    assert_consistent(folder, study)


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


def test_what_is_known_after_opening_again_is_what_was_known_before(folder, make_config, open_study):
    config = make_config(trials=8, factor=2)
    with open_study(folder, config) as before:
        drive(before, quality_of=eventful, max_steps=17)

    with open_study(folder, config) as after:
        pass

    assert after.records.keys() == before.records.keys()
    for number, record in before.records.items():
        again = after.records[number]
        assert (again.config, again.epochs, again.values) == (record.config, record.epochs, record.values)
        assert (again.status, again.reason) == (record.status, record.reason)
        assert again.scores == record.scores
        assert again.reports == record.reports


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


def test_a_trial_that_was_asked_for_but_not_yet_described_goes_on_too(whole, folder, open_study):
    config, _, journal, _ = whole
    asked = next(n for n, line in enumerate(journal) if '"config"' in line)
    lay_out(folder, journal="".join(journal[:asked]), rows="")

    with open_study(folder, config) as study:
        paused, first = study.paused, study.ask()

    assert paused == []
    assert (first.number, first.config["lr"]) == (0, 1e-4)


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


@pytest.mark.parametrize("n_lines", range(7))
def test_an_end_that_was_begun_is_finished_and_never_half_forgotten(
    folder, make_config, open_study, assert_consistent, n_lines
):
    """A rejected trial whose end was cut off may not go on with half of it, as it may work the next time."""
    config = make_config(trials=2, constraints="[macro_f1 >= 0.1]")
    with open_study(folder, config) as study:
        number = study.ask().number
        study.report(number, fake_report(1, quality=0.5, n_classes=3))
        before = len(folder.journal.read_text("utf-8").splitlines())
        study.reject(number, "out of memory")
    lines = folder.journal.read_text("utf-8").splitlines(keepends=True)
    assert len(lines) == before + 7  # status, reason, F1, shortfalls, floor, works, and the state with the last value
    folder.journal.write_text("".join(lines[: before + n_lines]), "utf-8")

    with open_study(folder, config) as again:
        drive(again, quality_of=quality_by_lr)

    assert again.count(*JUDGED) == 2
    assert_consistent(folder, again)


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


# What a crash leaves, one kind at a time.


def test_a_row_that_the_journal_does_not_know_is_dropped(folder, make_config, open_study, rows_of, assert_consistent):
    with open_study(folder, make_config()) as before:
        drive(before, quality_of=quality_by_lr, slots=1, max_steps=2)
    row = folder.trials.read_text("utf-8").splitlines()[-1]
    with folder.trials.open("a", encoding="utf-8") as file:
        file.write(row.replace('"epoch": 2', '"epoch": 3') + "\n")

    with open_study(folder, make_config()) as after:
        assert len(rows_of(folder)) == 2
        drive(after, quality_of=quality_by_lr)

    assert after.count(COMPLETE) == 6
    assert_consistent(folder, after)


@pytest.mark.parametrize("status", [COMPLETE, STOPPED])
def test_a_trial_that_ended_but_was_not_told_is_told(whole, folder, open_study, journal_of, status):
    config, reference, journal, rows = whole
    told = next(n for n, line in enumerate(journal) if f'"status":"{status}"' in line)
    lay_out(folder, journal="".join(journal[:told]), rows="".join(rows[: sum(map(announces_a_row, journal[:told]))]))

    with open_study(folder, config) as study:
        [number] = [record.number for record in study.records.values() if record.status == status]

    trial = journal_of(folder).trials[number]
    assert trial.state is {COMPLETE: TrialState.COMPLETE, STOPPED: TrialState.PRUNED}[status]
    assert trial.user_attrs["status"] == status
    assert trial.value == reference.records[number].value


@pytest.mark.parametrize("name", ["study.journal", "trials.jsonl"])
@pytest.mark.parametrize("torn", [b'{"op_code":7,"wor', b'{"trial": 3, "epoch": 2, "sta', b"\x00\x00\x00", b"\xc3"])
def test_a_torn_last_line_is_cut(folder, make_config, open_study, assert_consistent, name, torn):
    with open_study(folder, make_config()) as before:
        drive(before, quality_of=quality_by_lr, max_steps=9)
    with (folder.path / name).open("ab") as file:
        file.write(torn)

    with open_study(folder, make_config()) as after:
        assert not (folder.path / name).read_bytes().endswith(torn)
        drive(after, quality_of=quality_by_lr)

    assert after.count(COMPLETE) == 6
    assert_consistent(folder, after)


def test_a_stale_lock_of_optuna_does_not_block(folder, make_config, open_study):
    with open_study(folder, make_config()) as study:
        drive(study, quality_of=quality_by_lr, max_steps=3)
    Path(f"{folder.journal}.lock").symlink_to(folder.journal)
    start = time.monotonic()

    with open_study(folder, make_config()) as study:
        drive(study, quality_of=quality_by_lr)

    assert study.is_judged
    assert time.monotonic() - start < 10  # Optuna itself waits for half a minute


def test_a_journal_with_a_relative_path_does_not_spin(tmp_path, monkeypatch, make_config, open_study):
    monkeypatch.chdir(tmp_path)
    folder = StudyFolder(Path("results") / "a-study")

    for _ in range(2):
        with open_study(folder, make_config(trials=2)) as study:
            drive(study, quality_of=quality_by_lr, max_steps=5)

    assert study.count(COMPLETE) == 2


# More than a crash can explain.


@pytest.fixture
def interrupted(folder, make_config, open_study):
    with open_study(folder, make_config()) as study:
        drive(study, quality_of=quality_by_lr, max_steps=9)
    return folder


@pytest.mark.parametrize("lost", ["journal", "trials"])
def test_a_lost_file_is_not_taken_for_a_new_study(interrupted, make_config, open_study, lost):
    path = getattr(interrupted, lost)
    kept = path.rename(path.with_suffix(".kept"))
    others = {other: other.read_bytes() for other in (interrupted.journal, interrupted.trials) if other.exists()}

    with pytest.raises(ConfigError, match=r"disagree on trial 0, more than a crash can explain; restore both from one"):
        open_study(interrupted, make_config())

    assert all(other.read_bytes() == content for other, content in others.items())
    kept.replace(path)
    with open_study(interrupted, make_config()) as study:
        assert len(study.records) == 4


@pytest.mark.parametrize("n_lost", [1, 2, 3])
def test_a_disk_that_lost_the_last_line_costs_one_trial_and_one_that_lost_more_is_refused(
    folder, make_config, open_study, n_lost
):
    with open_study(folder, make_config(trials=6)) as study:
        drive(study, quality_of=quality_by_lr)
    lines = folder.trials.read_text("utf-8").splitlines(keepends=True)
    folder.trials.write_text("".join(lines[:-n_lost]), "utf-8")
    if n_lost > 1:
        with pytest.raises(ConfigError, match="more than a crash can explain"):
            open_study(folder, make_config(trials=6))
        return
    [last] = {
        number
        for number, record in study.records.items()
        if folder.trials.read_text().count(f'"trial": {number},') < len(record.reports)
    }

    with open_study(folder, make_config(trials=6)) as again:
        drive(again, quality_of=quality_by_lr)

    assert again.records[last].status == FAILED
    assert again.records[last].reason == "its last report was lost from trials.jsonl"
    [retry] = [record for record in again.records.values() if record.origin.get("retry_of") == last]
    assert retry.values == study.records[last].values
    with open_study(folder, make_config(trials=6)) as third:
        assert third.is_judged
        assert {n: r.status for n, r in third.records.items()} == {n: r.status for n, r in again.records.items()}
    rows = [json.loads(line) for line in folder.trials.read_text("utf-8").splitlines()]
    assert [row["status"] for row in rows if row["trial"] == last][-1] == "failed"
    assert sum(row["status"] == "failed" for row in rows) == 1


@pytest.mark.parametrize("n_steps", [1, 2])
def test_a_disk_that_lost_the_last_line_of_a_running_trial_costs_nothing(folder, make_config, open_study, n_steps):
    with open_study(folder, make_config(trials=4, factor=None)) as study:
        drive(study, quality_of=quality_by_lr, max_steps=n_steps, slots=1)
    whole = folder.trials.read_text("utf-8").splitlines(keepends=True)
    assert '"status": "running"' in whole[-1]
    folder.trials.write_text("".join(whole[:-1]), "utf-8")

    with open_study(folder, make_config(trials=4, factor=None)) as again:
        drive(again, quality_of=quality_by_lr)

    assert again.is_judged
    assert again.count(FAILED) == 0


def test_a_lost_row_is_noticed(interrupted, make_config, open_study):
    _, *others = interrupted.trials.read_text("utf-8").splitlines(keepends=True)
    interrupted.trials.write_text("".join(others), "utf-8")

    with pytest.raises(ConfigError, match=r"study\.journal and trials\.jsonl disagree on trial 0"):
        open_study(interrupted, make_config())


@pytest.mark.parametrize("garbage", ["garbage\n", "\n"])
def test_a_damaged_row_is_named(interrupted, make_config, open_study, garbage):
    content = interrupted.trials.read_text("utf-8")
    interrupted.trials.write_text(garbage + content, "utf-8")

    with pytest.raises(ConfigError, match=r"trials\.jsonl:1: is damaged \(.*\); mend or remove the line"):
        open_study(interrupted, make_config())


def test_a_damaged_journal_is_named(interrupted, make_config, open_study):
    content = interrupted.journal.read_text("utf-8")
    interrupted.journal.write_text("garbage\n" + content, "utf-8")

    with pytest.raises(
        ConfigError, match=r"study\.journal: is damaged \(.*\); restore it, or use --study NAME for a new"
    ):
        open_study(interrupted, make_config())


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


def test_a_study_that_was_closed_is_free(folder, make_config, open_study):
    open_study(folder, make_config()).close()

    open_study(folder, make_config()).close()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, make_config, open_study):
    (tmp_path / "results").touch()

    with pytest.raises(ConfigError, match=r"results/a-study: cannot be written \(Not a directory\)"):
        open_study(StudyFolder(tmp_path / "results" / "a-study"), make_config())


# Time. The clock of these studies is moved by hand.


@pytest.fixture
def ten_seconds_an_epoch(clock):
    def quality_of(assignment, epoch):
        clock.now += 10
        return quality_by_lr(assignment, epoch)

    return quality_of


def test_when_the_time_is_up_running_trials_pause_once_one_is_complete(
    folder, make_config, open_study, clock, ten_seconds_an_epoch
):
    with open_study(folder, make_config(time="95"), clock=clock) as study:
        drive(study, quality_of=ten_seconds_an_epoch, slots=2)

    assert study.is_out_of_time
    assert study.is_over
    assert not study.is_judged
    assert study.count(COMPLETE) == 2
    assert [len(record.reports) for record in study.paused] == [1, 2]
    assert study.running == []


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_one_trial_may_always_finish(folder, make_config, open_study, clock, ten_seconds_an_epoch, slots):
    with open_study(folder, make_config(time="5"), clock=clock) as study:
        drive(study, quality_of=ten_seconds_an_epoch, slots=slots)

    assert study.count(COMPLETE) == 1
    assert study.count(RUNNING) == len(study.paused) == slots - 1
    assert study.best is not None


def test_the_trial_nearest_to_its_end_is_the_one_that_finishes(
    folder, make_config, open_study, clock, ten_seconds_an_epoch
):
    config = make_config(time="5", epochs="[3, 6]", first="[{epochs: 6}, {epochs: 3}]")

    with open_study(folder, config, clock=clock) as study:
        drive(study, quality_of=ten_seconds_an_epoch, slots=2)

    assert [record.number for record in study.paused] == [0]
    assert study.records[1].status == COMPLETE


def test_more_time_goes_on_where_the_time_was_up(
    folder, make_config, open_study, clock, ten_seconds_an_epoch, assert_consistent
):
    with open_study(folder, make_config(time="95"), clock=clock) as before:
        drive(before, quality_of=ten_seconds_an_epoch, slots=2)
    clock.now = 1_000_000

    with open_study(folder, make_config(time="10000"), clock=clock) as after:
        going_on = [record.number for record in after.paused]
        drive(after, quality_of=ten_seconds_an_epoch, slots=2)

    assert going_on == [2, 3]
    assert after.count(COMPLETE) == 6
    assert after.elapsed == pytest.approx(6 * 4 * 10)
    assert_consistent(folder, after)


def test_without_more_time_nothing_starts(folder, make_config, open_study, clock, ten_seconds_an_epoch):
    config = make_config(time="95")
    with open_study(folder, config, clock=clock) as before:
        drive(before, quality_of=ten_seconds_an_epoch)

    with open_study(folder, config, clock=clock) as after:
        assert after.elapsed == pytest.approx(before.elapsed, abs=10)
        assert after.is_over
        assert after.ask() is None


def test_time_counts_over_all_attempts(folder, make_config, open_study, clock, ten_seconds_an_epoch):
    for _ in range(3):
        with open_study(folder, make_config(), clock=clock) as study:
            drive(study, quality_of=ten_seconds_an_epoch, max_steps=2)

    assert study.elapsed == pytest.approx(60)


def test_time_between_attempts_does_not_count(folder, make_config, open_study, clock, ten_seconds_an_epoch):
    with open_study(folder, make_config(), clock=clock) as study:
        drive(study, quality_of=ten_seconds_an_epoch, max_steps=2)
    clock.now += 5000

    with open_study(folder, make_config(), clock=clock) as study:
        assert study.elapsed == pytest.approx(20)


def test_without_a_limit_the_time_is_never_up(folder, make_config, open_study, clock, ten_seconds_an_epoch):
    clock.now = 1e9

    with open_study(folder, make_config(), clock=clock) as study:
        drive(study, quality_of=ten_seconds_an_epoch)

    assert study.is_judged
    assert not study.is_out_of_time


def test_a_paused_trial_whose_process_dies_stays_paused(folder, make_config, open_study, clock):
    config = make_config(time="5", trials=3)
    with open_study(folder, config, clock=clock) as study:
        near, far = study.ask().number, study.ask().number
        study.report(near, fake_report(1, quality=0.5, n_classes=3))
        clock.now += 10
        decision = study.report(far, fake_report(1, quality=0.5, n_classes=3))
        study.fail(far, "its process died")

    assert decision is Decision.PAUSED
    assert study.count(FAILED) == 0
    assert [record.number for record in study.paused] == [far]


# Real processes, really killed.

DRIVER = """
import sys, time
from pathlib import Path
from search.space.config_file import load_study_config
from search.study.records import StudyFolder
from search.study.study import Study
from search.testing import drive, quality_by_lr

def slowly(assignment, epoch):
    time.sleep(0.01)
    return quality_by_lr(assignment, epoch)

config = load_study_config(Path(sys.argv[1]))
with Study(StudyFolder(Path(sys.argv[2])), config, classes=("Center", "Edge-Ring", "none")) as study:
    drive(study, quality_of=slowly)
"""


def start_driver(folder, config, write_yaml, n_rows):
    """Start a process that works on a study; return it when there are some rows."""
    space = write_yaml(dump_yaml(config.to_tree()))
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(space), str(folder.path)])
    deadline = time.monotonic() + 120
    while not folder.trials.exists() or folder.trials.read_bytes().count(b"\n") < n_rows:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [1, 7, 20])
def test_a_process_that_is_killed_loses_nothing(folder, make_config, write_yaml, open_study, assert_consistent, n_rows):
    config = make_config(trials=40, factor=2)
    process = start_driver(folder, config, write_yaml, n_rows)
    process.kill()
    process.wait()
    before = folder.trials.read_text("utf-8").splitlines()

    with open_study(folder, config) as study:
        n_known = sum(len(record.reports) for record in study.records.values())
        drive(study, quality_of=quality_by_lr)

    assert process.returncode == -9
    assert len(before) - 1 <= n_known <= len(before)
    assert study.count(*JUDGED) == 40
    assert study.count(RUNNING) == 0
    assert_consistent(folder, study)


@pytest.mark.slow
def test_another_process_that_works_on_a_study_is_named(folder, make_config, write_yaml, open_study):
    config = make_config(trials=1000)
    process = start_driver(folder, config, write_yaml, 2)

    with pytest.raises(ConfigError, match=rf"a-study: process {process.pid} on .* is working on this study; wait, or"):
        open_study(folder, config)

    process.kill()
    process.wait()
    open_study(folder, config).close()
