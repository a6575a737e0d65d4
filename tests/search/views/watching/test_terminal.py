"""What a search says while it runs: on a terminal, in a file, quietly and at length."""

import io
import os
import re
import sys
import time

import pytest
from rich.console import Console

from search.views.terminal import FullScreen, SearchView, WarningsOnly, leave_screen, shows_screens


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self):
        return True


def screens(file, **environment):
    """A console on a terminal of 80 by 24, whatever the tests run in."""
    return Console(file=file, width=80, height=24, force_terminal=True, _environ={"TERM": "xterm"} | environment)


@pytest.fixture
def told(play):
    """Play a search and return what was said of it, where there is no terminal."""

    def run(*, detail="normal", **options):
        console = Console(file=io.StringIO(), width=80, _environ={})

        def watch(study):
            view = SearchView(study, console, marks=["SYNTHETIC"], detail=detail, heartbeat_s=1000)
            return view.on_event

        play(watch=watch, **options)
        return console.file.getvalue()

    return run


PROBLEMS = {"rejected": {3: "loss became nan in epoch 2 (step 40)"}, "failed": {2: "RuntimeError: no such thing"}}


def test_in_a_file_each_end_is_one_line_without_control_codes(told):
    text = told(steps=60, **PROBLEMS)

    lines = text.splitlines()
    assert "\x1b" not in text
    assert "\r" not in text
    assert all(re.match(r" *(\d+ s|\d+:\d\d)  ", line) for line in lines)
    assert any("trial 3 infeasible in epoch 2 of " in line and "loss became nan" in line for line in lines)
    assert any("trial 2 failed in epoch 1 of " in line and "RuntimeError: no such thing" in line for line in lines)
    assert len([line for line in lines if " complete after all " in line]) >= 1
    assert any("best so far: trial " in line and "F1 Center 0." in line and "Scratch 0." in line for line in lines)
    assert not any("epoch 2/" in line for line in lines)


def test_quietly_only_what_goes_wrong_is_said(told):
    lines = told(steps=60, detail="quiet", **PROBLEMS).splitlines()

    assert len(lines) == 1
    assert "trial 2 failed" in lines[0]


def test_at_length_every_report_is_a_line_that_says_where_it_trains(told):
    lines = told(steps=20, detail="verbose").splitlines()

    reports = [line for line in lines if re.search(r"trial \d+ epoch \d+/\d+: macro-F1 0\.\d+, worst ", line)]
    assert len(reports) == 20
    assert all("wafers at 3,000 per second; slot " in line and "pid 400" in line for line in reports)


def test_a_silent_search_gives_a_sign_of_life(play):
    file = io.StringIO()

    study = play(steps=21, slots=8)
    with SearchView(study, Console(file=file, width=80, _environ={}), heartbeat_s=0.05):
        end = time.monotonic() + 5
        while "running:" not in file.getvalue() and time.monotonic() < end:
            time.sleep(0.01)

    line = file.getvalue().splitlines()[0]
    assert re.search(r"\d of 40 trials judged \(\d complete, \d stopped by ASHA\); .*; running: trial ", line)
    assert line.count("epoch") == 4
    assert line.endswith("more")


@pytest.mark.parametrize(
    ("file", "environment", "expected"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_a_screen_is_drawn_only_where_one_can_be(file, environment, expected):
    assert shows_screens(screens(file, **environment)) is expected


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_the_screen_comes_and_goes_and_the_terminal_is_as_before(play, environment):
    file, views = Terminal(), []

    def watch(study):
        views.append(SearchView(study, screens(file, **environment)))
        views[0].__enter__()
        return views[0].on_event

    play(watch=watch, steps=40)
    views[0].__exit__(None, None, None)

    text = file.getvalue()
    assert text.index("\x1b[?1049h") < text.index("of 40 trials judged") < text.index("\x1b[?1049l")
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert (re.search(r"\x1b\[[\d;]*(3|4)\dm|[34]8;[25];", text) is None) is bool(environment)


def test_what_others_print_does_not_tear_the_screen_and_is_there_afterwards(capsys):
    file, heard = Terminal(), []

    with FullScreen(screens(file), lambda: "calm", on_print=heard.append):
        sys.stdout.write("a stranger speaks\n")
        sys.stderr.write("so does an ")
        sys.stderr.write("other\n")

    assert heard == ["a stranger speaks", "so does an other"]
    assert "stranger" not in file.getvalue()
    assert capsys.readouterr().err.splitlines() == heard


def test_a_screen_that_cannot_be_drawn_shows_what_it_showed_before():
    def draw():
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("dictionary changed size during iteration")
        return "calm"

    file, calls = Terminal(), []
    screen = FullScreen(screens(file), draw, on_print=lambda line: None)

    with screen:
        screen.refresh()

    assert file.getvalue().count("calm") >= 2


def test_a_process_that_ends_at_once_gives_the_terminal_back(monkeypatch):
    written = []
    monkeypatch.setattr(os, "write", lambda number, content: written.append(content))

    with FullScreen(screens(Terminal()), lambda: "calm", on_print=lambda line: None):
        leave_screen()

    assert b"\x1b[?1049l" in written


def test_before_a_quiet_search_only_warnings_are_said():
    console = WarningsOnly(file=io.StringIO(), width=80)

    console.print("starting Ray ...")
    console.print("memory: 3 GiB\nWARNING: too much")

    assert console.file.getvalue() == "WARNING: too much\n"
