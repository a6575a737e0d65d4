import warnings

import optuna
import pytest

from search.study.importance import measure_importance
from search.testing import quality_by_lr


@pytest.fixture
def run_random(run):
    return lambda trials, **more: run(trials=trials, sampler="random", epochs="2", **more)


def test_what_decides_stands_out_and_the_rest_does_not(run_random):
    study = run_random(60)

    found = measure_importance(study.folder)

    assert found.n_ended == 60
    assert found.n_top == 6
    assert found.parameters[0].name == "lr"
    assert found.parameters[0].stands_out
    assert sum(each.share for each in found.parameters) == pytest.approx(1)
    assert sum(each.stands_out for each in found.parameters) <= 2  # one of twenty by chance


def test_stopped_trials_tell_what_is_not_among_the_best(run_random):
    study = run_random(60, factor=3)

    found = measure_importance(study.folder)

    assert found.n_ended == 60
    assert found.parameters[0].name == "lr"
    assert found.parameters[0].stands_out


def test_parameters_of_a_branch_count_the_trials_that_have_them(run_random):
    study = run_random(40)

    found = {each.name: each for each in measure_importance(study.folder).parameters}

    branch = sum(record.config["model"] == "wafer_cnn" for record in study.records.values())
    assert found["model.wafer_cnn.width"].n == branch < 40
    assert found["model"].n == 40


def test_few_trials_say_so_in_words(run_random):
    study = run_random(8)

    found = measure_importance(study.folder)

    assert found.parameters == ()
    assert "8 trials ended" in found.why_not


def test_equal_scores_say_so_in_words(run_random):
    study = run_random(30, quality_of=lambda assignment, epoch: 0.5)

    assert "the same score" in measure_importance(study.folder).why_not


def test_the_journal_is_only_read_and_optuna_is_quiet(run_random, capfd):
    study = run_random(25, quality_of=quality_by_lr)
    before = study.folder.journal.read_bytes()
    verbosity = optuna.logging.get_verbosity()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure_importance(study.folder)

    assert study.folder.journal.read_bytes() == before
    assert optuna.logging.get_verbosity() == verbosity
    assert capfd.readouterr() == ("", "")


def test_a_study_without_a_journal_says_so(folder):
    assert "no journal" in measure_importance(folder).why_not
