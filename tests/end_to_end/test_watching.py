"""Watching a search from outside: Ray's metrics endpoint while it runs, TensorBoard and optuna-dashboard afterwards."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.slow
SPACE = """
name: watched
data: {wafers: synthetic, synthetic_wafers: 800, image_size: 16, epoch_samples: 600}
space:
  epochs: 4
  weight_decay: [0.0, 1.0]
  optimizer: {choose: {adamw: {}, sgd: {momentum: 0.99}}}
  model: {choose: {wafer_cnn: {width: [4, 6], lr: {low: 1e-3, high: 10.0, log: true}, batch_size: 64}}}
constraints: ["f1[none] >= 0.01"]
first: [{optimizer: sgd, weight_decay: 1.0, model.wafer_cnn.lr: 10.0}]
search: {trials: 10000, sampler: random}
"""
PATIENCE_S = 240  # of waiting for what comes within seconds on a free machine
TOKEN = "a-token-of-a-test-0123456789abcdef0123456789abcdef"


def fetch(url, *, token=""):
    """Read a page of a process on this machine; None if it does not answer yet."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()
    except (OSError, http.client.HTTPException):
        return None


def wait_for(look, what):
    """Look again and again until there is something to see."""
    end = time.monotonic() + PATIENCE_S
    while (found := look()) is None:
        assert time.monotonic() < end, what()
        time.sleep(0.5)
    return found


def samples_of_ours(text):
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("ray_wafer_search_"):
                yield sample


@pytest.fixture(scope="module")
def watched(tmp_path_factory, run):
    """A folder with a search that was watched, interrupted, and ended; and what its endpoint showed meanwhile."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "watched.yaml").write_text(SPACE, "utf-8")
    # Ray reports every second instead of every ten.
    environment = os.environ | {"RAY_AUTH_TOKEN": TOKEN, "RAY_metrics_report_interval_ms": "1000"}
    command = [sys.executable, "-m", "search.run", "--space", "watched.yaml", "--tensorboard"]
    log, shown = folder / "log", {}
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file, env=environment)

    def find_endpoints():
        assert process.poll() is None, log.read_text("utf-8")
        address = re.search(r"Ray dashboard: (http://\S+)", log.read_text("utf-8"))
        content = address and fetch(f"{address[1]}/api/prometheus/sd", token=TOKEN)
        return [target for group in json.loads(content) for target in group["targets"]] if content else []

    def scrape():
        for endpoint in find_endpoints():  # that of the node comes a moment later than the first
            for sample in samples_of_ours(fetch(f"http://{endpoint}/metrics") or ""):
                labels = [sample.labels[key] for key in ("slot", "class", "state", "reason") if key in sample.labels]
                shown[sample.name.removeprefix("ray_wafer_search_"), *labels] = sample.value
        is_all = {"best_f1", "running_f1"} <= {key[0] for key in shown} and shown.get(("infeasible", "diverged"))
        return True if is_all else None

    try:
        wait_for(scrape, lambda: f"{log.read_text('utf-8')}\n{find_endpoints()}\n{sorted(shown)}")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=PATIENCE_S)
    study = folder / "results" / "watched-synthetic"
    n_judged = sum(status in ("complete", "stopped", "infeasible") for status in ends_of(study).values())
    more = ("--trials", n_judged + 2, "--tensorboard", "--no-dashboard")
    ended = run("search.run", "--space", "watched.yaml", *more, cwd=folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return study, shown


def rows_of(study):
    return [json.loads(line) for line in (study / "trials.jsonl").read_text("utf-8").splitlines()]


def ends_of(study):
    return {row["trial"]: row["status"] for row in rows_of(study)}


def test_the_endpoint_shows_each_class_of_the_best_and_of_the_running_trials(watched):
    study, shown = watched
    classes = rows_of(study)[-1]["val_f1"].keys()

    best = {key[1] for key in shown if key[0] == "best_f1"}
    running = {key[1:] for key in shown if key[0] == "running_f1"}
    slots = {slot for slot, _ in running}
    assert best == set(classes)
    assert running == {(slot, name) for slot in slots for name in classes}
    assert slots <= {str(slot) for slot in range(1, 1 + (os.cpu_count() or 1))}
    assert all(0 <= value <= 1 for key, value in shown.items() if key[0].endswith("_f1"))


def test_the_endpoint_counts_trials_by_state_and_reason(watched):
    _, shown = watched

    states = {key[1]: value for key, value in shown.items() if key[0] == "trials"}
    assert states.keys() == {"running", "paused", "complete", "stopped", "infeasible", "failed"}
    assert states["running"] >= 1
    assert states["complete"] >= 1
    assert shown["infeasible", "diverged"] >= 1
    assert shown["infeasible", "out of memory"] == 0
    assert shown["trials_asked",] == 10000
    assert all(value > 0 for key, value in shown.items() if key[0] == "running_samples_per_second")


def test_tensorboard_has_every_epoch_of_an_interrupted_study_once(watched):
    study, _ = watched
    expected = Counter(row["trial"] for row in rows_of(study) if "objective" in row)

    for trial in ends_of(study):
        run_of_trial = EventAccumulator(str(study / "tensorboard" / f"trial-{trial:04d}"))
        run_of_trial.Reload()
        has_any = "val/objective" in run_of_trial.Tags()["scalars"]
        steps = [event.step for event in run_of_trial.Scalars("val/objective")] if has_any else []
        assert steps == list(range(1, expected[trial] + 1))


@pytest.fixture(scope="module")
def dashboard(watched):
    """What optuna-dashboard says of the study's journal, which nothing was done to."""
    study, _ = watched
    before = (study / "study.journal").read_bytes()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    code = "import sys; from optuna_dashboard._cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, str(study / "study.journal"), "--port", str(port)]
    with (study / "dashboard.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/api/studies"

    def explain():
        return (study / "dashboard.log").read_text("utf-8")

    try:
        [summary] = json.loads(wait_for(lambda: fetch(address), explain))["study_summaries"]
        detail = json.loads(wait_for(lambda: fetch(f"{address}/{summary['study_id']}"), explain))
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)
    assert (study / "study.journal").read_bytes() == before
    return detail


def attributes_of(trial):
    return {attribute["key"]: attribute["value"] for attribute in trial["user_attrs"]}


def test_optuna_dashboard_shows_every_trial_with_its_state_and_status(watched, dashboard):
    study, _ = watched
    states = {"complete": "Complete", "stopped": "Pruned", "infeasible": "Pruned", "failed": "Fail"}

    shown = {trial["number"]: (trial["state"], attributes_of(trial)["status"]) for trial in dashboard["trials"]}

    assert dashboard["name"] == "watched-synthetic"
    assert shown == {number: (states[status], status) for number, status in ends_of(study).items()}
    assert "infeasible" in {status for _, status in shown.values()}


def test_optuna_dashboard_shows_floors_and_the_scores_of_each_class(watched, dashboard):
    study, _ = watched
    last = {row["trial"]: row for row in rows_of(study) if row["status"] == "complete"}
    assert last

    shown = {trial["number"]: attributes_of(trial) for trial in dashboard["trials"]}
    for number, row in last.items():
        known = {name: value for name, value in row["val_f1"].items() if value is not None}
        assert json.loads(shown[number]["val_f1"]) == pytest.approx(known, abs=1e-4)
        shortfalls = json.loads(shown[number]["shortfalls"])
        assert shortfalls == pytest.approx({"f1[none] >= 0.01": 0.01 - row["val_f1"]["none"]}, abs=1e-4)
