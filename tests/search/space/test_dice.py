"""What dice draw lies in the space, as widely as it allows, and where it must."""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from search.space.dice import Dice
from search.space.space import Branch, Choice, Constant, Range, Space

seeds = st.integers(0, 10_000)
lows, widths = st.integers(0, 50), st.integers(1, 50)
# Ends as a person writes them: 0.3, where 0.1 + 2 * 0.1 is a little more.
in_steps = st.builds(
    lambda low, n, step: Range(low / 10, round(low / 10 + n * step, 6), step=step),
    st.integers(0, 9),
    st.integers(1, 40),
    st.sampled_from([0.1, 0.05, 0.3, 0.7]),
)
ranges = st.one_of(
    st.builds(lambda low, width: Range(low, low + width), lows, widths),
    st.builds(lambda low, width: Range(low, low + 3 * width, step=3), lows, widths),
    st.builds(lambda low, width: Range(low + 1, low + 1 + width, log=True), lows, widths),
    st.builds(lambda low, width: Range(low / 7, (low + width) / 7), lows, widths),
    st.builds(lambda low, up: Range(10.0**-low, 10.0 ** (up - low), log=True), st.integers(0, 6), st.integers(1, 4)),
    in_steps,
)
SPACE = Space(
    {
        "epochs": Constant(4),
        "lr": Range(0.1, 0.3, step=0.1),
        "model": Branch({"cnn": {"depth": Choice((1, 2))}, "resnet": {}}),
    }
)


@given(node=ranges, seed=seeds)
def test_what_is_drawn_from_a_range_lies_in_it(node, seed):
    [value] = Space({"x": node}).sample(Dice(random.Random(seed))).values()

    assert node.contains(value)


@given(node=in_steps)
@example(node=Range(0.1, 0.3, step=0.1))
def test_every_step_of_a_range_is_drawn(node):
    dice, n_steps = Dice(random.Random(0)), round((node.high - node.low) / node.step) + 1

    drawn = {Space({"x": node}).sample(dice)["x"] for _ in range(40 * n_steps)}

    assert len(drawn) == n_steps
    assert all(map(node.contains, drawn))
    assert (min(drawn), max(drawn)) == pytest.approx((node.low, node.high))


@given(seed=seeds)
def test_the_same_seed_draws_the_same(seed):
    one, other = (Dice(random.Random(seed)) for _ in range(2))

    assert [SPACE.sample(one) for _ in range(5)] == [SPACE.sample(other) for _ in range(5)]


@pytest.mark.parametrize(
    "fixed",
    [{"lr": 0.2}, {"model": "resnet"}, {"model": "cnn", "model.cnn.depth": 2, "lr": 0.3}, {"epochs": 4}],
)
@given(seed=seeds)
def test_what_is_fixed_is_not_drawn(fixed, seed):
    drawn = SPACE.sample(Dice(random.Random(seed), fixed))

    assert drawn | fixed == drawn


def test_everything_is_drawn_sooner_or_later():
    dice = Dice(random.Random(0))

    drawn = {frozenset(SPACE.sample(dice).items()) for _ in range(500)}

    assert len(drawn) == 3 * (2 + 1)
