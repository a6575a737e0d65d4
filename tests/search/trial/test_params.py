import json
import pickle
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_pipeline.sampling import SAMPLINGS
from search.errors import ConfigError
from search.trial.losses import LOSSES
from search.trial.params import (
    FIELDS,
    TrialParams,
    check_key,
    check_value,
    choose,
    describe_field,
    find_contradiction,
    from_flat,
)
from search.trial.vocabulary import CHOICES, options_of

# Good values of every field and of every option of everything to choose.
FIELD_VALUES = {
    "epochs": st.integers(1, 10_000),
    "lr": st.floats(0, 10, exclude_min=True) | st.integers(1, 10),
    "batch_size": st.integers(2, 65_536),
    "weight_decay": st.floats(0, 1),
    "ema": st.floats(0, 1000) | st.integers(0, 1000),
    "grad_clip": st.floats(0, 1e6),
    "subset": st.floats(0, 1, exclude_min=True),
    "precision": st.sampled_from(["auto", "fp32", "bf16"]),
    "decide_for": st.sampled_from(["drawn", "natural", "uniform"]),
    "test_time": st.sampled_from(["single", "symmetries"]),
    "seed": st.integers(0, 2**31 - 1),
}
DROPOUTS, POOLINGS = st.floats(0, 0.9) | st.just(0), st.sampled_from(["avg", "max", "avgmax", "gem"])
STEMS, NORMS = st.sampled_from(["full", "strided"]), st.sampled_from(["batch", "group", "none"])
OPTION_VALUES = {
    "sampling.power.alpha": st.floats(0, 1),
    "sampling.effective_number.beta": st.floats(0, 1, exclude_max=True),
    "sampling.per_class.per_class": st.integers(1, 1_000_000),
    "augment.symmetries_noise.noise": st.floats(0, 0.2),
    "augment.symmetries_shift.shift": st.floats(0, 0.5),
    "augment.symmetries_shift.noise": st.floats(0, 0.2),
    "augment.symmetries_affine.angle": st.floats(0, 180),
    "augment.symmetries_affine.scale": st.floats(0, 0.5),
    "augment.symmetries_affine.shift": st.floats(0, 0.5),
    "augment.symmetries_affine.noise": st.floats(0, 0.2),
    "mixing.mixup.alpha": st.floats(0, 10, exclude_min=True),
    "mixing.cutmix.alpha": st.floats(0, 10, exclude_min=True),
    "loss.cross_entropy.label_smoothing": st.floats(0, 0.5),
    "loss.focal.gamma": st.floats(0, 5) | st.integers(0, 5),
    "loss.logit_adjusted.tau": st.floats(0, 2) | st.integers(0, 2),
    "loss.class_balanced.beta": st.floats(0, 1, exclude_max=True),
    "optimizer.sgd.momentum": st.floats(0, 1, exclude_max=True),
    "schedule.cosine.warmup": st.floats(0, 0.9),
    "schedule.one_cycle.warmup": st.floats(0, 0.9),
    "schedule.warmup_stable_decay.warmup": st.floats(0, 0.9),
    "schedule.warmup_stable_decay.decay": st.floats(0, 1, exclude_min=True),
    "schedule.constant.warmup": st.floats(0, 0.9),
    "model.wafer_cnn.width": st.integers(4, 256),
    "model.wafer_cnn.depth": st.integers(1, 4),
    "model.wafer_cnn.dropout": DROPOUTS,
    "model.wafer_cnn.pooling": POOLINGS,
    "model.wafer_cnn.stem": STEMS,
    "model.wafer_cnn.norm": NORMS,
    "model.wafer_cnn.squeeze": st.booleans(),
    "model.wafer_cnn.mask_channel": st.booleans(),
    "model.wafer_resnet.width": st.integers(4, 256),
    "model.wafer_resnet.depth": st.integers(1, 4),
    "model.wafer_resnet.dropout": DROPOUTS,
    "model.wafer_resnet.pooling": POOLINGS,
    "model.wafer_resnet.stem": STEMS,
    "model.wafer_resnet.norm": NORMS,
    "model.wafer_resnet.squeeze": st.booleans(),
    "model.wafer_resnet.mask_channel": st.booleans(),
    "model.wafer_resnet.drop_path": st.floats(0, 0.5),
    "model.resnet18.dropout": DROPOUTS,
    "model.efficientnet_b0.weights": st.just("none"),  # others need a file
    "model.efficientnet_b0.freeze": st.just("none"),  # others need weights
    "model.efficientnet_b0.input_size": st.integers(32, 512),
    "model.efficientnet_b0.dropout": DROPOUTS,
}
# What a field must be, and values that it may not have.
FIELD_RULES = {
    "epochs": ("must be a whole number in [1, 10000]", [0, 10_001, 1.0, "1", True, None, [8]]),
    "lr": ("must be a number in (0, 10]", [0, 0.0, -1e-3, 10.1, "1e-3", True, float("nan"), float("inf"), None]),
    "batch_size": ("must be a whole number in [2, 65536]", [1, 65_537, 64.0, "64", True]),
    "weight_decay": ("must be a number in [0, 1]", [-1e-9, 1.1, "0", False, float("nan")]),
    "ema": ("must be a number in [0, 1000]", [-1e-9, 1001, "1", True, float("nan"), float("inf")]),
    "grad_clip": ("must be a number in [0, 1000000]", [-1.0, 2e6, "1", True, float("nan"), float("inf")]),
    "subset": ("must be a number in (0, 1]", [0, 0.0, 1.01, "all", True, float("nan")]),
    "precision": ("must be one of auto, fp32, bf16", ["fp16", "", True, 32, None]),
    "decide_for": ("must be one of drawn, natural, uniform", ["balanced", "", True, 0, None]),
    "test_time": ("must be one of single, symmetries", ["eight", "", False, 8, None]),
    "seed": ("must be a whole number in [0, 2147483648)", [-1, 2**31, 0.0, "0", True]),
}
KNOWN_KEYS = (
    "augment, batch_size, decide_for, ema, epochs, grad_clip, loss, lr, mixing, model, optimizer, precision, sampling, "
    "schedule, seed, subset, test_time, weight_decay"
)
# Losses that correct the class shares, which these draws have corrected already.
CORRECTING = ["logit_adjusted", "class_balanced"]
CORRECTED = ["balanced", "power", "progressive", "effective_number", "per_class"]


@st.composite
def configurations(draw):
    """Any part of a legal configuration, and the same with every field at the top instead of in a choice's branch."""
    flat = {}
    for choice in draw(st.sets(st.sampled_from(sorted(CHOICES)))):
        flat[choice] = draw(st.sampled_from(sorted(CHOICES[choice])))
    assume(flat.get("loss") not in CORRECTING or flat.get("sampling") not in CORRECTED)
    names = {choice: flat.get(choice, getattr(TrialParams(), choice).name) for choice in CHOICES}
    options = [f"{choice}.{name}.{key}" for choice, name in names.items() for key in options_of(choice, name)]
    for key in draw(st.sets(st.sampled_from(options))):
        flat[key] = draw(OPTION_VALUES[key])
    fields = {name: draw(FIELD_VALUES[name]) for name in draw(st.sets(st.sampled_from(sorted(FIELD_VALUES))))}
    places = st.sampled_from(["", *(f"{choice}.{name}." for choice, name in names.items())])
    return flat | {draw(places) + name: value for name, value in fields.items()}, flat | fields


flat_configurations = configurations().map(lambda drawn: drawn[0])


def read(flat, *, image_size=24):
    return from_flat(flat, where="space.yaml", image_size=image_size)


def problems_of(flat):
    with pytest.raises(ConfigError) as caught:
        read(flat)
    return str(caught.value)


def test_the_tables_cover_every_field_and_option():
    options = {
        f"{choice}.{name}.{key}" for choice in CHOICES for name in CHOICES[choice] for key in options_of(choice, name)
    }

    assert FIELD_VALUES.keys() == FIELD_RULES.keys() == FIELDS.keys()
    assert OPTION_VALUES.keys() == options


@given(flat_configurations)
def test_writing_a_configuration_and_reading_it_gives_it_again(flat):
    params = read(flat)

    assert read(params.to_flat()) == params


@settings(max_examples=30)
@given(flat_configurations)
def test_a_configuration_survives_json_and_pickle(flat):
    params = read(flat)

    assert read(json.loads(json.dumps(params.to_flat()))) == params
    assert pickle.loads(pickle.dumps(params)) == params


@given(configurations())
def test_every_value_given_arrives_and_every_other_is_the_default(configuration):
    flat, values = configuration
    defaults = TrialParams().to_flat()
    expected = {key: values.get(key, defaults[key]) for key in [*FIELDS, *CHOICES]}
    for choice in CHOICES:
        name = expected[choice]
        expected |= {f"{choice}.{name}.{key}": default for key, default in options_of(choice, name).items()}

    assert read(flat).to_flat() == expected | values


def test_nothing_given_is_the_default_trial():
    assert read({}) == TrialParams()


def test_what_is_chosen_gets_its_defaults():
    params = read({"sampling": "power", "model": "wafer_cnn", "model.wafer_cnn.width": 16})

    assert params.sampling == choose("sampling", "power", alpha=0.5)
    assert params.model.options == {
        "width": 16,
        "depth": 1,
        "dropout": 0.1,
        "pooling": "avgmax",
        "stem": "full",
        "norm": "batch",
        "squeeze": False,
        "mask_channel": False,
    }


def test_a_learning_rate_inside_a_branch_arrives():
    params = read({"model": "wafer_resnet", "model.wafer_resnet.lr": 0.003, "optimizer.adamw.weight_decay": 0.2})

    assert (params.lr, params.weight_decay) == (0.003, 0.2)
    assert "lr" not in params.model.options


def test_a_trial_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        TrialParams().lr = 1.0


def test_a_trial_takes_no_unknown_field():
    with pytest.raises(ValidationError, match="learning_rate"):
        TrialParams(learning_rate=1.0)


@pytest.mark.parametrize("name", FIELD_RULES)
def test_a_field_says_what_it_must_be(name):
    assert describe_field(name) == FIELD_RULES[name][0]


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (_, values) in FIELD_RULES.items() for value in values]
)
@pytest.mark.parametrize("place", ["", "model.wafer_cnn."])
def test_a_bad_value_of_a_field_is_refused_with_its_rule_wherever_it_stands(place, name, value):
    problem = f"{place}{name}: {FIELD_RULES[name][0]}; got {value!r}"

    assert check_value(place + name, value) == problem
    assert problems_of({place + name: value}) == f"space.yaml: {problem}"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lrr", f"lrr: unknown key; did you mean 'lr'? (known: {KNOWN_KEYS})"),
        ("batchsize", f"batchsize: unknown key; did you mean 'batch_size'? (known: {KNOWN_KEYS})"),
        ("colour", f"colour: unknown key; known: {KNOWN_KEYS}"),
        (
            "model.wafer_cnn.widht",
            "model.wafer_cnn.widht: unknown option; did you mean 'width'? (known: batch_size, decide_for, depth, "
            "dropout, ema, epochs, grad_clip, lr, mask_channel, norm, pooling, precision, seed, squeeze, stem, subset, "
            "test_time, weight_decay, width)",
        ),
        (
            "model.efficientnet_bo.lr",
            "model.efficientnet_bo.lr: unknown model; did you mean 'efficientnet_b0'? (known: efficientnet_b0, "
            "resnet18, wafer_cnn, wafer_resnet)",
        ),
        (
            "model.width",
            "model.width: must be of the form choice.name.option, with a choice out of sampling, augment, mixing, "
            "loss, optimizer, schedule, model",
        ),
        (
            "data.wafers.path",
            "data.wafers.path: must be of the form choice.name.option, with a choice out of sampling, augment, mixing, "
            "loss, optimizer, schedule, model",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key, message):
    assert check_key(key) == message
    assert check_value(key, 1) == message
    assert problems_of({key: 1}) == f"space.yaml: {message}"


@pytest.mark.parametrize(
    ("choice", "value", "message"),
    [
        ("model", "efficientnet_bo", "unknown model 'efficientnet_bo'; did you mean 'efficientnet_b0'? (known: "),
        ("sampling", "ballanced", "unknown sampling 'ballanced'; did you mean 'balanced'? (known: "),
        ("augment", "rotate", "unknown augment 'rotate'; known: "),
        ("mixing", "mix_up", "unknown mixing 'mix_up'; did you mean 'mixup'? (known: cutmix, mixup, none)"),
        ("loss", "hinge", "unknown loss 'hinge'; known: class_balanced, cross_entropy, focal, logit_adjusted"),
        ("optimizer", 3, "unknown optimizer 3; known: adam, adamw, sgd"),
        ("schedule", True, "unknown schedule True; known: constant, cosine, one_cycle, warmup_stable_decay"),
        ("optimizer", None, "unknown optimizer None; known: adam, adamw, sgd"),
        ("optimizer", ["sgd"], "unknown optimizer ['sgd']; "),
    ],
)
def test_an_unknown_choice_is_refused_with_the_nearest(choice, value, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(f'space.yaml: {choice}: {message}')}"):
        read({choice: value})


def test_an_unknown_choice_does_not_make_its_options_wrong_too():
    message = problems_of({"optimizer": "sdg", "optimizer.sgd.momentum": 0.5})

    assert message == "space.yaml: optimizer: unknown optimizer 'sdg'; did you mean 'sgd'? (known: adam, adamw, sgd)"


def test_a_key_of_something_not_chosen_is_refused():
    with pytest.raises(ConfigError, match=r"^space\.yaml: model\.wafer_cnn\.width: set, but model is 'resnet18'$"):
        read({"model": "resnet18", "model.wafer_cnn.width": 16})


def test_a_key_of_something_that_is_not_the_default_is_refused_where_nothing_is_chosen():
    with pytest.raises(ConfigError, match=r"optimizer\.sgd\.momentum: set, but optimizer is 'adamw'$"):
        read({"optimizer.sgd.momentum": 0.5})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("loss.cross_entropy.label_smoothing", 0.6, r"label_smoothing must be in \[0, 0\.5\]; got 0\.6"),
        ("loss.cross_entropy.label_smoothing", "some", "label_smoothing must be a number; got 'some'"),
        ("model.wafer_cnn.dropout", 1.2, r"dropout must be a number in \[0, 0\.9\]; got 1\.2"),
        ("model.wafer_cnn.dropout", float("nan"), r"dropout must be a number in \[0, 0\.9\]; got nan"),
        ("model.wafer_cnn.depth", True, "depth must be a whole number; got True"),
        ("model.wafer_cnn.squeeze", 1, "squeeze must be true or false; got 1"),
        ("schedule.cosine.warmup", 0.95, r"warmup must be in \[0, 0\.9\]; got 0\.95"),
    ],
)
def test_a_bad_value_of_an_option_is_refused_with_its_rule(key, value, message):
    owner = re.escape(key.rpartition(".")[0])

    with pytest.raises(ConfigError, match=rf"^space\.yaml: {owner}: {message}$"):
        read({key: value})


def test_options_that_cannot_go_together_are_refused():
    with pytest.raises(ConfigError, match=r"model\.efficientnet_b0: freeze 'backbone' without weights"):
        read({"model": "efficientnet_b0", "model.efficientnet_b0.freeze": "backbone"})


@pytest.mark.parametrize("loss", CORRECTING)
@pytest.mark.parametrize("sampling", CORRECTED)
def test_class_shares_are_not_corrected_twice(loss, sampling):
    problem = f"loss {loss!r} corrects the class shares that sampling {sampling!r} has corrected already"

    assert find_contradiction({"loss": loss, "sampling": sampling}) == problem
    assert problems_of({"loss": loss, "sampling": sampling}) == f"space.yaml: {problem}"


@pytest.mark.parametrize(
    ("loss", "sampling"),
    [
        *((loss, sampling) for loss in LOSSES if loss not in CORRECTING for sampling in SAMPLINGS),
        *((loss, sampling) for loss in LOSSES for sampling in SAMPLINGS if sampling not in CORRECTED),
    ],
)
def test_every_other_loss_and_sampling_go_together(loss, sampling):
    params = read({"loss": loss, "sampling": sampling})

    assert (params.loss.name, params.sampling.name) == (loss, sampling)
    assert find_contradiction(params.to_flat()) is None


@pytest.mark.parametrize(
    "flat",
    [
        *[{}, {"loss": "logit_adjusted", "sampling": ""}, {"loss": "", "sampling": "balanced"}],
        *({"loss": loss} for loss in LOSSES),
        *({"sampling": sampling} for sampling in SAMPLINGS),
    ],
)
def test_what_is_not_given_contradicts_nothing(flat):
    assert find_contradiction(flat) is None


def test_maps_too_small_for_the_model_are_refused():
    with pytest.raises(ConfigError, match=r"model\.wafer_cnn: wafer_cnn needs an image_size of at least 16; got 12"):
        read({}, image_size=12)


@pytest.mark.parametrize(
    "flat",
    [
        {"lr": 0.1, "model.wafer_cnn.lr": 0.1},
        {"model.wafer_cnn.lr": 0.1, "lr": 0.1},
        {"optimizer.adamw.lr": 0.2, "model.wafer_cnn.lr": 0.1},
    ],
)
def test_a_field_that_is_set_twice_is_refused(flat):
    with pytest.raises(ConfigError, match=r"^space\.yaml: model\.wafer_cnn\.lr: lr is set twice$"):
        read(flat)


def test_all_problems_are_reported_at_once():
    message = problems_of(
        {
            "epochs": 0,
            "lrr": 0.1,
            "augment": "rotate",
            "sampling": "power",
            "sampling.power.alpha": 2.0,
            "loss.cross_entropy.label_smoothing": 0.9,
            "model": "resnet18",
            "model.wafer_cnn.width": 16,
        }
    )

    assert message.splitlines() == [
        "space.yaml: 6 problems",
        "  epochs: must be a whole number in [1, 10000]; got 0",
        f"  lrr: unknown key; did you mean 'lr'? (known: {KNOWN_KEYS})",
        "  augment: unknown augment 'rotate'; "
        "known: deck, none, symmetries, symmetries_affine, symmetries_noise, symmetries_shift",
        "  model.wafer_cnn.width: set, but model is 'resnet18'",
        "  sampling.power: alpha must be in [0, 1]; got 2.0",
        "  loss.cross_entropy: label_smoothing must be in [0, 0.5]; got 0.9",
    ]
