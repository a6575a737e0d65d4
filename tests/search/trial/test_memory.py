"""What a trial holds is measured, and a lack of memory is recognised and explained."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from search.trial.memory import (
    byte_size,
    explain_out_of_memory,
    is_out_of_memory,
    peak_memory,
    restart_peak,
    take_gpu_share,
)

CPU = torch.device("cpu")


def test_the_peak_of_the_process_rises_with_what_it_holds():
    restart_peak(CPU)
    before = peak_memory(CPU)

    block = torch.ones(2**28, dtype=torch.uint8)

    assert peak_memory(CPU) >= before + 0.9 * len(block)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can begin anew")
def test_a_trial_is_not_charged_with_what_an_earlier_one_held():
    block = torch.ones(2**28, dtype=torch.uint8)
    before = peak_memory(CPU)
    del block

    restart_peak(CPU)

    assert peak_memory(CPU) < before - 2**27


def provoke(allocate):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        allocate()
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        provoke(lambda: torch.empty(2**60, dtype=torch.uint8)),
        provoke(lambda: np.empty(2**60, dtype=np.uint8)),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=["torch", "numpy", "python", "cuda", "cuda library", "cudnn", "c++"],
)
def test_a_lack_of_memory_is_recognised_whoever_tells_it(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory"), OSError(28, "")])
def test_other_errors_are_no_lack_of_memory(error):
    assert not is_out_of_memory(error)


@pytest.mark.slow
def test_nothing_is_set_aside_any_more_when_the_process_ends():
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count()))\n"
    code += "from search.trial.memory import set_survivors_aside\n"
    code += "set_survivors_aside(); set_survivors_aside(); print(gc.get_freeze_count() > 0)"

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.split() == ["True", "0"]


def test_the_reason_says_batch_size_expectation_and_peak_in_one_line():
    error = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")

    reason = explain_out_of_memory(error, batch_size=512, expected=round(9.3 * 2**30), peak=round(7.81 * 2**30))

    assert reason == "out of memory at batch_size 512 (expected 9.30 GiB, peak 7.81 GiB): CUDA out of memory."


@pytest.mark.parametrize(("size", "words"), [(0, "0.0 MiB"), (2**20, "1.0 MiB"), (2**28, "0.25 GiB")])
def test_bytes_read_as_people_say_them(size, words):
    assert byte_size(size) == words


FAULTS = """
import resource, sys, torch
from search.trial.memory import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit("no mallopt")
def step():
    return [torch.ones(2**23) for _ in range(4)][0].sum()
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_freed_memory_that_is_kept_is_not_cleared_again_by_the_system():
    command = [sys.executable, "-c", FAULTS]

    faults = {
        how: int(subprocess.run([*command, how], check=True, capture_output=True, text=True).stdout)
        for how in ("returned", "kept")
    }

    assert faults["kept"] < faults["returned"] / 5


@pytest.fixture
def gpu(monkeypatch):
    """Stand in for CUDA below torch: a GPU of 16 GiB, of which so much is free at each look."""
    limits = []
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    def have(*free_gib):
        looks = iter([*free_gib[:-1], *[free_gib[-1]] * 10_000])
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (int(next(looks) * 2**30), 16 * 2**30))
        monkeypatch.setattr(
            torch._C, "_cuda_setMemoryFraction", lambda share, device: limits.append(share), raising=False
        )
        return limits

    return have


@pytest.mark.parametrize(("share", "limit"), [(1.0, 31 / 32), (0.5, 15 / 32), (0.25, 7 / 32), (4, 31 / 32), (0.01, 0)])
def test_a_trial_may_take_its_share_of_a_gpu_less_what_cuda_takes(gpu, share, limit):
    limits = gpu(16)

    assert take_gpu_share(share) == 0
    assert limits == pytest.approx([limit])


def test_memory_that_is_being_freed_is_waited_for(gpu):
    gpu(1, 1, 3, 9)

    assert take_gpu_share(0.5, patience_s=20) == 0


def test_memory_that_nobody_frees_is_not_waited_for_long(gpu):
    gpu(4)

    held = take_gpu_share(0.5, patience_s=20, still_s=0.3)

    assert held == pytest.approx((0.9 * 8 - 0.5 - 4) * 2**30, abs=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_trial_that_wants_more_than_its_share_runs_out_of_memory_itself():
    code = """
import torch
from search.trial.memory import is_out_of_memory, take_gpu_share
device = torch.device("cuda")
total = torch.cuda.mem_get_info(device)[1]
take_gpu_share(0.25)
small = torch.empty(int(0.1 * total), dtype=torch.uint8, device=device)
try:
    torch.empty(int(0.3 * total), dtype=torch.uint8, device=device)
except Exception as error:
    print(is_out_of_memory(error), torch.cuda.mem_get_info(device)[0] > total / 2)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.split() == ["True", "True"]
