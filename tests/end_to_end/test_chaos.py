"""What a search survives: real processes, real Ray, killed, starved and interrupted; the same command goes on."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes through Linux's /proc"),
]
SPACE = """
name: tiny
data: {wafers: synthetic, synthetic_wafers: 800, image_size: 16, epoch_samples: 600}
space:
  epochs: [10, 20]
  sampling: {choose: {imbalanced: {}, balanced: {}}}
  model: {choose: {wafer_cnn: {width: [4, 6], lr: {low: 1e-3, high: 1e-2, log: true}, batch_size: [32, 64]}}}
search: {trials: 8, stop: {asha: {first_rung: 1 epoch, factor: 2}}}
"""
PATIENCE_S = 240  # of waiting for what comes within seconds on a free machine


def wait_for_end(process):
    """Return the exit code of a search; if it does not end, fail with what it said."""
    try:
        return process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        pytest.fail(process.log.read_text())


class Folder:
    """A folder with one space, and the searches that were started in it."""

    def __init__(self, path):
        self.path = path
        self.study = path / "results" / "tiny-synthetic"
        self.started = []
        self.environment = os.environ | {"WAFER_TEST": str(path)}
        (path / "tiny.yaml").write_text(SPACE, "utf-8")

    def start(self):
        command = [sys.executable, "-m", "search.run", "--space", "tiny.yaml", "--no-dashboard"]
        log = self.path / f"log-{len(self.started)}"
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=self.path, stdout=file, stderr=file, env=self.environment)
        process.log = log
        self.started.append(process)
        return process

    def rows(self):
        path = self.study / "trials.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def start_and_wait(self, n_rows=4):
        """Start a search and wait until it has reported something more."""
        known, process, end = len(self.rows()), self.start(), time.monotonic() + PATIENCE_S
        while len(self.rows()) < known + n_rows and process.poll() is None:
            assert time.monotonic() < end, process.log.read_text()
            time.sleep(0.02)
        assert process.poll() is None, process.log.read_text()
        return process

    def processes(self, *programs):
        """The processes that were started with this folder's mark, so that nobody else's are ever killed."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                name = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
                is_ours = f"WAFER_TEST={self.path}\0".encode() in (folder / "environ").read_bytes()
            except OSError:
                continue
            if is_ours and (not programs or any(program in name for program in programs)):
                found.append(int(folder.name))
        return found

    def wait_until_nothing_runs(self, patience_s):
        end = time.monotonic() + patience_s
        while self.processes():
            assert time.monotonic() < end, "processes stay behind"
            time.sleep(0.1)

    def check_goes_on_to_the_end(self):
        """Run the same command again; every trial is judged once, no epoch is recorded twice, nothing is lost."""
        before = self.rows()
        process = self.start()

        assert wait_for_end(process) == 0, process.log.read_text()
        rows = self.rows()
        assert rows[: max(len(before) - 1, 0)] == before[:-1]  # the last may have been unknown to the journal
        states = {row["trial"]: row["status"] for row in rows}
        assert Counter(states.values()).keys() <= {"complete", "stopped"}
        assert sorted(states) == list(range(8))
        for trial in states:
            epochs = [row["epoch"] for row in rows if row["trial"] == trial]
            assert epochs == list(range(1, len(epochs) + 1))
        assert (self.study / "best.yaml").is_file()


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path)
    yield folder
    for process in folder.started:
        process.kill()
        process.wait()
    for number in folder.processes():
        os.kill(number, signal.SIGKILL)


def checkpoints(study):
    """The last epoch in the checkpoint of each trial that has one."""
    return {
        path.name: json.loads(torch.load(path, weights_only=True)["report"])["epoch"]
        for path in (study / "checkpoints").glob("trial-*.pt")
    }


def test_a_second_search_is_refused_and_after_a_kill_all_goes_on_from_the_checkpoints(folder):
    process = folder.start_and_wait(n_rows=6)
    process.send_signal(signal.SIGSTOP)  # the second takes seconds to start; there must be something left to go on with
    second = folder.start()
    assert wait_for_end(second) == 2
    assert f"process {process.pid} on " in second.log.read_text()

    process.kill()
    process.wait()
    folder.wait_until_nothing_runs(PATIENCE_S)  # a slot may still write the checkpoint that it was about to
    (folder.study / "study.journal.lock").symlink_to("left by a process that was killed")
    interrupted = {f"trial-{number:04d}.pt" for number in {row["trial"] for row in folder.rows()}}
    before = {name: epoch for name, epoch in checkpoints(folder.study).items() if name in interrupted}

    process = folder.start_and_wait(n_rows=1)

    after = checkpoints(folder.study)  # a training that began again would have written its first epoch by now
    shared = before.keys() & after.keys()
    assert shared
    assert all(after[name] >= before[name] for name in shared)
    process.kill()
    process.wait()
    folder.check_goes_on_to_the_end()


def test_a_trial_whose_process_is_killed_goes_on_in_another(folder):
    process = folder.start_and_wait()
    os.kill(folder.processes("ray::WaferTrial")[0], signal.SIGKILL)
    code = wait_for_end(process)

    assert code == 0, process.log.read_text()
    states = Counter({row["trial"]: row["status"] for row in folder.rows()}.values())
    assert states["failed"] == 0
    assert states["complete"] + states["stopped"] == 8
    assert process.log.read_text().count("lost its process after epoch") == 1


def test_slots_that_the_memory_monitor_kills_are_lost_processes_and_the_search_goes_on(folder):
    monitor = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "500"}
    folder.environment |= monitor
    process = folder.start()

    assert wait_for_end(process) == 1
    said = process.log.read_text()
    assert "lost its process after epoch" in said
    assert re.search(r"aborted: 3 trials failed in a row; the last: .*running low on memory", said)
    assert "Traceback" not in said

    folder.environment = {name: value for name, value in folder.environment.items() if name not in monitor}
    process = folder.start()
    assert wait_for_end(process) == 0, process.log.read_text()
    states = Counter({row["trial"]: row["status"] for row in folder.rows()}.values())
    assert states["complete"] + states["stopped"] == 8
    assert states.keys() <= {"complete", "stopped", "failed"}


def test_a_search_whose_ray_is_killed_ends_and_says_so(folder):
    for program in ("raylet", "gcs_server"):
        process = folder.start_and_wait()
        (number,) = folder.processes(f"/{program}")
        os.kill(number, signal.SIGKILL)
        code = wait_for_end(process)

        assert code == 1
        said = process.log.read_text().splitlines()[-1]
        assert said.startswith("aborted: Ray has lost")
        assert program in said
        if program == "raylet":  # without its head, Ray's other processes take a minute or more to notice
            folder.wait_until_nothing_runs(PATIENCE_S)
    folder.check_goes_on_to_the_end()


def test_a_first_signal_saves_everything_and_leaves_no_process_and_the_search_goes_on(folder):
    for number in (signal.SIGTERM, signal.SIGINT):
        process = folder.start_and_wait()
        process.send_signal(number)
        code = wait_for_end(process)

        assert code == 130
        assert "the same command goes on from here" in process.log.read_text()
        assert (folder.study / "report.html").is_file()
        folder.wait_until_nothing_runs(PATIENCE_S)
    folder.check_goes_on_to_the_end()


def test_the_second_signal_ends_the_process_at_once(folder):
    process = folder.start_and_wait()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    code = process.wait(10)

    assert code == 130
    folder.wait_until_nothing_runs(PATIENCE_S)


def test_a_signal_while_ray_starts_is_an_interruption_too(folder):
    process = folder.start()
    end = time.monotonic() + PATIENCE_S
    while not folder.processes("/gcs_server"):
        assert time.monotonic() < end, process.log.read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    code = wait_for_end(process)

    assert code == 130, process.log.read_text()
    folder.wait_until_nothing_runs(PATIENCE_S)


def test_what_cannot_be_written_ends_the_search_and_it_says_what_to_mend(folder):
    folder.study.mkdir(parents=True)
    (folder.study / "checkpoints").write_text("in the way of the folder", "utf-8")
    process = folder.start()
    code = wait_for_end(process)

    said = process.log.read_text()
    assert code == 2, said
    assert "checkpoints/trial-0000.pt: cannot be written" in said.replace("trial-0001", "trial-0000")
    assert "mend that, and the same command goes on from here" in said
    assert "Traceback" not in said

    (folder.study / "checkpoints").unlink()
    folder.environment.pop("COVERAGE_PROCESS_CONFIG", None)  # its file could not be written either
    process = folder.start_and_wait()
    full = (folder.study / "trials.jsonl").stat().st_size + 300  # within a line
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (full, full))
    code = wait_for_end(process)

    said = process.log.read_text()
    assert code == 2, said
    assert "trials.jsonl: cannot be written (File too large); mend that" in said
    assert "Traceback" not in said
    folder.check_goes_on_to_the_end()
