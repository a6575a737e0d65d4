"""What is refused before anything is built, and with which words."""

import pickle
from functools import partial
from inspect import signature

import pytest
from torch.nn.modules.module import register_module_parameter_registration_hook

from models import MODELS, ModelError, build_model, check_model, options_of

NOT_A_COUNT = [3, 257, 16.5, 32.0, "wide", True, None, float("nan")]
NOT_A_SHARE = [-0.01, 0.91, "much", True, False, None, float("nan")]
WIDTH = r"width must be a whole number in \[4, 256\]; got "
DEPTH = r"depth must be a whole number in \[1, 4\]; got "
DROPOUT = r"dropout must be a number in \[0, 0\.9\]; got "
POOLING = "pooling must be one of avg, max, avgmax, gem; got "
STEM = "stem must be one of full, strided; got "
NORM = "norm must be one of batch, group, none; got "
NOT_A_FLAG = [1, 0.0, "true", "", None, [True]]

# Model, option, values outside its range, and what is said before the value.
BAD = [
    ("wafer_cnn", "width", NOT_A_COUNT, WIDTH),
    ("wafer_cnn", "depth", [0, 5, 1.5, "deep", True, None], DEPTH),
    ("wafer_cnn", "dropout", NOT_A_SHARE, DROPOUT),
    ("wafer_cnn", "pooling", ["mean", "", None, ["avg"], 1], POOLING),
    ("wafer_cnn", "stem", ["half", "Full", None], STEM),
    ("wafer_cnn", "norm", ["layer", "Batch", "", None, True], NORM),
    ("wafer_cnn", "squeeze", NOT_A_FLAG, "squeeze must be true or false; got "),
    ("wafer_cnn", "mask_channel", NOT_A_FLAG, "mask_channel must be true or false; got "),
    ("wafer_resnet", "width", NOT_A_COUNT, WIDTH),
    ("wafer_resnet", "depth", [0, 5, 1.5, "deep", True, None], DEPTH),
    ("wafer_resnet", "dropout", NOT_A_SHARE, DROPOUT),
    ("wafer_resnet", "pooling", ["mean", "", None, ["avg"], 1], POOLING),
    ("wafer_resnet", "stem", ["half", "Full", None], STEM),
    ("wafer_resnet", "norm", ["layer", "Batch", "", None, True], NORM),
    ("wafer_resnet", "squeeze", NOT_A_FLAG, "squeeze must be true or false; got "),
    ("wafer_resnet", "mask_channel", NOT_A_FLAG, "mask_channel must be true or false; got "),
    (
        "wafer_resnet",
        "drop_path",
        [-0.01, 0.51, "much", True, None, float("nan")],
        r"drop_path must be a number in \[0, 0\.5\]; got ",
    ),
    ("resnet18", "dropout", NOT_A_SHARE, DROPOUT),
    ("efficientnet_b0", "weights", [None, 3, True], "weights must be imagenet, none or the path of a file; got "),
    ("efficientnet_b0", "freeze", ["all", None, True], "freeze must be one of none, backbone; got "),
    (
        "efficientnet_b0",
        "input_size",
        [31, 513, 64.5, 64.0, "big", True, None],
        r"input_size must be a whole number in \[32, 512\]; got ",
    ),
    ("efficientnet_b0", "dropout", NOT_A_SHARE, DROPOUT),
]
# Values at the ends of each range.
EXTREMES = [
    ("wafer_cnn", {"width": 4, "depth": 1, "dropout": 0, "stem": "full"}),
    ("wafer_cnn", {"width": 256, "depth": 4, "dropout": 0.9, "stem": "strided"}),
    ("wafer_resnet", {"width": 4, "depth": 1, "dropout": 0, "drop_path": 0}),
    ("wafer_resnet", {"width": 256, "depth": 4, "dropout": 0.9, "drop_path": 0.5}),
    ("resnet18", {"dropout": 0}),
    ("resnet18", {"dropout": 0.9}),
    ("efficientnet_b0", {"input_size": 32, "dropout": 0}),
    ("efficientnet_b0", {"input_size": 512, "dropout": 0.9}),
]
KNOWN_MODELS = r"\(known: efficientnet_b0, resnet18, wafer_cnn, wafer_resnet\)"

every_way = pytest.mark.parametrize(
    "ask",
    [
        pytest.param(partial(check_model, image_size=16), id="check"),
        pytest.param(partial(build_model, n_classes=3, seed=0), id="build"),
    ],
)


@pytest.fixture
def devices():
    """The kinds of device on which parameters have been made during the test."""
    kinds = set()
    handle = register_module_parameter_registration_hook(lambda *made: kinds.add(made[-1].device.type))
    yield kinds
    handle.remove()


def test_the_table_of_bad_values_covers_every_option_of_every_model():
    declared = {(name, option) for name in MODELS for option in options_of(name)}

    assert {(name, option) for name, option, _, _ in BAD} == declared


@every_way
@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [(name, option, value, message) for name, option, values, message in BAD for value in values],
)
def test_a_bad_value_is_refused_with_its_range(ask, name, option, value, message):
    with pytest.raises(ModelError) as caught:
        ask(name, options={option: value})

    assert caught.match(f"^{message}")
    assert str(caught.value).endswith(f"got {value!r}")


@pytest.mark.parametrize(("name", "options"), EXTREMES)
def test_the_ends_of_each_range_are_accepted(name, options):
    check_model(name, options=options, image_size=32)


@every_way
@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        (
            "wafer_cnn",
            "widht",
            r"wafer_cnn has no option 'widht'; did you mean 'width'\? \(known: depth, dropout, mask_channel, norm, "
            r"pooling, squeeze, stem, width\)",
        ),
        ("resnet18", "drop_out", r"resnet18 has no option 'drop_out'; did you mean 'dropout'\? \(known: dropout\)"),
        ("resnet18", "lr", r"resnet18 has no option 'lr'; \(known: dropout\)"),
        ("resnet18", "n_classes", r"resnet18 has no option 'n_classes'; \(known: dropout\)"),
        ("resnet18", 3, r"resnet18 has no option 3; \(known: dropout\)"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest(ask, name, option, message):
    with pytest.raises(ModelError, match=f"^{message}$"):
        ask(name, options={option: 1})


@pytest.mark.parametrize(
    "ask",
    [
        partial(check_model, options={}, image_size=16),
        partial(build_model, n_classes=3, options={}, seed=0),
        options_of,
    ],
    ids=["check", "build", "options"],
)
@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("efficientnet_bo", r"unknown model 'efficientnet_bo'; did you mean 'efficientnet_b0'\? "),
        ("wafer-cnn", r"unknown model 'wafer-cnn'; did you mean 'wafer_cnn'\? "),
        ("transformer", "unknown model 'transformer'; "),
        ("", "unknown model ''; "),
    ],
)
def test_an_unknown_model_is_refused_with_the_nearest(ask, name, start):
    with pytest.raises(ModelError, match=f"^{start}{KNOWN_MODELS}$"):
        ask(name)


@pytest.mark.parametrize("name", MODELS)
def test_the_options_are_the_factory_s_arguments_and_defaults_without_the_classes(name):
    parameters = signature(MODELS[name].build).parameters

    assert list(options_of(name).values()) == list(parameters.values())[1:]
    assert next(iter(parameters)) == "n_classes"


@pytest.mark.parametrize("name", MODELS)
def test_the_defaults_are_legal(name):
    check_model(name, options={option.name: option.default for option in options_of(name).values()}, image_size=40)


@pytest.mark.parametrize("name", MODELS)
def test_checking_takes_no_memory_for_weights(name, devices):
    check_model(name, options={}, image_size=40)

    assert devices <= {"meta"}


def test_building_takes_memory_which_the_test_above_would_notice(devices):
    build_model("wafer_cnn", n_classes=3, options={}, seed=0)

    assert devices == {"cpu"}


def test_an_error_pickles():
    error = pickle.loads(pickle.dumps(ModelError("width must be less")))

    assert isinstance(error, ModelError)
    assert str(error) == "width must be less"
