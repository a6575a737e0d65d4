"""The sampler of ours: what it learns from trials that ended, were stopped, did not work or still run."""

import random
import weakref

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from search.space.dice import Dice
from search.space.space import Branch, Choice, Constant, Range, Space
from search.study.proposer import Proposer
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, STOPPED, TrialRecord
from search.study.samplers import HORIZON

EPOCHS = 9
SQUARE = Space({"epochs": Constant(EPOCHS), "x": Range(0.0, 1.0), "y": Range(0.0, 1.0)})
TREE = Space(
    {
        "epochs": Constant(EPOCHS),
        "x": Range(0.0, 1.0),
        "model": Branch({"cnn": {"y": Range(0.0, 1.0)}, "resnet": {}, "vit": {}}),
    }
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Several threads wait for each other more than they work, on matrices so small and cores that others use."""
    with threadpool_limits(1, user_api="blas"):
        yield


def make(space, sampler="gp", *, seed=0, rungs=(1, 3)):
    return Proposer(
        space,
        sampler,
        seed=np.random.SeedSequence(seed),
        forbids=lambda config: None,
        rungs=lambda length: [epoch for epoch in rungs if epoch < length],
    )


def make_record(number, config, values=(), *, status=RUNNING, shortfall=0.0):
    return TrialRecord(
        number=number,
        config=config,
        epochs=config.get("epochs", EPOCHS),
        status=status,
        values=list(values),
        shortfalls=[shortfall] * len(values),
    )


def begin(proposer, number, config):
    record = make_record(number, config)
    proposer.begin(record)
    return record


def end(proposer, record, values, *, status=COMPLETE, shortfall=0.0):
    record.status, record.values, record.shortfalls = status, list(values), [shortfall] * len(values)
    proposer.end(record, {})


def tell(proposer, configs, play, *, first=0):
    """Let a sampler learn of trials; `play` returns what is known of a configuration, as keywords."""
    for number, config in enumerate(configs, start=first):
        proposer.learn(make_record(number, config, **play(config)), {})


def spread(n, *, seed=0):
    """Make configurations anywhere in the square."""
    return [{"epochs": EPOCHS, "x": x, "y": y} for x, y in np.random.default_rng(seed).random((n, 2)).tolist()]


def propose(proposer, n, *, first=1000):
    """Ask for so many proposals, of which all run."""
    proposals = []
    for number in range(first, first + n):
        proposals.append(proposer.propose())
        begin(proposer, number, proposals[-1].config)
    return [proposal.config for proposal in proposals]


def search(proposer, score, n, *, first=0):
    """Run so many trials to their ends, one after the other; return their configurations."""
    found = []
    for number in range(first, first + n):
        found.append(proposer.propose().config)
        end(proposer, begin(proposer, number, found[-1]), [score(found[-1])] * EPOCHS)
    return found


def on_a_hill(config):
    y = config.get("model.cnn.y", 0.5)
    return -((config["x"] - 0.3) ** 2) - (y - 0.8) ** 2 - {"cnn": 0.0, "resnet": 0.3, "vit": 0.6}[config["model"]]


def test_after_forty_trials_it_proposes_near_the_best_and_better_than_all_of_them():
    at_random, proposed = [], []
    for seed in range(5):
        proposer, dice = make(TREE, seed=seed, rungs=()), Dice(random.Random(seed))
        at_random.append([TREE.sample(dice) for _ in range(40)])
        tell(proposer, at_random[-1], lambda c: {"values": [on_a_hill(c)] * EPOCHS, "status": COMPLETE})
        proposed.append(search(proposer, on_a_hill, 4, first=40))

    near = [
        c["model"] == "cnn" and abs(c["x"] - 0.3) < 0.2 and abs(c["model.cnn.y"] - 0.8) < 0.2
        for configs in proposed
        for c in configs
    ]
    best, best_at_random = (np.mean([max(map(on_a_hill, cs)) for cs in runs]) for runs in (proposed, at_random))
    assert np.mean(near) > 0.5  # of all there is, 0.05
    assert best > best_at_random


def test_the_same_seed_gives_the_same_search_and_another_one_does_not():
    one, same, other = (search(make(TREE, seed=seed), on_a_hill, 14) for seed in (3, 3, 4))

    assert one == same
    assert one != other


def mean_of(name, configs):
    return np.mean([config[name] for config in configs])


@pytest.mark.parametrize("sign", [1, -1])
def test_it_learns_from_trials_that_ended(sign):
    proposer = make(SQUARE)
    tell(proposer, spread(30), lambda c: {"values": [sign * c["x"]] * EPOCHS, "status": COMPLETE})

    assert sign * (mean_of("x", propose(proposer, 8)) - 0.5) > 0.3


@pytest.mark.parametrize("sign", [1, -1])
def test_it_learns_from_trials_that_were_stopped(sign):
    """All were stopped at the first rung: none has shown where anything ends."""
    proposer = make(SQUARE)
    tell(proposer, spread(30), lambda c: {"values": [sign * c["x"]], "status": STOPPED})

    assert sign * (mean_of("x", propose(proposer, 8)) - 0.5) > 0.25


def test_a_stopped_trial_is_held_against_its_region_only():
    """Left is stopped early and low; right ends, after it stood higher at the same rung."""
    proposer = make(SQUARE)
    tell(
        proposer,
        spread(30),
        lambda c: (
            {"values": [0.1], "status": STOPPED}
            if c["x"] < 0.5
            else {"values": [0.3, 0.4, 0.5, *[0.6] * 6], "status": COMPLETE}
        ),
    )

    assert np.mean([config["x"] > 0.5 for config in propose(proposer, 10)]) >= 0.9


@pytest.mark.parametrize("sign", [1, -1])
def test_what_a_running_trial_has_shown_counts(sign):
    proposer = make(SQUARE)
    for number, config in enumerate(spread(30)):
        proposer.begin(make_record(number, config, [sign * config["x"]] * 3))

    assert sign * (mean_of("x", propose(proposer, 8)) - 0.5) > 0.25


def test_it_keeps_away_from_what_does_not_work():
    """The better, the nearer to where nothing works."""
    proposer = make(SQUARE)
    tell(
        proposer,
        spread(40),
        lambda c: {"status": INFEASIBLE} if c["x"] > 0.6 else {"values": [c["x"]] * EPOCHS, "status": COMPLETE},
    )

    found = propose(proposer, 10)

    assert np.mean([config["x"] > 0.6 for config in found]) <= 0.3
    assert 0.3 < mean_of("x", found) < 0.65


def test_what_broke_says_nothing_of_its_configuration():
    def play(with_broken):
        proposer = make(SQUARE)
        for number, config in enumerate(spread(15)):
            end(proposer, begin(proposer, number, config), [config["x"]] * EPOCHS)
            if with_broken:
                broken = begin(proposer, 100 + number, config)
                end(proposer, broken, [config["y"]] * EPOCHS, status=FAILED)
        return propose(proposer, 8)

    assert abs(mean_of("x", play(True)) - mean_of("x", play(False))) < 0.15
    assert mean_of("x", play(True)) > 0.75


def test_who_misses_a_floor_ranks_below_all_who_meet_them():
    proposer = make(SQUARE)
    tell(
        proposer,
        spread(30),
        lambda c: {
            "values": [c["x"]] * EPOCHS,
            "shortfall": 0.2 if c["x"] > 0.5 else 0.0,
            "status": COMPLETE,
        },
    )

    found = propose(proposer, 10)

    assert np.mean([config["x"] > 0.55 for config in found]) <= 0.3


def test_of_those_who_miss_the_floors_the_nearest_counts_as_the_best():
    proposer = make(SQUARE)
    for number, config in enumerate(spread(30)):
        values = [config["x"]] * EPOCHS
        proposer.learn(make_record(number, config, values, status=COMPLETE, shortfall=0.1 + config["x"]), {})

    assert mean_of("x", propose(proposer, 8)) < 0.25


def test_what_runs_drives_proposals_elsewhere():
    """Nothing is known of the right, which is tempting until others are on their way there."""
    space = Space({"epochs": Constant(EPOCHS), "x": Range(0.0, 1.0)})

    def share_on_the_right(running):
        proposer = make(space, rungs=())
        left = [{"epochs": EPOCHS, "x": x} for x in np.linspace(0, 0.6, 20).tolist()]
        tell(proposer, left, lambda c: {"values": [np.sin(25 * c["x"])] * EPOCHS, "status": COMPLETE})
        for number, x in enumerate(running):
            begin(proposer, 100 + number, {"epochs": EPOCHS, "x": x})
        return np.mean([proposer.propose().config["x"] > 0.65 for _ in range(8)])

    assert share_on_the_right([]) > 0.8
    assert share_on_the_right(np.linspace(0.65, 1, 10).tolist()) < 0.7


def test_first_proposals_are_spread_over_the_space():
    found = propose(make(SQUARE), 8)

    for name in "xy":
        assert sorted(int(config[name] * 8) for config in found) == list(range(8))


class Config(dict):
    """A configuration that says when nobody holds it any more."""


def test_the_memory_is_bounded_and_keeps_the_best_and_the_latest_and_what_runs():
    proposer, held, most = make(SQUARE), weakref.WeakValueDictionary(), 0
    for number, values in enumerate(spread(1000)):
        config = Config(values)
        record = make_record(number, config)
        held[number] = config
        proposer.begin(record)
        if number != 5:
            end(proposer, record, [2.0 if number in (7, 350) else number / 1000] * EPOCHS)
        most = max(most, len(held))
    del config, record

    assert len(held) <= most <= 2 * HORIZON + 2  # one runs all the time, one has just begun
    assert set(held) >= {5, 7, 350, *range(950, 1000)}


@pytest.mark.parametrize("sampler", ["gp", "tpe_gp"])
@pytest.mark.parametrize(
    "nodes",
    [
        {},
        {"epochs": Constant(3), "lr": Constant(0.1)},
        {"lr": Choice((0.1,))},
        {"model": Branch({"cnn": {"width": Constant(4)}})},
    ],
)
def test_a_space_of_one_configuration_is_tried_once(sampler, nodes):
    proposer = make(Space(nodes), sampler)

    proposal = proposer.propose()
    end(proposer, begin(proposer, 0, proposal.config), [0.5] * EPOCHS)

    assert proposal.config == next(Space(nodes).configurations())
    assert proposal.params == {}
    assert proposer.propose() is None


def test_schedules_of_one_epoch_can_be_searched():
    proposer = make(Space({"epochs": Constant(1), "x": Range(0.0, 1.0)}))
    tell(proposer, [{"epochs": 1, "x": c["x"]} for c in spread(15)], lambda c: {"values": [c["x"]], "status": COMPLETE})

    assert mean_of("x", propose(proposer, 5)) > 0.75


def test_short_schedules_are_told_from_long_ones():
    space = Space({"epochs": Choice((1, 3, 9)), "x": Range(0.0, 1.0)})
    proposer = make(space, rungs=())
    configs = [{"epochs": (1, 3, 9)[i % 3], "x": c["x"]} for i, c in enumerate(spread(36))]
    tell(proposer, configs, lambda c: {"values": [c["epochs"] / 10 + 0.01 * c["x"]] * c["epochs"], "status": COMPLETE})

    assert np.mean([config["epochs"] == 9 for config in propose(proposer, 8)]) > 0.8


def test_it_goes_on_while_all_results_are_equal_or_missing():
    proposer = make(SQUARE)
    tell(proposer, spread(15), lambda c: {"values": [0.5] * EPOCHS, "status": COMPLETE})
    tell(proposer, spread(15, seed=1), lambda c: {"status": INFEASIBLE}, first=15)

    found = propose(proposer, 5)

    assert all(SQUARE.contains(name, value) for config in found for name, value in config.items())
    assert len({config["x"] for config in found}) == 5
