"""The copy of a study in a store: kept up, taken on elsewhere, never by two at once."""

import json
import os
import shutil
import socket
import time

import pytest

from search.errors import ConfigError
from search.study import mirror
from search.study.mirror import Mirror, check_store, fetch
from search.study.places import list_places, read_place, remove_place, write_place
from search.study.records import StudyFolder
from search.testing import drive, quality_by_lr


@pytest.fixture
def address(tmp_path):
    return f"file://{tmp_path}/store/study"


@pytest.fixture
def folder(tmp_path, address):
    return StudyFolder(tmp_path / "here" / "study", address)


@pytest.fixture
def elsewhere(tmp_path, address):
    """The same study for a driver with another disk."""
    return StudyFolder(tmp_path / "there" / "study", address)


@pytest.fixture
def said():
    return []


@pytest.fixture
def keep(said):
    """Keep a copy, and collect what is said meanwhile."""
    return lambda folder: Mirror(folder, on_trouble=said.append, on_lost=lambda reason: said.append(f"LOST {reason}"))


@pytest.fixture
def search_some(make_config, open_study):
    def search(folder, *, trials=6, max_steps=None):
        with open_study(folder, make_config(trials=trials)) as study:
            drive(study, quality_of=quality_by_lr, max_steps=max_steps)
        return study

    return search


def files(folder):
    return {
        path.relative_to(folder.path).as_posix(): path.read_bytes()
        for path in folder.path.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.parent.name != "checkpoints"
    }


def values(study):
    return [(record.number, record.status, record.values) for record in study.records.values()]


def test_a_driver_on_another_disk_goes_on_where_the_first_was(folder, elsewhere, keep, search_some, said):
    with keep(folder):
        search_some(folder, max_steps=9)
    with keep(elsewhere):
        assert files(elsewhere) == files(folder)
        there = search_some(elsewhere)
    with keep(folder):  # and back again
        assert files(folder) == files(elsewhere)

    assert values(there) == values(search_some(elsewhere))
    assert there.is_judged
    assert said == []


def test_a_copy_that_fell_behind_loses_reports_and_nothing_else(folder, elsewhere, keep, search_some):
    kept = keep(folder)
    with kept:
        search_some(folder, max_steps=5)
        kept.copy()
        search_some(folder, max_steps=4)
        kept.copy = lambda **_: None  # leave as a killed driver does

    with keep(elsewhere):
        study = search_some(elsewhere)

    assert study.is_judged
    assert sorted(study.records) == list(range(len(study.records)))


def test_between_any_two_files_of_a_copy_it_can_be_taken_on(folder, elsewhere, keep, search_some, monkeypatch):
    """Whatever was written when a driver vanished: journal and rows agree, or the journal is older."""
    kept = keep(folder)
    with kept:
        search_some(folder, max_steps=5)
        kept.copy()
        search_some(folder, max_steps=4)
        written = []
        monkeypatch.setattr(mirror, "write_place", lambda place, content, **_: written.append((place, content)))
        kept.copy()
        monkeypatch.undo()
        kept.copy = lambda **_: None
    assert [place.rpartition("/")[2] for place, _ in written][-1] == "study.journal"
    assert "trials.jsonl" in [place.rpartition("/")[2] for place, _ in written[:-1]]

    for place, content in written:
        write_place(place, content)
        shutil.rmtree(elsewhere.path, ignore_errors=True)
        fetch(elsewhere)
        assert search_some(elsewhere, max_steps=0).records


def test_a_confirmation_whose_journal_was_not_copied_yet_begins_anew_elsewhere(folder, elsewhere, keep, search_some):
    """The rows are copied first: a driver that vanished in between leaves some that no journal knows."""
    with keep(folder):
        search_some(folder, max_steps=5)
    write_place(f"{folder.remote}/confirm/trials.jsonl", folder.trials.read_bytes())

    fetch(elsewhere)

    assert files(elsewhere) == files(folder) | {"confirm/trials.jsonl": b""}


def test_two_disks_that_went_different_ways_are_refused(folder, elsewhere, keep, search_some):
    with keep(folder):
        search_some(folder, max_steps=5)
    shutil.copytree(folder.path, elsewhere.path)
    search_some(elsewhere, trials=8)
    search_some(folder, trials=7, max_steps=3)
    with keep(folder):
        pass

    with pytest.raises(ConfigError, match="have gone different ways; remove or rename one of them"), keep(elsewhere):
        pass


def test_a_half_written_line_at_the_end_of_a_copy_is_no_difference(folder, keep, search_some, address):
    with keep(folder):
        search_some(folder, max_steps=5)
    write_place(f"{address}/study.journal", folder.journal.read_bytes() + b'{"op_code": 4, "half')

    with keep(folder):
        search_some(folder)
    assert read_place(f"{address}/study.journal") == folder.journal.read_bytes()


def test_a_second_driver_is_refused_while_the_first_gives_signs_of_life(folder, elsewhere, keep, address, monkeypatch):
    with keep(folder), pytest.raises(ConfigError) as raised, keep(elsewhere):
        pass

    assert f"process {os.getpid()} on {socket.gethostname()} is working on this study" in str(raised.value)
    with keep(elsewhere):  # the first has left
        pass
    write_place(f"{address}/driver.json", json.dumps({"driver": "process 7 on another-machine", "id": "x"}).encode())
    with pytest.raises(ConfigError, match="process 7 on another-machine"), keep(folder):
        pass
    monkeypatch.setattr(mirror, "_GONE_S", -1.0)
    with keep(folder):
        pass


def test_a_driver_killed_on_this_machine_need_not_be_waited_for(folder, keep, address):
    gone = {"driver": f"process 999999999 on {socket.gethostname()}", "id": "x"}
    write_place(f"{address}/driver.json", json.dumps(gone).encode())

    with keep(folder):
        pass


def test_a_driver_that_was_cut_off_lets_go_of_a_study_that_another_has_taken(
    folder, keep, address, said, monkeypatch, search_some
):
    monkeypatch.setattr(mirror, "_EVERY_S", 0.05)
    with keep(folder):
        other = json.dumps({"driver": "process 7 on another-machine", "id": "x"}).encode()
        write_place(f"{address}/driver.json", other)
        end = time.monotonic() + 20
        while not said and time.monotonic() < end:
            time.sleep(0.02)
        search_some(folder, max_steps=3)

    assert said == ["LOST process 7 on another-machine has taken this study over"]
    assert list_places(address) == ["driver.json"]  # nothing of ours in it
    assert read_place(f"{address}/driver.json") == other


def test_a_driver_that_slept_while_another_took_over_and_finished_writes_nothing(
    folder, elsewhere, keep, address, said, monkeypatch, search_some
):
    monkeypatch.setattr(mirror, "_EVERY_S", 0.05)
    with keep(folder):
        search_some(folder, max_steps=3)
        remove_place(f"{address}/driver.json")  # as the other has on leaving
        end = time.monotonic() + 20
        while not said and time.monotonic() < end:
            time.sleep(0.02)
        copied = {place: read_place(f"{address}/{place}") for place in list_places(address)}
        search_some(folder)

    assert said == ["LOST another driver, which has finished since, has taken this study over"]
    assert {place: read_place(f"{address}/{place}") for place in list_places(address)} == copied


def test_the_last_copy_is_not_made_over_that_of_another_driver(folder, keep, address, said, search_some):
    other = {"driver": "process 7 on another-machine", "id": "x"}
    with keep(folder):  # for less time than until its second sign of life
        search_some(folder, max_steps=3)
        write_place(f"{address}/driver.json", json.dumps(other).encode())

    assert said == ["WARNING: process 7 on another-machine has taken this study over; nothing more of it is copied"]
    assert list_places(address) == ["driver.json"]


def test_a_driver_that_was_taken_for_gone_during_its_last_copy_leaves_the_other_alone(folder, keep, address):
    other = json.dumps({"driver": "process 7 on another-machine", "id": "x"}).encode()
    with keep(folder) as kept:
        kept.copy = lambda **_: write_place(f"{address}/driver.json", other)

    assert read_place(f"{address}/driver.json") == other


def test_between_two_files_of_a_long_copy_a_driver_notices_that_it_was_replaced(
    folder, keep, address, search_some, monkeypatch
):
    with keep(folder) as kept:
        search_some(folder, max_steps=3)
        write_place(
            f"{address}/driver.json", json.dumps({"driver": "process 7 on another-machine", "id": "x"}).encode()
        )
        monkeypatch.setattr(mirror, "_EVERY_S", -1.0)
        kept.copy()

    assert list_places(address) == ["driver.json"]


def test_signs_of_life_go_on_while_copies_rest(folder, keep, address, monkeypatch):
    monkeypatch.setattr(mirror, "_EVERY_S", 0.05)
    monkeypatch.setattr(mirror, "_REST", 1e9)
    written = []
    write = mirror.write_place
    monkeypatch.setattr(mirror, "write_place", lambda place, *a, **k: [written.append(place), write(place, *a, **k)])
    with keep(folder):
        end = time.monotonic() + 20
        while written.count(f"{address}/driver.json") < 5 and time.monotonic() < end:
            time.sleep(0.02)

    assert written.count(f"{address}/driver.json") >= 5


def test_what_changes_is_copied_while_the_study_runs_and_trouble_is_said_once_each_way(
    folder, keep, address, said, monkeypatch, search_some
):
    monkeypatch.setattr(mirror, "_EVERY_S", 0.05)
    monkeypatch.setattr(mirror, "_PATIENCE_S", 0.0)
    write, is_away = mirror.write_place, []

    def answer(place, content, **patience):
        if is_away:
            raise ConfigError(f"{place}: away")
        write(place, content, **patience)

    def wait_for(what):
        end = time.monotonic() + 20
        while not what() and time.monotonic() < end:
            time.sleep(0.02)
        assert what()

    monkeypatch.setattr(mirror, "write_place", answer)
    with keep(folder):
        search_some(folder, max_steps=3)
        wait_for(lambda: read_place(f"{address}/study.journal") == folder.journal.read_bytes())
        is_away.append(True)
        wait_for(lambda: said)
        is_away.clear()
        wait_for(lambda: said[-1] == "the copy of the study is up to date again")

    assert "falls behind" in said[0]


def test_checkpoints_belong_to_the_slots(folder, keep, address):
    folder.checkpoint(1).parent.mkdir(parents=True)
    folder.checkpoint(1).write_bytes(b"local")
    with keep(folder) as kept:
        write_place(folder.place(folder.checkpoint(2)), b"a slot's")
        kept.forget(folder.place(folder.checkpoint(2)))

    assert list_places(address) == []


def test_names_that_leave_the_folder_are_refused(folder, elsewhere, keep, search_some, monkeypatch):
    with keep(folder):
        search_some(folder, max_steps=3)
    names = [*list_places(folder.remote), "../../x"]
    monkeypatch.setattr(mirror, "list_places", lambda address: names)

    with pytest.raises(ConfigError, match=r"'../../x', a name that would leave the folder"):
        fetch(elsewhere)
    assert not elsewhere.path.exists()


@pytest.mark.slow
def test_it_works_on_s3(s3, tmp_path, keep, search_some):
    here, there = (StudyFolder(tmp_path / where / "study", f"{s3}/a/study") for where in ("here", "there"))
    check_store(here.remote)
    with keep(here):
        search_some(here, max_steps=9)
    with keep(there):
        assert files(there) == files(here)


@pytest.mark.slow
def test_a_store_that_is_not_there_is_refused_at_once(s3, tmp_path, keep):
    folder = StudyFolder(tmp_path / "study", "s3://no-such-bucket/study")

    with (
        pytest.raises(ConfigError, match=r"s3://no-such-bucket/study/probe.*cannot be written.*NO_SUCH_BUCKET"),
        keep(folder),
    ):
        pass
