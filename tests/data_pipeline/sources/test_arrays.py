"""Both layouts of .npz, and every way in which one can be wrong."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.sources.arrays import read_npy, read_npz
from data_pipeline.sources.raw import ILLEGAL

DAMAGED = r"damaged or not a \.npz file \(.+\); get it again"
OURS = {
    "maps": np.array([0, 1, 2, 1, 1, 1, 2], np.uint8),
    "offset": np.array([0, 4, 7]),
    "height": np.array([2, 1], np.int16),
    "width": np.array([2, 3], np.int16),
    "label": np.array(["Ring", ""]),
    "lot": np.array(["lot 7", "lot 8"]),
}


def save(path, arrays):
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def save_ours(path, **changes):
    return save(path, OURS | changes)


def save_mixed(path, **changes):
    maps = np.ones((3, 4, 5), np.int32)
    maps[1, 2, 3] = 3
    defects = np.zeros((3, 8), np.int64)
    defects[1, 2] = 1
    defects[2, [0, 4]] = 1
    return save(path, {"arr_0": maps, "arr_1": defects} | changes)


def save_member(path, content, name="maps.npy"):
    """Write our arrays, one of them replaced by bytes."""
    with zipfile.ZipFile(save_ours(path, maps=None), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def npy_bytes(header, data=b""):
    text = header.encode("latin-1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def accept_or_refuse(path):
    try:
        return len(read_npz(path))
    except DataError:
        return "refused"


def test_our_layout_is_read_and_an_empty_label_is_none(tmp_path):
    found = read_npz(save_ours(tmp_path / "w.npz"))

    assert found.cells.tolist() == [0, 1, 2, 1, 1, 1, 2]
    assert (found.heights.tolist(), found.widths.tolist()) == ([2, 1], [2, 3])
    assert found.labels == ["Ring", None]
    assert found.lots == ["lot 7", "lot 8"]
    assert found.official == [None, None]
    assert found.source == str(tmp_path / "w.npz")
    assert found.left_out == {}


@given(
    maps=st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
            lambda shape: st.lists(
                st.lists(st.integers(0, 2), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
            )
        ),
        min_size=1,
        max_size=5,
    ),
    data=st.data(),
)
def test_reading_gives_the_wafers_that_were_written(tmp_path_factory, maps, data):
    texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
    labels = data.draw(st.lists(texts, min_size=len(maps), max_size=len(maps)))
    lots = data.draw(st.lists(texts, min_size=len(maps), max_size=len(maps)))
    parts = data.draw(st.lists(st.sampled_from(["Training", "Test", ""]), min_size=len(maps), max_size=len(maps)))
    arrays = [np.array(one, np.uint8) for one in maps]
    path = save(
        tmp_path_factory.mktemp("npz") / "w.npz",
        {
            "maps": np.concatenate([one.ravel() for one in arrays]),
            "offset": np.cumsum([0, *(one.size for one in arrays)]),
            "height": np.array([one.shape[0] for one in arrays]),
            "width": np.array([one.shape[1] for one in arrays]),
            "label": np.array(labels),
            "lot": np.array(lots),
            "official": np.array(parts),
        },
    )

    found = read_npz(path)

    cells = np.split(found.cells, found.offsets[1:-1])
    shapes = zip(found.heights, found.widths, strict=True)
    assert [one.reshape(shape).tolist() for one, shape in zip(cells, shapes, strict=True)] == maps
    assert found.labels == [label or None for label in labels]
    assert found.lots == lots
    assert found.official == [part or None for part in parts]


@pytest.mark.parametrize("lots", [np.array([7, 8]), np.array([b"7", b"8"])])
def test_lots_may_be_numbers_or_bytes(tmp_path, lots):
    assert read_npz(save_ours(tmp_path / "w.npz", lot=lots)).lots == ["7", "8"]


def test_maps_may_be_of_any_numeric_type_and_hold_anything(tmp_path):
    maps = np.array([0, 1, 2, 3, -1, np.nan, 1.5])

    found = read_npz(save_ours(tmp_path / "w.npz", maps=maps))

    assert found.cells.tolist() == [0, 1, 2, *[ILLEGAL] * 4]


def test_arrays_may_be_big_endian_fortran_ordered_or_uncompressed(tmp_path):
    mixed = {"arr_0": np.asfortranarray(np.arange(6).reshape(1, 2, 3) % 3), "arr_1": np.zeros((1, 8))}
    np.savez(tmp_path / "m.npz", **mixed)

    found = read_npz(save_ours(tmp_path / "w.npz", offset=np.array([0, 4, 7], ">i4")))

    assert len(found) == 2
    assert read_npz(tmp_path / "m.npz").cells.tolist() == [0, 1, 2, 0, 1, 2]


def test_mixedwm38_wafers_with_at_most_one_defect_are_read(tmp_path):
    found = read_npz(save_mixed(tmp_path / "m.npz"))

    assert found.labels == ["none", "Edge-Loc"]
    assert found.left_out == {"several defects at once": 1}
    assert (found.heights.tolist(), found.widths.tolist()) == ([4, 4], [5, 5])


def test_mixedwm38_cells_of_value_3_are_illegal(tmp_path):
    found = read_npz(save_mixed(tmp_path / "m.npz"))

    assert found.cells.reshape(2, 4, 5)[1, 2, 3] == ILLEGAL
    assert (found.cells == ILLEGAL).sum() == 1


def test_every_mixedwm38_wafer_is_a_lot_of_its_own(tmp_path):
    assert read_npz(save_mixed(tmp_path / "m.npz")).lots == ["wafer 0", "wafer 1"]


def test_the_defects_of_mixedwm38_stand_in_their_published_order(tmp_path):
    found = read_npz(save(tmp_path / "m.npz", {"arr_0": np.ones((8, 2, 2)), "arr_1": np.eye(8)}))

    assert found.labels == [
        "Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full", "Scratch", "Random",
    ]  # fmt: skip
    assert found.left_out == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lot": None},
            r"lacks the arrays lot; found 'maps', 'offset', 'height', 'width', 'label'; must have maps, .*MixedWM38",
        ),
        ({"maps": None, "offset": None}, "lacks the arrays maps, offset; found 'height', 'width', 'label', 'lot'"),
        ({"offset": np.arange(3.0)}, "offset: must hold whole numbers; got float64; convert it"),
        ({"maps": np.array(["a"] * 7)}, "maps: must hold numbers; got <U1; convert it"),
        ({"label": np.arange(2)}, "label: must hold strings; got int64; convert it"),
        ({"lot": np.arange(2.0)}, "lot: must hold strings or whole numbers; got float64; convert it"),
        ({"official": np.arange(2)}, "official: must hold strings; got int64; convert it"),
        ({"label": np.array([None, "ring"], object)}, "label: must hold strings; got object; convert it"),
        ({"height": np.array(3)}, r"height: must have one dimension; got shape \(\); see docs/data\.md"),
        ({"maps": np.ones((7, 1))}, r"maps: must have one dimension; got shape \(7, 1\)"),
        ({"width": np.array([2, 3, 2])}, "width: must have 2 entries for 2 heights; got 3"),
        ({"offset": np.array([0, 4])}, "offset: must have 3 entries for 2 heights; got 2"),
        ({"lot": np.array(["a"])}, "lot: must have 2 entries for 2 heights; got 1"),
        ({"height": np.array([2, -1])}, "height: must be a number of dies; got -1 for map 1"),
        ({"width": np.array([2**62, 3])}, f"width: must be a number of dies; got {2**62} for map 0"),
        ({"maps": np.ones(9)}, "offset: must run from 0 to the 9 cells of maps; got 7"),
        ({"offset": np.array([1, 4, 7])}, "offset: must run from 0 to the 7 cells of maps; got 1"),
        ({"offset": np.array([0, 9, 7])}, "offset: must run from 0 to the 7 cells of maps; got 9"),
        ({"offset": np.array([0, -4, 7])}, "offset: must run from 0 to the 7 cells of maps; got -4"),
        (
            {"offset": np.array([0, 3, 7])},
            "offset: must give each map .* they let the next one overlap map 0, which is 2x2 and gets 3 cells",
        ),
        (
            {"offset": np.array([0, 5, 7])},
            "offset: must give each map .* they leave a gap after map 0, which is 2x2 and gets 5 cells",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, message):
    path = save_ours(tmp_path / "w.npz", **changes)

    with pytest.raises(DataError, match=rf"w\.npz: {message}"):
        read_npz(path)


def test_offsets_that_run_backwards_are_refused(tmp_path):
    changes = {"offset": np.array([0, 4, 3, 7]), "height": np.array([2, 1, 2]), "width": np.array([2, 1, 2])}
    names = np.array(["a", "b", "c"])

    with pytest.raises(DataError, match=r"they run backwards at map 1, which is 1x1 and gets -1 cells"):
        read_npz(save_ours(tmp_path / "w.npz", label=names, lot=names, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arr_0": np.ones((3, 20))},
            r"must be N maps of shape \(N, height, width\) in arr_0.*got \(3, 20\) and \(3, 8",
        ),
        ({"arr_1": np.ones((2, 8))}, r"must be N maps .* got \(3, 4, 5\) and \(2, 8\)"),
        ({"arr_1": np.ones((3, 9))}, r"must be N maps .* got \(3, 4, 5\) and \(3, 9\)"),
        ({"arr_0": np.array(1)}, r"must be N maps .* got \(\) and \(3, 8\)"),
        ({"arr_1": np.full((3, 8), 2)}, r"arr_1: must be 0 or 1 for each defect; got \[2, .*\] for map 0"),
        ({"arr_1": np.full((3, 8), "a")}, "arr_1: must hold numbers; got <U1"),
    ],
)
def test_arrays_unlike_mixedwm38_are_refused(tmp_path, changes, message):
    path = save_mixed(tmp_path / "m.npz", **changes)

    with pytest.raises(DataError, match=rf"m\.npz: {message}"):
        read_npz(path)


def test_names_of_arrays_cannot_break_the_message(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("a\n" * 99, b"")

    with pytest.raises(DataError, match=r"found '(a\\n){25}'; must have"):
        read_npz(tmp_path / "w.npz")


@pytest.mark.parametrize("number", [0xD800, 0x110000, 0xFFFFFFFF])
def test_a_label_of_no_characters_is_refused(tmp_path, number):
    label = np.frombuffer(np.array([number, 65], "<u4").tobytes(), "<U1")

    with pytest.raises(DataError, match=DAMAGED):
        read_npz(save_ours(tmp_path / "w.npz", label=label))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04N.", b"index,label\n1,none\n" * 99])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "w.npz").write_bytes(content)

    with pytest.raises(DataError, match=rf"w\.npz: {DAMAGED}"):
        read_npz(tmp_path / "w.npz")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"w\.npz: cannot be read \(No such file or directory\)"):
        read_npz(tmp_path / "w.npz")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999, 99999999999999, 99999999999999)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-7,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -7)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (6,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (0, 99999999999999999999)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (7,)}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (7,)}",
        "{'descr': '|u1', 'shape': (7,)}",
        "((((((((((((((((((((((((((((((((((((((((((((((((((",
        "__import__('os').abort()",
    ],
)
def test_a_header_that_claims_other_than_what_follows_is_refused(tmp_path, header):
    path = save_member(tmp_path / "w.npz", npy_bytes(header, bytes(7)))

    with pytest.raises(DataError, match=rf"w\.npz: {DAMAGED}"):
        read_npz(path)


@pytest.mark.parametrize("descr", ["'|O'", "[('a', '|u1')]", "'|V1'", "'<c8'", "('|u1', (1,))"])
def test_arrays_of_objects_and_other_kinds_are_refused_before_they_are_read(tmp_path, descr):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (7,)}}"

    with pytest.raises(DataError, match=r"w\.npz: (maps: must hold numbers; got .+; convert it|damaged)"):
        read_npz(save_member(tmp_path / "w.npz", npy_bytes(header, bytes(7))))


def test_an_unknown_version_of_the_npy_format_is_refused(tmp_path):
    path = save_member(tmp_path / "w.npz", b"\x93NUMPY\x03\x00" + bytes(99))

    with pytest.raises(DataError, match=r"w\.npz: damaged .*\(version 3\.0 of the \.npy format\)"):
        read_npz(path)


def test_a_zip_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("maps.npy", "w") as big,
    ):
        for _ in range(257):
            big.write(bytes(1 << 20))

    with pytest.raises(DataError, match=r"must not unpack to more than 200 times its size; got 269,484,032 bytes from"):
        read_npz(tmp_path / "w.npz")


@pytest.mark.parametrize("save_valid", [save_ours, save_mixed])
def test_mutated_files_are_read_or_refused(tmp_path, mutations, save_valid):
    valid = save_valid(tmp_path / "w.npz").read_bytes()
    path = tmp_path / "mutated.npz"

    for mutated in mutations(valid):
        path.write_bytes(mutated)
        assert accept_or_refuse(path) in (2, "refused")


def test_mutated_headers_are_read_or_refused(tmp_path):
    stream = io.BytesIO()
    np.save(stream, OURS["maps"])
    generator = np.random.default_rng(0)

    for i in range(150):  # inside the zip, whose checksums would hide the reader of headers from most mutations
        mutated = bytearray(stream.getvalue())
        mutated[generator.integers(80)] = generator.integers(256)
        assert accept_or_refuse(save_member(tmp_path / f"{i}.npz", bytes(mutated))) in (2, "refused")


def test_single_arrays_are_read(tmp_path):
    np.save(tmp_path / "w.npy", np.eye(2))

    assert read_npy(tmp_path / "w.npy").tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"damaged or not a \.npy file"),
        (
            npy_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (9,)}", bytes(8)),
            r"damaged or not a \.npy file",
        ),
        (
            npy_bytes("{'descr': '|O', 'fortran_order': False, 'shape': (8,)}", bytes(8)),
            "must hold numbers; got object",
        ),
    ],
)
def test_single_arrays_that_are_damaged_or_of_objects_are_refused(tmp_path, content, message):
    (tmp_path / "w.npy").write_bytes(content)

    with pytest.raises(DataError, match=rf"w\.npy: {message}"):
        read_npy(tmp_path / "w.npy")
