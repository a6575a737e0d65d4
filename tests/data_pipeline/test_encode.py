import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_pipeline.encode import encode_maps, load_encoded
from data_pipeline.wafer_set import FAIL, PASS, make_wafer_set

sides = st.integers(1, 60)
sizes = st.integers(8, 48)
FIRST_TEN = np.arange(10)


def encode(*maps, size):
    wafers = make_wafer_set(maps, ["none"] * len(maps), ["a"] * len(maps), source="some")
    return encode_maps(wafers, np.arange(len(maps)), image_size=size)


@given(data=st.data(), size=sizes)
def test_die_codes_are_never_blended(data, size):
    codes = data.draw(st.sets(st.integers(0, 2), min_size=1))
    shape = data.draw(st.tuples(sides, sides))
    drawn = data.draw(arrays(np.uint8, shape, elements=st.sampled_from(sorted(codes))))

    encoded = encode(drawn, size=size)

    assert encoded.dtype == np.uint8
    assert encoded.shape == (1, size, size)
    assert set(np.unique(encoded)) <= set(np.unique(drawn))


@given(arrays(np.uint8, (16, 16), elements=st.integers(0, 2)))
def test_a_map_that_has_the_size_already_stays_as_it_is(drawn):
    np.testing.assert_array_equal(encode(drawn, size=16)[0], drawn)


@given(data=st.data(), side=st.integers(2, 12), times=st.integers(4, 6))
def test_growing_by_a_whole_number_repeats_each_die(data, side, times):
    drawn = data.draw(arrays(np.uint8, (side, side), elements=st.integers(0, 2)))

    encoded = encode(drawn, size=side * times)[0]

    np.testing.assert_array_equal(encoded, drawn.repeat(times, axis=0).repeat(times, axis=1))


@given(data=st.data(), size=sizes)
def test_growing_shows_the_nearest_die_wherever_a_pixel_lies_on_one_die(data, size):
    height, width = data.draw(st.tuples(st.integers(1, size), st.integers(1, size)))
    drawn = data.draw(arrays(np.uint8, (height, width), elements=st.integers(0, 2)))

    encoded = encode(drawn, size=size)[0]

    (rows, pixel_rows), (columns, pixel_columns) = whole_dies(height, size), whole_dies(width, size)
    np.testing.assert_array_equal(encoded[np.ix_(pixel_rows, pixel_columns)], drawn[np.ix_(rows, columns)])


def whole_dies(n_dies, n_pixels):
    """Dies and the pixels that lie on them alone, along one axis."""
    pixels = np.arange(n_pixels)
    first, last = pixels * n_dies // n_pixels, ((pixels + 1) * n_dies - 1) // n_pixels
    return first[first == last], pixels[first == last]


@given(height=sides, width=sides, size=sizes, data=st.data())
def test_a_scratch_one_die_wide_survives_any_change_of_size(height, width, size, data):
    level = np.full((height, width), PASS)
    level[data.draw(st.integers(0, height - 1))] = FAIL
    upright = np.full((height, width), PASS)
    upright[:, data.draw(st.integers(0, width - 1))] = FAIL

    encoded = encode(level, upright, size=size)

    assert (encoded[0] == FAIL).any(axis=0).all()
    assert (encoded[1] == FAIL).any(axis=1).all()


@pytest.mark.parametrize(("side", "size"), [(60, 40), (100, 40), (150, 64), (150, 40)])
def test_a_slanting_scratch_survives_shrinking(side, size):
    slanting = np.full((side, side), PASS)
    slanting[np.arange(side), np.arange(side)] = FAIL

    encoded = encode(slanting, size=size)[0]

    assert (np.diag(encoded) == FAIL).all()


def test_noise_does_not_fill_the_picture_when_it_shrinks():
    noise = np.where(np.random.default_rng(0).random((150, 150)) < 0.03, FAIL, PASS)

    encoded = encode(noise, size=40)[0]

    assert (encoded == FAIL).mean() < 0.15  # 0.35 if any fail under a pixel counted


def test_a_wafer_stays_round_when_its_dies_are_not_square():
    v, u = (np.mgrid[:22, :50] + 0.5) * 2 / np.array([22, 50]).reshape(2, 1, 1) - 1
    wide = (np.hypot(u, v) <= 1).astype(np.uint8)

    encoded = encode(wide, size=40)[0]

    assert abs(encoded.any(axis=0).sum() - encoded.any(axis=1).sum()) <= 2
    assert (encoded == encoded.T).mean() > 0.95


def test_maps_are_encoded_in_the_order_asked_for(synthetic):
    indices = np.array([5, 3, 599, 3, 0])

    encoded = encode_maps(synthetic, indices, image_size=24)

    for position, index in enumerate(indices):
        np.testing.assert_array_equal(encoded[position], encode(synthetic.map(index), size=24)[0])


@pytest.fixture
def load(synthetic, tmp_path):
    """Encode ten wafers by way of a cache in tmp_path."""

    def load(*, wafers=synthetic, indices=FIRST_TEN, image_size=16):
        return load_encoded(wafers, indices, image_size=image_size, cache=tmp_path / "cache")

    return load


@pytest.fixture
def cached(load, tmp_path):
    """The file of the cache after a first call."""
    load()
    (path,) = (tmp_path / "cache").iterdir()
    return path


def test_the_cache_holds_what_encoding_gives(synthetic, load, cached):
    expected = encode_maps(synthetic, FIRST_TEN, image_size=16)

    np.testing.assert_array_equal(load(), expected)


def test_encoded_maps_from_the_cache_cannot_be_written_to(load):
    with pytest.raises(ValueError, match="read-only"):
        load()[0] = 0


def test_the_cache_is_read_and_not_written_again(load, cached):
    content = bytearray(cached.read_bytes())
    content[-1] = FAIL  # a mark: no pixel in the corner is a die
    cached.write_bytes(content)

    assert load()[-1, -1, -1] == FAIL


def save_several(path):
    with path.open("wb") as file:
        np.savez(file, np.zeros(3))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:50]), id="cut in the header"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1]), id="cut at the end"),
        pytest.param(lambda path: path.write_bytes(b"\x80\x04N."), id="a pickle"),
        pytest.param(save_several, id="several arrays"),
        pytest.param(lambda path: np.save(path, np.array([{}, None])), id="objects"),
        pytest.param(lambda path: np.save(path, np.zeros((10, 16, 17), np.uint8)), id="another shape"),
        pytest.param(lambda path: np.save(path, np.zeros((10, 16, 16), np.int64)), id="another type"),
    ],
)
def test_a_damaged_or_foreign_file_in_the_cache_is_written_anew(synthetic, load, cached, damage):
    damage(cached)

    found = load()

    np.testing.assert_array_equal(found, encode_maps(synthetic, FIRST_TEN, image_size=16))
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"indices": np.arange(11)}, id="wafers"),
        pytest.param({"indices": FIRST_TEN[::-1]}, id="order"),
        pytest.param({"image_size": 17}, id="size"),
    ],
)
def test_other_wafers_another_order_or_size_get_a_file_of_their_own(load, cached, change):
    load(**change)

    assert len(list(cached.parent.iterdir())) == 2


def test_other_data_gets_a_file_of_its_own(few, load, cached):
    load(wafers=few, indices=np.arange(4))

    assert len(list(cached.parent.iterdir())) == 2
