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
    symmetries_shift,
    to_channels,
)
from data_pipeline.wafer_set import FAIL, NO_DIE, PASS

every_augment = pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
some_maps = arrays(
    np.uint8, st.tuples(st.integers(1, 6), st.just(12), st.just(12)), elements=st.integers(NO_DIE, FAIL)
).map(torch.from_numpy)
EIGHT = torch.arange(8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def wafers(n=4, size=24):
    """Round wafers, half of whose dies fail, with a ring of no die around them."""
    across = torch.linspace(-1.2, 1.2, size)
    has_die = across[:, None] ** 2 + across[None, :] ** 2 <= 1
    return torch.where(has_die, torch.randint(PASS, FAIL + 1, (n, size, size), generator=generator()), NO_DIE).byte()


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


@every_augment
def test_the_network_gets_two_float_channels_in_channels_last_order(augment):
    maps = wafers(5)

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


@pytest.mark.parametrize("augment", [symmetries, symmetries_shift, symmetries_affine, deck])
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


@pytest.mark.parametrize("augment", [none, symmetries, symmetries_shift, symmetries_affine])
def test_no_die_is_invented_outside_the_wafer(augment):
    nothing = torch.full((50, 16, 16), NO_DIE, dtype=torch.uint8)

    assert apply_choices(nothing, augment(50, generator())).abs().max() == 0


@every_augment
@given(maps=some_maps, seed=st.integers(0, 99))
def test_a_pixel_never_holds_more_than_one_die(augment, maps, seed):
    channels = apply_choices(maps, augment(len(maps), generator(seed)))

    assert channels.min() >= -1e-5
    assert channels.sum(1).max() <= 1 + 1e-5


@every_augment
def test_no_fail_is_invented(augment):
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
