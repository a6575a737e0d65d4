"""What one trial gets of a machine or a cluster, and how many trials fit on it side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from search.errors import ConfigError
from search.space.config import ResourcesConfig

# Set, it lets trials train on the CPU though Ray lends them a GPU: for rehearsing on a machine that has none.
FAKE_GPUS = "WAFER_SEARCH_FAKE_GPUS"
# A share such as 0.1 is not exact in binary.
_EXACT = 1e-6


class Node(NamedTuple):
    """One machine: its name, the cores and GPUs that it lends, and of which kind these are, if Ray knows."""

    name: str
    cpus: float
    gpus: float
    kind: str = ""


class Slice(NamedTuple):
    """Cores and GPUs of one trial."""

    cpus: int
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus} CPU and {self.gpus:g} GPU"

    def count_on(self, node: Node) -> int:
        """Count how many trials fit on a node: one trial never spans several, nor does a share of a GPU."""
        by_cpus = int(node.cpus // self.cpus)
        if not self.gpus:
            return by_cpus
        if self.gpus <= 1:
            return min(by_cpus, int(node.gpus + _EXACT) * int(1 / self.gpus + _EXACT))
        return min(by_cpus, int((node.gpus + _EXACT) // self.gpus))


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How the trials of a study share what there is.

    Attributes:
        nodes: The machines.
        slices: What a trial gets, by its model.
    """

    nodes: tuple[Node, ...]
    slices: Mapping[str, Slice]

    @property
    def slots(self) -> int:
        """Trials that run side by side, at most: as many as if all were of the model that takes least."""
        return max(self.count(each) for each in self.slices.values())

    @property
    def gpus(self) -> float:
        """The most GPUs that a trial has."""
        return max(each.gpus for each in self.slices.values())

    @property
    def device(self) -> str:
        """All of it, in words."""
        n_cpus, n_gpus = (sum(column) for column in zip(*((node.cpus, node.gpus) for node in self.nodes), strict=True))
        kinds = sorted({node.kind for node in self.nodes if node.gpus and node.kind})
        named = f" ({', '.join(kinds)})" if kinds else ""
        what = f"{n_gpus:g} GPUs{named}, {n_cpus:g} CPU cores" if n_gpus else f"{n_cpus:g} CPU cores"
        return what if len(self.nodes) == 1 else f"{len(self.nodes)} nodes, {what}"

    def count(self, each: Slice) -> int:
        """Count how many trials with this much fit."""
        return sum(each.count_on(node) for node in self.nodes)

    def has_room(self, models: Iterable[str]) -> bool:
        """Whether another trial may be begun beside those of these models.

        Which model the next one has, only its proposal says. So that a proposal does not wait for its place while
        others report what it should have known, one is asked for when the smallest would fit.
        """
        running = [self.slices[model] for model in models]
        smallest = min(self.slices.values(), key=lambda each: (each.gpus, each.cpus))
        return all(
            sum(taken) + least <= sum(there) + _EXACT
            for taken, least, there in (
                ((each.cpus for each in running), smallest.cpus, (node.cpus for node in self.nodes)),
                ((each.gpus for each in running), smallest.gpus, (node.gpus for node in self.nodes)),
            )
        )

    def describe(self) -> str:
        """Say what runs where, and on how much of it."""
        n = f"{self.slots} trials side by side on {self.device}"
        if len(set(self.slices.values())) == 1:
            return f"{n}, {next(iter(self.slices.values()))} each"
        return f"up to {n}: " + ", ".join(f"{model} {each}" for model, each in self.slices.items())


def share_out(resources: ResourcesConfig, models: Sequence[str], nodes: Sequence[Node]) -> Packing:
    """Say what each trial gets, and check that it is there; "auto" is a whole GPU until more is known.

    Args:
        resources: What the space asks for.
        models: That the trials may have.
        nodes: The machines; one at least.

    Raises:
        ConfigError: If there is too little for a trial, or GPUs would stay idle without being told so.
    """
    n_gpus = sum(node.gpus for node in nodes)
    slices = {model: _slice(resources, model, n_gpus) for model in models}
    packing = Packing(nodes=tuple(nodes), slices=slices)
    for model, each in slices.items():
        if not packing.count(each):
            there = ", ".join(f"{node.cpus:g} CPUs and {node.gpus:g} GPUs" for node in nodes[:4])
            where = (
                f"there are {there}" if len(nodes) == 1 else f"no node has that ({there}{', ...' * (len(nodes) > 4)})"
            )
            raise ConfigError(
                f"resources: a trial of {model} asks for {each.cpus} CPUs and {each.gpus:g} GPUs; {where}; ask for less"
            )
    return packing


def _slice(resources: ResourcesConfig, model: str, n_gpus: float) -> Slice:
    cpus, gpus = resources.of(model)
    if gpus == 0 and n_gpus:
        raise ConfigError(
            f"resources.gpus: is 0 for {model}, but there are {n_gpus:g} GPUs; "
            "say auto to use them, or none to leave them idle on purpose"
        )
    if not n_gpus or isinstance(gpus, str):
        return Slice(cpus, 1.0 if n_gpus and gpus == "auto" else 0.0)
    return Slice(cpus, gpus)
