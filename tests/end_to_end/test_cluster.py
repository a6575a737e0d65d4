"""Searches on clusters: nodes with addresses of their own, a store they share, and all that breaks on the way."""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from search.study.journal import read_configs
from search.study.places import read_place

pytestmark = pytest.mark.slow
NET = f"10.{20 + os.getpid() % 200}.{os.getpid() // 200 % 256}"  # another one for each process
HEAD_PORT, DASHBOARD_PORT = 26379, 28265
PATIENCE_S = 400  # of waiting for what comes within a minute on a free machine
SPACE = """
name: tiny
data: {wafers: synthetic, synthetic_wafers: 800, image_size: 16, epoch_samples: 2000}
space:
  epochs: [10, 20]
  sampling: {choose: {imbalanced: {}, balanced: {}}}
  model: {choose: {wafer_cnn: {width: [4, 6], lr: {low: 1e-3, high: 1e-2, log: true}, batch_size: [32, 64]}}}
search: {trials: 8, stop: {asha: {first_rung: 1 epoch, factor: 2}}}
"""
GPUS = """
resources: {gpus: 0.25, models: {wafer_resnet: {gpus: 1}}}
"""


def why_no_namespaces():
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip"):
        return "needs root and iproute2 on Linux, for network namespaces"
    name = f"try{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True)
    if done.returncode:
        return f"network namespaces are not allowed here ({done.stderr.strip()})"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


class Nodes:
    """A Ray cluster whose nodes are network namespaces of this machine: cables to be cut, power to be lost.

    Args:
        path: For logs; Ray's own files go to a folder with a shorter path.
    """

    def __init__(self, path):
        self.path = path
        self.ray = Path(f"/tmp/nodes-{os.getpid()}")
        self.environment = {**os.environ, "NODES": str(path), "WAFER_SEARCH_FAKE_GPUS": "1"}
        self.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.bridge = f"br{os.getpid() % 10**6}"
        self.started, self.wanted = {}, {}
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", f"{NET}.254/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")

    @property
    def address(self):
        return f"{NET}.1:{HEAD_PORT}"

    def add(self, number, *, cpus, gpus=0, hidden=None):
        """Start a node, 1 is the head; what lies at `hidden` is not there for it."""
        name, cable = f"n{os.getpid()}x{number}", f"v{os.getpid() % 10**5}x{number}"
        if number not in self.started:
            _ip("netns", "add", name)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", cable, "master", self.bridge, "up")
            _ip("-n", name, "addr", "add", f"{NET}.{number}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", name, "link", "set", device, "up")
        start = ["ray", "start", "--block", f"--node-ip-address={NET}.{number}", f"--num-cpus={cpus}"]
        start += [f"--num-gpus={gpus}", "--object-store-memory=200000000", "--disable-usage-stats"]
        head = ["--head", f"--port={HEAD_PORT}", f"--dashboard-port={DASHBOARD_PORT}", f"--temp-dir={self.ray}"]
        start += head if number == 1 else [f"--address={self.address}"]
        if number != 1:  # Ray's own folder is every node's own, too
            mounts = "".join(f"mount -t tmpfs none {folder} && " for folder in (self.ray, hidden) if folder)
            start = ["sh", "-c", f'{mounts}exec "$@"', "sh", *start]
        with (self.path / f"node-{number}.log").open("a") as log:
            command = ["ip", "netns", "exec", name, *start]
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        self.started[number] = name, cable, process
        self.wanted[number] = {"cpus": cpus, "gpus": gpus, "hidden": hidden}

    def wait_for(self, n):
        """Wait until so many nodes are alive; one that the machine was too busy to start is started again."""
        code = f"import search.execution, ray; ray.init(address='{self.address}', log_to_driver=False)\n"
        code += "print(sum(node['Alive'] for node in ray.nodes()))"
        end = time.monotonic() + PATIENCE_S
        while (done := self.run("-c", code)).stdout.strip() != str(n):
            assert time.monotonic() < end, done.stdout + done.stderr
            for number, wanted in list(self.wanted.items()):
                if self.started[number][2].poll() is not None:
                    self.add(number, **wanted)
            time.sleep(1)

    def run(self, *arguments, cwd=None):
        """Run Python on the head, as a user who has logged in there."""
        command = ["ip", "netns", "exec", self.started[1][0], sys.executable, *map(str, arguments)]
        return subprocess.run(command, check=False, cwd=cwd, env=self.environment, capture_output=True, text=True)

    def popen(self, *arguments, cwd, log):
        command = ["ip", "netns", "exec", self.started[1][0], sys.executable, *map(str, arguments)]
        with log.open("w") as file:
            return subprocess.Popen(command, cwd=cwd, env=self.environment, stdout=file, stderr=file)

    def cut(self, number):
        _ip("link", "set", self.started[number][1], "down")

    def heal(self, number):
        _ip("link", "set", self.started[number][1], "up")

    def kill(self, number):
        """Kill all that runs on a node, as a power cut does."""
        mark = f"NODES={self.path}\0".encode()
        for _ in range(3):
            found = subprocess.run(["ip", "netns", "pids", self.started[number][0]], check=True, capture_output=True)
            for pid in found.stdout.split():
                with contextlib.suppress(OSError):
                    if mark in Path(f"/proc/{pid.decode()}/environ").read_bytes():
                        os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.2)
        self.started[number][2].wait()
        self.wanted.pop(number, None)

    def close(self):
        for number in sorted(self.started, reverse=True):
            self.kill(number)
        for name, _, _ in self.started.values():
            subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", self.bridge], check=False)
        shutil.rmtree(self.ray, ignore_errors=True)


def _ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A head that trains nothing and two nodes with a GPU each, as far as Ray knows."""
    if reason := why_no_namespaces():
        pytest.skip(reason)
    nodes = Nodes(tmp_path_factory.mktemp("nodes"))
    try:
        nodes.add(1, cpus=0)
        nodes.wait_for(1)
        for number in (2, 3):
            nodes.add(number, cpus=2, gpus=1)
            nodes.wait_for(number)
        yield nodes
    finally:
        nodes.close()


@pytest.fixture(scope="module")
def store(nodes, start_s3):
    """A server of the S3 protocol that all nodes reach; slots find it through the environment."""
    server = start_s3(f"{NET}.254")
    nodes.environment |= server.environment
    return server


class Search:
    """One study in a folder of its own, searched from the head of a cluster."""

    def __init__(self, nodes, path, *options, space=SPACE):
        self.nodes, self.path, self.options = nodes, path, options
        self.study = path / "results" / "tiny-synthetic"
        self.log = path / "log"
        (path / "tiny.yaml").write_text(space, "utf-8")

    @property
    def arguments(self):
        return ("-m", "search.run", "--space", "tiny.yaml", "--address", self.nodes.address, *self.options)

    def start(self):
        self.process = self.nodes.popen(*self.arguments, cwd=self.path, log=self.log)
        return self.process

    def rows(self):
        path = self.study / "trials.jsonl"
        return parse(path.read_bytes()) if path.exists() else []

    def wait_for_rows(self, n):
        """Wait until the running search has reported so many more epochs."""
        known, end = len(self.rows()), time.monotonic() + PATIENCE_S
        while len(self.rows()) < known + n:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def wait_for_end(self, code=0):
        assert self.process.wait(PATIENCE_S) == code, self.log.read_text()
        return self.log.read_text()

    def check(self, n=8):
        """Every trial is judged once, no epoch is recorded twice."""
        rows = self.rows()
        states = {row["trial"]: row["status"] for row in rows}
        judged = [trial for trial, state in states.items() if state in ("complete", "stopped")]
        assert len(judged) == n, states
        assert set(states.values()) <= {"complete", "stopped", "failed"}
        for trial in states:
            epochs = [row["epoch"] for row in rows if row["trial"] == trial and "objective" in row]
            assert epochs == list(range(1, len(epochs) + 1))
        assert (self.study / "best.yaml").is_file()
        assert "Traceback" not in self.log.read_text()


def parse(content):
    """The whole lines of trials.jsonl."""
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def ended(rows):
    """The last row of each trial that was judged."""
    return {row["trial"]: row for row in rows if row["status"] in ("complete", "stopped")}


def ended_in_copy(address):
    """The same of a copy in a store; trials that its journal, which is written last, does not know do not count."""
    rows = parse(read_place(f"{address}/trials.jsonl") or b"")
    journal = parse(read_place(f"{address}/study.journal") or b"")
    return {trial: row for trial, row in ended(rows).items() if trial < len(read_configs(journal))}


def spans(rows):
    """When each epoch ran, on which GPU of which node: (start, end, GPU, trial)."""
    for row in rows:
        if "objective" in row:
            seconds = row["train_seconds"] + row["val_seconds"]
            gpu = re.search(r"\((GPU \d+)\) on .* \((.*)\), pid", row["place"]).groups()
            yield row["elapsed"] - seconds, row["elapsed"], gpu, row["trial"]


def test_trials_share_gpus_as_the_space_says(nodes, tmp_path):
    tree = SPACE.replace("model: {choose: {", "model: {choose: {wafer_resnet: {width: [4], batch_size: [64]}, ") + GPUS
    search = Search(nodes, tmp_path, space=tree.replace("epochs: [10, 20]", "epochs: [6, 8]"))
    search.start()
    said = search.wait_for_end()

    search.check()
    assert "up to 4 trials side by side on 2 nodes, 2 GPUs, 4 CPU cores" in said
    assert "wafer_resnet 1 CPU and 1 GPU" in said
    rows = search.rows()
    models = {row["trial"]: row["config"]["model"] for row in rows}
    assert set(models.values()) == {"wafer_cnn", "wafer_resnet"}
    found = list(spans(rows))
    assert len({gpu for *_, gpu, _ in found}) == 2
    for start, _, gpu, _ in found:  # what runs side by side at one moment: one after another may share an epoch's time
        moment = start + 0.2
        at_work = {trial for a, b, its, trial in found if its == gpu and a < moment < b - 0.2}
        assert len(at_work) <= (1 if "wafer_resnet" in {models[trial] for trial in at_work} else 2), (moment, at_work)


def test_a_search_outlives_a_dead_node_a_cut_cable_and_a_store_that_is_away(nodes, store, tmp_path):
    search = Search(nodes, tmp_path, "--results", f"{store.make_bucket()}/results", "--trials", "14")
    search.start()
    search.wait_for_rows(6)
    nodes.kill(3)
    search.wait_for_rows(8)
    nodes.cut(2)
    time.sleep(4)
    nodes.heal(2)
    search.wait_for_rows(8)
    store.process.send_signal(signal.SIGSTOP)
    time.sleep(15)
    store.process.send_signal(signal.SIGCONT)
    said = search.wait_for_end()

    search.check(14)
    assert "3 nodes agree on versions and clock and write to the store" in said
    nodes.add(3, cpus=2, gpus=1)
    nodes.wait_for(3)


def test_a_driver_with_another_disk_goes_on_from_the_store(nodes, store, tmp_path, monkeypatch):
    store.be_found(monkeypatch)
    search = Search(nodes, tmp_path, "--results", f"{store.make_bucket()}/results")
    copy = f"{search.options[1]}/tiny-synthetic"
    search.start()
    end = time.monotonic() + PATIENCE_S
    while not ended_in_copy(copy):
        assert search.process.poll() is None and time.monotonic() < end, search.log.read_text()
        time.sleep(0.2)
    search.process.kill()
    search.process.wait()
    known = ended_in_copy(copy)
    shutil.rmtree(tmp_path / "results")

    search.start()
    said = search.wait_for_end()

    search.check()
    assert "going on after" in said
    assert {trial: row["val_confusion"] for trial, row in ended(search.rows()).items() if trial in known} == {
        trial: row["val_confusion"] for trial, row in known.items()
    }


def test_nodes_that_do_not_see_the_study_are_named_before_the_first_trial(nodes, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    nodes.kill(3)
    nodes.add(3, cpus=2, gpus=1, hidden=hidden)
    nodes.wait_for(3)
    search = Search(nodes, hidden)
    search.start()
    said = search.wait_for_end(2)

    assert said.count("does not see") == 1
    assert f"({NET}.3): does not see {search.study}, where the search runs; use --results with a path that" in said
    assert not search.study.exists()


def test_a_job_is_sent_to_the_head_and_finds_the_cluster_there(nodes, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "tiny.yaml").write_text(SPACE.replace("trials: 8", "trials: 3"), "utf-8")
    ray = [Path(sys.executable).with_name("ray"), "job", "submit", f"--address=http://127.0.0.1:{DASHBOARD_PORT}"]
    ray += ["--working-dir", tmp_path / "work", "--", sys.executable, "-m", "search.run", "--space", "tiny.yaml"]
    done = nodes.run(*ray, "--address", "auto", "--results", tmp_path / "results", cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout + done.stderr
    assert (tmp_path / "results" / "tiny-synthetic" / "best.yaml").is_file()


def test_after_the_loss_of_the_head_the_same_command_goes_on(nodes, store, tmp_path):
    """Last, because it takes the cluster down."""
    search = Search(nodes, tmp_path, "--results", f"{store.make_bucket()}/results")
    search.start()
    search.wait_for_rows(6)
    (head,) = (
        pid
        for pid in subprocess.run(
            ["ip", "netns", "pids", nodes.started[1][0]], check=True, capture_output=True
        ).stdout.split()
        if b"gcs_server" in Path(f"/proc/{pid.decode()}/cmdline").read_bytes().split(b"\0")[0]
    )
    os.kill(int(head), signal.SIGKILL)
    said = search.wait_for_end(1)
    assert "aborted: Ray has lost its control process (gcs_server)" in said
    before = Counter(row["trial"] for row in search.rows())

    for number in (3, 2, 1):
        nodes.kill(number)
    nodes.add(1, cpus=0)
    nodes.wait_for(1)
    nodes.add(2, cpus=2, gpus=1)
    nodes.wait_for(2)
    search.start()
    search.wait_for_end()

    search.check()
    assert before.keys() <= {row["trial"] for row in search.rows()}
