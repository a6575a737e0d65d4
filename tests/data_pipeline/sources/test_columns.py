"""Parquet files of any writer, and what is refused of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.sources.columns import read_parquet
from data_pipeline.sources.raw import ILLEGAL
from data_pipeline.wafer_files import write_parquet

DAMAGED = r"damaged or not a \.parquet file \(.+\); get it again"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 4))
MAPS = SHAPES.flatmap(
    lambda shape: st.lists(
        st.lists(st.integers(0, 2), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    )
)


def save(path, **changes):
    columns = {
        "map": pa.array([b"\x00\x01", b"\x02\x01\x01"], pa.binary()),
        "height": pa.array([1, 3], pa.int32()),
        "width": pa.array([2, 1], pa.int32()),
        "lot": pa.array(["lot 1", "lot 2"]),
        "label": pa.array(["ring", None]),
    }
    kept = {name: column for name, column in (columns | changes).items() if column is not None}
    pq.write_table(pa.table(kept), path, write_page_checksum=True)
    return path


def test_binary_maps_are_read(tmp_path):
    found = read_parquet(save(tmp_path / "w.parquet"))

    assert found.cells.tolist() == [0, 1, 2, 1, 1]
    assert (found.heights.tolist(), found.widths.tolist()) == ([1, 3], [2, 1])
    assert found.labels == ["ring", None]
    assert found.lots == ["lot 1", "lot 2"]
    assert found.official == [None, None]
    assert found.source == str(tmp_path / "w.parquet")


@pytest.mark.parametrize("cell", [pa.uint8(), pa.int64(), pa.float64()])
@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_maps_may_be_lists_of_rows(tmp_path, cell, kind):
    maps = pa.array([[[0, 1]], [[2], [1], [1]]], kind(kind(cell)))

    assert read_parquet(save(tmp_path / "w.parquet", map=maps)).cells.tolist() == [0, 1, 2, 1, 1]


def test_our_own_files_are_read_too(few, tmp_path):
    write_parquet(few, tmp_path / "w.parquet")

    found = read_parquet(tmp_path / "w.parquet")

    np.testing.assert_array_equal(found.cells, few.cells)
    assert found.labels == ["arc", "ring", "ring", None]


@given(maps=st.lists(MAPS, min_size=1, max_size=5), is_binary=st.booleans(), data=st.data())
def test_reading_gives_the_wafers_that_were_written(tmp_path_factory, maps, is_binary, data):
    n = len(maps)
    labels = data.draw(st.lists(st.none() | TEXTS, min_size=n, max_size=n))
    lots = data.draw(st.lists(TEXTS, min_size=n, max_size=n))
    parts = data.draw(st.lists(st.sampled_from(["Training", "Test", None]), min_size=n, max_size=n))
    arrays = [np.array(one, np.uint8) for one in maps]
    forms = {True: pa.array([one.tobytes() for one in arrays]), False: pa.array(maps)}
    path = save(
        tmp_path_factory.mktemp("parquet") / "w.parquet",
        map=forms[is_binary],
        height=pa.array([one.shape[0] for one in arrays]),
        width=pa.array([one.shape[1] for one in arrays]),
        label=pa.array(labels, pa.string()),
        lot=pa.array(lots),
        official=pa.array(parts, pa.string()),
    )

    found = read_parquet(path)

    cells = np.split(found.cells, found.offsets[1:-1])
    shapes = zip(found.heights, found.widths, strict=True)
    assert [one.reshape(shape).tolist() for one, shape in zip(cells, shapes, strict=True)] == maps
    assert (found.labels, found.lots, found.official) == (labels, lots, parts)


def test_cells_other_than_codes_are_illegal(tmp_path):
    maps = pa.array([b"\x00\x03", b"\xff\x01\x01"])

    assert read_parquet(save(tmp_path / "w.parquet", map=maps)).cells.tolist() == [0, ILLEGAL, ILLEGAL, 1, 1]


def test_labels_may_be_missing_empty_null_or_coded_and_lots_may_be_numbers(tmp_path):
    coded = pa.array(["ring", ""]).dictionary_encode()

    assert read_parquet(save(tmp_path / "1.parquet", label=None)).labels == [None, None]
    assert read_parquet(save(tmp_path / "2.parquet", label=pa.nulls(2))).labels == [None, None]
    assert read_parquet(save(tmp_path / "3.parquet", label=coded)).labels == ["ring", None]
    assert read_parquet(save(tmp_path / "4.parquet", lot=pa.array([7, 8]))).lots == ["7", "8"]


def test_more_wafers_than_are_decoded_together_keep_their_order(tmp_path):
    n = 4_500
    path = save(
        tmp_path / "w.parquet",
        map=pa.array([bytes([i % 3]) for i in range(n)]),
        height=pa.array([1] * n),
        width=pa.array([1] * n),
        lot=pa.array(range(n)),
        label=None,
    )

    found = read_parquet(path)

    assert found.cells.tolist() == [i % 3 for i in range(n)]
    assert found.lots == [str(i) for i in range(n)]


def test_a_file_without_rows_holds_no_wafer(tmp_path):
    table = pq.read_table(save(tmp_path / "w.parquet"))
    pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")

    assert len(read_parquet(tmp_path / "none.parquet")) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"map": None},
            "lacks the columns map; found 'height', 'width', 'lot', 'label'; must have map, height, width, lot, may",
        ),
        ({"map": pa.array([b"\x01", None])}, "map: must never be null; got null in row 1; fill or drop it"),
        ({"map": pa.array([b"\x01\x01", b"\x01"])}, "map: must have height x width cells; got 1 for 3x1 in row 1"),
        ({"map": pa.array(["ab", "abc"])}, "map: must be binary or a list of rows of numbers; got string"),
        ({"map": pa.array([[1, 1], [1, 1, 1]])}, "map: must be binary or a list of rows of numbers; got list<"),
        ({"map": pa.array([[["a"]], [["b"]]])}, "map: must be binary or a list of rows of numbers; got list<"),
        ({"map": pa.array([[[1, 1]], [[1], None, [1]]])}, "map: must hold no null among its cells; clean it first"),
        ({"map": pa.array([[[1, None]], [[1], [1], [1]]])}, "map: must hold no null among its cells; clean it first"),
        ({"map": pa.array([[[1, 1]], [[1, 1], [1]]])}, "rows of `width` cells; got one of 2 for a width of 1 in row 1"),
        ({"map": pa.array([[[1, 1]], [[1], [1]]])}, "map: must have height x width cells; got 2 for 3x1 in row 1"),
        ({"height": pa.array([1.0, 3.0])}, "height: must hold whole numbers; got double; convert it"),
        ({"height": pa.array([1, None])}, "height: must never be null; got null in row 1"),
        ({"height": pa.array([-1, 3])}, "height: must be a number of dies; got -1 in row 0"),
        ({"width": pa.array([2, 2**62])}, f"width: must be a number of dies; got {2**62} in row 1"),
        ({"lot": pa.array([None, "a"])}, "lot: must never be null; got null in row 0"),
        ({"lot": pa.array([1.0, 2.0])}, "lot: must hold strings; got double; convert it"),
        ({"label": pa.array([1, 2])}, "label: must hold strings; got int64; convert it"),
    ],
)
def test_columns_that_do_not_fit_are_refused(tmp_path, changes, message):
    path = save(tmp_path / "w.parquet", **changes)

    with pytest.raises(DataError, match=rf"w\.parquet: .*{message}"):
        read_parquet(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\x80\x04N.", b"index,label\n1,none\n" * 99])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "w.parquet").write_bytes(content)

    with pytest.raises(DataError, match=rf"w\.parquet: {DAMAGED}"):
        read_parquet(tmp_path / "w.parquet")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"w\.parquet: cannot be read \(No such file or directory\)"):
        read_parquet(tmp_path / "w.parquet")


def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    n = 280
    path = tmp_path / "w.parquet"
    table = pa.table({"map": [bytes(1 << 20)] * n, "height": [1 << 10] * n, "width": [1 << 10] * n, "lot": ["a"] * n})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)

    with pytest.raises(DataError, match=r"w\.parquet: must not unpack to more than 200 times its size; got 293,"):
        read_parquet(path)


def test_equal_maps_that_unpack_to_far_more_than_the_file_are_refused(tmp_path):
    n = 600
    one = pa.DictionaryArray.from_arrays(pa.array([0] * n), pa.array([bytes(1 << 19)]))
    path = save(
        tmp_path / "w.parquet",
        map=one.cast(pa.binary()),
        height=pa.array([1 << 9] * n),
        width=pa.array([1 << 10] * n),
        lot=pa.array(["a"] * n),
        label=None,
    )

    with pytest.raises(
        DataError, match=r"w\.parquet: must not unpack to .*; got 314,572,800 cells from .* bytes; refused"
    ):
        read_parquet(path)


def test_rows_of_nothing_that_are_far_more_than_the_file_are_refused(tmp_path):
    n = 7_000_000
    path = tmp_path / "w.parquet"
    nothing = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int8)), pa.array([b""]))
    side = pa.array(np.zeros(n, np.int32))
    pq.write_table(pa.table({"map": nothing, "height": side, "width": side, "lot": side}), path)

    with pytest.raises(DataError, match=r"must not unpack to .*; got 280,000,000 bytes of rows from .* bytes; refused"):
        read_parquet(path)


def test_a_flipped_die_is_noticed(tmp_path):
    path = save(tmp_path / "w.parquet")
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"\x02\x01\x01")] ^= 3
    path.write_bytes(damaged)

    with pytest.raises(DataError, match=r"w\.parquet: damaged or not a \.parquet file \(.*CRC"):
        read_parquet(path)


def accept_or_refuse(path):
    try:
        return len(read_parquet(path)) >= 0
    except DataError:
        return "refused"


@pytest.mark.parametrize("maps", [None, [[[0, 1]], [[2], [1], [1]]]])
def test_mutated_files_are_read_or_refused(tmp_path, mutations, maps):
    changes = {} if maps is None else {"map": pa.array(maps)}
    valid = save(tmp_path / "w.parquet", **changes).read_bytes()
    path = tmp_path / "mutated.parquet"

    for mutated in mutations(valid):
        path.write_bytes(mutated)
        assert accept_or_refuse(path)
