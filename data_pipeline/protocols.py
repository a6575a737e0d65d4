"""The ways to divide wafers, by name. The leaky ones are here to be compared with, and say so on every output."""

import re
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.sampling import make_pool
from data_pipeline.splits import (
    PARTS,
    Splits,
    count_classes,
    fingerprint_parts,
    is_covered,
    labelled_wafers,
    link_wafers,
    make_splits,
    place_groups,
)
from data_pipeline.wafer_set import OFFICIAL_PARTS, WaferSet

Indices = NDArray[np.int64]

_TRAINING, _TEST = range(len(OFFICIAL_PARTS))
_DECK_SUBSET = 0.3


def split_by_lot(wafers: WaferSet, *, val: float, test: float, seed: int) -> Splits:
    """Keep wafers of one lot, and identical maps, together.

    Wafers that share a lot, or a map bit for bit, are linked; each connected group goes to one part as a whole, classes
    in equal shares.

    Args:
        wafers: The wafers; unlabelled ones are left out.
        val: Share of the wafers for validation, in (0, 1).
        test: Share for the locked test, in (0, 1); val + test < 1.
        seed: Of the division.

    Raises:
        DataError: If no wafer is labelled, or a part would stay empty or miss a class that has three groups or more.
    """
    labelled = labelled_wafers(wafers)
    groups = link_wafers(wafers.lots[labelled], wafers.content[labelled])
    shares = np.array([1 - val - test, val, test])
    return make_splits(wafers, _divide(wafers, labelled, groups, shares=shares, seed=seed, what="lots"), protocol="lot")


def split_officially(wafers: WaferSet, *, val: float, test: float, seed: int) -> Splits:
    """Test on the publisher's Test; Training is divided into train and val by lot.

    Test wafers whose map or lot also stands in Training are left out: WM-811K holds 3,158 wafers twice.

    Args:
        wafers: The wafers.
        val: With `test`, decides the share of validation in Training: val / (1 - test), as elsewhere.
        test: See `val`; the size of the test is the publisher's choice.
        seed: Of the division of Training.

    Raises:
        DataError: If the publisher's parts are not known, or Training cannot be divided.
    """
    labelled = labelled_wafers(wafers)
    if wafers.official is None or not (wafers.official[labelled] >= 0).any():
        raise DataError(
            f"{wafers.source}: data.split.by official needs the publisher's parts (trianTestLabel); no labelled wafer "
            f"has one; prepare the wafers from the original file, or choose another data.split.by"
        )
    official = wafers.official[labelled]
    training, tested = labelled[official == _TRAINING], labelled[official == _TEST]
    if len(training) == 0:
        raise DataError(f"{wafers.source}: no labelled wafer stands in the publisher's Training")
    groups = link_wafers(wafers.lots[training], wafers.content[training])
    shares = np.array([1 - val - test, val]) / (1 - test)
    train, held_out = _divide(wafers, training, groups, shares=shares, seed=seed, what="lots")
    is_copy = np.isin(wafers.content[tested], wafers.content[training])
    is_sibling = np.isin(wafers.lots[tested], wafers.lots[training]) & ~is_copy
    return make_splits(
        wafers,
        [train, held_out, tested[~is_copy & ~is_sibling]],
        protocol="official",
        left_out={
            "Test wafers whose map also stands in Training": tested[is_copy],
            "Test wafers whose lot also stands in Training": tested[is_sibling],
            "wafers without a part of the publisher's": labelled[official < 0],
        },
    )


def split_by_product(wafers: WaferSet, *, val: float, test: float, seed: int) -> Splits:
    """Keep products together: val and test have map shapes that the model never saw.

    A lot is of one product. Where one holds several shapes, it is not a real lot, or wafers were measured otherwise:
    those that are not of its most frequent shape are left out, or a few such lots would link most products.

    Args:
        wafers: The wafers.
        val: Share of the wafers for validation, in (0, 1); products are few, so that it is met roughly.
        test: Share for the locked test, in (0, 1); val + test < 1.
        seed: Of the division.

    Raises:
        DataError: As `split_by_lot`; a product is a group here.
    """
    labelled = labelled_wafers(wafers)
    shapes = wafers.heights[labelled] * (wafers.widths.max() + 1) + wafers.widths[labelled]
    is_main = shapes == _most_frequent(shapes, within=wafers.lots[labelled])
    groups = link_wafers(shapes[is_main], wafers.lots[labelled[is_main]])  # identical maps have the same shape
    shares = np.array([1 - val - test, val, test])
    return make_splits(
        wafers,
        _divide(wafers, labelled[is_main], groups, shares=shares, seed=seed, what="products"),
        protocol="product",
        left_out={"wafers of another shape than most of their lot": labelled[~is_main]},
    )


def split_by_time(wafers: WaferSet, *, val: float, test: float, seed: int) -> Splits:
    """Train on the earliest lots, validate on later ones, test on the latest.

    Lots are ordered by the numbers in their names, the first that differs before the others, where every name has one;
    else as they first appear. A map that also stands in an earlier part is left out of the later one. Rare classes may
    miss a part: time does not care.

    Args:
        wafers: The wafers.
        val: Share of the wafers for validation, in (0, 1), met as well as whole lots allow.
        test: Share for the locked test, in (0, 1); val + test < 1.
        seed: Not used: time leaves no choice.

    Raises:
        DataError: If there are fewer than three lots, or a part is empty.
    """
    labelled = labelled_wafers(wafers)
    rank = _rank_by_time(wafers, labelled)
    n_lots = int(rank.max()) + 1
    if n_lots < len(PARTS):
        raise DataError(f"{wafers.source}: a split by time needs at least {len(PARTS)} lots; got {n_lots}")
    until = np.cumsum(np.bincount(rank)) / len(labelled)  # share of the wafers up to and with each lot
    first_val = min(int(np.abs(until - (1 - val - test)).argmin()) + 1, n_lots - 2)
    first_test = int(np.clip(np.abs(until - (1 - test)).argmin() + 1, first_val + 1, n_lots - 1))
    train, held_out, tested = (labelled[np.digitize(rank, (first_val, first_test)) == i] for i in range(len(PARTS)))
    is_old_val = np.isin(wafers.content[held_out], wafers.content[train])
    is_old_test = np.isin(wafers.content[tested], wafers.content[np.concatenate([train, held_out])])
    return make_splits(
        wafers,
        [train, held_out[~is_old_val], tested[~is_old_test]],
        protocol="time",
        left_out={
            "later wafers whose map also stands in an earlier part": np.concatenate(
                [held_out[is_old_val], tested[is_old_test]]
            )
        },
    )


def split_randomly(wafers: WaferSet, *, val: float, test: float, seed: int) -> Splits:
    """LEAKY: divide single wafers, stratified by class, as most publications do.

    Args:
        wafers: The wafers.
        val: Share of each class for validation, in (0, 1).
        test: Share for the locked test, in (0, 1); val + test < 1.
        seed: Of the division.

    Raises:
        DataError: If no wafer is labelled, or a part is empty.
    """
    members = _shuffled_classes(wafers, np.random.default_rng(seed))
    return make_splits(
        wafers,
        _cut_classes(members, val=val, test=test),
        protocol="random",
        leaky="LEAKY (random): wafers of one lot stand in training and test",
    )


def split_like_deck(wafers: WaferSet, *, val: float, test: float, seed: int, pool: int = 3077) -> Splits:
    """LEAKY: balance the classes by copies before dividing, as the project's deck did.

    Args:
        wafers: The wafers.
        val: Share of each class's pool for validation, in (0, 1); the deck's is 0.20.
        test: Share for the test, in (0, 1); the deck's is 0.15.
        seed: Of the pool and its division.
        pool: Wafers per class, copies counted; larger classes are under-sampled. The deck's 2000 + 615 + 462.

    Raises:
        DataError: If no wafer is labelled, or a part is empty.
    """
    rng = np.random.default_rng(seed)
    pools = [rng.permutation(make_pool(members, size=pool)) for members in _shuffled_classes(wafers, rng)]
    labelled = labelled_wafers(wafers)
    return make_splits(
        wafers,
        _cut_classes(pools, val=val, test=test),
        protocol="deck",
        leaky="LEAKY (deck): the same wafers stand in training and test",
        left_out={"wafers that the pool of their class does not hold": np.setdiff1d(labelled, np.concatenate(pools))},
    )


def split_like_deck_subset(wafers: WaferSet, *, val: float, test: float, seed: int) -> Splits:
    """LEAKY: take 30 % of each class, then divide single wafers, as the deck's augmented data set did.

    Args:
        wafers: The wafers.
        val: Share of each class for validation, in (0, 1).
        test: Share for the locked test, in (0, 1); val + test < 1.
        seed: Of the subset and its division.

    Raises:
        DataError: If no wafer is labelled, or a part is empty.
    """
    members = _shuffled_classes(wafers, np.random.default_rng(seed))
    kept = [rows[: max(len(PARTS), round(_DECK_SUBSET * len(rows)))] for rows in members]
    labelled = labelled_wafers(wafers)
    return make_splits(
        wafers,
        _cut_classes(kept, val=val, test=test),
        protocol="deck_subset",
        leaky="LEAKY (deck_subset): wafers of one lot stand in training and test",
        left_out={f"wafers outside the {_DECK_SUBSET:.0%}": np.setdiff1d(labelled, np.concatenate(kept))},
    )


PROTOCOLS: Mapping[str, Callable[..., Splits]] = {
    "lot": split_by_lot,
    "official": split_officially,
    "product": split_by_product,
    "time": split_by_time,
    "random": split_randomly,
    "deck": split_like_deck,
    "deck_subset": split_like_deck_subset,
}


def k_folds(wafers: WaferSet, *, k: int, seed: int, within: Indices | None = None) -> list[Splits]:
    """Divide labelled wafers into k folds that share no lot and no map, classes in equal shares.

    Args:
        wafers: The wafers.
        k: How many folds, at least 2.
        seed: Of the division.
        within: Which wafers are divided; None: all labelled ones. One that stands there several times counts once.

    Returns:
        One split per fold: it is val, all others are train, and test is empty.

    Raises:
        DataError: If k < 2, no wafer is labelled, or a fold would stay empty or miss a class that has k groups or more.
    """
    if k < 2:
        raise DataError(f"k_folds: k must be at least 2; got {k}")
    rows = labelled_wafers(wafers) if within is None else np.unique(within)
    groups = link_wafers(wafers.lots[rows], wafers.content[rows])
    folds = _divide(wafers, rows, groups, shares=np.full(k, 1 / k), seed=seed, what="lots")
    nobody = np.empty(0, dtype=np.int64)
    splits = []
    for i, fold in enumerate(folds):
        train = np.setdiff1d(rows, fold)
        fingerprint = fingerprint_parts(wafers, (train, fold, nobody))
        splits.append(
            Splits(train=train, val=fold, test=nobody, fingerprint=fingerprint, protocol=f"lot, fold {i + 1} of {k}")
        )
    return splits


def _divide(
    wafers: WaferSet, rows: Indices, groups: NDArray[np.int64], *, shares: NDArray[np.float64], seed: int, what: str
) -> list[Indices]:
    """Divide these wafers, whole groups at a time, into parts of the given shares."""
    counts_GK = count_classes(groups, wafers.labels[rows], n_classes=len(wafers.classes))
    part = place_groups(counts_GK, shares=shares, seed=seed)
    _check_classes(wafers, counts_GK, part, n_parts=len(shares), what=what)
    return [rows[part[groups] == i] for i in range(len(shares))]


def _check_classes(
    wafers: WaferSet, counts_GK: NDArray[np.float64], part: NDArray[np.int64], *, n_parts: int, what: str
) -> None:
    if len(counts_GK) < n_parts:
        raise DataError(
            f"{wafers.source}: {len(counts_GK)} independent groups of {what} are too few for {n_parts} parts"
        )
    if is_covered(counts_GK, part, n_parts=n_parts):
        return
    names = [
        name
        for k, name in enumerate(wafers.classes)
        if (groups := np.flatnonzero(counts_GK[:, k])).size >= n_parts and len(np.unique(part[groups])) < n_parts
    ]
    raise DataError(
        f"{wafers.source}: no division of the {len(counts_GK)} independent groups of {what} puts wafers of every class "
        f"into all {n_parts} parts; {' or '.join(names)} would miss one; choose another data.split.by, or more wafers"
    )


def _most_frequent(values: NDArray[np.int64], *, within: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each wafer the value that most wafers of its lot have, the smallest of several."""
    _, lot = np.unique(within, return_inverse=True)
    known, position = np.unique(values, return_inverse=True)
    pairs, counts = np.unique(lot * len(known) + position, return_counts=True)
    lots_of_pairs = pairs // len(known)
    order = np.lexsort((pairs, -counts, lots_of_pairs))
    _, first = np.unique(lots_of_pairs[order], return_index=True)
    most: NDArray[np.int64] = known[pairs[order][first] % len(known)][lot]
    return most


def _rank_by_time(wafers: WaferSet, rows: Indices) -> NDArray[np.int64]:
    """Number the wafers' lots from the earliest, without gaps; shape (N,)."""
    lots, first, position = np.unique(wafers.lots[rows], return_index=True, return_inverse=True)
    numbers = [tuple(map(int, re.findall(r"\d+", wafers.lot_names[lot]))) for lot in lots]
    keys = numbers if all(numbers) else first.tolist()
    places = {key: place for place, key in enumerate(sorted(set(keys)))}
    when = np.array([places[key] for key in keys])
    rank: NDArray[np.int64] = when[position].astype(np.int64)
    return rank


def _shuffled_classes(wafers: WaferSet, rng: np.random.Generator) -> list[Indices]:
    """Return the wafers of each class that occurs, in random order."""
    labelled = labelled_wafers(wafers)
    return [rng.permutation(labelled[wafers.labels[labelled] == k]) for k in np.unique(wafers.labels[labelled])]


def _cut_classes(members: list[Indices], *, val: float, test: float) -> list[Indices]:
    """Cut each class's wafers into train, val and test; a class of three wafers or more gets one into each."""
    pieces: list[list[Indices]] = [[], [], []]
    for rows in members:
        least = 1 if len(rows) >= len(PARTS) else 0
        n_val, n_test = (max(least, round(share * len(rows))) for share in (val, test))
        n_val = min(n_val, len(rows) - 2 * least)
        n_test = min(n_test, len(rows) - n_val - least)
        cuts = (len(rows) - n_val - n_test, len(rows) - n_test)
        for piece, part in zip(pieces, np.split(rows, cuts), strict=True):
            piece.append(part)
    return [np.concatenate(piece) for piece in pieces]
