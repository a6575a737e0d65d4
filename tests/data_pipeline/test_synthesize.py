import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.synthesize import main
from data_pipeline.synthetic import make_wafers
from data_pipeline.wafer_files import load_wafers
from data_pipeline.wafer_set import WM811K_CLASSES

CHECKOUT = Path(__file__).parents[2]


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "data_pipeline.synthesize", *map(str, arguments)],
        cwd=CHECKOUT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def call(capsys):
    """Do as `run`, but in this process."""

    def call_main(*arguments):
        try:
            code = main([*map(str, arguments)])
        except SystemExit as end:  # of argparse
            code = end.code
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return call_main


@pytest.mark.slow
def test_the_command_writes_the_wafers_of_its_number_and_seed(tmp_path):
    path = tmp_path / "made" / "w.parquet"

    done = run("--wafers", 300, "--out", path, "--seed", 3)

    assert (done.returncode, done.stderr) == (0, "")
    found = load_wafers(path)
    assert found.fingerprint == make_wafers(300, seed=3).fingerprint
    assert found.is_synthetic


def test_the_command_prints_the_counts_of_every_class(tmp_path, call):
    path = tmp_path / "w.parquet"

    done = call("--wafers", 1500, "--out", path)

    printed = [line.split() for line in done.stdout.splitlines()]
    expected = make_wafers(1500).counts()
    assert printed[:9] == [[name, f"{n:,}"] for name, n in zip(WM811K_CLASSES, expected, strict=True)]
    assert done.stdout.endswith(f"{path}: 1,500 synthetic wafers in 60 lots\n")


def test_the_command_enters_a_share_of_the_wafers_twice(tmp_path, call):
    path = tmp_path / "w.parquet"

    done = call("--wafers", 300, "--out", path, "--duplicates", 0.1)

    assert done.returncode == 0
    assert load_wafers(path).fingerprint == make_wafers(300, duplicates=0.1).fingerprint


@pytest.mark.slow
def test_a_terminal_sees_progress(tmp_path):
    done = run("--wafers", 300, "--out", tmp_path / "w.parquet", FORCE_COLOR="1")

    assert "drawing" in done.stdout
    assert "writing" in done.stdout


@pytest.mark.parametrize(
    ("wafers", "name", "seed", "message"),
    [
        (99, "w.parquet", 0, "synthetic wafers: must be at least 100, or classes would be missing; got 99"),
        (200, "w.parquet", -1, "synthetic wafers: seed must be >= 0; got -1"),
        (200, "w.csv", 0, "{path}: must end in .parquet; got '.csv'"),
        (200, "w", 0, "{path}: must end in .parquet; got ''"),
        (200, "file/deeper/w.parquet", 0, "{path}: cannot be written (Not a directory)"),
        (200, "folder.parquet", 0, "{path}: cannot be written (Is a directory)"),
    ],
)
def test_bad_input_ends_the_command_with_one_line_and_code_2(tmp_path, call, wafers, name, seed, message):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder.parquet").mkdir()
    path = tmp_path / name

    done = call("--wafers", wafers, "--out", path, "--seed", seed)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == message.format(path=path) + "\n"


def test_a_missing_option_ends_the_command_with_code_2(call):
    done = call("--wafers", 200)

    assert done.returncode == 2
    assert "the following arguments are required: --out" in done.stderr


def test_a_share_of_duplicates_out_of_range_ends_the_command_with_one_line_and_code_2(tmp_path, call):
    done = call("--wafers", 200, "--out", tmp_path / "w.parquet", "--duplicates", 0.6)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "synthetic wafers: duplicates must be a share in [0, 0.5]; got 0.6\n"
