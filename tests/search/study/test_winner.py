import json

import numpy as np
import pytest
import torch

from data_pipeline.synthetic import make_wafers
from search.study.checkpoints import save_checkpoint
from search.study.data import open_data, trial_data
from search.study.records import StudyFolder
from search.study.study import Study
from search.study.winner import find_hardest, keep_winner, read_winner, write_winner
from search.testing import FakeClock
from search.trial.training import train_and_evaluate

SPACE = """
data: {wafers: synthetic, synthetic_wafers: 900, image_size: 16, epoch_samples: 512}
space: {epochs: 1, lr: [0.003, 0.004], model: {choose: {wafer_cnn: {width: 4}}}}
search: {trials: 1}
"""


@pytest.fixture(scope="module")
def trained(load, tmp_path_factory):
    """A study of one real trial, its checkpoint in place, and its wafers."""
    results = tmp_path_factory.mktemp("results")
    config = load(SPACE)
    dataset = open_data(config.data, results=results)
    study = Study(StudyFolder(results / "a-study"), config, classes=dataset.wafers.classes, clock=FakeClock())
    assignment = study.ask()
    generator = torch.Generator().manual_seed(assignment.params.seed)
    training = train_and_evaluate(assignment.params, trial_data(dataset, config.data), generator=generator)
    for evaluation in training:
        key = json.dumps(assignment.config, sort_keys=True)
        path = study.folder.checkpoint(assignment.number)
        save_checkpoint(path, evaluation, classes=study.classes, key=key)
        study.report(assignment.number, evaluation.report)
    yield study, dataset
    study.close()


@pytest.fixture
def judged(trained):
    study, dataset = trained
    study.folder.winner.unlink(missing_ok=True)
    assert write_winner(study, dataset, patience_s=60) == ""
    return read_winner(study.folder)


def test_the_hardest_wafers_are_those_that_the_rule_calls_wrong():
    wafers = make_wafers(100, seed=1)
    rows = np.flatnonzero(wafers.labels == 0)[:3]
    chance = np.eye(9)[[0, 1, 1]] * 0.5 + 0.05

    hard = find_hardest(wafers, rows, chance, np.array([1, 0, 1]))

    assert [(each.index, each.called) for each in hard] == [(rows[2], 1), (rows[0], 1)]
    assert [each.probability for each in hard] == pytest.approx([0.55, 0.05])
    assert [each.index for each in find_hardest(wafers, rows, chance)] == [rows[1], rows[2]]


def test_the_winner_is_judged_again_as_it_was_in_its_trial(trained, judged):
    study, dataset = trained

    confusion = np.zeros((9, 9), dtype=int)
    np.add.at(confusion, (judged.labels, judged.probabilities.argmax(1)), 1)

    recorded = np.array(study.leader.reports[-1].val.confusion)
    assert judged.is_whole
    assert judged.is_of(study.leader.number, dataset.splits.fingerprint)
    assert np.abs(confusion - recorded).sum() <= 4  # ties in float16
    assert (dataset.wafers.labels[judged.indices] == judged.labels).all()
    assert sorted(judged.indices) == sorted(dataset.splits.val)


def test_the_hardest_wafers_are_wrong_sure_and_few(trained, judged):
    _, dataset = trained

    assert judged.hardest
    for each in judged.hardest:
        assert each.actual == dataset.wafers.labels[each.index] != each.called
        assert (each.map == dataset.wafers.map(each.index)).all()
        assert each.lot == dataset.wafers.lot_names[dataset.wafers.lots[each.index]]
        assert each.probability > 1 / 9
    by_class = [[each.probability for each in judged.hardest if each.actual == k] for k in range(9)]
    assert max(map(len, by_class)) <= 4
    assert all(sure == sorted(sure, reverse=True) for sure in by_class)


def test_what_is_there_already_is_not_made_again(trained, judged):
    study, dataset = trained
    before = study.folder.winner.stat().st_mtime_ns

    write_winner(study, dataset, patience_s=60)

    assert study.folder.winner.stat().st_mtime_ns == before


def test_short_patience_keeps_a_part_and_makes_up_for_it_later(trained):
    study, dataset = trained
    study.folder.winner.unlink(missing_ok=True)

    write_winner(study, dataset, patience_s=0)
    part = read_winner(study.folder)
    write_winner(study, dataset, patience_s=60)

    assert len(part.labels) <= part.n_val == len(dataset.splits.val)
    assert read_winner(study.folder).is_whole


def test_a_lost_checkpoint_fails_nothing(trained):
    study, dataset = trained
    study.folder.winner.unlink(missing_ok=True)
    path = study.folder.checkpoint(study.leader.number)
    saved = path.read_bytes()

    path.unlink()
    missing = write_winner(study, dataset, patience_s=60)
    path.write_bytes(saved[: len(saved) // 2])
    damaged = write_winner(study, dataset, patience_s=60)
    path.write_bytes(saved)

    assert "missing or damaged" in missing
    assert "missing or damaged" in damaged
    assert read_winner(study.folder) is None


def test_a_bug_while_judging_fails_nothing(trained):
    study, _ = trained
    study.folder.winner.unlink(missing_ok=True)

    assert "AttributeError" in write_winner(study, None, patience_s=60)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"not a zip"])
def test_a_damaged_file_is_as_none(folder, content):
    folder.path.mkdir(parents=True)
    folder.winner.write_bytes(content)

    assert read_winner(folder) is None


def test_a_study_without_a_winner_writes_nothing(folder, make_config, open_study):
    with open_study(folder, make_config()) as study:
        assert write_winner(study, None, patience_s=60) == ""
        assert not folder.winner.exists()


def test_a_confirmed_trial_shows_what_one_of_its_runs_gets_wrong(trained):
    study, dataset = trained
    labels = dataset.wafers.labels[dataset.splits.val]
    logits = 4 * np.eye(9)[(labels + (np.arange(len(labels)) % 5 == 0)) % 9].astype(np.float32)

    keep_winner(study.folder, dataset, trial=7, logits_NK=logits)

    found = read_winner(study.folder)
    assert found.is_whole and found.is_of(7, dataset.splits.fingerprint)
    assert (found.probabilities.argmax(1) != found.labels).mean() == pytest.approx(0.2, abs=0.01)
    assert all(each.called == (each.actual + 1) % 9 for each in found.hardest)
