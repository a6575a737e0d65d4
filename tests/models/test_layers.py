"""What the pieces of our own networks compute."""

import pytest
import torch
from torch import nn

from models.layers import POOLINGS, GlobalPool, MaskChannel, conv_norm_relu, generalized_mean, make_norm, make_squeeze


@pytest.fixture
def features():
    """Draw a rectified feature map: shape (2, 3, 5, 5), float32, a third of it zero."""
    return (3 * torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)) - 1).clamp(min=0)


# The generalised mean


def test_the_generalized_mean_of_exponent_1_is_the_mean(features):
    torch.testing.assert_close(generalized_mean(features, torch.tensor(1.0)), features.mean((2, 3)))


def test_the_generalized_mean_of_exponent_3_is_the_root_of_the_mean_cube(features):
    expected = (features**3).mean((2, 3)) ** (1 / 3)

    torch.testing.assert_close(generalized_mean(features, torch.tensor(3.0)), expected)


def test_the_generalized_mean_of_a_large_exponent_is_nearly_the_maximum(features):
    pooled = generalized_mean(features, torch.tensor(1000.0))

    torch.testing.assert_close(pooled, features.amax((2, 3)), rtol=0.01, atol=0)


@pytest.mark.parametrize("exponent", [-2.0, 0.0, 0.5])
def test_the_generalized_mean_of_an_exponent_below_1_is_the_mean(exponent, features):
    torch.testing.assert_close(generalized_mean(features, torch.tensor(exponent)), features.mean((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 1e-6, 1e30])
def test_the_generalized_mean_and_its_gradients_stay_finite_where_powers_overflow(value, dtype):
    x = torch.full((1, 1, 4, 4), value, dtype=dtype, requires_grad=True)
    exponent = torch.tensor(10.0, requires_grad=True)

    pooled = generalized_mean(x, exponent)
    pooled.sum().backward()

    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled.float(), torch.full((1, 1), max(value, 1e-6)), rtol=0.01, atol=0)
    assert x.grad.isfinite().all()
    assert exponent.grad.isfinite()


def test_the_gradients_of_the_generalized_mean_are_those_of_its_formula(features):
    x, exponent = (features + 0.1).requires_grad_(), torch.tensor(3.0, requires_grad=True)
    formula = (x**exponent).mean((2, 3)) ** (1 / exponent)

    expected = torch.autograd.grad(formula.sum(), [x, exponent])
    gradients = torch.autograd.grad(generalized_mean(x, exponent).sum(), [x, exponent])

    torch.testing.assert_close(gradients, expected)


def test_autocast_computes_the_generalized_mean_of_bfloat16_maps_in_float32(features):
    halved = features.bfloat16()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = generalized_mean(halved, torch.tensor(3.0))

    torch.testing.assert_close(pooled, generalized_mean(halved.float(), torch.tensor(3.0)).bfloat16(), rtol=0, atol=0)


# Pooling


def test_each_pooling_gives_one_number_per_channel_and_another_than_the_others(features):
    pooled = {kind: GlobalPool(kind)(features) for kind in POOLINGS}

    assert {vectors.shape for vectors in pooled.values()} == {(2, 3)}
    assert len({tuple(vectors.flatten().tolist()) for vectors in pooled.values()}) == len(POOLINGS)


def test_only_the_learned_pooling_has_a_parameter_which_starts_at_3():
    parameters = {kind: [parameter.item() for parameter in GlobalPool(kind).parameters()] for kind in POOLINGS}

    assert parameters == {"avg": [], "max": [], "avgmax": [], "gem": [3.0]}


# Convolution, norm, squeeze-and-excitation, mask


@pytest.mark.parametrize(("n_channels", "n_groups"), [(4, 4), (5, 1), (6, 2), (8, 8), (12, 4), (24, 8), (256, 8)])
def test_groups_are_eight_or_the_most_that_divide_eight_and_the_channels(n_channels, n_groups):
    assert make_norm("group", n_channels).num_groups == n_groups


@pytest.mark.parametrize(
    ("norm", "kind", "has_bias"),
    [("batch", nn.BatchNorm2d, False), ("group", nn.GroupNorm, False), ("none", nn.Identity, True)],
)
def test_a_convolution_has_a_bias_only_without_a_norm(norm, kind, has_bias):
    conv, normalise, rectify = conv_norm_relu(3, 8, norm=norm)

    assert type(normalise) is kind
    assert (conv.bias is not None) == has_bias
    assert type(rectify) is nn.ReLU


def test_without_a_norm_the_signal_keeps_its_scale_through_many_layers():
    torch.manual_seed(0)
    layers = nn.Sequential(*(conv_norm_relu(32, 32, norm="none") for _ in range(10)))
    noise = torch.randn(8, 32, 16, 16)

    # Zero padding costs a little in each layer; torch's own kernels would leave a fiftieth in all.
    assert 0.1 < layers(noise).std() / noise.std() < 10


@pytest.mark.parametrize(("n_channels", "n_deciding"), [(4, 4), (16, 4), (20, 5), (96, 24)])
def test_a_quarter_of_the_channels_but_at_least_four_decide_their_weights(n_channels, n_deciding):
    (squeeze,) = make_squeeze(n_channels, wanted=True)

    assert squeeze.fc1.out_channels == n_deciding


def test_squeeze_and_excitation_weighs_each_channel_alike_everywhere(features):
    (squeeze,) = make_squeeze(3, wanted=True)

    weights = (squeeze(features) / features).flatten(2)

    torch.testing.assert_close(weights.nan_to_num(0).amax(2), weights.nan_to_num(1).amin(2))
    assert ((weights.nan_to_num(0).amax(2) > 0) & (weights.nan_to_num(0).amax(2) < 1)).all()
    assert make_squeeze(3, wanted=False) == []


def test_the_mask_channel_is_what_is_left_of_1_and_comes_last(wafer_maps):
    maps = wafer_maps()

    masked = MaskChannel()(maps)

    assert torch.equal(masked[:, :2], maps)
    assert torch.equal(masked[:, 2], 1 - maps[:, 0] - maps[:, 1])
