"""`python -m data_pipeline.prepare`, as a user types it."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.prepare import main
from data_pipeline.synthetic import make_wafers
from data_pipeline.wafer_files import load_wafers, write_parquet
from data_pipeline.wafer_set import make_wafer_set

ROOT = Path(__file__).parent.parent.parent


def save_npz(path, wafers):
    names = np.array([*wafers.classes, ""])
    np.savez(
        path, maps=wafers.cells, offset=wafers.offsets, height=wafers.heights, width=wafers.widths,
        label=names[wafers.labels], lot=wafers.lots,
    )  # fmt: skip
    return path


def test_a_file_becomes_parquet_with_a_report_and_the_next_command(tmp_path, capsys):
    wafers = make_wafers(300)
    source = save_npz(tmp_path / "fab.npz", wafers)

    code = main([str(source), "--out", str(tmp_path / "out" / "wafers.parquet")])

    found, said = load_wafers(tmp_path / "out" / "wafers.parquet"), capsys.readouterr().out
    assert code == 0
    assert (found.content == wafers.content).all()
    assert [found.classes[k] for k in found.labels] == [wafers.classes[k] for k in wafers.labels]
    assert (found.lots == wafers.lots).all()
    assert "300 wafers in 12 lots" in said
    assert "python -m search.run --space balanced_cnn.yaml --data" in said
    assert "<h2>Samples</h2>" in (tmp_path / "out" / "wafers.report.html").read_text("utf-8")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["wafers.parquet", "wafers.report.html"]


def test_wafers_without_any_label_are_for_a_model_that_is_there_already(tmp_path, capsys):
    cells = np.random.default_rng(0).integers(1, 3, (4, 12, 10), dtype=np.uint8)
    write_parquet(make_wafer_set(cells, [None] * 4, ["a"] * 4, source="fab"), tmp_path / "fab.parquet")

    code = main([str(tmp_path / "fab.parquet"), "--out", str(tmp_path / "out.parquet")])

    said = capsys.readouterr().out
    assert code == 0
    assert f"next    python -m search.predict STUDY {tmp_path / 'out.parquet'}\n" in said
    assert "search.run" not in said
    assert "4 wafers in 1 lot (4 to 4 a lot, median 4), 1 size of map" in said
    assert "4 wafers in 1 lot (" in (tmp_path / "out.report.html").read_text("utf-8")


maps = st.integers(10, 14).flatmap(
    lambda side: st.binary(min_size=side * 12, max_size=side * 12).map(
        lambda cells: (np.frombuffer(cells, np.uint8) % 2 + 1).reshape(side, 12)
    )
)
rows = st.lists(
    st.tuples(maps, st.sampled_from(["Loc", "none", "Scratch", None]), st.sampled_from(["lot1", "lot2", "Los é"]),
              st.sampled_from([-1, 0, 1])),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows)
def test_preparing_what_was_written_gives_the_same_wafers(tmp_path, rows):
    maps, labels, lots, official = zip(*rows, strict=True)
    wafers = make_wafer_set(maps, labels, lots, source="x", official=official)
    write_parquet(wafers, tmp_path / "x.parquet")

    code = main([str(tmp_path / "x.parquet"), "--out", str(tmp_path / "y.parquet")])

    found = load_wafers(tmp_path / "y.parquet")
    assert code == 0
    assert found.fingerprint == wafers.fingerprint
    known = np.full(len(wafers), -1) if found.official is None else found.official
    assert known.tolist() == list(official)


@pytest.mark.parametrize("is_synthetic", [True, False])
def test_the_mark_of_synthetic_wafers_stays(tmp_path, is_synthetic):
    write_parquet(replace(make_wafers(100, seed=1), is_synthetic=is_synthetic), tmp_path / "x.parquet")

    assert main([str(tmp_path / "x.parquet"), "--out", str(tmp_path / "y.parquet")]) == 0

    assert load_wafers(tmp_path / "y.parquet").is_synthetic == is_synthetic


def test_unknown_labels_stop_it_and_an_answer_lets_it_go_on(tmp_path, capsys):
    wafers = make_wafer_set([np.ones((12, 12), np.uint8)] * 2, ["foo", "none"], ["a", "b"], source="x")
    source = save_npz(tmp_path / "fab.npz", wafers)
    out = ["--out", str(tmp_path / "w.parquet")]

    assert main([str(source), *out]) == 2
    assert "'foo': 1 wafers" in capsys.readouterr().err
    assert not (tmp_path / "w.parquet").exists()
    assert main([str(source), *out, "--label", "foo=Loc"]) == 0
    assert load_wafers(tmp_path / "w.parquet").classes == ("Loc", "none")
    assert main([str(source), *out, "--keep-labels"]) == 0
    assert load_wafers(tmp_path / "w.parquet").classes == ("foo", "none")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.pkl"], "nowhere.pkl: no such file"),
        (["fab.npz", "--out", "w.csv"], "w.csv: must end in .parquet; got '.csv'"),
        (["fab.npz", "--label", "foo"], "--label foo: must be AS_WRITTEN=CLASS"),
        (["fab.npz", "--out", "fab.npz/w.parquet"], "cannot be written"),
        (["fab.xyz"], "unknown kind of file '.xyz'"),
    ],
)
def test_bad_input_ends_with_a_message_and_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    save_npz(tmp_path / "fab.npz", make_wafers(100))
    (tmp_path / "fab.xyz").write_bytes(b"x")

    assert main(arguments) == 2
    assert message in capsys.readouterr().err


FULL_DISK = """
import resource, sys
from data_pipeline.prepare import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    source = save_npz(tmp_path / "fab.npz", make_wafers(1000))
    out = tmp_path / "out" / "wafers.parquet"
    write_parquet(make_wafers(100), out)
    before = out.read_bytes()

    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, source, "--out", out], capture_output=True, text=True, cwd=ROOT, check=False
    )

    assert ended.returncode == 2
    assert re.search(rf"{out}: cannot be written \(.*File too large\)", ended.stderr)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.slow
def test_interrupting_leaves_nothing(tmp_path):
    source = save_npz(tmp_path / "fab.npz", make_wafers(40_000))
    out = tmp_path / "out"

    process = subprocess.Popen(
        [sys.executable, "-m", "data_pipeline.prepare", source, "--out", out / "wafers.parquet"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        # Ctrl-C reaches it even where the tests run in the background of a shell, which makes its jobs ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - it takes no lock
    )  # fmt: skip
    wait_until(lambda: out.exists() and any(out.iterdir()))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "interrupted; nothing was written" in said
    assert list(out.iterdir()) == []


def wait_until(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.002)
