import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_pipeline.augment import apply_symmetry
from data_pipeline.encode import Picture, encode_maps, load_encoded
from data_pipeline.wafer_set import FAIL, NO_DIE, PASS, make_wafer_set

sides = st.integers(1, 60)
sizes = st.integers(8, 48)
FIRST_TEN = np.arange(10)


def encode(*maps, size, **options):
    picture = Picture(**{"image_size": size, "encoding": "states", **options})
    return encode_maps(wafer_set(*maps), np.arange(len(maps)), picture=picture)


def wafer_set(*maps):
    return make_wafer_set(maps, ["none"] * len(maps), ["a"] * len(maps), source="some")


def encode_exactly(drawn, size):
    """The rule in whole numbers, pixel by pixel: areas in units of 1 / size of a die along each axis."""
    height, width = drawn.shape
    encoded = np.zeros((size, size), np.uint8)
    for row, column in np.ndindex(size, size):
        areas = np.outer(overlaps(row, height, size), overlaps(column, width, size))
        die, fail = areas[drawn != NO_DIE].sum(), areas[drawn == FAIL].sum()
        is_die, fails = 1000 * die >= 499 * height * width, 1000 * fail * max(height, width, size) >= 499 * size * die
        encoded[row, column] = is_die * np.where(fails, FAIL, PASS)
    return encoded


def overlaps(pixel, n_dies, n_pixels):
    dies = np.arange(n_dies)
    ends = np.minimum((pixel + 1) * n_dies, (dies + 1) * n_pixels)
    return (ends - np.maximum(pixel * n_dies, dies * n_pixels)).clip(0)


@settings(max_examples=50)
@given(data=st.data(), height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(8, 24))
def test_every_pixel_is_what_the_rule_says_in_exact_arithmetic(data, height, width, size):
    drawn = data.draw(arrays(np.uint8, (height, width), elements=st.integers(0, 2)))

    np.testing.assert_array_equal(encode(drawn, size=size)[0], encode_exactly(drawn, size))


@pytest.mark.parametrize(("size", "step"), [(40, 60), (64, 200)])
def test_many_maps_of_many_shapes_are_encoded_like_single_ones(synthetic, size, step):
    encoded = encode_maps(synthetic, np.arange(600), picture=Picture(image_size=size, encoding="states"))

    for i in range(0, 600, step):
        np.testing.assert_array_equal(encoded[i], encode_exactly(synthetic.map(i), size))


@given(data=st.data(), height=st.integers(1, 24), width=st.integers(1, 24))
def test_a_map_that_keeps_its_aspect_lies_in_the_middle_with_no_die_around(data, height, width):
    drawn = data.draw(arrays(np.uint8, (height, width), elements=st.integers(1, 2)))
    side = max(height, width)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = drawn

    encoded = encode(drawn, size=8 * side, aspect="kept")[0]

    np.testing.assert_array_equal(encoded, square.repeat(8, axis=0).repeat(8, axis=1))


def test_a_square_map_is_encoded_alike_whether_its_aspect_is_kept_or_not():
    drawn = np.random.default_rng(0).integers(0, 3, (33, 33))

    np.testing.assert_array_equal(encode(drawn, size=20, aspect="kept"), encode(drawn, size=20))


def test_a_round_wafer_of_flat_dies_gets_flat_where_its_aspect_is_kept():
    wide = np.ones((22, 50), np.uint8)

    encoded = encode(wide, size=50, aspect="kept")[0]

    np.testing.assert_array_equal(np.flatnonzero(encoded.any(axis=1)), np.arange(14, 36))
    assert encoded.any(axis=0).all()


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


@pytest.mark.parametrize("encoding", ["states", "coverage"])
def test_maps_are_encoded_in_the_order_asked_for(synthetic, encoding):
    indices = np.array([5, 3, 599, 3, 0])

    encoded = encode_maps(synthetic, indices, picture=Picture(image_size=24, encoding=encoding))

    for position, index in enumerate(indices):
        np.testing.assert_array_equal(encoded[position], encode(synthetic.map(index), size=24, encoding=encoding)[0])


def cover(drawn, *, size, **options):
    """Coverage of one map by passing and by failing dies, each of shape (S, S), as whole numbers that can be added."""
    return np.moveaxis(encode(drawn, size=size, encoding="coverage", **options)[0].astype(int), 2, 0)


@settings(max_examples=50)
@given(data=st.data(), height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(8, 24))
def test_coverage_is_the_share_of_each_pixel_that_lies_on_passing_and_on_failing_dies(data, height, width, size):
    drawn = data.draw(arrays(np.uint8, (height, width), elements=st.integers(0, 2)))
    rows = np.stack([overlaps(pixel, height, size) for pixel in range(size)])
    columns = np.stack([overlaps(pixel, width, size) for pixel in range(size)])

    passing, failing = cover(drawn, size=size)

    for found, code, levels in ((passing, PASS, 1.01), (failing, FAIL, 0.51)):
        share = rows @ (drawn == code) @ columns.T / (height * width)
        assert (np.abs(found - 255 * share) < levels).all()


@given(data=st.data(), height=sides, width=sides, size=sizes)
def test_coverage_sums_to_all_of_a_pixel_within_the_wafer_and_never_to_more(data, height, width, size):
    drawn = data.draw(arrays(np.uint8, (height, width), elements=st.integers(0, 2)))

    within, anywhere = cover(np.maximum(drawn, PASS), size=size).sum(0), cover(drawn, size=size).sum(0)

    assert (within == 255).all()
    assert anywhere.max() <= 255


@pytest.mark.parametrize(("code", "channel"), [(PASS, 0), (FAIL, 1)])
@given(height=sides, width=sides, size=sizes)
def test_a_wafer_of_equal_dies_is_covered_by_them_wholly_away_from_its_rim(height, width, size, code, channel):
    drawn = np.full((height + 2, width + 2), NO_DIE, np.uint8)
    drawn[1:-1, 1:-1] = code
    inside = np.ix_(within(height + 2, size), within(width + 2, size))

    covered = cover(drawn, size=size)

    assert (covered[channel][inside] == 255).all()
    assert not covered[1 - channel].any()


def within(n_dies, n_pixels):
    """Pixels that touch neither the first nor the last die along one axis."""
    pixels = np.arange(n_pixels)
    return np.flatnonzero((pixels * n_dies >= n_pixels) & ((pixels + 1) * n_dies <= (n_dies - 1) * n_pixels))


@given(data=st.data(), height=sides, width=sides, size=sizes)
def test_coverage_keeps_the_failing_area(data, height, width, size):
    drawn = data.draw(arrays(np.uint8, (height, width), elements=st.integers(0, 2)))

    _, failing = cover(drawn, size=size)

    assert failing.mean() / 255 == pytest.approx((drawn == FAIL).mean(), abs=0.51 / 255)


# Sides up to 20: no share that such maps can have lies so close to where rounding turns that float32 could err.
@given(data=st.data(), side=st.integers(1, 20), size=sizes, symmetry=st.integers(0, 7))
def test_a_flipped_or_turned_map_has_the_coverage_of_the_map_flipped_or_turned(data, side, size, symmetry):
    drawn = data.draw(arrays(np.uint8, (side, side), elements=st.integers(0, 2)))
    covered = encode(drawn, size=size, encoding="coverage")

    turned = encode(turn(drawn[None], symmetry)[0], size=size, encoding="coverage")

    np.testing.assert_array_equal(turned, turn(covered, symmetry))


def turn(maps, symmetry):
    return apply_symmetry(torch.from_numpy(maps), torch.tensor([symmetry])).numpy()


@given(data=st.data(), side=st.integers(1, 12), times=st.integers(1, 4).map(lambda power: 2**power))
def test_coverage_repeats_the_dies_of_a_map_grown_by_a_whole_number(data, side, times):
    drawn = data.draw(arrays(np.uint8, (side, side), elements=st.integers(0, 2)))
    grown = drawn.repeat(times, axis=0).repeat(times, axis=1)

    covered = cover(drawn, size=side * times)

    np.testing.assert_array_equal(covered, 255 * np.stack([grown == PASS, grown == FAIL]))


def test_a_scratch_one_die_wide_is_a_faint_line_on_a_large_map():
    drawn = np.full((150, 150), PASS)
    drawn[:, 76] = FAIL

    passing, failing = cover(drawn, size=40)

    np.testing.assert_array_equal(np.flatnonzero(failing.any(axis=0)), [20])
    assert (failing[:, 20] == round(255 / 3.75)).all()
    assert (passing[:, 20] == 255 - round(255 / 3.75)).all()


def test_the_coverage_of_a_map_that_keeps_its_aspect_lies_in_the_middle():
    covered = cover(np.ones((22, 50), np.uint8), size=50, aspect="kept").sum(0)

    np.testing.assert_array_equal(np.flatnonzero(covered.any(axis=1)), np.arange(14, 36))
    assert (covered[14:36] == 255).all()


@pytest.fixture
def load(synthetic, tmp_path):
    """Encode ten wafers by way of a cache in tmp_path."""

    def load(*, wafers=synthetic, indices=FIRST_TEN, image_size=16, **options):
        picture = Picture(**{"image_size": image_size, "encoding": "states", **options})
        return load_encoded(wafers, indices, picture=picture, cache=tmp_path / "cache")

    return load


@pytest.fixture
def cached(load, tmp_path):
    """The file of the cache after a first call."""
    load()
    (path,) = (tmp_path / "cache").iterdir()
    return path


def test_the_cache_holds_what_encoding_gives(synthetic, load, cached):
    expected = encode_maps(synthetic, FIRST_TEN, picture=Picture(image_size=16, encoding="states"))

    np.testing.assert_array_equal(load(), expected)


@pytest.mark.parametrize("options", [{"aspect": "kept"}, {"encoding": "coverage"}], ids=str)
def test_the_cache_holds_what_was_asked_for(synthetic, load, options):
    expected = encode_maps(synthetic, FIRST_TEN, picture=Picture(**{"image_size": 16, "encoding": "states", **options}))

    for _ in ("written", "read"):
        np.testing.assert_array_equal(load(**options), expected)


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

    picture = Picture(image_size=16, encoding="states")
    np.testing.assert_array_equal(found, encode_maps(synthetic, FIRST_TEN, picture=picture))
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"indices": np.arange(11)}, id="wafers"),
        pytest.param({"indices": FIRST_TEN[::-1]}, id="order"),
        pytest.param({"image_size": 17}, id="size"),
        pytest.param({"aspect": "kept"}, id="aspect"),
        pytest.param({"encoding": "coverage"}, id="encoding"),
    ],
)
def test_other_wafers_another_order_or_picture_get_a_file_of_their_own(load, cached, change):
    load(**change)

    assert len(list(cached.parent.iterdir())) == 2


# Caches written before there was a choice of encodings must be found again.
@pytest.mark.parametrize(
    ("aspect", "name"),
    [("stretched", "maps-16px-ccb61418fd39888b.npy"), ("kept", "maps-16px-4d0deb56e9ea33fc.npy")],
)
def test_files_of_states_keep_their_names(load, tmp_path, aspect, name):
    rng = np.random.default_rng(0)
    wafers = wafer_set(*(rng.integers(0, 3, shape).astype(np.uint8) for shape in ((12, 9), (30, 41), (5, 5))))

    load(wafers=wafers, indices=np.arange(3), aspect=aspect)

    assert [path.name for path in (tmp_path / "cache").iterdir()] == [name]


def test_other_data_gets_a_file_of_its_own(few, load, cached):
    load(wafers=few, indices=np.arange(4))

    assert len(list(cached.parent.iterdir())) == 2
