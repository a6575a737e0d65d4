"""What a trial's share of the machine is, found out without opening a GPU: that alone would take half a GiB of it."""

import subprocess
from dataclasses import dataclass

import ray
import torch

from search.trial.evaluation import choose_dtype
from search.trial.memory_plan import usable_memory

# The first generation whose bfloat16 is not emulated, Ampere; torch.cuda.is_bf16_supported(False) asks the same.
_NATIVE_BF16 = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one trial gets.

    Attributes:
        usable: Memory for its tensors, in bytes, after what its process needs besides; None if unknown.
        auto: What it computes in where the precision is "auto"; float32, which takes more, if unknown.
    """

    usable: int | None
    auto: torch.dtype


def find_share(*, gpus: float, slots: int) -> Share:
    """Find out what one of `slots` trials gets, in a Ray that is running.

    Args:
        gpus: Of each trial; several count as one, which is all that a trial uses.
        slots: Trials side by side.
    """
    if not gpus:
        free = ray.cluster_resources().get("memory", 0)  # type: ignore[no-untyped-call]
        usable = usable_memory(int(free) // slots, on_gpu=False) if free else None
        return Share(usable=usable, auto=choose_dtype("auto", torch.device("cpu")))
    memory, capability = _ask_smallest_gpu()
    usable = usable_memory(int(memory * min(gpus, 1.0)), on_gpu=True) if memory else None
    return Share(usable=usable, auto=torch.bfloat16 if capability >= _NATIVE_BF16 else torch.float32)


def _ask_smallest_gpu() -> tuple[int, float]:
    """Return bytes and compute capability; zeros without NVIDIA's tool, as on a machine that only drives a cluster."""
    command = ["nvidia-smi", "--query-gpu=memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
        return min(parse_gpus(answer), default=(0, 0.0))
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0, 0.0


def parse_gpus(answer: str) -> list[tuple[int, float]]:
    """Read memory in MiB and compute capability, one GPU a line, as nvidia-smi prints them.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> parse_gpus("8192, 8.6")
        [(8589934592, 8.6)]
    """
    rows = [line.split(",") for line in answer.strip().splitlines()]
    return [(int(memory) * 2**20, float(capability)) for memory, capability in rows]
