"""Which reader a path leads to, and which paths lead to none."""

import gzip
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import DataError
from data_pipeline.sources.reading import read_source

KNOWN = (
    r"\.npz, \.parquet, \.csv, \.csv\.gz, \.pkl, \.pickle, \.zip, "
    r"or a folder of \.png or \.npy maps \(labelled: in class-named folders\)"
)
TABLE = b"lot,wafer,x,y,bin,label\nlot 7,1,0,0,2,arc\n"


def save_npz(path):
    with path.open("wb") as file:  # np.savez would add a suffix to one in capitals
        one = np.array([1])
        np.savez(
            file, maps=one + 1, offset=np.array([0, 1]), height=one, width=one, label=np.array(["arc"]),
            lot=np.array(["lot 7"]),
        )  # fmt: skip


def save_parquet(path):
    pq.write_table(pa.table({"map": [b"\x02"], "height": [1], "width": [1], "label": ["arc"], "lot": ["lot 7"]}), path)


def save_folder(path):
    (path / "arc").mkdir(parents=True)
    np.save(path / "arc" / "lot7.npy", np.array([[2]]))


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("w.npz", save_npz),
        ("W.NPZ", save_npz),
        ("w.parquet", save_parquet),
        ("w.csv", lambda path: path.write_bytes(TABLE)),
        ("w.v2.csv.gz", lambda path: path.write_bytes(gzip.compress(TABLE))),
        ("W.CSV.GZ", lambda path: path.write_bytes(gzip.compress(TABLE))),
        ("maps", save_folder),
        ("maps.npz", save_folder),
    ],
)
def test_every_kind_of_source_gives_the_same_wafer(tmp_path, name, save):
    save(tmp_path / name)

    found = read_source(tmp_path / name)

    assert (found.cells.tolist(), found.labels, found.lots) == ([2], ["arc"], ["lot 7"])


@pytest.mark.parametrize("name", ["w.pkl", "w.pickle", "w.zip"])
def test_pickles_are_given_to_their_reader(tmp_path, name):
    (tmp_path / name).write_bytes(b"no pickle at all")

    with pytest.raises(DataError, match=rf"{name}: .*damaged"):
        read_source(tmp_path / name)


@pytest.mark.parametrize(("name", "suffix"), [("w.txt", r"'\.txt'"), ("wafers", "''"), ("w.gz", r"'\.gz'")])
def test_an_unknown_kind_is_refused_with_all_that_are_known(tmp_path, name, suffix):
    (tmp_path / name).write_text("text")

    with pytest.raises(DataError, match=rf"{name}: unknown kind of file {suffix}; known: {KNOWN}"):
        read_source(tmp_path / name)


@pytest.mark.parametrize("name", ["w.npz", "w\0.npz"])
def test_a_missing_file_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=rf"no such file; give one of {KNOWN}"):
        read_source(tmp_path / name)


def test_an_impossible_path_is_refused(tmp_path):
    with pytest.raises(DataError, match=rf"cannot be read \(File name too long\); known: {KNOWN}"):
        read_source(tmp_path / ("w" * 300))


@pytest.mark.parametrize("name", ["w.npz", "w.parquet", "w.csv", "w.csv.gz", "w.pkl", "w.zip"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"")

    with pytest.raises(DataError, match=rf"{name}: is empty; give one of {KNOWN}"):
        read_source(tmp_path / name)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "w.csv")

    with pytest.raises(
        DataError, match=rf"w\.csv: must be a file or a folder; got a device or a pipe; give one of {KNOWN}"
    ):
        read_source(tmp_path / "w.csv")


@pytest.mark.parametrize("name", ["w.npz", "w.parquet", "w.csv", "w.pkl"])
def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"something")

    def refuse(*args, **kwargs):
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)  # permissions do not hold for root, who may run the tests
    with pytest.raises(DataError, match=rf"{name}: may not be read; check its permissions; known: {KNOWN}"):
        read_source(tmp_path / name)
