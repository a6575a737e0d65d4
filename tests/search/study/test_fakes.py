"""The fakes of search.testing are as true to the real thing as the tests need."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.study.rows import COMPLETE, RUNNING
from search.testing import drive, fake_report, fake_score, quality_by_lr

qualities = st.floats(0.01, 1)


@given(epoch=st.integers(1, 100), quality=qualities)
def test_a_score_rises_with_the_epochs(epoch, quality):
    assert 0 < fake_score(epoch, quality=quality) <= fake_score(epoch + 1, quality=quality) < quality + 1e-5


@given(epoch=st.integers(1, 100), one=qualities, other=qualities)
def test_a_score_rises_with_the_quality(epoch, one, other):
    scores = [fake_score(epoch, quality=quality) for quality in sorted((one, other))]

    assert scores == sorted(scores)


@given(epoch=st.integers(1, 100), quality=st.floats(0, 1), n_classes=st.integers(2, 12))
def test_all_scores_of_a_report_are_the_fake_score(epoch, quality, n_classes):
    report = fake_report(epoch, quality=quality, n_classes=n_classes)

    scores, score = report.val.scores, fake_score(epoch, quality=quality)
    assert report.epoch == epoch
    assert len(scores.f1) == len(report.val.confusion) == n_classes
    assert (scores.macro_f1, scores.balanced_macro_f1, scores.worst_class_f1) == pytest.approx((score,) * 3)
    assert scores.accuracy == pytest.approx(score)


def test_a_driver_runs_every_epoch_of_every_trial(folder, make_config, open_study):
    with open_study(folder, make_config(trials=3)) as study:
        n_steps = drive(study, quality_of=quality_by_lr)

    assert n_steps == 3 * 4
    assert study.count(COMPLETE) == 3


def test_a_driver_takes_turns(folder, make_config, open_study):
    turns = []

    def quality_of(assignment, epoch):
        turns.append((assignment.number, epoch))
        return 0.5

    with open_study(folder, make_config(trials=3, epochs="2")) as study:
        drive(study, quality_of=quality_of, slots=2)

    assert turns == [(0, 1), (1, 1), (0, 2), (1, 2), (2, 1), (2, 2)]


def test_a_driver_that_is_cut_short_leaves_its_trials_running(folder, make_config, open_study):
    with open_study(folder, make_config()) as study:
        n_steps = drive(study, quality_of=quality_by_lr, slots=2, max_steps=5)

    assert n_steps == 5
    assert [len(record.reports) for record in study.running] == [3, 2]
    assert study.count(RUNNING) == 2


def test_a_driver_repeats_the_epochs_that_a_checkpoint_lacks(folder, make_config, open_study):
    with open_study(folder, make_config(trials=1)) as study:
        drive(study, quality_of=quality_by_lr, max_steps=3)

    with open_study(folder, make_config(trials=1)) as study:
        n_steps = drive(study, quality_of=quality_by_lr, lost_epochs=2)

    assert n_steps == 3
    assert study.count(COMPLETE) == 1
