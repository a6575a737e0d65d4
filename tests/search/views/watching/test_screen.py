"""The screen fits any terminal, says what matters, and reads without colour."""

import io
import math
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from search.study.records import StudyFolder
from search.views.screen import Screen, abbreviate, heat
from search.views.terminal import SearchView

KOREAN = ("중심", "도넛", "가장자리-일부", "가장자리-고리", "국부", "거의-전체", "무작위", "긁힘", "없음")
SIZES = [(80, 24), (200, 50), (100, 30), (60, 12), (40, 8), (20, 3)]


def lines_of(renderable, width=80, height=24):
    console = Console(width=width, height=height, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get().splitlines()


def assert_fits(screen):
    for width, height in SIZES:
        lines = lines_of(screen, width, height)

        assert max(map(cell_len, lines)) <= width
        assert len(lines) < height


@pytest.fixture
def snapshot(play):
    """Play a search and take a snapshot of it."""

    def take(**options):
        views = []

        def watch(study):
            views.append(SearchView(study, Console(quiet=True), marks=["SYNTHETIC"]))
            return views[0].on_event

        play(watch=watch, **options)
        return views[0].snapshot()

    return take


@pytest.mark.parametrize("slots", [2, 64])
def test_the_screen_fits_and_leaves_the_last_line_free(snapshot, slots):
    screen = Screen(snapshot(slots=slots, steps=120), footnote="CPU 97 % of 2 cores")

    assert_fits(screen)


def test_wide_characters_break_no_line(snapshot, tmp_path):
    name = "웨이퍼-연구-가나다라마바사아자차카타파하"
    now = snapshot(classes=KOREAN, where=StudyFolder(tmp_path / name), steps=60, slots=8)

    assert_fits(Screen(now, footnote="설명"))
    assert any("가장자리-일부" in line for line in lines_of(Screen(now), 120, 30))


def test_80_by_24_shows_everything_that_matters(snapshot, names):
    now = snapshot(steps=120, rejected={3: "loss became nan in epoch 2 (step 40)"})

    text = "\n".join(lines_of(Screen(now, footnote="CPU 97 % of 2 cores")))

    assert "a-study  SYNTHETIC wafers" in text
    assert "of 40 trials judged, about" in text
    assert "stopped by ASHA" in text
    assert "1 infeasible (1 diverged)" in text
    assert "CPU 97 %" in text
    assert f"best  trial {now.best.number}  balanced macro-F1 {now.best.value:.4f}" in text
    assert all(name in text for name in names)
    for trial in now.running:
        assert re.search(rf"^ *{trial.number} .* {trial.epoch}/{trial.epochs} ", text, re.MULTILINE)
    assert re.search(r"Scratch 0\.\d\d +[\d,k]+ +wafer_", text)  # the worst class by name, then how fast
    assert len(now.messages) >= 3
    assert re.search(r"trial \d+ (complete|stopped by ASHA) after", text)


def test_the_f1_of_each_class_stands_under_its_name(snapshot, names):
    now = snapshot(steps=120)

    head, values, *_ = lines_of(heat(names, now.best.f1, 80))

    assert head.split() == list(names)
    assert values.split() == ["F1", *(f"{value:.2f}" for value in now.best.f1)]


def test_many_classes_take_several_rows_and_absent_ones_a_dash():
    classes = [f"class-{k}" for k in range(38)]

    lines = lines_of(heat(classes, [math.nan, *([0.5] * 37)], 80))

    assert max(map(cell_len, lines)) <= 80
    values = [word for line in lines if line.startswith("F1") for word in line.split()[1:]]
    assert values == ["-", *(["0.50"] * 37)]


def test_short_names_are_never_alike(names):
    for limit in range(4, 10):
        short = abbreviate([*names, "Edge-Rings", "Edge-Ringing"], limit)

        assert len(set(short)) == len(short)
        assert max(map(cell_len, short)) <= limit


def test_of_more_trials_than_fit_the_best_are_shown_and_the_others_counted(snapshot):
    now = snapshot(slots=40, steps=39)

    lines = lines_of(Screen(now))

    more = next(int(found[1]) for line in lines if (found := re.search(r"\+ (\d+) more", line)))
    shown = [line for line in lines if re.search(r"\d+/\d+ ", line)]
    assert len(shown) + more == len(now.running)
    best = max(now.running, key=lambda trial: trial.rank)
    assert shown[0].split()[0] == str(best.number)


def test_a_large_terminal_shows_f1_by_class_where_trials_run_and_the_next_best(snapshot):
    now = snapshot(slots=8, steps=160)

    lines = lines_of(Screen(now), 200, 50)

    head = next(line for line in lines if line.startswith("trial "))
    assert head.split()[:5] == ["trial", "slot", "epoch", "balanced", "macro"]
    assert {"Center", "E-Loc", "E-Ring", "N-full", "samples", "img/s"} <= set(head.split())
    assert any(line.split()[:2] == ["next", "epochs"] for line in lines)


def test_a_terminal_that_knows_ascii_only_gets_nothing_else_of_ours(snapshot):
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    console = Console(file=file, width=80, height=24)

    console.print(Screen(snapshot(steps=120)))  # or else it raises

    assert console.options.ascii_only


def test_what_is_not_there_yet_is_said(snapshot):
    text = "\n".join(lines_of(Screen(snapshot(steps=1))))

    assert "no trial has run to its end yet" in text
    assert "no report yet" in text


def test_a_search_whose_trials_miss_the_floors_shows_the_nearest(snapshot):
    now = snapshot(steps=120, constraints='["f1[Scratch] >= 0.9"]')

    text = "\n".join(lines_of(Screen(now)))

    assert now.best is None
    assert f"none meets the constraints yet; nearest is trial {now.top[0].number}, " in text
