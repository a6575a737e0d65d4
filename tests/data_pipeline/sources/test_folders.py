"""Folders of images and arrays: labels and lots from names, levels of grey, and what is refused."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.errors import DataError
from data_pipeline.sources.folders import read_folders
from data_pipeline.sources.raw import ILLEGAL

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 4))
MAPS = SHAPES.flatmap(
    lambda shape: st.lists(
        st.lists(st.integers(0, 2), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    )
)


def save_png(path, levels, mode="L"):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.array(levels, np.uint8), "L").convert(mode).save(path)
    return path


def save_npy(path, values, kind=np.uint8):
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.array(values, kind))
    return path


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def save_huge_png(path, width, height):
    path.parent.mkdir(exist_ok=True)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b""))
    return path


def maps_of(found):
    cells = np.split(found.cells, found.offsets[1:-1])
    return [
        one.reshape(height, width).tolist()
        for one, height, width in zip(cells, found.heights, found.widths, strict=True)
    ]


def test_folders_name_the_classes_and_files_the_lots(tmp_path):
    save_png(tmp_path / "Center" / "LOT12_wafer3.png", [[0, 1], [2, 1]])
    save_npy(tmp_path / "Ring" / "a.npy", [[1, 2]])
    save_npy(tmp_path / "Ring" / "pilot7.npy", [[1]])

    found = read_folders(tmp_path)

    assert maps_of(found) == [[[0, 1], [2, 1]], [[1, 2]], [[1]]]
    assert found.labels == ["Center", "Ring", "Ring"]
    assert found.lots == ["lot 12", "Ring/a.npy", "Ring/pilot7.npy"]
    assert found.official == [None] * 3
    assert found.source == str(tmp_path)
    assert found.left_out == {}


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled", "UNKNOWN"])
def test_some_folders_hold_wafers_without_a_label(tmp_path, name):
    save_npy(tmp_path / name / "a.npy", [[1]])

    assert read_folders(tmp_path).labels == [None]


@given(
    wafers=st.dictionaries(
        st.text("abcdef", min_size=1, max_size=8), st.tuples(MAPS, st.sampled_from(["L", "P", "npy"])), min_size=1
    )
)
def test_reading_gives_the_wafers_that_were_written(tmp_path_factory, wafers):
    folder = tmp_path_factory.mktemp("folders")
    writers = {"L": (save_png, ".png"), "P": (save_png, ".png"), "npy": (save_npy, ".npy")}
    for name, (one, form) in wafers.items():
        write, suffix = writers[form]
        write(folder / name / f"w{suffix}", one, *([form] if suffix == ".png" else []))

    found = read_folders(folder)

    assert found.labels == sorted(wafers)
    assert maps_of(found) == [wafers[name][0] for name in sorted(wafers)]


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize("levels", [[[0, 1, 2]], [[0, 127, 255]], [[0, 128, 255]]])
def test_levels_of_grey_become_codes(tmp_path, mode, levels):
    save_png(tmp_path / "a" / "w.png", levels, mode)

    assert maps_of(read_folders(tmp_path)) == [[[0, 1, 2]]]


def test_images_of_two_levels_hold_failures_alone(tmp_path):
    save_png(tmp_path / "a" / "w.png", [[0, 255]], "1")

    assert maps_of(read_folders(tmp_path)) == [[[0, 2]]]


def test_sixteen_bits_are_read_too(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.array([[0, 1, 2]], np.uint16)).save(tmp_path / "a" / "w.png")

    assert maps_of(read_folders(tmp_path)) == [[[0, 1, 2]]]


def test_other_levels_are_illegal(tmp_path):
    save_png(tmp_path / "a" / "w.png", [[0, 1, 126, 127, 255]])

    assert maps_of(read_folders(tmp_path)) == [[[0, ILLEGAL, ILLEGAL, 1, 2]]]


def test_colours_are_illegal(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.array([[[1, 1, 1], [255, 0, 0]]], np.uint8)).save(tmp_path / "a" / "w.png")

    assert (read_folders(tmp_path).cells == ILLEGAL).all()


def test_other_values_of_arrays_are_illegal(tmp_path):
    save_npy(tmp_path / "a" / "w.npy", [[0, 1.5, np.nan, 2]], np.float64)

    assert maps_of(read_folders(tmp_path)) == [[[0, ILLEGAL, ILLEGAL, 2]]]


def test_other_files_are_left_out_and_counted(tmp_path):
    save_npy(tmp_path / "a" / "w.npy", [[1]])
    save_npy(tmp_path / "a" / ".w.npy", [[1]])
    save_npy(tmp_path / "loose.npy", [[1]])
    (tmp_path / "a" / "notes.txt").write_text("text")
    (tmp_path / "a" / "deeper.png").mkdir()
    (tmp_path / "readme.md").write_text("text")
    save_npy(tmp_path / ".hidden" / "w.npy", [[1]])

    found = read_folders(tmp_path)

    assert len(found) == 1
    assert found.left_out == {"another kind of file": 5, "in no class folder": 1}


def test_maps_in_no_folder_at_all_have_no_label(tmp_path):
    save_npy(tmp_path / "lot3_w2.npy", [[1]])
    save_png(tmp_path / "w.png", [[1, 2]])
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "tester.txt").write_text("text")

    found = read_folders(tmp_path)

    assert maps_of(found) == [[[1]], [[1, 2]]]
    assert found.labels == [None, None]
    assert found.lots == ["lot 3", "w.png"]
    assert found.left_out == {"another kind of file": 1}


@pytest.mark.parametrize("names", [[], [".w.npy"], ["w.txt"], ["a/w.txt"], [".a/w.npy"], ["a/.w.npy"]])
def test_a_folder_without_a_map_is_refused(tmp_path, names):
    folder = tmp_path / "maps"
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")

    with pytest.raises(
        DataError,
        match=r"maps: must have \.png or \.npy maps in it, or a folder of them for each class, like "
        r"maps/Center/lot12_wafer3\.png; got \d folders and no map",
    ):
        read_folders(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"maps: cannot be read \(No such file or directory\)"):
        read_folders(tmp_path / "maps")


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_images_that_are_none_are_refused(tmp_path, content):
    save_png(tmp_path / "a" / "w.png", [[1]]).write_bytes(content)

    with pytest.raises(DataError, match=r"a/w\.png: damaged or not a \.png file \(.+\); get it again"):
        read_folders(tmp_path)


def test_truncated_images_are_refused(tmp_path):
    path = save_png(tmp_path / "a" / "w.png", np.random.default_rng(0).integers(3, size=(50, 50)))
    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(DataError, match=r"a/w\.png: damaged or not a \.png file \(.+\); get it again"):
        read_folders(tmp_path)


@pytest.mark.parametrize(
    ("width", "height", "got"),
    [(2001, 1, "1x2,001"), (10_000, 10_000, "10,000x10,000"), (60_000, 60_000, "far more")],
)
def test_huge_images_are_refused_before_they_are_decoded(tmp_path, width, height, got):
    save_huge_png(tmp_path / "a" / "w.png", width, height)

    with pytest.raises(DataError, match=rf"a/w\.png: must have at most 2,000x2,000 dies; got {got}"):
        read_folders(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones(3), r"must have two dimensions; got shape \(3,\)"),
        (np.ones((1, 2, 3)), r"must have two dimensions; got shape \(1, 2, 3\)"),
        (np.ones((1, 2001), np.uint8), "must have at most 2,000x2,000 dies; got 1x2,001"),
        (np.array([["a"]]), "must hold numbers; got <U1; convert it"),
        (np.array([[None]]), "must hold numbers; got object; convert it"),
    ],
)
def test_arrays_that_are_no_maps_are_refused(tmp_path, values, message):
    save_npy(tmp_path / "a" / "w.npy", values, values.dtype)

    with pytest.raises(DataError, match=rf"a/w\.npy: {message}"):
        read_folders(tmp_path)


def test_truncated_arrays_are_refused(tmp_path):
    path = save_npy(tmp_path / "a" / "w.npy", [[1, 2]])
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(DataError, match=r"a/w\.npy: damaged or not a \.npy file \(.+\); get it again"):
        read_folders(tmp_path)


def test_folder_names_that_are_not_utf_8_lose_what_is_no_character(tmp_path):
    save_npy(tmp_path / "R\udcff" / "w.npy", [[1]])

    found = read_folders(tmp_path)

    assert (found.labels, found.lots) == (["R?"], ["R?/w.npy"])


def accept_or_refuse(path):
    try:
        return len(read_folders(path)) == 1
    except DataError:
        return "refused"


@pytest.mark.parametrize("form", ["L", "P", "npy"])
def test_mutated_files_are_read_or_refused(tmp_path, mutations, form):
    levels = np.random.default_rng(0).integers(3, size=(8, 8))
    path = (
        save_npy(tmp_path / "a" / "w.npy", levels)
        if form == "npy"
        else save_png(tmp_path / "a" / "w.png", levels, form)
    )
    valid = path.read_bytes()

    for mutated in mutations(valid):
        path.write_bytes(mutated)
        assert accept_or_refuse(tmp_path)
