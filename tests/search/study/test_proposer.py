"""Who proposes: never what is known or forbidden, all there is, and with a memory that does not grow."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from search.space.space import Branch, Choice, Constant, Range, Space
from search.study.proposer import Proposer
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, STOPPED, TrialRecord

SAMPLERS = ("tpe", "random", "qmc", "gp", "tpe_gp")
WIDE = Space(
    {
        "epochs": Constant(4),
        "lr": Range(1e-4, 1e-1, log=True),
        "ema": Range(0.0, 1.0, step=0.1),
        "model": Branch({"cnn": {"width": Choice((4, 8)), "dropout": Range(0.0, 0.5)}, "resnet": {}}),
    }
)

# Nodes with the values that each can take.
leaves = st.one_of(
    st.just((Constant(7), [7])),
    st.lists(st.sampled_from([1, 2, 0.5, "a", "b"]), min_size=1, max_size=3, unique=True).map(
        lambda values: (Choice(tuple(values)), values)
    ),
    st.integers(1, 3).map(lambda n: (Range(2, 2 + n), list(range(2, 3 + n)))),
    st.integers(1, 3).map(lambda n: (Range(0.1, round(0.1 + 0.1 * n, 1), step=0.1), [0.1, 0.2, 0.3, 0.4][: n + 1])),
)
levels = st.dictionaries(st.sampled_from(["x", "y", "z"]), leaves, max_size=2)
branches = st.dictionaries(st.sampled_from(["cnn", "resnet"]), levels, min_size=1)


@st.composite
def small_spaces(draw):
    """Make a space and all its configurations, with numbers in steps as a person writes them."""
    level, options = draw(levels), draw(st.none() | branches)
    nodes = {name: node for name, (node, _) in level.items()}
    all_of_it = [dict(zip(level, values, strict=True)) for values in itertools.product(*(v for _, v in level.values()))]
    if options is not None:
        nodes["model"] = Branch({option: {k: n for k, (n, _) in inner.items()} for option, inner in options.items()})
        chosen = [
            {"model": option} | {f"model.{option}.{k}": v for k, v in zip(inner, values, strict=True)}
            for option, inner in options.items()
            for values in itertools.product(*(v for _, v in inner.values()))
        ]
        all_of_it = [one | other for one in all_of_it for other in chosen]
    return Space(nodes), all_of_it


def rounded(config):
    return frozenset((name, round(v, 9) if isinstance(v, float) else v) for name, v in config.items())


def make(space, sampler="random", *, seed=0, forbids=lambda config: None):
    return Proposer(space, sampler, seed=np.random.SeedSequence(seed), forbids=forbids, rungs=lambda length: [])


def begin(proposer, number, proposal):
    record = TrialRecord(number=number, config=proposal.config, epochs=4)
    proposer.begin(record)
    return record


def end(proposer, record, value=0.5, *, status=COMPLETE, violations=None):
    record.status, record.values, record.shortfalls = status, [value], [0.0]
    proposer.end(record, violations or {})


@settings(max_examples=40)
@given(
    small=small_spaces(),
    sampler=st.sampled_from(SAMPLERS),
    seed=st.integers(0, 99),
    share=st.floats(0, 1),
    point=st.integers(0, 10**6),
)
def test_a_finite_space_is_exhausted_once_and_nothing_known_or_forbidden_is_proposed(
    small, sampler, seed, share, point
):
    space, configs = small
    allowed = {rounded(config) for config in random.Random(seed).sample(configs, round(share * len(configs)))}
    proposer = make(space, sampler, seed=seed, forbids=lambda c: None if rounded(c) in allowed else "a rule")
    points, dice = [configs[point % len(configs)]], random.Random(seed)

    proposed, running = [], []
    while proposal := (points and proposer.propose(points.pop())) or proposer.propose():
        running.append(begin(proposer, len(proposed), proposal))
        proposed.append(proposal)
        while running and dice.random() < 0.6:
            status = dice.choice([COMPLETE, STOPPED, INFEASIBLE, FAILED])
            end(proposer, running.pop(dice.randrange(len(running))), dice.random(), status=status)

    assert len(proposed) == len(allowed)
    assert {rounded(proposal.config) for proposal in proposed} == allowed
    assert all(space.contains(name, value) for proposal in proposed for name, value in proposal.config.items())
    assert proposer.propose() is None


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_proposal_describes_itself(sampler):
    proposer = make(WIDE, sampler)

    for number in range(20):
        proposal = proposer.propose()
        end(proposer, begin(proposer, number, proposal))

        assert proposal.params.keys() == proposal.distributions.keys() == proposal.config.keys() - {"epochs"}
        assert all(proposal.config[name] == value for name, value in proposal.params.items())
        assert proposer.describe(proposal.config) == proposal


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_and_the_same_results_give_the_same_proposals(sampler):
    def play(seed):
        proposer, configs = make(WIDE, sampler, seed=seed), []
        for number in range(15):
            proposal = proposer.propose()
            end(proposer, begin(proposer, number, proposal), proposal.config["lr"])
            configs.append(proposal.config)
        return configs

    assert play(5) == play(5)
    assert play(5) != play(6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_process_in_which_it_runs_does_not_matter_to_the_first_proposal(sampler):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global generator that a sampler must not use
    one = make(WIDE, sampler).propose()
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    other = make(WIDE, sampler).propose()

    assert one == other


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "point",
    [
        {"lr": 0.02},
        {"model": "cnn"},
        {"model": "cnn", "model.cnn.width": 8},
        {"model": "resnet", "lr": 1e-4, "ema": 0.3},
        {"epochs": 4, "ema": 1.0},
    ],
)
def test_a_point_is_kept_and_completed(sampler, point):
    proposal = make(WIDE, sampler).propose(point)

    assert proposal.config | point == proposal.config
    assert proposal.config.keys() >= {"epochs", "lr", "ema", "model"}
    assert all(WIDE.contains(name, value) for name, value in proposal.config.items())


def test_a_partial_point_is_completed_with_what_is_allowed_and_new():
    space = Space({"x": Choice((1, 2)), "y": Range(1, 4)})
    proposer = make(space, forbids=lambda config: "odd" if config["y"] % 2 else None)

    found = []
    while proposal := proposer.propose({"x": 2}):
        begin(proposer, len(found), proposal)
        found.append(proposal.config)

    assert sorted(config["y"] for config in found) == [2, 4]
    assert {config["x"] for config in found} == {2}


def test_the_next_point_is_not_that_which_could_not_be_proposed():
    proposer = make(Space({"x": Choice((1, 2)), "y": Range(1, 4)}), forbids=lambda c: "no" if c["x"] == 2 else None)

    assert proposer.propose({"x": 2}) is None
    assert proposer.propose({"y": 3}).config == {"x": 1, "y": 3}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_runs_is_not_proposed_again(sampler):
    proposer = make(Space({"x": Range(1, 30)}), sampler)

    values = []
    for number in range(30):
        proposal = proposer.propose()
        begin(proposer, number, proposal)
        values.append(proposal.config["x"])

    assert sorted(values) == list(range(1, 31))


def test_a_step_that_is_written_in_decimals_is_the_same_step():
    """0.3 is not 3 * 0.1 in binary; both are one configuration, and none lies above the range."""
    proposer = make(Space({"x": Range(0.0, 0.7, step=0.1)}))

    values = []
    for point in ({"x": 0.3}, {"x": 0.6}, {"x": 0.7}, *[None] * 9):
        proposal = proposer.propose(point)
        values += [proposal.config["x"]] if proposal else []
        if proposal:
            begin(proposer, len(values), proposal)

    assert values[:3] == [0.3, 0.6, 0.7]
    assert sorted(values) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])


@pytest.mark.parametrize("failed", [True, False])
def test_an_equal_configuration_stays_known_however_its_trial_ended(failed):
    proposer = make(Space({"x": Choice((1, 2))}))
    proposal = proposer.propose()
    end(proposer, begin(proposer, 0, proposal), status=FAILED if failed else COMPLETE)

    assert proposer.propose().config["x"] == 3 - proposal.config["x"]


# The memory, seen from the sampler.


class Spy(RandomSampler):
    """Notes what a sampler would learn from at each proposal."""

    def __init__(self):
        super().__init__(seed=0)
        self.sizes, self.trials = [], []

    def infer_relative_search_space(self, study, trial):
        self.trials = study.get_trials(deepcopy=False)
        self.sizes.append(len(self.trials))
        return super().infer_relative_search_space(study, trial)


@pytest.fixture
def spy(monkeypatch):
    spy = Spy()
    monkeypatch.setattr("search.study.samplers._make_sampler", lambda name, *, seed: spy)
    return spy


def ended(spy):
    return [trial for trial in spy.trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]


def test_the_memory_is_bounded_and_keeps_the_best_and_the_latest(spy):
    proposer, running = make(WIDE), []
    for number in range(1500):
        running.append(begin(proposer, number, proposer.propose()))
        if len(running) == 4:
            record = running.pop(0)
            value = 2.0 if record.number in (7, 300) else record.number / 1500
            end(proposer, record, value)
    known = {trial.value for trial in ended(spy)}
    n_running = sum(trial.state is TrialState.RUNNING for trial in spy.trials)

    assert max(spy.sizes) < 1000
    assert sum(trial.value == 2.0 for trial in ended(spy)) == 2
    assert {number / 1500 for number in range(1450, 1495)} <= known
    assert n_running == 3 + 1  # the one that is being proposed too


def test_what_meets_the_floors_is_kept_before_what_is_better(spy):
    proposer = make(WIDE)
    for number in range(1500):
        meets = number == 3
        value, missed = (0.1, -0.1) if meets else (0.9, 0.2)
        end(proposer, begin(proposer, number, proposer.propose()), value, violations={"macro_f1 >= 0.5": missed})
    proposer.propose()

    assert [trial.value for trial in ended(spy) if trial.constraints["macro_f1 >= 0.5"] < 0] == [0.1]


def test_the_memory_says_how_each_trial_ended(spy):
    proposer = make(WIDE)
    for number, status in enumerate((COMPLETE, STOPPED, INFEASIBLE, FAILED)):
        violations = {"works": 10.0} if status == INFEASIBLE else {"a floor": -0.1}
        end(proposer, begin(proposer, number, proposer.propose()), 0.1 * number, status=status, violations=violations)
    proposer.propose()

    complete, stopped, infeasible = ended(spy)  # what broke says nothing of its configuration
    assert (complete.state, complete.value) == (TrialState.COMPLETE, 0.0)
    assert (stopped.state, stopped.intermediate_values) == (TrialState.PRUNED, {1: 0.1})
    assert (infeasible.state, infeasible.constraints) == (TrialState.PRUNED, {"works": 10.0})
    assert complete.constraints == stopped.constraints == {"a floor": -0.1}


def test_a_forbidden_proposal_is_learned_from(spy):
    proposer = make(Space({"x": Range(1, 1000)}), forbids=lambda config: "large" if config["x"] > 5 else None)
    begin(proposer, 0, proposer.propose())
    proposer.propose()

    assert all(trial.params["x"] > 5 and trial.constraints["allowed"] > 0 for trial in ended(spy))
    assert ended(spy)


def test_a_sequence_without_repetitions_goes_on_when_the_memory_begins_anew():
    """A quasi-random sequence would fall into its first points again, and be replaced by the dice for ever."""
    space = Space({"lr": Range(1e-4, 1e-1, log=True), "ema": Range(0.0, 1.0)})
    proposer, cells = make(space, "qmc"), []
    for number in range(1024):
        proposal = proposer.propose()
        end(proposer, begin(proposer, number, proposal))
        lr, ema = proposal.config["lr"], proposal.config["ema"]
        cells.append((int((np.log10(lr) + 4) / 3 * 16), int(ema * 16)))

    # Any 256 points of the sequence in a row spread evenly; of as many random ones, four or more would share a cell.
    late = [cells[768:].count(cell) for cell in itertools.product(range(16), repeat=2)]
    assert max(late) <= 2
