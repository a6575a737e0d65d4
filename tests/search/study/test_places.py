"""Files in stores: written as a whole, read, listed, tried again."""

import re
import time

import pytest

from search.errors import ConfigError
from search.study import places
from search.study.places import age_of, check_address, list_places, read_place, remove_place, write_place

S3 = pytest.param("s3://", marks=pytest.mark.slow)  # starts a server


@pytest.fixture(params=["path", "file://", S3])
def root(request, tmp_path):
    if request.param == "s3://":
        return request.getfixturevalue("s3")
    return str(tmp_path) if request.param == "path" else f"file://{tmp_path}"


def test_what_is_written_is_read_and_gone_once_removed(root):
    place = f"{root}/study/checkpoints/trial-0001.pt"

    assert read_place(place) is None
    write_place(place, b"old")
    write_place(place, b"new" * 1000)

    assert read_place(place) == b"new" * 1000
    remove_place(place)
    remove_place(place)
    assert read_place(place) is None


def test_what_cannot_be_removed_stays_and_nobody_hears_of_it(tmp_path):
    (tmp_path / "file").touch()

    for place in (tmp_path / "file" / "x", tmp_path):
        remove_place(str(place))

    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_store_that_does_not_say_how_old_a_file_is_is_named(tmp_path, monkeypatch):
    write_place(f"file://{tmp_path}/x", b"1")

    def refuse(store, path, content):
        raise OSError("read-only")

    monkeypatch.setattr(places, "_put", refuse)

    with pytest.raises(ConfigError, match=r"/x: cannot be looked at \(read-only\)"):
        age_of(f"file://{tmp_path}/x", patience_s=0)


@pytest.mark.parametrize("scheme", ["file://", S3])
def test_a_store_lists_what_lies_below_an_address_and_knows_how_old_it_is(scheme, tmp_path, request):
    address = f"file://{tmp_path}/x" if scheme == "file://" else f"{request.getfixturevalue('s3')}/x"
    assert list_places(address) == []
    for name in ("a", "b/c"):
        write_place(f"{address}/{name}", b"1")

    assert list_places(address) == ["a", "b/c"]
    assert age_of(f"{address}/none") is None
    assert 0 <= age_of(f"{address}/a") < 60
    assert list_places(address) == ["a", "b/c"]


def test_a_store_that_answers_late_is_tried_again(tmp_path, monkeypatch):
    answers = iter([OSError("away"), OSError("still away")])
    put = places._put

    def answer(*arguments):
        if error := next(answers, None):
            raise error
        put(*arguments)

    monkeypatch.setattr(places, "_put", answer)
    monkeypatch.setattr(places, "_FIRST_PAUSE_S", 0.01)

    write_place(f"file://{tmp_path}/late", b"1")

    assert read_place(f"file://{tmp_path}/late") == b"1"


def test_one_that_never_answers_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    start = time.monotonic()

    with pytest.raises(ConfigError, match=re.escape(f"file://{tmp_path}/file/x: cannot be written")):
        write_place(f"file://{tmp_path}/file/x", b"1", patience_s=0.2)

    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:secret@bucket/x",  # pragma: allowlist secret
        "s3://bucket/x?secret_key=1",
        "s3://bucket/a b",
        "s3://b#c",
    ],
)
def test_an_address_holds_a_place_and_nothing_else(address):
    with pytest.raises(ConfigError, match="without a key, a password or options") as raised:
        check_address(address, option="--results")

    assert "secret" not in str(raised.value)


def test_an_unknown_kind_of_store_is_refused():
    with pytest.raises(ConfigError, match=r"--results nope://x: cannot be opened \(Protocol not known: nope\)"):
        check_address("nope://x", option="--results")


def test_a_file_in_a_mounted_store_is_never_seen_half_written(tmp_path, monkeypatch):
    write_place(f"file://{tmp_path}/x", b"old")

    def tear(store, path, content):
        with store.open_output_stream(path) as stream:
            stream.write(content[:1])
        raise OSError("torn")

    monkeypatch.setattr(places, "_put", tear)
    with pytest.raises(ConfigError, match="torn"):
        write_place(f"file://{tmp_path}/x", b"new", patience_s=0)

    assert read_place(f"file://{tmp_path}/x") == b"old"
