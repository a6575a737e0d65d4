"""What a study asks for, records and decides while it runs."""

import math
from collections import Counter

import pytest
from optuna.trial import TrialState

from search.errors import TrialFailed
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, STOPPED
from search.study.study import JUDGED, Decision
from search.testing import drive, fake_report, fake_score, quality_by_lr
from search.trial.params import TrialParams


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


@pytest.fixture
def run(folder, make_config, open_study):
    """Run a whole study; return it, closed."""

    def run_it(*, quality_of=quality_by_lr, slots=2, **config):
        with open_study(folder, make_config(**config)) as study:
            drive(study, quality_of=quality_of, slots=slots)
        return study

    return run_it


@pytest.mark.parametrize("slots", [1, 2, 5, 9])
@pytest.mark.parametrize("factor", [None, 2])
def test_exactly_as_many_trials_run_as_were_asked_for(run, folder, slots, factor, journal_of):
    study = run(trials=6, slots=slots, factor=factor)

    assert study.is_judged
    assert study.count(*JUDGED) == len(study.records) == len(journal_of(folder).trials) == 6


def test_no_more_trials_are_handed_out_than_may_still_be_judged(folder, make_config, open_study):
    with open_study(folder, make_config(trials=2)) as study:
        assignments = [study.ask() for _ in range(4)]

    assert [assignment and assignment.number for assignment in assignments] == [0, 1, None, None]
    assert len(study.running) == 2
    assert not study.is_over


def test_an_assignment_holds_all_that_a_trial_needs(folder, make_config, open_study):
    with open_study(folder, make_config(epochs="[3, 5]")) as study:
        assignment = study.ask()

    assert isinstance(assignment.params, TrialParams)
    assert assignment.params.epochs == assignment.config["epochs"] == study.records[0].epochs
    assert assignment.params.lr == assignment.config["lr"]
    assert assignment.epochs_done == 0


def test_after_a_study_is_judged_nothing_is_running(run, folder, journal_of):
    run(trials=8, factor=2, quality_of=rejecting(2))

    assert {trial.state for trial in journal_of(folder).trials} <= {TrialState.COMPLETE, TrialState.PRUNED}


def test_a_study_that_is_judged_hands_nothing_out(run, folder, make_config, open_study):
    run(trials=3)

    with open_study(folder, make_config(trials=3)) as again:
        assert again.is_over
        assert again.ask() is None


def test_a_space_without_parameters_can_be_run(folder, load, open_study):
    config = load("data: {image_size: 16}\nspace: {epochs: 2}\nsearch: {trials: 2, stop: null}")

    with open_study(folder, config) as study:
        drive(study, quality_of=lambda assignment, epoch: 0.5)

    assert study.count(COMPLETE) == 2


def test_a_trial_that_ran_to_its_end_is_complete(run, folder, journal_of):
    study = run(trials=3)

    for trial in journal_of(folder).trials:
        assert trial.state is TrialState.COMPLETE
        assert trial.value == study.records[trial.number].value == trial.intermediate_values[4]
        assert trial.user_attrs["status"] == COMPLETE


def test_a_stopped_trial_is_pruned_with_its_last_report_at_its_nominal_epoch(run, folder, journal_of):
    study = run(trials=12, factor=2)

    stopped = [record for record in study.records.values() if record.status == STOPPED]
    trials = journal_of(folder).trials
    assert stopped
    for record in stopped:
        trial = trials[record.number]
        assert trial.state is TrialState.PRUNED
        assert trial.intermediate_values == dict(enumerate(record.values, start=1))
        assert trial.last_step == len(record.reports) < record.epochs
        assert record.reason == trial.user_attrs["reason"] == f"not among the best after epoch {trial.last_step}"


def test_without_a_judge_every_trial_runs_to_its_end(run):
    assert run(trials=8, factor=None).count(COMPLETE) == 8


def test_with_a_judge_the_losers_stop_and_the_best_does_not(run):
    study = run(trials=16, factor=2)

    complete = [quality_by_lr(record, 0) for record in study.records.values() if record.status == COMPLETE]
    stopped = [quality_by_lr(record, 0) for record in study.records.values() if record.status == STOPPED]
    assert study.count(STOPPED) >= 6
    assert max(complete) >= max(stopped)


def test_a_rejected_trial_is_pruned_and_infeasible(run, folder, journal_of):
    study = run(trials=4, quality_of=rejecting(1))

    trial = journal_of(folder).trials[1]
    assert trial.state is TrialState.PRUNED
    assert max(trial.constraints.values()) > 0
    assert trial.user_attrs["status"] == study.records[1].status == INFEASIBLE
    assert trial.user_attrs["reason"] == study.records[1].reason == "loss became nan in epoch 1 (step 3)"


def test_a_rejected_trial_counts(run):
    study = run(trials=4, quality_of=rejecting(1, 2))

    assert (study.count(INFEASIBLE), study.count(COMPLETE), len(study.records)) == (2, 2, 4)


def test_only_rejected_trials_are_infeasible(run, folder, journal_of):
    run(trials=8, factor=2, quality_of=rejecting(3))

    infeasible = [trial.number for trial in journal_of(folder).trials if trial.constraints]
    assert infeasible == [3]


def test_a_failed_trial_is_tried_once_more_with_the_same_parameters(run, folder, journal_of):
    study = run(trials=4, quality_of=breaking(1))

    failed = study.records[1]
    trials = journal_of(folder).trials
    [retry] = [trial for trial in trials if "retry_of" in trial.user_attrs]
    assert failed.status == FAILED
    assert failed.reason == "RuntimeError: a bug"
    assert trials[1].state is TrialState.FAIL
    assert retry.user_attrs["retry_of"] == 1
    assert study.records[retry.number].config == failed.config
    assert study.records[retry.number].status == COMPLETE


def test_a_failed_trial_does_not_count(run):
    study = run(trials=4, quality_of=breaking(1))

    assert (study.count(*JUDGED), study.count(FAILED), len(study.records)) == (4, 1, 5)


def test_a_retry_that_fails_too_is_not_retried(run, folder, journal_of):
    def quality_of(assignment, epoch):
        raise_if(assignment.config == doomed.setdefault("config", assignment.config), RuntimeError("a bug"))
        return 0.5

    doomed = {}

    study = run(trials=3, quality_of=quality_of)

    assert (study.count(FAILED), study.count(COMPLETE)) == (2, 3)
    assert Counter("retry_of" in trial.user_attrs for trial in journal_of(folder).trials) == {False: 4, True: 1}


def test_a_failure_leaves_its_traceback(run, folder):
    run(trials=2, quality_of=breaking(1))

    details = folder.failure(1).read_text("utf-8")
    assert details.startswith("Traceback")
    assert "RuntimeError: a bug" in details


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
    assert study.abort_reason == "3 trials failed in a row; the last: RuntimeError: a bug"


def test_failures_with_progress_between_them_do_not_end_a_study(run):
    study = run(trials=6, slots=1, quality_of=breaking(0, 2, 4, 6, 8))

    assert study.abort_reason == ""
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

    assert study.abort_reason == ""
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


def test_every_report_is_a_row_and_in_the_journal(run, folder, rows_of, assert_consistent):
    study = run(trials=8, factor=2, quality_of=rejecting(1))

    assert_consistent(folder, study)
    assert sum("objective" in row for row in rows_of(folder)) == sum(len(r.reports) for r in study.records.values())


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


def test_there_is_no_best_before_a_trial_ran_to_its_end(folder, make_config, open_study):
    with open_study(folder, make_config()) as study:
        drive(study, quality_of=quality_by_lr, max_steps=3)

    assert study.best is None


def test_the_best_is_the_highest_of_those_that_ran_to_their_end(run):
    study = run(trials=8)

    assert study.best.value == max(record.value for record in study.records.values())


def test_a_stopped_trial_is_never_the_best(folder, make_config, open_study):
    with open_study(folder, make_config(trials=4, factor=2)) as study:
        numbers = [study.ask().number for _ in range(4)]
        for number, quality in zip(numbers, (0.9, 0.9, 0.9, 0.8), strict=True):
            decision = study.report(number, fake_report(1, quality=quality, n_classes=3))
        for epoch in (2, 3, 4):
            study.report(numbers[0], fake_report(epoch, quality=0.05, n_classes=3))

    assert decision is Decision.FINISHED
    assert study.records[3].status == STOPPED
    assert study.records[3].value > study.records[0].value
    assert study.best.number == 0


def test_a_weighted_objective_weighs_the_classes(run, classes):
    study = run(trials=2, objective="{weights: {Center: 3, none: 1}}")

    record = study.best
    expected = (3 * record.scores.f1[0] + record.scores.f1[2]) / 4
    assert record.value == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_macro_f1", "worst_class_f1"])
def test_the_objective_is_the_metric_asked_for(run, metric):
    study = run(trials=2, objective=f"{{maximize: {metric}}}")

    assert study.best.value == getattr(study.best.scores, metric)


def test_only_the_running_and_the_best_keep_a_checkpoint(folder, make_config, open_study):
    def quality_of(assignment, epoch):
        folder.checkpoint(assignment.number).parent.mkdir(exist_ok=True)
        folder.checkpoint(assignment.number).touch()
        return quality_by_lr(assignment, epoch)

    with open_study(folder, make_config(trials=9, factor=2)) as study:
        drive(study, quality_of=quality_of, max_steps=14)
        kept = set(folder.checkpoint(0).parent.iterdir())

    wanted = [study.best, *study.running]
    assert study.count(STOPPED)
    assert study.running
    assert kept == {folder.checkpoint(record.number) for record in wanted}


def test_first_points_come_first_and_the_sampler_fills_them_in(run):
    first = "[{lr: 1e-3, model: wafer_cnn, model.wafer_cnn.width: 8}, {model: wafer_resnet}, {}]"

    study = run(trials=5, first=first)

    one, two, three, *_ = (record.config for record in study.records.values())
    assert (one["lr"], one["model"], one["model.wafer_cnn.width"]) == (1e-3, "wafer_cnn", 8)
    assert 0 <= one["weight_decay"] <= 0.1
    assert 0 <= one["model.wafer_cnn.dropout"] <= 0.5
    assert two["model"] == "wafer_resnet"
    assert 1e-4 <= two["lr"] <= 1e-1
    assert three.keys() >= {"epochs", "lr", "model"}


def test_more_first_points_than_trials_are_left_out(run):
    study = run(trials=2, first="[{lr: 1e-3}, {lr: 2e-3}, {lr: 3e-3}]")

    assert [record.config["lr"] for record in study.records.values()] == [1e-3, 2e-3]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_every_proposal_lies_in_the_space(run, sampler):
    study = run(trials=25, sampler=sampler, factor=2)

    for record in study.records.values():
        assert all(study.config.space.contains(name, value) for name, value in record.config.items())


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_study_proposes_the_same_again(new_folder, make_config, open_study, sampler):
    studies = []
    for _ in range(2):
        with open_study(new_folder(), make_config(trials=14, sampler=sampler)) as study:
            drive(study, quality_of=quality_by_lr)
        studies.append([record.config for record in study.records.values()])

    assert studies[0] == studies[1]


def test_no_configuration_is_proposed_twice(run):
    study = run(trials=25)

    assert len({record.config["lr"] for record in study.records.values()}) == 25


def test_tpe_finds_better_configurations_than_random(new_folder, make_config, open_study):
    means = {}
    for sampler in ("tpe", "random"):
        with open_study(new_folder(), make_config(trials=50, sampler=sampler, epochs="1")) as study:
            drive(study, quality_of=quality_by_lr, slots=1)
        means[sampler] = sum(record.value for record in list(study.records.values())[20:]) / 30

    assert means["tpe"] > means["random"] + 0.02


def test_the_sampler_leaves_a_region_that_does_not_work(new_folder, make_config, open_study):
    def quality_of(assignment, epoch):
        raise_if(assignment.config["lr"] > 1e-2, TrialFailed("out_of_memory", "out of memory"))
        return 1 - abs(math.log10(assignment.config["lr"]) + 3) / 3

    with open_study(new_folder(), make_config(trials=50, epochs="1")) as study:
        drive(study, quality_of=quality_of, slots=1)

    late = [record.status for record in list(study.records.values())[20:]]
    assert late.count(INFEASIBLE) < 10  # a third of the space would be as many by chance
    assert fake_score(1, quality=1) - study.best.value < 0.05
