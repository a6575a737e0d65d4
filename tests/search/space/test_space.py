"""What is drawn from a space lies in it, and what a space is written as reads back as the same."""

import math
import warnings

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.space.space import Branch, Choice, Constant, Range, Space, epochs_of, model_of, to_tree

scalars = st.integers(-100, 100) | st.floats(-100, 100) | st.sampled_from(["a", "off", "1e-4"]) | st.booleans()
constants = st.builds(Constant, scalars)
choices = st.lists(scalars, min_size=1, max_size=4, unique=True).map(lambda values: Choice(tuple(values)))


@st.composite
def ranges(draw):
    kind = draw(st.sampled_from(["whole", "float", "log", "whole log", "steps", "whole steps"]))
    low = draw(st.integers(1, 50))
    width = draw(st.integers(1, 50))
    return {
        "whole": Range(low, low + width),
        "float": Range(low / 8, (low + width) / 8),
        "log": Range(low * 1e-4, (low + width) * 1e-3, log=True),
        "whole log": Range(low, low + width, log=True),
        "steps": Range(low / 8, low / 8 + width * 0.25, step=0.25),
        "whole steps": Range(low, low + 3 * width, step=3),
    }[kind]


leaves = constants | choices | ranges()
levels = st.dictionaries(st.sampled_from(["lr", "width", "epochs", "x"]), leaves, max_size=3)
branches = st.dictionaries(st.sampled_from(["cnn", "resnet", "deep"]), levels, min_size=1).map(Branch)
spaces = st.dictionaries(st.sampled_from(["lr", "model", "loss", "width"]), leaves | branches, max_size=4).map(Space)


small = st.builds(
    lambda low, n, step: Range(low / 10, round(low / 10 + n * step, 6), step=step),
    st.integers(0, 9),
    st.integers(1, 5),
    st.sampled_from([0.1, 0.3]),
) | st.builds(lambda low, width: Range(low, low + width), st.integers(0, 9), st.integers(1, 5))
small_levels = st.dictionaries(st.sampled_from(["lr", "width"]), constants | choices | small, max_size=2)
small_branches = st.dictionaries(st.sampled_from(["cnn", "resnet"]), small_levels, min_size=1).map(Branch)
small_spaces = st.dictionaries(st.sampled_from(["lr", "model"]), small | small_branches, max_size=2).map(Space)


@given(space=small_spaces)
def test_all_configurations_are_gone_through_once_and_lie_in_the_space(space):
    configs = list(space.configurations())

    assert len(configs) == space.size()
    assert len({repr(sorted(config.items())) for config in configs}) == len(configs)
    assert all(space.contains(name, value) for config in configs for name, value in config.items())


@given(space=small_spaces, seed=st.integers(0, 99))
def test_what_is_drawn_is_among_all_configurations(space, seed):
    assert space.sample(new_trial(seed)) in list(space.configurations())


@pytest.mark.parametrize("endless", [Range(0.0, 1.0), Range(1e-4, 1e-1, log=True)])
def test_a_space_with_a_number_that_has_no_steps_is_endless(endless):
    space = Space({"epochs": Choice((1, 2)), "model": Branch({"cnn": {"x": endless}, "resnet": {}})})

    assert space.size() is None


@pytest.mark.parametrize(
    ("low", "high", "is_whole"), [(1, 2, True), (1.0, 2.0, False), (1, 2.5, False), (0.5, 2, False)]
)
def test_a_range_is_whole_if_both_its_ends_are(low, high, is_whole):
    assert Range(low, high).is_whole is is_whole


@pytest.fixture
def space():
    return Space(
        {
            "epochs": Constant(4),
            "seed": Choice((7,)),
            "lr": Range(1e-4, 1e-1, log=True),
            "width": Range(4, 16, step=4),
            "model": Branch({"cnn": {"depth": Choice((1, 2)), "kernel": Constant(3)}, "resnet": {}}),
            "loss": Branch({"ce": {"smoothing": Range(0.0, 0.3, step=0.1)}}),
        }
    )


def new_trial(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()


@given(space=spaces, seed=st.integers(0, 99))
def test_every_value_that_is_drawn_lies_in_its_domain(space, seed):
    config = space.sample(new_trial(seed))

    assert all(space.contains(name, value) for name, value in config.items())


@given(space=spaces, seed=st.integers(0, 99))
def test_a_configuration_holds_the_top_and_what_belongs_to_its_choices(space, seed):
    config = space.sample(new_trial(seed))

    chosen = {name for name, _ in space.walk() if "." not in name or config[name.split(".")[0]] == name.split(".")[1]}
    assert config.keys() == chosen


@given(space=spaces, seed=st.integers(0, 99))
def test_drawing_from_the_same_trial_again_gives_the_same_configuration(space, seed):
    trial = new_trial(seed)

    assert space.sample(trial) == space.sample(trial)


@given(space=spaces, seed=st.integers(0, 99))
def test_only_parameters_are_asked_of_the_sampler(space, seed):
    trial = new_trial(seed)
    space.sample(trial)

    assert trial.params.keys() <= space.parameters().keys()


@given(space=spaces)
def test_the_values_of_a_node_lie_in_it(space):
    for name, _ in space.walk():
        assert space.values_of(name)
        assert all(space.contains(name, value) for value in space.values_of(name))


@given(nodes=levels)
def test_a_level_is_written_as_yaml_would_hold_it(nodes):
    tree = to_tree(nodes)

    for name, node in nodes.items():
        expected = {Constant: (bool, int, float, str), Choice: list, Range: dict}[type(node)]
        assert isinstance(tree[name], expected)


def test_a_space_is_written_and_read_back(load):
    text = """
space:
  epochs: [4, 8]
  subset: {low: 0.1, high: 0.4, step: 0.1}
  batch_size: {low: 16, high: 256, log: true}
  grad_clip: 0.5
  sampling: {choose: {balanced: {}, power: {alpha: {low: 0.2, high: 0.8}}}}
"""

    tree = load(text).to_tree()["space"]

    assert tree == {
        "epochs": [4, 8],
        "subset": {"low": 0.1, "high": 0.4, "step": 0.1},
        "batch_size": {"low": 16, "high": 256, "log": True},
        "grad_clip": 0.5,
        "sampling": {"choose": {"balanced": {}, "power": {"alpha": {"low": 0.2, "high": 0.8}}}},
    }


@settings(max_examples=25)  # each tries its options on the real factories
@given(data=st.data())
def test_any_good_space_reads_back_as_the_same(load, data):
    weight_decay = data.draw(st.floats(0, 0.5) | st.sampled_from(["[0.0, 0.1]", "{low: 0.0, high: 0.5}"]))
    batch_size = data.draw(st.integers(2, 64) | st.sampled_from(["{low: 8, high: 24, step: 8}", "[16, 8]"]))
    models = data.draw(st.lists(st.sampled_from(["wafer_cnn", "wafer_resnet", "resnet18"]), min_size=1, unique=True))
    option = data.draw(st.sampled_from(["{}", "{dropout: 0.5}", "{dropout: {low: 0.0, high: 0.9}}", "{lr: [0.1, 1]}"]))
    inner = ", ".join(f"{model}: {option}" for model in models)
    config = load(f"space: {{weight_decay: {weight_decay}, batch_size: {batch_size}, model: {{choose: {{{inner}}}}}}}")

    again = load(f"space: {config.to_tree()['space']}".replace("True", "true"))

    assert again.space == config.space


def test_parameters_are_what_is_searched(space):
    assert list(space.parameters()) == ["lr", "width", "model", "model.cnn.depth", "loss.ce.smoothing"]


def test_walking_goes_through_the_whole_tree(space):
    names = [name for name, _ in space.walk()]

    assert names == [
        "epochs",
        "seed",
        "lr",
        "width",
        "model",
        "model.cnn.depth",
        "model.cnn.kernel",
        "loss",
        "loss.ce.smoothing",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 4),
        ("seed", 7),
        ("lr", 1e-4),
        ("lr", 1e-1),
        ("width", 4),
        ("width", 12),
        ("model", "resnet"),
        ("model.cnn.depth", 2),
        ("loss.ce.smoothing", 0.3),
    ],
)
def test_a_space_contains(space, name, value):
    assert space.contains(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 5),
        ("seed", 8),
        ("lr", 0.99e-4),
        ("lr", 0.11),
        ("lr", "0.01"),
        ("lr", None),
        ("lr", math.nan),
        ("width", 6),
        ("width", 8.0),
        ("width", True),
        ("width", 20),
        ("model", "vgg"),
        ("model", ["cnn"]),
        ("model.cnn.depth", 3),
        ("model.resnet.depth", 1),
        ("loss.ce.smoothing", 0.25),
        ("unknown", 1),
    ],
)
def test_a_space_does_not_contain(space, name, value):
    assert not space.contains(name, value)


@pytest.mark.parametrize(
    ("name", "values"),
    [("epochs", (4,)), ("seed", (7,)), ("lr", (1e-4, 1e-1)), ("model", ("cnn", "resnet")), ("unknown", ())],
)
def test_values_of_a_node(space, name, values):
    assert space.values_of(name) == values


def test_both_ends_of_a_whole_range_and_of_steps_are_drawn():
    space = Space({"a": Range(1, 3), "b": Range(0.0, 0.2, step=0.1), "c": Range(4, 12, step=4)})

    drawn = [space.sample(new_trial(seed)) for seed in range(40)]

    assert {config["a"] for config in drawn} == {1, 2, 3}
    assert {round(config["b"], 9) for config in drawn} == {0.0, 0.1, 0.2}
    assert {config["c"] for config in drawn} == {4, 8, 12}


def test_every_option_of_a_branch_and_every_choice_in_it_is_drawn(space):
    drawn = [space.sample(new_trial(seed)) for seed in range(40)]

    assert {config["model"] for config in drawn} == {"cnn", "resnet"}
    assert {config["model.cnn.depth"] for config in drawn if config["model"] == "cnn"} == {1, 2}


@pytest.mark.parametrize(
    ("config", "model"), [({"model": "resnet18", "lr": 0.1}, "resnet18"), ({"lr": 0.1}, "wafer_cnn"), ({}, "wafer_cnn")]
)
def test_the_model_of_a_configuration_is_the_default_where_none_is_chosen(config, model):
    assert model_of(config) == model


@pytest.mark.parametrize(
    ("config", "epochs"),
    [({"epochs": 7}, 7), ({"lr": 0.1, "model": "cnn", "model.cnn.epochs": 5}, 5), ({"lr": 0.1}, 10), ({}, 10)],
)
def test_the_length_of_a_configuration_is_found_wherever_it_is_set(config, epochs):
    assert epochs_of(config) == epochs
