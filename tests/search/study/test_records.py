"""How a study's files are written, read, guarded and removed."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import ConfigError
from search.study.records import (
    StudyFolder,
    append_line,
    cut_torn_line,
    lock_folder,
    read_json,
    read_lines,
    remove_if_unstarted,
    to_line,
    write_atomically,
    write_json,
)

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["a\u2028b", "a\x85b", "a\nb", "a\r\nb", "é"]
)
rows = st.dictionaries(texts, plain | texts | st.lists(texts, max_size=3), max_size=4)


def make_study(path, *, started=True):
    folder = StudyFolder(path)
    write_json(folder.provenance, {"format": 1}) if started else path.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("content", ["Wafer né\n", b"\x00\xff\n", ""])
def test_what_is_written_is_there_with_its_folders_and_nothing_else(tmp_path, content):
    path = tmp_path / "a" / "b" / "file"

    write_atomically(path, content)

    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("a much longer text than the new one")

    write_atomically(path, "new")

    assert path.read_text() == "new"


def test_whoever_reads_meanwhile_keeps_the_old_content(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    with path.open() as reader:
        write_atomically(path, "new")
        seen = reader.read()

    assert seen == "old"


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()

    with pytest.raises(ConfigError, match=r"taken: cannot be written \(Is a directory\)"):
        write_atomically(tmp_path / "taken", "new")

    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_place_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")

    with pytest.raises(ConfigError, match=r"file/a/b: cannot be written \(Not a directory\)"):
        write_atomically(tmp_path / "file" / "a" / "b", "new")

    assert (tmp_path / "file").read_text() == "mine"


def test_json_without_a_number_for_nan_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})

    assert read_json(tmp_path / "x.json") == {"a": 1}


@given(value=rows)
def test_json_is_read_back(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "x.json"

    write_json(path, value)

    assert read_json(path) == value


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b'{"a": 1', "Expecting"), (b"", "Expecting value"), (b"\xff\xfe\x00", "can't decode byte")],
)
def test_a_damaged_json_file_is_named(tmp_path, content, reason):
    path = tmp_path / "x.json"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=rf"x\.json: cannot be read \(.*{reason}"):
        read_json(path)


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"x\.json: cannot be read \(.*No such file"):
        read_json(tmp_path / "x.json")


@given(written=st.lists(rows, min_size=1, max_size=4))
def test_lines_are_read_back(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"

    for row in written:
        append_line(path, row)

    assert list(read_lines(path)) == written
    assert [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] == written


@given(row=rows)
def test_a_row_is_one_line(row):
    assert to_line(row).count("\n") == 1


@given(row=rows, share=st.floats(0, 0.999))
def test_a_torn_last_line_is_left_out_and_can_be_cut(tmp_path_factory, row, share):
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    line = to_line(row).encode()
    path.write_bytes(line + line[: int(share * len(line))])

    found = list(read_lines(path))
    cut_torn_line(path)

    assert found == list(read_lines(path)) == [row]
    assert path.read_bytes() == line


@pytest.mark.parametrize(("content", "left"), [(b"", b""), (b"a", b""), (b"a\n", b"a\n"), (b"a\n\nb", b"a\n\n")])
def test_what_stands_behind_the_last_newline_is_cut(tmp_path, content, left):
    path = tmp_path / "x"
    path.write_bytes(content)

    cut_torn_line(path)

    assert path.read_bytes() == left


def test_of_a_missing_file_there_is_nothing_to_read_or_cut(tmp_path):
    cut_torn_line(tmp_path / "x")

    assert list(read_lines(tmp_path / "x")) == []
    assert not (tmp_path / "x").exists()


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')

    with pytest.raises(ConfigError, match=r"x\.jsonl:2: is damaged \(Expecting value.*\); mend or remove the line"):
        list(read_lines(path))


def test_no_two_files_of_a_study_share_a_place(tmp_path):
    folder = StudyFolder(tmp_path / "mine")
    values = [getattr(folder, name) for name, member in vars(StudyFolder).items() if isinstance(member, property)]

    paths = [value for value in values if isinstance(value, Path)]
    paths += [folder.checkpoint(3), folder.checkpoint(12345), folder.failure(3)]

    assert len(set(paths)) == len(paths) >= 14
    assert all(path.is_relative_to(folder.path) for path in paths)


def test_a_study_that_could_not_start_leaves_no_trace(tmp_path):
    folder = StudyFolder(tmp_path / "mine")
    with lock_folder(folder.path):
        folder.journal.touch()
        remove_if_unstarted(folder)

    assert not folder.path.exists()


def test_a_study_that_started_once_is_left_alone(tmp_path):
    folder = make_study(tmp_path / "mine")
    folder.journal.touch()

    remove_if_unstarted(folder)

    assert folder.journal.exists()
    assert folder.provenance.exists()


def test_a_study_that_has_trials_is_left_alone(tmp_path):
    folder = make_study(tmp_path / "mine", started=False)
    folder.journal.touch()
    folder.trials.touch()

    remove_if_unstarted(folder)

    assert folder.journal.exists()


def test_files_that_are_not_ours_are_never_removed(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    folder = StudyFolder(tmp_path)
    with lock_folder(folder.path):
        folder.journal.touch()
        remove_if_unstarted(folder)

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_lock_can_be_taken_again_once_it_is_let_go(tmp_path):
    lock_folder(tmp_path / "mine").close()

    with lock_folder(tmp_path / "mine") as lock, pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
        lock_folder(tmp_path / "mine")

    assert lock.closed


def test_the_name_of_an_earlier_holder_does_not_stay(tmp_path):
    (tmp_path / ".lock").write_text("process 123456789012345 on a machine with a very long name indeed")

    with lock_folder(tmp_path):
        holder = (tmp_path / ".lock").read_text()

    assert holder.startswith(f"process {os.getpid()} on ")
    assert "123456789012345" not in holder


def test_a_folder_below_a_file_cannot_be_locked(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"file/mine: cannot be written \(Not a directory\)"):
        lock_folder(tmp_path / "file" / "mine")
