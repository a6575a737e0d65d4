"""Honest splits: no lot and no map in two parts, and a check that proves it."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_pipeline.errors import DataError
from data_pipeline.wafer_set import WaferSet

PARTS = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Splits:
    """Indices of the labelled wafers of each part, ascending, int64.

    Attributes:
        train: Wafers that models learn from; only these are ever resampled or augmented.
        val: Wafers that the search judges by.
        test: Wafers that only `search.evaluate` opens.
        fingerprint: Twelve hex digits that change if any wafer changes part, map or label.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    fingerprint: str

    def part(self, name: str) -> NDArray[np.int64]:
        """Return the indices of part "train", "val" or "test"."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakCheck:
    """What `check_leaks` counted; all of it recomputed from the maps themselves, not taken from the splitter."""

    n_wafers: int
    n_lots: int
    n_distinct_maps: int
    n_repeated_maps: int
    n_conflicting_maps: int

    def __str__(self) -> str:
        return (
            f"every one of {self.n_wafers:,} labelled wafers in exactly one part; none of {self.n_lots:,} lots in two; "
            f"none of {self.n_distinct_maps:,} distinct maps in two ({self.n_repeated_maps:,} occur more than once, "
            f"{self.n_conflicting_maps:,} of them with different labels)"
        )


def split_by_lot(wafers: WaferSet, *, val: float, test: float, seed: int) -> Splits:
    """Divide the labelled wafers so that lots and identical maps stay together, classes in equal shares.

    Wafers that share a lot, or a map bit for bit, are linked; each connected group goes to one part as a whole. Groups
    are placed largest first, each where its own classes are still missing most.

    Args:
        wafers: The wafers; unlabelled ones are left out.
        val: Share of the wafers for validation, in (0, 1).
        test: Share for the locked test, in (0, 1); val + test < 1.
        seed: Decides between equals and orders groups of equal size.

    Raises:
        DataError: If no wafer is labelled, or a part would stay empty or miss a class that has three groups or more.

    Source:
        Iterative stratification, Sechidis et al. 2011, On the Stratification of Multi-Label Data, for whole groups.
    """
    labelled = np.flatnonzero(wafers.labels >= 0)
    if len(labelled) == 0:
        raise DataError(f"{wafers.source}: no wafer is labelled")
    groups = _link(wafers.lots[labelled], wafers.content[labelled])
    counts_GK = np.zeros((groups.max() + 1, len(wafers.classes)))
    np.add.at(counts_GK, (groups, wafers.labels[labelled]), 1)
    part_of_group = _place(counts_GK, shares=np.array([1 - val - test, val, test]), seed=seed)
    part = part_of_group[groups]
    _check_classes(wafers, counts_GK, part_of_group)
    indices = [labelled[part == i] for i in range(len(PARTS))]
    return Splits(train=indices[0], val=indices[1], test=indices[2], fingerprint=_fingerprint(wafers, indices))


def check_leaks(wafers: WaferSet, splits: Splits) -> LeakCheck:
    """Prove that no wafer, lot or map stands in two parts.

    Raises:
        DataError: With what leaks and how often.
    """
    parts = [splits.part(name) for name in PARTS]
    everyone = np.concatenate(parts)
    labelled = np.flatnonzero(wafers.labels >= 0)
    if not np.array_equal(np.sort(everyone), labelled):
        raise DataError("split: some labelled wafers stand in no part or in two")
    for what, key in (("lots", wafers.lots), ("identical maps", wafers.content)):
        values = np.concatenate([np.unique(key[part]) for part in parts])
        n_shared = len(values) - len(np.unique(values))
        if n_shared:
            raise DataError(f"split: {n_shared} {what} stand in two parts")
    maps, position, occurrences = np.unique(wafers.content[labelled], return_inverse=True, return_counts=True)
    n_labels = np.zeros(len(maps), dtype=np.int64)
    np.add.at(n_labels, np.unique(np.stack([position, wafers.labels[labelled]]), axis=1)[0], 1)
    return LeakCheck(
        n_wafers=len(labelled),
        n_lots=len(np.unique(wafers.lots[labelled])),
        n_distinct_maps=len(maps),
        n_repeated_maps=int((occurrences > 1).sum()),
        n_conflicting_maps=int((n_labels > 1).sum()),
    )


def _link(lots: NDArray[np.int64], content: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number the connected groups of wafers: a bipartite graph of lots and maps, one edge per wafer."""
    _, lot = np.unique(lots, return_inverse=True)
    _, map_ = np.unique(content, return_inverse=True)
    n_lots, n_nodes = lot.max() + 1, lot.max() + map_.max() + 2
    edges = coo_array((np.ones(len(lot)), (lot, n_lots + map_)), shape=(n_nodes, n_nodes))
    _, component = connected_components(edges, directed=False)
    _, groups = np.unique(component[lot], return_inverse=True)
    return groups.astype(np.int64)


def _place(counts_GK: NDArray[np.float64], *, shares: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Choose a part for each group: the one where the group's classes are least filled."""
    totals_K = counts_GK.sum(0)
    present = totals_K > 0
    weights_GK = counts_GK[:, present] / totals_K[present]  # every class weighs the same, however rare
    wanted_PK = shares[:, None] * np.ones(present.sum())
    missing_PK = wanted_PK.copy()
    ties = np.random.default_rng(seed).random(len(counts_GK))
    part = np.empty(len(counts_GK), dtype=np.int64)
    for group in np.lexsort((ties, -weights_GK.sum(1))):
        part[group] = np.argmax((missing_PK / wanted_PK) @ weights_GK[group])
        missing_PK[part[group]] -= weights_GK[group]
    return part


def _check_classes(wafers: WaferSet, counts_GK: NDArray[np.float64], part_of_group: NDArray[np.int64]) -> None:
    for i, name in enumerate(PARTS):
        counts_K = counts_GK[part_of_group == i].sum(0)
        if counts_K.sum() == 0:
            raise DataError(
                f"{wafers.source}: {len(counts_GK)} independent groups of lots are too few for a {name} part"
            )
        for k in np.flatnonzero((counts_K == 0) & ((counts_GK > 0).sum(0) >= len(PARTS))):
            raise DataError(f"{wafers.source}: no {wafers.classes[k]} wafer in the {name} part; change data.split.seed")


def _fingerprint(wafers: WaferSet, parts: list[NDArray[np.int64]]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(wafers.content[part].tobytes())
        digest.update(wafers.labels[part].tobytes() + b"|")
    return digest.hexdigest()[:12]
