import importlib
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def run():
    """Run a command in a process of its own, as a user types it."""

    def run_module(*arguments, cwd):
        command = [sys.executable, "-m", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)

    return run_module


@pytest.fixture
def call(monkeypatch, capsys):
    """Do as `run`, but in this process: a new one takes seconds to import torch and Ray."""

    def call_module(module, *arguments, cwd):
        monkeypatch.chdir(cwd)
        try:
            code = importlib.import_module(module).main([*map(str, arguments)])
        except SystemExit as end:  # of argparse
            code = end.code
        said = capsys.readouterr()
        return subprocess.CompletedProcess([module, *arguments], code, said.out, said.err)

    return call_module
