"""Configurations as vectors: there and back, distances, small changes, and how long schedules are."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.space.dice import Dice
from search.space.space import Branch, Choice, Constant, Range, Space, epochs_of
from search.study.encoder import Encoder

leaves = st.one_of(
    st.sampled_from([Constant(7), Constant(0.5), Constant("adam"), Constant(True)]),
    st.lists(st.sampled_from([3, 1, 0.5, 64, 1e-3]), min_size=1, max_size=4, unique=True).map(tuple).map(Choice),
    st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=4, unique=True).map(tuple).map(Choice),
    st.just(Choice((False, True))),
    st.sampled_from(
        [
            Range(-2, 5),
            Range(4, 5),
            Range(0, 12, step=4),
            Range(1, 300, log=True),
            Range(2, 3, log=True),
            Range(-0.5, 2.5),
            Range(0.1, 0.7, step=0.1),
            Range(0.0, 0.3, step=0.3),
            Range(1e-5, 1e-1, log=True),
        ]
    ),
)
lengths = st.sampled_from([Constant(3), Choice((8, 2)), Choice((5,)), Range(1, 30, log=True), Range(4, 12, step=4)])
levels = st.dictionaries(st.sampled_from(["x", "y", "z"]), leaves, max_size=3)


@st.composite
def spaces(draw, *, depth=2, has_epochs=True):
    """Make a space; only one choice of it may set the epochs."""
    nodes = draw(levels)
    if has_epochs and draw(st.booleans()):
        nodes["epochs"], has_epochs = draw(lengths), False
    for name in draw(st.lists(st.sampled_from(["model", "loss"]), max_size=2, unique=True)) if depth else ():
        options = draw(st.lists(st.sampled_from(["cnn", "resnet", "vit"]), min_size=1, max_size=3, unique=True))
        nodes[name] = Branch({o: draw(spaces(depth=depth - 1, has_epochs=has_epochs)).nodes for o in options})
        has_epochs = False
    return Space(nodes)


seeds = st.integers(0, 10**6)
SPACE = Space(
    {
        "lr": Range(1e-4, 1e-1, log=True),
        "width": Choice((16, 4, 64)),
        "steps": Range(0, 40),
        "sampling": Choice(("plain", "balanced")),
        "model": Branch(
            {
                "cnn": {"dropout": Range(0.0, 0.5), "norm": Choice(("batch", "group"))},
                "resnet": {
                    "depth": Choice((18, 34, 50)),
                    "stem": Branch({"small": {}, "large": {"size": Range(3, 9)}}),
                },
            }
        ),
    }
)


def throw(space, seed, n=1):
    dice = Dice(random.Random(seed))
    return [space.sample(dice) for _ in range(n)]


def encode(encoder, configs):
    return np.array([encoder.encode(config) for config in configs])


def is_same(config, other):
    """Whether two configurations are equal, types and order included, up to the rounding of floats."""
    pairs = zip(config.values(), other.values(), strict=True)
    return list(config) == list(other) and all(
        type(a) is type(b) and (math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) if isinstance(a, float) else a == b)
        for a, b in pairs
    )


def assert_in(space, config):
    assert all(space.contains(name, value) for name, value in config.items())


@settings(max_examples=80)
@given(space=spaces(), seed=seeds)
def test_a_configuration_comes_back(space, seed):
    encoder = Encoder(space)

    for config in throw(space, seed, n=5):
        vector = encoder.encode(config)
        back = encoder.decode(vector)

        assert is_same(back, config)
        assert_in(space, back)
        assert vector.shape == encoder.is_word.shape == (len(space.parameters()),)
        assert ((vector[~encoder.is_word] >= 0) & (vector[~encoder.is_word] <= 1)).all()


@settings(max_examples=60)
@given(space=spaces(), seed=seeds)
def test_every_point_of_the_cube_is_a_configuration(space, seed):
    encoder = Encoder(space)
    d = len(encoder.is_word)
    corners = [np.zeros((1, d)), np.full((1, d), np.nextafter(1, 0)), np.ones((1, d))]

    vectors = encoder.spread(np.vstack([*corners, np.random.default_rng(seed).random((5, d))]))

    for vector in vectors:
        config = encoder.decode(vector)
        assert_in(space, config)
        assert is_same(encoder.decode(encoder.encode(config)), config)


@settings(max_examples=60)
@given(space=spaces().filter(lambda space: space.parameters()), seed=seeds)
def test_a_small_change_stays_in_the_space(space, seed):
    encoder = Encoder(space)
    parents = encode(encoder, throw(space, seed, n=8))

    for child in encoder.mutate(parents, np.random.default_rng(seed)):
        config = encoder.decode(child)
        assert_in(space, config)
        # What it lacks lies where it lies for everybody, so that it is as near to the like of it as any other.
        absent = [name not in config for name in space.parameters()]
        assert (child[absent] == encoder.encode(config)[absent]).all()


def test_changes_nearly_always_change_something_and_seldom_everything():
    encoder = Encoder(SPACE)
    configs = throw(SPACE, 0, n=400)

    children = encoder.mutate(encode(encoder, configs), np.random.default_rng(0))

    found = [encoder.decode(child) for child in children]
    kept = [sum(child.get(k) == v for k, v in parent.items()) for parent, child in zip(configs, found, strict=True)]
    assert np.mean([child == parent for parent, child in zip(configs, found, strict=True)]) < 0.15
    assert np.mean(kept) > 3
    assert np.mean([child["model"] == parent["model"] for parent, child in zip(configs, found, strict=True)]) > 0.7


def test_numbers_change_a_little_and_in_whole_steps():
    space = Space({"x": Range(0.0, 1.0), "steps": Range(0, 40), "width": Choice((1, 2, 4, 8, 16))})
    encoder = Encoder(space)
    parent = {"x": 0.5, "steps": 20, "width": 4}

    children = encoder.mutate(np.tile(encoder.encode(parent), (2000, 1)), np.random.default_rng(0))

    found = [encoder.decode(child) for child in children]
    assert parent not in found
    for name, small in (("x", 0.15), ("steps", 6)):
        away = np.array([config[name] - parent[name] for config in found if config[name] != parent[name]])
        assert np.sqrt((away**2).mean()) == pytest.approx(small, rel=0.1)
        assert abs(away.mean()) < 0.1 * small
    widths = [config["width"] for config in found]
    assert set(widths) == {1, 2, 4, 8, 16}
    assert widths.count(2) + widths.count(8) > 3 * (widths.count(1) + widths.count(16))


def test_the_same_generator_gives_the_same_changes():
    encoder = Encoder(SPACE)
    parents = encode(encoder, throw(SPACE, 0, n=20))
    before = parents.copy()

    one, same, other = (encoder.mutate(parents, np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert (one == same).all()
    assert (one != other).any()
    assert (parents == before).all()


def test_the_cube_is_shared_out_evenly():
    encoder = Encoder(SPACE)

    configs = [encoder.decode(v) for v in encoder.spread(np.random.default_rng(0).random((3000, len(encoder.is_word))))]

    for name, n in (("width", 3), ("steps", 41), ("sampling", 2), ("model", 2)):
        _, counts = np.unique([config[name] for config in configs], return_counts=True)
        assert len(counts) == n
        assert counts == pytest.approx(np.full(n, 3000 / n), rel=0.5)
    assert np.quantile([config["lr"] for config in configs], [0.25, 0.5, 0.75]) == pytest.approx(
        [10**-3.25, 10**-2.5, 10**-1.75], rel=0.2
    )


def test_what_belongs_to_another_branch_adds_nothing_to_a_distance():
    encoder = Encoder(SPACE)
    shared = {"lr": 1e-3, "width": 4, "steps": 0, "sampling": "plain"}
    cnn = shared | {"model": "cnn", "model.cnn.dropout": 0.1, "model.cnn.norm": "batch"}
    resnet = shared | {"model": "resnet", "model.resnet.depth": 50, "model.resnet.stem": "small"}
    names = list(SPACE.parameters())

    def differing(one, other):
        away = encoder.encode(one) != encoder.encode(other)
        return {name for name, differs in zip(names, away, strict=True) if differs}

    assert differing(cnn, cnn | {"lr": 1e-2}) == {"lr"}
    assert differing(resnet, resnet | {"model.resnet.depth": 18}) == {"model.resnet.depth"}
    assert differing(resnet, resnet | {"model.resnet.stem": "large", "model.resnet.stem.large.size": 9}) == {
        "model.resnet.stem",
        "model.resnet.stem.large.size",
    }
    # Two vectors that differ in what is not there are brought to the same place.
    cube = np.tile(np.full(len(names), 0.2), (2, 1))
    cube[1, [names.index("model.resnet.depth"), names.index("model.resnet.stem.large.size")]] = 0.9
    one, other = encoder.spread(cube)
    assert encoder.decode(one)["model"] == "cnn"
    assert (one == other).all()


def test_numbers_lie_in_order_and_words_do_not():
    encoder = Encoder(Space({"width": Choice((64, 4, 16)), "lr": Range(1e-4, 1e-2, log=True), "x": Choice((1, "a"))}))

    low, middle, high = (
        encoder.encode({"width": width, "lr": lr, "x": 1}) for width, lr in ((4, 1e-4), (16, 1e-3), (64, 1e-2))
    )

    assert list(encoder.is_word) == [False, False, True]
    assert low[:2] == pytest.approx([0, 0])
    assert middle[:2] == pytest.approx([0.5, 0.5])
    assert high[:2] == pytest.approx([1, 1])


@settings(max_examples=60)
@given(space=spaces(), seed=seeds)
def test_the_length_of_a_schedule_is_read_off_its_vector(space, seed):
    encoder = Encoder(space)
    configs = throw(space, seed, n=10)

    assert list(encoder.lengths(encode(encoder, configs))) == [epochs_of(config) for config in configs]
    assert max(map(epochs_of, configs)) <= space.longest


@pytest.mark.parametrize(
    ("nodes", "longest"),
    [
        ({}, epochs_of({})),
        ({"x": Range(1, 99)}, epochs_of({})),
        ({"epochs": Constant(3)}, 3),
        ({"epochs": Choice((4, 9, 2))}, 9),
        ({"epochs": Range(2, 50, log=True), "x": Constant(60)}, 50),
        ({"model": Branch({"cnn": {"epochs": Choice((4, 7))}, "resnet": {"epochs": Constant(5)}})}, 7),
        ({"model": Branch({"cnn": {"epochs": Constant(3)}, "resnet": {}})}, epochs_of({})),  # nothing is set there
        ({"model": Branch({"cnn": {"epochs": Constant(99)}, "resnet": {}})}, 99),
        ({"epochs": Constant(4), "model": Branch({"cnn": {}, "resnet": {}})}, 4),
    ],
)
def test_the_longest_schedule(nodes, longest):
    assert Space(nodes).longest == longest
