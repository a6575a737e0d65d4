"""Whatever can be searched makes a difference: a key that is read and then forgotten fails here."""

import pytest

from search.trial.params import FIELDS
from search.trial.vocabulary import CHOICES, options_of

# Every field, and every option of everything to choose, with two values that train differently.
TWO_VALUES = {
    "epochs": (1, 2),
    "lr": (0.001, 0.01),
    "batch_size": (16, 32),
    "weight_decay": (0.0, 0.5),
    "grad_clip": (0.0, 1e-6),  # Adam takes gradients of any scale alike, down to its epsilon
    "subset": (0.3, 1.0),
    "precision": ("fp32", "bf16"),
    "seed": (0, 1),
    "sampling.power.alpha": (0.1, 0.9),
    "sampling.effective_number.beta": (0.1, 0.99),
    "sampling.per_class.per_class": (1, 20),
    "augment.symmetries_shift.shift": (0.0, 0.3),
    "augment.symmetries_affine.angle": (0.0, 90.0),
    "augment.symmetries_affine.scale": (0.0, 0.4),
    "augment.symmetries_affine.shift": (0.0, 0.3),
    "loss.cross_entropy.label_smoothing": (0.0, 0.2),
    "optimizer.sgd.momentum": (0.0, 0.9),
    "schedule.cosine.warmup": (0.0, 0.5),
    "schedule.one_cycle.warmup": (0.0, 0.5),
    "model.wafer_cnn.width": (4, 8),
    "model.wafer_cnn.depth": (1, 2),
    "model.wafer_cnn.dropout": (0.0, 0.5),
    "model.wafer_cnn.pooling": ("avg", "max"),
    "model.wafer_cnn.stem": ("full", "strided"),
    "model.wafer_resnet.width": (4, 8),
    "model.wafer_resnet.depth": (1, 2),
    "model.wafer_resnet.dropout": (0.0, 0.5),
    "model.wafer_resnet.pooling": ("max", "avgmax"),
    "model.resnet18.dropout": (0.0, 0.5),
    "model.efficientnet_b0.input_size": (32, 64),
    "model.efficientnet_b0.dropout": (0.0, 0.5),
}
# These need a file of pretrained weights; tests/models/test_efficientnet.py shows what they change.
WITH_WEIGHTS = {"model.efficientnet_b0.weights", "model.efficientnet_b0.freeze"}


@pytest.fixture
def losses(make_data, read, train):
    """Train, and return the training loss of each epoch: unlike the whole report, it only echoes what happened."""

    def train_briefly(**flat):
        reports = train(read(**{"epochs": 1} | flat), make_data(epoch_samples=32))
        return tuple(report.train_loss for report in reports)

    return train_briefly


def test_the_table_covers_every_field_and_option():
    options = {
        f"{choice}.{name}.{key}" for choice in CHOICES for name in CHOICES[choice] for key in options_of(choice, name)
    }

    assert TWO_VALUES.keys() == FIELDS.keys() | options - WITH_WEIGHTS


@pytest.mark.parametrize("field", FIELDS)
def test_changing_a_field_changes_the_training(field, losses):
    one, other = TWO_VALUES[field]

    assert losses(**{field: one}) != losses(**{field: other})


@pytest.mark.parametrize("key", [key for key in TWO_VALUES if key not in FIELDS])
def test_changing_an_option_changes_the_training(key, losses):
    choice, name, _ = key.split(".")
    one, other = TWO_VALUES[key]

    assert losses(**{choice: name, key: one}) != losses(**{choice: name, key: other})


@pytest.mark.parametrize("choice", CHOICES)
def test_everything_to_choose_trains_in_its_own_way(choice, losses):
    found = [losses(**{choice: name, "epochs": 2}) for name in CHOICES[choice]]  # progressive is one only in the second

    assert len(set(found)) == len(CHOICES[choice])


def test_epochs_is_the_number_of_reports(losses):
    assert [len(losses(epochs=epochs)) for epochs in (1, 3)] == [1, 3]
