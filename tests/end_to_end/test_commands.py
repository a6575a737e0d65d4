"""The commands, as a user types them: real processes, real Ray, a tiny study on synthetic wafers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
TINY = """
name: tiny
data: {wafers: synthetic, synthetic_wafers: 800, image_size: 16, epoch_samples: 600}
space:
  epochs: [2, 4]
  sampling: {choose: {imbalanced: {}, balanced: {}}}
  model: {choose: {wafer_cnn: {width: [4, 6], lr: {low: 1e-3, high: 1e-2, log: true}, batch_size: [32, 64]}}}
search: {trials: 5, stop: {asha: {first_rung: 1 epoch, factor: 2}}}
"""


def run(*arguments, cwd, timeout=240):
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)


def search(folder, *extra, timeout=240):
    return run("search.run", "--space", folder / "tiny.yaml", "--no-dashboard", *extra, cwd=folder, timeout=timeout)


def rows_of(study):
    return [json.loads(line) for line in (study / "trials.jsonl").read_text("utf-8").splitlines()]


def states_of(study):
    """How each trial ended, by its number, from its last row."""
    return {row["trial"]: row["status"] for row in rows_of(study)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which a search was run from start to end, retrained and evaluated."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY, "utf-8")
    searched = search(folder)
    retrained = run("search.retrain", "tiny-synthetic", cwd=folder)
    evaluated = run("search.evaluate", "tiny-synthetic", cwd=folder)
    return folder, searched, retrained, evaluated


def test_a_search_ends_with_a_best_configuration_and_the_next_command(finished):
    folder, searched, _, _ = finished
    study = folder / "results" / "tiny-synthetic"

    assert searched.returncode == 0, searched.stderr
    assert len(states_of(study)) == 5
    assert set(states_of(study).values()) <= {"complete", "stopped"}
    assert (study / "best.yaml").is_file()
    assert "python -m search.retrain tiny-synthetic" in searched.stdout
    assert "balanced F1" in searched.stdout


def test_a_search_on_synthetic_wafers_says_so_everywhere(finished):
    folder, searched, retrained, evaluated = finished
    study = folder / "results" / "tiny-synthetic"
    pages = [searched.stdout, retrained.stdout, evaluated.stdout]
    pages += [(study / name).read_text("utf-8") for name in ("best.yaml", "report.html")]

    assert all("SYNTHETIC" in page for page in pages)


def test_output_that_is_no_terminal_has_no_control_codes(finished):
    _, searched, retrained, evaluated = finished

    assert "\x1b" not in searched.stdout + retrained.stdout + evaluated.stdout


def test_a_retrain_yields_the_trial_again_bit_for_bit(finished):
    folder, _, retrained, _ = finished
    study = folder / "results" / "tiny-synthetic"
    best = max((row for row in rows_of(study) if row["status"] == "complete"), key=lambda row: row["objective"])
    of_trial = [row for row in rows_of(study) if row["trial"] == best["trial"]]
    log = [json.loads(line) for line in (study / "final" / "epochs.jsonl").read_text("utf-8").splitlines()]
    shared = [key for key in log[0] if not key.endswith("_seconds") and key != "peak_memory"]

    assert retrained.returncode == 0, retrained.stderr
    assert [[row[key] for key in shared] for row in log] == [[row[key] for key in shared] for row in of_trial]


def test_the_model_file_loads_without_running_code(finished):
    folder, *_ = finished

    content = torch.load(folder / "results" / "tiny-synthetic" / "final" / "model.pt", weights_only=True)

    assert content["image_size"] == 16
    assert content["classes"][0] == "Center"


def test_the_ledger_counts_every_look_at_the_test_part(finished):
    folder, _, _, evaluated = finished

    again = run("search.evaluate", "tiny-synthetic", cwd=folder)

    assert evaluated.returncode == 0, evaluated.stderr
    assert "first look" in evaluated.stdout
    assert "look 2" in again.stdout
    ledger = json.loads((folder / "results" / "tiny-synthetic" / "final" / "test.json").read_text("utf-8"))
    assert len(ledger["looks"]) == 2


def test_training_on_train_and_validation_prints_no_validation_columns(finished, tmp_path):
    folder, *_ = finished

    retrained = run("search.retrain", "tiny-synthetic", "--on", "train+val", "--out", tmp_path / "both", cwd=folder)

    assert retrained.returncode == 0, retrained.stderr
    assert "val loss" not in retrained.stdout
    assert "train loss" in retrained.stdout
    assert (tmp_path / "both" / "model.pt").is_file()


def test_a_best_yaml_is_enough_to_retrain(finished, tmp_path):
    folder, *_ = finished
    best = tmp_path / "best.yaml"
    best.write_text((folder / "results" / "tiny-synthetic" / "best.yaml").read_text("utf-8"), "utf-8")

    retrained = run("search.retrain", "--config", best, "--out", tmp_path / "out", cwd=tmp_path)

    assert retrained.returncode == 0, retrained.stderr
    assert (tmp_path / "out" / "model.pt").is_file()


def test_the_page_is_made_from_the_folder_alone(finished):
    folder, *_ = finished
    page = folder / "results" / "tiny-synthetic" / "report.html"
    page.unlink()

    reported = run("search.report", folder / "results" / "tiny-synthetic", cwd="/")

    assert reported.returncode == 0, reported.stderr
    text = page.read_text("utf-8")
    assert "Locked test" in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_more_trials_extend_a_finished_search(finished):
    folder, *_ = finished

    extended = search(folder, "--trials", 7)

    assert extended.returncode == 0, extended.stderr
    assert sorted(states_of(folder / "results" / "tiny-synthetic")) == list(range(7))


def test_a_shipped_space_is_found_from_any_folder(tmp_path):
    searched = run("search.run", "--space", "smoke.yaml", "--no-dashboard", "--trials", 2, cwd=tmp_path)

    assert searched.returncode == 0, searched.stderr
    assert (tmp_path / "results" / "smoke-synthetic" / "best.yaml").is_file()


def test_a_search_that_was_interrupted_goes_on_with_the_same_command(tmp_path):  # test_chaos.py has the rougher ends
    (tmp_path / "tiny.yaml").write_text(TINY.replace("trials: 5", "trials: 8"), "utf-8")
    study = tmp_path / "results" / "tiny-synthetic"
    command = [sys.executable, "-m", "search.run", "--space", "tiny.yaml", "--no-dashboard"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env=os.environ | {"COLUMNS": "120"})
        wait_for_rows(study / "trials.jsonl", 5)
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=120)
    before = rows_of(study)

    again = search(tmp_path)

    assert code == 130
    assert again.returncode == 0, again.stderr
    assert sorted(states_of(study)) == list(range(8))
    assert "running" not in states_of(study).values()
    assert rows_of(study)[: len(before) - 1] == before[:-1]
    steps = [(row["trial"], row["epoch"]) for row in rows_of(study)]
    assert len(steps) == len(set(steps))


def wait_for_rows(path, n):
    end = time.monotonic() + 120
    while not path.exists() or len(path.read_text("utf-8").splitlines()) < n:
        assert time.monotonic() < end, "the search reported nothing"
        time.sleep(0.05)


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
def test_bad_input_gets_one_clear_message_and_leaves_nothing_behind(tmp_path, case):
    arguments, message = BAD[case]
    (tmp_path / "wrong.npz").write_bytes(b"not an archive")
    (tmp_path / "three.yaml").write_text("space: {epochs: 0, lr: fast, modle: x}\n", "utf-8")
    (tmp_path / "model.yaml").write_text("space: {model: {choose: {efficientnet_bo: {}}}}\n", "utf-8")
    (tmp_path / "class.yaml").write_text(
        "data: {wafers: synthetic, synthetic_wafers: 800}\nspace: {epochs: 3}\nobjective: {weights: {Scrath: 1}}\n",
        "utf-8",
    )
    before = {path.name for path in tmp_path.iterdir()}

    refused = run(*arguments, cwd=tmp_path)

    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
    left = {path.name for path in tmp_path.iterdir()} - before
    assert not any(path.is_file() for name in left for path in (tmp_path / name).rglob("study.journal"))


def test_a_changed_space_is_refused_with_what_differs(finished):
    folder, *_ = finished
    (folder / "other.yaml").write_text(TINY.replace("epoch_samples: 600", "epoch_samples: 700"), "utf-8")

    refused = run("search.run", "--space", "other.yaml", "--no-dashboard", cwd=folder)

    assert refused.returncode == 2
    assert "data.epoch_samples: was 600, is 700" in refused.stderr


def test_configurations_that_diverge_are_infeasible_and_nothing_is_best(tmp_path):
    diverging = TINY.replace("lr: {low: 1e-3, high: 1e-2, log: true}", "lr: 10.0")
    explosive = "optimizer: {choose: {sgd: {momentum: 0.99}}}\n  precision: fp32\n  weight_decay: 1.0"
    diverging = diverging.replace("space:", f"space:\n  {explosive}").replace("epochs: [2, 4]", "epochs: 8")
    (tmp_path / "tiny.yaml").write_text(diverging, "utf-8")

    searched = search(tmp_path, "--trials", 3)

    assert searched.returncode == 0, searched.stderr
    assert "3 infeasible" in searched.stdout
    assert "no trial ran to its end, so there is no best.yaml" in searched.stdout
    study = tmp_path / "results" / "tiny-synthetic"
    assert sum("loss became" in row["reason"] for row in rows_of(study)) == 3
    assert not (study / "best.yaml").exists()
    assert (study / "report.html").is_file()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the worker through Linux's /proc")
def test_a_killed_worker_costs_a_retry_and_no_trial(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY.replace("epochs: [2, 4]", "epochs: 60"), "utf-8")
    study = tmp_path / "results" / "tiny-synthetic"
    command = [sys.executable, "-m", "search.run", "--space", "tiny.yaml", "--no-dashboard"]
    mark = f"WAFER_TEST={tmp_path}"
    with (tmp_path / "log").open("w") as log:
        environment = os.environ | {"WAFER_TEST": str(tmp_path)}
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env=environment)
        try:
            wait_for_rows(study / "trials.jsonl", 3)
            os.kill(workers_marked(mark)[0], signal.SIGKILL)
            code = process.wait(timeout=200)
        finally:
            process.kill()
            process.wait()

    assert code == 0, (tmp_path / "log").read_text()
    states = list(states_of(study).values())
    assert states.count("failed") == 1
    assert len(states) - 1 == 5


def workers_marked(mark):
    """The processes of slots that were started with this environment, so that nobody else's are killed."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        # Ray shows the class while a slot waits, and Tune's wrapper around it while one trains.
        if name.startswith((b"ray::WaferTrial", b"ray::_Inner.train")) and mark.encode() in environment:
            found.append(int(folder.name))
    return found
