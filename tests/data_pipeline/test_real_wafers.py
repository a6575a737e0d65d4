"""The pipeline on 51,282 real wafers of WM-811K, where they lie beside the checkout."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.encode import Picture, encode_maps
from data_pipeline.protocols import split_by_lot
from data_pipeline.splits import check_leaks
from data_pipeline.wafer_files import load_wafers

PATH = Path(__file__).parents[2] / "../shared/data/wm811k_training.npz"
COUNTS = {
    "Center": 3409,
    "Donut": 409,
    "Edge-Loc": 2396,
    "Edge-Ring": 8390,
    "Loc": 1596,
    "Near-full": 50,
    "none": 33954,
    "Random": 581,
    "Scratch": 497,
}

pytestmark = pytest.mark.skipif(not PATH.exists(), reason="needs ../shared/data/wm811k_training.npz")


@pytest.fixture(scope="module")
def wafers():
    return load_wafers(PATH)


@pytest.fixture(scope="module")
def splits(wafers):
    return split_by_lot(wafers, val=0.2, test=0.15, seed=0)


def test_all_wafers_are_loaded_with_their_labels_and_lots(wafers):
    assert len(wafers) == 51_282
    assert dict(zip(wafers.classes, wafers.counts().tolist(), strict=True)) == COUNTS
    assert len(wafers.lot_names) == 421
    assert not wafers.is_synthetic


def test_the_split_is_free_of_leaks(wafers, splits):
    found = check_leaks(wafers, splits)

    assert found.n_wafers == 51_282
    assert found.n_lots == 421


def test_the_parts_have_their_shares_of_the_wafers(splits):
    shares = [len(part) / 51_282 for part in (splits.train, splits.val, splits.test)]

    np.testing.assert_allclose(shares, [0.65, 0.2, 0.15], atol=0.02)


def test_every_part_has_its_share_of_every_class(wafers, splits):
    for part, share in ((splits.train, 0.65), (splits.val, 0.2), (splits.test, 0.15)):
        counts = np.bincount(wafers.labels[part], minlength=9)
        np.testing.assert_allclose(counts / wafers.counts(), share, atol=0.1)


def test_wafers_of_all_shapes_are_encoded(wafers):
    indices = np.arange(0, len(wafers), 100)

    encoded = encode_maps(wafers, indices, picture=Picture(image_size=40, encoding="states"))

    assert encoded.max() == 2
    assert 0.7 < (encoded > 0).mean() < 0.85
