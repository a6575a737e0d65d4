"""A lane: one long-lived Ray and one warm Python, through which runs go one after the other."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.chaos.processes import Forked, Process, children, marked, name_of, send, start_cold, wait_for

_HERE = Path(__file__).resolve().parent
_PRODUCT = ("search", "models", "data_pipeline", "configs")
_SLOTS = 2
_START = "import sys; sys.executable = {python!r}; from ray.scripts.scripts import main; main()"
_PYTHON = """#!/bin/sh
case "$*" in
*default_worker.py*) exec {python} -S {warm} --be "$@" ;;
*) exec {python} "$@" ;;
esac
"""


def copy_product(target: Path, *, patience_s: float = 300) -> None:
    """Copy the product, so that all runs try the same one, whoever edits it meanwhile.

    Raises:
        RuntimeError: If it cannot be imported, again and again.
    """
    end = time.monotonic() + patience_s
    while True:
        shutil.rmtree(target, ignore_errors=True)
        _copy(target)
        env = os.environ | {"PYTHONPATH": str(target)}
        test = [sys.executable, "-c", "import search.run, search.execution.trainable"]
        done = subprocess.run(test, cwd=target, env=env, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"the product cannot be imported: {done.stderr}")
        time.sleep(5)


def _copy(target: Path) -> None:
    for name in _PRODUCT:
        skip = shutil.ignore_patterns("__pycache__", "*.npz")
        shutil.copytree(_HERE.parents[1] / name, target / name, ignore=skip, dirs_exist_ok=True)
    (target / "benchmarks").mkdir(exist_ok=True)
    (target / "benchmarks" / "__init__.py").touch()
    shutil.copytree(_HERE, target / "benchmarks" / "chaos", dirs_exist_ok=True)


def build_clock(target: Path) -> Path:
    """Compile what makes the wall clock jump; needs a C compiler."""
    source = _HERE / "hooks" / "clock.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
    return target


class Lane:
    """Starts drivers; a context manager that leaves nothing running.

    Args:
        folder: For Ray and the sockets; its path must be short, for the kernel takes 107 letters of a socket.
        product: Copy of the product.
        clock: From `build_clock`.
    """

    def __init__(self, folder: Path, product: Path, *, clock: Path) -> None:
        self.clock = clock
        self._folder = folder
        self._socket = folder / "warm"
        self._product = product
        self.address = ""
        self._mark = f"CHAOS_LANE={folder}"
        self._warm: Process | None = None
        folder.mkdir(parents=True)
        python = folder / "python"
        warm = product / "benchmarks" / "chaos" / "warm.py"
        python.write_text(_PYTHON.format(python=sys.executable, warm=warm), "utf-8")
        python.chmod(0o755)
        self._env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "CHAOS_"))},
            "PYTHONPATH": f"{product / 'benchmarks' / 'chaos' / 'hooks'}:{product}",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
            "COLUMNS": "200",
            "WARM_SOCKET": str(self._socket),
            "WARM_PYTHON": str(python),
        }

    def __enter__(self) -> "Lane":
        # Ray reads these when it is imported: a slot that was started ahead has no job yet, and ends with its raylet.
        fixed = {"RAY_JOB_ID": "ffffffff", "RAY_RAYLET_PID": str(os.getpid())}
        env = self._env | {"CHAOS_LANE": str(self._folder)} | fixed
        log = self._folder / "log"
        argv = [sys.executable, "-m", "benchmarks.chaos.warm", str(self._socket)]
        self._warm = start_cold(argv, cwd=self._folder, env=env, log=log)
        warm = self._warm
        wait_for(lambda: self._socket.exists() or warm.poll() is not None, patience_s=120)
        if not self._socket.exists():
            raise RuntimeError(f"the warm Python does not start, see {log}")
        self.start_cluster()
        return self

    def __exit__(self, *_: object) -> None:
        for _ in range(3):
            for number in (*marked(self._mark), *self.forks()):
                send(number, signal.SIGKILL)

    def start_cluster(self) -> None:
        """Start the Ray that most runs of this lane share."""
        port, *others = _free_ports(4)
        names = ("--ray-client-server-port", "--dashboard-agent-listen-port", "--metrics-export-port")
        argv = [sys.executable, "-c", _START.format(python=self._env["WARM_PYTHON"]), "start", "--head"]
        argv += [f"--port={port}", f"--num-cpus={_SLOTS}", "--min-worker-port=0", "--max-worker-port=0"]
        argv += ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=200000000"]
        argv += [f"--temp-dir={self._folder}/ray", *(f"{n}={p}" for n, p in zip(names, others, strict=True))]
        env = self._env | {"CHAOS_LANE": str(self._folder)}
        done = subprocess.run(argv, env=env, cwd=self._folder, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"ray start: {done.stdout}{done.stderr}")
        self.address = f"127.0.0.1:{port}"

    def start(
        self, argv: list[str], *, cwd: Path, log: Path, is_cold: bool = False, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start `python -m` with a module and its arguments; cold: in a Python that imports everything itself."""
        own = self._env | {"CHAOS_RUN": str(cwd)} | dict(env or {})
        if is_cold:
            return start_cold([sys.executable, "-m", *argv], cwd=cwd, env=own, log=log)
        return Forked(self._socket, argv, cwd=cwd, env=own, log=log)

    def forks(self) -> list[int]:
        """All that the warm Python has become and that still lives."""
        return children(self._warm.pid) if self._warm else []

    def slots(self) -> list[int]:
        """The processes in which trials train now."""
        return [number for number in self.forks() if name_of(number).startswith("ray::WaferTrial")]


def _free_ports(n: int) -> list[int]:
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [door.getsockname()[1] for door in doors]
    for door in doors:
        door.close()
    return ports
