import copyreg
import gc
import io
import pickle
import struct
import sys

import numpy as np
import pandas as pd
import pytest

from data_pipeline.errors import DataError
from data_pipeline.sources.pickles import read_frame
from data_pipeline.sources.unpickling import Array

# What pandas 2 calls "str" is no column of text.
PANDAS_3 = pytest.mark.skipif(int(pd.__version__.split(".")[0]) < 3, reason="needs pandas 3")
PROTOCOLS = (2, 4, 5)
TEXT = {"object": object, "arrow": "str", "python": "string[python]", "category": "category"}


def read(pickled: bytes):
    return read_frame(io.BytesIO(pickled), source="file.pkl", size=len(pickled))


def pickle_frame(columns, *, protocol=5):
    stream = io.BytesIO()
    pd.DataFrame(columns).to_pickle(stream, protocol=protocol, compression=None)
    return stream.getvalue()


def unicode(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


# What a hostile file calls, and with what; MARKER stands for the file that proves that it ran.
CALLS = [
    ("os", "system", "touch MARKER"),
    ("posix", "system", "touch MARKER"),
    ("builtins", "eval", "open('MARKER', 'w')"),
    ("builtins", "exec", "open('MARKER', 'w')"),
    ("__builtin__", "eval", "open('MARKER', 'w')"),
    ("subprocess", "getoutput", "touch MARKER"),
    ("subprocess", "Popen", "MARKER"),
    ("builtins", "getattr", "MARKER"),
    ("builtins", "open", "MARKER"),
    ("numpy", "load", "MARKER"),
    ("numpy", "memmap", "MARKER"),
    ("pandas", "read_pickle", "MARKER"),
    ("pandas.io.common", "get_handle", "MARKER"),
    ("copyreg", "_reconstructor", "MARKER"),
    ("copy_reg", "_reconstructor", "MARKER"),
    ("importlib", "import_module", "MARKER"),
    ("operator", "attrgetter", "MARKER"),
    ("functools", "partial", "MARKER"),
    ("numpy.core.multiarray.ndarray", "tofile", "MARKER"),
    ("numpy", "ndarray.tofile", "MARKER"),
    ("data_pipeline.sources.unpickling", "Array", "MARKER"),
]
FORMS = {
    "GLOBAL": lambda module, name, text: f"c{module}\n{name}\n(V{text}\ntR.".encode(),
    "STACK_GLOBAL": lambda module, name, text: (
        b"\x80\x04" + unicode(module) + unicode(name) + b"\x93" + unicode(text) + b"\x85R."
    ),
    "INST": lambda module, name, text: f"(V{text}\ni{module}\n{name}\n.".encode(),
    "OBJ": lambda module, name, text: f"(c{module}\n{name}\nV{text}\no.".encode(),
    "NEWOBJ": lambda module, name, text: b"\x80\x02" + f"c{module}\n{name}\n(V{text}\nt".encode() + b"\x81.",
    "inside a list": lambda module, name, text: f"(lp0\nc{module}\n{name}\n(V{text}\ntRa.".encode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("module", "name", "text"), CALLS)
def test_what_a_hostile_file_calls_is_refused_by_name_and_not_run(tmp_path, form, module, name, text):
    marker = tmp_path / "marker"
    hostile = FORMS[form](module, name, text.replace("MARKER", str(marker)))

    with pytest.raises(DataError, match=rf"^file.pkl: asks to call {module}\.{name}, which no wafer file needs"):
        read(hostile)

    assert not marker.exists()


def test_the_hostile_files_would_run_elsewhere(tmp_path):
    marker = tmp_path / "marker"

    pickle.loads(FORMS["GLOBAL"]("os", "system", f"touch {marker}"))

    assert marker.exists()


class Hostile:
    """Pickles to a call of eval."""

    def __init__(self, code):
        self.code = code

    def __reduce__(self):
        return eval, (self.code,)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_call_deep_in_a_real_frame_is_refused(tmp_path, protocol):
    marker = tmp_path / "marker"
    hostile = pickle_frame({"a": [[(Hostile(f"open({str(marker)!r}, 'w')"),)], 1]}, protocol=protocol)

    with pytest.raises(DataError, match=r"asks to call (builtins|__builtin__)\.eval"):
        read(hostile)

    assert not marker.exists()


def test_a_call_as_the_state_of_an_object_is_refused(tmp_path):
    marker = tmp_path / "marker"
    state = FORMS["GLOBAL"]("posix", "system", f"touch {marker}")[:-1]

    with pytest.raises(DataError, match=r"posix\.system"):
        read(b"cnumpy.core.multiarray\n_reconstruct\n(tR" + state + b"b.")

    assert not marker.exists()


def test_an_extension_code_is_refused_by_name(tmp_path):
    marker = tmp_path / "marker"
    copyreg.add_extension("posix", "system", 240)
    hostile = b"\x80\x02\x82\xf0" + unicode(f"touch {marker}") + b"\x85R."
    try:
        with pytest.raises(DataError, match=r"posix\.system"):
            read(hostile)
    finally:
        copyreg.remove_extension("posix", "system", 240)

    assert not marker.exists()


def test_an_extension_code_that_this_process_has_used_is_refused_too():
    copyreg.add_extension("posix", "getpid", 241)
    try:
        pickle.loads(b"\x80\x02\x82\xf1.")
        with pytest.raises(DataError, match=r"posix\.getpid"):
            read(b"\x80\x02\x82\xf1)R.")
    finally:
        copyreg.remove_extension("posix", "getpid", 241)


@pytest.mark.parametrize("code", [b"\x82\x05", b"\x83\x05\x00", b"\x84\x05\x00\x00\x00"])
def test_an_unknown_extension_code_is_damage(code):
    with pytest.raises(DataError, match="damaged"):
        read(b"\x80\x02" + code + b".")


@pytest.mark.parametrize("hostile", [b"Pposix.system\n.", b"\x80\x02" + unicode("x") + b"Q."])
def test_a_persistent_id_is_refused(hostile):
    with pytest.raises(DataError, match="asks for a persistent id"):
        read(hostile)


def test_a_name_of_control_characters_is_shown_escaped_and_short():
    with pytest.raises(DataError) as caught:
        read(b"\x80\x04" + unicode("\x1b[31m") + unicode("x" * 10_000) + b"\x93.")

    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300


DTYPE = b"cnumpy\ndtype\n(Vu1\ntR"
ARRAY = b"cnumpy\n_reconstruct\n(tR(I1\n(I2\nt" + DTYPE + b"I00\nC\x02\x00\x00tb"
NAMES = b"cnumpy\n_reconstruct\n(tR(I1\n(I1\ntcnumpy\ndtype\n(VO8\ntRI00\n(Va\nltb"
INDEX = b"cpandas\n_new_Index\n(cpandas\nIndex\n}Vdata\n" + NAMES + b"stR"
STAND_INS = [
    "numpy _reconstruct",
    "numpy dtype",
    "numpy ndarray",
    "numpy._core.numeric _frombuffer",
    "pandas DataFrame",
    "pandas.core.internals BlockManager",
    "pandas.indexes.base _new_Index",
    "pandas IntegerArray",
    "pandas.arrays ArrowStringArray",
    "pandas CategoricalDtype",
    "builtins slice",
    "builtins bytearray",
]


@pytest.mark.parametrize("which", STAND_INS)
@pytest.mark.parametrize("attribute", ["__setstate__", "__call__", "__init__", "_call", "name"])
def test_a_file_cannot_change_how_the_next_one_is_read(which, attribute):
    module, name = which.split()
    genuine = pickle_frame({"a": [1, "x"], "b": pd.array([1, None], dtype="Int64")})
    state = b"}" + unicode(attribute) + b"Ns"

    for hostile in (state, b"N" + state + b"\x86", state + state + b"\x86"):
        with pytest.raises(DataError):
            read(b"\x80\x02c" + f"{module}\n{name}\n".encode() + hostile + b"b.")

    assert read(genuine).column("a") == [1, "x"]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
@pytest.mark.parametrize(
    "bomb",
    [
        b"N" + b"r" + struct.pack("<I", 2**31 - 1) + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**44) + b"x.",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**44) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**44) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**44) + b"x.",
    ],
    ids=["memo", "bytes", "text", "bytearray", "frame"],
)
def test_a_claimed_size_beyond_the_file_is_damage(bomb):
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)

    with pytest.raises(DataError, match=r"damaged, or too large for this machine|damaged or truncated pickle"):
        read(bomb)

    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.parametrize("name", ["bytes", "bytearray"])
def test_a_number_of_bytes_is_not_allocated(name):
    with pytest.raises(DataError, match="damaged"):
        read(b"\x80\x02c__builtin__\n" + name.encode() + b"\n\x8a\x05\x00\x00\x00\x00\x10\x85R.")


def test_an_array_larger_than_its_bytes_is_damage():
    shape = (2**20, 2**20)
    frame = pickle_frame({"a": [np.zeros((3, 7), np.uint8)]}, protocol=2).replace(
        b"K\x03K\x07\x86", b"J" + struct.pack("<i", shape[0]) + b"J" + struct.pack("<i", shape[1]) + b"\x86"
    )

    with pytest.raises(ValueError, match="shape and bytes differ"):
        read(frame).column("a")[0].decode()


def test_a_deeply_nested_file_neither_crashes_nor_is_a_frame():
    for nested in (b"]" * 200_000 + b"a" * 199_999 + b".", b")" + b"\x85" * 1_000_000 + b"."):
        with pytest.raises(DataError, match="must hold a pandas DataFrame"):
            read(nested)


def test_categories_that_are_their_own_categories_are_damage():
    backed = b"cpandas\n__pyx_unpickle_NDArrayBacked\n(cpandas\nCategorical\nNNtR\x94"
    own = b"\x80\x04" + backed + b"(cpandas\nCategoricalDtype\n)\x81}Vcategories\nh\x00sb" + ARRAY + b"tb"
    frame = b"cpandas\nDataFrame\n)\x81}V_mgr\ncpandas\nBlockManager\n(("
    manager = b"cpandas\n_unpickle_block\n(h\x00cbuiltins\nslice\n(I0\nI1\nI1\ntRI2\ntRt](" + INDEX + b"etRsb."

    found = read(own + frame + manager)

    with pytest.raises(DataError, match="damaged"):
        found.column("a")


@pytest.mark.parametrize("other", [b"N.", b"\x80\x02}.", b"I7\n.", pickle.dumps([1, 2, 3]), pickle.dumps({"a": "b"})])
def test_a_pickle_of_something_else_is_refused(other):
    with pytest.raises(DataError, match="must hold a pandas DataFrame"):
        read(other)


@pytest.mark.parametrize("other", [b"", b"\x80", b"PK\x03\x04", b"\x80\x7f.", b"hello, world", b"\x00" * 100])
def test_what_is_no_pickle_is_damage(other):
    with pytest.raises(DataError, match=r"^file\.pkl: damaged or truncated pickle"):
        read(other)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", TEXT)
def test_text_comes_out_as_it_went_in(protocol, kind):
    texts = pd.Series(["Loc", None, "Scratch", "", "käse", "Loc"], dtype=TEXT[kind])

    frame = read(pickle_frame({"label": texts, "i": range(6)}, protocol=protocol))

    assert frame.names == ("label", "i")
    assert [text if isinstance(text, str) else None for text in frame.column("label")] == [
        "Loc",
        None,
        "Scratch",
        "",
        "käse",
        "Loc",
    ]
    assert frame.column("i") == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_part_of_a_column_of_text_comes_out_as_it_went_in(protocol):
    texts = pd.Series(["Loc", None, "Scratch", "none", "Donut"], dtype="str")[1:4].reset_index(drop=True)

    frame = read(pickle_frame({"label": texts}, protocol=protocol))

    assert [text if isinstance(text, str) else None for text in frame.column("label")] == [None, "Scratch", "none"]


@PANDAS_3
@pytest.mark.parametrize("bounds", [(0, 99, 0), (0, -1, 6), (-1, 0, 6), (0, 3, 2**40), (6, 0, 6)])
def test_text_beyond_its_characters_or_counted_twice_is_damage(bounds):
    genuine = pickle_frame({"label": pd.Series(["abc", "def"], dtype="str")})
    damaged = genuine.replace(struct.pack("<3q", 0, 3, 6), struct.pack("<3q", *bounds))

    assert damaged != genuine
    with pytest.raises(DataError, match="strings without their characters"):
        read(damaged).column("label")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "?", ">i4", "<U5", "S3"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_out_as_they_went_in(protocol, dtype, order):
    array = np.asarray(np.arange(6).reshape(2, 3).astype(dtype), order=order)

    (found,) = read(pickle_frame({"a": [array]}, protocol=protocol)).column("a")

    assert isinstance(found, Array)
    np.testing.assert_array_equal(found.decode(), array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_columns_of_all_plain_kinds_come_out_as_they_went_in(protocol):
    columns = {"a": [1, 2], "x": [0.5, 1.5], "b": [3, 4], "flag": [True, False], "o": ["s", 7], "y": [2.5, 3.5]}

    frame = read(pickle_frame(columns, protocol=protocol))

    assert {name: frame.column(name) for name in frame.names} == columns


def test_a_frame_that_was_filtered_and_sorted_comes_out_as_it_went_in():
    frame = pd.DataFrame({"a": range(10), "b": list("abcdefghij"), "c": np.arange(10) / 2})
    chosen = frame[frame["a"] % 3 == 1].sort_values("a", ascending=False)[["c", "a", "b"]]

    found = read(pickle_frame(chosen))

    assert found.names == ("c", "a", "b")
    assert (found.column("a"), found.column("b"), found.column("c")) == ([7, 4, 1], ["h", "e", "b"], [3.5, 2.0, 0.5])


@pytest.mark.parametrize(
    "values", [pd.to_datetime(["2020-01-01", "2021-01-01"]), pd.array([1, None], dtype="Int64")], ids=["dates", "Int64"]
)
def test_a_column_of_another_kind_is_refused_once_it_is_needed(values):
    frame = read(pickle_frame({"a": [1, 2], "other": values}))

    assert frame.column("a") == [1, 2]
    with pytest.raises(DataError, match=r"column 'other' must hold plain numbers, strings or objects"):
        frame.column("other")


def test_reading_leaves_the_collector_as_it_was():
    read(pickle_frame({"a": [1]}))

    assert gc.isenabled()
