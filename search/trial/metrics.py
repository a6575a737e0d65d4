"""Every score there is, computed from one confusion matrix."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PerClass = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a confusion matrix says. K classes; all values in [0, 1], NaN for a class without any wafer.

    Attributes:
        precision: Of the wafers called k, the share that are; 0 if none is called so.
        recall: Of the wafers that are k, the share called so.
        f1: Harmonic mean of the two.
        balanced_f1: The same after giving every class equally many wafers.
        support: Wafers of each class.
        macro_f1: Mean of f1 over the classes that occur.
        balanced_macro_f1: Mean of balanced_f1 over the classes that occur.
        worst_class_f1: Smallest f1 of the classes that occur.
        accuracy: Share called right; on rare defects it says little.
    """

    precision: PerClass
    recall: PerClass
    f1: PerClass
    balanced_f1: PerClass
    support: tuple[int, ...]
    macro_f1: float
    balanced_macro_f1: float
    worst_class_f1: float
    accuracy: float


def score_confusion(confusion: NDArray[Any]) -> Scores:
    """Score a confusion matrix.

    Args:
        confusion: Counts, shape (K, K), rows actual, columns predicted; at least one wafer.

    Raises:
        ValueError: If it is empty or not square.

    Source:
        As scikit-learn's precision_recall_fscore_support with zero_division=0, over the classes that occur.
    """
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.sum() <= 0:
        raise ValueError(f"a confusion matrix must be square and not empty; got shape {counts.shape}")
    hits, actual, called = np.diag(counts), counts.sum(1), counts.sum(0)
    with np.errstate(invalid="ignore"):
        recall = hits / actual
        precision = np.where(called > 0, hits / called, 0.0)
        f1 = np.where(actual > 0, 2 * hits / (actual + called), np.nan)
    balanced = balanced_f1(counts)
    return Scores(
        precision=_floats(np.where(actual > 0, precision, np.nan)),
        recall=_floats(recall),
        f1=_floats(f1),
        balanced_f1=_floats(balanced),
        support=tuple(int(n) for n in actual),
        macro_f1=float(np.nanmean(f1)),
        balanced_macro_f1=float(np.nanmean(balanced)),
        worst_class_f1=float(np.nanmin(f1)),
        accuracy=float(hits.sum() / counts.sum()),
    )


def balanced_f1(confusion: NDArray[Any]) -> NDArray[np.float64]:
    """F1 of each class as if every class had equally many wafers: 2 R_kk / (1 + sum_j R_jk).

    It is what a balanced test set measures, without duplicating or discarding a wafer.

    Args:
        confusion: Counts or shares, shape (K, K), rows actual, columns predicted.

    Returns:
        Shape (K,); NaN for a class without wafers, which then counts in no sum.

    Example:
        >>> balanced_f1(np.array([[9, 1], [0, 1000]])).round(4)
        array([0.9474, 0.9524])
    """
    counts = np.asarray(confusion, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        rates = counts / counts.sum(1, keepdims=True)
    result: NDArray[np.float64] = 2 * np.diag(rates) / (1 + np.nansum(rates, axis=0))
    return result


def _floats(values: NDArray[Any]) -> PerClass:
    return tuple(float(value) for value in values)
