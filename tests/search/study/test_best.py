"""best.yaml: what a search writes, what a hand may change in it, and what it may not."""

from pathlib import Path

import pytest

from search.errors import ConfigError, TrialFailed
from search.space.strict_yaml import read_yaml
from search.study.best import load_best, write_best
from search.testing import drive, quality_by_lr

# Twelve hex digits may look like a number.
DATA = {"synthetic": True, "drawn": False, "fingerprint": "123456789012", "split_fingerprint": "1e1234567890"}


@pytest.fixture(scope="module")
def study(new_folder, make_config, open_study):
    """A closed study of six trials, all complete; each test writes its own best.yaml there."""
    with open_study(new_folder(), make_config()) as study:
        drive(study, quality_of=quality_by_lr)
    return study


@pytest.fixture
def edit(study):
    """Write best.yaml, and replace some text in it."""

    def replace(*pairs):
        write_best(study, DATA)
        text = study.folder.best.read_text("utf-8")
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        study.folder.best.write_text(text, "utf-8")
        return study.folder.best

    return replace


def problems_of(path):
    """Load a bad best.yaml; return what is said, without file and line numbers."""
    with pytest.raises(ConfigError) as caught:
        load_best(path)
    first, *others = str(caught.value).removeprefix(str(path)).splitlines()
    return [line.strip().lstrip(":0123456789").strip() for line in others or [first]]


def test_the_best_trial_is_written_and_read_back(study):
    record = write_best(study, DATA)

    best = load_best(study.folder.best)

    assert record is study.best
    assert (best.study, best.trial) == ("a-study", record.number)
    assert (best.data_fingerprint, best.split_fingerprint) == ("123456789012", "1e1234567890")
    assert best.data == study.config.data
    assert best.cpu_threads == 1
    assert best.params.lr == record.config["lr"]
    assert best.params.model.name == record.config["model"]


def test_the_written_configuration_is_whole(study):
    write_best(study, DATA)

    params = read_yaml(study.folder.best)[0]["params"]

    best = load_best(study.folder.best)
    assert params == best.params.to_flat()
    assert {"precision", "seed", "sampling", "augment", "loss", "optimizer", "schedule"} <= params.keys()


def test_comments_say_where_it_comes_from_and_what_it_scored(study):
    record = write_best(study, DATA)

    comment = study.folder.best.read_text("utf-8").partition("\nformat:")[0]

    assert all(line.startswith("# ") for line in comment.splitlines())
    assert "best of study a-study on SYNTHETIC wafers: 6 ran to their end, 0 were stopped" in comment
    assert f"Trial {record.number} after 4 nominal epochs of 256 wafers" in comment
    assert f"balanced_macro_f1 {record.value:.4f}" in comment
    assert all(f"\n#   {name} " in comment for name in study.classes)
    assert f"python -m search.retrain {study.folder.in_commands}" in comment


def test_real_wafers_are_not_called_synthetic(study):
    write_best(study, DATA | {"synthetic": False})

    text = study.folder.best.read_text("utf-8")
    assert "SYNTHETIC" not in text
    assert "LEAKY" not in text
    assert "validation wafers of other lots, one seed" in text


def test_a_leaky_split_is_called_so(study):
    write_best(study, DATA | {"leaky": "LEAKY (random): wafers of one lot stand in training and test"})

    text = study.folder.best.read_text("utf-8")
    assert "best of study a-study on SYNTHETIC, LEAKY wafers: " in text
    assert "\n# LEAKY (random): wafers of one lot stand in training and test: no number here says" in text
    assert "of other lots" not in text


def test_the_wafers_are_found_from_any_folder(folder, load, open_study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load("data: {wafers: some/wafers.npz, image_size: 16}\nspace: {epochs: 1, lr: 1e-3}\nsearch: {trials: 1}")
    with open_study(folder, config) as study:
        drive(study, quality_of=quality_by_lr)
        write_best(study, DATA | {"synthetic": False})

    assert Path(load_best(folder.best).data.wafers) == tmp_path / "some" / "wafers.npz"


def test_wafers_that_were_drawn_are_drawn_again(folder, load, open_study):
    config = load("data: {wafers: auto, image_size: 16}\nspace: {epochs: 1, lr: 1e-3}\nsearch: {trials: 1}")
    with open_study(folder, config) as study:
        drive(study, quality_of=quality_by_lr)
        write_best(study, DATA | {"drawn": True})

    assert load_best(folder.best).data.wafers == "synthetic"


def test_synthetic_wafers_that_lie_in_a_file_stay_that_file(folder, load, open_study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wafers, expected in (("auto", "auto"), ("some.npz", str(tmp_path / "some.npz"))):
        space = f"data: {{wafers: {wafers}, image_size: 16}}\nspace: {{epochs: 1, lr: 1e-3}}\nsearch: {{trials: 1}}"
        with open_study(type(folder)(tmp_path / wafers), load(space)) as study:
            drive(study, quality_of=quality_by_lr)
            write_best(study, DATA)

        assert load_best(study.folder.best).data.wafers == expected


def test_without_a_complete_trial_nothing_is_written(folder, make_config, open_study):
    def quality_of(assignment, epoch):
        raise TrialFailed("diverged", "loss became nan")

    with open_study(folder, make_config()) as study:
        drive(study, quality_of=quality_of)
        record = write_best(study, DATA)

    assert record is None
    assert not folder.best.exists()


def test_what_a_hand_may_change_is_read(edit):
    path = edit(("epochs: 4", "epochs: 30"), ("seed: 0\n  sampling", "seed: 5\n  sampling"))

    best = load_best(path)

    assert (best.params.epochs, best.params.seed) == (30, 5)


@pytest.mark.parametrize(
    ("pairs", "problems"),
    [
        ([("format: 2", "format: 1")], ["must be a best.yaml of format 2, as a search writes it"]),
        ([("format: 2\n", "")], ["must be a best.yaml of format 2, as a search writes it"]),
        ([("trial:", "trail:")], ["lacks trial", "trail: unknown key; did you mean 'trial'? (known: "]),
        ([("study: a-study\n", "")], ["lacks study"]),
        ([("study: a-study", "study: 5")], ["study: must be a word; got 5"]),
        ([("study: a-study", "study: null")], ["study: must be a word; got None"]),
        ([("cpu_threads: 1\n", "")], ["lacks cpu_threads"]),
        ([("cpu_threads: 1", "cpu_threads: 0")], ["cpu_threads: must be a whole number from 1; got 0"]),
        ([("cpu_threads: 1", "cpu_threads: many")], ["cpu_threads: must be a whole number from 1; got 'many'"]),
        ([("'123456789012'", "123456789012")], ["data_fingerprint: must be a word; got 123456789012"]),
        ([("image_size: 16", "image_size: 4")], ["data.image_size: must be >= 8; got 4"]),
        ([("image_size: 16", "img_size: 16")], ["data.img_size: unknown key; did you mean 'image_size'? (known: "]),
        (
            [("study: a-study", "study: 5"), ("cpu_threads: 1", "cpu_threads: 0"), ("image_size: 16", "image_size: 4")],
            [
                "study: must be a word; got 5",
                "data.image_size: must be >= 8; got 4",
                "cpu_threads: must be a whole number from 1; got 0",
            ],
        ),
        ([("epochs: 4", "epochs: 0")], ["params: epochs: must be a whole number in [1, 10000]; got 0"]),
        ([("epochs: 4", "epoch: 4")], ["params: epoch: unknown key; did you mean 'epochs'? (known: "]),
        ([("epochs: 4", "epochs: [4]")], ["params: epochs: must be a whole number in [1, 10000]; got [4]"]),
        ([("sampling: imbalanced", "sampling: [a]")], ["params: sampling: unknown sampling ['a']; known: balanced, "]),
        (
            [("epochs: 4", "epochs: 0"), ("precision: auto", "precision: fp8"), (": imbalanced", ": some")],
            [
                "epochs: must be a whole number in [1, 10000]; got 0",
                "precision: must be one of auto, fp32, bf16; got 'fp8'",
                "sampling: unknown sampling 'some'; known: balanced, effective_number, imbalanced, per_class, power, "
                "progressive",
            ],
        ),
    ],
)  # fmt: skip
def test_a_bad_edit_is_named(edit, pairs, problems):
    found = problems_of(edit(*pairs))

    assert len(found) == len(problems)
    assert all(line.startswith(start) for line, start in zip(found, problems, strict=True))


def test_params_that_are_no_mapping_are_named(study):
    write_best(study, DATA)
    text = study.folder.best.read_text("utf-8")
    study.folder.best.write_text(text.partition("\nparams:")[0] + "\nparams: all of them\n", "utf-8")

    assert problems_of(study.folder.best) == ["params: must be a mapping; got 'all of them'"]


@pytest.mark.parametrize("text", ["", "just words", "[1]", "format: best"])
def test_a_file_that_is_no_best_yaml_is_named(tmp_path, text):
    (tmp_path / "best.yaml").write_text(text)

    assert problems_of(tmp_path / "best.yaml") == ["must be a best.yaml of format 2, as a search writes it"]


def test_a_best_yaml_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"best\.yaml: cannot be read \(No such file or directory\)"):
        load_best(tmp_path / "best.yaml")
