import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.mixing import MIXINGS, Mix, cutmix, mixup, none

either_mixing = pytest.mark.parametrize("mixing", [mixup, cutmix])
shares = st.floats(0, 1)
positions = st.floats(0, 1, exclude_max=True)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=6, height=12, width=12):
    """Pictures as the network gets them: two channels, in channels-last order."""
    return torch.rand(n, height, width, 2, generator=generator(99)).permute(0, 3, 1, 2)


def numbered(n=6, height=12, width=12):
    """Wafer i holds the number i in every pixel."""
    return torch.arange(float(n))[:, None, None, None].expand(n, 2, height, width)


def test_none_mixes_nothing_and_draws_nothing():
    used = generator()

    assert none(6, used) is None
    assert torch.equal(used.get_state(), generator().get_state())


@pytest.mark.parametrize("name", MIXINGS)
def test_every_mixing_can_be_called_by_name_with_its_defaults(name):
    mix = MIXINGS[name](6, generator())

    assert (mix is None) == (name == "none")


@either_mixing
@given(n=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_wafer_is_the_partner_of_exactly_one(mixing, n, seed):
    assert mixing(n, generator(seed)).partner.sort().values.tolist() == list(range(n))


@either_mixing
@given(alpha=st.floats(0, 10, exclude_min=True), seed=st.integers(0, 99))
def test_every_alpha_in_its_range_keeps_a_share_from_0_to_1(mixing, alpha, seed):
    mix = mixing(6, generator(seed), alpha=alpha)

    mixed, keep = mix.apply(batch())

    assert 0 <= mix.keep <= 1
    assert 0 <= keep <= 1
    assert torch.isfinite(mixed).all()


@either_mixing
@pytest.mark.parametrize("alpha", [0, -1.0, 10.01, float("nan"), float("inf")])
def test_alpha_outside_its_range_is_refused(mixing, alpha):
    with pytest.raises(ValueError, match=rf"alpha must be in \(0, 10\]; got {alpha}"):
        mixing(6, generator(), alpha=alpha)


@either_mixing
def test_equal_generators_mix_alike(mixing):
    (first, kept_first), (again, kept_again) = (mixing(6, generator(3)).apply(batch()) for _ in range(2))

    assert torch.equal(first, again)
    assert kept_first == kept_again


@either_mixing
def test_one_generator_mixes_every_batch_differently(mixing):
    source = generator()

    kept = {mixing(6, source).keep for _ in range(20)}

    assert len(kept) == 20


@either_mixing
def test_mixing_does_not_touch_the_global_random_numbers(mixing):
    before = torch.get_rng_state()

    mixing(6, generator()).apply(batch())

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("alpha", "variance"), [(0.2, 1 / 5.6), (1.0, 1 / 12), (10.0, 1 / 84)])
def test_kept_shares_are_spread_like_the_beta_distribution(alpha, variance):
    source = generator()

    kept = torch.tensor([mixup(2, source, alpha=alpha).keep for _ in range(2000)])

    assert abs(kept.mean() - 0.5) < 0.05
    assert kept.var() == pytest.approx(variance, rel=0.15)


@either_mixing
def test_mixing_keeps_shape_type_and_channels_last_order(mixing):
    channels = batch()

    mixed, _ = mixing(6, generator()).apply(channels)

    assert mixed.shape == channels.shape
    assert mixed.dtype == channels.dtype
    assert mixed.is_contiguous(memory_format=torch.channels_last)


@either_mixing
def test_the_batch_is_never_written_to(mixing):
    channels = batch()
    before = channels.clone()

    mixing(6, generator()).apply(channels)

    assert torch.equal(channels, before)


@either_mixing
def test_a_mix_moves_to_a_device_unchanged(mixing):
    mix = mixing(6, generator())

    (here, kept_here), (there, kept_there) = mix.apply(batch()), mix.to(torch.device("cpu")).apply(batch())

    assert torch.equal(here, there)
    assert kept_here == kept_there


@given(keep=shares, seed=st.integers(0, 99))
def test_mixup_lies_between_the_two_wafers_at_the_kept_share(keep, seed):
    channels, partner = batch(), torch.randperm(6, generator=generator(seed))

    mixed, kept = Mix(partner=partner, keep=keep).apply(channels)

    assert kept == keep
    torch.testing.assert_close(mixed, keep * channels + (1 - keep) * channels[partner])
    assert (mixed <= torch.maximum(channels, channels[partner]) + 1e-6).all()
    assert (mixed >= torch.minimum(channels, channels[partner]) - 1e-6).all()


@given(keep=shares, down=positions, across=positions, height=st.integers(1, 14), width=st.integers(1, 14))
def test_cutmix_keeps_exactly_the_share_of_pixels_that_it_says(keep, down, across, height, width):
    mix = Mix(partner=torch.arange(6).roll(1), keep=keep, centre=(down, across))

    mixed, kept = mix.apply(numbered(height=height, width=width))

    own = mixed == numbered(height=height, width=width)
    assert torch.equal(own | (mixed == numbered(height=height, width=width)[mix.partner]), torch.ones_like(own))
    assert own.double().mean((1, 2, 3)).tolist() == pytest.approx([kept] * 6, abs=1e-12)


@given(keep=shares, down=positions, across=positions)
def test_cutmix_replaces_one_box_that_is_the_same_in_all_wafers_and_channels(keep, down, across):
    mix = Mix(partner=torch.arange(6).roll(1), keep=keep, centre=(down, across))

    mixed, _ = mix.apply(numbered())

    cut = mixed != numbered()
    assert torch.equal(cut, cut[:1, :1].expand_as(cut))
    rows, columns = cut[0, 0].any(1), cut[0, 0].any(0)
    assert torch.equal(cut[0, 0], rows[:, None] & columns[None, :])
    for line in (rows, columns):
        assert (line.int().diff() == 1).sum() <= 1
        assert (line.int().diff() == -1).sum() <= 1


@given(keep=shares)
def test_a_box_inside_the_picture_has_the_drawn_area(keep):
    side = 400

    _, kept = Mix(partner=torch.tensor([0]), keep=keep, centre=(0.5, 0.5)).apply(torch.zeros(1, 2, side, side))

    assert kept == pytest.approx(keep, abs=1.01 / side)


def test_a_box_over_the_edge_leaves_more_of_the_own_wafer():
    _, kept = Mix(partner=torch.tensor([0]), keep=0.75, centre=(0.0, 0.0)).apply(torch.zeros(1, 2, 40, 40))

    assert kept == 1 - 10 * 10 / 1600


@pytest.mark.parametrize("centre", [None, (0.5, 0.5)])
@pytest.mark.parametrize(("keep", "rows"), [(1.0, [0, 1, 2]), (0.0, [2, 0, 1])])
def test_the_ends_of_the_range_give_whole_wafers(centre, keep, rows):
    channels = batch(3)

    mixed, kept = Mix(partner=torch.tensor([2, 0, 1]), keep=keep, centre=centre).apply(channels)

    assert torch.equal(mixed, channels[rows])
    assert kept == keep


@either_mixing
@given(seed=st.integers(0, 99))
def test_labels_are_mixed_as_the_pictures_are(mixing, seed):
    """A picture full of ones in the channel of its class: what the pixels hold of each class is what the label says."""
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    channels = torch.nn.functional.one_hot(labels, 2).float()[:, :, None, None].repeat(1, 1, 12, 12)
    mix = mixing(6, generator(seed))

    mixed, keep = mix.apply(channels)

    one_hot = torch.nn.functional.one_hot(labels, 2).double()
    mixed_labels = keep * one_hot + (1 - keep) * one_hot[mix.partner]
    torch.testing.assert_close(mixed.double().mean((2, 3)), mixed_labels, atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed_labels.sum(0), one_hot.sum(0))
