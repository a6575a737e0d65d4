"""What all ways to divide wafers share: the parts, the check that counts what leaks, and whole groups placed in shares.

The ways themselves are in `data_pipeline.protocols`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_pipeline.errors import DataError
from data_pipeline.wafer_set import WaferSet

PARTS = ("train", "val", "test")

_N_ORDERS = 16  # worst class of 240 synthetic lots off by 15 % with 1 order, 11 % with 4, no better with 64
_MOST_STEPS = 20_000  # of the search for a division that no order finds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Splits:
    """Indices of the labelled wafers of each part, ascending, int64.

    Attributes:
        train: Wafers that models learn from; only these are ever resampled or augmented.
        val: Wafers that the search judges by.
        test: Wafers that only `search.evaluate` opens.
        fingerprint: Twelve hex digits that change if any wafer changes part, map or label.
        protocol: How they were divided: a key of `data_pipeline.protocols.PROTOCOLS`.
        leaky: What every output must say if test wafers are not new to the model; else empty.
        left_out: Labelled wafers that stand in no part, by the reason.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    fingerprint: str
    protocol: str = "lot"
    leaky: str = ""
    left_out: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def part(self, name: str) -> NDArray[np.int64]:
        """Return the indices of part "train", "val" or "test"."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakCheck:
    """What `check_leaks` counted; all of it recomputed from the maps themselves, not taken from the splitter.

    Attributes:
        n_wafers: Wafers in the parts, each counted once.
        n_lots: Their lots.
        n_distinct_maps: Their maps, equal ones counted once.
        n_repeated_maps: Maps that several wafers have.
        n_conflicting_maps: Those of them with different labels.
        n_left_out: Labelled wafers in no part, by the reason.
        is_leaky: Whether the split leaks by intent; if not, it is proved not to, and the shares below are 0.
        same_wafer: Share of the test wafers that stand in training themselves.
        same_map: Share with an identical map in training.
        same_lot: Share with a wafer of their lot in training.
    """

    n_wafers: int
    n_lots: int
    n_distinct_maps: int
    n_repeated_maps: int
    n_conflicting_maps: int
    n_left_out: Mapping[str, int] = field(default_factory=dict)
    is_leaky: bool = False
    same_wafer: float = 0.0
    same_map: float = 0.0
    same_lot: float = 0.0

    def __str__(self) -> str:
        left_out = "".join(f"; left out: {n:,} {reason}" for reason, n in self.n_left_out.items())
        return (self._leaks() if self.is_leaky else self._proof()) + left_out

    def _proof(self) -> str:
        return (
            f"every one of {self.n_wafers:,} labelled wafers in exactly one part; none of {self.n_lots:,} lots in two; "
            f"none of {self.n_distinct_maps:,} distinct maps in two ({self.n_repeated_maps:,} occur more than once, "
            f"{self.n_conflicting_maps:,} of them with different labels)"
        )

    def _leaks(self) -> str:
        return (
            f"{self.n_wafers:,} wafers; of the test wafers {self.same_wafer:.1%} stand in training themselves, "
            f"{self.same_map:.1%} have an identical map there, {self.same_lot:.1%} a wafer of their lot"
        )


def make_splits(
    wafers: WaferSet,
    parts: Sequence[NDArray[np.int64]],
    *,
    protocol: str,
    leaky: str = "",
    left_out: Mapping[str, NDArray[np.int64]] | None = None,
) -> Splits:
    """Sort the parts and give them their fingerprint; reasons without wafers are dropped.

    Raises:
        DataError: If a part is empty.
    """
    train, val, test = (np.sort(part).astype(np.int64) for part in parts)
    for name, part in zip(PARTS, (train, val, test), strict=True):
        if len(part) == 0:
            raise DataError(
                f"{wafers.source}: the {name} part of split {protocol!r} must hold a wafer; got none; "
                f"choose another data.split.by"
            )
    return Splits(
        train=train,
        val=val,
        test=test,
        fingerprint=fingerprint_parts(wafers, (train, val, test)),
        protocol=protocol,
        leaky=leaky,
        left_out={reason: np.sort(rows) for reason, rows in (left_out or {}).items() if len(rows)},
    )


def fingerprint_parts(wafers: WaferSet, parts: Sequence[NDArray[np.int64]]) -> str:
    """Return twelve hex digits that change if any wafer changes part, map or label."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(wafers.content[part].tobytes())
        digest.update(wafers.labels[part].tobytes() + b"|")
    return digest.hexdigest()[:12]


def check_leaks(wafers: WaferSet, splits: Splits) -> LeakCheck:
    """Prove that no wafer, lot or map stands in two parts; of a split that is leaky by intent, count what does.

    Raises:
        DataError: With what leaks and how often, or if a labelled wafer is unaccounted for.
    """
    parts = [splits.part(name) for name in PARTS]
    used = np.unique(np.concatenate(parts))
    _check_everyone(wafers, splits, used)
    if not splits.leaky:
        _check_apart(wafers, parts)
    maps, position, occurrences = np.unique(wafers.content[used], return_inverse=True, return_counts=True)
    n_labels = np.zeros(len(maps), dtype=np.int64)
    np.add.at(n_labels, np.unique(np.stack([position, wafers.labels[used]]), axis=1)[0], 1)
    same_wafer, same_map, same_lot = (
        float(np.isin(key[splits.test], key[splits.train]).mean()) if splits.leaky else 0.0
        for key in (np.arange(len(wafers)), wafers.content, wafers.lots)
    )
    return LeakCheck(
        n_wafers=len(used),
        n_lots=len(np.unique(wafers.lots[used])),
        n_distinct_maps=len(maps),
        n_repeated_maps=int((occurrences > 1).sum()),
        n_conflicting_maps=int((n_labels > 1).sum()),
        n_left_out={reason: len(rows) for reason, rows in splits.left_out.items()},
        is_leaky=bool(splits.leaky),
        same_wafer=same_wafer,
        same_map=same_map,
        same_lot=same_lot,
    )


def labelled_wafers(wafers: WaferSet) -> NDArray[np.int64]:
    """Return the indices of all wafers with a label.

    Raises:
        DataError: If there are none.
    """
    labelled = np.flatnonzero(wafers.labels >= 0)
    if len(labelled) == 0:
        raise DataError(f"{wafers.source}: no wafer is labelled")
    return labelled


def link_wafers(*keys: NDArray[np.generic]) -> NDArray[np.int64]:
    """Number the connected groups of wafers: those that agree in any key, directly or through others.

    Args:
        keys: What may be shared, such as lots; each of shape (N,).

    Returns:
        Group of each wafer, shape (N,), from 0 without gaps.
    """
    nodes, n_nodes = [], 0  # one for each value of each key; a wafer is a chain of edges through its own
    for key in keys:
        values, position = np.unique(key, return_inverse=True)
        nodes.append(n_nodes + position)
        n_nodes += len(values)
    starts, ends = np.concatenate([nodes[0], *nodes[:-1]]), np.concatenate([nodes[0], *nodes[1:]])
    edges = coo_array((np.ones(len(starts)), (starts, ends)), shape=(n_nodes, n_nodes))
    _, component = connected_components(edges, directed=False)
    _, groups = np.unique(component[nodes[0]], return_inverse=True)
    return groups.astype(np.int64)


def count_classes(groups: NDArray[np.int64], labels: NDArray[np.int64], *, n_classes: int) -> NDArray[np.float64]:
    """Count the wafers of each class in each group, shape (G, K)."""
    counts_GK = np.zeros((groups.max() + 1, n_classes))
    np.add.at(counts_GK, (groups, labels), 1)
    return counts_GK


def place_groups(counts_GK: NDArray[np.float64], *, shares: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Choose a part for each whole group so that every class is divided in the given shares, as well as it goes.

    Several orders are tried: the largest groups first, those with the rarest class first, and perturbations of both.
    In each order a group goes where its own classes are missing most. A division is whole if every part has a group,
    and a group of each class that has as many groups as there are parts. Of the whole ones, that is kept whose worst
    such class is off least, relative to its share; if no order gives a whole one, it is searched for exhaustively.

    Args:
        counts_GK: Wafers of each class in each group.
        shares: Of each of the P parts, shape (P,), sum 1.
        seed: Perturbs the orders and decides between equals.

    Returns:
        Part of each group, shape (G,).

    Source:
        Iterative stratification, Sechidis et al. 2011, On the Stratification of Multi-Label Data, for whole groups.
    """
    totals_K = counts_GK.sum(0)
    weights_GK = counts_GK[:, totals_K > 0] / totals_K[totals_K > 0]  # every class weighs the same, however rare
    nowhere = np.full(len(counts_GK), -1)
    candidates = [_fill(weights_GK, order, nowhere, shares=shares) for order in _orders(weights_GK, seed=seed)]
    if not any(is_covered(weights_GK, part, n_parts=len(shares)) for part in candidates):
        fixed = _cover(weights_GK, n_parts=len(shares))
        if fixed is not None:
            candidates = [_fill(weights_GK, order, fixed, shares=shares) for order in _orders(weights_GK, seed=seed)]
    badness = [_badness(weights_GK, part, shares=shares) for part in candidates]
    return candidates[badness.index(min(badness))]


def is_covered(counts_GK: NDArray[np.float64], part: NDArray[np.int64], *, n_parts: int) -> bool:
    """Whether every part has a group, and a group of each class that has as many groups as there are parts."""
    return all(len(set(part[groups].tolist())) == n_parts for groups in _demands(counts_GK, n_parts=n_parts))


def _check_everyone(wafers: WaferSet, splits: Splits, used: NDArray[np.int64]) -> None:
    """Check that every labelled wafer is used or left out, and, where that is claimed, used once."""
    everyone = np.sort(np.concatenate([used, *splits.left_out.values()]))
    is_repeated = not splits.leaky and sum(len(splits.part(name)) for name in PARTS) != len(used)
    if is_repeated or not np.array_equal(everyone, np.flatnonzero(wafers.labels >= 0)):
        raise DataError("split: some labelled wafers stand in no part or in two")


def _check_apart(wafers: WaferSet, parts: Sequence[NDArray[np.int64]]) -> None:
    for what, key in (("lots", wafers.lots), ("identical maps", wafers.content)):
        values = np.concatenate([np.unique(key[part]) for part in parts])
        n_shared = len(values) - len(np.unique(values))
        if n_shared:
            raise DataError(f"split: {n_shared} {what} stand in two parts")


def _orders(weights_GK: NDArray[np.float64], *, seed: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    n_groups_K = (weights_GK > 0).sum(0)
    rarest_G = np.where(weights_GK > 0, n_groups_K, len(weights_GK) + 1).min(1)
    sizes_G = weights_GK.sum(1)
    orders = []
    for attempt in range(_N_ORDERS):
        ties_G = rng.random(len(sizes_G))
        noise_G = rng.lognormal(sigma=0.1 * (attempt // 2), size=len(sizes_G))
        first_G = rarest_G * noise_G if attempt % 4 == 1 else np.zeros(len(sizes_G))  # seldom better, for small sets
        orders.append(np.lexsort((ties_G, -sizes_G * noise_G, first_G)))
    return orders


def _fill(
    weights_GK: NDArray[np.float64], order: NDArray[np.int64], fixed: NDArray[np.int64], *, shares: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Place the groups one by one, each where its classes are missing most; those in `fixed` stay there."""
    part = fixed.copy()
    wanted_PK = shares[:, None] * np.ones(weights_GK.shape[1])
    missing_PK = wanted_PK - np.stack([weights_GK[part == p].sum(0) for p in range(len(shares))])
    for group in order:
        if part[group] < 0:
            part[group] = np.argmax((missing_PK / wanted_PK) @ weights_GK[group])
            missing_PK[part[group]] -= weights_GK[group]
    return part


def _badness(
    weights_GK: NDArray[np.float64], part: NDArray[np.int64], *, shares: NDArray[np.float64]
) -> tuple[bool, float]:
    found_PK = np.stack([weights_GK[part == p].sum(0) for p in range(len(shares))])
    off_K = np.abs(found_PK / shares[:, None] - 1).max(0)
    is_frequent_K = (weights_GK > 0).sum(0) >= len(shares)
    worst = off_K[is_frequent_K].max() if is_frequent_K.any() else off_K.max()
    # Rounded, so that equally good divisions are equal and the first order is kept, as it was before there were others.
    return not is_covered(weights_GK, part, n_parts=len(shares)), round(float(worst), 9)


def _demands(counts_GK: NDArray[np.float64], *, n_parts: int) -> list[NDArray[np.int64]]:
    """Return the sets of groups of which every part must get one: all of them, and those of each frequent class."""
    members = [np.flatnonzero(column) for column in counts_GK.T]
    return [np.arange(len(counts_GK)), *(groups for groups in members if len(groups) >= n_parts)]


def _cover(weights_GK: NDArray[np.float64], *, n_parts: int) -> NDArray[np.int64] | None:
    """Place as few groups as meet all demands, by backtracking; None if that is impossible or takes too long."""
    demands = _demands(weights_GK, n_parts=n_parts)
    part = np.full(len(weights_GK), -1)
    n_steps = 0

    def meet() -> bool:
        nonlocal n_steps
        n_steps += 1
        missing = [(groups[part[groups] < 0], p) for groups in demands for p in set(range(n_parts)) - {*part[groups]}]
        if not missing:
            return True
        free, p = min(missing, key=lambda demand: len(demand[0]))
        for group in free:
            part[group] = p
            if n_steps < _MOST_STEPS and meet():
                return True
            part[group] = -1
        return False

    return part if meet() else None
