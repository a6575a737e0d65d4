from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from data_pipeline.errors import DataError
from data_pipeline.wafer_set import UNLABELLED, WM811K_CLASSES, index_labels, index_lots, make_wafer_set, order_classes

some_maps = st.lists(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 2)),
    min_size=1,
    max_size=8,
)


def collect(maps, **options):
    """A WaferSet of these maps, all of one class and lot."""
    return make_wafer_set(maps, ["ring"] * len(maps), ["lot 1"] * len(maps), source="some", **options)


@given(some_maps)
def test_maps_of_any_shape_come_back_as_they_were_given(maps):
    wafers = collect(maps)

    assert len(wafers) == len(maps)
    for index, expected in enumerate(maps):
        np.testing.assert_array_equal(wafers.map(index), expected)


@given(some_maps)
def test_content_is_equal_exactly_for_identical_maps(maps):
    content = collect(maps).content

    for one, map_one in zip(content, maps, strict=True):
        for other, map_other in zip(content, maps, strict=True):
            assert (one == other) == np.array_equal(map_one, map_other)


def test_content_tells_equal_cells_of_another_shape_apart():
    lying, standing = collect([np.ones((2, 3)), np.ones((3, 2))]).content

    assert lying != standing


def test_maps_that_are_not_contiguous_are_stored_row_by_row():
    turned = np.array([[0, 1, 2], [1, 1, 2]]).T

    wafers = collect([turned])

    assert wafers.cells.tolist() == [0, 1, 1, 1, 2, 2]


def test_fail_rates_are_shares_of_dies_and_0_without_any():
    maps = [np.array([[0, 1, 2, 2]]), np.array([[0], [0]]), np.array([[2]])] * 7_000  # more than are added up at once

    rates = collect(maps).fail_rates

    np.testing.assert_allclose(rates, [2 / 3, 0, 1] * 7_000)


def test_unlabelled_wafers_are_not_counted(few):
    counts = few.counts()

    assert counts.tolist() == [1, 2]
    assert few.labels.tolist() == [0, 1, 1, UNLABELLED]


def test_classes_without_wafers_are_counted_as_none_at_all():
    wafers = collect([np.ones((1, 1))], classes=["arc", "ring", "scratch"])

    assert wafers.counts().tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"cells": np.array([1, 1, 2, 1, 1, 1, 2, 0, 1, 2, 1, 2, 1, 0], np.uint8)}, id="a die"),
        pytest.param({"labels": np.array([0, 0, 1, -1])}, id="a label"),
        pytest.param({"lots": np.array([0, 0, 0, 2])}, id="a lot"),
        pytest.param({"lot_names": ("lot 7", "lot 8", "lot 10")}, id="a lot's name"),
        pytest.param({"classes": ("arc", "circle")}, id="a class's name"),
    ],
)
def test_the_fingerprint_changes_with_everything_that_is_known_of_a_wafer(few, change):
    changed = replace(few, **change)

    assert changed.fingerprint != few.fingerprint


def test_the_fingerprint_is_twelve_hex_digits_and_does_not_depend_on_the_source(few):
    renamed = replace(few, source="elsewhere")

    assert renamed.fingerprint == few.fingerprint
    assert len(few.fingerprint) == 12
    assert set(few.fingerprint) <= set("0123456789abcdef")


def test_the_nine_classes_of_wm811k_keep_their_usual_order():
    assert order_classes(reversed(WM811K_CLASSES)) == WM811K_CLASSES


def test_classes_of_another_fab_are_ordered_alphabetically():
    assert order_classes(["none", "Scratch", "Arc"]) == ("Arc", "Scratch", "none")


def test_lots_are_numbered_as_they_first_appear():
    codes, names = index_lots(["b", "a", "b", "c"])

    assert codes.tolist() == [0, 1, 0, 2]
    assert names == ("b", "a", "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": np.array([2, 3, 2])}, "a few: widths has 3 entries for 4 maps"),
        ({"labels": np.array([0])}, "a few: labels has 1 entries for 4 maps"),
        ({"lots": np.array([0] * 5)}, "a few: lots has 5 entries for 4 maps"),
        ({"offsets": np.array([0, 4, 7, 14])}, "a few: offsets must run from 0 to the 14 cells"),
        ({"offsets": np.array([1, 4, 7, 11, 14])}, "a few: offsets must run from 0 to the 14 cells"),
        ({"offsets": np.array([0, 4, 7, 11, 15])}, "a few: offsets must run from 0 to the 14 cells"),
        ({"offsets": np.array([0, 4, 8, 11, 14])}, "a few: map 1 is 1x3 dies but has 4 cells"),
        ({"heights": np.array([2, 1, 3, 3])}, "a few: map 2 is 3x2 dies but has 4 cells"),
        ({"cells": np.full(14, 3, np.uint8)}, r"a few: die codes must be uint8 0 \(no die\), 1 \(pass\) or 2 \(fail\)"),
        ({"cells": np.ones(14, np.int64)}, "a few: die codes must be uint8"),
        ({"labels": np.array([0, 1, 2, 0])}, "a few: a label lies outside the 2 classes"),
        ({"labels": np.array([0, 1, -2, 0])}, "a few: a label lies outside the 2 classes"),
        ({"lots": np.array([0, 1, 2, 3])}, "a few: a lot lies outside the 3 lot names"),
        ({"lots": np.array([0, 1, 2, -1])}, "a few: a lot lies outside the 3 lot names"),
        (
            {"official": np.array([0, 1, 2, 0])},
            r"a few: official must be -1 \(unknown\), 0 \(Training\) or 1 \(Test\) for",
        ),
        ({"official": np.array([0, 1, -2, 0])}, "a few: official must be -1"),
        ({"official": np.array([0, 1, 0])}, "a few: official must be -1 .* for each of 4 maps"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(few, change, message):
    with pytest.raises(DataError, match=message):
        replace(few, **change)


def test_a_set_without_wafers_is_refused():
    with pytest.raises(DataError, match="some: holds no wafer"):
        collect([])


def test_a_map_without_dies_is_refused():
    with pytest.raises(DataError, match="some: map 1 is 0x3 dies but has 0 cells"):
        collect([np.ones((1, 3)), np.ones((0, 3))])


@pytest.mark.parametrize("shape", [(4,), (2, 2, 1)])
def test_a_map_must_have_two_dimensions(shape):
    with pytest.raises(DataError, match="some: every map must have two dimensions"):
        collect([np.ones(shape)])


def test_as_many_labels_as_maps_must_be_given():
    with pytest.raises(DataError, match="some: labels has 1 entries for 2 maps"):
        make_wafer_set([np.ones((1, 1))] * 2, ["ring"], ["a", "b"], source="some")


def test_unknown_classes_are_named_together_with_the_known_ones():
    with pytest.raises(DataError, match="some: unknown class disc, spot; known: arc, ring"):
        index_labels(["arc", "spot", None, "disc"], ["arc", "ring"], source="some")
