"""A study is found by its folder, its name, or the address of its copy."""

import pytest

from search.errors import ConfigError
from search.study.finding import find_study, locate_study
from search.study.places import write_place
from search.study.records import RESULTS, StudyFolder, write_json


@pytest.fixture
def store(tmp_path):
    return f"file://{tmp_path}/store"


def test_a_path_is_where_the_study_lies(tmp_path):
    assert locate_study(str(tmp_path), "one") == StudyFolder(tmp_path / "one")


def test_with_a_store_the_original_lies_below_results_here(store):
    assert locate_study(f"{store}/", "one") == StudyFolder((RESULTS / "one").resolve(), f"{store}/one")
    with pytest.raises(ConfigError, match="--results nope://x: cannot be opened"):
        locate_study("nope://x", "one")


def test_a_study_remembers_its_copy(tmp_path, store):
    write_json(tmp_path / "one" / "provenance.json", {"copy": f"{store}/one"})
    write_json(tmp_path / "two" / "provenance.json", {})

    assert find_study("one", results=tmp_path).remote == f"{store}/one"
    assert find_study("two", results=tmp_path).remote == ""


def test_a_study_that_is_not_there_is_named_with_those_that_are(tmp_path):
    for name in ("one", "two"):
        write_json(tmp_path / name / "provenance.json", {})
    (tmp_path / "unstarted").mkdir()

    with pytest.raises(ConfigError, match=r"^three: no study there; known: \S*/one, \S*/two$"):
        find_study("three", results=tmp_path)


@pytest.mark.parametrize("asked", ["three", "", "../x"])
def test_without_any_study_that_is_said(tmp_path, asked):
    with pytest.raises(ConfigError, match=rf"^{asked}: no study there; known: none in .*/results/$"):
        find_study(asked, results=tmp_path / "results")


def test_a_study_is_fetched_by_the_address_of_its_copy(tmp_path, store):
    for name, content in (("provenance.json", b"{}"), ("best.yaml", b"best"), ("study.journal", b"{}\n")):
        write_place(f"{store}/one/{name}", content)

    found = find_study(f"{store}/one", results=tmp_path / "here")

    assert found == StudyFolder(tmp_path / "here" / "one", f"{store}/one")
    assert found.best.read_bytes() == b"best"


@pytest.mark.parametrize(
    ("name", "said"), [("none", "no study there"), ("a b", "without a key"), ("..", "must end in")]
)
def test_an_address_without_a_study_is_refused(tmp_path, store, name, said):
    with pytest.raises(ConfigError, match=said):
        find_study(f"{store}/{name}", results=tmp_path / "here")
    assert not (tmp_path / "here").exists()
