"""What a trial holds is measured, and a lack of memory is recognised and explained."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from search.trial.memory import byte_size, explain_out_of_memory, is_out_of_memory, peak_memory, restart_peak

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
