import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import DataError
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
