"""Each pair is computed once, whoever asks; what a crash or another program left in the file is never taken for one."""

import errno
import os
import subprocess
import sys

import pytest
import torch

from data_pipeline.errors import DataError
from data_pipeline.feature_store import FeatureStore

CPU = torch.device("cpu")
WAFERS = torch.tensor([5, 0, 99, 5])
VIEWS = torch.tensor([7, 0, 3, 2])
# Fills the same thousand pairs as another process that does so at the same time, and counts how many it computed.
SCRIPT = """
import sys, time, torch
from pathlib import Path
from data_pipeline.feature_store import FeatureStore

def compute(wafers, views):
    time.sleep(0.02)
    return torch.stack([wafers, views, wafers + views], 1).float()

store = FeatureStore(Path(sys.argv[1]), key="key", n_wafers=1000, n_features=3, dtype=torch.float32)
print("ready", flush=True)
sys.stdin.readline()
print(store.fill(torch.arange(1000), torch.zeros(1000, dtype=torch.int64), compute))
"""


def features_of(wafers, views):
    """Three numbers, all different for each pair."""
    return torch.stack([wafers / 3, views / 7, wafers * 8.0 + views], dim=1)


@pytest.fixture
def compute():
    """Compute features, and remember in `pairs` for which pairs, block by block."""

    def count(wafers, views):
        count.pairs.append(list(zip(wafers.tolist(), views.tolist(), strict=True)))
        return features_of(wafers, views)

    count.pairs = []
    return count


@pytest.fixture
def open_store(tmp_path):
    def open_one(*, folder=tmp_path / "cache", key="key", n_wafers=100, n_features=3, dtype=torch.float32):
        return FeatureStore(folder, key=key, n_wafers=n_wafers, n_features=n_features, dtype=dtype)

    return open_one


@pytest.fixture
def path(open_store, tmp_path):
    """The file of a store that keeps the pairs of WAFERS and VIEWS."""
    open_store().fill(WAFERS, VIEWS, features_of)
    return next((tmp_path / "cache").iterdir())


def test_features_come_back_in_the_order_asked_for(open_store, compute):
    store = open_store()
    store.fill(WAFERS, VIEWS, compute)

    read = store.read(WAFERS.flip(0), VIEWS.flip(0), device=CPU)

    assert torch.equal(read, features_of(WAFERS, VIEWS).flip(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_features_are_kept_bit_for_bit(open_store, dtype):
    computed = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    wafers, views = torch.arange(64), torch.zeros(64, dtype=torch.int64)

    open_store(dtype=dtype).fill(wafers, views, lambda wafers, views: computed[wafers])
    again = open_store(dtype=dtype)
    again.fill(wafers, views, lambda wafers, views: pytest.fail("computed again"))

    assert torch.equal(again.read(wafers, views, device=CPU), computed)


def test_a_row_of_zeros_is_kept_too(open_store):
    open_store().fill(WAFERS, VIEWS, lambda wafers, views: torch.zeros(len(wafers), 3))

    assert open_store().fill(WAFERS, VIEWS, features_of) == 0


def test_each_pair_is_computed_once_and_never_again(open_store, compute):
    store = open_store()

    first = store.fill(torch.cat([WAFERS, WAFERS]), torch.cat([VIEWS, VIEWS]), compute)
    again = store.fill(WAFERS, VIEWS, compute)
    elsewhere = open_store().fill(WAFERS, VIEWS, compute)

    assert (first, again, elsewhere) == (4, 0, 0)
    assert len(compute.pairs) == 1


def test_only_what_is_missing_is_computed(open_store, compute):
    store = open_store()
    store.fill(WAFERS, VIEWS, features_of)

    store.fill(torch.tensor([5, 5, 0]), torch.tensor([7, 6, 0]), compute)

    assert set(compute.pairs[0]) == {(5, 6)}


def test_blocks_always_have_the_same_size(open_store, compute):
    store = open_store()

    store.fill(torch.arange(100), torch.zeros(100, dtype=torch.int64), compute)
    store.fill(torch.arange(1), torch.ones(1, dtype=torch.int64), compute)

    assert [len(block) for block in compute.pairs] == [64, 64, 64]


def test_what_was_not_filled_is_not_read(open_store):
    with pytest.raises(KeyError, match="never filled"):
        open_store().read(WAFERS, VIEWS, device=CPU)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("other", [{"key": "other"}, {"n_wafers": 101}, {"n_features": 2}, {"dtype": torch.bfloat16}])
def test_another_store_in_the_folder_has_nothing_of_this_one(open_store, other):
    n_features = other.get("n_features", 3)

    n_computed = open_store(**other).fill(
        WAFERS, VIEWS, lambda wafers, views: features_of(wafers, views)[:, :n_features]
    )

    assert n_computed == 4
    assert open_store().fill(WAFERS, VIEWS, features_of) == 0


def test_what_was_never_computed_takes_no_disk(open_store, tmp_path):
    open_store(n_wafers=10_000, n_features=1280).fill(
        WAFERS, VIEWS, lambda wafers, views: torch.ones(len(wafers), 1280)
    )

    file = next((tmp_path / "cache").iterdir()).stat()

    assert file.st_size > 10_000 * 8 * 1280 * 4
    assert file.st_blocks * 512 < 1_000_000


# What a crash or another program leaves


def test_a_crash_between_the_features_and_their_mark_is_harmless(open_store, compute, monkeypatch):
    written = []
    pwrite = os.pwrite

    def crash(*arguments):
        if len(written) == 3:  # two pairs take four calls: the second one's features are there, but not its mark
            raise SystemExit
        written.append(arguments)
        return pwrite(*arguments)

    with monkeypatch.context() as context:
        context.setattr(os, "pwrite", crash)
        with pytest.raises(SystemExit):
            open_store().fill(WAFERS, VIEWS, features_of)
    store = open_store()

    assert store.fill(WAFERS, VIEWS, compute) == 3
    assert torch.equal(store.read(WAFERS, VIEWS, device=CPU), features_of(WAFERS, VIEWS))


def test_a_mark_without_its_features_is_harmless(open_store, path):
    """After a power failure the later of two writes may be there and the earlier one not."""
    content = path.read_bytes()
    kept = features_of(torch.tensor([99]), torch.tensor([3])).numpy().tobytes()
    path.write_bytes(content.replace(kept, kept[:4] + bytes(8)))
    store = open_store()

    assert content.count(kept) == 1
    assert store.fill(WAFERS, VIEWS, features_of) == 1
    assert torch.equal(store.read(WAFERS, VIEWS, device=CPU), features_of(WAFERS, VIEWS))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:-1], id="short"),
        pytest.param(lambda content: content + b"\0", id="long"),
        pytest.param(lambda content: b"\1" * len(content), id="foreign"),
    ],
)
def test_a_damaged_file_is_made_anew(open_store, path, compute, damage):
    size = path.stat().st_size
    path.write_bytes(damage(path.read_bytes()))
    store = open_store()

    assert store.fill(WAFERS, VIEWS, compute) == 4
    assert torch.equal(store.read(WAFERS, VIEWS, device=CPU), features_of(WAFERS, VIEWS))
    assert [(file, file.stat().st_size) for file in path.parent.iterdir()] == [(path, size)]


def test_a_store_whose_file_was_replaced_goes_on_with_its_own(open_store, path):
    store = open_store()
    path.unlink()
    open_store()

    assert store.fill(torch.arange(8), torch.arange(8), features_of) > 0
    assert torch.equal(
        store.read(torch.arange(8), torch.arange(8), device=CPU), features_of(torch.arange(8), torch.arange(8))
    )


def test_a_full_disk_is_the_users_to_mend(open_store, monkeypatch):
    def fill_up(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = open_store()
    monkeypatch.setattr(os, "pwrite", fill_up)

    with pytest.raises(DataError, match=r"features-.*\.bin: cannot be written \(No space left on device\)"):
        store.fill(WAFERS, VIEWS, features_of)


def test_a_disk_that_keeps_nothing_is_the_users_to_mend(open_store, monkeypatch):
    store = open_store()
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)

    with pytest.raises(DataError, match="does not keep what is written to it; give results on a local disk"):
        store.fill(WAFERS, VIEWS, features_of)


def test_a_folder_that_cannot_be_made_is_the_users_to_mend(open_store, tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(DataError, match=r"features-.*\.bin: cannot be opened \(File exists\)"):
        open_store(folder=tmp_path / "file")


# Several processes


@pytest.mark.slow
def test_two_processes_at_the_same_time_share_one_file(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        process.stdout.readline()

    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    counts = [int(process.communicate(timeout=120)[0]) for process in both]

    wafers, views = torch.arange(1000), torch.zeros(1000, dtype=torch.int64)
    store = FeatureStore(tmp_path, key="key", n_wafers=1000, n_features=3, dtype=torch.float32)
    assert 1000 <= sum(counts) < 2000
    assert store.fill(wafers, views, lambda wafers, views: pytest.fail("computed again")) == 0
    assert torch.equal(store.read(wafers, views, device=CPU), torch.stack([wafers, views, wafers], 1).float())
