"""What every architecture of the table must do, whatever its options."""

import pickle
import random
from inspect import signature
from io import BytesIO

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from models import MODELS, ModelError, build_model, check_model

# What makes the slow models quick to test.
QUICK = {"wafer_cnn": {}, "wafer_resnet": {}, "resnet18": {}, "efficientnet_b0": {"input_size": 32}}

# One option with another legal value than its default, and what else must then be given.
CHANGES = [
    ("wafer_cnn", "width", 8, {}),
    ("wafer_cnn", "depth", 2, {}),
    ("wafer_cnn", "dropout", 0.5, {}),
    ("wafer_cnn", "pooling", "avg", {}),
    ("wafer_cnn", "pooling", "max", {}),
    ("wafer_cnn", "pooling", "gem", {}),
    ("wafer_cnn", "stem", "strided", {}),
    ("wafer_cnn", "norm", "group", {}),
    ("wafer_cnn", "norm", "none", {}),
    ("wafer_cnn", "squeeze", True, {}),
    ("wafer_cnn", "mask_channel", True, {}),
    ("wafer_resnet", "width", 8, {}),
    ("wafer_resnet", "depth", 2, {}),
    ("wafer_resnet", "dropout", 0.5, {}),
    ("wafer_resnet", "pooling", "avg", {}),
    ("wafer_resnet", "pooling", "max", {}),
    ("wafer_resnet", "pooling", "gem", {}),
    ("wafer_resnet", "stem", "full", {}),
    ("wafer_resnet", "norm", "group", {}),
    ("wafer_resnet", "norm", "none", {}),
    ("wafer_resnet", "squeeze", True, {}),
    ("wafer_resnet", "mask_channel", True, {}),
    ("wafer_resnet", "drop_path", 0.5, {}),
    ("resnet18", "dropout", 0.5, {}),
    ("efficientnet_b0", "weights", "backbone.pt", {}),
    ("efficientnet_b0", "freeze", "backbone", {"weights": "backbone.pt"}),
    ("efficientnet_b0", "input_size", 64, {}),
    ("efficientnet_b0", "dropout", 0.5, {}),
]
every_model = pytest.mark.parametrize("name", MODELS)
every_change = pytest.mark.parametrize(("name", "option", "value", "given"), CHANGES)


@pytest.fixture(autouse=True)
def beside_the_weights(monkeypatch, weights_folder):
    """Let "backbone.pt" be a path in the tables above."""
    monkeypatch.chdir(weights_folder)


def build(name, *, n_classes=3, seed=0, **options):
    return build_model(name, n_classes=n_classes, options=QUICK[name] | options, seed=seed)


def train_once(model, maps):
    """Go forward and back in training, at the same dropout whenever it is called; return the logits."""
    torch.manual_seed(0)
    logits = model.train()(maps)
    cross_entropy(logits, torch.arange(len(maps)) % logits.shape[1]).backward()
    return logits.detach()


def trainable(model):
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def idle(model, maps):
    """Name the trainable tensors that the loss does not depend on.

    Found in evaluation, after BatchNorm has seen the maps: in training, BatchNorm cancels the biases before it (in
    EfficientNet, those of each block's last layer), and what is left of their gradients is rounding, about 1e-8.
    """
    for norm in (part for part in model.modules() if isinstance(part, nn.BatchNorm2d)):
        norm.momentum = 1.0
    model.train()(maps)
    cross_entropy(model.eval()(maps), torch.arange(len(maps)) % 3).backward()
    return [name for name, parameter in trainable(model).items() if parameter.grad.abs().max() < 1e-4]


def kernels(model, kind=nn.Conv2d):
    return {name: part.weight for name, part in model.named_modules() if isinstance(part, kind)}


def observe(model, maps):
    """Collect what a user could notice: which parameters there are, which train, and the logits in training."""
    return (
        [(parameter.shape, parameter.requires_grad) for parameter in model.parameters()],
        train_once(model, maps).tolist(),
    )


def test_the_tables_of_this_file_cover_every_option_of_every_model():
    declared = {(name, option) for name in MODELS for option in signature(MODELS[name].build).parameters}

    assert {(name, option) for name, option, _, _ in CHANGES} == declared - {(name, "n_classes") for name in MODELS}
    assert set(QUICK) == set(MODELS)


@every_model
@pytest.mark.parametrize("n_classes", [2, 9])
@pytest.mark.parametrize("training", [True, False])
def test_the_logits_are_one_finite_number_per_wafer_and_class(name, n_classes, training, wafer_maps):
    model = build(name, n_classes=n_classes).train(training)

    logits = model(wafer_maps(n=4, size=20))

    assert logits.shape == (4, n_classes)
    assert logits.isfinite().all()


@every_model
@pytest.mark.parametrize("beyond", [0, 1])
def test_maps_of_the_smallest_size_and_of_an_odd_size_are_taken(name, beyond, wafer_maps):
    size = MODELS[name].min_image_size + beyond

    check_model(name, options={}, image_size=size)
    logits = build(name)(wafer_maps(n=2, size=size))

    assert logits.shape == (2, 3)
    assert logits.isfinite().all()


@every_model
def test_maps_below_the_smallest_size_are_refused(name):
    size = MODELS[name].min_image_size

    with pytest.raises(ModelError, match=f"^{name} needs an image_size of at least {size}; got {size - 1}$"):
        check_model(name, options={}, image_size=size - 1)


@every_model
def test_every_place_of_every_kernel_sees_something_at_the_smallest_size(name, wafer_maps):
    model = build_model(name, n_classes=3, options={}, seed=0)

    train_once(model, wafer_maps(n=3, size=MODELS[name].min_image_size))

    blind = [part for part, weight in kernels(model).items() if (weight.grad.abs().sum((0, 1)) == 0).any()]
    assert blind == []


@every_model
def test_every_gradient_is_finite_with_the_defaults(name, wafer_maps):
    model = build(name)

    train_once(model, wafer_maps())

    assert all(parameter.grad.isfinite().all() for parameter in trainable(model).values())


@every_change
def test_every_gradient_is_finite_with_another_value(name, option, value, given, wafer_maps):
    model = build(name, **given, **{option: value})

    train_once(model, wafer_maps())

    assert all(parameter.grad.isfinite().all() for parameter in trainable(model).values())


@every_model
def test_no_trainable_tensor_is_idle_with_the_defaults(name, wafer_maps):
    assert idle(build(name), wafer_maps()) == []


@every_change
def test_no_trainable_tensor_is_idle_with_another_value(name, option, value, given, wafer_maps):
    assert idle(build(name, **given, **{option: value}), wafer_maps()) == []


@pytest.mark.parametrize("stem", ["full", "strided"])
@pytest.mark.parametrize("pooling", ["avg", "max", "avgmax", "gem"])
@pytest.mark.parametrize("depth", [1, 4])
def test_no_part_of_wafer_cnn_is_idle_at_the_smallest_size(stem, pooling, depth, wafer_maps):
    model = build("wafer_cnn", stem=stem, pooling=pooling, depth=depth)

    assert idle(model, wafer_maps(size=MODELS["wafer_cnn"].min_image_size)) == []


@every_change
def test_another_value_of_an_option_changes_something(name, option, value, given, wafer_maps):
    choices = [given, given, given | {option: value}]

    default, again, changed = (observe(build(name, **options), wafer_maps()) for options in choices)

    assert default == again
    assert default != changed


@every_model
def test_dropout_acts_in_training_only(name, wafer_maps):
    little, much = build(name, dropout=0.0), build(name, dropout=0.9)

    assert torch.equal(little.eval()(wafer_maps()), much.eval()(wafer_maps()))
    assert not torch.equal(train_once(little, wafer_maps()), train_once(much, wafer_maps()))


@every_model
def test_evaluation_is_deterministic(name, wafer_maps):
    model = build(name).eval()

    torch.manual_seed(1)
    first = model(wafer_maps())
    torch.manual_seed(2)
    second = model(wafer_maps())

    assert torch.equal(first, second)


@every_model
def test_evaluation_of_a_wafer_does_not_depend_on_its_batch(name, wafer_maps):
    model = build(name).eval()

    together = model(wafer_maps())
    alone = torch.cat([model(one) for one in wafer_maps().split(1)])

    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


@every_model
def test_the_same_seed_gives_the_same_weights_wherever_the_global_random_state_is(name):
    torch.manual_seed(1)
    first = build(name, seed=5).state_dict()
    torch.manual_seed(2)
    second = build(name, seed=5).state_dict()

    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_model
def test_another_seed_gives_other_weights_in_every_layer(name):
    first, second = (kernels(build(name, seed=seed), nn.Conv2d | nn.Linear) for seed in (5, 6))

    assert [part for part in first if torch.equal(first[part], second[part])] == []


@every_model
def test_building_leaves_the_global_random_states_untouched(name):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    build(name, seed=5)

    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # noqa: NPY002


@every_change
def test_checking_leaves_the_global_random_state_untouched(name, option, value, given):
    before = torch.get_rng_state()

    check_model(name, options=QUICK[name] | given | {option: value}, image_size=16)

    assert torch.equal(torch.get_rng_state(), before)


@every_model
def test_a_pickled_model_answers_as_before(name, wafer_maps):
    model = build(name)
    train_once(model, wafer_maps())

    copy = pickle.loads(pickle.dumps(model))

    assert torch.equal(copy.eval()(wafer_maps()), model.eval()(wafer_maps()))


@every_model
def test_a_saved_state_dict_makes_a_model_of_another_seed_answer_as_the_first(name, wafer_maps):
    model, other = build(name, seed=0), build(name, seed=1)
    train_once(model, wafer_maps())

    file = BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))

    assert torch.equal(other.eval()(wafer_maps()), model.eval()(wafer_maps()))


@every_model
def test_the_kernels_lie_in_channels_last_order(name):
    model = build(name)

    assert kernels(model)
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels(model).values())


@every_model
@pytest.mark.parametrize("training", [True, False])
def test_the_logits_are_finite_under_bfloat16_autocast(name, training, wafer_maps):
    model = build(name).train(training)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(wafer_maps())

    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


@every_change
def test_every_gradient_is_finite_under_bfloat16_autocast(name, option, value, given, wafer_maps):
    model = build(name, **given, **{option: value})

    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(model.train()(wafer_maps()), torch.arange(4) % 3)
    loss.backward()

    assert all(parameter.grad.isfinite().all() for parameter in trainable(model).values())
