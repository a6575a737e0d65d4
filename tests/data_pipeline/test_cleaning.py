"""What is dropped from raw wafers, and what is kept of the others."""

import numpy as np
import pytest

from data_pipeline.cleaning import clean_wafers, list_dropped
from data_pipeline.errors import DataError
from data_pipeline.sources.raw import ILLEGAL, gather

GOOD = np.ones((10, 10), np.uint8)
FOREIGN = np.where(np.eye(10) > 0, ILLEGAL, 1).astype(np.uint8)
SMALL = np.ones((9, 11), np.uint8)
EMPTY = np.zeros((20, 20), np.uint8)
NOTHING = np.zeros((0, 7), np.uint8)


def clean(maps, labels=None, **more):
    labels = labels or ["Loc"] * len(maps)
    raw = gather(maps, labels=labels, lots=[f"lot{i // 2}" for i in range(len(maps))], source="w.pkl", **more)
    return clean_wafers(raw)


def test_degenerate_maps_are_dropped_with_their_reason_and_count():
    cleaned = clean([SMALL, GOOD, EMPTY, FOREIGN, GOOD, NOTHING, SMALL])

    assert len(cleaned.wafers) == 2
    assert cleaned.dropped == {
        "values other than 0 (no die), 1 (pass), 2 (fail)": 1,
        "no die": 2,
        "fewer than 100 dies": 2,
    }
    assert "2 wafers dropped: fewer than 100 dies" in list_dropped(cleaned.dropped)


def test_maps_are_judged_alike_however_many_there_are():
    maps = [SMALL, GOOD, NOTHING, EMPTY, FOREIGN] * 5_000  # more than are looked at together

    cleaned = clean(maps)

    assert list(cleaned.dropped.values()) == [5_000, 10_000, 5_000]
    assert [cleaned.wafers.lot_names[lot] for lot in cleaned.wafers.lots] == [
        f"lot{i // 2}" for i in range(1, 25_000, 5)
    ]
    assert cleaned.wafers.fail_rates.max() == 0


def test_what_the_reader_left_out_is_counted_too():
    cleaned = clean([GOOD, SMALL], left_out={"several defects at once": 5, "fewer than 100 dies": 1})

    assert cleaned.dropped == {"several defects at once": 5, "fewer than 100 dies": 2}


def test_the_kept_wafers_keep_map_label_lot_and_official_part():
    maps = [np.full((10, 10 + i), 1 + i % 2, np.uint8) for i in range(6)]
    maps[2] = SMALL

    wafers = clean(
        maps, ["Loc", "none", "Loc", None, "edge ring", "Loc"], official=["Training", "Test", "Test"] + [None] * 3
    ).wafers

    assert [wafers.map(i).shape for i in range(5)] == [(10, 10), (10, 11), (10, 13), (10, 14), (10, 15)]
    assert [int(wafers.map(i)[0, 0]) for i in range(5)] == [1, 2, 2, 1, 2]
    assert wafers.classes == ("Edge-Ring", "Loc", "none")
    assert wafers.labels.tolist() == [1, 2, -1, 0, 1]
    assert [wafers.lot_names[i] for i in wafers.lots] == ["lot0", "lot0", "lot1", "lot2", "lot2"]
    assert wafers.official.tolist() == [0, 1, -1, -1, -1]


def test_without_an_official_split_nothing_is_known_of_it():
    assert clean([GOOD]).wafers.official is None


def test_a_file_without_a_usable_wafer_is_refused():
    with pytest.raises(DataError, match=r"w\.pkl: no usable wafer; 2 wafers dropped: fewer than 100 dies"):
        clean([SMALL, SMALL])
