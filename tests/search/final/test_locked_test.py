import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from data_pipeline.dataset import Dataset
from search.final.locked_test import EvaluateRequest, evaluate
from search.final.model_file import load_model, save_model
from search.space.config import DataConfig
from search.space.strict_yaml import dump_yaml
from search.study.data import open_data
from search.study.predictions import NAME, read_predictions
from search.study.records import StudyFolder, write_atomically
from search.trial.evaluation import judge_model

CONFIG = DataConfig(wafers="synthetic", synthetic_wafers=600, image_size=16, epoch_samples=256)


@pytest.fixture(scope="module")
def tested(tmp_path_factory, make_trained):
    """An untrained model that decides for other shares and looks at each wafer eight times, tested twice."""
    results = tmp_path_factory.mktemp("results")
    study, dataset = StudyFolder(results / "tiny"), open_data(CONFIG, results=results)
    prints = {"data_fingerprint": dataset.wafers.fingerprint, "split_fingerprint": dataset.splits.fingerprint}
    trained = make_trained(shift=torch.linspace(-1, 1, 9), test_time="symmetries", picture=dataset.picture, **prints)
    save_model(trained, study.final / "model.pt")
    best = {"format": 2, "study": "tiny", "trial": 0, "data": CONFIG.model_dump(), "cpu_threads": 1}
    write_atomically(study.best, dump_yaml(best | prints | {"params": dict(trained.config)}))
    said, stored = [], []
    for _ in range(2):
        console = Console(file=io.StringIO(), width=80)
        assert evaluate(EvaluateRequest(study=study, results=results), console) == 0
        said.append(console.file.getvalue())
        stored.append((study.final / NAME).read_bytes())
    return study, dataset, said, stored


@pytest.fixture
def study(tested) -> StudyFolder:
    return tested[0]


@pytest.fixture
def dataset(tested) -> Dataset:
    return tested[1]


def test_every_test_wafer_is_stored_once_with_its_lot_and_label(study, dataset):
    found, test = read_predictions(study), dataset.splits.test

    np.testing.assert_array_equal(found.wafers, test)
    np.testing.assert_array_equal(found.labels, dataset.wafers.labels[test])
    assert list(found.lots) == [dataset.wafers.lot_names[lot] for lot in dataset.wafers.lots[test]]
    assert found.classes == dataset.wafers.classes


def test_probabilities_are_those_that_the_model_decides_by(study, dataset):
    found, model = read_predictions(study), load_model(study.final / "model.pt").model
    maps = dataset.encode("test").maps
    shares = maps.permute(0, 3, 1, 2).float() / 255

    with torch.inference_mode():
        expected = model(shares).softmax(1).numpy()

    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(found.probabilities.argmax(1), found.predicted)


def test_they_give_the_confusion_matrix_of_the_ledger(study, dataset):
    found = read_predictions(study)
    confusion = np.zeros((9, 9), dtype=int)
    np.add.at(confusion, (found.labels, found.predicted), 1)

    looks = json.loads((study.final / "test.json").read_text("utf-8"))["looks"]

    assert confusion.tolist() == looks[-1]["test_confusion"]
    model = load_model(study.final / "model.pt").model
    judged = judge_model(model, dataset.encode("test"), n_classes=9, dtype=torch.float32)
    assert [list(row) for row in judged.confusion] == confusion.tolist()
    assert judged.loss == looks[-1]["test_loss"]


def test_they_say_which_model_and_wafers_they_are_of(study, dataset):
    origin = read_predictions(study).origin
    looks = json.loads((study.final / "test.json").read_text("utf-8"))["looks"]

    assert (origin.model, origin.when) == (looks[-1]["model"], looks[-1]["when"])
    assert origin.data_fingerprint == dataset.wafers.fingerprint
    assert origin.split_fingerprint == dataset.splits.fingerprint
    assert (origin.synthetic, origin.leaky, origin.protocol) == (True, "", "lot")
    assert origin.config["test_time"] == "symmetries"


def test_a_second_look_is_counted_and_predicts_the_same(tested):
    study, _, said, _ = tested
    looks = json.loads((study.final / "test.json").read_text("utf-8"))["looks"]

    assert len(looks) == 2
    assert "first look" in said[0]
    assert "look 2" in said[1]
    assert NAME in said[1]
    assert looks[0]["test_confusion"] == looks[1]["test_confusion"]


def test_no_row_of_the_table_is_broken_where_there_is_no_terminal(tested):
    rows = [line for line in tested[2][0].splitlines() if line.startswith("│")]

    assert len(rows) == 2 + 9 + 2  # two means, the classes, the worst and accuracy
    assert "│ balanced macro-F1 " in rows[0] and rows[0].count("[") == rows[0].count("]") == 1


def test_it_says_what_to_type_next(tested):
    study, _, said, _ = tested

    assert f"python -m search.export {study.path}\n" in said[0]


def test_the_same_probabilities_are_read_for_the_shares_of_the_training_part_too(tested):
    _, dataset, said, _ = tested

    natural = np.bincount(dataset.wafers.labels[dataset.splits.train]) / len(dataset.splits.train)
    assert natural.max() > 0.5 > 1 / 9  # which the model takes for granted
    assert "Read for the class shares of the training part instead" in " ".join(said[0].split())


def test_probabilities_are_single_precision_and_nothing_else_is_left_behind(study):
    table = pq.read_table(study.final / NAME)

    assert {str(table.schema.field(f"probability {name}").type) for name in read_predictions(study).classes} == {
        "float"
    }
    assert not [path for path in study.final.iterdir() if path.name.endswith(".partial")]
