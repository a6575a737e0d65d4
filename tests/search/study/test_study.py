from optuna.trial import TrialState

from search.errors import TrialFailed
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, STOPPED
from search.study.study import JUDGED
from search.testing import drive, quality_by_lr


def always(quality):
    return lambda assignment, epoch: quality


def diverges(assignment, epoch):
    raise TrialFailed("diverged", "loss became nan in epoch 1 (step 1)")


def breaks(assignment, epoch):
    raise RuntimeError("a bug")


def test_a_study_judges_as_many_trials_as_were_asked_for(folder, make_config, open_study, assert_consistent):
    study = open_study(folder, make_config(trials=9, factor=2))

    drive(study, quality_of=quality_by_lr, slots=3)

    assert study.is_judged
    assert study.count(*JUDGED) == len(study.records) == 9
    assert_consistent(folder, study)


def test_a_stopped_trial_is_pruned_with_its_last_report_at_its_epoch(folder, make_config, open_study, journal_of):
    study = open_study(folder, make_config(trials=12, factor=2))

    drive(study, quality_of=quality_by_lr)

    stopped = [record for record in study.records.values() if record.status == STOPPED]
    trials = journal_of(folder).trials
    assert stopped
    for record in stopped:
        trial = trials[record.number]
        assert trial.state is TrialState.PRUNED
        assert trial.intermediate_values == dict(enumerate(record.values, start=1))
        assert record.reason.startswith("not among the best after epoch")


def test_a_complete_trial_has_the_value_of_its_last_report(folder, make_config, open_study, journal_of):
    study = open_study(folder, make_config(trials=3))

    drive(study, quality_of=quality_by_lr)

    trials = journal_of(folder).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert [trial.value for trial in trials] == [record.values[3] for record in study.records.values()]


def test_a_configuration_that_does_not_work_is_infeasible_and_counts(folder, make_config, open_study, journal_of):
    study = open_study(folder, make_config(trials=2))

    drive(study, quality_of=diverges)

    assert study.count(INFEASIBLE) == 2
    for trial in journal_of(folder).trials:
        assert trial.state is TrialState.PRUNED
        assert all(violation > 1 for violation in trial.constraints.values())
        assert trial.constraints
        assert trial.user_attrs["reason"].startswith("loss became nan")


def test_a_broken_trial_is_tried_once_more_and_does_not_count(folder, make_config, open_study, journal_of):
    study = open_study(folder, make_config(trials=3))
    broken = []

    def first_breaks(assignment, epoch):
        broken.append(assignment.number)
        return breaks(assignment, epoch) if len(broken) == 1 else 0.5

    drive(study, quality_of=first_breaks, slots=1)

    assert study.count(FAILED) == 1
    assert study.count(COMPLETE) == 3
    trials = journal_of(folder).trials
    assert trials[0].state is TrialState.FAIL
    assert trials[1].params == trials[0].params
    assert trials[1].user_attrs["retry_of"] == 0
    assert "a bug" in folder.failure(0).read_text("utf-8")


def test_three_broken_trials_in_a_row_end_the_study(folder, make_config, open_study):
    study = open_study(folder, make_config(trials=20))

    drive(study, quality_of=breaks, slots=1)

    assert study.is_over
    assert "3 trials failed in a row; the last: RuntimeError: a bug" in str(study.failure)
    assert study.count(FAILED) == 3


def test_first_points_come_first_and_partial_ones_are_filled(folder, make_config, open_study):
    config = make_config(trials=3, first="[{lr: 0.02}, {model: wafer_cnn, model.wafer_cnn.width: 8}]")
    study = open_study(folder, config)

    drive(study, quality_of=quality_by_lr)

    configs = [record.config for record in study.records.values()]
    assert configs[0]["lr"] == 0.02
    assert configs[0]["model"] in ("wafer_cnn", "wafer_resnet")
    assert (configs[1]["model"], configs[1]["model.wafer_cnn.width"]) == ("wafer_cnn", 8)


def test_a_study_in_which_nothing_ran_to_its_end_has_no_best(folder, make_config, open_study):
    study = open_study(folder, make_config(trials=2))

    drive(study, quality_of=diverges)

    assert study.best is None


def test_tpe_finds_better_configurations_than_random_search(new_folder, make_config, open_study):
    def best_of(sampler):
        study = open_study(new_folder(), make_config(trials=40, sampler=sampler))
        drive(study, quality_of=quality_by_lr)
        return sum(record.value for record in study.records.values()) / 40

    assert best_of("tpe") > best_of("random")
