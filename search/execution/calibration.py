"""How many trials a GPU trains side by side best, found out by trying: what `resources.gpus: auto` means."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from rich.console import Console

from search.errors import ConfigError
from search.execution.cluster import Cluster
from search.execution.device import find_shares, make_planner
from search.execution.packing import Node, Packing, Slice
from search.execution.trainable import open_arrays, share_arrays
from search.space.config import StudyConfig
from search.space.space import Config, model_of
from search.study.planning import plan_largest_of
from search.study.probe import choose_probes, probe
from search.study.records import read_json, write_json
from search.study.study import Study
from search.trial.data import TrialData
from search.trial.memory import byte_size, is_out_of_memory, keep_freed_memory, restart_peak, take_gpu_share
from search.views.terminal import say

_SIDE_BY_SIDE = (1, 2, 3, 4, 6, 8)
_BUDGET_S = 4.0
# More trials on a GPU are tried as long as each step gains so much; of those that come so close, the fewest are taken.
_GAIN, _CLOSE = 1.05, 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One way to share a device, and what came of it.

    Attributes:
        model: Of the trials.
        n: Trials side by side.
        each: What each had.
        rate: Samples trained and judged per second, by all together; 0 if they did not fit.
        reason: Why not.
    """

    model: str
    n: int
    each: Slice
    rate: float
    reason: str = ""

    def __str__(self) -> str:
        result = f"{self.rate:,.0f} samples/s" if self.rate else f"does not work ({self.reason})"
        return f"{self.model}: {self.n} side by side, {self.each} each: {result}"


def pack(cluster: Cluster, study: Study, data: TrialData, console: Console) -> Cluster:
    """Find out how many trials of each model a GPU should train, where the space leaves that open.

    It is found out once: the study's folder keeps it for later attempts on the same device.

    Args:
        cluster: That runs.
        study: Whose trials are to be packed.
        data: Training and validation wafers, on the CPU.
        console: Where to say what was tried.

    Returns:
        The cluster, packed so.

    Raises:
        ConfigError: If a model does not train on a GPU, or nothing is free to try it on.
    """
    packing, config = cluster.packing, study.config
    open_ones = [model for model in packing.slices if packing.gpus and config.resources.of(model)[1] == "auto"]
    if not open_ones:
        return cluster
    path = study.folder.packing
    there = {
        "device": packing.device,
        "cpus": {model: packing.slices[model].cpus for model in open_ones},
    }
    known = _read(path, there) if path.exists() else {}
    if not set(open_ones) <= known.keys():
        say(console, f"trying out how many trials a GPU trains best ({', '.join(open_ones)}) ...")
        tried = []
        planner = make_planner(config, data, auto=find_shares(packing)[open_ones[0]].auto)
        needed = {model: plan_largest_of(config, planner, model) for model in open_ones}
        for each in try_gpu(packing, config, needed, data, study.classes):
            say(console, f"  {each}")
            tried.append(each)
        by_model = {model: [each for each in tried if each.model == model] for model in open_ones}
        # What the rules forbid altogether is not tried, and no trial will have it.
        known = {model: choose(mine) if mine else packing.slices[model] for model, mine in by_model.items()}
        write_json(path, {**there, "slices": known, "tried": [_to_json(each) for each in tried]})
    slices = {model: known[model] if model in open_ones else each for model, each in packing.slices.items()}
    return replace(cluster, packing=replace(packing, slices=slices))


def choose(tried: Sequence[Tried]) -> Slice:
    """Choose the fewest side by side of those that train nearly as many samples per second as the best.

    Raises:
        ConfigError: If nothing worked.
    """
    best = max(each.rate for each in tried)
    if not best:
        raise ConfigError(
            f"resources.gpus: auto: {tried[0].model} does not train on a GPU here ({tried[0].reason}); "
            "ask for less memory by batch_size, or say none"
        )
    return min((each for each in tried if each.rate >= _CLOSE * best), key=lambda each: each.n).each


def try_gpu(
    packing: Packing, config: StudyConfig, needed: Mapping[str, int], data: TrialData, classes: tuple[str, ...]
) -> Iterator[Tried]:
    """Try one, two and more trials on one GPU, model by model, until more of them gain nothing or do not fit.

    Args:
        packing: Of the cluster; all of its GPUs are taken to be alike.
        config: Of the study.
        needed: Bytes that the largest trials of each model will hold, by the models that are to be tried; 0 if unknown.
        data: Training and validation wafers, on the CPU.
        classes: Names of the K classes.
    """
    node = max(packing.nodes, key=lambda node: node.gpus)
    with Rigs(node, config, data, classes) as rigs:
        for flat in choose_probes(config, n=len(config.space.models)):
            model = model_of(flat)
            if model not in needed:
                continue
            cpus, best = packing.slices[model].cpus, 0.0
            ways = {n: Slice(cpus, gpus) for n, gpus in count_side_by_side(node, cpus)}
            shares = find_shares(replace(packing, slices={str(n): each for n, each in ways.items()}))
            for n, each in ways.items():
                usable = shares[str(n)].usable
                if n > 1 and usable is not None and needed[model] > usable:
                    lacking = f"the largest trials take {byte_size(needed[model])}, a share leaves {byte_size(usable)}"
                    yield Tried(model=model, n=n, each=each, rate=0.0, reason=lacking)
                    break
                tried = rigs.run(flat, n, each)
                yield tried
                if tried.rate < _GAIN * best or not tried.rate:
                    break
                best = tried.rate


def count_side_by_side(node: Node, cpus: int) -> list[tuple[int, float]]:
    """List how many trials may share a GPU of a node, as its cores suffice for all of its GPUs, and each's share."""
    most = max(1, int(node.cpus // (cpus * max(node.gpus, 1.0))))
    return [(n, math.floor(1e4 / n) / 1e4) for n in _SIDE_BY_SIDE if n <= most]  # Ray counts to four digits


class Rigs:
    """Processes that train side by side on one GPU, or on the cores of a machine without one; a context manager."""

    def __init__(self, node: Node, config: StudyConfig, data: TrialData, classes: tuple[str, ...]) -> None:
        self._arrays = ray.put(share_arrays(data, classes=classes, image_size=config.data.image_size))
        self._gpus = min(node.gpus, 1.0)
        cpus = max(1, math.floor(node.cpus / max(node.gpus, 1.0)))
        self._room = placement_group([{"CPU": cpus, **({"GPU": self._gpus} if self._gpus else {})}])
        self._rigs: list[Any] = []

    def __enter__(self) -> "Rigs":
        if not self._room.wait(timeout_seconds=60):
            raise ConfigError("resources.gpus: auto cannot be tried out, because nothing on the cluster is free now")
        return self

    def __exit__(self, *_: object) -> None:
        for rig in self._rigs:
            ray.kill(rig)
        remove_placement_group(self._room)

    def run(self, flat: Config, n: int, each: Slice) -> Tried:
        """Train a configuration in `n` processes at once, each with its slice."""
        where = PlacementGroupSchedulingStrategy(self._room, placement_group_bundle_index=0)
        while len(self._rigs) < n:
            asks = {"num_cpus": 0.01, "num_gpus": 0.1 if self._gpus else 0, "scheduling_strategy": where}
            self._rigs.append(ray.remote(_Rig).options(**asks).remote(self._arrays))
        rigs = self._rigs[:n]
        try:
            for budget in (_BUDGET_S / 4, _BUDGET_S):  # the first warms up
                rates = ray.get([rig.measure.remote(dict(flat), each.cpus, each.gpus, budget) for rig in rigs])
        except Exception as error:  # noqa: BLE001 - what does not work this way is not chosen
            self._rigs = []
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            return Tried(model=model_of(flat), n=n, each=each, rate=0.0, reason=reason)
        lacking = next((rate for rate in rates if isinstance(rate, str)), "")
        total = 0.0 if lacking else sum(rates)
        return Tried(model=model_of(flat), n=n, each=each, rate=total, reason=lacking)


class _Rig:
    """Trains for some seconds what it is told, in a process of its own."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        keep_freed_memory()
        self._arrays = arrays
        is_on_gpu = torch.cuda.is_available() and bool(ray.get_gpu_ids())
        self._device = torch.device("cuda" if is_on_gpu else "cpu")
        self._data = open_arrays(arrays).to(self._device)

    def measure(self, flat: dict[str, Any], cpus: int, gpus: float, budget_s: float) -> float | str:
        """Return samples per second, or what was lacking."""
        torch.set_num_threads(cpus)
        if self._device.type == "cuda":
            take_gpu_share(gpus, patience_s=5)
        try:
            found = probe(
                flat,
                self._data,
                classes=self._arrays["classes"],
                image_size=self._arrays["image_size"],
                budget_s=budget_s,
            )
            return self._data.epoch_samples / found.seconds
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = "out of memory"
        restart_peak(self._device)
        return reason


def _read(path: Path, there: Mapping[str, object]) -> dict[str, Slice]:
    """Read what an earlier attempt found out on the same device for the same question."""
    content = read_json(path)
    if any(content.get(key) != value for key, value in there.items()):
        return {}
    return {model: Slice(*each) for model, each in content["slices"].items()}


def _to_json(tried: Tried) -> dict[str, object]:
    return {"model": tried.model, "n": tried.n, "slice": tried.each, "rate": tried.rate, "reason": tried.reason}
