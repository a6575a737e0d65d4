"""Fitting how a model's logits are read, on wafers that it was not trained on, and measuring whether they are right."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

from search.trial.decision import NONE, DecisionRule, defect_chance
from search.trial.intervals import Statistic, macro_f1

LEAST = 100  # wafers; of fewer nothing is fitted
_BINS = 15
_FOLDS = 5
_STEPS = 1000  # of expectation and maximisation, at most
_GRID = np.linspace(-3, 3, 25)  # of a class's shift in the logarithm

Floats = NDArray[np.float64]


def fit_rule(
    logits_NK: Tensor,
    labels: Tensor,
    *,
    classes: tuple[str, ...],
    groups: NDArray[np.int64],
    fitted_on: str,
    shares: NDArray[np.float64] | None = None,
    statistic: Statistic = macro_f1,
    sure: float = 0.99,
    escape: float = 0.01,
) -> DecisionRule:
    """Fit temperature, class thresholds, the level of being sure, and where defect begins.

    Thresholds are kept only if, fitted on some lots and judged on others, they gain more of the score than one standard
    error: on few wafers of rare classes they are as good as noise.

    Probabilities hold for the class shares that the model takes for granted: a model that was trained on balanced
    draws is calibrated for equal shares, whatever the shares here, and `correct_shares` makes it speak of others.

    Args:
        logits_NK: Of wafers that the model was not trained on, shape (N, K).
        labels: Class of each, shape (N,).
        classes: Names of the K classes.
        groups: Lot of each, shape (N,).
        fitted_on: These wafers, in words.
        shares: Of the classes, that the logits take for granted, shape (K,); None: those among these wafers.
        statistic: The score that thresholds are to raise.
        sure: Share of right calls from which the model counts as sure.
        escape: Share of defective wafers that may pass as `none`.

    Returns:
        The rule; one that changes nothing if there are fewer than `LEAST` wafers.

    Source:
        Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599: temperature scaling.
    """
    if len(labels) < LEAST:
        return DecisionRule(fitted_on=f"nothing: {fitted_on} are {len(labels)}, fewer than {LEAST}")
    actual = labels.numpy()
    weights = weigh(actual, shares) if shares is not None else None
    temperature = fit_temperature(logits_NK, labels, weights=weights)
    probabilities_NK = DecisionRule(temperature=temperature).probabilities(logits_NK).double().numpy()
    shifts = _useful_shifts(probabilities_NK, actual, groups, statistic)
    rule = DecisionRule(temperature=temperature, shifts=shifts, fitted_on=fitted_on, n_fitted=len(labels))
    called = rule.call(torch.from_numpy(probabilities_NK).float()).numpy()
    chance = probabilities_NK[np.arange(len(called)), called]
    defect, defect_from = defect_chance(probabilities_NK, classes), None
    if defect is not None:
        defect_from = _operating_point(defect, actual != classes.index(NONE), escape=escape)
    return DecisionRule(
        temperature=temperature,
        shifts=shifts,
        sure_from=_sure_from(chance, called == actual, share=sure),
        defect_from=defect_from,
        fitted_on=fitted_on,
        n_fitted=len(labels),
    )


def fit_temperature(logits_NK: Tensor, labels: Tensor, *, weights: Floats | None = None) -> float:
    """Return the temperature, in [0.05, 20], at which the labels are likeliest; weights, shape (N,), sum to N."""
    logits = logits_NK.double()
    weight = torch.ones(len(labels), dtype=torch.float64) if weights is None else torch.from_numpy(weights)

    def loss(log_temperature: float) -> float:
        each = cross_entropy(logits / math.exp(log_temperature), labels, reduction="none")
        return float((weight * each).mean())

    found = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded")
    return math.exp(float(found.x))


def weigh(labels: NDArray[np.int64], shares: Floats) -> Floats:
    """Weigh wafers so that their classes have these shares, shape (N,), sum N; classes that do not occur lose theirs.

    Args:
        labels: Shape (N,).
        shares: Shape (K,).
    """
    counts = np.bincount(labels, minlength=len(shares))
    wanted = np.where(counts > 0, shares, 0.0)
    if not wanted.sum():
        return np.ones(len(labels))
    weights: Floats = (wanted / wanted.sum() / np.maximum(counts, 1))[labels] * len(labels)
    return weights


def calibration_error(probabilities_NK: Floats, labels: NDArray[np.int64], *, weights: Floats | None = None) -> float:
    """Compute the expected calibration error of the called class, over 15 bins of equal weight.

    Source:
        Nguyen & O'Connor 2015, Posterior Calibration and Exploratory Analysis for Natural Language Processing Models,
        for the adaptive bins; equal widths put nearly all wafers into one bin.
    """
    bins = reliability(probabilities_NK, labels, weights=weights)
    share = np.array([each.weight for each in bins])
    gaps = np.array([abs(each.right - each.sure) for each in bins])
    return float((share * gaps).sum() / share.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Wafers called with about the same probability.

    Attributes:
        sure: Their mean probability.
        right: Share of them called right.
        n: How many.
        weight: Of all of them together.
    """

    sure: float
    right: float
    n: int
    weight: float


def reliability(probabilities_NK: Floats, labels: NDArray[np.int64], *, weights: Floats | None = None) -> list[Bin]:
    """Divide wafers by the probability of the class they are called, into up to 15 bins of equal weight.

    Wafers without weight are in none of them.
    """
    weight = np.ones(len(labels)) if weights is None else weights
    sure, right = probabilities_NK.max(1), probabilities_NK.argmax(1) == labels
    order = np.argsort(sure, kind="stable")
    order = order[weight[order] > 0]
    reached = np.cumsum(weight[order]) - weight[order] / 2
    place = np.minimum((_BINS * reached / weight.sum()).astype(np.int64), _BINS - 1)
    bins = []
    for b in np.unique(place):
        part = order[place == b]
        w = weight[part]
        bins.append(
            Bin(
                sure=float(np.average(sure[part], weights=w)),
                right=float(np.average(right[part], weights=w)),
                n=len(part),
                weight=float(w.sum()),
            )
        )
    return bins


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EscapeCurve:
    """What depends on how probable a defect must be for a wafer to be called defective.

    Attributes:
        thresholds: Ascending, shape (T,).
        escapes: Share of the defective wafers that are below each, shape (T,).
        alarms: Share of the wafers without defect that are not, shape (T,).
    """

    thresholds: Floats
    escapes: Floats
    alarms: Floats


def escape_curve(chance: Floats, is_defective: NDArray[np.bool_]) -> EscapeCurve:
    """Follow escapes and false alarms over all thresholds; NaN for a kind of wafer that does not occur."""
    thresholds = np.unique(np.concatenate([[0.0], chance, [1.0]]))
    defective, fine = (np.sort(chance[kind]) for kind in (is_defective, ~is_defective))
    with np.errstate(invalid="ignore"):
        escapes = np.searchsorted(defective, thresholds) / np.float64(len(defective))
        alarms = 1 - np.searchsorted(fine, thresholds) / np.float64(len(fine))
    return EscapeCurve(thresholds=thresholds, escapes=escapes, alarms=alarms)


def correct_shares(probabilities_NK: Floats, *, assumed: Floats, wanted: Floats) -> Floats:
    """Turn probabilities that take some class shares for granted into those for other shares.

    Args:
        probabilities_NK: Shape (N, K), rows sum to 1.
        assumed: Shares that they take for granted, shape (K,); 0 for a class that the model does not know.
        wanted: Shares among the wafers to come, shape (K,).

    Returns:
        Shape (N, K); rows sum to 1, or to 0 where only classes were possible that the model does not know.

    Source:
        Saerens et al. 2002, Adjusting the Outputs of a Classifier to New a Priori Probabilities, equation 2.4.
    """
    ratio = np.divide(wanted, assumed, out=np.zeros(len(assumed)), where=assumed > 0)
    weighted = probabilities_NK * ratio
    result: Floats = weighted / np.maximum(weighted.sum(1, keepdims=True), 1e-300)
    return result


def estimate_shares(probabilities_NK: Floats, *, assumed: Floats) -> Floats:
    """Estimate the class shares among unlabelled wafers, by expectation and maximisation.

    It takes for granted that a class looks the same everywhere and that the probabilities are calibrated.

    Args:
        probabilities_NK: Of those wafers, shape (N, K).
        assumed: Shares that the probabilities take for granted, shape (K,).

    Returns:
        Shape (K,), sum 1.

    Source:
        Saerens et al. 2002, equation 2.9.
    """
    shares = assumed / assumed.sum()
    for _ in range(_STEPS):
        before, shares = shares, correct_shares(probabilities_NK, assumed=assumed, wanted=shares).mean(0)
        if np.abs(shares - before).max() < 1e-9:
            break
    result: Floats = shares
    return result


def _sure_from(chance: Floats, is_right: NDArray[np.bool_], *, share: float) -> float:
    """Return the least probability such that, of the calls with as much or more, this share are right; else 1."""
    order = np.argsort(-chance, kind="stable")
    right = np.cumsum(is_right[order]) / np.arange(1, len(order) + 1)
    last_of_value = np.append(np.diff(chance[order]) != 0, True)
    good = np.flatnonzero((right >= share) & last_of_value)
    return float(chance[order][good[-1]]) if len(good) else 1.0


def _operating_point(chance: Floats, is_defective: NDArray[np.bool_], *, escape: float) -> float | None:
    """Return the highest threshold at which no more than this share of the defective wafers escapes."""
    if not is_defective.any():
        return None
    curve = escape_curve(chance, is_defective)
    return float(curve.thresholds[np.flatnonzero(curve.escapes <= escape)[-1]])


def _useful_shifts(
    probabilities_NK: Floats, labels: NDArray[np.int64], groups: NDArray[np.int64], statistic: Statistic
) -> tuple[float, ...]:
    """Fit shifts, and keep them if those fitted on other lots gain more than one standard error."""
    names, lots = np.unique(groups, return_inverse=True)
    if len(names) < 2 * _FOLDS:
        return ()
    log_NK = np.log(np.maximum(probabilities_NK, 1e-12))
    fold_of = np.random.default_rng(0).permutation(len(names)) % _FOLDS
    called = np.empty(len(labels), dtype=np.int64)
    for fold in range(_FOLDS):
        here = fold_of[lots] == fold
        called[here] = (log_NK[here] + _fit_shifts(log_NK[~here], labels[~here], statistic)).argmax(1)
    k, plain = probabilities_NK.shape[1], log_NK.argmax(1)
    gain = _score(labels, called, k, statistic) - _score(labels, plain, k, statistic)
    error = _gain_error(labels, called, plain, lots, k, statistic)
    return tuple(_fit_shifts(log_NK, labels, statistic).tolist()) if gain > error else ()


def _fit_shifts(log_NK: Floats, labels: NDArray[np.int64], statistic: Statistic) -> Floats:
    """Raise the score by one class's shift after the other, twice around."""
    k = log_NK.shape[1]
    shifts = np.zeros(k)
    for _ in range(2):
        for c in range(k):
            others = log_NK + shifts
            others[:, c] = -np.inf
            best, rival = others.max(1), others.argmax(1)
            scores = []
            for shift in _GRID:
                scores.append(_score(labels, np.where(log_NK[:, c] + shift > best, c, rival), k, statistic))
            top = max(scores)
            # Of equally good ones the smallest, so that a class that nobody confuses is left alone.
            shifts[c] = min((s for s, score in zip(_GRID, scores, strict=True) if score >= top - 1e-12), key=abs)
    return shifts


def _gain_error(
    labels: NDArray[np.int64],
    called: NDArray[np.int64],
    plain: NDArray[np.int64],
    lots: NDArray[np.int64],
    k: int,
    statistic: Statistic,
) -> float:
    """Standard error of the gain over lots drawn anew."""
    random, n_lots = np.random.default_rng(0), int(lots.max()) + 1
    cells = np.zeros((2, n_lots, k * k))
    for view, calls in enumerate((called, plain)):
        np.add.at(cells[view], (lots, labels * k + calls), 1)
    times = random.multinomial(n_lots, np.full(n_lots, 1 / n_lots), size=300).astype(float)
    scores = [statistic((times @ cells[view]).reshape(-1, k, k)) for view in (0, 1)]
    return float(np.std(scores[0] - scores[1]))


def _score(labels: NDArray[np.int64], called: NDArray[np.int64], k: int, statistic: Statistic) -> float:
    counts = np.bincount(labels * k + called, minlength=k * k).reshape(1, k, k)
    return float(statistic(counts.astype(np.float64))[0])
