"""A checkpoint gives back what was saved, or nothing."""

import os
import pickle

import pytest
import torch

from search.errors import ConfigError
from search.study.checkpoints import load_checkpoint, save_checkpoint
from search.testing import fake_report
from search.trial.training import Evaluation

STATE = {
    "epoch": 3,
    "model": {"weight": torch.arange(6.0).reshape(2, 3)},
    "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]},
    "generator": torch.Generator().manual_seed(1).get_state(),
}


class Bait:
    """Makes a folder when it is unpickled: what a hostile file would do, without the harm."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def evaluation():
    return Evaluation(report=fake_report(3, quality=0.9, n_classes=3), state=STATE)


@pytest.fixture
def saved(tmp_path, evaluation, classes):
    path = tmp_path / "checkpoints" / "trial-0003.pt"
    save_checkpoint(path, evaluation, classes=classes, key="mine")
    return path


def test_a_checkpoint_gives_back_the_report_and_the_state(saved, evaluation):
    report, state, earlier = load_checkpoint(saved, key="mine")

    assert earlier == []

    assert report == evaluation.report
    assert state.keys() == STATE.keys()
    assert state["epoch"] == 3
    torch.testing.assert_close(state["model"], STATE["model"], rtol=0, atol=0)
    assert state["optimizer"] == STATE["optimizer"]
    assert torch.equal(state["generator"], STATE["generator"])


def test_a_checkpoint_keeps_the_reports_before_for_whoever_does_not_know_them(tmp_path, evaluation, classes):
    before = [fake_report(epoch, quality=0.9, n_classes=3) for epoch in (1, 2)]

    save_checkpoint(tmp_path / "x.pt", evaluation, classes=classes, key="mine", earlier=before)

    assert load_checkpoint(tmp_path / "x.pt", key="mine").earlier == before


def test_nothing_is_left_beside_a_checkpoint(saved):
    assert list(saved.parent.iterdir()) == [saved]


def test_a_checkpoint_of_another_training_is_ignored(saved):
    assert load_checkpoint(saved, key="yours") is None


def test_a_missing_checkpoint_is_none(tmp_path):
    assert load_checkpoint(tmp_path / "x.pt", key="mine") is None


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_torn_checkpoint_is_ignored(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])

    assert load_checkpoint(saved, key="mine") is None


@pytest.mark.parametrize(
    "content",
    [
        {"key": "mine"},
        {"key": "mine", "report": "{}", "state": {}},
        {"key": "mine", "report": "torn {", "state": {}},
        {"report": "{}", "state": {}},
        ["mine"],
        torch.zeros(3),
    ],
    ids=repr,
)
def test_a_foreign_file_of_torch_is_ignored(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")

    assert load_checkpoint(tmp_path / "x.pt", key="mine") is None


def test_a_hostile_checkpoint_is_ignored_and_never_executed(tmp_path):
    trace = tmp_path / "trace"
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"key": "mine", "report": "{}", "state": Bait(trace)}))
    torch.save({"key": "mine", "report": "{}", "state": Bait(trace)}, tmp_path / "zipped.pt")

    found = [load_checkpoint(tmp_path / name, key="mine") for name in ("plain.pt", "zipped.pt")]

    assert found == [None, None]
    assert not trace.exists()


def test_a_directory_in_the_place_of_a_checkpoint_is_ignored(tmp_path):
    assert load_checkpoint(tmp_path, key="mine") is None


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path, evaluation, classes):
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"file/a/x\.pt: cannot be written \(Not a directory\)"):
        save_checkpoint(tmp_path / "file" / "a" / "x.pt", evaluation, classes=classes, key="mine")
