"""What a trial holds of its device's memory: measured while it runs, recognised and explained when it lacks."""

import atexit
import ctypes
import gc
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from data_pipeline.errors import first_line

# What torch and its libraries say, besides torch.OutOfMemoryError: the CPU's allocator, C++, CUDA's libraries, oneDNN.
_OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", "out of memory", "alloc_failed", "could not create a memory")

# What CUDA itself takes of a GPU for every process.
_CONTEXT = 2**29
# Of glibc's malloc.h: parameters of mallopt, and the values by which nothing is handed back.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP_ALL = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**26))


def keep_freed_memory() -> bool:
    """Let this process keep what its tensors free, for the next ones; return whether its C library can.

    Otherwise glibc hands large tensors back to Linux, which clears every page anew in the next step: 5 to 9 % of the
    processor's time of a training step. The process then stays as large as it was at its peak.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(parameter, value) for parameter, value in _KEEP_ALL)


def take_gpu_share(share: float, *, patience_s: float = 30.0, still_s: float = 5.0) -> int:
    """Hold this process to its share of its GPU, and wait while others still free what was theirs.

    A process that wants more than its share then runs out of memory itself, and not whoever shares the GPU with it.
    Memory that nobody frees, because another user holds it, is not waited for.

    Args:
        share: Of the GPU's memory, in (0, 1]; more than one GPU counts as one.
        patience_s: Seconds to wait at most.
        still_s: Seconds without anything being freed, after which the wait ends.

    Returns:
        Bytes of the share that are still held by others.
    """
    free, total = torch.cuda.mem_get_info()
    share = min(share, 1.0)
    torch.cuda.set_per_process_memory_fraction(max(0.0, share - _CONTEXT / total))
    wanted = 0.9 * share * total - _CONTEXT
    end, still_until = time.monotonic() + patience_s, time.monotonic() + still_s
    while free < wanted and time.monotonic() < min(end, still_until):
        time.sleep(0.1)
        before, free = free, torch.cuda.mem_get_info()[0]
        if free > before:
            still_until = time.monotonic() + still_s
    return max(0, int(wanted - free))


def peak_memory(device: torch.device) -> int:
    """Measure the most bytes held so far: by tensors on a GPU, resident in this process on the CPU.

    The maximum begins anew with `restart_peak`. What is resident includes the pages of mapped files that this process
    has touched, though other processes share them: encoded maps, and the features of frozen backbones.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def restart_peak(device: torch.device) -> None:
    """Let go of what an earlier trial left, and begin to measure anew. No trial may be under way.

    On the CPU only Linux can: elsewhere the peak stays that of the process so far.
    """
    set_survivors_aside()  # torch's modules above all: to look through them again would take 0.2 s a trial
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set


def set_survivors_aside() -> None:
    """Look for garbage now, and never again among what is left."""
    gc.collect()
    gc.freeze()
    atexit.unregister(gc.unfreeze)  # so that it is there once
    atexit.register(gc.unfreeze)  # what is aside at the end counts as leaked for libraries that look (triton does)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was lacking, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def explain_out_of_memory(error: BaseException, *, batch_size: int, expected: int, peak: int) -> str:
    """Say what was lacking, in one line; sizes in bytes, `expected` is 0 if nobody planned.

    Example:
        >>> explain_out_of_memory(MemoryError(), batch_size=512, expected=2**33, peak=3 * 2**31)
        'out of memory at batch_size 512 (expected 8.00 GiB, peak 6.00 GiB): MemoryError'
    """
    planned = f"expected {byte_size(expected)}, " if expected else ""
    return f"out of memory at batch_size {batch_size} ({planned}peak {byte_size(peak)}): {first_line(error)}"


def byte_size(size: int) -> str:
    """Write bytes for people.

    Example:
        >>> byte_size(450_000_000), byte_size(3_000_000)
        ('0.42 GiB', '2.9 MiB')
    """
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"
