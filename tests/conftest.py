import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

_LARGE = ("resnet18", "efficientnet")
_MEMORY, _ROOM = Path("/dev/shm"), 4 * 2**30


def pytest_configure(config: pytest.Config) -> None:
    """Give Ray's slots their share of the processor, and keep the tests' folders in memory where there is room.

    Ray starts its slots at nice 15: beside two busy test files they stand still for minutes. On a disk, tests mostly
    wait for fsync.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the cases of the large networks, which take seconds to build, to `make test`."""
    for item in items:
        if any(name in item.name for name in _LARGE):
            item.add_marker(pytest.mark.slow)


class S3Server:
    """A real server of the S3 protocol on this machine, which can be stopped for a while; it forgets nothing then."""

    def __init__(self, host="127.0.0.1"):
        with socket.socket() as free:
            free.bind((host, 0))
            self.address = free.getsockname()
        self.url = f"http://{host}:{self.address[1]}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",  # pragma: allowlist secret
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(self.address[1])]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < end
            time.sleep(0.1)

    def be_found(self, monkeypatch):
        """Let this process reach the server, too."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def make_bucket(self):
        """Return the address of an empty bucket."""
        from pyarrow import fs

        bucket = f"bucket-{uuid.uuid4().hex}"
        account = {"access_key": "test", "region": "us-east-1"}
        account["secret_key"] = "test"  # pragma: allowlist secret
        fs.S3FileSystem(endpoint_override=self.url, allow_bucket_creation=True, **account).create_dir(bucket)
        return f"s3://{bucket}"

    def close(self):
        self.process.kill()
        self.process.wait()

    def _answers(self):
        with socket.socket() as knock:
            return knock.connect_ex(self.address) == 0


@pytest.fixture(scope="session")
def start_s3():
    """Start servers at addresses of this machine; each once."""
    servers = {}

    def start(host="127.0.0.1"):
        servers[host] = servers.get(host) or S3Server(host)
        return servers[host]

    yield start
    for server in servers.values():
        server.close()


@pytest.fixture
def s3(start_s3, monkeypatch):
    """The address of an empty bucket."""
    from search.study import places

    server = start_s3()
    server.be_found(monkeypatch)
    places._open_root.cache_clear()
    yield server.make_bucket()
    places._open_root.cache_clear()
