import numpy as np
import pytest
from scipy.ndimage import binary_erosion, label

from data_pipeline.errors import DataError
from data_pipeline.protocols import split_by_lot
from data_pipeline.splits import PARTS, check_leaks
from data_pipeline.synthetic import make_wafers
from data_pipeline.wafer_set import FAIL, NO_DIE, WM811K_CLASSES

# Median fail rate of each class: wide bounds around what the real wafers have on products of any size.
FAIL_RATES = {
    "Center": (0.12, 0.32),
    "Donut": (0.16, 0.36),
    "Edge-Loc": (0.08, 0.24),
    "Edge-Ring": (0.09, 0.25),
    "Loc": (0.07, 0.22),
    "Near-full": (0.78, 0.95),
    "none": (0.07, 0.18),
    "Random": (0.38, 0.60),
    "Scratch": (0.05, 0.16),
}
SEEDS = range(5)


@pytest.fixture(scope="module")
def wafers():
    return make_wafers(3000)


def maps_of(wafers, name):
    return [wafers.map(i) for i in np.flatnonzero(wafers.labels == wafers.classes.index(name))]


def fail_rate(wafer, where=True):
    """Share of fails among the dies of the wafer, or among those that are also `where`."""
    dies = (wafer != NO_DIE) & where
    return (wafer[dies] == FAIL).mean()


def rim_of(wafer):
    """The outermost dies."""
    dies = wafer != NO_DIE
    return dies & ~binary_erosion(dies, np.ones((3, 3)))


def radius_of(wafer):
    v, u = (np.mgrid[: wafer.shape[0], : wafer.shape[1]] + 0.5) * 2 / np.reshape(wafer.shape, (2, 1, 1)) - 1
    return np.hypot(u, v)


def largest_cluster(wafer):
    """The largest group of fails that touch, as positions of shape (n, 2)."""
    groups, _ = label(wafer == FAIL, np.ones((3, 3)))
    return np.argwhere(groups == np.bincount(groups[groups > 0]).argmax())


def test_equal_seeds_give_equal_wafers(wafers):
    again = make_wafers(3000)

    np.testing.assert_array_equal(again.cells, wafers.cells)
    assert again.fingerprint == wafers.fingerprint


@pytest.mark.parametrize("other", [{"n": 601}, {"n": 600, "seed": 1}])
def test_another_number_or_seed_gives_other_wafers(synthetic, other):
    changed = make_wafers(**other)

    assert not set(changed.content) & set(synthetic.content)


@pytest.mark.parametrize(("n", "seed", "source"), [(100, 0, "100 wafers, seed 0"), (1234, 7, "1,234 wafers, seed 7")])
def test_as_many_wafers_as_asked_for_are_drawn_and_called_synthetic(n, seed, source):
    drawn = make_wafers(n, seed=seed)

    assert len(drawn) == n
    assert drawn.is_synthetic
    assert drawn.source == f"synthetic ({source})"


def test_the_classes_are_those_of_wm811k_in_their_order(wafers):
    assert wafers.classes == WM811K_CLASSES


def test_most_wafers_are_none_and_the_others_keep_their_proportions(wafers):
    shares = dict(zip(wafers.classes, wafers.counts() / len(wafers), strict=True))

    assert shares["none"] == pytest.approx(0.6, abs=0.03)
    assert shares["Edge-Ring"] == pytest.approx(0.4 * 9680 / 25519, abs=0.02)
    assert shares["Edge-Ring"] > shares["Edge-Loc"] > shares["Center"] > shares["Loc"] > shares["Scratch"]


@pytest.mark.parametrize("seed", SEEDS)
def test_rare_classes_have_at_least_thirty_wafers_where_there_are_thousands(seed):
    assert make_wafers(3000, seed=seed).counts().min() >= 30


@pytest.mark.parametrize("seed", SEEDS)
def test_every_class_occurs_even_among_a_hundred_wafers(seed):
    assert make_wafers(100, seed=seed).counts().min() >= 1


def test_every_die_has_a_code_and_every_wafer_its_corners_cut_off(wafers):
    for wafer in (wafers.map(i) for i in range(0, len(wafers), 50)):
        assert set(np.unique(wafer)) <= {0, 1, 2}
        assert 0.7 < (wafer != NO_DIE).mean() < 0.82
        assert not wafer[[0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_lots_have_up_to_25_wafers_of_one_product_with_the_same_dies(wafers):
    for lot in range(len(wafers.lot_names)):
        members = [wafers.map(i) for i in np.flatnonzero(wafers.lots == lot)]
        assert len(members) <= 25
        assert len({member.shape for member in members}) == 1
        assert all(np.array_equal(member != NO_DIE, members[0] != NO_DIE) for member in members)


def test_there_are_products_of_many_shapes(wafers):
    shapes = set(zip(wafers.heights.tolist(), wafers.widths.tolist(), strict=True))

    assert len(shapes) > 12
    assert any(height != width for height, width in shapes)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_class_occurs_in_six_lots_and_in_every_part_of_a_split(seed):
    drawn = make_wafers(600, seed=seed)

    splits = split_by_lot(drawn, val=0.2, test=0.15, seed=0)

    check_leaks(drawn, splits)
    for k in range(9):
        assert len(set(drawn.lots[drawn.labels == k])) >= 6
        assert all((drawn.labels[splits.part(part)] == k).any() for part in PARTS)


@pytest.mark.parametrize("name", WM811K_CLASSES)
def test_fail_rates_are_like_those_of_real_wafers(wafers, name):
    low, high = FAIL_RATES[name]

    assert low < np.median([fail_rate(wafer) for wafer in maps_of(wafers, name)]) < high


def test_edge_rings_fail_at_the_rim_and_hardly_inside():
    wafers = make_wafers(3000, seed=1)
    rims = [
        (fail_rate(wafer, rim_of(wafer)), fail_rate(wafer, ~rim_of(wafer))) for wafer in maps_of(wafers, "Edge-Ring")
    ]

    at_rim, inside = np.median(rims, axis=0)

    assert at_rim > 0.7
    assert inside < 0.15


def test_the_rim_of_a_wafer_without_a_pattern_is_worse_than_its_core(wafers):
    ratios = [fail_rate(one, rim_of(one)) / max(fail_rate(one, ~rim_of(one)), 0.01) for one in maps_of(wafers, "none")]

    assert 1.4 < np.median(ratios) < 4


def test_centers_fail_in_the_middle(wafers):
    rates = [fail_rate(wafer, radius_of(wafer) < 0.2) for wafer in maps_of(wafers, "Center")]

    assert np.median(rates) > 0.6


def test_donuts_fail_more_on_a_ring_than_inside_or_outside_it(wafers):
    bounds = ((0, 0.2), (0.3, 0.55), (0.75, 0.9))
    donuts = [(wafer, radius_of(wafer)) for wafer in maps_of(wafers, "Donut")]

    hole, ring, outside = (
        np.median([fail_rate(wafer, (low <= r) & (r < high)) for wafer, r in donuts]) for low, high in bounds
    )

    assert ring > 1.5 * hole
    assert ring > 1.5 * outside


def test_scratches_are_long_and_thin(wafers):
    clusters = [largest_cluster(wafer) for wafer in maps_of(wafers, "Scratch")]

    extents = [np.ptp(cluster, axis=0).max() + 1 for cluster in clusters]
    widths = [len(cluster) / extent for cluster, extent in zip(clusters, extents, strict=True)]
    assert np.median(extents) > 8
    assert np.median(widths) < 3


def test_large_products_fail_less_than_small_ones(wafers):
    sides = np.array([max(wafer.shape) for wafer in maps_of(wafers, "none")])
    rates = np.array([fail_rate(wafer) for wafer in maps_of(wafers, "none")])

    assert np.median(rates[sides > 45]) < 0.5 * np.median(rates[sides < 30])


@pytest.mark.parametrize("n", [99, 1, 0, -5])
def test_too_few_wafers_are_refused(n):
    with pytest.raises(
        DataError, match=f"synthetic wafers: must be at least 100, or classes would be missing; got {n}"
    ):
        make_wafers(n)


def test_a_negative_seed_is_refused():
    with pytest.raises(DataError, match="synthetic wafers: seed must be >= 0; got -1"):
        make_wafers(100, seed=-1)


@pytest.fixture(scope="module")
def entered_twice():
    """6,000 wafers, the last 3,000 of them the first ones entered again."""
    return make_wafers(6000, duplicates=0.5)


def test_no_map_stands_twice_unless_asked_for(wafers):
    assert len(set(wafers.content)) == 3000


@pytest.mark.parametrize(("n", "duplicates", "n_different"), [(2000, 0.03, 1940), (201, 0.5, 101), (300, 0.001, 300)])
def test_the_number_of_wafers_includes_those_entered_twice(n, duplicates, n_different):
    drawn = make_wafers(n, duplicates=duplicates)

    assert len(drawn) == n
    assert len(set(drawn.content)) == n_different


def test_the_other_wafers_are_those_that_would_be_drawn_without_duplicates(wafers, entered_twice):
    np.testing.assert_array_equal(entered_twice.content[:3000], wafers.content)
    np.testing.assert_array_equal(entered_twice.labels[:3000], wafers.labels)
    np.testing.assert_array_equal(entered_twice.lots[:3000], wafers.lots)


def test_maps_are_entered_again_lot_by_lot_under_new_lot_numbers(entered_twice):
    lot_of = dict(zip(entered_twice.content[:3000].tolist(), entered_twice.lots[:3000].tolist(), strict=True))

    moves = {(lot_of[int(entered_twice.content[i])], int(entered_twice.lots[i])) for i in range(3000, 6000)}

    before, after = zip(*moves, strict=True)
    assert len(moves) == len(set(before)) == len(set(after)) == 120
    assert not set(before) & set(after)


def test_the_second_label_of_a_defect_agrees_as_often_as_in_wm811k(entered_twice):
    first_label = dict(zip(entered_twice.content[:3000].tolist(), entered_twice.labels[:3000].tolist(), strict=True))
    pairs = np.array([(first_label[int(entered_twice.content[i])], entered_twice.labels[i]) for i in range(3000, 6000)])

    first, second = pairs[pairs[:, 0] != WM811K_CLASSES.index("none")].T

    assert 0.84 < (first == second).mean() < 0.92  # 88 % of 102 maps


def test_the_name_of_the_data_says_how_many_were_entered_twice():
    assert make_wafers(1000, seed=2, duplicates=0.02).source == "synthetic (1,000 wafers, seed 2, 20 entered twice)"


@pytest.mark.parametrize("share", [-0.01, 0.51, 1, float("nan")])
def test_a_share_of_duplicates_out_of_range_is_refused(share):
    with pytest.raises(DataError, match=rf"^synthetic wafers: duplicates must be a share in \[0, 0\.5\]; got {share}$"):
        make_wafers(1000, duplicates=share)


def test_duplicates_that_leave_too_few_wafers_are_refused():
    with pytest.raises(
        DataError, match=r"must be at least 100 besides the duplicates, .*; got 75 of 150; ask for more"
    ):
        make_wafers(150, duplicates=0.5)


def test_progress_counts_up_to_all_wafers_that_are_drawn():
    reported = []

    make_wafers(160, duplicates=0.25, progress=lambda done, total: reported.append((done, total)))

    assert reported == [(25, 120), (50, 120), (75, 120), (100, 120), (120, 120)]
