import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from search.space.space import Branch, Choice, Constant, Range, Space
from search.study.rows import COMPLETE, TrialRecord
from search.testing import fake_report
from search.trial.metrics import score_confusion
from search.views.figures import draw_all_curves, draw_confusion, draw_course, draw_curves
from search.views.terminal import say
from search.views.words import configuration, duration, memory_of, number, score_table

CLASSES = ("Center", "Edge-Ring", "none")


def record(number, quality):
    reports = [fake_report(epoch, quality=quality, n_classes=3) for epoch in (1, 2, 3)]
    values = [report.val.scores.macro_f1 for report in reports]
    missing = [0.0] * 3
    known = {"reports": reports, "values": values, "shortfalls": missing}
    return TrialRecord(number=number, config={}, epochs=3, status=COMPLETE, **known)


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "0 s"), (59.4, "59 s"), (61, "1:01"), (3600, "1:00:00")])
def test_durations_read_as_people_say_them(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(("value", "words"), [(0.00123456, "0.00123"), (32, "32"), ("adam", "adam"), (True, "True")])
def test_numbers_have_as_many_digits_as_help(value, words):
    assert number(value) == words


def test_a_configuration_in_words_names_what_is_searched_and_no_constants():
    branch = Branch({"wafer_cnn": {"width": Choice((8, 16))}, "resnet18": {}})
    space = Space({"epochs": Constant(3), "lr": Range(1e-4, 1e-1, log=True), "model": branch})

    words = configuration({"epochs": 3, "lr": 0.00123, "model": "wafer_cnn", "model.wafer_cnn.width": 16}, space)

    assert words == "lr 0.00123, wafer_cnn, width 16"


def test_a_score_table_shows_every_class_and_names_wide_characters():
    scores = score_confusion(np.array([[9, 1], [2, 88]]))
    console = Console(file=io.StringIO(), width=100)

    console.print(score_table(scores, ("가장자리", "none"), title="test"))

    lines = console.file.getvalue().splitlines()
    assert any("가장자리" in line and "81.82" in line and "90.00" in line for line in lines)
    assert any("accuracy" in line and "97.00" in line for line in lines)


@pytest.mark.parametrize(
    ("expected", "n_reports", "place", "words"),
    [
        (2**29, 3, "slot 1 (GPU 0) on a, pid 7", "memory 0.50 GiB expected, 0.25 GiB measured"),
        (2**29, 3, "slot 1 on a, pid 7", "memory 0.50 GiB expected, 0.25 GiB measured with Python and torch"),
        (0, 3, "slot 1 (GPU 0, GPU 1) on a, pid 7", "memory 0.25 GiB measured"),
        (2**29, 0, "slot 1 on a, pid 7", "memory 0.50 GiB expected"),
        (0, 0, "", "memory unknown"),
    ],
)
def test_memory_in_words_says_what_is_known(expected, n_reports, place, words):
    trial = record(0, 0.9)
    trial.expected_memory, trial.place = expected, place
    del trial.reports[n_reports:]

    assert memory_of(trial) == words


def test_a_message_is_not_broken_where_there_is_no_terminal():
    console = Console(file=io.StringIO(), width=20)

    say(console, "word " * 30 + "[bold]")

    assert console.file.getvalue().count("\n") == 1
    assert "[bold]" in console.file.getvalue()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_curves({"seed 0": record(0, 0.9).reports}, title="with validation"),
        lambda: draw_confusion(record(0, 0.9).reports[-1].val, CLASSES, title="confusion"),
        lambda: draw_course([record(0, 0.5), record(1, 0.9)], [0.3, 0.54], np.array([0.42, 0.54]), metric="macro-F1"),
        lambda: draw_all_curves([record(0, 0.5), record(1, 0.9)], metric="macro_f1", best=record(1, 0.9)),
        lambda: draw_confusion(record(0, 0.9).reports[-1].val, ("$x_1", "<b>", "가장자리"), title="any $names"),
    ],
)
def test_figures_are_pictures_with_something_on_them(draw):
    picture = np.asarray(Image.open(io.BytesIO(draw())).convert("L"))

    assert min(picture.shape) > 200
    assert picture.min() < 100
    assert picture.max() == 255
