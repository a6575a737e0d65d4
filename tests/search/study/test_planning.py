"""The largest configuration of a space is found and planned before any trial."""

import dataclasses

import pytest
import torch

from search.errors import ConfigError
from search.space.config import Rule
from search.space.expressions import parse_expression
from search.study.planning import Planner, find_largest, plan_largest_of
from search.trial.params import TrialParams
from search.views.words import memory_plan

SPACE = """
data: {wafers: synthetic, image_size: 16, epoch_samples: 2048}
space:
  batch_size: [64, 256, 2048]
  lr: {low: 1e-4, high: 1e-1, log: true}
  weight_decay: {low: 0.0, high: 0.1, step: 0.05}
  model: {choose: {wafer_cnn: {width: {low: 4, high: 32, log: true}, dropout: {low: 0.0, high: 0.5}}, wafer_resnet: {}}}
search: {trials: 2, stop: null}
"""


@pytest.fixture
def config(load):
    return load(SPACE)


@pytest.fixture
def planner(config):
    return Planner(data=config.data, n_train=800, n_val=200, n_classes=9, auto=torch.float32)


class TickingClock:
    """Each look at it takes one second."""

    now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


class ListingPlanner:
    """Remembers what it was asked about."""

    def __init__(self, planner):
        self.estimate_of, self.seen = planner.estimate, []

    def estimate(self, params):
        self.seen.append(params)
        return self.estimate_of(params)


def test_the_largest_numbers_are_looked_at_first(config, planner):
    largest = find_largest(config, planner, n_samples=1)

    assert (largest.params.batch_size, largest.params.weight_decay) == (2048, 0.1)
    assert (largest.params.model.name, largest.params.model.options["width"]) == ("wafer_cnn", 32)
    assert largest.estimate == planner.estimate(largest.params)


def test_the_largest_numbers_are_looked_at_for_each_model(load, planner):
    widths = "{wafer_cnn: {width: 4}, wafer_resnet: {width: {low: 4, high: 20, step: 8}, squeeze: [true, false]}}"
    config = load(f"data: {{image_size: 16}}\nspace: {{model: {{choose: {widths}}}}}\nsearch: {{stop: null}}")

    largest = find_largest(config, planner, n_samples=2)

    assert largest.params.model.name == "wafer_resnet"
    assert (largest.params.model.options["width"], largest.params.model.options["squeeze"]) == (20, True)


def test_the_largest_numbers_are_looked_at_where_no_model_is_chosen(load, planner):
    config = load("data: {image_size: 16}\nspace: {batch_size: {low: 32, high: 256}}\nsearch: {stop: null}")

    assert find_largest(config, planner, n_samples=1).params.batch_size == 256


def test_words_are_sampled_beyond_the_largest_numbers(load, planner):
    config = load(
        "data: {image_size: 16}\nspace: {batch_size: [64, 256], test_time: [single, symmetries], "
        "optimizer: {choose: {sgd: {momentum: 0.0}, adam: {}}}}\nsearch: {stop: null}"
    )

    largest = find_largest(config, planner, budget_s=60).params

    assert (largest.batch_size, largest.optimizer.name, largest.test_time) == (256, "adam", "symmetries")


def test_the_search_for_it_ends_when_its_time_is_up(config, planner):
    assert find_largest(config, planner, budget_s=2.5, clock=TickingClock()).n_samples == 3


def test_points_that_will_be_tried_first_are_looked_at_before_samples(load, planner):
    point = "{batch_size: 64, model: wafer_cnn, model.wafer_cnn.width: 31, lr: 0.01}"
    config, listing = load(f"{SPACE}\nfirst: [{point}]"), ListingPlanner(planner)

    find_largest(config, listing, n_samples=3)

    *_, third = listing.seen  # after the largest of each model
    assert (third.batch_size, third.model.options["width"], third.lr) == (64, 31, 0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_auto_precision_takes_as_much_as_what_the_device_computes_in(config, precision):
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    planner = Planner(data=config.data, n_train=800, n_val=200, n_classes=9, auto=dtype)

    assert planner.total(TrialParams()) == planner.total(TrialParams(precision=precision))


def test_configurations_that_break_a_rule_are_not_looked_at(load, planner):
    sampling, loss = "{choose: {imbalanced: {}, balanced: {}}}", "{choose: {cross_entropy: {}, logit_adjusted: {}}}"
    config = load(SPACE.replace("search:", f"  sampling: {sampling}\n  loss: {loss}\nsearch:"))
    listing = ListingPlanner(planner)

    assert find_largest(config, listing, n_samples=20, budget_s=60).n_samples == 20
    assert [params.model.name for params in listing.seen[:2]] == ["wafer_cnn", "wafer_resnet"]
    assert all(params.sampling.name == "imbalanced" or params.loss.name == "cross_entropy" for params in listing.seen)


def test_no_configuration_is_looked_at_that_a_rule_forbids(load, planner):
    rules = '[{if: "batch_size == 2048", why: memory}, {if: "width > 30 and batch_size > 64", why: memory}]'
    config, listing = load(f"{SPACE}\nforbid: {rules}"), ListingPlanner(planner)

    largest = find_largest(config, listing, n_samples=25, budget_s=60).params

    assert len(listing.seen) == 25
    assert all(params.batch_size < 2048 for params in listing.seen)
    assert not any(p.model.options["width"] > 30 and p.batch_size > 64 for p in listing.seen)
    assert largest.batch_size == 256


def test_where_the_largest_numbers_are_forbidden_nearly_all_of_them_are_looked_at(load, planner):
    config = load(f'{SPACE}\nforbid: [{{if: "batch_size == 2048", why: memory}}]')

    params = find_largest(config, planner, n_samples=1).params

    assert (params.model.name, params.model.options["width"]) == ("wafer_cnn", 32)
    assert (params.batch_size < 2048, params.weight_decay) == (True, 0.1)


def test_a_model_that_is_forbidden_altogether_is_passed_over(load, planner):
    config = load(f"{SPACE}\nforbid: [{{if: \"model == 'wafer_cnn'\", why: slow}}]")
    listing = ListingPlanner(planner)

    find_largest(config, listing, n_samples=5, budget_s=60)

    assert {params.model.name for params in listing.seen} == {"wafer_resnet"}


def test_the_search_for_it_ends_where_everything_is_forbidden(config, planner):
    everything = Rule(condition=parse_expression("batch_size > 0"), why="no")
    nothing_left = dataclasses.replace(config, forbid=(everything,))

    with pytest.raises(ConfigError, match="2,000 configurations drawn in a row are all forbidden; relax the rules"):
        find_largest(nothing_left, planner)


def test_the_encoding_of_the_data_is_planned_with(config, planner):
    data = config.data.model_copy(update={"encoding": "states"})
    states = Planner(data=data, n_train=800, n_val=200, n_classes=9, auto=torch.float32)

    assert planner.estimate(TrialParams()).wafers > 1.9 * states.estimate(TrialParams()).wafers


def test_the_plan_says_what_is_largest_and_of_what_it_consists(config, planner):
    largest = find_largest(config, planner, n_samples=5, budget_s=60)

    said = memory_plan(largest, usable=None)

    assert said.startswith("memory: up to about ")
    assert " per trial (largest of 5 configurations looked at: wafer_cnn at batch_size 2048; activations " in said
    assert "\n" not in said
    assert memory_plan(largest, usable=2**40) == said


@pytest.mark.parametrize(("usable", "words"), [(2**20, "1.0 MiB"), (0, "0.0 MiB")])
def test_a_trial_that_exceeds_its_share_is_warned_of(config, planner, usable, words):
    said = memory_plan(find_largest(config, planner, n_samples=1), usable=usable)

    assert f"WARNING: a trial's share leaves {words} for that" in said
    assert "lower batch_size or data.image_size" in said


def test_the_largest_of_each_model_is_planned_by_itself(load):
    text = """
data: {wafers: synthetic, image_size: 16}
space:
  model:
    choose:
      wafer_cnn: {width: [4, 8, 64], batch_size: [64, 512]}
      wafer_resnet: {width: [4], batch_size: [32]}
"""
    config = load(text)
    planner = Planner(data=config.data, n_train=1000, n_val=100, n_classes=9, auto=torch.float32)

    large, small = (plan_largest_of(config, planner, model) for model in ("wafer_cnn", "wafer_resnet"))

    assert large == find_largest(config, planner).estimate.total
    assert 0 < small < large / 10
