"""What a killed process leaves behind is healed when the study is opened again; more than that is refused."""

import json
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
from search.study.study import JUDGED, Study
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


def test_a_trial_that_was_asked_for_but_not_yet_described_goes_on_too(whole, folder, open_study):
    config, _, journal, _ = whole
    asked = next(n for n, line in enumerate(journal) if '"config"' in line)
    lay_out(folder, journal="".join(journal[:asked]), rows="")

    with open_study(folder, config) as study:
        paused, first = study.paused, study.ask()

    assert paused == []
    assert (first.number, first.config["lr"]) == (0, 1e-4)


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


@pytest.fixture
def losing(folder, make_config, open_study):
    """Run a study to its end, and let the disk lose the last lines of trials.jsonl; return it, closed."""

    def lose(n_lines):
        with open_study(folder, make_config(trials=6)) as study:
            drive(study, quality_of=quality_by_lr)
        lines = folder.trials.read_text("utf-8").splitlines(keepends=True)
        folder.trials.write_text("".join(lines[:-n_lines]), "utf-8")
        return study, json.loads(lines[-1])["trial"]

    return lose


def test_a_disk_that_lost_the_last_line_costs_one_trial(losing, folder, make_config, open_study, rows_of):
    study, last = losing(1)

    with open_study(folder, make_config(trials=6)) as again:
        drive(again, quality_of=quality_by_lr)

    assert again.records[last].status == FAILED
    assert again.records[last].reason == "its last report was lost from trials.jsonl"
    [retry] = [record for record in again.records.values() if record.origin.get("retry_of") == last]
    assert retry.values == study.records[last].values
    with open_study(folder, make_config(trials=6)) as third:
        assert third.is_judged
        assert {n: r.status for n, r in third.records.items()} == {n: r.status for n, r in again.records.items()}
    assert [row["trial"] for row in rows_of(folder) if row["status"] == FAILED] == [last]
    assert [row["status"] for row in rows_of(folder) if row["trial"] == last][-1] == FAILED


@pytest.mark.parametrize("n_lost", [2, 3])
def test_a_disk_that_lost_more_than_the_last_line_is_refused(losing, folder, make_config, open_study, n_lost):
    losing(n_lost)

    with pytest.raises(ConfigError, match="more than a crash can explain"):
        open_study(folder, make_config(trials=6))


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
@pytest.mark.parametrize("n_rows", [1, 20])
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
