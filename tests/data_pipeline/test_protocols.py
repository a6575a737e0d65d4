"""What each way to divide wafers promises, and the leaky ones admit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.protocols import (
    PROTOCOLS,
    k_folds,
    split_by_lot,
    split_by_product,
    split_by_time,
    split_like_deck,
    split_like_deck_subset,
    split_officially,
    split_randomly,
)
from data_pipeline.splits import PARTS, check_leaks
from data_pipeline.wafer_set import make_wafer_set

SHARES = {"val": 0.2, "test": 0.15, "seed": 0}
LEAKY = ["deck", "deck_subset", "random"]
HONEST = sorted(set(PROTOCOLS) - set(LEAKY))


def number_map(number, *, height=1):
    """A map that shows the number in binary: equal numbers, equal maps."""
    return np.tile(1 + (number >> np.arange(12)[None] & 1), (height, 1))


def wafers_of(*, lots, labels=None, numbers=None, heights=None, official=None):
    n = len(lots)
    maps = [
        number_map(number, height=height)
        for number, height in zip(numbers or range(n), heights or [1] * n, strict=True)
    ]
    labels = ["ring"] * n if labels is None else labels
    return make_wafer_set(maps, labels, lots, source="some", classes=("arc", "ring"), official=official)


def parts_of(splits):
    return [splits.part(name) for name in PARTS]


@st.composite
def wafer_sets(draw):
    """Up to 60 wafers in up to 15 lots and 6 products; some unlabelled, some maps twice, a third in official Test."""
    n = draw(st.integers(15, 60))

    def many(values):
        return draw(st.lists(values, min_size=n, max_size=n))

    return wafers_of(
        labels=many(st.sampled_from(["arc", "ring", "ring", None])),
        lots=[f"lot{number}" for number in many(st.integers(0, 14))],
        numbers=many(st.integers(0, 400)),
        heights=many(st.sampled_from([1, 1, 1, 1, 1, 1, 2, 3, 4])),
        official=many(st.sampled_from([0, 0, 0, 1, 1, -1])),
    )


@st.composite
def divided(draw, names):
    """Such wafers that can be divided in one of these ways, and how."""
    wafers = draw(wafer_sets())
    split = PROTOCOLS[draw(st.sampled_from(names))]
    try:
        splits = split(wafers, val=0.2, test=0.15, seed=draw(st.integers(0, 9)))
    except DataError:
        assume(False)
    return wafers, splits


@given(divided(sorted(PROTOCOLS)))
def test_every_labelled_wafer_is_used_or_left_out_for_a_reason(case):
    wafers, splits = case

    used, left_out = np.concatenate(parts_of(splits)), list(splits.left_out.values())

    assert sorted({*used, *np.concatenate([used[:0], *left_out])}) == np.flatnonzero(wafers.labels >= 0).tolist()
    assert len(set(used)) + sum(map(len, left_out)) == (wafers.labels >= 0).sum()
    assert all((np.diff(part) >= 0).all() and len(part) for part in parts_of(splits))


@given(divided(HONEST))
def test_honest_parts_share_no_wafer_no_lot_and_no_map(case):
    wafers, splits = case

    check_leaks(wafers, splits)

    assert not splits.leaky
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        a, b = splits.part(one), splits.part(other)
        assert not set(a) & set(b)
        assert not set(wafers.lots[a]) & set(wafers.lots[b])
        assert not set(wafers.content[a]) & set(wafers.content[b])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_divides_alike_with_the_same_seed_and_says_its_name(name, synthetic):
    official = np.repeat(np.array([0, 1], np.int8), [450, 150])
    wafers = replace(synthetic, official=official)

    one, other = (PROTOCOLS[name](wafers, **SHARES) for _ in range(2))

    assert one.protocol == name
    assert one.fingerprint == other.fingerprint
    assert len(one.fingerprint) == 12
    assert bool(one.leaky) == (name in LEAKY)
    assert one.leaky.startswith(f"LEAKY ({name}): " * (name in LEAKY))
    assert check_leaks(wafers, one).is_leaky == (name in LEAKY)


def test_the_official_test_is_tested_on_and_training_is_divided():
    lots = [f"lot{i // 2}" for i in range(40)]
    wafers = wafers_of(lots=lots, official=[0] * 30 + [1] * 10)

    splits = split_officially(wafers, val=0.2, test=0.2, seed=0)

    assert splits.test.tolist() == list(range(30, 40))
    assert (len(splits.train), len(splits.val)) == (22, 8)  # 0.2 of 0.8, as elsewhere
    assert splits.left_out == {}


def test_official_test_wafers_that_training_knows_are_left_out():
    wafers = wafers_of(
        lots=["a", "b", "c", "a", "d", "e", "f"], numbers=[0, 1, 2, 3, 1, 5, 6], official=[0, 0, 0, 1, 1, 1, -1]
    )

    splits = split_officially(wafers, val=0.3, test=0.3, seed=0)

    assert splits.test.tolist() == [5]
    assert {reason: rows.tolist() for reason, rows in splits.left_out.items()} == {
        "Test wafers whose map also stands in Training": [4],
        "Test wafers whose lot also stands in Training": [3],
        "wafers without a part of the publisher's": [6],
    }


@pytest.mark.parametrize("official", [None, [-1, -1, -1]])
def test_wafers_without_official_parts_cannot_be_divided_officially(official):
    wafers = wafers_of(lots=["a", "b", "c"], official=official)

    with pytest.raises(DataError, match=r"some: .*official needs the publisher's parts \(trianTestLabel\)"):
        split_officially(wafers, **SHARES)


def test_wafers_without_official_training_cannot_be_divided_officially():
    with pytest.raises(DataError, match="some: no labelled wafer stands in the publisher's Training"):
        split_officially(wafers_of(lots=["a", "b", "c"], official=[1, 1, 1]), **SHARES)


def test_an_official_training_of_a_single_lot_is_refused():
    wafers = wafers_of(lots=["a", "a", "b"], official=[0, 0, 1])

    with pytest.raises(DataError, match="some: 1 independent groups of lots are too few for 2 parts"):
        split_officially(wafers, **SHARES)


@given(divided(["product"]))
def test_products_of_the_test_are_new_to_the_model(case):
    wafers, splits = case
    shapes = [set(wafers.heights[part]) for part in parts_of(splits)]

    assert sum(map(len, shapes)) == len(set.union(*shapes))


def test_wafers_of_another_shape_than_their_lot_are_left_out():
    lots = list("aaabbbcccddd")
    wafers = wafers_of(lots=lots, heights=[1, 1, 2, 2, 2, 3, 3, 3, 1, 4, 4, 4])

    splits = split_by_product(wafers, val=0.25, test=0.25, seed=0)

    assert splits.left_out["wafers of another shape than most of their lot"].tolist() == [2, 5, 8]


def test_of_two_shapes_that_a_lot_has_equally_often_the_smaller_stays():
    wafers = wafers_of(lots=list("aabbcc"), heights=[2, 1, 3, 3, 4, 4])

    splits = split_by_product(wafers, val=0.3, test=0.3, seed=0)

    assert splits.left_out["wafers of another shape than most of their lot"].tolist() == [0]


def test_too_few_products_are_refused():
    wafers = wafers_of(lots=list("abcd"), heights=[1, 1, 2, 2])

    with pytest.raises(DataError, match="some: 2 independent groups of products are too few for 3 parts"):
        split_by_product(wafers, **SHARES)


def test_later_lots_are_tested_on_in_the_order_of_their_numbers():
    lots = ["lot10", "lot9", "lot2", "lot1", "lot8", "lot7", "lot6", "lot5", "lot4", "lot3"]

    splits = split_by_time(wafers_of(lots=lots), val=0.2, test=0.2, seed=0)

    assert [lots[i] for i in splits.test] == ["lot10", "lot9"]
    assert [lots[i] for i in splits.val] == ["lot8", "lot7"]
    assert len(splits.train) == 6


def test_lots_without_numbers_are_ordered_as_they_first_appear():
    splits = split_by_time(wafers_of(lots=[*"zyx", "lot1", *"abcdef"]), val=0.2, test=0.2, seed=0)

    assert [part.tolist() for part in parts_of(splits)] == [list(range(6)), [6, 7], [8, 9]]


@pytest.mark.parametrize(("sizes", "n_lots"), [((17, 1, 1, 1), [1, 1, 2]), ((1, 1, 18), [1, 1, 1])])
def test_every_part_gets_a_lot_however_much_the_first_or_the_last_holds(sizes, n_lots):
    wafers = wafers_of(lots=[f"lot{i}" for i, n in enumerate(sizes) for _ in range(n)])

    splits = split_by_time(wafers, **SHARES)

    assert [len(set(wafers.lots[part])) for part in parts_of(splits)] == n_lots


def test_maps_that_come_again_later_are_left_out():
    lots = [f"lot{i}" for i in range(10)]
    wafers = wafers_of(lots=lots, numbers=[0, 1, 2, 3, 4, 5, 0, 7, 7, 9])

    splits = split_by_time(wafers, val=0.2, test=0.2, seed=0)

    assert splits.left_out["later wafers whose map also stands in an earlier part"].tolist() == [6, 8]
    assert (splits.val.tolist(), splits.test.tolist()) == ([7], [9])


def test_a_part_of_nothing_but_earlier_maps_is_refused():
    wafers = wafers_of(lots=["lot1", "lot2", "lot3"], numbers=[1, 1, 2])

    with pytest.raises(DataError, match="some: the val part of split 'time' must hold a wafer; got none"):
        split_by_time(wafers, **SHARES)


def test_the_first_number_that_differs_orders_the_lots():
    lots = [f"FAB12-{number:04d}" for number in (10, 9, 2, 1, 8, 7, 6, 5, 4, 3)]

    splits = split_by_time(wafers_of(lots=lots), val=0.2, test=0.2, seed=0)

    assert [lots[i] for i in splits.test] == ["FAB12-0010", "FAB12-0009"]


def test_two_lots_cannot_be_divided_by_time():
    with pytest.raises(DataError, match="some: a split by time needs at least 3 lots; got 2"):
        split_by_time(wafers_of(lots=["lot1", "lot2"]), **SHARES)


def test_a_random_split_divides_every_class_alike_and_shares_lots(synthetic):
    splits = split_randomly(synthetic, **SHARES)

    totals = synthetic.counts()
    for part, share in zip(parts_of(splits), (0.65, 0.2, 0.15), strict=True):
        counts = np.bincount(synthetic.labels[part], minlength=9)
        assert (counts > 0).all()
        assert (np.abs(counts - share * totals) <= 1).all()
    found = check_leaks(synthetic, splits)
    assert found.same_wafer == 0
    assert found.same_lot > 0.9


@pytest.mark.parametrize(("n_arcs", "n_of_parts"), [(1, [1, 0, 0]), (2, [2, 0, 0]), (3, [1, 1, 1]), (4, [2, 1, 1])])
def test_a_class_of_three_wafers_or_more_gets_one_into_each_part(n_arcs, n_of_parts):
    wafers = wafers_of(lots=[0] * 30, labels=["arc"] * n_arcs + ["ring"] * (30 - n_arcs))

    splits = split_randomly(wafers, **SHARES)

    assert [int((wafers.labels[part] == 0).sum()) for part in parts_of(splits)] == n_of_parts


def test_a_large_validation_part_leaves_a_rare_class_its_test_wafer():
    wafers = wafers_of(lots=[0] * 30, labels=["arc"] * 3 + ["ring"] * 27)

    splits = split_randomly(wafers, val=0.5, test=0.3, seed=0)

    assert [int((wafers.labels[part] == 0).sum()) for part in parts_of(splits)] == [1, 1, 1]


def test_the_decks_pool_is_balanced_before_it_is_divided(synthetic):
    splits = split_like_deck(synthetic, **SHARES)

    counts = [set(np.bincount(synthetic.labels[part], minlength=9)) for part in parts_of(splits)]
    assert counts == [{2000}, {615}, {462}]  # the deck's own numbers
    assert check_leaks(synthetic, splits).same_wafer > 0.9
    assert check_leaks(synthetic, splits).same_map > 0.9


def test_a_smaller_pool_under_samples(synthetic):
    splits = split_like_deck(synthetic, **SHARES, pool=20)

    everyone = np.concatenate(parts_of(splits))
    assert set(np.bincount(synthetic.labels[everyone])) == {20}
    (left_out,) = splits.left_out.values()
    assert len(left_out) == len(synthetic) - len(set(everyone))


def test_the_decks_subset_is_three_tenths_of_every_class(synthetic):
    splits = split_like_deck_subset(synthetic, **SHARES)

    counts = np.bincount(synthetic.labels[np.concatenate(parts_of(splits))], minlength=9)
    np.testing.assert_allclose(counts, np.maximum(3, 0.3 * synthetic.counts()), atol=0.5)


@given(wafer_sets(), st.integers(2, 5), st.integers(0, 3))
@settings(max_examples=50)
def test_folds_are_a_partition_that_shares_no_lot_and_no_map(wafers, k, seed):
    try:
        folds = k_folds(wafers, k=k, seed=seed)
    except DataError:
        assume(False)

    assert len(folds) == k
    assert sorted(np.concatenate([fold.val for fold in folds])) == np.flatnonzero(wafers.labels >= 0).tolist()
    for fold in folds:
        check_leaks(wafers, fold)
        assert len(fold.test) == 0


def test_every_fold_has_its_share_of_every_class(synthetic):
    folds = k_folds(synthetic, k=3, seed=0)

    for fold in folds:
        counts = np.bincount(synthetic.labels[fold.val], minlength=9)
        np.testing.assert_allclose(counts / synthetic.counts(), 1 / 3, atol=0.2)
    assert len({fold.fingerprint for fold in folds}) == 3
    assert [fold.protocol for fold in folds] == ["lot, fold 1 of 3", "lot, fold 2 of 3", "lot, fold 3 of 3"]


def test_only_the_wafers_that_are_given_are_folded_each_once():
    wafers = wafers_of(lots=list("abcdefgh"))

    folds = k_folds(wafers, k=2, seed=0, within=np.array([6, 1, 1, 4, 3]))

    for fold in folds:
        assert sorted([*fold.train, *fold.val]) == [1, 3, 4, 6]
        assert len(fold.val) == 2


def test_one_fold_is_none():
    with pytest.raises(DataError, match="k_folds: k must be at least 2; got 1"):
        k_folds(wafers_of(lots=["a", "b"]), k=1, seed=0)


@pytest.mark.parametrize("split", [split_by_lot, split_by_product, split_by_time, split_officially, split_randomly])
def test_unlabelled_wafers_alone_cannot_be_divided(split):
    with pytest.raises(DataError, match="some: no wafer is labelled"):
        split(wafers_of(lots=["a", "b", "c"], labels=[None] * 3), **SHARES)
