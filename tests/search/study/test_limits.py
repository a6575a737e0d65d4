"""How long a trial and a search may take."""

from dataclasses import replace

import pytest

from search.errors import TrialFailed
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING
from search.study.study import Decision
from search.testing import drive, fake_report, quality_by_lr

EPOCH_S = 1.5  # of a fake report: a second of training, half of one of judging


@pytest.fixture
def take(folder, make_config, open_study, report_of):
    """Let one trial of four epochs take so long for each; return the study, and what was decided."""

    def play(*seconds, **config):
        study, decisions = open_study(folder, make_config(**config)), []
        number = study.ask().number
        for epoch, each in enumerate(seconds, start=1):
            report = replace(report_of(epoch), train_seconds=0.75 * each, val_seconds=0.25 * each)
            decisions.append(study.report(number, report))
        return study, decisions

    return play


def test_a_trial_that_will_take_too_long_does_not_work_as_soon_as_its_second_epoch_shows_it(take, journal_of, folder):
    study, decisions = take(10, 10, trial_time=39)

    record = study.records[0]
    assert decisions == [Decision.CONTINUE, Decision.FINISHED]
    assert (record.status, len(record.reports)) == (INFEASIBLE, 2)
    assert record.reason == "would train 40 s, longer than search.trial_time (39 s)"
    assert journal_of(folder).trials[0].constraints == {"works": 10.0}


def test_a_trial_that_takes_just_as_long_as_it_may_goes_on_to_its_end(take):
    study, decisions = take(10, 10, 10, 10, trial_time=40)

    assert decisions == [Decision.CONTINUE] * 3 + [Decision.FINISHED]
    assert study.records[0].status == COMPLETE


def test_the_first_epoch_which_also_warms_up_is_not_projected(take):
    _, decisions = take(30, 3, 3, 3, trial_time=40)

    assert decisions == [Decision.CONTINUE] * 3 + [Decision.FINISHED]


def test_a_first_epoch_that_is_too_long_by_itself_is_enough(take):
    study, decisions = take(41, trial_time=40)

    assert decisions == [Decision.FINISHED]
    assert study.records[0].status == INFEASIBLE


def test_a_trial_that_slows_down_is_found_out_later(take):
    _, decisions = take(5, 5, 21, trial_time=40)

    assert decisions == [Decision.CONTINUE, Decision.CONTINUE, Decision.FINISHED]


def test_a_trial_that_ran_to_its_end_is_complete_however_long_its_last_epoch_was(take):
    study, decisions = take(10, 10, 10, 100, trial_time=40)

    assert decisions[-1] is Decision.FINISHED
    assert study.records[0].status == COMPLETE


def test_trials_that_take_too_long_count_as_judged(run):
    study = run(trials=5, trial_time=EPOCH_S * 3.9)

    assert study.is_judged
    assert study.count(INFEASIBLE) == 5


def test_time_of_earlier_attempts_counts_for_a_trial(folder, make_config, open_study, report_of):
    config = make_config(trial_time=25)
    with open_study(folder, config) as study:
        number = study.ask().number
        study.report(number, replace(report_of(1), train_seconds=20.0))
    with open_study(folder, config) as again:
        again.ask()
        decision = again.report(number, replace(report_of(2), train_seconds=2.0))

    assert decision is Decision.FINISHED
    assert again.records[number].reason == "would train 28 s, longer than search.trial_time (25 s)"


def hours(n_epochs, *, gpus=0.5):
    return n_epochs * EPOCH_S * gpus / 3600


@pytest.fixture
def run_on(folder, make_config, open_study):
    """Run a study whose trials have so many GPUs each."""

    def play(gpus, *, quality_of=quality_by_lr, slots=1, **config):
        with open_study(folder, make_config(**config)) as study:
            study.gpus_of = lambda model: gpus
            n_steps = drive(study, quality_of=quality_of, slots=slots)
        return study, n_steps

    return play


def test_a_study_ends_when_its_gpu_hours_are_used_up(run_on):
    study, n_steps = run_on(0.5, trials=50, gpu_hours=hours(9.5))

    assert n_steps == 10
    assert study.gpu_hours == pytest.approx(hours(10))
    assert study.is_over
    assert study.is_out_of_time
    assert not study.is_judged
    assert (study.count(COMPLETE), study.count(RUNNING), len(study.paused)) == (2, 1, 1)


@pytest.mark.parametrize(("gpus", "n_epochs"), [(1, 5), (0.25, 20), (2, 3)])
def test_the_gpus_of_a_trial_multiply_its_hours(run_on, gpus, n_epochs):
    study, n_steps = run_on(gpus, trials=50, slots=1, gpu_hours=hours(9.6))

    assert n_steps == max(n_epochs, 4)  # one trial may always finish
    assert study.gpu_hours == pytest.approx(hours(n_steps, gpus=gpus))


def test_without_gpus_no_gpu_hours_are_used(run_on):
    study, _ = run_on(0, trials=5, gpu_hours=hours(1))

    assert study.is_judged
    assert study.gpu_hours == 0


def test_without_a_limit_gpu_hours_are_only_counted(run_on):
    study, n_steps = run_on(1, trials=5)

    assert study.is_judged
    assert study.gpu_hours == pytest.approx(hours(n_steps, gpus=1))


def test_what_did_not_work_used_gpu_hours_too(run_on):
    def quality_of(assignment, epoch):
        if epoch == 3:
            raise TrialFailed("diverged", "loss became nan")
        return 0.5

    study, n_steps = run_on(0.5, trials=50, gpu_hours=hours(9.5), quality_of=quality_of)

    assert study.gpu_hours == pytest.approx(hours(10))
    assert n_steps > 10


def test_gpu_hours_count_over_all_attempts_and_more_of_them_go_on(folder, make_config, open_study, assert_consistent):
    found = []
    for limit in (9.5, 9.5, 13.5, 1000):
        config = make_config(trials=6, gpu_hours=hours(limit))
        with open_study(folder, config) as study:
            study.gpus_of = lambda model: 0.5
            n_steps = drive(study, quality_of=quality_by_lr, slots=1)
        found.append((n_steps, round(study.gpu_hours / hours(1), 6)))

    assert found == [(10, 10), (0, 10), (4, 14), (10, 24)]
    assert study.is_judged
    assert_consistent(folder, study)


# The clock of these studies is moved by hand.


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


def test_a_search_without_a_result_that_was_interrupted_when_its_time_was_up_goes_on_to_one(
    folder, make_config, open_study, clock, ten_seconds_an_epoch, assert_consistent
):
    config = make_config(time="5")
    with open_study(folder, config, clock=clock) as before:
        drive(before, quality_of=ten_seconds_an_epoch, slots=3, max_steps=5)
    assert before.is_out_of_time
    assert before.count(COMPLETE) == 0

    with open_study(folder, config, clock=clock) as after:
        assert not after.is_over
        drive(after, quality_of=ten_seconds_an_epoch, slots=3)

    assert after.count(COMPLETE) == 1
    assert len(after.records) == 3
    assert after.best.number == 0  # it was nearest to its end
    assert after.is_over
    assert_consistent(folder, after)


def test_when_the_time_is_up_another_takes_the_place_of_a_trial_that_does_not_work(
    folder, make_config, open_study, clock, ten_seconds_an_epoch
):
    def quality_of(assignment, epoch):
        if assignment.number < 2 and epoch == 3:
            raise TrialFailed("diverged", "loss became nan")
        return ten_seconds_an_epoch(assignment, epoch)

    with open_study(folder, make_config(time="5"), clock=clock) as study:
        drive(study, quality_of=quality_of, slots=3)

    assert [record.status for record in study.records.values()] == [INFEASIBLE, INFEASIBLE, COMPLETE]
    assert study.is_over


def test_a_search_whose_time_is_up_ends_without_a_result_where_nothing_works(
    folder, make_config, open_study, clock, ten_seconds_an_epoch
):
    def quality_of(assignment, epoch):
        ten_seconds_an_epoch(assignment, epoch)
        raise TrialFailed("diverged", "loss became nan")

    with open_study(folder, make_config(time="5"), clock=clock) as study:
        drive(study, quality_of=quality_of, slots=3)

    assert study.count(INFEASIBLE) == len(study.records) == 3
    assert study.is_over
    assert study.best is None


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
