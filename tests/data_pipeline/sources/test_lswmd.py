import contextlib
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_pipeline.errors import DataError
from data_pipeline.sources.lswmd import read_lswmd
from data_pipeline.sources.raw import ILLEGAL

# What pandas 2 calls "str" is no column of text, and it cannot read the pickles of pandas 3, which we can.
PANDAS_3 = pytest.mark.skipif(int(pd.__version__.split(".")[0]) < 3, reason="needs pandas 3")
SAMPLES = Path(__file__).parents[3] / "../shared/data"
KAGGLE, MIR = SAMPLES / "LSWMD_sample.pkl", SAMPLES / "MIR_sample.pkl"
MAPS = [np.array([[0, 1], [2, 1]], np.uint8), np.array([[1, 2, 1]], np.uint8), np.array([[1], [7], [0]], np.uint8)]


def frame(**changed):
    columns = {
        "dieSize": [3.0, 3.0, 2.0],
        "failureType": ["Loc", 0, "none"],
        "lotName": ["lot1", "lot1", "lot2"],
        "trainTestLabel": ["Training", 0, "Test"],
        "waferIndex": [1.0, 2.0, 1.0],
        "waferMap": MAPS,
    }
    return pd.DataFrame({name: values for name, values in (columns | changed).items() if values is not None})


def write(path, table, *, protocol=5):
    table.to_pickle(path, protocol=protocol, compression=None)
    return path


def nest(*texts):
    """Labels as they came from Matlab: [['Loc']], or an empty array."""
    return [np.array([[text]]) if text else np.zeros((0, 0)) for text in texts]


def name_of(module, name):
    return f"c{module}\n{name}\n".encode()


def raw(text):
    return b"T" + struct.pack("<i", len(text)) + text


def legacy_array(values, code):
    """An array as numpy wrote it in Python 2; its elements are given as opcodes where it has objects."""
    shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in np.shape(values)) + b"t"
    data = {"O8": lambda: b"](" + b"".join(np.ravel(values)) + b"e"}.get(code, lambda: raw(values.tobytes()))()
    dtype = name_of("numpy", "dtype") + raw(code.encode()) + b"K\0K\1\x87R(K\3" + raw(b"|<"[code[0] not in "Ou" :][:1])
    made = name_of("numpy.core.multiarray", "_reconstruct") + name_of("numpy", "ndarray") + b"K\0\x85" + raw(b"b")
    return made + b"\x87R(K\1" + shape + dtype + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89" + data + b"tb"


def legacy_index(*names):
    data = legacy_array(np.array([raw(name) for name in names], object), "O8")
    start = name_of("pandas.indexes.base", "_new_Index") + name_of("pandas.indexes.base", "Index")
    return start + b"}(" + raw(b"data") + data + raw(b"name") + b"Nu\x86R"


def write_legacy(path):
    """The three wafers as Python 2 and pandas 0.19 wrote them."""
    labels = [legacy_array(one, f"U{one.itemsize // 4}" if one.size else "f8") for one in nest("Loc", "", "none")]
    parts = [legacy_array(one, f"U{one.itemsize // 4}" if one.size else "f8") for one in nest("Training", "", "Test")]
    cells = np.empty((4, 3), object)
    cells[:] = [[legacy_array(one, "u1") for one in MAPS], [raw(b"lot1"), raw(b"lot1"), raw(b"lot2")], parts, labels]
    block = b"}(" + raw(b"values") + legacy_array(cells, "O8") + raw(b"mgr_locs")
    block += legacy_array(np.array([0, 2, 4, 5]), "i8") + b"u"
    sizes = b"}(" + raw(b"values") + legacy_array(np.ones((2, 3)), "f8") + raw(b"mgr_locs")
    sizes += name_of("__builtin__", "slice") + b"K\1K\5K\2\x87Ru"
    axes = b"](" + legacy_index(b"waferMap", b"dieSize", b"lotName", b"waferIndex", b"trianTestLabel", b"failureType")
    axes += name_of("pandas.indexes.base", "_new_Index") + name_of("pandas.indexes.range", "RangeIndex")
    axes += b"}(" + raw(b"start") + b"K\0" + raw(b"stop") + b"K\3" + raw(b"step") + b"K\1u\x86Re"
    state = b"}(" + raw(b"axes") + axes + raw(b"blocks") + b"](" + sizes + block + b"eu"
    manager = name_of("pandas.core.internals", "BlockManager") + b")\x81(]]]}" + raw(b"0.14.1") + state + b"stb"
    path.write_bytes(
        b"\x80\x02" + name_of("pandas.core.frame", "DataFrame") + b")\x81}" + raw(b"_data") + manager + b"sb."
    )
    return path


def write_modern(path):
    return write(path, frame())


WRITERS = [write_legacy, write_modern]


def check_the_three(found):
    assert found.cells.tolist() == [0, 1, 2, 1, 1, 2, 1, 1, ILLEGAL, 0]
    assert (found.heights.tolist(), found.widths.tolist()) == ([2, 1, 3], [2, 3, 1])
    assert list(found.labels) == ["Loc", None, "none"]
    assert list(found.official) == ["Training", None, "Test"]
    assert list(found.lots) == ["lot1", "lot1", "lot2"]
    assert found.left_out == {}


@pytest.mark.skipif(not KAGGLE.exists(), reason="needs ../shared/data/LSWMD_sample.pkl")
def test_both_published_layouts_hold_the_same_wafers():
    kaggle, mir = read_lswmd(KAGGLE), read_lswmd(MIR)

    assert len(kaggle) == len(mir) == 850
    assert kaggle.labels.count(None) == 85
    for name in ("cells", "heights", "widths", "labels", "lots", "official"):
        np.testing.assert_array_equal(getattr(kaggle, name), getattr(mir, name))


@PANDAS_3
@pytest.mark.skipif(not MIR.exists(), reason="needs ../shared/data/MIR_sample.pkl")
def test_a_published_file_holds_what_pandas_finds_in_it():
    table, found = pd.read_pickle(MIR), read_lswmd(MIR)

    np.testing.assert_array_equal(found.cells, np.concatenate([one.ravel() for one in table["waferMap"]]))
    assert list(found.labels) == [label or None for label in table["failureType"]]
    assert list(found.lots) == list(table["lotName"])


def test_the_layout_of_python_2_is_read(tmp_path):
    check_the_three(read_lswmd(write_legacy(tmp_path / "LSWMD.pkl")))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_layout_of_the_running_pandas_is_read(tmp_path, protocol):
    check_the_three(read_lswmd(write(tmp_path / "WM811K.pkl", frame(), protocol=protocol)))


@pytest.mark.parametrize(
    "labels",
    [
        nest("Loc", "", "none"),
        [np.array([["Loc"]], object), np.zeros((0, 0)), np.array(["none"], object)],
        [[["Loc"]], [0, 0], ["none"]],
        [np.str_("Loc"), np.float64(0), b"none"],
        ["Loc", "", "none"],
        ["Loc", None, "none"],
        ["Loc", float("nan"), "none"],
        [("Loc",), [], np.array(["none"])],
        pytest.param(pd.array(["Loc", None, "none"], dtype="str"), marks=PANDAS_3),
        pd.Categorical(["Loc", None, "none"]),
    ],
)
def test_labels_come_out_of_whatever_they_are_nested_in(tmp_path, labels):
    found = read_lswmd(write(tmp_path / "x.pkl", frame(failureType=labels)))

    assert list(found.labels) == ["Loc", None, "none"]


def test_several_labels_of_one_wafer_are_joined(tmp_path):
    found = read_lswmd(write(tmp_path / "x.pkl", frame(failureType=[["Loc", "Donut"], 0, "none"])))

    assert list(found.labels) == ["Loc+Donut", None, "none"]


def test_a_label_that_holds_itself_ends(tmp_path):
    endless = []
    endless += [endless] * 16

    found = read_lswmd(write(tmp_path / "x.pkl", frame(failureType=[endless, 0, "none"])))

    assert list(found.labels) == [None, None, "none"]


@pytest.mark.parametrize("names", [("wafer_map", "defect", "lot"), ("WaferMap", "Label", "LOT_ID")])
def test_columns_are_found_by_pattern(tmp_path, names):
    new = dict(zip(("waferMap", "failureType", "lotName"), names, strict=True))
    table = frame().rename(columns=new).assign(slot=1, plot="x")

    check_the_three(read_lswmd(write(tmp_path / "x.pkl", table)))


def test_the_column_of_the_published_split_may_be_missing(tmp_path):
    found = read_lswmd(write(tmp_path / "x.pkl", frame(trainTestLabel=None)))

    assert list(found.official) == [None, None, None]


@pytest.mark.parametrize(
    ("column", "meaning"), [("waferMap", "wafer map"), ("failureType", "label"), ("lotName", "lot")]
)
def test_a_missing_column_is_named_with_those_there_are(tmp_path, column, meaning):
    path = write(tmp_path / "x.pkl", frame(**{column: None}))

    with pytest.raises(DataError, match=rf"must have a column with the {meaning}, named like '{column}'; got"):
        read_lswmd(path)


def test_two_columns_that_could_be_the_label_are_an_error(tmp_path):
    path = write(tmp_path / "x.pkl", frame(failureType=None, label_a=["Loc"] * 3, label_b=["none"] * 3))

    with pytest.raises(DataError, match="must have one column with the label; got 'label_a', 'label_b'"):
        read_lswmd(path)


@pytest.mark.parametrize(
    "other",
    [np.arange(4), np.zeros((2, 2, 2)), np.zeros((0, 0)), np.array([["a"]]), np.array([[1]], object), [[1, 2]], 0, "x"],
)
def test_what_is_no_map_is_counted_and_left_out(tmp_path, other):
    found = read_lswmd(write(tmp_path / "x.pkl", frame(waferMap=[MAPS[0], other, MAPS[1]])))

    assert found.heights.tolist() == [2, 1]
    assert list(found.labels) == ["Loc", "none"]
    assert list(found.lots) == ["lot1", "lot2"]
    assert list(found.official) == ["Training", "Test"]
    assert found.left_out == {"not a two-dimensional map": 1}


def test_a_wafer_without_a_lot_is_counted_and_left_out(tmp_path):
    found = read_lswmd(write(tmp_path / "x.pkl", frame(lotName=["lot1", None, "lot2"])))

    assert list(found.lots) == ["lot1", "lot2"]
    assert found.left_out == {"no lot": 1}


@pytest.mark.parametrize("lots", [[7, 7, 8], [7.0, 7.0, 8.0], [np.int64(7), "7", b"8"], nest("7", "7", "8")])
def test_lots_may_be_numbers_or_nested(tmp_path, lots):
    assert list(read_lswmd(write(tmp_path / "x.pkl", frame(lotName=lots))).lots) == ["7", "7", "8"]


@pytest.mark.parametrize("dtype", ["u1", "i8", "f4", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_maps_may_have_any_type_and_order(tmp_path, dtype, order):
    maps = [np.asarray([[0, 1, 1], [1, 1, 0]], dtype=dtype, order=order)] * 3

    assert read_lswmd(write(tmp_path / "x.pkl", frame(waferMap=maps))).cells.tolist() == [0, 1, 1, 1, 1, 0] * 3


def test_an_empty_frame_has_no_wafers(tmp_path):
    found = read_lswmd(write(tmp_path / "x.pkl", frame().iloc[:0]))

    assert len(found) == 0


def test_a_map_whose_shape_and_bytes_differ_is_damage(tmp_path):
    path = write(tmp_path / "x.pkl", frame(waferMap=[np.full((3, 7), 9, np.uint8)] * 3), protocol=2)
    path.write_bytes(path.read_bytes().replace(b"K\x03K\x07\x86", b"K\xffK\xff\x86"))

    with pytest.raises(DataError, match=r"damaged or truncated pickle .*shape and bytes differ"):
        read_lswmd(path)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_one_map_that_stands_for_gigabytes_is_refused(tmp_path):
    path = write(tmp_path / "x.pkl", frame(waferMap=[np.ones((2000, 2000), np.uint8)] * 3).sample(1500, replace=True))

    with pytest.raises(DataError, match="must fit into memory"):
        read_lswmd(path)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_cut_off_anywhere_is_damage(tmp_path, writer):
    path = writer(tmp_path / "x.pkl")
    whole = path.read_bytes()

    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="damaged"):
            read_lswmd(path)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_with_changed_bytes_is_read_or_refused(tmp_path, writer):
    path, rng = writer(tmp_path / "x.pkl"), np.random.default_rng(0)
    whole = np.frombuffer(path.read_bytes(), np.uint8)

    for _ in range(300):
        changed = whole.copy()
        changed[rng.integers(len(whole), size=3)] = rng.integers(256, size=3)
        path.write_bytes(changed.tobytes())
        with contextlib.suppress(DataError):
            read_lswmd(path)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_zip_with_one_pickle_is_read(tmp_path, writer):
    inner = writer(tmp_path / "x.pkl")
    with zipfile.ZipFile(tmp_path / "MIR-WM811K.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(inner, "MIR-WM811K/Python/WM811K.pkl")
        archive.writestr("__MACOSX/Python/._WM811K.pkl", b"x")
        archive.writestr("readme.txt", b"x")

    check_the_three(read_lswmd(tmp_path / "MIR-WM811K.zip"))


@pytest.mark.parametrize("names", [(), ("a.txt",), ("a.pkl", "b/c.pkl")])
def test_a_zip_without_exactly_one_pickle_is_refused(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"x")

    with pytest.raises(DataError, match=r"must have exactly one \.pkl inside"):
        read_lswmd(tmp_path / "x.zip")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.pkl", "w") as member:
        for _ in range(300):
            member.write(bytes(1 << 20))

    with pytest.raises(DataError, match="must not unpack to more than 200 times its size; got 314,572,800 bytes"):
        read_lswmd(path)


def test_a_damaged_zip_is_an_error(tmp_path):
    path, rng = tmp_path / "x.zip", np.random.default_rng(0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(write_modern(tmp_path / "x.pkl"))
    whole = np.frombuffer(path.read_bytes(), np.uint8)

    for _ in range(200):
        changed = whole.copy()
        changed[rng.integers(len(whole), size=3)] = rng.integers(256, size=3)
        path.write_bytes(changed.tobytes())
        with contextlib.suppress(DataError):
            read_lswmd(path)
    path.write_bytes(whole[: len(whole) // 2].tobytes())
    with pytest.raises(DataError, match="zip"):
        read_lswmd(path)


@pytest.mark.parametrize("name", ["nowhere.pkl", "nowhere.zip", ""])
def test_a_file_that_cannot_be_opened_is_an_error(tmp_path, name):
    with pytest.raises(DataError, match="cannot be read"):
        read_lswmd(tmp_path / name)


def test_progress_is_told_up_to_the_end_a_few_times(tmp_path):
    maps = [np.ones((2000, 2000), np.uint8), np.ones((3, 3000), np.uint8), np.ones((3000, 2000), np.uint8)]
    path, told = write(tmp_path / "x.pkl", frame(waferMap=maps)), []

    read_lswmd(path, progress=lambda done, total: told.append((done, total)))

    size = path.stat().st_size
    assert [total for _, total in told] == [size] * len(told)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == size
    assert len(told) <= 8
