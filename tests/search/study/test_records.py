import json

import pytest
import torch

from search.errors import ConfigError
from search.study.best import load_best, write_best
from search.study.checkpoints import load_checkpoint, save_checkpoint
from search.study.provenance import check_same_study, record_attempt
from search.study.records import StudyFolder, find_study, lock_folder, write_atomically
from search.study.rows import report_from_row, report_to_row
from search.testing import drive, fake_report, quality_by_lr
from search.trial.training import Evaluation

DATA = {
    "source": "made up",
    "synthetic": True,
    "classes": ["Center", "Edge-Ring", "none"],
    "fingerprint": "aaa",
    "split_fingerprint": "bbb",
    "leak_check": "nothing leaks",
    "wafers": {"train": 1, "val": 1, "test": 1},
}


@pytest.fixture
def finished(folder, make_config, open_study):
    """A study with a best.yaml."""
    study = open_study(folder, make_config(trials=3))
    record_attempt(folder, study.config, DATA, space_text="name: fake\n", device="none")
    drive(study, quality_of=quality_by_lr)
    write_best(study, DATA)
    return study


def edit(path, old, new):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def test_a_report_survives_its_row(classes):
    report = fake_report(3, quality=0.7, n_classes=3)

    row = json.loads(json.dumps(report_to_row(report, classes), allow_nan=False))

    assert report_from_row(row) == report


def test_a_write_leaves_the_old_file_or_the_new_one_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "file", "old")
    write_atomically(tmp_path / "file", "new")

    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "new"


def test_an_unwritable_place_is_said(tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(ConfigError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "below", "text")
    with pytest.raises(ConfigError, match="cannot be written"):
        lock_folder(tmp_path / "file" / "below")


def test_a_study_is_found_by_folder_or_by_name_and_others_are_named(finished):
    results = finished.folder.path.parent

    assert find_study("a-study", results=results).path == finished.folder.path
    assert find_study(str(finished.folder.path)).path == finished.folder.path
    with pytest.raises(ConfigError, match=r"b-study: no study there; known: .*a-study"):
        find_study("b-study", results=results)


def test_a_checkpoint_goes_on_only_for_the_same_training(tmp_path, classes):
    report = fake_report(2, quality=0.5, n_classes=3)
    evaluation = Evaluation(report=report, state={"epoch": 2, "weights": torch.ones(2)})
    save_checkpoint(tmp_path / "c.pt", evaluation, classes=classes, key="this")

    found, state = load_checkpoint(tmp_path / "c.pt", key="this")

    assert found == report
    assert state["weights"].tolist() == [1.0, 1.0]
    assert load_checkpoint(tmp_path / "c.pt", key="another") is None
    assert load_checkpoint(tmp_path / "missing.pt", key="this") is None
    (tmp_path / "c.pt").write_bytes((tmp_path / "c.pt").read_bytes()[:100])
    assert load_checkpoint(tmp_path / "c.pt", key="this") is None


def test_best_yaml_holds_the_whole_configuration_of_the_best_trial(finished):
    best = load_best(finished.folder.best)

    flat = best.params.to_flat()
    config = finished.best.config
    assert best.trial == finished.best.number
    assert flat["lr"] == config["lr"]
    assert flat["model"] == config["model"]
    assert best.data == finished.config.data
    assert "SYNTHETIC" in finished.folder.best.read_text("utf-8")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format: 1", "format: 7", "must be a best.yaml of format 1"),
        ("trial: ", "tiral: ", "did you mean 'trial'"),
        ("trial: ", "tiral: ", "lacks trial"),
        ("cpu_threads: 1", "cpu_threads: none", "cpu_threads: must be a whole number from 1"),
        ("image_size: 16", "image_size: 4", "data.image_size: must be >= 8"),
        ("  epochs: 4", "  epochs: 0", r"epochs: must be a whole number in \[1, 10000\]; got 0"),
        ("  optimizer: adamw", "  optimizer: adamww", "did you mean 'adamw'"),
    ],
)
def test_a_badly_edited_best_yaml_is_refused(finished, old, new, message):
    edit(finished.folder.best, old, new)

    with pytest.raises(ConfigError, match=message):
        load_best(finished.folder.best)


def test_a_study_without_an_end_writes_no_best(folder, make_config, open_study):
    study = open_study(folder, make_config())

    assert write_best(study, DATA) is None
    assert not folder.best.exists()


def test_a_study_may_be_extended_but_not_changed(finished, make_config):
    folder = finished.folder

    check_same_study(folder, make_config(trials=99, time="3h"), DATA)
    with pytest.raises(ConfigError, match=r"search\.sampler: was 'tpe', is 'random'"):
        check_same_study(folder, make_config(sampler="random"), DATA)
    with pytest.raises(ConfigError, match=r"space\.epochs: was 4, is 5"):
        check_same_study(folder, make_config(epochs="5"), DATA)
    with pytest.raises(ConfigError, match=r"data fingerprint: was aaa .*, is ccc"):
        check_same_study(folder, make_config(), DATA | {"fingerprint": "ccc"})


def test_a_new_study_is_no_other_study(tmp_path, make_config):
    check_same_study(StudyFolder(tmp_path / "new"), make_config(), DATA)


def test_every_attempt_is_written_down(finished):
    record_attempt(finished.folder, finished.config, DATA, space_text="name: fake\n", device="none")

    provenance = json.loads(finished.folder.provenance.read_text("utf-8"))
    assert len(provenance["attempts"]) == 2
    assert provenance["attempts"][0]["versions"]["torch"] == torch.__version__.split("+")[0]
