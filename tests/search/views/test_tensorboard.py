"""The event files, read back by TensorBoard itself."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from search.errors import TrialFailed
from search.testing import drive, quality_by_lr
from search.views.tensorboard import TensorBoardLog

CLASSES = ("깨짐", "긁힘", "none")


@pytest.fixture
def open_study(open_heard):
    """Open the study of one folder."""
    return lambda *, trials: open_heard(trials=trials, stop="{asha: {first_rung: 1, factor: 2}}", classes=CLASSES)


def quality(assignment, epoch):
    if (assignment.number, epoch) == (2, 2):
        raise TrialFailed("diverged", "loss became nan")
    if assignment.number == 3:
        raise TrialFailed("out_of_memory", "out of memory")
    return quality_by_lr(assignment, epoch)


def search(study, *, max_steps=None, lost_epochs=0):
    with study, TensorBoardLog(study) as log:
        study.hear = log.on_event
        drive(study, quality_of=quality, max_steps=max_steps, lost_epochs=lost_epochs)
    return study


def read(study, number):
    run = EventAccumulator(str(study.folder.path / "tensorboard" / f"trial-{number:04d}"))
    run.Reload()
    scalars = {tag: [(event.step, event.value) for event in run.Scalars(tag)] for tag in run.Tags()["scalars"]}
    content = run.PluginTagToContent("hparams")
    parts = {tag.removeprefix("_hparams_/"): HParamsPluginData.FromString(data) for tag, data in content.items()}
    return SimpleNamespace(scalars=scalars, parts=parts, events=run)


def assert_complete(study):
    """Every trial has every epoch once, and nothing else."""
    for number, record in study.records.items():
        found = read(study, number).scalars.get("val/objective", [])
        assert [step for step, _ in found] == list(range(1, len(record.values) + 1))
        assert [value for _, value in found] == pytest.approx(record.values)


def test_every_trial_has_its_scores_by_epoch(open_study):
    study = search(open_study(trials=8))

    assert_complete(study)
    scalars, best = read(study, study.best.number).scalars, study.best
    assert scalars.keys() == {
        *("train/loss", "train/accuracy", "train/lr", "val/objective", "val/loss", "val/accuracy"),
        *("val/macro_f1", "val/balanced_macro_f1", *(f"val_f1/{name}" for name in CLASSES)),
    }
    assert scalars["train/lr"] == [(n, pytest.approx(1e-3)) for n in range(1, 5)]
    assert scalars["val_f1/긁힘"][-1] == pytest.approx((4, best.scores.f1[1]))


def test_every_trial_has_its_hyperparameters_and_how_it_ended(open_study):
    study = search(open_study(trials=8))

    statuses = {}
    for number, record in study.records.items():
        parts = read(study, number).parts
        given = parts["session_start_info"].session_start_info.hparams
        assert given["lr"].number_value == record.config["lr"]
        assert given["model"].string_value == record.config["model"]
        statuses[record.status] = parts["session_end_info"].session_end_info.status
    assert statuses == {"complete": 1, "stopped": 1, "infeasible": 2}  # STATUS_SUCCESS, STATUS_FAILURE


def test_the_table_has_a_column_for_every_parameter_of_the_space(open_study):
    study = search(open_study(trials=2))

    overview = EventAccumulator(str(study.folder.path / "tensorboard"))
    overview.Reload()
    [content] = overview.PluginTagToContent("hparams").values()
    experiment = HParamsPluginData.FromString(content).experiment
    assert [info.name for info in experiment.hparam_infos] == list(study.config.space.parameters())
    assert experiment.metric_infos[0].name.tag == "val/objective"


def test_time_is_that_of_training(open_study):
    study = search(open_study(trials=2))

    times = [event.wall_time for event in read(study, study.best.number).events.Scalars("val/loss")]
    assert [after - before for before, after in pairwise(times)] == pytest.approx([1.5] * 3)


def test_a_study_that_goes_on_has_nothing_twice_and_its_earlier_trials_complete(open_study):
    first = search(open_study(trials=8), max_steps=9)
    assert any(record.status == "running" and record.reports for record in first.records.values())

    study = search(open_study(trials=8), lost_epochs=1)

    assert_complete(study)


def test_trials_from_before_anybody_asked_for_it_are_there_too(open_study):
    with open_study(trials=8) as study:
        drive(study, quality_of=quality, max_steps=9)

    assert_complete(search(open_study(trials=8)))
