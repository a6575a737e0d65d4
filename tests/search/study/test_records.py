import pytest

from search.errors import ConfigError
from search.study.provenance import record_attempt
from search.study.records import find_study, lock_folder, write_atomically

DATA = {
    "source": "made up",
    "synthetic": True,
    "classes": ["Center", "Edge-Ring", "none"],
    "fingerprint": "aaa",
    "split_fingerprint": "bbb",
    "leak_check": "nothing leaks",
    "wafers": {"train": 1, "val": 1, "test": 1},
}


@pytest.fixture
def started(folder, make_config, open_study):
    """A study that was started."""
    study = open_study(folder, make_config(trials=3))
    record_attempt(folder, study.config, DATA, space_text="name: fake\n", device="none")
    return study


def test_a_write_leaves_the_old_file_or_the_new_one_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "file", "old")
    write_atomically(tmp_path / "file", "new")

    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "new"


def test_an_unwritable_place_is_said(tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(ConfigError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "below", "text")
    with pytest.raises(ConfigError, match="cannot be written"):
        lock_folder(tmp_path / "file" / "below")


def test_a_study_is_found_by_folder_or_by_name_and_others_are_named(started):
    results = started.folder.path.parent

    assert find_study("a-study", results=results).path == started.folder.path
    assert find_study(str(started.folder.path)).path == started.folder.path
    with pytest.raises(ConfigError, match=r"b-study: no study there; known: .*a-study"):
        find_study("b-study", results=results)
