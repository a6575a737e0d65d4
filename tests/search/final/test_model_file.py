import os
import pickle
from dataclasses import replace

import pytest
import torch

from data_pipeline.encode import Picture
from search.errors import ConfigError
from search.final.model_file import load_model, save_model
from search.trial.prediction import Ensemble, Predictor

CLASSES = ("Center", "none")


class Hostile:
    """Pickles into a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def trained(make_trained):
    picture = Picture(image_size=16, aspect="kept", encoding="coverage")
    shift = torch.tensor([0.5, -0.5])
    return make_trained(classes=CLASSES, shift=shift, test_time="symmetries", picture=picture)


def change(path, **changes):
    torch.save(torch.load(path, weights_only=True) | changes, path)


def test_a_model_survives_its_file(trained, tmp_path):
    save_model(trained, tmp_path / "model.pt")
    wafers = torch.rand(3, 2, 16, 16)

    loaded = load_model(tmp_path / "model.pt")

    assert torch.equal(loaded.model(wafers), trained.model(wafers))
    assert (loaded.classes, loaded.picture, loaded.on) == (CLASSES, trained.picture, "train")
    assert loaded.config == trained.config
    assert loaded.is_synthetic


def with_shares(trained, *shares):
    """The same network once for each of these class shares."""
    [member] = trained.model.members
    members = [Predictor(member.network, shift=torch.zeros(2), shares=torch.tensor(each)) for each in shares]
    return replace(trained, model=Ensemble(members))


def test_several_members_take_the_mean_of_their_class_shares_for_granted(trained):
    assert with_shares(trained, [0.5, 0.5], [0.9, 0.1]).shares == pytest.approx([0.7, 0.3])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_class_shares_can_be_reckoned_with_where_the_model_is_on_a_gpu(trained):
    trained.model.cuda()

    assert trained.shares == pytest.approx([0.5, 0.5])


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file; train it with `python -m search\.retrain STUDY`"):
        load_model(tmp_path / "model.pt")


def test_a_truncated_file_is_refused(trained, tmp_path):
    save_model(trained, tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:500])

    with pytest.raises(ConfigError, match="is not a model file of ours, or damaged"):
        load_model(tmp_path / "model.pt")


def test_a_hostile_file_is_refused_and_nothing_runs(tmp_path):
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Hostile(f"touch {tmp_path / 'ran'}")))
    torch.save({"format": 1, "config": Hostile(f"touch {tmp_path / 'ran'}")}, tmp_path / "zipped.pt")

    for name in ("model.pt", "zipped.pt"):
        with pytest.raises(ConfigError, match="is not a model file of ours, or damaged"):
            load_model(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 1}, "is not a model file of format 3"),
        ({"classes": ["Center", "Donut", "none"]}, "does not fit this version"),
        ({"members": [{}]}, "does not fit this version"),
        ({"rule": {"temperature": 1.0}}, "does not fit this version"),
        ({"config": {"model": "wafer_cnnn"}}, "did you mean 'wafer_cnn'"),
        ({"config": None}, "does not fit this version"),
    ],
)
def test_a_file_of_another_kind_is_refused(trained, tmp_path, changes, message):
    save_model(trained, tmp_path / "model.pt")
    change(tmp_path / "model.pt", **changes)

    with pytest.raises(ConfigError, match=message):
        load_model(tmp_path / "model.pt")
