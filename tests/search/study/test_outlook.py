"""What is said before a search is what comes of it: sizes and shares are counted, survivors are simulated."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.errors import ConfigError
from search.space.dice import Dice
from search.space.space import Branch, Choice, Constant, Range, Space
from search.study.outlook import draw_allowed, foresee, measure_forbidden

numbers = st.integers(0, 20)
finite = st.one_of(
    st.builds(Constant, numbers),
    st.lists(numbers, min_size=1, max_size=3, unique=True).map(lambda values: Choice(tuple(values))),
    st.builds(lambda low, n: Range(low, low + n), numbers, st.integers(1, 3)),
    st.builds(lambda low, n: Range(low, low + 3 * n, step=3), numbers, st.integers(1, 3)),
    st.builds(lambda low, n: Range(1 + low, 1 + low + n, log=True), numbers, st.integers(1, 3)),
    st.builds(lambda low, n: Range(low / 10, low / 10 + n * 0.1, step=0.1), numbers, st.integers(1, 3)),
)
endless = st.sampled_from([Range(0.0, 0.5), Range(1e-4, 1e-1, log=True)])


def trees(leaves):
    levels = st.dictionaries(st.sampled_from("abc"), leaves, max_size=2)
    branches = st.dictionaries(st.sampled_from(["x", "y", "z"]), levels, min_size=1, max_size=3).map(Branch)
    return st.dictionaries(st.sampled_from("defg"), leaves | branches, max_size=3)


class Odometer:
    """Gives a space one configuration after the other, the values of each parameter in order."""

    def __init__(self):
        self._digits, self._position = [], 0

    def suggest_categorical(self, name, choices):
        if self._position == len(self._digits):
            self._digits.append([0, len(choices)])
        self._position += 1
        return choices[self._digits[self._position - 1][0]]

    def suggest_int(self, name, low, high, *, step=1, log=False):
        return self.suggest_categorical(name, range(low, high + 1, step))

    def suggest_float(self, name, low, high, *, step, log=False):
        return self.suggest_categorical(name, [low + i * step for i in range(round((high - low) / step) + 1)])

    def go_on(self):
        """Move to the next configuration; return whether there is one."""
        self._position = 0
        while self._digits and self._digits[-1][0] + 1 == self._digits[-1][1]:
            self._digits.pop()
        if self._digits:
            self._digits[-1][0] += 1
        return bool(self._digits)


def list_all(space):
    odometer = Odometer()
    found = [space.sample(odometer)]
    while odometer.go_on():
        found.append(space.sample(odometer))
    return found


@given(nodes=trees(finite))
def test_the_size_of_a_space_is_how_many_configurations_can_be_drawn(nodes):
    assert Space(nodes).size() == len(list_all(Space(nodes)))


@given(nodes=trees(finite))
def test_a_finite_space_lists_its_configurations(nodes):
    space = Space(nodes)
    listed = [{name: pytest.approx(value) for name, value in flat.items()} for flat in list_all(space)]

    assert list(space.configurations()) == listed


@given(nodes=trees(finite), leaf=endless, is_inside=st.booleans())
def test_a_space_with_a_range_without_steps_is_endless(nodes, leaf, is_inside):
    node = Branch({"one": {}, "other": {"lr": leaf}}) if is_inside else leaf

    assert Space({**nodes, "h": node}).size() is None


RULES = """
data: {{wafers: synthetic, image_size: 16, epoch_samples: 256}}
space:
  epochs: [2, 4]
  batch_size: {{low: 16, high: 64, step: 16}}
  sampling: {{choose: {{imbalanced: {{}}, balanced: {{}}, power: {{alpha: [0.2, 0.4, 0.6]}}}}}}
  loss: {{choose: {{cross_entropy: {{}}, logit_adjusted: {{}}}}}}
  model: {{choose: {{wafer_cnn: {{width: [4, 8, 16]}}, wafer_resnet: {{}}}}}}
forbid: {forbid}
search: {{trials: {trials}, stop: null}}
"""
WIDE, LONG = "model.wafer_cnn.width * batch_size > 512", "epochs == 4 and batch_size < 32"
FORBID = f'[{{if: "{WIDE}", why: memory}}, {{if: "{LONG}", why: time}}]'


def test_the_forbidden_share_of_a_small_space_is_counted(load):
    config = load(RULES.format(forbid=FORBID, trials=4))
    configs = list_all(config.space)
    wide = [c for c in configs if c.get("model.wafer_cnn.width", 0) * c["batch_size"] > 512]
    long = [c for c in configs if c["epochs"] == 4 and c["batch_size"] < 32]
    twice = [c for c in configs if c["loss"] == "logit_adjusted" and c["sampling"] != "imbalanced"]

    found = measure_forbidden(config)

    assert found.is_exact
    assert (found.n, found.n_forbidden) == (len(configs), sum(c in wide or c in long or c in twice for c in configs))
    assert (found.by_rule[WIDE], found.by_rule[LONG]) == (len(wide), len(long))
    assert sum(n for rule, n in found.by_rule.items() if rule.startswith("loss 'logit_adjusted'")) == len(twice)
    assert found.interval == (found.share, found.share)
    assert found.n_allowed == sum(config.forbids(c) is None for c in configs)


def test_the_forbidden_share_of_a_large_space_is_drawn_with_an_interval(load):
    config = load(RULES.format(forbid=FORBID, trials=4))
    dice = Dice(random.Random(99))
    truth = sum(config.forbids(config.space.sample(dice)) is not None for _ in range(4000)) / 4000

    found = measure_forbidden(config, countable=10, n_draws=2000)

    assert (found.is_exact, found.n, found.n_allowed) == (False, 2000, None)
    assert found.interval[0] - 0.02 < truth < found.interval[1] + 0.02
    assert 0.03 < found.interval[1] - found.interval[0] < 0.05


def test_a_space_without_rules_forbids_nothing(load):
    config = load("data: {image_size: 16}\nspace: {lr: {low: 1e-4, high: 1e-1}}\nsearch: {stop: null}")

    assert measure_forbidden(config, n_draws=50).n_forbidden == 0


def make(load, *, epochs="8", trials=20, stop="{asha: {first_rung: 1 epoch, factor: 2}}", first="[]"):
    return load(
        f"data: {{wafers: synthetic, image_size: 16, epoch_samples: 256}}\n"
        f"space: {{epochs: {epochs}, lr: {{low: 1e-4, high: 1e-1}}}}\nfirst: {first}\n"
        f"search: {{trials: {trials}, stop: {stop}}}"
    )


@settings(max_examples=20)
@given(
    first_rung=st.integers(1, 3),
    factor=st.integers(2, 4),
    peers=st.integers(1, 5),
    trials=st.integers(1, 60),
    slots=st.integers(1, 8),
)
def test_between_one_of_so_many_and_all_trials_outlive_a_rung(load, first_rung, factor, peers, trials, slots):
    stop = f"{{asha: {{first_rung: {first_rung}, factor: {factor}, peers: {peers}}}}}"
    outlook = foresee(make(load, epochs="[5, 14]", trials=trials, stop=stop), slots=slots, n_searches=40)

    assert sum(schedule.trials for schedule in outlook.schedules) == pytest.approx(trials)
    for schedule in outlook.schedules:
        reaching = [schedule.trials, *schedule.reaching, schedule.finishing]
        assert schedule.reaching[0] == schedule.trials
        assert reaching == sorted(reaching, reverse=True)
        for before, after in itertools.pairwise(reaching[1:]):
            assert after > 0.8 * before / factor  # 40 searches leave some chance


@settings(max_examples=20)
@given(factor=st.integers(2, 4), trials=st.integers(1, 60), slots=st.integers(1, 8))
def test_all_epochs_are_those_up_to_each_rung_and_not_more_than_up_to_the_next(load, factor, trials, slots):
    stop = f"{{asha: {{first_rung: 2 epochs, factor: {factor}}}}}"
    outlook = foresee(make(load, epochs="[4, 20]", trials=trials, stop=stop), slots=slots, n_searches=20)

    least = most = 0.0
    for schedule in outlook.schedules:
        ends = [0, *schedule.rungs, schedule.length]
        reaching = [schedule.trials, *schedule.reaching, schedule.finishing]
        for (start, end), (before, after) in zip(itertools.pairwise(ends), itertools.pairwise(reaching), strict=True):
            least, most = least + (end - start) * after, most + (end - start) * before
    assert least - 1e-6 <= outlook.epochs <= most + 1e-6
    assert outlook.epochs_range[0] <= outlook.epochs_range[1]
    assert outlook.makespan <= outlook.epochs <= outlook.makespan * slots + 1e-6


def test_without_a_judge_every_trial_runs_to_its_end(load):
    outlook = foresee(make(load, epochs="7", trials=12, stop="none"), slots=4)

    [schedule] = outlook.schedules
    assert (schedule.rungs, schedule.reaching) == ((), ())
    assert (schedule.trials, schedule.finishing) == (12, 12)
    assert (outlook.epochs, outlook.epochs_range, outlook.makespan) == (84, (84, 84), 21)


def test_lengths_are_drawn_as_the_space_draws_them_after_the_first_points(load):
    first = "[{epochs: 9}, {epochs: 9}, {epochs: 9}, {lr: 0.01}]"
    config = make(load, epochs="[3, 9]", trials=5, stop="none", first=first)

    short, long = foresee(config, slots=1, n_searches=400).schedules

    assert (short.length, long.length) == (3, 9)
    assert long.trials == pytest.approx(4, abs=0.6)  # three given, one drawn once, one drawn in every search


def test_the_simulation_is_the_same_every_time(load):
    one, other = (foresee(make(load), slots=2, n_searches=5) for _ in range(2))

    assert one.schedules == other.schedules


def test_a_space_with_fewer_configurations_than_trials_ends_with_them(load):
    assert foresee(make(load, trials=50), slots=2, allowed=7, n_searches=3).trials == 7


def test_more_trials_fit_into_more_time_up_to_all(load):
    outlook = foresee(make(load, epochs="[4, 8]", trials=30), slots=3, n_searches=20)

    fitting = [outlook.judged_within(epochs) for epochs in range(0, 100, 5)]

    assert fitting[0] == 0
    assert fitting == sorted(fitting)
    assert outlook.judged_within(outlook.makespan * 3) == 30


def test_a_search_of_very_many_trials_is_scaled_up(load):
    outlook = foresee(make(load, epochs="3", trials=50_000, stop="none"), slots=2, n_searches=2)

    assert (outlook.epochs, outlook.makespan) == (150_000, 75_000)
    assert outlook.judged_within(37_500) == 25_000


def test_a_point_of_which_the_rules_leave_nothing_is_said(load):
    config = load(RULES.format(forbid='[{if: "epochs == 4", why: time}]', trials=3))

    with pytest.raises(ConfigError, match=r"2,000 of 2,000 .* with \{.epochs.: 4\} are forbidden"):
        draw_allowed(config, random.Random(0), {"epochs": 4})


def test_what_is_drawn_keeps_to_the_point_and_to_the_rules(load):
    config = load(RULES.format(forbid=FORBID, trials=3))

    drawn = [draw_allowed(config, random.Random(seed), {"epochs": 4}) for seed in range(50)]

    assert {flat["epochs"] for flat in drawn} == {4}
    assert not any(config.forbids(flat) for flat in drawn)
