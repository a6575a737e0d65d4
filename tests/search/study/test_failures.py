"""What breaks, what does not work, and when a study gives up."""

from collections import Counter

import pytest
from optuna.trial import TrialState

from search.errors import ConfigError, StudyAborted, TrialFailed
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING
from search.study.study import Decision
from search.testing import drive, fake_report, quality_by_lr


def rejecting(*numbers):
    def quality_of(assignment, epoch):
        raise_if(assignment.number in numbers, TrialFailed("diverged", "loss became nan in epoch 1 (step 3)"))
        return quality_by_lr(assignment, epoch)

    return quality_of


def breaking(*numbers, epoch=1):
    """Break the first attempts at these trials, in this epoch."""

    def quality_of(assignment, now):
        raise_if(assignment.number in numbers and now == epoch, RuntimeError("a bug"))
        return quality_by_lr(assignment, now)

    return quality_of


def raise_if(condition, error):
    if condition:
        raise error


def test_a_configuration_that_does_not_work_is_infeasible_counts_and_is_never_the_best(run, folder, journal_of):
    study = run(trials=2, quality_of=rejecting(0, 1))

    assert study.is_judged
    assert study.count(INFEASIBLE) == 2
    assert study.best is None
    for trial in journal_of(folder).trials:
        assert trial.state is TrialState.PRUNED
        assert trial.constraints == {"works": 10.0}
        assert trial.user_attrs["reason"] == "loss became nan in epoch 1 (step 3)"


def test_a_broken_trial_is_tried_once_more_and_does_not_count(run, folder, journal_of):
    study = run(trials=3, slots=1, quality_of=breaking(0))

    assert (study.count(FAILED), study.count(COMPLETE)) == (1, 3)
    first, retry, *_ = journal_of(folder).trials
    assert first.state is TrialState.FAIL
    assert retry.params == first.params
    assert retry.user_attrs["retry_of"] == 0
    assert "RuntimeError: a bug" in folder.failure(0).read_text("utf-8")


def test_only_rejected_trials_are_infeasible(run, folder, journal_of):
    run(trials=8, factor=2, quality_of=rejecting(3))

    infeasible = [trial.number for trial in journal_of(folder).trials if trial.constraints]
    assert infeasible == [3]


def test_a_retry_that_fails_too_is_not_retried(run, folder, journal_of):
    def quality_of(assignment, epoch):
        raise_if(assignment.config == doomed.setdefault("config", assignment.config), RuntimeError("a bug"))
        return 0.5

    doomed = {}

    study = run(trials=3, quality_of=quality_of)

    assert (study.count(FAILED), study.count(COMPLETE)) == (2, 3)
    assert Counter("retry_of" in trial.user_attrs for trial in journal_of(folder).trials) == {False: 4, True: 1}


def test_a_failure_that_is_told_twice_counts_once(folder, make_config, open_study):
    with open_study(folder, make_config(trials=2)) as study:
        number = study.ask().number
        study.fail(number, "a bug")
        study.fail(number, "its process died")

    assert study.records[number].reason == "a bug"
    assert study.count(FAILED) == 1


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_if_every_trial_breaks_the_study_gives_up(run, slots, epoch):
    study = run(trials=50, slots=slots, quality_of=breaking(*range(200), epoch=epoch))

    assert study.is_over
    assert not study.is_judged
    assert 3 <= study.count(FAILED) <= 2 + slots  # the others may break before they hear of it
    assert isinstance(study.failure, StudyAborted)
    assert str(study.failure) == "3 trials failed in a row; the last: RuntimeError: a bug"


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_as_many_failures_in_a_row_as_the_space_file_says_end_a_study(run, failures):
    study = run(trials=50, slots=1, failures=failures, quality_of=breaking(*range(200)))

    assert study.count(FAILED) == len(study.records) == failures
    assert str(study.failure) == f"{failures} trials failed in a row; the last: RuntimeError: a bug"


def test_one_failure_fewer_does_not_end_a_study(run):
    study = run(trials=6, slots=1, failures=4, quality_of=breaking(0, 1, 2, 4, 5, 6))

    assert study.failure is None
    assert (study.count(FAILED), study.count(COMPLETE)) == (6, 6)


def test_failures_with_progress_between_them_do_not_end_a_study(run):
    study = run(trials=6, slots=1, quality_of=breaking(0, 2, 4, 6, 8))

    assert study.failure is None
    assert study.count(COMPLETE) == 6


def test_a_slot_that_always_breaks_does_not_end_what_the_others_do(folder, make_config, open_study):
    with open_study(folder, make_config(trials=3)) as study:
        good = study.ask()
        for epoch in (1, 2, 3):
            bad = study.ask()
            study.report(bad.number, fake_report(1, quality=0.5, n_classes=3))
            study.fail(bad.number, "a bug")
            study.report(good.number, fake_report(epoch, quality=0.5, n_classes=3))
        decision = study.report(good.number, fake_report(4, quality=0.5, n_classes=3))

    assert study.failure is None
    assert decision is Decision.FINISHED


def test_a_study_that_gave_up_goes_on_when_the_fault_is_mended(run, folder, make_config, open_study, journal_of):
    run(trials=3, quality_of=breaking(*range(200)))

    with open_study(folder, make_config(trials=3)) as again:
        drive(again, quality_of=quality_by_lr)

    assert again.count(COMPLETE) == 3
    assert {trial.state for trial in journal_of(folder).trials} == {TrialState.COMPLETE, TrialState.FAIL}


def test_when_a_study_gives_up_the_other_trials_pause(folder, make_config, open_study):
    with open_study(folder, make_config(trials=6)) as study:
        numbers = [study.ask().number for _ in range(4)]
        for number in numbers[:3]:
            study.fail(number, "a bug")
        decision = study.report(numbers[3], fake_report(1, quality=0.5, n_classes=3))

    assert decision is Decision.PAUSED
    assert [record.number for record in study.paused] == [3]


def test_a_halt_pauses_the_trial_and_the_search_and_the_same_folder_goes_on(
    folder, make_config, open_study, report_of, assert_consistent
):
    with open_study(folder, make_config(trials=4)) as study:
        first, second = study.ask().number, study.ask().number
        study.report(first, report_of(1))
        study.halt(first, "no space left on the disk")
        decision = study.report(second, report_of(1))
        nothing = study.ask()

    assert isinstance(study.failure, ConfigError)
    assert str(study.failure).startswith("no space left on the disk; ")
    assert "goes on from here" in str(study.failure)
    assert study.is_over
    assert (decision, nothing) == (Decision.PAUSED, None)
    assert [record.number for record in study.paused] == [first, second]
    assert study.count(RUNNING) == len(study.records) == 2

    with open_study(folder, make_config(trials=4)) as again:
        assert again.failure is None
        drive(again, quality_of=quality_by_lr)

    assert again.count(COMPLETE) == len(again.records) == 4
    assert_consistent(folder, again)


def test_a_search_that_gives_up_pauses_what_runs(folder, make_config, open_study, report_of):
    with open_study(folder, make_config()) as study:
        number = study.ask().number
        study.give_up("the disk is full")
        decision = study.report(number, report_of(1))

    assert isinstance(study.failure, ConfigError)
    assert str(study.failure).startswith("the disk is full; ")
    assert (decision, study.is_over) == (Decision.PAUSED, True)


def test_what_ended_a_search_first_is_what_is_said(folder, make_config, open_study):
    with open_study(folder, make_config(failures=1)) as study:
        numbers = [study.ask().number for _ in range(3)]
        study.halt(numbers[0], "the disk is full")
        study.fail(numbers[1], "a bug")
        study.halt(numbers[2], "the disk is still full")

    assert str(study.failure).startswith("the disk is full; ")


def test_a_trial_whose_end_is_told_after_a_halt_stays_paused(folder, make_config, open_study):
    with open_study(folder, make_config()) as study:
        number = study.ask().number
        study.halt(number, "the disk is full")
        study.halt(number, "the disk is full")
        study.fail(number, "its process died")

    assert [record.number for record in study.paused] == [number]
    assert study.count(FAILED) == 0


def test_the_last_row_of_a_trial_says_how_it_ended(run, folder, rows_of):
    study = run(trials=8, factor=2, quality_of=rejecting(1))

    last = {row["trial"]: (row["status"], row["reason"]) for row in rows_of(folder)}
    assert last == {record.number: (record.status, record.reason) for record in study.records.values()}


def test_an_epoch_that_is_reported_again_is_neither_recorded_nor_judged_again(folder, make_config, open_study, rows_of):
    with open_study(folder, make_config(trials=9, factor=2)) as study:
        early = study.ask().number
        study.report(early, fake_report(1, quality=0.1, n_classes=3))
        for quality in (0.5, 0.6, 0.7):
            study.report(study.ask().number, fake_report(1, quality=quality, n_classes=3))

        decision = study.report(early, fake_report(1, quality=0.1, n_classes=3))

    assert decision is Decision.CONTINUE
    assert len(rows_of(folder)) == 4
    assert study.records[early].status == RUNNING


def test_a_trial_that_loses_its_process_goes_on_where_it_was(folder, make_config, open_study):
    with open_study(folder, make_config(trials=2)) as study:
        number = study.ask().number
        study.report(number, fake_report(1, quality=0.5, n_classes=len(study.classes)))

        assert study.lose(number, "its machine is gone")
        assert not study.lose(number, "its machine is gone")  # told twice

        again = study.ask()
        assert (again.number, again.epochs_done) == (number, 1)
        assert study.count(FAILED) == 0


def test_machines_that_take_many_trials_with_them_do_not_end_a_study(folder, make_config, open_study):
    with open_study(folder, make_config(trials=12, failures=2)) as study:
        asked = [study.ask().number for _ in range(6)]

        assert all(study.lose(number, "its machine is gone") for number in asked)
        assert [study.ask().number for _ in range(6)] == asked
        drive(study, quality_of=quality_by_lr)
        assert study.failure is None


def test_a_trial_that_kills_its_process_again_and_again_fails(folder, make_config, open_study, journal_of):
    """Three processes: the first, the one it goes on in, and that of its only retry."""
    with open_study(folder, make_config(trials=2)) as study:
        first = study.ask()
        assert study.lose(first.number, "killed")
        assert study.ask().number == first.number
        assert not study.lose(first.number, "killed")
        retry = study.ask()
        assert retry.config == first.config
        assert not study.lose(retry.number, "killed")

        drive(study, quality_of=quality_by_lr)
        assert study.is_judged
        assert (study.count(FAILED), study.records[retry.number].origin) == (2, {"retry_of": first.number})
