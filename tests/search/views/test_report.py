import html
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from search.errors import TrialFailed
from search.study.records import fingerprint_file, read_json, write_json
from search.study.winner import HardWafer, Winner, to_bytes
from search.views.report import write_report

ODD = ("<b>가장자리</b>", "A & B", "none $x_1$")


class Reader(HTMLParser):
    """Collects what a browser would load, the words, and whether all elements are closed in order."""

    VOID = ("meta", "img", "br", "hr")

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.words, self.faults, self.anchors, self.ids = [], [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.loads += [value for key, value in attrs if key in ("src", "srcset", "data", "poster")]
        self.loads += [tag] * (tag in ("link", "script", "iframe", "object"))
        self.anchors += [value for key, value in attrs if key == "href"]
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        self.words.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    return reader


def words_of(page):
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)))


@pytest.fixture(scope="module")
def searched(make_study):
    """A study with branches, floors, stopped and broken trials, and its page."""
    folder = make_study(trials=40, constraints='["f1[Center] >= 0.3", "accuracy >= 0.2"]')
    write_report(folder)
    return folder


@pytest.fixture
def small(make_study):
    """A study of three trials in a space of one parameter, without its page."""
    space = (
        "data: {wafers: synthetic, image_size: 16, epoch_samples: 256}\nspace: {epochs: 2, lr: [0.01, 0.02, 0.03]}\n"
        "search: {trials: 3, stop: none}\n# %(trials)s"
    )
    return make_study(space=space)


def test_the_page_is_one_sound_file_that_loads_nothing(searched, page_of):
    page = page_of(searched)
    reader = read(page)

    assert reader.faults == []
    assert reader.open == []
    assert all(source.startswith("data:image/png;base64,") for source in reader.loads)
    assert not re.search(r"https?://|<script|@import|url\(", page)
    assert {anchor.removeprefix("#") for anchor in reader.anchors} <= set(reader.ids)
    assert "could not be made" not in page
    assert len(page) < 1_000_000


def test_the_first_screen_names_the_winner_and_says_what_stands_against_it(searched, page_of):
    words = words_of(page_of(searched))
    first = words[: words.index("Classes")]

    assert re.search(r"Winner: trial \d+ of \d+", first)
    assert "95 % interval" in first
    assert "Runner-up: trial" in first
    assert re.search("told apart|Told apart", first)
    assert "meets both floors" in first
    assert "one seed" in first
    assert "neither the spread between seeds nor the optimism of picking the best" in first
    assert "The locked test was not opened yet" in first
    assert f"python -m search.retrain {searched.path} , then python -m search.evaluate {searched.path} ." in first
    assert "SYNTHETIC" not in words
    assert "LEAKY" not in words


@pytest.mark.parametrize(
    "heading",
    [
        *("What it confuses", "F1 per class of the best trials", "How the best trial learned", "Hardest wafers"),
        *("What was searched", "Floors", "Budget", "Course of the search", "Strategies and architectures"),
        *("Really worse, or just less tried?", "Along each parameter", "All together", "What went wrong"),
        *("All 4", "How to make it again", "The space with every default"),
    ],
)
def test_every_chapter_is_there(searched, page_of, heading):
    assert heading in words_of(page_of(searched))


def test_every_picture_is_a_file_for_slides_too(searched, page_of):
    names = {path.stem for path in searched.figures.glob("*.png")}

    assert {"course", "learning_curves", "survival", "importance", "parallel", "confusion", "winner_f1"} <= names
    assert {"slice_lr", "slice_model_wafer_cnn_width", "slice_sampling_power_alpha"} <= names
    assert page_of(searched).count("<img") == len(names) - 1  # confusions are a table on the page
    for path in searched.figures.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 300


def test_savings_and_rungs_are_told_in_numbers(make_study, page_of):
    def quality(assignment, epoch):
        return 0.9 - 0.05 * assignment.number

    folder = make_study(trials=8, epochs="4", stop="{asha: {first_rung: 2, factor: 2}}", quality_of=quality)

    write_report(folder)

    words = words_of(page_of(folder))
    # Two at a time, the earlier better: 0 to 3 find no peers in time, the others are stopped at the rung.
    run, saved, of = re.search(r"run (\d+) saved (\d+) .*? of (\d+) epochs untrained", words).groups()
    assert int(run) + int(saved) == int(of) == 32
    assert f"about {2 * int(saved) * 3 // 4} s" in words  # of 1.5 s each
    reached, stopped, went_on = map(int, re.search(r"went on 4 2 (\d+) (\d+) (\d+)", words).groups())
    assert reached == 8 == stopped + went_on
    assert f"{stopped} trials stopped early" in words


def test_a_floor_that_nobody_reaches_leaves_no_winner(make_study, page_of):
    folder = make_study(trials=6, constraints='["f1[Center] >= 0.99"]', stop="none")

    write_report(folder)

    words = words_of(page_of(folder))
    assert "Nearest to the floors, but no winner" in words
    assert re.search(r"misses f1\[Center\] >= 0.99 by \d+\.\d\d points", words)
    assert re.search(r"0 of \d trials that ran to their end meet all floors", words)
    assert "no best.yaml to retrain" in words
    assert "search.retrain" not in words


def test_names_cannot_become_markup(make_study, page_of):
    source = "/데이터/<script>alert(1)</script>&.npz"
    leaky = "LEAKY (random): lots of <one> stand in training & test"
    folder = make_study(trials=6, stop="none", classes=ODD, source=source, synthetic=True, leaky=leaky)

    write_report(folder)

    page = page_of(folder)
    assert read(page).faults == []
    assert "<script" not in page
    assert "<b>가장자리" not in page
    words = words_of(page)
    assert all(name in words for name in (*ODD, source))
    assert "SYNTHETIC wafers: no number here says anything about real ones." in words
    assert leaky in words
    assert "<title>a-study · SYNTHETIC · LEAKY</title>" in page


def test_reasons_are_grouped_whatever_numbers_they_hold(make_study, page_of):
    def quality(assignment, epoch):
        if assignment.number % 2:
            raise TrialFailed("diverged", f"loss became nan in epoch {epoch} (step {assignment.number})")
        if assignment.number == 4:
            raise KeyError("a bug <of ours>")
        return 0.5

    folder = make_study(trials=8, stop="none", quality_of=quality)

    write_report(folder)

    page = page_of(folder)
    table = words_of(page[page.index("What went wrong") : page.index("<details>")])
    assert re.search(r"infeasible 4 loss became nan in epoch 1 \(step 1\) 1, 3, 5, 7", table)
    assert "failed 1 KeyError: 'a bug <of ours>' 4" in table
    assert "Tracebacks are in failures/" in table


@pytest.mark.parametrize(
    ("steps", "said"),
    [(0, "No trial has started."), (3, "No trial has run to its end"), (8, "Not finished.")],
)
def test_a_search_that_was_cut_off_says_so(make_study, page_of, steps, said):
    folder = make_study(trials=12, epochs="3", stop="none", max_steps=steps)

    write_report(folder)

    words = words_of(page_of(folder))
    assert said in words
    assert "Not finished." in words
    assert "could not be made" not in words


@pytest.mark.parametrize(("trials", "is_said"), [(1, False), (3, True)])
def test_one_is_told_to_widen_a_range_only_by_enough_trials(make_study, page_of, trials, is_said):
    space = (
        "data: {wafers: synthetic, image_size: 16, epoch_samples: 256}\nspace: {epochs: 2, lr: [0.01, 0.02, 0.03]}\n"
        "search: {trials: %(trials)s, stop: none}\nfirst: [{lr: 0.01}]"
    )
    folder = make_study(space=space, trials=trials)

    write_report(folder)

    assert ("next time" in words_of(page_of(folder))) == is_said


def left_higher(assignment, epoch):
    """Let trial 1 be better than trial 0 at once, and trial 0 end first."""
    return 0.2 + 0.8 * assignment.number


def test_a_trial_that_was_left_above_the_winner_is_named_and_called_interrupted(make_study, page_of):
    folder = make_study(trials=3, epochs="4", stop="none", quality_of=left_higher, max_steps=7)

    write_report(folder)

    words = words_of(page_of(folder))
    assert "Trial 1, not finished, stood at 60.00 after 3 of 4 epochs; the same command goes on with it." in words
    assert "1 ran to their end, 1 interrupted" in words
    assert re.search(r" 1 interrupted 3 / 4 60\.00 ", words)


def test_a_search_in_which_all_failed_says_so(make_study, page_of):
    def quality(assignment, epoch):
        raise TrialFailed("diverged", "loss became nan")

    folder = make_study(trials=4, quality_of=quality)

    write_report(folder)

    words = words_of(page_of(folder))
    assert "No winner yet" in words
    assert "4 infeasible" in words
    assert "infeasible 4 loss became nan" in words
    assert "could not be made" not in words


@pytest.mark.parametrize("objective", ["{weights: {Center: 2, none: 1}, over: ema}", "{over: mean_last_3}"])
def test_one_trial_and_any_objective_make_a_page(make_study, page_of, objective):
    folder = make_study(trials=1, stop="none", objective=objective)

    write_report(folder)

    words = words_of(page_of(folder))
    assert "there is nothing to compare with" in words
    assert "its last epoch alone" in words
    assert "Importance: not measured." in words
    assert "could not be made" not in words


def test_a_space_of_one_configuration_has_no_parameters_to_show(make_study, page_of):
    space = (
        "data: {wafers: synthetic, image_size: 16, epoch_samples: 256}\nspace: {epochs: 3, lr: 0.01}\n"
        "search: {trials: 2}\n# %(trials)s"
    )
    folder = make_study(space=space)

    write_report(folder)

    words = words_of(page_of(folder))
    assert "a single configuration: nothing was searched" in words
    assert "Along each parameter" not in words
    assert "could not be made" not in words


def test_the_locked_test_is_told_once_it_was_opened(small, page_of):
    folder = small
    confusion = [[90, 10, 0], [0, 95, 5], [2, 0, 98]]
    per_class = dict.fromkeys(("Center", "Edge-Ring", "none"), 0.9)
    look = {f"test_{name}": per_class for name in ("precision", "recall", "f1", "balanced_f1")}
    look |= {"when": "2026-11-24", "model": "abc", "test_macro_f1": 0.94, "test_balanced_macro_f1": 0.94}
    look |= {"test_support": dict.fromkeys(per_class, 100), "test_accuracy": 0.9433, "test_confusion": confusion}
    folder.final.mkdir()
    write_json(folder.final / "test.json", {"format": 1, "looks": [look]})

    write_report(folder)
    once = words_of(page_of(folder))
    write_json(folder.final / "test.json", {"format": 1, "looks": [look, look]})
    write_report(folder)
    twice = words_of(page_of(folder))

    assert re.search(
        r"Locked test: balanced macro-F1 94\.\d\d % \( ?9\d\.\d to 9\d\.\d, 95 %\) on 300 wafers, opened once", once
    )
    assert "The locked test was not opened" not in once
    assert "opened 2 times; this is the first look" in twice
    assert "Every look" in twice
    assert "another model" not in twice

    (folder.final / "model.pt").write_bytes(b"trained since")
    write_report(folder)
    other = words_of(page_of(folder))
    assert "the locked test was about another model" in other
    assert other.count("That was another model: the final one was trained since, or again.") == 2

    look["model"] = fingerprint_file(folder.final / "model.pt")
    write_json(folder.final / "test.json", {"format": 1, "looks": [look]})
    final = {"trial": 99, "on": "train", "epochs": 3, "seeds": [0], "seconds": 1.0, "device": "cpu"}
    write_json(folder.final / "metrics.json", final)
    write_report(folder)
    assert "That was a model of trial 99, before trial" in words_of(page_of(folder))


def test_the_hardest_wafers_are_shown_from_the_folder_alone(small, page_of, random):
    folder = small
    leader = int(re.search(r"trial (\d+)", _winner_of(folder, page_of))[1])
    cells = random.integers(0, 3, size=(26, 21), dtype=np.uint8)
    hard = HardWafer(index=7, lot="lot <7>", actual=0, called=2, probability=0.97, map=cells)
    labels = np.array([0, 1, 1, 2])
    winner = Winner(
        trial=leader,
        split_fingerprint="ba9876543210",
        n_val=4,
        indices=np.arange(4),
        labels=labels,
        probabilities=np.eye(3, dtype=np.float16)[[2, 1, 1, 2]],
        hardest=(hard,),
    )

    folder.winner.write_bytes(to_bytes(winner))
    write_report(folder)

    words = words_of(page_of(folder))
    assert "calls 1 of 4 validation wafers wrong" in words
    assert re.search(r"actual: Center .*→ none 97 % lot <7>", words)
    assert "No wafer of Edge-Ring and none is called wrong." in words
    assert (folder.figures / "hardest_wafers.png").exists()


def _winner_of(folder, page_of):
    write_report(folder)
    page = words_of(page_of(folder))
    return page[page.index("Winner:") :]


def test_wafers_of_another_winner_are_not_shown(small, page_of):
    folder = small
    folder.winner.write_bytes(b"damaged")

    write_report(folder)

    assert "winner.npz is damaged, or of another trial" in words_of(page_of(folder))


def test_a_folder_of_before_marks_still_makes_a_page(small, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(small.path, old)
    provenance = read_json(old / "provenance.json")
    del provenance["data"]["leaky"], provenance["data"]["protocol"]
    write_json(old / "provenance.json", provenance)

    write_report(type(small)(old))

    assert "could not be made" not in (old / "report.html").read_text("utf-8")
