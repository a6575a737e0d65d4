import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

import search.retrain
from data_pipeline.batches import plain_batches
from search.errors import ConfigError
from search.final import members, retraining
from search.final.model_file import load_model, save_model
from search.final.retraining import TRAIN_VAL, RetrainRequest, retrain
from search.space.config import DataConfig
from search.space.strict_yaml import dump_yaml
from search.study.checkpoints import save_tensors
from search.study.confirmation import divide, predictions_path
from search.study.data import open_data
from search.study.records import StudyFolder, append_line, confirm_folder, write_atomically
from search.study.rows import COMPLETE, TrialRecord, to_row
from search.testing import fake_report
from search.trial.calibration import fit_rule
from search.trial.evaluation import judge_calls, judge_model
from search.trial.params import from_flat

CONFIG = DataConfig(wafers="synthetic", synthetic_wafers=600, image_size=16, epoch_samples=256)
FLAT = {"epochs": 4, "model.wafer_cnn.width": 4, "precision": "fp32", "lr": 0.01, "seed": 3}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_data(CONFIG, results=tmp_path_factory.mktemp("results"))


@pytest.fixture
def train(tmp_path, dataset):
    """Retrain a best.yaml; return the model, what was said and the folder."""
    best = tmp_path / "study" / "best.yaml"
    tree = {"format": 2, "study": "tiny", "trial": 0, "data": CONFIG.model_dump(), "cpu_threads": 1}
    tree |= {"data_fingerprint": dataset.wafers.fingerprint, "split_fingerprint": dataset.splits.fingerprint}
    write_atomically(best, dump_yaml(tree | {"params": from_flat(FLAT, where="", image_size=16).to_flat()}))

    def train_it(*, out="out", **options):
        console = Console(file=io.StringIO(), width=200)
        request = RetrainRequest(best=best, out=tmp_path / out, results=tmp_path / "results", **options)
        assert retrain(request, console) == 0
        return load_model(tmp_path / out / "model.pt"), console.file.getvalue(), tmp_path / out

    return train_it


@pytest.fixture
def val(dataset):
    return dataset.encode("val")


def weights_of(trained):
    return [tensor for member in trained.model.members for tensor in member.state_dict().values()]


def are_equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(weights_of(one), weights_of(other), strict=True))


def test_several_seeds_become_one_model_that_averages_their_probabilities(train, val):
    both, said, out = train(seeds=(3, 4))
    alone = [train(seeds=(seed,), out=f"out-{seed}")[0] for seed in (3, 4)]
    wafers = next(plain_batches(val))[0]

    with torch.inference_mode():
        mean = torch.stack([each.model(wafers).softmax(1) for each in alone]).mean(0)
        assert torch.allclose(both.model(wafers).softmax(1), mean, atol=1e-6)
    assert both.seeds == (3, 4)
    assert "2 members together" in said
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    assert metrics["seeds"] == [3, 4]
    assert metrics["together"]["val_confusion"] == [
        list(row) for row in judge_model(both.model, val, n_classes=9, dtype=torch.float32).confusion
    ]
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "curves.png",
        "epochs.jsonl",
        "metrics.json",
        "model.pt",
    ]


@pytest.mark.parametrize("after", [2, 5])
def test_a_training_that_is_killed_goes_on_to_the_same_model(train, monkeypatch, after):
    whole, _, _ = train(seeds=(3, 4))
    written = []

    def die(path, row):
        if len(written) == after:
            raise KeyboardInterrupt
        written.append(row)
        append_line(path, row)

    monkeypatch.setattr(members, "append_line", die)
    with pytest.raises(KeyboardInterrupt):
        train(seeds=(3, 4), out="killed")
    monkeypatch.undo()

    again, said, out = train(seeds=(3, 4), out="killed")

    assert are_equal(again, whole)
    assert "going on after epoch" in said
    assert ("seed 3: is finished already" in said) == (after == 5)
    rows = [json.loads(line) for line in (out / "epochs.jsonl").read_text("utf-8").splitlines()]
    assert [(row["seed"], row["epoch"]) for row in rows] == [(seed, n) for seed in (3, 4) for n in (1, 2, 3, 4)]


def test_what_another_training_left_is_not_gone_on_from(train, monkeypatch):
    monkeypatch.setattr(members, "append_line", lambda path, row: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(test_time="symmetries")
    monkeypatch.undo()

    _, said, _ = train()

    assert "going on" not in said


def test_the_best_epoch_is_the_one_with_the_best_validation(train, dataset, val):
    trained, said, out = train(epoch="best")
    last, _, _ = train(out="last")

    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    rows = [json.loads(line) for line in (out / "epochs.jsonl").read_text("utf-8").splitlines()]
    scores = [row["val_balanced_macro_f1"] for row in rows]
    assert metrics["epoch"] == [1 + scores.index(max(scores))]
    found = judge_model(trained.model, val, n_classes=9, dtype=torch.float32)
    assert found.scores.balanced_macro_f1 == pytest.approx(max(scores))
    assert are_equal(trained, last) == (metrics["epoch"] == [4])
    assert metrics["at_epoch"][0]["val_balanced_macro_f1"] == max(scores)
    assert f"the weights after epoch {metrics['epoch'][0]} are taken" in said


def test_the_best_epoch_outlives_a_kill_between_the_checkpoint_and_its_weights(train, monkeypatch):
    whole, _, out = train(epoch="best")
    best = json.loads((out / "metrics.json").read_text("utf-8"))["epoch"]

    def die(content, path):
        if path.name == "best-epoch.pt" and [content["epoch"]] == best:
            raise KeyboardInterrupt
        save_tensors(content, path)

    monkeypatch.setattr(members, "save_tensors", die)
    with pytest.raises(KeyboardInterrupt):
        train(epoch="best", out="killed")
    monkeypatch.undo()

    again, said, _ = train(epoch="best", out="killed")

    assert f"going on after epoch {best[0]}" in said
    assert are_equal(again, whole)


def test_on_validation_the_rule_is_fitted_and_kept(train):
    trained, said, _ = train()

    assert trained.rule.n_fitted > 100
    assert trained.rule.temperature != 1.0
    assert f"temperature {trained.rule.temperature:.3f}" in said
    assert "+ marks the best balanced macro-F1 on validation so far" in said


def test_what_the_thresholds_give_on_validation_is_said(train, val, monkeypatch):
    shifts = (0.0, 2.0, 0.0, -1.0, 0.0, 0.0, 0.0, 3.0, 0.0)  # on so few wafers none are fitted
    monkeypatch.setattr(retraining, "fit_rule", lambda *known, **more: replace(fit_rule(*known, **more), shifts=shifts))

    trained, said, _ = train()

    wafers, labels = next(plain_batches(val))
    with torch.inference_mode():
        logits = trained.model(wafers)
    called = trained.rule.call(trained.rule.probabilities(logits))
    scores = judge_calls(logits, called, labels, n_classes=9).scores
    assert len(labels) == len(val)
    assert f"fitted on: macro-F1 {100 * scores.macro_f1:.2f}, balanced {100 * scores.balanced_macro_f1:.2f}" in said
    assert "validation without class thresholds" in said


def test_every_wafer_that_the_model_saw_is_remembered(train, dataset):
    trained, _, _ = train()

    splits, content = dataset.splits, dataset.wafers.content
    assert np.isin(content[splits.train], trained.seen).all()
    assert np.isin(content[splits.val], trained.seen).all()
    assert not np.isin(content[splits.test], trained.seen).any()


def test_trained_on_all_nothing_is_calibrated_on_wafers_that_it_was_trained_on(train):
    trained, said, _ = train(on=TRAIN_VAL)

    assert trained.rule.n_fitted == 0
    assert "nothing is calibrated" in said and "search.confirm" in said


def test_trained_on_all_the_rule_comes_from_models_of_other_folds(train, tmp_path, dataset):
    folder = confirm_folder(StudyFolder(tmp_path / "study"))
    random = np.random.default_rng(0)
    for number, division in enumerate(divide(dataset, n_folds=2)[1:]):
        record = TrialRecord(
            number=number, config={**FLAT, "seed": 2_002_001 + number}, epochs=1, status=COMPLETE, values=[0.5],
            shortfalls=[0.0], reports=[fake_report(1, quality=0.5, n_classes=9)],
        )  # fmt: skip
        path = predictions_path(folder, 2_002_001 + number, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = dataset.wafers.labels[division.val]
        np.save(path, (6 * np.eye(9)[labels] + random.normal(0, 3, (len(labels), 9))).astype(np.float32))
        append_line(folder.trials, to_row(record, classes=dataset.wafers.classes, elapsed=1.0))

    trained, said, _ = train(on=TRAIN_VAL)

    assert trained.rule.n_fitted == len(dataset.splits.train) + len(dataset.splits.val)
    assert "of another fold" in said

    shifted, said, _ = train(on=TRAIN_VAL, out="shifted", changes={"decide_for": "uniform"})
    assert shifted.rule.n_fitted == 0  # the folds' logits hold another shift

    student, said, _ = train(on=TRAIN_VAL, out="student", teacher=tmp_path / "out" / "model.pt")
    assert student.rule.n_fitted == 0
    assert "had no teacher" in said


def test_a_student_takes_after_its_teacher(train, dataset):
    """The teacher here calls everything one class: no label says so."""
    teacher, _, folder = train(out="teacher")
    network = teacher.model.members[0].network
    torch.nn.init.zeros_(network[-1].weight)
    network[-1].bias.data = 20.0 * torch.eye(9)[4]
    save_model(teacher, folder / "model.pt")

    student, said, _ = train(teacher=folder / "model.pt", teacher_weight=1.0, changes={"epochs": 6, "lr": 0.02})

    labels = dataset.wafers.labels[dataset.splits.val]
    wafers = next(plain_batches(dataset.encode("val")))[0]
    with torch.inference_mode():
        called = student.model(wafers).argmax(1)
    assert (called == 4).float().mean() > 0.95 > (labels == 4).mean()
    assert "asking the teacher" in said


def test_a_teacher_that_saw_what_the_student_is_judged_by_is_refused(train):
    _, _, folder = train(on=TRAIN_VAL, out="teacher")

    with pytest.raises(ConfigError, match="has seen the student's validation wafers"):
        train(teacher=folder / "model.pt")


def test_a_teacher_of_another_division_is_refused(train):
    teacher, _, folder = train(out="teacher")
    save_model(replace(teacher, split_fingerprint="another"), folder / "model.pt")

    with pytest.raises(ConfigError, match="was trained on the split another"):
        train(teacher=folder / "model.pt")


def test_changed_values_are_trained_and_kept(train):
    trained, _, _ = train(changes={"model.wafer_cnn.width": 8, "epochs": 1})

    assert (trained.config["model.wafer_cnn.width"], trained.config["epochs"]) == (8, 1)
    with pytest.raises(ConfigError, match=r"--set model\.wafer_cnn\.widht: is not in"):
        train(changes={"model.wafer_cnn.widht": 8})


def test_there_is_no_best_epoch_without_validation(train):
    with pytest.raises(ConfigError, match="--epoch best: needs validation wafers"):
        train(on=TRAIN_VAL, epoch="best")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds: must be at least 1"),
        (["--seeds", "2", "--seed", "1"], "--seeds: must be at least 1, and stand without --seed"),
        (["--seed", "1", "1"], "--seed: must be different ones; got 1 1"),
        (["--seed", "-1"], "--seed: must be in [0, 2147483648); got -1"),
        (["--threads", "0"], "--threads: must be at least 1"),
        (["--teacher-weight", "0"], "--teacher-weight: must be in (0, 1]; got 0"),
        (["--set", "lr=0.1"], "--set: is another configuration than the study's best; give it a folder by --out"),
    ],
)
def test_bad_options_are_refused(arguments, message, capsys):
    assert search.retrain.main(["nothing", *arguments]) == 2
    assert message in capsys.readouterr().err
