"""What is read, what is written, and what is refused with which words."""

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.wafer_files import find_wafers, load_wafers, write_parquet
from data_pipeline.wafer_set import WM811K_CLASSES, make_wafer_set

METADATA = {
    "wafers.format": "1",
    "wafers.classes": json.dumps(["arc", "ring"]),
    "wafers.source": "a fab",
    "wafers.synthetic": "false",
}


def arrays_of(wafers):
    """What an .npz file of these wafers holds."""
    names = [*wafers.classes, ""]
    return {
        "maps": wafers.cells,
        "offset": wafers.offsets,
        "height": wafers.heights.astype(np.int16),
        "width": wafers.widths.astype(np.int16),
        "label": np.array([names[label] for label in wafers.labels]),
        "lot": np.array([wafers.lot_names[lot] for lot in wafers.lots]),
    }


def save_npz(path, wafers, **changes):
    kept = {name: array for name, array in (arrays_of(wafers) | changes).items() if array is not None}
    np.savez_compressed(path, **kept)
    return path


def save_table(path, *, metadata=METADATA, **changes):
    """Write a Parquet file of two wafers by hand, with other columns or metadata than ours would have."""
    columns = {
        "map": pa.array([b"\x00\x01", b"\x02\x01"], pa.binary()),
        "height": pa.array([1, 2], pa.int32()),
        "width": pa.array([2, 1], pa.int32()),
        "label": pa.array(["ring", None], pa.string()),
        "lot": pa.array(["lot 1", "lot 2"], pa.string()),
    }
    kept = {name: column for name, column in (columns | changes).items() if column is not None}
    pq.write_table(pa.table(kept).replace_schema_metadata(metadata), path)
    return path


def assert_same_wafers(found, expected):
    assert found.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(found.cells, expected.cells)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.lots, expected.lots)
    assert found.classes == expected.classes
    assert found.lot_names == expected.lot_names


@pytest.fixture(scope="module")
def npz_bytes(few, tmp_path_factory):
    return save_npz(tmp_path_factory.mktemp("npz") / "w.npz", few).read_bytes()


@pytest.fixture(scope="module")
def parquet_bytes(few, tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "w.parquet"
    write_parquet(few, path)
    return path.read_bytes()


def test_npz_files_give_back_what_was_saved(few, tmp_path):
    found = load_wafers(save_npz(tmp_path / "w.npz", few))

    assert_same_wafers(found, few)
    assert found.source == str(tmp_path / "w.npz")
    assert not found.is_synthetic


def test_parquet_files_give_back_what_was_written(few, tmp_path):
    write_parquet(few, tmp_path / "w.parquet")

    found = load_wafers(tmp_path / "w.parquet")

    assert_same_wafers(found, few)
    assert found.source == few.source
    assert not found.is_synthetic


def test_synthetic_wafers_are_still_called_so_after_a_round_trip(synthetic, tmp_path):
    write_parquet(synthetic, tmp_path / "w.parquet")

    found = load_wafers(tmp_path / "w.parquet")

    assert_same_wafers(found, synthetic)
    assert found.is_synthetic
    assert found.source == "synthetic (600 wafers, seed 0)"


def test_classes_without_wafers_survive_a_round_trip(tmp_path):
    wafers = make_wafer_set([np.ones((1, 1))], ["none"], ["a"], source="one", classes=WM811K_CLASSES)
    write_parquet(wafers, tmp_path / "w.parquet")

    found = load_wafers(tmp_path / "w.parquet")

    assert found.classes == WM811K_CLASSES


def test_names_of_classes_and_lots_may_hold_any_characters(tmp_path):
    names = ["Ring (outer)", "Kratzer ä", '"x", y']
    wafers = make_wafer_set([np.ones((1, 1))] * 3, names, names, source="ünïcode")
    write_parquet(wafers, tmp_path / "w.parquet")

    found = load_wafers(tmp_path / "w.parquet")

    assert_same_wafers(found, wafers)


def test_suffixes_may_be_written_in_capitals(few, tmp_path):
    write_parquet(few, tmp_path / "W.PARQUET")

    found = load_wafers(tmp_path / "W.PARQUET")

    assert len(found) == len(few)


def test_a_folder_name_with_an_equals_sign_adds_no_column(few, tmp_path):
    path = tmp_path / "lot=9" / "w.parquet"
    write_parquet(few, path)

    found = load_wafers(path)

    assert_same_wafers(found, few)


def test_a_group_of_large_maps_is_far_smaller_than_what_its_offsets_of_32_bits_can_count(tmp_path):
    maps = np.zeros((17, 2000, 2000), np.uint8)
    maps[:, 0, 0] = 1 + np.arange(17) % 2
    wafers = make_wafer_set(maps, ["none"] * 17, ["a"] * 17, source="large")

    write_parquet(wafers, tmp_path / "w.parquet")

    metadata = pq.read_metadata(tmp_path / "w.parquet")
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sizes == [16, 1]
    assert np.array_equal(load_wafers(tmp_path / "w.parquet").cells, wafers.cells)


def test_writing_makes_missing_folders_and_leaves_nothing_else_behind(few, tmp_path):
    path = tmp_path / "a" / "b" / "w.parquet"

    write_parquet(few, path)

    assert [entry.name for entry in path.parent.iterdir()] == ["w.parquet"]


def test_writing_again_replaces_the_file(few, synthetic, tmp_path):
    write_parquet(synthetic, tmp_path / "w.parquet")

    write_parquet(few, tmp_path / "w.parquet")

    assert_same_wafers(load_wafers(tmp_path / "w.parquet"), few)


@pytest.mark.parametrize(("below", "reason"), [("w.parquet", "File exists"), ("deeper/w.parquet", "Not a directory")])
def test_a_path_below_a_file_cannot_be_written(few, tmp_path, below, reason):
    (tmp_path / "file").write_text("not a folder")
    path = tmp_path / "file" / below

    with pytest.raises(DataError, match=rf"file/{below}: cannot be written \({reason}\)"):
        write_parquet(few, path)


def test_a_folder_in_the_place_of_the_file_is_left_alone(few, tmp_path):
    folder = tmp_path / "w.parquet"
    folder.mkdir()

    with pytest.raises(DataError, match=r"w\.parquet: cannot be written \(Is a directory\)"):
        write_parquet(few, folder)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.parquet"]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"w\.npz: no such file; give a \.npz or \.parquet file of wafer maps"):
        load_wafers(tmp_path / "w.npz")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"is a folder; give a \.npz or \.parquet file of wafer maps"):
        load_wafers(tmp_path)


@pytest.mark.parametrize(("name", "suffix"), [("w.csv", r"'\.csv'"), ("wafers", "''"), ("w.npz.gz", r"'\.gz'")])
def test_an_unknown_suffix_is_refused(tmp_path, name, suffix):
    (tmp_path / name).write_text("1,2,3")

    with pytest.raises(DataError, match=rf"{name}: unknown kind of file {suffix}; known: \.npz, \.parquet"):
        load_wafers(tmp_path / name)


@pytest.mark.parametrize("name", ["w.npz", "w.parquet"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"PAR1", b"\x80\x04N.", b"index,label\n1,none\n" * 99])
def test_a_file_of_another_kind_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=rf"{name}: damaged or not a wafer file \(.+\)"):
        load_wafers(tmp_path / name)


def test_a_single_array_is_not_a_wafer_file(tmp_path):
    with (tmp_path / "w.npz").open("wb") as file:
        np.save(file, np.ones(4))

    with pytest.raises(DataError, match=r"w\.npz: damaged or not a wafer file"):
        load_wafers(tmp_path / "w.npz")


def test_a_file_that_may_not_be_read_is_refused(few, tmp_path, monkeypatch):
    path = save_npz(tmp_path / "w.npz", few)

    def refuse(*args, **kwargs):
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)  # permissions do not hold for root, who may run the tests
    with pytest.raises(DataError, match=r"w\.npz: may not be read; check its permissions"):
        load_wafers(path)


@given(data=st.data())
def test_a_truncated_npz_file_is_refused(npz_bytes, data):
    kept = data.draw(st.integers(0, len(npz_bytes) - 1))

    with TemporaryDirectory() as folder:
        path = Path(folder) / "w.npz"
        path.write_bytes(npz_bytes[:kept])
        with pytest.raises(DataError, match=r"w\.npz: damaged or not a wafer file"):
            load_wafers(path)


@given(data=st.data())
def test_a_truncated_parquet_file_is_refused(parquet_bytes, data):
    kept = data.draw(st.integers(0, len(parquet_bytes) - 1))

    with TemporaryDirectory() as folder:
        path = Path(folder) / "w.parquet"
        path.write_bytes(parquet_bytes[:kept])
        with pytest.raises(DataError, match=r"w\.parquet: damaged or not a wafer file"):
            load_wafers(path)


@given(data=st.data())
def test_a_flipped_byte_never_changes_wafers_of_an_npz_file_in_silence(npz_bytes, few, data):
    position = data.draw(st.integers(0, len(npz_bytes) - 1))
    damaged = bytearray(npz_bytes)
    damaged[position] ^= data.draw(st.integers(1, 255))

    with TemporaryDirectory() as folder:
        path = Path(folder) / "w.npz"
        path.write_bytes(damaged)
        assert load_or_refuse(path) in (few.fingerprint, "refused")


@given(data=st.data())
def test_a_flipped_byte_of_a_parquet_file_is_at_worst_a_data_error(parquet_bytes, data):
    position = data.draw(st.integers(0, len(parquet_bytes) - 1))
    damaged = bytearray(parquet_bytes)
    damaged[position] ^= data.draw(st.integers(1, 255))

    with TemporaryDirectory() as folder:
        path = Path(folder) / "w.parquet"
        path.write_bytes(damaged)
        assert load_or_refuse(path)


def load_or_refuse(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # numpy on headers that Python 2 could have written
        try:
            return load_wafers(path).fingerprint
        except DataError:
            return "refused"


def test_a_flipped_die_in_a_parquet_file_is_noticed(few, tmp_path):
    path = tmp_path / "w.parquet"
    write_parquet(few, path)
    maps = pq.read_metadata(path).row_group(0).column(0)
    damaged = bytearray(path.read_bytes())
    damaged[maps.data_page_offset - 1] ^= 3  # the end of the page before, which holds the dies
    path.write_bytes(damaged)

    with pytest.raises(DataError, match=r"w\.parquet: damaged or not a wafer file \(.*CRC"):
        load_wafers(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lot": None}, "lacks the arrays lot; found maps, offset, height, width, label"),
        ({"maps": None, "offset": None}, "lacks the arrays maps, offset; found height, width, label, lot"),
        ({"offset": np.arange(5.0)}, "damaged or not a wafer file"),
        ({"label": np.array([None, {}, 1, "ring"], dtype=object)}, "damaged or not a wafer file"),
        ({"height": np.array(3)}, "damaged or not a wafer file"),
        ({"width": np.array([2, 3, 2])}, "widths has 3 entries for 4 maps"),
        ({"lot": np.array(["a"])}, "lots has 1 entries for 4 maps"),
        ({"maps": np.full(14, 128, np.uint8)}, "die codes must be uint8"),
        ({"maps": np.ones(14, np.float32)}, "die codes must be uint8"),
        ({"maps": np.ones(13, np.uint8)}, "offsets must run from 0 to the 13 cells"),
    ],
)
def test_npz_files_with_other_arrays_are_refused(few, tmp_path, changes, message):
    path = save_npz(tmp_path / "w.npz", few, **changes)

    with pytest.raises(DataError, match=rf"w\.npz: {message}"):
        load_wafers(path)


def test_npz_files_may_hold_more_arrays_and_lots_as_numbers(few, tmp_path):
    path = save_npz(tmp_path / "w.npz", few, lot=np.array([7, 7, 8, 9]), content=np.arange(4))

    found = load_wafers(path)

    assert found.lot_names == ("7", "8", "9")


def test_foreign_parquet_files_are_refused_with_the_command_that_converts(tmp_path):
    path = save_table(tmp_path / "w.parquet", metadata=None)

    with pytest.raises(
        DataError,
        match=r"w\.parquet: not a wafer file of ours; make one: `python -m data_pipeline\.prepare .*w\.parquet`",
    ):
        load_wafers(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"map": None}, "damaged or not a wafer file"),
        ({"map": pa.array([None, b"\x01\x01"])}, "map must be binary and never null; got binary, 1 null"),
        ({"height": pa.array([None, 2])}, "damaged or not a wafer file"),
        ({"height": pa.array([1.0, 2.0])}, "damaged or not a wafer file"),
        ({"metadata": METADATA | {"wafers.classes": "arc, ring"}}, "damaged or not a wafer file"),
        ({"metadata": METADATA | {"wafers.classes": "null"}}, "damaged or not a wafer file"),
        ({"metadata": METADATA | {"wafers.classes": '["arc"]'}}, "unknown class ring; known: arc"),
        ({"metadata": {"wafers.format": "1"}}, "damaged or not a wafer file"),
        ({"metadata": METADATA | {"wafers.format": "2"}}, "not a wafer file of ours"),
        ({"map": pa.array([b"\x03\x01", b"\x01\x01"])}, "die codes must be uint8"),
        ({"width": pa.array([2, 2])}, "map 1 is 2x2 dies but has 2 cells"),
    ],
)
def test_parquet_files_with_other_columns_or_metadata_are_refused(tmp_path, changes, message):
    path = save_table(tmp_path / "w.parquet", **changes)

    with pytest.raises(DataError, match=rf"w\.parquet: {message}"):
        load_wafers(path)


def test_the_hand_written_parquet_file_of_these_tests_is_read(tmp_path):
    found = load_wafers(save_table(tmp_path / "w.parquet"))

    assert found.map(1).tolist() == [[2], [1]]
    assert found.labels.tolist() == [1, -1]
    assert found.source == "a fab"


@pytest.mark.parametrize("asked", ["auto", "synthetic"])
def test_synthetic_wafers_are_drawn_where_none_are_prepared(tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)

    found = find_wafers(asked, synthetic_wafers=150)

    assert found.is_synthetic
    assert len(found) == 150


def test_prepared_wafers_are_found_in_the_current_folder(few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_parquet(few, Path("data/wafers.parquet"))

    found = find_wafers("auto", synthetic_wafers=150)

    assert_same_wafers(found, few)


def test_synthetic_wafers_can_be_asked_for_beside_prepared_ones(few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_parquet(few, Path("data/wafers.parquet"))

    found = find_wafers("synthetic", synthetic_wafers=150)

    assert found.is_synthetic


def test_wafers_are_found_by_their_path(few, tmp_path):
    path = save_npz(tmp_path / "w.npz", few)

    found = find_wafers(str(path), synthetic_wafers=150)

    assert_same_wafers(found, few)


def test_a_path_without_a_file_is_not_replaced_by_synthetic_wafers(tmp_path):
    with pytest.raises(DataError, match=r"w\.npz: no such file"):
        find_wafers(str(tmp_path / "w.npz"), synthetic_wafers=150)
