import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.errors import ConfigError, TrialFailed
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, STOPPED
from search.study.strict_yaml import dump_yaml
from search.study.study import JUDGED
from search.testing import drive, fake_report, quality_by_lr


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
    assert "3 trials failed in a row; the last: RuntimeError: a bug" in study.abort_reason
    assert study.count(FAILED) == 3


@pytest.mark.parametrize("steps", [1, 4, 7, 10, 13])
def test_a_study_left_at_any_moment_goes_on_without_losing_or_repeating(
    folder, make_config, open_study, assert_consistent, journal_of, steps
):
    config = make_config(trials=6, factor=2)
    first = open_study(folder, config)
    drive(first, quality_of=quality_by_lr, max_steps=steps)
    under_way = [record.number for record in first.running]
    first.close()  # as the kernel does for a killed process

    second = open_study(folder, config)
    paused = [record.number for record in second.paused]
    drive(second, quality_of=quality_by_lr, lost_epochs=1)

    assert sorted(set(under_way) & set(second.records)) == sorted(paused)
    assert second.count(*JUDGED) == len(second.records) == 6
    assert all(trial.state is not TrialState.RUNNING for trial in journal_of(folder).trials)
    assert_consistent(folder, second)


def test_interrupted_trials_go_on_first_and_know_how_far_they_were(folder, make_config, open_study):
    config = make_config(trials=4)
    first = open_study(folder, config)
    drive(first, quality_of=always(0.5), max_steps=4)
    first.close()

    second = open_study(folder, config)
    assignments = [second.ask(), second.ask()]

    assert [assignment.number for assignment in assignments] == [0, 1]
    assert [assignment.epochs_done for assignment in assignments] == [2, 2]
    assert [assignment.config for assignment in assignments] == [first.records[n].config for n in (0, 1)]


def test_a_larger_number_of_trials_extends_a_finished_study(folder, make_config, open_study, assert_consistent):
    first = open_study(folder, make_config(trials=3))
    drive(first, quality_of=quality_by_lr)
    before = {number: record.values for number, record in first.records.items()}
    first.close()

    second = open_study(folder, make_config(trials=5))
    drive(second, quality_of=quality_by_lr)

    assert len(second.records) == 5
    assert {number: second.records[number].values for number in before} == before
    assert_consistent(folder, second)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_sampler_does_not_propose_its_configurations_again_after_opening(folder, make_config, open_study, sampler):
    first = open_study(folder, make_config(trials=3, sampler=sampler))
    drive(first, quality_of=quality_by_lr)
    first.close()

    second = open_study(folder, make_config(trials=6, sampler=sampler))
    drive(second, quality_of=quality_by_lr)

    learning_rates = [record.config["lr"] for record in second.records.values()]
    assert len(set(learning_rates)) == 6


def test_torn_last_lines_are_cut(folder, make_config, open_study, assert_consistent):
    config = make_config(trials=4)
    first = open_study(folder, config)
    drive(first, quality_of=quality_by_lr, max_steps=5)
    first.close()
    for path in (folder.journal, folder.trials):
        path.write_bytes(path.read_bytes() + b'{"torn": ')

    second = open_study(folder, config)
    drive(second, quality_of=quality_by_lr)

    assert second.count(COMPLETE) == 4
    assert_consistent(folder, second)


def test_a_row_that_the_journal_does_not_know_is_dropped(folder, make_config, open_study, rows_of, assert_consistent):
    config = make_config(trials=2)
    first = open_study(folder, config)
    drive(first, quality_of=always(0.5), max_steps=2)
    first.close()
    last = folder.trials.read_text("utf-8").splitlines()[-1]
    with folder.trials.open("a", encoding="utf-8") as file:
        file.write(last.replace('"epoch": 1', '"epoch": 2') + "\n")

    second = open_study(folder, config)

    assert [row["epoch"] for row in rows_of(folder)] == [1, 1]
    drive(second, quality_of=always(0.5))
    assert_consistent(folder, second)


def test_a_stale_lock_of_the_journal_does_not_block(folder, make_config, open_study):
    config = make_config(trials=2)
    first = open_study(folder, config)
    drive(first, quality_of=always(0.5), max_steps=1)
    first.close()
    Path(f"{folder.journal}.lock").symlink_to(folder.journal)

    second = open_study(folder, config)
    start = time.monotonic()
    drive(second, quality_of=always(0.5))

    assert time.monotonic() - start < 10
    assert second.is_judged


def test_a_second_driver_is_refused_and_told_who_is_there(folder, make_config, open_study):
    first = open_study(folder, make_config())

    with pytest.raises(ConfigError, match=rf"process {os.getpid()} on .* is working on this study"):
        open_study(folder, make_config())

    first.close()
    open_study(folder, make_config()).close()


def test_when_the_time_is_up_trials_pause_and_more_time_takes_them_on(folder, make_config, open_study, clock):
    first = open_study(folder, make_config(trials=5, time="100s"), clock=clock)
    drive(first, quality_of=always(0.5), max_steps=10)  # two trials of four epochs, and one epoch of two more
    clock.now = 100.0
    drive_rest(first)

    assert first.is_out_of_time
    assert first.ask() is None
    assert [record.number for record in first.paused] == [2, 3]
    first.close()

    second = open_study(folder, make_config(trials=5, time="1h"))
    drive(second, quality_of=always(0.5))
    assert second.count(COMPLETE) == 5


def drive_rest(study):
    """Let each running trial report once more, as it would while it does not know yet that the time is up."""
    for record in study.running:
        study.report(record.number, fake_report(len(record.reports) + 1, quality=0.5, n_classes=len(study.classes)))


def test_a_study_out_of_time_still_lets_one_trial_finish(folder, make_config, open_study, clock):
    study = open_study(folder, make_config(trials=5, time="100s"), clock=clock)
    first, second = study.ask(), study.ask()
    clock.now = 1000.0

    for epoch in (1, 2, 3, 4):
        study.report(first.number, fake_report(epoch, quality=0.5, n_classes=3))

    assert study.best.number == first.number
    assert [record.number for record in study.running] == [second.number]


def test_first_points_come_first_and_partial_ones_are_filled(folder, make_config, open_study):
    config = make_config(trials=3, first="[{lr: 0.02}, {model: wafer_cnn, model.wafer_cnn.width: 8}]")
    study = open_study(folder, config)

    drive(study, quality_of=quality_by_lr)

    configs = [record.config for record in study.records.values()]
    assert configs[0]["lr"] == 0.02
    assert configs[0]["model"] in ("wafer_cnn", "wafer_resnet")
    assert (configs[1]["model"], configs[1]["model.wafer_cnn.width"]) == ("wafer_cnn", 8)


def test_the_best_is_chosen_among_those_that_ran_to_their_end(folder, make_config, open_study):
    study = open_study(folder, make_config(trials=12, factor=2))

    drive(study, quality_of=quality_by_lr)

    complete = [record.value for record in study.records.values() if record.status == COMPLETE]
    assert study.best.status == COMPLETE
    assert study.best.value == max(complete)


def test_a_study_in_which_nothing_ran_to_its_end_has_no_best(folder, make_config, open_study):
    study = open_study(folder, make_config(trials=2))

    drive(study, quality_of=diverges)

    assert study.best is None


def test_checkpoints_of_ended_trials_go_and_the_best_ones_stays(folder, make_config, open_study):
    study = open_study(folder, make_config(trials=4))
    for number in range(4):
        folder.checkpoint(number).parent.mkdir(parents=True, exist_ok=True)
        folder.checkpoint(number).write_bytes(b"state")

    drive(study, quality_of=quality_by_lr)

    assert [n for n in range(4) if folder.checkpoint(n).exists()] == [study.best.number]


def test_tpe_finds_better_configurations_than_random_search(new_folder, make_config, open_study):
    def best_of(sampler):
        study = open_study(new_folder(), make_config(trials=40, sampler=sampler))
        drive(study, quality_of=quality_by_lr)
        return sum(record.value for record in study.records.values()) / 40

    assert best_of("tpe") > best_of("random")


@pytest.mark.slow
def test_a_driver_killed_at_any_moment_loses_nothing(tmp_path, folder, make_config, open_study, assert_consistent):
    config = make_config(trials=40, factor=2)
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from search.study.config_file import load_study_config
        from search.study.records import StudyFolder
        from search.study.study import Study
        from search.testing import drive, quality_by_lr
        config = load_study_config(Path(sys.argv[1]))
        study = Study(StudyFolder(Path(sys.argv[2])), config, classes=("Center", "Edge-Ring", "none"))
        print("open", flush=True)
        drive(study, quality_of=lambda a, e: (time.sleep(0.002), quality_by_lr(a, e))[1])
        """
    )
    space = tmp_path / "space.yaml"
    space.write_text(dump_yaml(config.to_tree()), "utf-8")
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", script, space, folder.path], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.25)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()

    study = open_study(folder, config)
    drive(study, quality_of=quality_by_lr)

    assert study.count(*JUDGED) == len(study.records) == 40
    assert study.count(RUNNING) == 0
    assert_consistent(folder, study)
