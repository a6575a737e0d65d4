"""Configurations of a space as vectors, for a model that works on those."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.space.space import Branch, Choice, Config, Constant, Node, Range, Space, epochs_of
from search.trial.vocabulary import Scalar

Array = NDArray[np.float64]

# Where a number lies that belongs to a branch which was not chosen; words are then number -1.
_ABSENT_NUMBER, _ABSENT_WORD = 0.5, -1.0
_STEP = 0.15  # standard deviation of a small change of a number


@dataclass(frozen=True, slots=True)
class _Dimension:
    """One searched parameter.

    Attributes:
        name: Full name.
        node: Its choice, range or branch.
        values: All it can be, in order, or None if there are too many to be listed.
        is_word: Whether its values have no order.
        owner: Dimension of the branch that it belongs to; None at the top.
        option: Number of the option there.
    """

    name: str
    node: Node
    values: tuple[Scalar, ...] | None
    is_word: bool
    owner: int | None
    option: int

    @property
    def n_steps(self) -> int:
        """Distances between neighbouring values; 0 if they lie anywhere."""
        if self.values is not None:
            return len(self.values) - 1
        is_even = isinstance(self.node, Range) and not self.node.log and self.node.n_values is not None
        return self.node.n_values - 1 if is_even else 0  # type: ignore[union-attr,operator]


@dataclass(frozen=True, slots=True)
class _Length:
    """Where `epochs` is set: at the top or in an option of a branch; in a dimension, or as its only value."""

    owner: int | None
    option: int
    place: int | None
    values: tuple[Scalar, ...] | None


class Encoder:
    """Turns flat configurations of a space into vectors and back.

    Numbers lie in [0, 1], evenly in the logarithm where the space says so, lists of numbers at even distances; words
    and branches are whole numbers. What belongs to a branch that was not chosen lies at a fixed place, so that it adds
    nothing to the distance of two configurations which both lack it.

    Attributes:
        is_word: Which dimensions hold words, shape (d,).
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._dimensions: list[_Dimension] = []
        self._lengths: list[_Length] = []
        _collect(space.nodes, self._dimensions, self._lengths)
        self._places = {dimension.name: k for k, dimension in enumerate(self._dimensions)}
        self.is_word = np.array([dimension.is_word for dimension in self._dimensions], bool)

    def encode(self, config: Config) -> Array:
        """Return the vector of a flat configuration, shape (d,)."""
        vector = np.where(self.is_word, _ABSENT_WORD, _ABSENT_NUMBER)
        for k, dimension in enumerate(self._dimensions):
            if dimension.name in config:
                vector[k] = _to_unit(dimension, config[dimension.name])
        return vector

    def decode(self, vector: Array) -> dict[str, Scalar]:
        """Return the flat configuration at or next to a vector."""
        return self._space.sample(_Reader(vector, self._dimensions, self._places))

    def lengths(self, vectors: Array) -> Array:
        """Return the epochs of each configuration's schedule, shape (n,)."""
        lengths = np.full(len(vectors), float(epochs_of({})))
        for length in self._lengths:
            rows = np.ones(len(vectors), bool) if length.owner is None else vectors[:, length.owner] == length.option
            if length.place is not None:
                dimension = self._dimensions[length.place]
                lengths[rows] = [float(_read(dimension, place)) for place in vectors[rows, length.place]]
            elif length.values:
                lengths[rows] = float(length.values[0])
        return lengths

    def spread(self, cube: Array) -> Array:
        """Turn points of the unit cube into vectors of configurations; both of shape (n, d)."""
        return self._blank(self._settle(cube))

    def mutate(self, parents: Array, rng: np.random.Generator) -> Array:
        """Change one or more values of each vector, shape (n, d): words at random, numbers a little."""
        n, d = parents.shape
        changed = rng.random((n, d)) < 2 / d
        changed[np.arange(n), rng.integers(d, size=n)] = True
        anywhere = self._settle(rng.random((n, d)))
        near = np.clip(parents + rng.normal(size=(n, d)) * _STEP, 0, 1)
        for k, dimension in enumerate(self._dimensions):
            if dimension.n_steps and not dimension.is_word:  # one step at least
                steps = np.rint(rng.normal(size=n) * max(_STEP * dimension.n_steps, 0.8))
                steps = np.where(steps == 0, rng.choice((-1, 1), n), steps)
                near[:, k] = np.clip(parents[:, k] + steps / dimension.n_steps, 0, 1)
        children = np.where(changed, np.where(self.is_word, anywhere, near), parents)
        return self._blank(np.where(self._active(parents), children, anywhere))

    def _settle(self, cube: Array) -> Array:
        """Put points of the unit cube onto the values that there are."""
        vectors = cube.copy()
        for k, dimension in enumerate(self._dimensions):
            n = dimension.n_steps
            if dimension.is_word or n:
                vectors[:, k] = np.minimum(np.floor(cube[:, k] * (n + 1)), n) / (1 if dimension.is_word else n)
        return vectors

    def _active(self, vectors: Array) -> NDArray[np.bool_]:
        """Which values belong to branches that are chosen, shape (n, d)."""
        active = np.ones(vectors.shape, bool)
        for k, dimension in enumerate(self._dimensions):  # a branch stands before what belongs to it
            if dimension.owner is not None:
                active[:, k] = active[:, dimension.owner] & (vectors[:, dimension.owner] == dimension.option)
        return active

    def _blank(self, vectors: Array) -> Array:
        return np.where(self._active(vectors), vectors, np.where(self.is_word, _ABSENT_WORD, _ABSENT_NUMBER))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Stands in for an Optuna trial: every parameter where a vector says."""

    vector: Array
    dimensions: list[_Dimension]
    places: Mapping[str, int]

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._value(name)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._value(name))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._value(name))

    def _value(self, name: str) -> Any:
        k = self.places[name]
        return _read(self.dimensions[k], float(self.vector[k]))


def _collect(
    nodes: Mapping[str, Node],
    dimensions: list[_Dimension],
    lengths: list[_Length],
    *,
    prefix: str = "",
    owner: int | None = None,
    option: int = 0,
) -> None:
    """Gather the searched parameters, each branch before what belongs to it, and where lengths are set."""
    for key, node in nodes.items():
        values, is_word = _list_values(node)
        place = None
        if values is None or len(values) > 1:
            place = len(dimensions)
            dimensions.append(_Dimension(prefix + key, node, values, is_word, owner, option))
        if key == "epochs":
            lengths.append(_Length(owner, option, place, values))
        for number, (chosen, inner) in enumerate(node.options.items() if isinstance(node, Branch) else ()):
            inside = {"owner": owner, "option": option} if place is None else {"owner": place, "option": number}
            _collect(inner, dimensions, lengths, prefix=f"{prefix}{key}.{chosen}.", **inside)


def _list_values(node: Node) -> tuple[tuple[Scalar, ...] | None, bool]:
    """Return all values of a node, numbers in order, and whether they have none; (None, False) for a range."""
    match node:
        case Branch(options):
            return tuple(options), True
        case Choice(values):
            is_word = any(isinstance(value, str | bool) for value in values)
            return (values if is_word else tuple(sorted(values))), is_word
        case Range():
            return None, False
        case Constant(value):
            return (value,), True


def _read(dimension: _Dimension, place: float) -> Any:
    """Return the value at or next to a place."""
    if dimension.values is not None:
        return dimension.values[round(place if dimension.is_word else place * dimension.n_steps)]
    assert isinstance(dimension.node, Range)
    return _from_unit(dimension.node, place)


def _to_unit(dimension: _Dimension, value: Scalar) -> float:
    if dimension.values is not None:
        place = dimension.values.index(value)
        return float(place if dimension.is_word else place / dimension.n_steps)
    node = dimension.node
    assert isinstance(node, Range)
    number = float(value)
    if node.log:
        return (math.log(number) - math.log(node.low)) / (math.log(node.high) - math.log(node.low))
    return (number - node.low) / (node.high - node.low)


def _from_unit(node: Range, place: float) -> float:
    if node.log:
        value = math.exp(math.log(node.low) + place * (math.log(node.high) - math.log(node.low)))
    elif node.n_values is not None:
        value = node.low + (node.step or 1) * round(place * (node.n_values - 1))
    else:
        value = node.low + place * (node.high - node.low)
    return min(node.high, max(node.low, round(value) if node.is_whole else value))
