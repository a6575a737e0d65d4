import pytest

from models import ModelError
from search.trial.params import Chosen, TrialParams
from search.trial.vocabulary import CHOICES, check_options, check_type, describe_type, nearest, options_of

# Everything to choose, with the options of each.
OPTIONS = {
    "sampling": {
        "imbalanced": [],
        "balanced": [],
        "power": ["alpha"],
        "progressive": [],
        "effective_number": ["beta"],
        "per_class": ["per_class"],
    },
    "augment": {
        "none": [],
        "symmetries": [],
        "symmetries_noise": ["noise"],
        "symmetries_shift": ["shift", "noise"],
        "symmetries_affine": ["angle", "scale", "shift", "noise"],
        "deck": [],
    },
    "mixing": {"none": [], "mixup": ["alpha"], "cutmix": ["alpha"]},
    "loss": {
        "cross_entropy": ["label_smoothing"],
        "focal": ["gamma"],
        "logit_adjusted": ["tau"],
        "class_balanced": ["beta"],
    },
    "optimizer": {"adam": [], "adamw": [], "sgd": ["momentum"]},
    "schedule": {
        "cosine": ["warmup"],
        "one_cycle": ["warmup"],
        "warmup_stable_decay": ["warmup", "decay"],
        "constant": ["warmup"],
    },
    "model": {
        "wafer_cnn": ["width", "depth", "dropout", "pooling", "stem", "norm", "squeeze", "mask_channel"],
        "wafer_resnet": [
            "width",
            "depth",
            "dropout",
            "pooling",
            "stem",
            "norm",
            "squeeze",
            "mask_channel",
            "drop_path",
        ],
        "resnet18": ["dropout"],
        "efficientnet_b0": ["weights", "freeze", "input_size", "dropout"],
    },
}
# Choice, name, option, a value of another type, a value outside the range, and what is said before each.
BAD = [
    ("sampling", "power", "alpha", "half", 1.5, "a number", r"in \[0, 1\]"),
    ("sampling", "effective_number", "beta", None, 1.0, "a number", r"in \[0, 1\)"),
    ("sampling", "per_class", "per_class", 20.0, 0, "a whole number", r"in \[1, 1000000\]"),
    ("augment", "symmetries_noise", "noise", "loud", 0.3, "a number", r"in \[0, 0\.2\]"),
    ("augment", "symmetries_shift", "shift", True, 0.6, "a number", r"in \[0, 0\.5\]"),
    ("augment", "symmetries_shift", "noise", None, -0.1, "a number", r"in \[0, 0\.2\]"),
    ("augment", "symmetries_affine", "angle", "15", 181.0, "a number", r"in \[0, 180\]"),
    ("augment", "symmetries_affine", "scale", None, -0.1, "a number", r"in \[0, 0\.5\]"),
    ("augment", "symmetries_affine", "shift", [0.1], 0.6, "a number", r"in \[0, 0\.5\]"),
    ("augment", "symmetries_affine", "noise", False, 0.3, "a number", r"in \[0, 0\.2\]"),
    ("mixing", "mixup", "alpha", "even", 0.0, "a number", r"in \(0, 10\]"),
    ("mixing", "cutmix", "alpha", True, 10.5, "a number", r"in \(0, 10\]"),
    ("loss", "cross_entropy", "label_smoothing", False, 0.6, "a number", r"in \[0, 0\.5\]"),
    ("loss", "focal", "gamma", "hard", 5.5, "a number", r"in \[0, 5\]"),
    ("loss", "logit_adjusted", "tau", None, -0.1, "a number", r"in \[0, 2\]"),
    ("loss", "class_balanced", "beta", True, 1, "a number", r"in \[0, 1\)"),
    ("optimizer", "sgd", "momentum", "high", 1, "a number", r"in \[0, 1\)"),
    ("schedule", "cosine", "warmup", "long", 0.95, "a number", r"in \[0, 0\.9\]"),
    ("schedule", "one_cycle", "warmup", True, -0.1, "a number", r"in \[0, 0\.9\]"),
    ("schedule", "warmup_stable_decay", "warmup", None, 0.91, "a number", r"in \[0, 0\.9\]"),
    ("schedule", "warmup_stable_decay", "decay", "late", 0.0, "a number", r"in \(0, 1\]"),
    ("schedule", "constant", "warmup", False, 1, "a number", r"in \[0, 0\.9\]"),
    ("model", "wafer_cnn", "width", 32.0, 257, "a whole number", r"a whole number in \[4, 256\]"),
    ("model", "wafer_cnn", "depth", True, 5, "a whole number", r"a whole number in \[1, 4\]"),
    ("model", "wafer_cnn", "dropout", "0.1", 0.95, "a number", r"a number in \[0, 0\.9\]"),
    ("model", "wafer_cnn", "pooling", 1, "mean", "a word", "one of avg, max, avgmax, gem"),
    ("model", "wafer_cnn", "stem", False, "half", "a word", "one of full, strided"),
    ("model", "wafer_cnn", "norm", None, "layer", "a word", "one of batch, group, none"),
    ("model", "wafer_resnet", "width", "wide", 3, "a whole number", r"a whole number in \[4, 256\]"),
    ("model", "wafer_resnet", "depth", 1.0, 0, "a whole number", r"a whole number in \[1, 4\]"),
    ("model", "wafer_resnet", "dropout", True, -0.1, "a number", r"a number in \[0, 0\.9\]"),
    ("model", "wafer_resnet", "pooling", 0.5, "sum", "a word", "one of avg, max, avgmax, gem"),
    ("model", "wafer_resnet", "stem", 2, "", "a word", "one of full, strided"),
    ("model", "wafer_resnet", "norm", True, "Batch", "a word", "one of batch, group, none"),
    ("model", "wafer_resnet", "drop_path", "some", 0.6, "a number", r"a number in \[0, 0\.5\]"),
    ("model", "resnet18", "dropout", "none", 1.0, "a number", r"a number in \[0, 0\.9\]"),
    ("model", "efficientnet_b0", "freeze", 0, "head", "a word", "one of none, backbone"),
    ("model", "efficientnet_b0", "input_size", 64.0, 16, "a whole number", r"a whole number in \[32, 512\]"),
    ("model", "efficientnet_b0", "dropout", "much", 0.95, "a number", r"a number in \[0, 0\.9\]"),
]
# No word is outside the range of these: any may be the path of a file.
PATHS = {("model", "efficientnet_b0", "weights")}
# Nor is either truth value outside the range of these; with a value of another type.
FLAGS = {
    ("model", "wafer_cnn", "squeeze"): 1,
    ("model", "wafer_cnn", "mask_channel"): "yes",
    ("model", "wafer_resnet", "squeeze"): None,
    ("model", "wafer_resnet", "mask_channel"): 0.0,
}
WRONG_TYPE = [(*row[:3], row[3], row[5]) for row in BAD] + [
    (*option, value, "true or false") for option, value in FLAGS.items()
]

everything = pytest.mark.parametrize(
    ("choice", "name"), [(choice, name) for choice, names in OPTIONS.items() for name in names]
)


def test_the_choices_are_the_fields_of_a_trial_that_hold_something_chosen():
    chosen = [name for name, field in TrialParams.model_fields.items() if field.annotation is Chosen]

    assert sorted(CHOICES) == sorted(chosen)


def test_everything_to_choose_is_listed_with_all_its_options():
    listed = {choice: {name: [*options_of(choice, name)] for name in names} for choice, names in CHOICES.items()}

    assert listed == OPTIONS


@everything
def test_the_defaults_are_legal(choice, name):
    check_options(choice, name, options_of(choice, name), image_size=24)


@everything
def test_no_option_has_to_be_given(choice, name):
    check_options(choice, name, {}, image_size=24)


def test_the_table_of_bad_values_covers_every_option():
    declared = {
        (choice, name, key) for choice, names in OPTIONS.items() for name, keys in names.items() for key in keys
    }

    assert {row[:3] for row in BAD} | FLAGS.keys() == declared - PATHS


@pytest.mark.parametrize(("choice", "name", "option", "value", "kind"), WRONG_TYPE)
def test_an_option_of_another_type_is_refused(choice, name, option, value, kind):
    with pytest.raises(ValueError, match=f"^{option} must be {kind}; got ") as caught:
        check_options(choice, name, {option: value}, image_size=24)

    assert str(caught.value).endswith(f"got {value!r}")


@pytest.mark.parametrize(("choice", "name", "option", "value", "rule"), [(*row[:3], row[4], row[6]) for row in BAD])
def test_an_option_outside_its_range_is_refused(choice, name, option, value, rule):
    with pytest.raises((ValueError, ModelError), match=f"^{option} must be {rule}; got ") as caught:
        check_options(choice, name, {option: value}, image_size=24)

    assert str(caught.value).endswith(f"got {value!r}")


def test_a_model_that_needs_larger_maps_is_refused():
    with pytest.raises(ModelError, match="wafer_cnn needs an image_size of at least 16; got 12"):
        check_options("model", "wafer_cnn", {}, image_size=12)


@pytest.mark.parametrize(("value", "like"), [(2, 0.5), (0.25, 0.5), (3, 7), (True, False), ("max", "avg")])
def test_a_value_of_the_same_type_passes_and_a_whole_number_for_a_number(value, like):
    check_type("key", value, like=like)


@pytest.mark.parametrize(
    ("value", "like", "message"),
    [
        (True, 0.5, "key must be a number; got True"),
        (False, 7, "key must be a whole number; got False"),
        (1, True, "key must be true or false; got 1"),
        (7.0, 7, r"key must be a whole number; got 7\.0"),
        ("7", 7, "key must be a whole number; got '7'"),
        (7, "seven", "key must be a word; got 7"),
        (None, "seven", "key must be a word; got None"),
    ],
)
def test_a_value_of_another_type_is_refused_and_a_truth_value_is_no_number(value, like, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_type("key", value, like=like)


@pytest.mark.parametrize(
    ("like", "words"), [(True, "true or false"), (1, "a whole number"), (1.0, "a number"), ("one", "a word")]
)
def test_a_type_is_described_for_people(like, words):
    assert describe_type(like) == words


def test_the_nearest_name_is_suggested_beside_all_that_there_are():
    assert (
        nearest("wafer_cn", ["wafer_resnet", "wafer_cnn"])
        == "did you mean 'wafer_cnn'? (known: wafer_cnn, wafer_resnet)"
    )


def test_nothing_is_suggested_where_nothing_is_near():
    assert nearest("transformer", {"wafer_cnn": 1, "resnet18": 2}) == "known: resnet18, wafer_cnn"
