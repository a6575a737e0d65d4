"""Whatever can be searched makes a difference: a key that is read and then forgotten fails here."""

from typing import NamedTuple

import pytest

from search.trial.params import FIELDS
from search.trial.vocabulary import CHOICES, options_of

# Every field, and every option of everything to choose, with two values that train differently, or judge differently.
TWO_VALUES = {
    "epochs": (1, 2),
    "lr": (0.001, 0.01),
    "batch_size": (16, 32),
    "weight_decay": (0.0, 0.5),
    "ema": (0.0, 1.0),
    "grad_clip": (0.0, 1e-6),  # Adam takes gradients of any scale alike, down to its epsilon
    "subset": (0.3, 1.0),
    "precision": ("fp32", "bf16"),
    "decide_for": ("drawn", "uniform"),
    "test_time": ("single", "symmetries"),
    "seed": (0, 1),
    "sampling.power.alpha": (0.1, 0.9),
    "sampling.effective_number.beta": (0.1, 0.99),
    "sampling.per_class.per_class": (1, 20),
    "augment.symmetries_noise.noise": (0.0, 0.2),
    "augment.symmetries_shift.shift": (0.0, 0.3),
    "augment.symmetries_shift.noise": (0.0, 0.2),
    "augment.symmetries_affine.angle": (0.0, 90.0),
    "augment.symmetries_affine.scale": (0.0, 0.4),
    "augment.symmetries_affine.shift": (0.0, 0.3),
    "augment.symmetries_affine.noise": (0.0, 0.2),
    "mixing.mixup.alpha": (0.1, 5.0),
    "mixing.cutmix.alpha": (0.1, 5.0),
    "loss.cross_entropy.label_smoothing": (0.0, 0.2),
    "loss.focal.gamma": (0.0, 2.0),
    "loss.logit_adjusted.tau": (0.0, 1.0),
    "loss.class_balanced.beta": (0.0, 0.99),
    "optimizer.sgd.momentum": (0.0, 0.9),
    "schedule.cosine.warmup": (0.0, 0.5),
    "schedule.one_cycle.warmup": (0.0, 0.5),
    "schedule.warmup_stable_decay.warmup": (0.0, 0.5),
    "schedule.warmup_stable_decay.decay": (0.2, 1.0),
    "schedule.constant.warmup": (0.0, 0.5),
    "model.wafer_cnn.width": (4, 8),
    "model.wafer_cnn.depth": (1, 2),
    "model.wafer_cnn.dropout": (0.0, 0.5),
    "model.wafer_cnn.pooling": ("avg", "max"),
    "model.wafer_cnn.stem": ("full", "strided"),
    "model.wafer_cnn.norm": ("batch", "group"),
    "model.wafer_cnn.squeeze": (False, True),
    "model.wafer_cnn.mask_channel": (False, True),
    "model.wafer_resnet.width": (4, 8),
    "model.wafer_resnet.depth": (1, 2),
    "model.wafer_resnet.dropout": (0.0, 0.5),
    "model.wafer_resnet.pooling": ("max", "gem"),
    "model.wafer_resnet.stem": ("full", "strided"),
    "model.wafer_resnet.norm": ("group", "none"),
    "model.wafer_resnet.squeeze": (False, True),
    "model.wafer_resnet.mask_channel": (False, True),
    "model.wafer_resnet.drop_path": (0.0, 0.5),
    "model.resnet18.dropout": (0.0, 0.5),
    "model.efficientnet_b0.input_size": (32, 64),
    "model.efficientnet_b0.dropout": (0.0, 0.5),
}
# These need a file of pretrained weights; tests/models/test_efficientnet.py shows what they change.
WITH_WEIGHTS = {"model.efficientnet_b0.weights", "model.efficientnet_b0.freeze"}
# These change what is judged, and how; what is learned stays the same.
JUDGING = {"ema", "decide_for", "test_time"}


class Outcome(NamedTuple):
    """Of each epoch, what only echoes what happened; a whole report also repeats what was asked for."""

    train_losses: tuple
    judgements: tuple


@pytest.fixture
def outcome(make_data, read, train):
    def train_briefly(**flat):
        reports = train(read(**{"epochs": 1} | flat), make_data(epoch_samples=32))
        return Outcome(
            train_losses=tuple(report.train_loss for report in reports),
            judgements=tuple((report.val.loss, report.val.confusion) for report in reports),
        )

    return train_briefly


def test_the_table_covers_every_field_and_option():
    options = {
        f"{choice}.{name}.{key}" for choice in CHOICES for name in CHOICES[choice] for key in options_of(choice, name)
    }

    assert TWO_VALUES.keys() == FIELDS.keys() | options - WITH_WEIGHTS


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in JUDGING])
def test_changing_a_field_changes_the_training(field, outcome):
    one, other = TWO_VALUES[field]

    assert outcome(**{field: one}).train_losses != outcome(**{field: other}).train_losses


@pytest.mark.parametrize("field", sorted(JUDGING))
def test_changing_how_is_judged_changes_the_judgement_and_not_the_training(field, outcome):
    first, second = (outcome(**{field: value}) for value in TWO_VALUES[field])

    assert first.judgements != second.judgements
    assert first.train_losses == second.train_losses


def test_decisions_for_each_kind_of_class_shares_are_judged_differently(outcome):
    drawn_otherwise = {"sampling": "power"}

    found = {outcome(decide_for=wanted, **drawn_otherwise).judgements for wanted in ("drawn", "natural", "uniform")}

    assert len(found) == 3


@pytest.mark.parametrize("key", [key for key in TWO_VALUES if key not in FIELDS])
def test_changing_an_option_changes_the_training(key, outcome):
    choice, name, _ = key.split(".")
    one, other = TWO_VALUES[key]

    assert outcome(**{choice: name, key: one}).train_losses != outcome(**{choice: name, key: other}).train_losses


@pytest.mark.parametrize(
    "choice", [pytest.param(choice, marks=[pytest.mark.slow] if choice == "model" else []) for choice in CHOICES]
)
def test_everything_to_choose_trains_in_its_own_way(choice, outcome):
    # Progressive sampling is one only in the second epoch; the latest fall of the rate shows only in the judgement.
    found = {outcome(**{choice: name, "epochs": 2}) for name in CHOICES[choice]}

    assert len(found) == len(CHOICES[choice])


def test_epochs_is_the_number_of_reports(outcome):
    assert [len(outcome(epochs=epochs).train_losses) for epochs in (1, 3)] == [1, 3]
