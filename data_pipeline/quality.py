"""What a data set is like, in numbers: classes, lots, sizes, duplicates and labels that contradict each other."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_pipeline.wafer_set import OFFICIAL_PARTS, UNLABELLED, WaferSet

UNLABELLED_NAME = "unlabelled"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Duplicates:
    """Maps that stand in the data more than once, bit for bit.

    Attributes:
        n_maps: Distinct maps that occur more than once.
        n_wafers: Wafers that show one of those.
        n_across_official: Distinct maps that stand in both parts of the published split; None if it is unknown.
        n_conflicting: Distinct maps that carry two labels or more.
        conflicts: Number of maps for each pair of labels, the most frequent first.
    """

    n_maps: int
    n_wafers: int
    n_across_official: int | None
    n_conflicting: int
    conflicts: dict[tuple[str, str], int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quality:
    """The report's numbers.

    Attributes:
        classes: One row per class, the unlabelled ones last: wafers, share of the labelled in %, lots, distinct maps,
            median of the fail rate in % and, where the published split is known, its two parts.
        shared_lots: Lots that hold both of two classes; its diagonal counts the lots of a class. Shape (K, K).
        sizes: Wafers of each map size, the most frequent first.
        wafers_per_lot: Minimum, median and maximum.
        duplicates: Maps that occur more than once.
    """

    classes: pd.DataFrame
    shared_lots: pd.DataFrame
    sizes: dict[tuple[int, int], int]
    wafers_per_lot: tuple[int, float, int]
    duplicates: Duplicates


def measure_quality(wafers: WaferSet) -> Quality:
    """Count everything that the quality report says about `wafers`."""
    shapes = Counter(zip(wafers.heights.tolist(), wafers.widths.tolist(), strict=True))
    per_lot = np.bincount(wafers.lots)
    per_lot = per_lot[per_lot > 0]
    return Quality(
        classes=_count_classes(wafers),
        shared_lots=_share_lots(wafers),
        sizes=dict(shapes.most_common()),
        wafers_per_lot=(int(per_lot.min()), float(np.median(per_lot)), int(per_lot.max())),
        duplicates=_find_duplicates(wafers),
    )


def format_number(value: float) -> str:
    """Write a cell of the tables: whole numbers with separators, others with two decimals, NaN as nothing.

    Example:
        >>> format_number(1234.0), format_number(0.456), format_number(float("nan"))
        ('1,234', '0.46', '')
    """
    if np.isnan(value):
        return ""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.2f}"


def _count_classes(wafers: WaferSet) -> pd.DataFrame:
    frame = pd.DataFrame(
        {"label": wafers.labels, "lot": wafers.lots, "content": wafers.content, "fails": 100 * wafers.fail_rates}
    )
    grouped = frame.groupby("label")
    table = pd.DataFrame(
        {
            "wafers": grouped.size(),
            "share %": 100 * grouped.size() / max(1, int((wafers.labels >= 0).sum())),
            "lots": grouped["lot"].nunique(),
            "distinct": grouped["content"].nunique(),
            "fails %": grouped["fails"].median(),
        }
    )
    if wafers.official is not None:
        for code, part in enumerate(OFFICIAL_PARTS):
            table[part] = frame[wafers.official == code].groupby("label").size()
            table[part] = table[part].fillna(0).astype(int)
    order = [*range(len(wafers.classes)), UNLABELLED] if UNLABELLED in table.index else [*range(len(wafers.classes))]
    table = table.loc[order]
    table.index = pd.Index([*wafers.classes, UNLABELLED_NAME][: len(table)], name="class")
    if UNLABELLED_NAME in table.index:
        table.loc[UNLABELLED_NAME, "share %"] = np.nan
    return table


def _share_lots(wafers: WaferSet) -> pd.DataFrame:
    labelled = wafers.labels >= 0
    holds = np.zeros((len(wafers.lot_names), len(wafers.classes)), dtype=np.int64)
    holds[wafers.lots[labelled], wafers.labels[labelled]] = 1
    return pd.DataFrame(holds.T @ holds, index=list(wafers.classes), columns=list(wafers.classes))


def _find_duplicates(wafers: WaferSet) -> Duplicates:
    _, position, occurrences = np.unique(wafers.content, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(occurrences[position] > 1)
    frame = pd.DataFrame({"map": position[repeated], "label": wafers.labels[repeated]})
    across = None
    if wafers.official is not None:
        parts = pd.DataFrame({"map": frame["map"], "part": wafers.official[repeated]})
        across = int((parts[parts["part"] >= 0].groupby("map")["part"].nunique() > 1).sum())
    labels = frame[frame["label"] >= 0].groupby("map")["label"].unique()
    conflicts: Counter[tuple[str, str]] = Counter()
    for found in labels[labels.map(len) > 1]:
        names = [wafers.classes[k] for k in sorted(found)]
        conflicts.update((a, b) for i, a in enumerate(names) for b in names[i + 1 :])
    return Duplicates(
        n_maps=int((occurrences > 1).sum()),
        n_wafers=len(repeated),
        n_across_official=across,
        n_conflicting=int((labels.map(len) > 1).sum()),
        conflicts=dict(conflicts.most_common()),
    )
