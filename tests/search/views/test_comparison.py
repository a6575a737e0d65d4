import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from search import report
from search.errors import ConfigError
from search.study.predictions import NAME, Origin, Predictions, read_predictions, write_predictions
from search.study.records import StudyFolder, write_json
from search.views.comparison import default_name, write_comparison
from search.views.contenders import compare_studies

CLASSES = ("가장자리", "<b>Loc</b>", "none")
ORIGIN = Origin(
    study="a",
    model="0123456789ab",
    data_fingerprint="d" * 12,
    split_fingerprint="5" * 12,
    protocol="lot",
    synthetic=False,
    leaky="",
    when="2026-11-24T12:00:00+00:00",
    on="train",
    n_parameters=12345,
    config={"model": "wafer_cnn", "model.wafer_cnn.lr": 0.00123456, "sampling": "balanced"},
)


def make_predictions(*, n=600, right=0.8, seed=1, lots=30, origin=ORIGIN, present=3):
    """Predictions on wafers that are the same for every model; `lots` 0 makes every wafer its own."""
    share = np.array([0.2, 0.2, 0.6])[:present]
    labels = np.random.default_rng(0).choice(present, p=share / share.sum(), size=n)
    random = np.random.default_rng(seed)
    predicted = np.where(random.random(n) < right, labels, (labels + random.integers(1, 3, size=n)) % 3)
    probabilities = np.full((n, 3), 0.1, dtype=np.float32)
    probabilities[np.arange(n), predicted] = 0.8
    return Predictions(
        origin=origin,
        classes=CLASSES,
        wafers=np.arange(1000, 1000 + n),
        lots=[f"lot {i % lots if lots else i}" for i in range(n)],
        labels=labels,
        probabilities=probabilities,
        predicted=predicted,
    )


def make_study(folder, predictions=None, *, looks=1):
    """A study's folder as search, retrain and evaluate leave it, without its model."""
    study = StudyFolder(folder)
    attempt = {"started": "", "host": "", "device": "2 CPU cores", "command": "", "versions": {}}
    data = {"fingerprint": "d" * 12, "split_fingerprint": "5" * 12}
    write_json(study.provenance, {"format": 1, "study": study.name, "data": data, "attempts": [attempt]})
    if predictions is not None:
        write_predictions(predictions, study.final / NAME)
        write_json(study.final / "test.json", {"format": 1, "looks": [{"when": "now"}] * looks})
        epochs = {"epochs": 4, "seconds": 61.0, "device": "x86_64 CPU"}
        write_json(study.final / "metrics.json", epochs)
    return study


def write_page(*studies, out):
    """The page and what the terminal says."""
    console = Console(file=io.StringIO(), width=100)
    write_comparison(studies, console, out=out)
    return out.read_text("utf-8"), console.file.getvalue()


@pytest.fixture
def pair(tmp_path):
    """A good model and a bad one on the same wafers."""
    good, bad = make_predictions(right=0.9), make_predictions(right=0.6, seed=2)
    return make_study(tmp_path / "good", good), make_study(tmp_path / "bad", bad, looks=3)


def test_stored_predictions_are_read_back_as_they_were(tmp_path):
    stored = make_predictions()
    study = make_study(tmp_path / "a", stored)

    found = read_predictions(study)

    assert (found.origin, found.classes, list(found.lots)) == (stored.origin, stored.classes, list(stored.lots))
    for name in ("wafers", "labels", "predicted", "probabilities"):
        np.testing.assert_array_equal(getattr(found, name), getattr(stored, name))
    assert found.probabilities.dtype == np.float32


def test_a_better_model_is_called_better_in_page_and_terminal(pair, tmp_path):
    page, said = write_page(*pair, out=tmp_path / "page.html")

    assert "good is better than bad in balanced macro-F1" in page
    assert "good is better than bad in macro-F1" in said
    assert "p &lt; 0.01" in page


def test_the_comparison_counts_who_is_right(pair):
    comparison = compare_studies(pair)
    (one,) = comparison.pairs
    a, b = (contender.predictions.predicted == contender.predictions.labels for contender in comparison.contenders)

    assert one.right == ((a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum())
    assert sum(one.right) == comparison.n_wafers == 600
    assert (one.only_first.sum(), one.only_second.sum()) == one.right[1:3]
    assert comparison.n_lots == 30
    assert one.headlines["macro_f1"].value == pytest.approx(
        comparison.contenders[0].scores.macro_f1 - comparison.contenders[1].scores.macro_f1
    )


def test_the_page_shows_scores_confusions_budgets_and_origins_of_both(pair, tmp_path):
    page, _ = write_page(*pair, out=tmp_path / "page.html")
    scores = compare_studies(pair).contenders[1].scores

    assert all(f"{100 * value:.2f}" in page for value in (*scores.precision, *scores.recall, *scores.f1))
    assert page.count('<table class="confusion">') == 2
    assert "12,345" in page
    assert "4 nominal epochs in 1:01, x86_64 CPU" in page
    assert page.count("0123456789ab") == 2


def test_words_cannot_become_markup_and_the_page_needs_no_network(pair, tmp_path):
    page, said = write_page(*pair, out=tmp_path / "page.html")

    assert "가장자리" in page
    assert "&lt;b&gt;Loc&lt;/b&gt;" in page
    assert "<b>Loc" not in page
    assert "http" not in page
    assert "<b>Loc</b>" in said


def test_data_that_says_nothing_is_shouted_in_both(tmp_path):
    leaky = replace(ORIGIN, synthetic=True, leaky="LEAKY (random): wafers of one lot stand in training and test")
    studies = [make_study(tmp_path / name, make_predictions(seed=i, origin=leaky)) for i, name in enumerate("ab")]

    texts = write_page(*studies, out=tmp_path / "page.html")

    assert all("SYNTHETIC wafers: no number here" in text and "LEAKY (random)" in text for text in texts)


def test_repeated_looks_and_a_newer_model_are_said(pair, tmp_path):
    (pair[0].final / "model.pt").write_bytes(b"another model")

    page, said = write_page(*pair, out=tmp_path / "page.html")

    assert "bad: its ledger counts 3 looks" in page
    assert "good: its final model was trained anew since" in said


def test_without_lots_wafers_are_drawn_and_that_is_said(tmp_path):
    studies = [make_study(tmp_path / name, make_predictions(seed=i, lots=0)) for i, name in enumerate("ab")]

    page, _ = write_page(*studies, out=tmp_path / "page.html")

    assert "draws of wafers within each class" in page
    assert "No lots are known" in page


def test_few_lots_tell_nothing_apart_and_that_is_said(tmp_path):
    studies = [
        make_study(tmp_path / name, make_predictions(seed=i, right=right, lots=4))
        for i, (name, right) in enumerate({"good": 0.95, "bad": 0.5}.items())
    ]

    page, _ = write_page(*studies, out=tmp_path / "page.html")

    assert "good and bad cannot be told apart in macro-F1" in page
    assert "4 lots are few" in page
    assert "In too few lots to be told apart by: 가장자리 (4)" in page


def test_equal_models_and_absent_classes_are_said(tmp_path):
    same = make_predictions(present=2)
    studies = [make_study(tmp_path / name, same) for name in "ab"]

    page, said = write_page(*studies, out=tmp_path / "page.html")

    assert "a and b call every wafer the same." in page
    assert "Without a test wafer, and in no mean: none." in said


def test_three_studies_are_compared_two_by_two(tmp_path):
    studies = [make_study(tmp_path / name, make_predictions(seed=i)) for i, name in enumerate("abc")]

    page, said = write_page(*studies, out=tmp_path / "page.html")

    assert [f"<h2>{title}</h2>" in page for title in ("A minus B", "A minus C", "B minus C")] == [True] * 3
    assert "B minus C" in said
    assert default_name(studies) == "comparison-a-b-c.html"


def test_studies_of_one_name_are_told_apart_by_their_folders(tmp_path):
    studies = [make_study(tmp_path / where / "same", make_predictions(seed=i)) for i, where in enumerate("xy")]

    page, _ = write_page(*studies, out=tmp_path / "page.html")

    assert f"{tmp_path}/x/same and {tmp_path}/y/same" in page


def test_other_wafers_are_refused_with_what_differs(tmp_path):
    other = replace(ORIGIN, split_fingerprint="6" * 12, protocol="random")
    studies = [make_study(tmp_path / "a", make_predictions())]
    studies.append(make_study(tmp_path / "b", make_predictions(origin=other)))

    with pytest.raises(ConfigError, match="split: a has 555555555555 \\(lot\\), b 666666666666 \\(random\\)"):
        compare_studies(studies)


def test_a_test_part_that_is_not_the_same_is_refused(tmp_path):
    studies = [make_study(tmp_path / name, make_predictions(n=n)) for name, n in (("a", 600), ("b", 599))]

    with pytest.raises(ConfigError, match="that of a and that of b are not the same"):
        compare_studies(studies)


def call(*arguments, capsys):
    code = report.main([str(argument) for argument in arguments])
    return code, capsys.readouterr()


def test_the_command_writes_the_page_beside_the_studies_or_where_it_is_told(pair, tmp_path, capsys):
    code, said = call("good", "bad", "--results", tmp_path, capsys=capsys)
    elsewhere, _ = call("good", "bad", "--results", tmp_path, "--out", tmp_path / "x" / "y.html", capsys=capsys)

    assert (code, elsewhere) == (0, 0)
    assert said.out.splitlines()[-1] == str(tmp_path / "comparison-good-bad.html")
    page = (tmp_path / "comparison-good-bad.html").read_text("utf-8")
    assert (tmp_path / "x" / "y.html").read_text("utf-8") == page
    assert "\x1b" not in said.out


def test_missing_and_damaged_predictions_are_refused_with_the_commands_to_run(pair, tmp_path, capsys):
    make_study(tmp_path / "unfinished")
    ready = make_study(tmp_path / "ready")
    ready.final.mkdir()
    (ready.final / "model.pt").write_bytes(b"")
    (pair[1].final / NAME).write_bytes(b"PAR1 torn")

    code, said = call("good", "unfinished", "ready", "bad", "--results", tmp_path, capsys=capsys)

    assert code == 2
    assert f"run `python -m search.retrain {tmp_path}/unfinished` and `python -m search.evaluate" in said.err
    assert f"run `python -m search.evaluate {tmp_path}/ready`" in said.err
    assert f"bad/final/{NAME}: is damaged" in said.err
    assert "evaluate" in said.err
    assert not (tmp_path / "comparison-good-unfinished-ready-bad.html").exists()


def test_what_cannot_be_asked_is_refused(pair, tmp_path, capsys):
    twice, said = call("good", tmp_path / "good", "--results", tmp_path, capsys=capsys)
    unwritable, error = call("good", "bad", "--results", tmp_path, "--out", tmp_path / "good", capsys=capsys)
    unknown, _ = call("good", "nowhere", "--results", tmp_path, capsys=capsys)
    with pytest.raises(SystemExit) as single:
        report.main(["good", "--results", str(tmp_path), "--out", "x.html"])

    assert (twice, unwritable, unknown, single.value.code) == (2, 2, 2, 2)
    assert "named twice" in said.err
    assert "cannot be written" in error.err


def test_predictions_of_another_format_are_refused(pair):
    table = pq.read_table(pair[0].final / NAME)
    pq.write_table(table.replace_schema_metadata({"predictions.format": "9"}), pair[0].final / NAME)

    with pytest.raises(ConfigError, match="holds no test predictions of format 1"):
        compare_studies(pair)


def test_the_file_can_be_used_without_us(pair):
    frame = pd.read_parquet(pair[0].final / NAME)

    assert list(frame.columns) == ["wafer", "lot", "label", "predicted", *(f"probability {name}" for name in CLASSES)]
    assert set(frame["label"]) <= set(CLASSES)
    assert frame["wafer"].iloc[0] == 1000
