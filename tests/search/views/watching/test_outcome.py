"""The end of a search: the winner, its classes, where everything lies, what to type next."""

import dataclasses
import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from search.study.confirmed import Candidate, Confirmed
from search.study.records import StudyFolder
from search.views.confirmed import show_confirmed
from search.views.outcome import show_outcome

KOREAN = ("중심", "도넛", "가장자리-일부", "긁힘", "없음")


def outcome_of(study, *, width=80, is_terminal=False, is_over=True, **options):
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=is_terminal, color_system=None, _environ={})
    show_outcome(study, console, marks=["SYNTHETIC"], is_over=is_over, **options)
    return file.getvalue()


def test_it_says_who_won_in_which_classes_where_it_lies_and_what_is_next(play, folder, names):
    study = play(trials=8, rejected={3: "out of memory: batch 512"}, failed={2: "OSError: no"})

    text = outcome_of(study, note="without the hardest wafers")

    best = study.best
    assert "done after" in text
    assert "1 infeasible (1 out of memory), 1 failed (1 OSError: no)" in text
    assert f"best: trial {best.number}: epochs {best.epochs}, " in text
    ranks = [line.split()[0] for line in text.split("configuration", 1)[1].splitlines()[1:4]]
    assert ranks[0] == str(best.number)
    assert "(SYNTHETIC, %, one seed)" in text
    assert all(f"│ {name} " in text for name in names)
    assert f"best configuration  {folder.best}" in text
    assert f"{folder.report} (without the hardest wafers)" in text
    assert f"tracebacks          {folder.path / 'failures'}" in text
    assert f"next                python -m search.retrain {folder.path}\n" in text
    assert "\x1b" not in text


def test_a_study_among_the_others_is_called_by_its_name(play, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    text = outcome_of(play(trials=3))

    assert "next                python -m search.retrain a-study\n" in text
    assert "report              results/a-study/report.html\n" in text


@pytest.mark.parametrize(
    ("options", "is_over", "words"),
    [
        ({"steps": 9}, False, "the same command goes on from here"),
        ({"more": "time: 100s"}, True, "the time is used up; a larger --time goes on from here"),
        ({"trials": 3}, True, "the same command with --trials 6 goes on from here"),
        ({"steps": 2}, False, "no trial ran to its end, so there is no best.yaml"),
        ({"trials": 5, "constraints": '["f1[Scratch] >= 0.9"]'}, True, "which misses f1[Scratch] >= 0.9 by "),
    ],
)
def test_it_says_how_to_go_on_and_why_there_is_no_winner(play, options, is_over, words):
    assert words in outcome_of(play(**options), is_over=is_over)


@pytest.mark.parametrize(
    ("more", "steps", "is_over", "stood"),
    [
        ("time: 20s", None, True, "60.09 after 6 of 12 epochs; a larger --time goes on with it"),
        ("seed: 0", 16, False, "63.84 after 8 of 12 epochs; the same command goes on with it"),
    ],
)
def test_a_trial_that_was_left_above_the_winner_is_named(play, more, steps, is_over, stood):
    study = play(more=more, steps=steps)

    text = outcome_of(study, is_over=is_over)

    assert study.best.number == 1
    assert f"\ntrial 0, not finished, stood at {stood}\n" in text


def test_an_unfinished_trial_below_the_winner_is_no_news(play):
    study = play(steps=25)

    assert study.paused == [] and len(study.running) == 2
    assert "stood at" not in outcome_of(study, is_over=False)


def test_a_confirmation_of_one_compares_nothing_and_names_files_as_the_search_does(play, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study, unknown = play(trials=3), float("nan")
    fields = dict.fromkeys((field.name for field in dataclasses.fields(Candidate)), unknown)
    fields |= {"trial": study.best.number, "seed_values": (0.8,), "mean": 0.8, "low": 0.7, "high": 0.9, "p_value": 1.0}
    fields |= {"is_tied": True, "is_close": True, "macs": 10**6, "broken": 1}
    about = {"metric": "macro_f1", "decided_by": "seeds", "chosen": study.best.number, "n_seeds": 1, "n_folds": 0}
    about |= {"n_lots": 9, "n_wafers": 300, "seed_sd": unknown, "optimism": unknown, "split_fingerprint": ""}
    console = Console(file=io.StringIO(), width=80, _environ={})

    show_confirmed(Confirmed(candidates=[Candidate(**fields)], **about), study, console, marks=[])

    text = console.file.getvalue()
    assert "1 seed " in text and "(1 run broke)" in text
    assert "1.000" not in text and "behind " not in text.split("Decided")[0]
    assert "best configuration  results/a-study/best.yaml\n" in text
    assert "report              results/a-study/report.html\n" in text


def test_wide_characters_break_no_line_of_the_tables(play, tmp_path):
    study = play(trials=4, classes=KOREAN, where=StudyFolder(tmp_path / "연구"))

    tables = outcome_of(study, is_terminal=True).split("\n\n")[1:3]

    assert all(cell_len(line) <= 80 for table in tables for line in table.splitlines())
    rows = [line for line in tables[1].splitlines() if line.startswith(("│", "┃"))]
    assert len({cell_len(line.rstrip()) for line in rows}) == 1
