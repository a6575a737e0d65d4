"""The numbers and the page of the quality report."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from data_pipeline.quality import measure_quality
from data_pipeline.quality_page import draw_page
from data_pipeline.wafer_set import make_wafer_set


def disc(fails, side=12):
    map_ = np.ones((side, side), np.uint8)
    map_.flat[:fails] = 2
    return map_


@pytest.fixture
def wafers():
    maps = [disc(1), disc(1), disc(2), disc(3), disc(3), disc(4), disc(5, side=14)]
    labels = ["Loc", "none", "none", "Loc", "Loc", None, "Scratch"]
    lots = ["a", "b", "b", "a", "c", "c", "c"]
    return make_wafer_set(maps, labels, lots, source="w.csv", official=[0, 1, 1, 0, 0, -1, 1])


def test_classes_are_counted_with_their_lots_maps_and_parts(wafers):
    table = measure_quality(wafers).classes

    assert table.index.tolist() == ["Loc", "none", "Scratch", "unlabelled"]
    assert table["wafers"].tolist() == [3, 2, 1, 1]
    assert table["lots"].tolist() == [2, 1, 1, 1]
    assert table["distinct"].tolist() == [2, 2, 1, 1]
    assert table["Training"].tolist() == [3, 0, 0, 0]
    assert table["Test"].tolist() == [0, 2, 1, 0]
    assert table["share %"].tolist()[:3] == pytest.approx([50, 100 / 3, 100 / 6])
    assert table["fails %"].iloc[2] == pytest.approx(100 * 5 / 196)


def test_repeated_and_contradicting_maps_are_found(wafers):
    found = measure_quality(wafers).duplicates

    assert (found.n_maps, found.n_wafers) == (2, 4)
    assert found.n_across_official == 1
    assert found.n_conflicting == 1
    assert found.conflicts == {("Loc", "none"): 1}


def test_lots_shared_between_classes_are_counted(wafers):
    shared = measure_quality(wafers).shared_lots

    assert shared.to_numpy().tolist() == [[2, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_sizes_and_lots_are_summed_up(wafers):
    quality = measure_quality(wafers)

    assert quality.sizes == {(12, 12): 6, (14, 14): 1}
    assert quality.wafers_per_lot == (2, 2.0, 3)


def test_the_page_shows_every_class_and_says_what_was_dropped(wafers):
    page = draw_page(wafers, measure_quality(wafers), {"no die <really>": 1234})

    assert "no die &lt;really&gt;</td><td>1,234" in page
    assert "Loc and none</td><td>1" in page
    strips = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert len(strips) == 4
    first = Image.open(io.BytesIO(base64.b64decode(strips[0])))
    assert first.size == (3 * 72, 64)


def test_an_unknown_official_split_is_not_reported():
    one = make_wafer_set([disc(1)], ["Loc"], ["a"], source="w.csv")

    quality = measure_quality(one)

    assert quality.duplicates.n_across_official is None
    assert "Training" not in quality.classes.columns
    assert "official" not in draw_page(one, quality, {})
