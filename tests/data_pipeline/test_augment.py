import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_pipeline.augment import (
    AUGMENTS,
    Choices,
    apply_choices,
    apply_symmetry,
    deck,
    none,
    symmetries,
    symmetries_affine,
    symmetries_noise,
    symmetries_shift,
    to_channels,
)
from data_pipeline.die_noise import apply_noise, hash_counters
from data_pipeline.wafer_set import FAIL, NO_DIE, PASS

every_augment = pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
some_maps = arrays(
    np.uint8, st.tuples(st.integers(1, 6), st.just(12), st.just(12)), elements=st.integers(NO_DIE, FAIL)
).map(torch.from_numpy)
covered_maps = arrays(np.uint8, st.tuples(st.integers(1, 6), *map(st.just, (12, 12, 2)))).map(torch.from_numpy)
seeds = st.integers(-(2**63), 2**63 - 1)
EIGHT = torch.arange(8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def wafers(n=4, size=24):
    """Round wafers, half of whose dies fail, with a ring of no die around them."""
    across = torch.linspace(-1.2, 1.2, size)
    has_die = across[:, None] ** 2 + across[None, :] ** 2 <= 1
    return torch.where(has_die, torch.randint(PASS, FAIL + 1, (n, size, size), generator=generator()), NO_DIE).byte()


def covered(n=4, size=24):
    """Wafers whose dies are smaller than pixels, by the shares that passing and failing dies cover."""
    failing = torch.randint(256, (n, size, size), generator=generator())
    return (wafers(n, size) > NO_DIE)[..., None] * torch.stack([255 - failing, failing], dim=-1).byte()


def eight_ways(one):
    """A map of shape (S, S), flipped and turned in all eight ways."""
    return apply_symmetry(one.repeat(8, 1, 1), EIGHT)


def test_the_eight_symmetries_are_different():
    lopsided = torch.arange(9).reshape(3, 3)

    assert len({tuple(turned.flatten().tolist()) for turned in eight_ways(lopsided)}) == 8


def test_the_first_symmetry_leaves_a_wafer_as_it_is():
    (one,) = wafers(1)

    assert torch.equal(eight_ways(one)[0], one)


@pytest.mark.parametrize("first", range(8))
def test_two_symmetries_after_one_another_are_one_of_the_eight(first):
    lopsided = torch.arange(9).reshape(3, 3)
    all_eight = {tuple(turned.flatten().tolist()) for turned in eight_ways(lopsided)}

    both = eight_ways(eight_ways(lopsided)[first])

    assert {tuple(turned.flatten().tolist()) for turned in both} == all_eight


@pytest.mark.parametrize("first", range(8))
def test_every_symmetry_can_be_undone_by_one_of_the_eight(first):
    lopsided = torch.arange(9).reshape(3, 3)

    both = eight_ways(eight_ways(lopsided)[first])

    assert [torch.equal(turned, lopsided) for turned in both].count(True) == 1


@given(some_maps, st.integers(0, 7))
def test_symmetries_invent_and_lose_no_die(maps, symmetry):
    turned = apply_symmetry(maps, torch.full((len(maps),), symmetry))

    for code in (NO_DIE, PASS, FAIL):
        assert torch.equal((turned == code).sum((1, 2)), (maps == code).sum((1, 2)))


def test_each_wafer_is_turned_its_own_way():
    (one,) = wafers(1)

    turned = apply_choices(one.repeat(8, 1, 1), Choices(symmetry=EIGHT))

    for symmetry in range(8):
        assert torch.equal(turned[symmetry], to_channels(eight_ways(one)[symmetry, None])[0])


@given(some_maps)
def test_channels_show_passing_and_failing_dies(maps):
    channels = to_channels(maps)

    assert torch.equal(channels[:, 0], (maps == PASS).float())
    assert torch.equal(channels[:, 1], (maps == FAIL).float())


@given(covered_maps)
def test_channels_of_coverage_are_its_shares_and_can_be_turned_back(maps):
    channels = to_channels(maps)

    assert torch.equal(channels.permute(0, 2, 3, 1), maps.float() / 255)
    assert torch.equal((255 * channels).round().byte().permute(0, 2, 3, 1), maps)


@given(covered_maps, st.integers(0, 7))
def test_both_channels_of_coverage_are_flipped_and_turned_alike(maps, symmetry):
    chosen = torch.full((len(maps),), symmetry)

    turned = apply_symmetry(maps, chosen)

    for channel in (0, 1):
        assert torch.equal(turned[..., channel], apply_symmetry(maps[..., channel], chosen))


@pytest.mark.parametrize("encoded", [wafers, covered])
@every_augment
def test_the_network_gets_two_float_channels_in_channels_last_order(augment, encoded):
    maps = encoded(5)

    channels = apply_choices(maps, augment(5, generator()))

    assert channels.shape == (5, 2, 24, 24)
    assert channels.dtype == torch.float32
    assert channels.is_contiguous(memory_format=torch.channels_last)


@every_augment
def test_maps_are_never_written_to(augment):
    maps = wafers()
    before = maps.clone()

    apply_choices(maps, augment(4, generator()))

    assert torch.equal(maps, before)


@every_augment
def test_equal_generators_choose_alike(augment):
    maps = wafers(8)

    first, again = (apply_choices(maps, augment(8, generator(1))) for _ in range(2))

    assert torch.equal(first, again)


@pytest.mark.parametrize("augment", [symmetries, symmetries_noise, symmetries_shift, symmetries_affine, deck])
def test_another_seed_chooses_differently(augment):
    maps = wafers(8)

    one, other = (apply_choices(maps, augment(8, generator(seed))) for seed in (1, 2))

    assert not torch.equal(one, other)


@every_augment
def test_choices_can_be_cut_into_batches(augment):
    maps, choices = wafers(6), augment(6, generator())

    whole = apply_choices(maps, choices)

    parts = [apply_choices(maps[rows], choices[rows]) for rows in (slice(0, 4), slice(4, 6))]
    torch.testing.assert_close(torch.cat(parts), whole)


@every_augment
def test_choices_move_to_a_device_unchanged(augment):
    maps, choices = wafers(), augment(4, generator())

    moved = choices.to(torch.device("cpu"))

    assert torch.equal(apply_choices(maps, moved), apply_choices(maps, choices))


def test_none_leaves_wafers_as_they_are():
    maps = wafers()

    assert torch.equal(apply_choices(maps, none(4, generator())), to_channels(maps))


def test_all_eight_symmetries_are_chosen_about_equally_often():
    chosen = symmetries(8000, generator()).symmetry

    assert (np.abs(np.bincount(chosen, minlength=8) - 1000) < 150).all()


@pytest.mark.parametrize(
    ("augment", "options"),
    [(symmetries_affine, {"angle": 0, "scale": 0, "shift": 0}), (symmetries_shift, {"shift": 0})],
)
def test_an_affine_map_with_options_of_zero_changes_nothing(augment, options):
    maps = wafers()

    choices = augment(4, generator(), **options)

    expected = apply_choices(maps, Choices(symmetry=choices.symmetry))
    torch.testing.assert_close(apply_choices(maps, choices), expected, atol=1e-4, rtol=0)


def test_a_shift_moves_a_wafer_by_at_most_its_share_of_the_side():
    maps = torch.full((200, 41, 41), NO_DIE, dtype=torch.uint8)
    maps[:, 20, 20] = FAIL

    moved = apply_choices(maps, symmetries_shift(200, generator(), shift=0.1))[:, 1]

    positions = torch.arange(41) - 20.0
    for axis in (1, 2):
        offset = (moved.sum(axis) * positions).sum(1) / moved.sum((1, 2))
        assert 3.5 < offset.abs().max() < 4.1 + 1e-3


def test_a_turn_by_a_right_angle_is_a_quarter_turn():
    maps = wafers()
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0]]).repeat(4, 1, 1)

    turned = apply_choices(maps, Choices(affine=quarter))

    torch.testing.assert_close(turned, to_channels(maps.rot90(1, (1, 2))), atol=1e-4, rtol=0)


@pytest.mark.parametrize("augment", [none, symmetries, symmetries_noise, symmetries_shift, symmetries_affine])
def test_no_die_is_invented_outside_the_wafer(augment):
    nothing = torch.full((50, 16, 16), NO_DIE, dtype=torch.uint8)

    assert apply_choices(nothing, augment(50, generator())).abs().max() == 0


@every_augment
@given(maps=some_maps, seed=st.integers(0, 99))
def test_a_pixel_never_holds_more_than_one_die(augment, maps, seed):
    channels = apply_choices(maps, augment(len(maps), generator(seed)))

    assert channels.min() >= -1e-5
    assert channels.sum(1).max() <= 1 + 1e-5


@pytest.mark.parametrize("augment", [none, symmetries, symmetries_shift, symmetries_affine, deck])
def test_no_fail_is_invented_without_noise(augment):
    all_pass = torch.full((50, 16, 16), PASS, dtype=torch.uint8)

    assert apply_choices(all_pass, augment(50, generator()))[:, 1].abs().max() == 0


def test_the_deck_paints_passing_dies_beyond_the_picture():
    all_fail = torch.full((50, 24, 24), FAIL, dtype=torch.uint8)

    passing, failing = apply_choices(all_fail, deck(50, generator())).unbind(1)

    torch.testing.assert_close(passing + failing, torch.ones_like(passing))
    assert (passing[:, 0, 0] > 0.9).float().mean() > 0.5
    assert passing[:, 12, 12].abs().max() < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"angle": -1}, r"angle must be in \[0, 180\]; got -1"),
        ({"angle": 181}, r"angle must be in \[0, 180\]; got 181"),
        ({"scale": -0.1}, r"scale must be in \[0, 0\.5\]; got -0\.1"),
        ({"scale": 0.6}, r"scale must be in \[0, 0\.5\]; got 0\.6"),
        ({"shift": -0.1}, r"shift must be in \[0, 0\.5\]; got -0\.1"),
        ({"shift": 0.6}, r"shift must be in \[0, 0\.5\]; got 0\.6"),
        ({"angle": float("nan")}, r"angle must be in \[0, 180\]; got nan"),
    ],
)
def test_options_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        symmetries_affine(3, generator(), **options)


def test_a_shift_outside_its_range_is_refused_without_turning_too():
    with pytest.raises(ValueError, match=r"shift must be in \[0, 0\.5\]; got 0\.7"):
        symmetries_shift(3, generator(), shift=0.7)


@pytest.mark.parametrize("options", [{"angle": 180}, {"scale": 0.5}, {"shift": 0.5}])
def test_options_at_the_end_of_their_range_are_accepted(options):
    channels = apply_choices(wafers(), symmetries_affine(4, generator(), **options))

    assert torch.isfinite(channels).all()


@given(maps=some_maps, seed=seeds, noise=st.floats(0, 1, exclude_min=True))
def test_noise_swaps_passing_and_failing_dies_and_leaves_cells_without_a_die(maps, seed, noise):
    noisy = apply_noise(maps, torch.full((len(maps),), seed), noise=noise)

    assert noisy.dtype == maps.dtype
    assert torch.equal(noisy == NO_DIE, maps == NO_DIE)
    assert noisy.max() <= FAIL


@given(some_maps, seeds)
def test_the_most_noise_swaps_every_die(maps, seed):
    noisy = apply_noise(maps, torch.full((len(maps),), seed), noise=1.0)

    assert torch.equal(noisy, torch.tensor([NO_DIE, FAIL, PASS], dtype=torch.uint8)[maps.long()])


@pytest.mark.parametrize("noise", [0.001, 0.02, 0.2])
@pytest.mark.parametrize("code", [PASS, FAIL])
def test_about_the_asked_share_of_dies_is_swapped(noise, code):
    maps = torch.full((200, 40, 40), code, dtype=torch.uint8)

    swapped = (apply_noise(maps, torch.arange(200), noise=noise) != code).float()

    # Six standard deviations of a share: of all dies, of those at each position, and of each wafer's.
    for share, n in ((swapped.mean(), 320_000), (swapped.mean(0), 200), (swapped.mean((1, 2)), 1600)):
        assert (share - noise).abs().max() < 6 * (noise * (1 - noise) / n) ** 0.5 + 3 / n


def test_dies_are_swapped_independently_of_their_neighbours():
    maps = torch.full((400, 40, 40), PASS, dtype=torch.uint8)

    swapped = (apply_noise(maps, torch.arange(400), noise=0.2) == FAIL).double() - 0.2

    for other in (swapped.roll(1, 0), swapped.roll(1, 1), *(swapped.roll(step, 2) for step in (1, 2, 3, 4))):
        assert abs((swapped * other).mean() / 0.16) < 6 / swapped.numel() ** 0.5


@given(maps=some_maps, seed=seeds, others=st.lists(seeds, max_size=5), position=st.integers(0, 5))
def test_noise_of_a_wafer_does_not_depend_on_the_rest_of_the_batch(maps, seed, others, position):
    position = min(position, len(others))
    batch_seeds = torch.tensor([*others[:position], seed, *others[position:]])

    batch = apply_noise(maps[:1].repeat(len(batch_seeds), 1, 1), batch_seeds, noise=0.3)

    assert torch.equal(batch[position], apply_noise(maps[:1], torch.tensor([seed]), noise=0.3)[0])


@given(st.lists(seeds, min_size=2, max_size=6, unique=True))
def test_different_seeds_give_different_noise(different):
    maps = torch.full((len(different), 40, 40), PASS, dtype=torch.uint8)

    noisy = apply_noise(maps, torch.tensor(different), noise=0.2)

    assert len({one.numpy().tobytes() for one in noisy}) == len(different)


@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_noise_fits_maps_of_any_size(size):
    maps = torch.full((2, size, size), FAIL, dtype=torch.uint8)

    assert (apply_noise(maps, torch.arange(2), noise=1.0) == PASS).all()


@given(maps=some_maps, seed=seeds)
def test_noise_swaps_the_shares_of_the_same_dies(maps, seed):
    shares = torch.stack((maps == PASS, maps == FAIL), dim=3).byte() * 255
    wafer_seeds = torch.arange(len(maps)) + seed

    noisy = apply_noise(shares, wafer_seeds, noise=0.3)

    codes = apply_noise(maps, wafer_seeds, noise=0.3)
    assert torch.equal(noisy, torch.stack((codes == PASS, codes == FAIL), dim=3).byte() * 255)


@given(shares=arrays(np.uint8, (2, 12, 12, 2)).map(torch.from_numpy), seed=seeds)
def test_noise_only_exchanges_the_two_shares_of_a_cell(shares, seed):
    noisy = apply_noise(shares, torch.arange(2) + seed, noise=0.5)

    kept, exchanged = (noisy == shares).all(3), (noisy == shares.flip(3)).all(3)
    assert (kept | exchanged).all()


def test_noise_comes_before_turning():
    maps, seed = wafers(8), torch.arange(8)

    turned = apply_choices(maps, Choices(symmetry=EIGHT, noise_seed=seed, noise=0.2))

    noisy = apply_noise(maps, seed, noise=0.2)
    assert torch.equal(turned, apply_choices(noisy, Choices(symmetry=EIGHT)))
    assert not torch.equal(noisy, maps)


def test_bits_are_those_of_the_published_splitmix64():
    # https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64, seed 1234567
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]

    (bits,) = hash_counters(torch.tensor([1234567]), 4)

    assert [n % 2**64 for n in bits.tolist()] == published


@pytest.mark.parametrize(
    ("augment", "drawn_before_noise"),
    [
        (symmetries_noise, lambda n, source: torch.randint(8, (n,), generator=source)),
        (symmetries_shift, symmetries_affine),
        (
            symmetries_affine,
            lambda n, source: (torch.rand(4 * n, generator=source), torch.randint(8, (n,), generator=source)),
        ),
    ],
)
def test_without_noise_no_random_number_is_drawn_for_it(augment, drawn_before_noise):
    used, expected = generator(), generator()

    choices = augment(20, used, noise=0.0)

    drawn_before_noise(20, expected)
    assert choices.noise_seed is None
    assert torch.equal(used.get_state(), expected.get_state())


@pytest.mark.parametrize("augment", [symmetries_noise, symmetries_shift, symmetries_affine])
def test_noise_changes_no_other_choice(augment):
    quiet, noisy = (augment(20, generator(), noise=noise) for noise in (0.0, 0.1))

    assert torch.equal(noisy.symmetry, quiet.symmetry)
    assert (noisy.affine is quiet.affine is None) or torch.equal(noisy.affine, quiet.affine)
    assert len(noisy.noise_seed.unique()) == 20


@pytest.mark.parametrize("augment", [symmetries_noise, symmetries_shift, symmetries_affine])
@pytest.mark.parametrize("noise", [-0.01, 0.21, float("nan")])
def test_noise_outside_its_range_is_refused(augment, noise):
    with pytest.raises(ValueError, match=rf"noise must be in \[0, 0\.2\]; got {noise}"):
        augment(3, generator(), noise=noise)
