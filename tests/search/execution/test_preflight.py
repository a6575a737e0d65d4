"""What keeps a node from training, told with its numbers."""

import time
from pathlib import Path

import pytest

from search.execution.preflight import code_to_ship, compare, look_around
from search.study.records import StudyFolder

HERE = StudyFolder(Path("/mnt/results/study"))
STORE = StudyFolder(Path("/home/me/results/study"), "s3://bucket/results/study")


@pytest.fixture
def node(tmp_path):
    """A node on which all is well."""
    place = tmp_path / "token"
    place.write_text("token")
    return look_around(str(place), str(tmp_path / "own"))


@pytest.fixture
def problems(node):
    """What is wrong with it once something is changed."""
    mine = dict(node["versions"])
    return lambda folder=HERE, **changes: list(compare(node | changes, mine, "token", folder))


def test_a_good_node_has_no_problem_and_keeps_no_file(problems, tmp_path):
    assert problems() == []
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_versions_that_change_results_must_be_the_same(problems, node):
    versions = node["versions"]
    assert {"Python", "ray", "torch", "pydantic"} <= versions.keys()

    assert problems(versions=versions | {"torch": "1.0"}) == [
        f"has torch 1.0, the driver {versions['torch']}; a trial must give the same wherever it runs"
    ]
    assert problems(versions=versions | {"Python": "3.9"})[0].startswith("has Python 3.9, the driver 3.1")
    assert problems(versions=versions | {"pydantic": "2.7.0"}) == []
    assert problems(versions=versions | {"pyarrow": ""}) == ["has no pyarrow; install what the driver has there"]


def test_clock_and_disk_are_told_with_numbers(problems):
    assert problems(time=time.time() + 3600)[0].startswith("its clock is +3600 s off")
    assert problems(disk=2**29, scratch="/tmp") == ["0.50 GiB are free in /tmp; a slot needs 1 GiB"]


def test_what_cannot_be_reached_is_told_with_what_to_do(problems):
    [unseen] = problems(read="")
    assert unseen == (
        "does not see /mnt/results/study, where the search runs; use --results with a path that every node has "
        "mounted, or with the address of a store, such as s3://bucket/results"
    )
    assert problems(STORE, read=None, problem="timeout") == ["cannot read from s3://bucket/results/study (timeout)"]
    assert problems(STORE, problem="denied") == ["cannot write to s3://bucket/results/study (denied)"]
    assert problems(problem="read-only") == ["cannot write to /mnt/results/study (read-only)"]


def test_a_node_that_may_read_but_not_write_says_so(tmp_path):
    (tmp_path / "token").write_text("token")
    (tmp_path / "file").touch()

    found = look_around(str(tmp_path / "token"), str(tmp_path / "file" / "own"))

    assert found["read"] == "token"
    assert "cannot be written" in found["problem"]


def test_the_code_goes_along_and_no_secret_does(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://here")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hidden")

    shipped = code_to_ship()

    assert sorted(Path(path).name for path in shipped["py_modules"]) == ["data_pipeline", "models", "search"]
    assert shipped["env_vars"]["AWS_ENDPOINT_URL"] == "http://here"
    assert "hidden" not in str(shipped)
