"""The space: a tree of constants, choices, ranges and branches, and how a trial is drawn from it.

A scalar is a constant, a list a choice, `{low, high[, log][, step]}` a range, and `{choose: {name: {...}}}` a branch
whose options carry their own sub-space. A parameter is named by its whole path, such as `model.wafer_cnn.lr`, so that
a sampler can model each branch by itself.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from search.trial.params import TrialParams
from search.trial.vocabulary import Scalar

# A flat configuration, or a part of one: values by full name.
Config = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Constant:
    """One value, in every trial."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several values, in no order."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """A number in [low, high], whole if `low` and `high` are; in steps from `low`, or evenly in the logarithm."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def contains(self, value: object) -> bool:
        """Whether a value lies in the range, on its grid if it has steps, and is whole if it must be."""
        if isinstance(value, bool) or not isinstance(value, int if self.is_whole else int | float):
            return False
        steps = (value - self.low) / self.step if self.step else 0
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-8  # as Optuna forgives rounding

    @property
    def n_values(self) -> int | None:
        """How many values there are; None if they are endless.

        Example:
            >>> Range(4, 16, step=4).n_values, Range(0.0, 0.3, step=0.1).n_values, Range(0.0, 0.3).n_values
            (4, 4, None)
        """
        if not self.is_whole and not self.step:
            return None
        return int((self.high - self.low) / (self.step or 1) + 1e-8) + 1

    def values(self) -> Iterator[float]:
        """Go through the values, if they are not endless, as they are drawn."""
        step = self.step or 1
        return (min(self.high, self.low + step * i) for i in range(self.n_values or 0))  # rounding


@dataclass(frozen=True, slots=True)
class Branch:
    """One of several names, each with a sub-space of its own."""

    options: Mapping[str, Mapping[str, "Node"]]


Node = Constant | Choice | Range | Branch


class Suggestions(Protocol):
    """What a space needs of a trial; an Optuna trial fits, and so does a fixed point."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Return one of the choices."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return a whole number in [low, high]."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number in [low, high]."""


@dataclass(frozen=True, slots=True)
class Space:
    """All configurations that a study may try.

    Attributes:
        nodes: What stands under each key at the top of the tree.
    """

    nodes: Mapping[str, Node]

    def sample(self, trial: Suggestions) -> dict[str, Scalar]:
        """Draw one flat configuration; an Optuna trial that is asked again gives the same one, dice another."""
        return _sample(self.nodes, trial, prefix="")

    def size(self) -> int | None:
        """Count the configurations, forbidden ones too; None if they are endless.

        Example:
            >>> cnn, resnet = {"depth": Choice((1, 2)), "dropout": Range(0.0, 0.4, step=0.1)}, {"width": Range(16, 18)}
            >>> Space({"model": Branch({"cnn": cnn, "resnet": resnet}), "ema": Choice((0.0, 0.5))}).size()
            26
        """
        return _size(self.nodes)

    def configurations(self) -> Iterator[dict[str, Scalar]]:
        """Go through all configurations of a space that has a `size`, forbidden ones too."""
        yield from _configurations(self.nodes, prefix="")

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that may be tried."""
        return tuple(str(name) for name in self.values_of("model")) or (model_of({}),)

    def parameters(self) -> dict[str, Node]:
        """Return what is searched, by full name: everything but constants."""
        return {name: node for name, node in self.walk() if not isinstance(node, Constant) and not _is_single(node)}

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Go through the whole tree: full name and node."""
        yield from _walk(self.nodes, prefix="")

    def contains(self, name: str, value: object) -> bool:
        """Whether the parameter or constant `name` can take this value; neither true nor 8.0 is a whole number."""
        node = dict(self.walk()).get(name)
        if isinstance(node, Range):
            return node.contains(value)
        return any(value == known and _is_of_kind(value, known) for known in values_of(node))

    @property
    def longest(self) -> int:
        """Epochs of the longest schedule that may be tried."""
        names = [name for name, _ in self.walk() if name.rpartition(".")[2] == "epochs"]
        ends = [int(value) for name in names for value in self.values_of(name)]
        return max(ends if _sets_epochs(self.nodes) else [*ends, epochs_of({})])

    def values_of(self, name: str) -> tuple[Scalar, ...]:
        """Return the values of a choice, branch or constant, or the two ends of a range; nothing if it is absent."""
        return values_of(dict(self.walk()).get(name))


def values_of(node: Node | None) -> tuple[Scalar, ...]:
    """Return the values of a constant, choice or branch, or the two ends of a range; nothing without a node."""
    match node:
        case Constant(value):
            return (value,)
        case Choice(values):
            return values
        case Range(low, high):
            return (low, high)
        case Branch(options):
            return tuple(options)
    return ()


def epochs_of(config: Config) -> int:
    """Return the length of a flat configuration, wherever in it `epochs` is set."""
    lengths = [value for name, value in config.items() if name.rpartition(".")[2] == "epochs"]
    return int(lengths[0] if lengths else TrialParams.model_fields["epochs"].default)


def model_of(config: Config) -> str:
    """Return the name of the model that a flat configuration trains."""
    return str(config.get("model", TrialParams.model_fields["model"].default.name))


def to_tree(nodes: Mapping[str, Node]) -> dict[str, object]:
    """Write a space in the form in which YAML files hold it."""
    return {key: _to_yaml(node) for key, node in nodes.items()}


def _sample(nodes: Mapping[str, Node], trial: Suggestions, *, prefix: str) -> dict[str, Scalar]:
    flat: dict[str, Scalar] = {}
    for key, node in nodes.items():
        name = prefix + key
        match node:
            case Constant(value):
                flat[name] = value
            case Choice(values):
                flat[name] = trial.suggest_categorical(name, list(values)) if len(values) > 1 else values[0]
            case Range(low, high, log, step) if node.is_whole:
                flat[name] = trial.suggest_int(name, int(low), int(high), log=log, step=int(step or 1))
            case Range(low, high, log, step):
                flat[name] = trial.suggest_float(name, low, high, log=log, step=step)
            case Branch(options):
                names: list[Scalar] = list(options)
                chosen = str(trial.suggest_categorical(name, names) if len(names) > 1 else names[0])
                flat[name] = chosen
                flat |= _sample(options[chosen], trial, prefix=f"{name}.{chosen}.")
    return flat


def _walk(nodes: Mapping[str, Node], *, prefix: str) -> Iterator[tuple[str, Node]]:
    for key, node in nodes.items():
        yield prefix + key, node
        if isinstance(node, Branch):
            for option, inner in node.options.items():
                yield from _walk(inner, prefix=f"{prefix}{key}.{option}.")


def _size(nodes: Mapping[str, Node]) -> int | None:
    size = 1
    for node in nodes.values():
        inner = [_size(option) for option in node.options.values()] if isinstance(node, Branch) else [_count(node)]
        if None in inner:
            return None
        size *= sum(n or 0 for n in inner)
    return size


def _count(node: Node) -> int | None:
    return node.n_values if isinstance(node, Range) else len(values_of(node))


def _configurations(nodes: Mapping[str, Node], *, prefix: str) -> Iterator[dict[str, Scalar]]:
    levels = [list(_settings(prefix + key, node)) for key, node in nodes.items()]
    for parts in itertools.product(*levels):
        yield {name: value for part in parts for name, value in part.items()}


def _settings(name: str, node: Node) -> Iterator[dict[str, Scalar]]:
    """Go through all that one node can add to a configuration."""
    if isinstance(node, Branch):
        for option, inner in node.options.items():
            for part in _configurations(inner, prefix=f"{name}.{option}."):
                yield {name: option, **part}
    else:
        for value in node.values() if isinstance(node, Range) else values_of(node):
            yield {name: value}


def _is_of_kind(value: object, known: Scalar) -> bool:
    """Whether a value that equals a known one may stand for it: a trial reads neither 1.0 nor true as 1."""
    if isinstance(value, bool) or isinstance(known, bool):
        return isinstance(value, bool) and isinstance(known, bool)
    return not isinstance(value, float) or isinstance(known, float)


def _sets_epochs(nodes: Mapping[str, Node]) -> bool:
    """Whether no configuration leaves its length to the default."""
    return "epochs" in nodes or any(
        isinstance(node, Branch) and all(map(_sets_epochs, node.options.values())) for node in nodes.values()
    )


def _is_single(node: Node) -> bool:
    return not isinstance(node, Range) and len(values_of(node)) == 1


def _to_yaml(node: Node) -> object:
    match node:
        case Constant(value):
            return value
        case Choice(values):
            return list(values)
        case Range(low, high, log, step):
            return {"low": low, "high": high} | ({"log": True} if log else {}) | ({"step": step} if step else {})
        case Branch(options):
            return {"choose": {name: to_tree(inner) for name, inner in options.items()}}
