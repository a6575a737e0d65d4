"""What docs/security.md promises of a Ray that a search starts, looked at from outside while it runs."""

import json
import os
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from search.errors import ConfigError
from search.execution.cluster import start_ray
from search.space.config import ResourcesConfig

SCRIPT = """
import json, os, sys
from search.execution.cluster import start_ray, stop_ray
from search.space.config import ResourcesConfig
import ray

cluster = start_ray(None, ResourcesConfig(), ["wafer_cnn"])

@ray.remote
def environment():
    return dict(os.environ)

there = ray.get(environment.remote())
print(json.dumps({"dashboard": cluster.dashboard, "there": there}), flush=True)
sys.stdin.read()
stop_ray()
"""


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    """What is known of a running Ray, started by a user who never had one."""
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home), "SECURITY_TEST": str(home)}
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        known = json.loads(process.stdout.readline())
        yield known | {"home": home}
        process.stdin.close()
        process.stdout.close()
        assert process.wait(60) == 0


def processes(home):
    mark = f"SECURITY_TEST={home}\0".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                yield folder
        except OSError:
            continue


def listening(home):
    """The addresses at which these processes wait for TCP connections, as Linux writes them."""
    sockets = set()
    for folder in processes(home):
        for link in (folder / "fd").glob("*"):
            try:
                sockets.add(str(link.readlink()))
            except OSError:
                continue
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in sockets:
                found.append(local.rpartition(":")[0])
    return found


pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks at Linux's /proc")]


def test_every_port_listens_on_loopback_only(ray):
    loopback = {"0100007F", "0" * 16 + "FFFF0000" + "0100007F", "0" * 24 + "01000000"}

    end = time.monotonic() + 120
    while len(found := listening(ray["home"])) < 6 and time.monotonic() < end:
        time.sleep(0.5)

    assert len(found) >= 6  # GCS, raylet (two), driver, worker, dashboard; agents follow
    assert set(found) <= loopback
    assert ray["dashboard"].startswith("http://127.0.0.1:")


def test_the_dashboard_asks_for_the_token(ray):
    url = f"{ray['dashboard']}/api/jobs/"
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(url)
    raised.value.close()
    assert raised.value.code == 401

    token = (ray["home"] / ".ray" / "auth_token").read_text().strip()
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})) as answer:
        assert answer.status == 200


def test_the_token_and_rays_files_belong_to_one_user(ray):
    token = ray["home"] / ".ray" / "auth_token"

    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(f"/tmp/ray-{os.getuid()}").stat().st_mode) == 0o700


def test_nothing_is_told_to_rays_makers(ray):
    assert ray["there"]["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_folder_that_somebody_else_made_first_is_not_used(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    folder = Path("/tmp/ray-54321")
    folder.symlink_to("/tmp")
    try:
        with pytest.raises(ConfigError, match="belongs to somebody else; set RAY_TMPDIR"):
            start_ray(None, ResourcesConfig(), ["wafer_cnn"])
    finally:
        folder.unlink()


def test_an_address_that_would_move_the_driver_is_refused():
    with pytest.raises(ConfigError, match=r"away from its journal; send it there as a job:\n +ray job submit"):
        start_ray("ray://127.0.0.1:10001", ResourcesConfig(), ["wafer_cnn"])
