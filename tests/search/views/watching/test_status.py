"""A study is understood from its folder alone: while it runs, afterwards, damaged, on another host."""

import io
import json
import os
import shutil
import socket
import time

import pytest
from rich.cells import cell_len
from rich.console import Console

from search.errors import ConfigError
from search.status import main
from search.study.provenance import record_end
from search.study.records import StudyFolder, lock_folder, read_lock
from search.views.snapshot import to_json
from search.views.status import StudyReader, show_status, watch_study
from search.views.terminal import SearchView


def page_of(status, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, _environ={})
    show_status(status, console, as_json=False)
    return console.file.getvalue()


def files_of(folder):
    return {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def test_the_folder_says_the_same_as_the_search_itself(play, folder):
    views = []

    def watch(study):
        views.append(SearchView(study, Console(quiet=True), marks=["SYNTHETIC"]))
        return views[0].on_event

    play(watch=watch, steps=70, slots=4, rejected={3: "out of memory: batch 512"}, failed={2: "OSError: 3 of 4"})
    inside, outside = to_json(views[0].snapshot()), to_json(StudyReader(folder).read().snapshot)

    for trial in inside["running"]:
        trial["place"] *= trial["epoch"] > 0  # a folder does not know where a trial is that has not reported
    same = inside.keys() - {"elapsed_s", "left_s", "running"}
    assert {key: outside[key] for key in same} == {key: inside[key] for key in same}
    assert sorted(outside["running"], key=lambda trial: trial["trial"]) == inside["running"]
    assert outside["elapsed_s"] >= inside["elapsed_s"]
    assert 0.5 < outside["left_s"] / inside["left_s"] < 2


def test_a_running_study_is_told_by_its_lock_and_nothing_is_touched(play, folder):
    play(steps=41)
    before = files_of(folder)

    status = StudyReader(folder).read()

    assert status.state == "running"
    assert f"process {os.getpid()} on {socket.gethostname()} holds it now" in status.explanation
    assert files_of(folder) == before
    assert "node-1, pid 4001" in page_of(status, width=120)
    assert "running" in page_of(status)


def test_trials_that_have_not_reported_yet_are_known_from_the_journal(play, folder):
    study = play(steps=1, slots=3)

    status = StudyReader(folder).read()

    assert sorted(trial.number for trial in status.snapshot.running) == [0, 1, 2]
    assert status.unreported == 2
    assert page_of(status).count("no report yet") == 2
    assert {trial.number: dict(trial.config) for trial in status.snapshot.running} == {
        number: dict(record.config) for number, record in study.records.items()
    }


def test_an_interrupted_study_says_how_to_go_on(play, folder):
    play(steps=41).close()

    status = StudyReader(folder).read()

    assert status.state == "interrupted"
    assert "no process works on it" in status.explanation
    assert "the same command goes on" in status.explanation
    assert status.snapshot.running == ()
    assert status.snapshot.counts["paused"] == 2
    assert "2 interrupted" in page_of(status)


@pytest.mark.parametrize(("is_exhausted", "state"), [(True, "finished"), (False, "interrupted")])
def test_a_study_that_has_tried_everything_is_finished(play, folder, is_exhausted, state):
    play(trials=5).close()
    text = folder.resolved.read_text("utf-8")
    folder.resolved.write_text(text.replace("trials: 5", "trials: 50"), "utf-8")
    record_end(folder, is_exhausted=is_exhausted)

    status = StudyReader(folder).read()

    assert status.state == state
    assert ("has been tried" in status.explanation) == is_exhausted


def test_a_finished_study_says_so(play, folder, names):
    play(trials=5).close()

    status = StudyReader(folder).read()
    page = page_of(status)

    assert status.state == "finished"
    assert "5 of 5 trials judged" in page
    assert all(name in page for name in names)


def test_a_study_whose_time_is_up_says_so(play, folder):
    play(more="time: 60s").close()

    assert StudyReader(folder).read().state == "time is up"


def test_a_study_that_has_begun_nothing_yet_is_no_error(play, folder):
    play(steps=0)
    folder.trials.unlink(missing_ok=True)
    folder.journal.unlink()

    status = StudyReader(folder).read()

    assert status.snapshot.n_judged == 0
    assert "no trial has run to its end yet" in page_of(status)


def test_on_another_host_the_age_of_the_last_line_decides(play, folder):
    play(steps=41).close()
    (folder.path / ".lock").write_text("process 7 on another-host", "utf-8")

    fresh = StudyReader(folder).read()
    long_ago = time.time() - 3600
    os.utime(folder.trials, (long_ago, long_ago))
    provenance = json.loads(folder.provenance.read_text("utf-8"))
    provenance["attempts"][-1]["started"] = "2026-01-01T00:00:00+00:00"
    folder.provenance.write_text(json.dumps(provenance), "utf-8")
    stale = StudyReader(folder).read()

    assert (fresh.state, stale.state) == ("seems to run", "seems interrupted")
    assert "process 7 on another-host held it last, whose lock may not be seen from here" in fresh.explanation
    assert "1:00:0" in stale.explanation


def test_a_torn_last_line_is_left_for_the_next_time(play, folder):
    play(steps=41).close()
    whole = folder.trials.read_bytes()
    last = whole.rfind(b"\n", 0, -1) + 1
    folder.trials.write_bytes(whole[: last + 20])
    reader = StudyReader(folder)

    torn = to_json(reader.read().snapshot)
    with folder.trials.open("ab") as file:
        file.write(whole[last + 20 :])
    mended = to_json(reader.read().snapshot)

    assert torn != mended
    assert mended == to_json(StudyReader(folder).read().snapshot)


def test_any_other_damaged_line_is_named(play, folder):
    play(steps=5).close()
    folder.trials.write_bytes(b"{nonsense\n" + folder.trials.read_bytes())

    with pytest.raises(ConfigError, match=r"trials\.jsonl: is damaged at byte 0"):
        StudyReader(folder).read()


def test_a_folder_that_cannot_be_written_is_read_all_the_same(play, folder):
    play(steps=41).close()
    for path in [*folder.path.rglob("*"), folder.path]:
        path.chmod(0o555 if path.is_dir() else 0o444)

    status = StudyReader(folder).read()

    assert status.snapshot.counts["paused"] == 2
    folder.path.chmod(0o755)


def test_a_study_that_is_opened_again_meanwhile_is_read_anew(play, folder):
    play(steps=41).close()
    rows = [json.loads(line) for line in folder.trials.read_text("utf-8").splitlines()]
    row = next(row for row in reversed(rows) if row["status"] == "running")
    with folder.trials.open("a", encoding="utf-8") as file:  # a crash before the journal knew of it: it will be dropped
        file.write(json.dumps(row | {"epoch": row["epoch"] + 1}) + "\n")
    reader = StudyReader(folder)
    before = reader.read().snapshot.counts

    play(steps=0)

    anew, fresh = (to_json(each.read().snapshot) for each in (reader, StudyReader(folder)))
    epochs = {trial["trial"]: trial["epoch"] for trial in anew["running"]}
    assert epochs == {trial["trial"]: trial["epoch"] for trial in fresh["running"]}
    assert epochs[row["trial"]] == row["epoch"]
    assert (before["paused"], anew["counts"]) == (2, fresh["counts"])


def test_a_space_of_another_version_is_shown_as_far_as_it_is_understood(play, folder):
    play(steps=41).close()
    text = folder.resolved.read_text("utf-8")
    folder.resolved.write_text(text.replace("space:\n", "space:\n  from_the_future: 3\n"), "utf-8")

    assert "wafer_" in page_of(StudyReader(folder).read())


def test_wide_characters_break_no_line(play, tmp_path):
    where = StudyFolder(tmp_path / "results" / "웨이퍼-연구")
    play(steps=60, slots=8, where=where, classes=("중심", "도넛", "가장자리-일부", "긁힘", "없음"))

    page = page_of(StudyReader(where).read())

    assert "웨이퍼-연구" in page
    assert max(map(cell_len, page.splitlines())) <= 80


def test_the_command_prints_a_page_or_one_json_object(play, folder, capsys, monkeypatch):
    play(steps=41)
    monkeypatch.setenv("COLUMNS", "100")

    codes = [main(["a-study", "--results", str(folder.path.parent)])]
    page = capsys.readouterr().out
    codes.append(main([str(folder.path), "--json"]))
    [line] = capsys.readouterr().out.splitlines()

    assert codes == [0, 0]
    assert "\x1b" not in page
    assert "a-study  SYNTHETIC wafers  running" in page
    known = json.loads(line)
    assert known["state"] == "running"
    assert known["best"]["val_f1"].keys() == {*known["running"][0]["val_f1"]}


def test_no_such_study_is_an_error_that_names_those_there_are(play, folder, capsys):
    play(steps=1)

    assert main(["nowhere", "--results", str(folder.path.parent)]) == 2
    assert "nowhere: no study there; known: " in capsys.readouterr().err


class Impatient:
    """A reader whose user types Ctrl-C at the third look."""

    def __init__(self, reader):
        self.reader, self.looks = reader, 0

    def read(self):
        self.looks += 1
        if self.looks == 3:
            raise KeyboardInterrupt
        return self.reader.read()


def watched(reader, **options):
    console = Console(file=io.StringIO(), width=80, _environ={})
    assert watch_study(Impatient(reader), console, every_s=0, **options) == 0
    return console.file.getvalue().splitlines()


def test_watching_for_programs_prints_an_object_at_each_look(play, folder):
    play(steps=41)

    lines = watched(StudyReader(folder), as_json=True)

    assert [json.loads(line)["state"] for line in lines] == ["running", "running"]


def test_watching_without_a_terminal_prints_a_line_whenever_it_is_another(play, folder):
    play(trials=5).close()
    reader = StudyReader(folder)

    (line,) = watched(reader, as_json=False)

    assert "finished: 5 of 5 trials judged" in line


def test_looking_at_a_lock_neither_takes_nor_makes_it(tmp_path):
    path = tmp_path / "study"
    path.mkdir()

    nobody = read_lock(path)
    with lock_folder(path):
        held = read_lock(path)
    free = read_lock(path)

    assert nobody == (False, "")
    assert held == (True, f"process {os.getpid()} on {socket.gethostname()}")
    assert free == (False, held[1])
    with lock_folder(path):
        pass
    shutil.rmtree(path)
