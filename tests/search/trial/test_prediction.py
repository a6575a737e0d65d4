import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from data_pipeline.augment import apply_symmetry, to_channels
from search.trial.losses import class_balanced, logit_adjusted
from search.trial.prediction import DECIDE_FOR, TEST_TIME, Predictor, shift_prior, symmetric_views

K = 4
SHIFT = torch.tensor([0.5, -0.25, 0.0, 2.0])
LOPSIDED = torch.arange(2 * 3 * 3).reshape(1, 2, 3, 3)

shares = arrays(np.float64, K, elements=st.floats(0.001, 1)).map(lambda drawn: torch.from_numpy(drawn / drawn.sum()))
tilts = arrays(np.float64, K, elements=st.floats(0.01, 100)).map(torch.from_numpy)
# How likely each of six observations is under each class.
likelihoods = arrays(np.float64, (6, K), elements=st.floats(0.01, 1)).map(
    lambda drawn: torch.from_numpy(drawn / drawn.sum(0))
)


@pytest.fixture
def network():
    """A network that sees how a wafer is turned, and whose BatchNorm is no identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, K))
        network(torch.rand(16, 2, 8, 8))
    return network.eval()


@pytest.fixture
def wafers():
    return to_channels(torch.randint(3, (5, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8))


def posterior(likelihood, prior):
    """What Bayes' rule says of each observation, shape (6, K)."""
    joint = likelihood * prior
    return joint / joint.sum(1, keepdim=True)


def as_set(pictures):
    return {tuple(picture.flatten().tolist()) for picture in pictures}


# Views


def test_the_first_view_is_the_picture_and_all_eight_differ():
    views = symmetric_views(LOPSIDED)

    assert torch.equal(views[0], LOPSIDED)
    assert len(as_set(views)) == len(views) == 8


@pytest.mark.parametrize("first", range(8))
def test_the_views_of_a_view_are_the_views_of_the_picture(first):
    views = symmetric_views(LOPSIDED)

    assert as_set(symmetric_views(views[first])) == as_set(views)


def test_the_views_are_the_symmetries_that_training_draws_from():
    codes = torch.randint(3, (1, 9, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    drawn = apply_symmetry(codes.repeat(8, 1, 1), torch.arange(8))

    assert as_set(symmetric_views(to_channels(codes))) == as_set(to_channels(drawn))


def test_every_wafer_of_a_batch_is_seen_in_the_same_view(wafers):
    together = symmetric_views(wafers)
    alone = zip(*(symmetric_views(wafer[None]) for wafer in wafers), strict=True)

    assert all(torch.equal(view, torch.cat(parts)) for view, parts in zip(together, alone, strict=True))


# Predictors


def test_a_single_view_gets_the_shift_and_nothing_else(network, wafers):
    predictor = Predictor(network, shift=SHIFT)

    assert torch.equal(predictor(wafers), network(wafers) + SHIFT)


@pytest.mark.parametrize("view", range(8))
def test_with_symmetries_the_orientation_of_a_wafer_makes_no_difference(network, wafers, view):
    turned = symmetric_views(wafers)[view]
    predictor = Predictor(network, shift=SHIFT, test_time="symmetries")

    torch.testing.assert_close(predictor(turned), predictor(wafers), rtol=1e-5, atol=1e-5)


def test_with_a_single_view_the_orientation_makes_one(network, wafers):
    predictor = Predictor(network, shift=SHIFT)
    first, *others = [predictor(view) for view in symmetric_views(wafers)]

    assert not any(torch.allclose(other, first, rtol=1e-3) for other in others)


def test_symmetries_average_the_probabilities_and_then_shift_them(network, wafers):
    mean = torch.stack([network(view).softmax(1) for view in symmetric_views(wafers)]).mean(0)

    found = Predictor(network, shift=SHIFT, test_time="symmetries")(wafers).softmax(1)

    torch.testing.assert_close(found, (mean.log() + SHIFT).softmax(1))


@pytest.mark.parametrize("test_time", TEST_TIME)
def test_logits_are_float32_even_of_a_network_in_bfloat16(network, wafers, test_time):
    predictor = Predictor(network.bfloat16(), shift=SHIFT, test_time=test_time)

    assert predictor(wafers.bfloat16()).dtype is torch.float32


def test_a_predictor_has_the_parameters_of_its_network_and_none_of_its_own(network):
    predictor = Predictor(network, shift=SHIFT)

    assert [*map(id, predictor.parameters())] == [*map(id, network.parameters())]


@pytest.mark.parametrize("test_time", TEST_TIME)
def test_a_predictor_survives_pickling_and_its_state_holds_the_shift(network, wafers, test_time):
    predictor = Predictor(network, shift=SHIFT, test_time=test_time)
    blank = Predictor(network, shift=torch.zeros(K), test_time=test_time)

    blank.load_state_dict(predictor.state_dict())

    assert torch.equal(blank(wafers), predictor(wafers))
    assert torch.equal(pickle.loads(pickle.dumps(predictor))(wafers), predictor(wafers))


# Shifts


@given(likelihoods, shares, shares, tilts, st.sampled_from(["natural", "uniform"]))
def test_the_shifted_posterior_is_the_exact_one_under_the_wanted_shares(likelihood, natural, drawn, tilt, wanted):
    taught = posterior(likelihood, drawn * tilt).log() + 3.0  # logits are free up to a constant
    exact = posterior(likelihood, {"natural": natural, "uniform": torch.ones(K)}[wanted])

    shifted = taught + shift_prior(wanted, natural=natural, drawn=drawn, tilt=tilt)

    torch.testing.assert_close(shifted.softmax(1), exact, rtol=1e-4, atol=1e-6)


@given(shares, shares, tilts)
def test_decisions_as_drawn_shift_nothing(natural, drawn, tilt):
    assert torch.equal(shift_prior("drawn", natural=natural, drawn=drawn, tilt=tilt), torch.zeros(K))


@given(shares, shares, tilts, st.floats(0.1, 1000), st.sampled_from(DECIDE_FOR))
def test_counts_do_as_well_as_shares_and_only_the_ratios_of_a_tilt_matter(natural, drawn, tilt, scale, wanted):
    by_shares = shift_prior(wanted, natural=natural, drawn=drawn, tilt=tilt)

    by_counts = shift_prior(wanted, natural=natural * scale, drawn=drawn, tilt=tilt * scale)

    torch.testing.assert_close(by_counts, by_shares, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wanted", DECIDE_FOR)
def test_a_class_that_was_never_drawn_is_not_shifted(wanted):
    natural, drawn = torch.tensor([30, 0, 10, 0]), torch.tensor([0.5, 0.0, 0.5, 0.0])

    shift = shift_prior(wanted, natural=natural, drawn=drawn, tilt=torch.tensor([1.0, 7.0, 1.0, 0.1]))

    assert shift.dtype is torch.float32
    assert torch.isfinite(shift).all()
    assert shift[[1, 3]].tolist() == [0, 0]


def test_the_other_classes_are_shifted_as_if_an_absent_one_did_not_exist():
    natural, drawn, tilt = torch.tensor([30, 0, 10]), torch.tensor([0.4, 0.0, 0.6]), torch.tensor([1.0, 9.0, 2.0])
    there = torch.tensor([0, 2])

    for wanted in DECIDE_FOR:
        whole = shift_prior(wanted, natural=natural, drawn=drawn, tilt=tilt)
        without = shift_prior(wanted, natural=natural[there], drawn=drawn[there], tilt=tilt[there])
        torch.testing.assert_close(whole[there], without)


@given(st.lists(st.integers(1, 30_000), min_size=2, max_size=9).map(torch.tensor))
def test_a_loss_that_speaks_of_equal_shares_already_is_not_shifted_towards_them(counts):
    tilt = logit_adjusted(counts, tau=1.0).prior_tilt

    shift = shift_prior("uniform", natural=counts, drawn=counts / counts.sum(), tilt=tilt)

    torch.testing.assert_close(shift, shift[:1].expand(len(counts)), rtol=0, atol=1e-5)


@given(
    st.lists(st.integers(1, 30_000), min_size=2, max_size=9).map(torch.tensor),
    st.sampled_from([lambda counts: logit_adjusted(counts, tau=0.7), lambda counts: class_balanced(counts, beta=0.99)]),
)
def test_decisions_for_natural_shares_take_back_what_a_loss_has_corrected(counts, make_loss):
    tilt = make_loss(counts).prior_tilt

    shift = shift_prior("natural", natural=counts, drawn=counts / counts.sum(), tilt=tilt)

    taken_back = shift + tilt.log()
    torch.testing.assert_close(taken_back, taken_back[:1].expand(len(counts)), rtol=0, atol=1e-4)
