"""The commands, as a user types them: real processes, real Ray, the shipped space that shows that all works."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import configs
from search.study.best import load_best

pytestmark = pytest.mark.slow
DIVERGING = """
name: diverging
data: {wafers: synthetic, synthetic_wafers: 800, image_size: 16, epoch_samples: 600}
space:
  epochs: 8
  optimizer: {choose: {sgd: {momentum: 0.99}}}
  precision: fp32
  weight_decay: 1.0
  sampling: {choose: {imbalanced: {}, balanced: {}}}
  model: {choose: {wafer_cnn: {width: [4, 6], lr: 10.0, batch_size: [32, 64]}}}
search: {trials: 3, stop: {asha: {first_rung: 1 epoch, factor: 2}}}
"""


def rows_of(study):
    return [json.loads(line) for line in (study / "trials.jsonl").read_text("utf-8").splitlines()]


def states_of(study):
    """How each trial ended, by its number, from its last row."""
    return {row["trial"]: row["status"] for row in rows_of(study)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, run):
    """A folder of its own in which a shipped space was searched from start to end, retrained and evaluated."""
    folder = tmp_path_factory.mktemp("finished")
    searched = run("search.run", "--space", "smoke.yaml", "--no-dashboard", cwd=folder)
    retrained = run("search.retrain", "smoke-synthetic", cwd=folder)
    evaluated = run("search.evaluate", "smoke-synthetic", cwd=folder)
    return folder, searched, retrained, evaluated


def test_a_search_ends_with_a_best_configuration_and_the_next_command(finished):
    folder, searched, _, _ = finished
    study = folder / "results" / "smoke-synthetic"

    assert searched.returncode == 0, searched.stderr
    assert len(states_of(study)) == 6
    assert set(states_of(study).values()) <= {"complete", "stopped"}
    assert (study / "best.yaml").is_file()
    assert "python -m search.retrain smoke-synthetic" in searched.stdout
    assert "balanced F1" in searched.stdout


def test_a_search_on_synthetic_wafers_says_so_everywhere(finished):
    folder, searched, retrained, evaluated = finished
    study = folder / "results" / "smoke-synthetic"
    pages = [searched.stdout, retrained.stdout, evaluated.stdout]
    pages += [(study / name).read_text("utf-8") for name in ("best.yaml", "report.html")]

    assert all("SYNTHETIC" in page for page in pages)


def test_a_finished_search_is_understood_from_its_folder(finished, call):
    folder, *_ = finished

    status = call("search.status", "smoke-synthetic", "--json", cwd=folder)

    known = json.loads(status.stdout)
    assert (known["state"], known["trials_judged"], len(known["top"])) == ("finished", 6, 5)


def test_output_that_is_no_terminal_has_no_control_codes(finished):
    _, searched, retrained, evaluated = finished

    assert "\x1b" not in searched.stdout + retrained.stdout + evaluated.stdout


def test_a_retrain_yields_the_trial_again_bit_for_bit(finished):
    folder, _, retrained, _ = finished
    study = folder / "results" / "smoke-synthetic"
    of_trial = [row for row in rows_of(study) if row["trial"] == load_best(study / "best.yaml").trial]
    log = [json.loads(line) for line in (study / "final" / "epochs.jsonl").read_text("utf-8").splitlines()]
    shared = [key for key in log[0] if not key.endswith("_seconds") and key not in ("peak_memory", "seed")]

    assert retrained.returncode == 0, retrained.stderr
    assert [[row[key] for key in shared] for row in log] == [[row[key] for key in shared] for row in of_trial]


def test_the_model_file_loads_without_running_code(finished):
    folder, *_ = finished

    content = torch.load(folder / "results" / "smoke-synthetic" / "final" / "model.pt", weights_only=True)

    assert content["image_size"] == 24
    assert content["classes"][0] == "Center"


def test_the_ledger_counts_every_look_at_the_test_part(finished, call):
    folder, _, _, evaluated = finished

    again = call("search.evaluate", "smoke-synthetic", cwd=folder)

    assert evaluated.returncode == 0, evaluated.stderr
    assert "first look" in evaluated.stdout
    assert "look 2" in again.stdout
    ledger = json.loads((folder / "results" / "smoke-synthetic" / "final" / "test.json").read_text("utf-8"))
    assert len(ledger["looks"]) == 2


def test_studies_are_compared_by_what_evaluate_stored(finished, call, tmp_path):
    folder, *_ = finished
    study = folder / "results" / "smoke-synthetic"
    copy = shutil.copytree(study, tmp_path / "copy")

    compared = call("search.report", study, copy, "--out", tmp_path / "page.html", cwd=tmp_path)

    assert compared.returncode == 0, compared.stderr
    assert "smoke-synthetic and copy call every wafer the same" in compared.stdout
    assert "to their end" in (tmp_path / "page.html").read_text("utf-8")


def test_a_best_yaml_is_enough_to_train_on_all_but_test_without_validation_columns(finished, tmp_path, run):
    folder, *_ = finished
    best = tmp_path / "best.yaml"
    best.write_text((folder / "results" / "smoke-synthetic" / "best.yaml").read_text("utf-8"), "utf-8")

    retrained = run("search.retrain", "--config", best, "--on", "train+val", "--out", tmp_path / "out", cwd=tmp_path)

    assert retrained.returncode == 0, retrained.stderr
    assert "val loss" not in retrained.stdout
    assert "train loss" in retrained.stdout
    assert (tmp_path / "out" / "model.pt").is_file()


def test_the_model_is_shipped_and_used(finished, call):
    folder, *_ = finished
    final = folder / "results" / "smoke-synthetic" / "final"
    call("data_pipeline.synthesize", "--wafers", 600, "--seed", 9, "--out", "new.parquet", cwd=folder)

    shipped = call("search.export", "smoke-synthetic", "--check", 50, cwd=folder)
    called = call("search.predict", "smoke-synthetic", "new.parquet", cwd=folder)
    elsewhere = call("search.evaluate", "smoke-synthetic", "--data", "new.parquet", cwd=folder)

    assert (shipped.returncode, called.returncode, elsewhere.returncode) == (0, 0, 0), shipped.stderr + called.stderr
    assert "on 50 SYNTHETIC validation wafers" in shipped.stdout
    assert "balanced macro f1" in (final / "model_card.md").read_text("utf-8")  # from the ledger
    assert (final / "model.onnx").is_file()
    assert len((folder / "new.predictions.csv").read_text("utf-8").splitlines()) == 601
    assert "the locked test stays closed" in elsewhere.stdout
    assert (final / "external-new.json").is_file()


def test_the_page_is_made_from_the_folder_alone(finished, call):
    folder, *_ = finished
    page = folder / "results" / "smoke-synthetic" / "report.html"
    page.unlink()

    reported = call("search.report", folder / "results" / "smoke-synthetic", cwd="/")

    assert reported.returncode == 0, reported.stderr
    text = page.read_text("utf-8")
    assert "Locked test" in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_more_trials_extend_a_finished_search(finished, run):
    folder, *_ = finished

    extended = run("search.run", "--space", "smoke.yaml", "--no-dashboard", "--trials", 8, cwd=folder)

    assert extended.returncode == 0, extended.stderr
    assert sorted(states_of(folder / "results" / "smoke-synthetic")) == list(range(8))


BAD = {
    "a missing space": (["search.run", "--space", "nowhere.yaml"], "no shipped space of that name"),
    "a missing wafer file": (["search.run", "--space", "smoke", "--data", "nowhere.npz"], "no such file"),
    "a wrong wafer file": (["search.run", "--space", "smoke", "--data", "wrong.npz"], "damaged or not a wafer file"),
    "another kind of file": (["search.run", "--space", "smoke", "--data", "three.yaml"], "unknown kind of file"),
    "zero trials": (["search.run", "--space", "smoke", "--trials", "0"], "search.trials: must be >= 1"),
    "a bad duration": (["search.run", "--space", "smoke", "--time", "soon"], "must be a duration"),
    "a study elsewhere": (["search.run", "--space", "smoke", "--study", "../up"], "--study: must be letters"),
    "an unknown model": (["search.run", "--space", "model.yaml"], "did you mean 'efficientnet_b0'"),
    "three mistakes": (["search.run", "--space", "three.yaml"], "3 problems"),
    "an unknown class": (["search.run", "--space", "class.yaml"], "did you mean 'Scratch'"),
    "no write permission": (["search.run", "--space", "smoke", "--results", "wrong.npz/below"], "cannot be written"),
    "an unknown study": (["search.retrain", "nowhere"], "no study there"),
    "a study without a model": (["search.evaluate", "nowhere"], "no study there"),
    "a bad best.yaml": (["search.retrain", "--config", "three.yaml", "--out", "out"], "must be a best.yaml"),
    "no such cluster": (["search.run", "--space", "smoke", "--address", "127.0.0.1:1"], "no Ray cluster there"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_message_and_leaves_nothing_behind(tmp_path, call, case):
    arguments, message = BAD[case]
    (tmp_path / "wrong.npz").write_bytes(b"not an archive")
    (tmp_path / "three.yaml").write_text("space: {epochs: 0, lr: fast, modle: x}\n", "utf-8")
    (tmp_path / "model.yaml").write_text("space: {model: {choose: {efficientnet_bo: {}}}}\n", "utf-8")
    (tmp_path / "class.yaml").write_text(
        "data: {wafers: synthetic, synthetic_wafers: 800}\nspace: {epochs: 3}\nobjective: {weights: {Scrath: 1}}\n",
        "utf-8",
    )
    before = {path.name for path in tmp_path.iterdir()}

    refused = call(*arguments, cwd=tmp_path)

    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert message in refused.stderr
    left = {path.name for path in tmp_path.iterdir()} - before
    assert not any(path.is_file() for name in left for path in (tmp_path / name).rglob("study.journal"))


def test_a_changed_space_is_refused_with_what_differs(finished, call):
    folder, *_ = finished
    smoke = (Path(configs.__file__).parent / "smoke.yaml").read_text("utf-8")
    (folder / "other.yaml").write_text(smoke.replace("epoch_samples: 1500", "epoch_samples: 1600"), "utf-8")

    refused = call("search.run", "--space", "other.yaml", "--no-dashboard", cwd=folder)

    assert refused.returncode == 2
    assert "data.epoch_samples: was 1500, is 1600" in refused.stderr


def test_configurations_that_diverge_are_infeasible_and_nothing_is_best(tmp_path, run):
    (tmp_path / "diverging.yaml").write_text(DIVERGING, "utf-8")

    searched = run("search.run", "--space", "diverging.yaml", "--no-dashboard", cwd=tmp_path)

    assert searched.returncode == 0, searched.stderr
    assert "3 infeasible" in searched.stdout
    assert "no trial ran to its end, so there is no best.yaml" in searched.stdout
    study = tmp_path / "results" / "diverging-synthetic"
    assert sum("loss became" in row["reason"] for row in rows_of(study)) == 3
    assert not (study / "best.yaml").exists()
    assert (study / "report.html").is_file()
