"""The journal, as any other program sees it that knows Optuna but not us."""

import shutil

import pytest
from optuna.trial import TrialState

from search.errors import TrialFailed
from search.study.records import StudyFolder
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, STOPPED
from search.testing import drive, quality_by_lr


def eventful(assignment, epoch):
    events = {
        (4, 2): TrialFailed("diverged", "loss became nan"),
        (2, 3): RuntimeError("a bug"),
        (6, 1): TrialFailed("out_of_memory", "out of memory"),
    }
    if (assignment.number, epoch) in events:
        raise events[assignment.number, epoch]
    return quality_by_lr(assignment, epoch)


@pytest.fixture(scope="module")
def study(new_folder, make_config, open_study):
    """A closed study in which everything has happened that can happen to a trial; it is only read."""
    floors = '[macro_f1 >= 0.3, "recall[Center] >= 0.1"]'
    config = make_config(trials=12, factor=2, first="[{lr: 1e-2}, {lr: 1e-3}]", constraints=floors)
    with open_study(new_folder(), config) as study:
        drive(study, quality_of=eventful)
    return study


@pytest.fixture(scope="module")
def trials(study, journal_of):
    return journal_of(study.folder).trials


def numbers(study, *statuses):
    found = [number for number, record in study.records.items() if record.status in statuses]
    assert found  # or a test below would say nothing
    return found


def test_it_holds_every_trial_and_agrees_with_the_rest(study, trials, assert_consistent):
    assert [trial.number for trial in trials] == list(study.records)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert_consistent(study.folder, study)


def test_a_trial_has_its_parameters_and_what_they_were_drawn_from(study, trials):
    for trial in trials:
        config = study.records[trial.number].config
        assert trial.params == {name: value for name, value in config.items() if name != "epochs"}
        assert trial.distributions.keys() == trial.params.keys()
        assert trial.user_attrs["config"] == config
        assert (trial.distributions["lr"].low, trial.distributions["lr"].log) == (1e-4, True)


def test_a_stopped_trial_has_its_last_report_as_value(study, trials):
    for number in numbers(study, STOPPED):
        record = study.records[number]
        assert trials[number].state is TrialState.PRUNED
        assert trials[number].value == record.values[-1]
        assert trials[number].last_step == len(record.values) < record.epochs
        assert trials[number].user_attrs["reason"] == f"not among the best after epoch {len(record.values)}"


def test_what_did_not_work_has_the_value_of_its_last_report_if_there_was_any(study, trials):
    first, second = numbers(study, INFEASIBLE)

    assert trials[first].value == study.records[first].values[-1]
    assert trials[second].value is None
    assert {trials[n].constraints["works"] for n in (first, second)} == {10.0}
    assert [trials[n].user_attrs["reason"] for n in (first, second)] == ["loss became nan", "out of memory"]


def test_what_broke_has_no_value(study, trials):
    [number] = numbers(study, FAILED)

    assert trials[number].state is TrialState.FAIL
    assert trials[number].values is None


def test_a_trial_says_what_it_is_a_retry_of_and_which_first_point(study, trials):
    [broken] = numbers(study, FAILED)

    retries = {trial.user_attrs["retry_of"]: trial for trial in trials if "retry_of" in trial.user_attrs}
    assert retries.keys() == {broken}
    assert retries[broken].params == trials[broken].params
    assert [trial.user_attrs.get("first") for trial in trials[:3]] == [0, 1, None]


def test_scores_are_told_by_class(study, trials, classes):
    for number in numbers(study, COMPLETE, STOPPED):
        scores = study.records[number].scores
        assert trials[number].user_attrs["val_f1"] == pytest.approx(
            dict(zip(classes, scores.f1, strict=True)), abs=1e-4
        )


def test_missed_floors_are_told_where_programs_look_that_know_no_constraints(study, trials):
    for number in numbers(study, COMPLETE, STOPPED):
        attributes, constraints = trials[number].user_attrs, trials[number].constraints
        assert attributes["shortfalls"] == pytest.approx(dict(constraints), abs=1e-4)
        assert attributes["shortfalls"].keys() == {"macro_f1 >= 0.3", "recall[Center] >= 0.1"}


def test_optuna_finds_the_same_best_trial(study, journal_of):
    journal = journal_of(study.folder)

    assert journal.direction.name == "MAXIMIZE"
    assert (journal.best_trial.number, journal.best_value) == (study.best.number, study.best.value)


def test_optuna_itself_could_go_on(study, journal_of, tmp_path):
    copy = StudyFolder(shutil.copytree(study.folder.path, tmp_path / "copy"))

    trial = journal_of(copy).ask()

    assert trial.number == len(study.records)
    assert 1e-4 <= trial.suggest_float("lr", 1e-4, 1e-1, log=True) <= 1e-1


def test_a_running_trial_is_there_with_its_reports(folder, make_config, open_study, journal_of):
    with open_study(folder, make_config()) as study:
        drive(study, quality_of=quality_by_lr, slots=2, max_steps=3)
        trials = journal_of(folder).trials

    assert [trial.state for trial in trials] == [TrialState.RUNNING] * 2
    assert [list(trial.intermediate_values.values()) for trial in trials] == [
        record.values for record in study.records.values()
    ]


def test_a_trial_starts_with_a_single_line(folder, make_config, open_study):
    with open_study(folder, make_config()) as study:
        before = folder.journal.read_text("utf-8").count("\n")
        study.ask()

    assert folder.journal.read_text("utf-8").count("\n") == before + 1
