"""What a trial's share of the machine is, found out without opening a GPU: that alone would take half a GiB of it."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

import ray
import torch
from rich.console import Console

from search.execution.packing import Packing
from search.space.config import StudyConfig
from search.study.planning import Largest, Planner, find_largest
from search.trial.data import TrialData
from search.trial.evaluation import choose_dtype
from search.trial.memory_plan import usable_memory
from search.views.terminal import say
from search.views.words import memory_plan

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


def find_shares(packing: Packing, *, free: int | None = None) -> dict[str, Share]:
    """Find out what a trial of each model gets; several GPUs count as one, which is all that it uses.

    Args:
        packing: Of the trials.
        free: Memory of all CPU trials together, in bytes; None if unknown.
    """
    memory, capability = _ask_smallest_gpu() if packing.gpus else (0, 0.0)

    def share(gpus: float) -> Share:
        if not gpus:
            usable = usable_memory(free // packing.slots, on_gpu=False) if free else None
            return Share(usable=usable, auto=choose_dtype("auto", torch.device("cpu")))
        usable = usable_memory(int(memory * min(gpus, 1.0)), on_gpu=True) if memory else None
        return Share(usable=usable, auto=torch.bfloat16 if capability >= _NATIVE_BF16 else torch.float32)

    return {model: share(each.gpus) for model, each in packing.slices.items()}


def free_memory() -> int:
    """Ask a running Ray how many bytes it has for processes, on all nodes together."""
    return int(ray.cluster_resources().get("memory", 0))  # type: ignore[no-untyped-call]


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


def make_planner(config: StudyConfig, data: TrialData, *, auto: torch.dtype) -> Planner:
    """Make what plans the memory of a study's trials, where "auto" precision is this one."""
    return Planner(
        data=config.data,
        n_train=len(data.train),
        n_val=len(data.val or ()),
        n_classes=data.n_classes,
        auto=auto,
    )


def plan_memory(
    config: StudyConfig, data: TrialData, shares: Mapping[str, Share], console: Console
) -> tuple[Planner, Largest | None]:
    """Plan the memory of a study's trials, and say how much the largest will hold.

    Args:
        config: Of the study.
        data: What is trained on.
        shares: What a trial gets, by its model.
        console: Where to say it.

    Returns:
        The planner; the largest configuration that was found, None if planning fails.
    """
    planner = make_planner(config, data, auto=next(iter(shares.values())).auto)
    try:
        largest = find_largest(config, planner)
    except Exception as error:  # noqa: BLE001 - a plan is good to have; no search may fail for the want of one
        say(console, f"memory: cannot be planned ({type(error).__name__}: {error})")
        return planner, None
    say(console, memory_plan(largest, usable=shares[largest.params.model.name].usable))
    return planner, largest
