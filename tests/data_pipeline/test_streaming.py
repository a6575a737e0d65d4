import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import DataError
from data_pipeline.sources.columns import stream_parquet
from data_pipeline.sources.reading import read_source
from data_pipeline.streaming import stream_wafers
from data_pipeline.synthetic import make_wafers
from data_pipeline.wafer_files import write_parquet


@pytest.fixture
def wafers():
    return make_wafers(300, seed=3)


@pytest.fixture
def parquet(wafers, tmp_path):
    write_parquet(wafers, tmp_path / "wafers.parquet")
    return tmp_path / "wafers.parquet"


def change(path, column, row, value):
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[row] = value
    at = table.schema.get_field_index(column)
    pq.write_table(table.set_column(at, column, pa.array(values, table.schema.field(column).type)), path)


def test_pieces_hold_every_wafer_once_and_in_order(parquet, wafers):
    pieces = list(stream_wafers(parquet, size=70))

    assert np.array_equal(np.concatenate([piece.rows for piece in pieces]), np.arange(300))
    assert max(len(piece.rows) for piece in pieces) == 70
    for piece in pieces:
        for i, row in enumerate(piece.rows):
            assert np.array_equal(piece.wafers.map(i), wafers.map(row))
            assert piece.wafers.lot_names[piece.wafers.lots[i]] == wafers.lot_names[wafers.lots[row]]


def test_other_sources_give_the_same_pieces(wafers, tmp_path):
    names = np.array([wafers.classes[k] for k in wafers.labels])
    arrays = {"maps": wafers.cells, "offset": wafers.offsets, "height": wafers.heights, "width": wafers.widths}
    np.savez(tmp_path / "wafers.npz", **arrays, label=names, lot=wafers.lots)

    pieces = list(stream_wafers(tmp_path / "wafers.npz", size=128))

    assert [len(piece.rows) for piece in pieces] == [128, 128, 44]
    assert np.array_equal(pieces[2].wafers.map(43), wafers.map(299))
    assert len(read_source(tmp_path / "wafers.npz")) == 300


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("map", b"\x00\x01", "map: must have height x width cells"),
        ("map", None, "map: must never be null"),
        ("height", -3, "height: must be a number of dies"),
        ("lot", None, "lot: must never be null"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_the_others_go_through(parquet, column, value, problem):
    change(parquet, column, 101, value)

    pieces = list(stream_wafers(parquet, size=70))

    assert [row for piece in pieces for row in piece.problems] == [101]
    assert problem in pieces[1].problems[101]
    assert np.array_equal(np.concatenate([piece.rows for piece in pieces]), np.delete(np.arange(300), 101))


def test_several_rows_that_cannot_be_read_cost_no_other_one(parquet):
    for row in (0, 68, 69, 150, 299):
        change(parquet, "map", row, b"\x00")

    pieces = list(stream_wafers(parquet, size=70))

    assert [row for piece in pieces for row in sorted(piece.problems)] == [0, 68, 69, 150, 299]
    rows = np.concatenate([piece.rows for piece in pieces])
    assert np.array_equal(rows, np.delete(np.arange(300), [0, 68, 69, 150, 299]))


def test_a_map_beyond_all_sizes_is_named_and_not_read(parquet):
    change(parquet, "height", 4, 2_001)
    change(parquet, "width", 5, 1_000_000_000)

    [piece] = stream_wafers(parquet, size=300)

    assert piece.problems == {
        4: "height: must be at most 2,000 dies; got 2001",
        5: "width: must be at most 2,000 dies; got 1000000000",
    }
    assert len(piece.rows) == 298


def test_a_map_beyond_all_sizes_is_named_in_other_sources_too(tmp_path):
    arrays = {"maps": np.ones(2_101, np.uint8), "offset": [0, 2_001, 2_101], "height": [2_001, 10], "width": [1, 10]}
    np.savez(tmp_path / "wafers.npz", **arrays, label=["", ""], lot=["a", "b"])

    [piece] = stream_wafers(tmp_path / "wafers.npz")

    assert piece.problems == {0: "more than 2,000 dies high or wide"}
    assert piece.rows.tolist() == [1]


def test_fewer_rows_are_read_at_once_where_maps_are_large(parquet, wafers):
    pieces = [raw for raw, _ in stream_parquet(parquet, size=300, n_cells=len(wafers.cells) // 10)]

    assert 5 < len(pieces) < 30
    assert np.array_equal(np.concatenate([piece.cells for piece in pieces]), wafers.cells)


def save_mixed(path, defects):
    maps = np.ones((len(defects), 12, 12), np.uint8)
    several = np.zeros((len(defects), 8), np.uint8)
    for row, n in enumerate(defects):
        several[row, :n] = 1
    np.savez(path, arr_0=maps, arr_1=several)


def test_wafers_that_a_reader_leaves_out_keep_their_number(tmp_path):
    save_mixed(tmp_path / "mixed.npz", [2, 0, 1, 3, 1, 0, 2])

    pieces = list(stream_wafers(tmp_path / "mixed.npz", size=2))

    assert [piece.rows.tolist() for piece in pieces] == [[1, 2], [4, 5]]
    assert [dict(piece.problems) for piece in pieces] == [
        dict.fromkeys((0, 3), "several defects at once"),
        {6: "several defects at once"},
    ]
    assert {piece.n_all for piece in pieces} == {7}


def test_a_source_of_which_the_reader_takes_nothing_says_why(tmp_path):
    save_mixed(tmp_path / "mixed.npz", [2, 2])

    [piece] = stream_wafers(tmp_path / "mixed.npz")

    assert piece.wafers is None
    assert set(piece.problems) == {0, 1}


def test_a_damaged_map_in_a_folder_costs_itself_alone(tmp_path):
    folder = tmp_path / "maps" / "unlabelled"
    folder.mkdir(parents=True)
    for i in range(5):
        np.save(folder / f"lot3_wafer{i}.npy", np.full((12, 12), 1 + i % 2, np.uint8))
    (folder / "lot3_wafer2.npy").write_bytes(b"damaged")
    (folder / "notes.txt").write_text("")

    pieces = list(stream_wafers(tmp_path / "maps", size=3))

    assert [piece.rows.tolist() for piece in pieces] == [[0, 1], [3, 4]]
    assert "damaged or not a .npy file" in pieces[0].problems[2]
    assert [pieces[0].names[row] for row in (1, 2)] == [f"unlabelled/lot3_wafer{i}.npy" for i in (1, 2)]
    assert [piece.left_out for piece in pieces] == [{"another kind of file": 1}, {}]
    assert pieces[0].wafers.lot_names == ("lot 3",)


def test_wafers_of_a_table_of_dies_have_names(tmp_path):
    dies = [f"A,{wafer},{x},{y},1" for wafer in ("w7", "w9") for x in range(12) for y in range(12)]
    (tmp_path / "dies.csv").write_text("\n".join(["lot,wafer,x,y,result", *dies]))

    [piece] = stream_wafers(tmp_path / "dies.csv")

    assert piece.names == {0: "w7", 1: "w9"}


def test_a_map_that_cannot_be_right_is_named_with_its_lot(parquet, wafers):
    size = int(wafers.heights[5] * wafers.widths[5])
    change(parquet, "map", 5, b"\x00" * size)
    change(parquet, "map", 9, b"\x07" * int(wafers.heights[9] * wafers.widths[9]))

    [piece] = stream_wafers(parquet, size=300)

    assert piece.problems == {9: "values other than 0 (no die), 1 (pass), 2 (fail)", 5: "no die"}
    assert piece.lots[5] == wafers.lot_names[wafers.lots[5]]
    assert len(piece.rows) == 298


def test_a_piece_without_a_usable_wafer_is_no_error(parquet, wafers):
    for row in range(2):
        change(parquet, "map", row, b"\x00" * int(wafers.heights[row] * wafers.widths[row]))

    first = next(iter(stream_wafers(parquet, size=2)))

    assert first.wafers is None
    assert len(first.problems) == 2


def test_labels_that_nobody_knows_are_kept(parquet, wafers):
    change(parquet, "label", 0, "something else")

    first = next(iter(stream_wafers(parquet, size=50)))

    assert first.wafers.classes[first.wafers.labels[0]] == "something else"


def test_a_damaged_file_is_refused_as_a_whole(parquet):
    parquet.write_bytes(parquet.read_bytes()[:-100])

    with pytest.raises(DataError, match=r"damaged or not a \.parquet file"):
        list(stream_wafers(parquet))
