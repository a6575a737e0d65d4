import socket
import subprocess
import sys
import time
import uuid

import pytest

_LARGE = ("resnet18", "efficientnet")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the cases of the large networks, which take seconds to build, to `make test`."""
    for item in items:
        if any(name in item.name for name in _LARGE):
            item.add_marker(pytest.mark.slow)


class S3Server:
    """A real server of the S3 protocol on this machine, which can be stopped for a while; it forgets nothing then."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < end
            time.sleep(0.1)

    def _answers(self):
        with socket.socket() as knock:
            return knock.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="session")
def s3_server():
    server = S3Server()
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The address of an empty bucket."""
    from pyarrow import fs

    from search.study import places

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    places._open_root.cache_clear()
    bucket = f"bucket-{uuid.uuid4().hex}"
    fs.S3FileSystem(endpoint_override=s3_server.url, allow_bucket_creation=True).create_dir(bucket)
    yield f"s3://{bucket}"
    places._open_root.cache_clear()
