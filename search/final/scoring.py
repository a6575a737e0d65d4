"""What a model's logits are worth on labelled wafers that it has not seen: scores, how sure they are, calibration."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from search.study.ranking import rank_by_seeds
from search.study.rows import judgement_to_row
from search.trial.calibration import (
    Bin,
    EscapeCurve,
    calibration_error,
    correct_shares,
    escape_curve,
    reliability,
    weigh,
)
from search.trial.decision import NONE, DecisionRule, defect_chance
from search.trial.evaluation import Judgement, judge_calls
from search.trial.intervals import (
    Interval,
    Statistic,
    balanced_macro_f1,
    bootstrap_confusion,
    f1_of,
    macro_f1,
    wilson,
    worst_class_f1,
)
from search.trial.metrics import score_confusion

_HEADLINES: dict[str, Statistic] = {
    "balanced_macro_f1": balanced_macro_f1,
    "macro_f1": macro_f1,
    "worst_class_f1": worst_class_f1,
}
_FEW = 30  # wafers, of which a count says more than a percentage


@dataclass(frozen=True, slots=True, kw_only=True)
class Defects:
    """No defect against any defect, at the operating point.

    Attributes:
        threshold: Probability of any defect from which a wafer is called defective.
        n_escaped: Defective wafers below it.
        n_defective: All defective ones.
        n_alarms: Wafers without defect that are not below it.
        n_fine: All without defect.
    """

    threshold: float
    n_escaped: int
    n_defective: int
    n_alarms: int
    n_fine: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """N wafers, K classes.

    Attributes:
        judgement: Of the calls that the rule makes.
        plain: Of the largest logit, as without any rule.
        probabilities: Calibrated, shape (N, K), float64.
        called: By the rule, shape (N,).
        labels: Shape (N,).
        headlines: Scores by name, with intervals of 95 % over lots, or over wafers where there are too few lots.
        over: "lots" or "wafers": what these intervals draw anew.
        precision: Of each class, Wilson's interval.
        recall: Likewise.
        f1: Of each class, bootstrap interval over wafers.
        calibration: Expected calibration error, before and after the temperature, both at the shares taken for granted.
        bins: For the reliability plot.
        defects: None without an operating point, or without a class "none".
        sure: Wafers called with enough probability, and those of them called right; None if no level was fitted.
    """

    judgement: Judgement
    plain: Judgement
    probabilities: NDArray[np.float64]
    called: NDArray[np.int64]
    labels: NDArray[np.int64]
    headlines: dict[str, Interval]
    over: str
    precision: Sequence[Interval]
    recall: Sequence[Interval]
    f1: Sequence[Interval]
    calibration: tuple[float, float]
    bins: Sequence[Bin]
    defects: Defects | None
    sure: tuple[int, int] | None


def score_logits(
    logits_NK: Tensor,
    labels: Tensor,
    *,
    rule: DecisionRule,
    classes: tuple[str, ...],
    lots: NDArray[Any],
    shares: NDArray[np.float64],
) -> Scored:
    """Score logits, on the CPU.

    Args:
        logits_NK: Shape (N, K).
        labels: Shape (N,).
        rule: How they are read.
        classes: Names of the K classes.
        lots: Lot of each wafer, shape (N,).
        shares: Of the classes, that the logits take for granted, shape (K,): calibration is measured at these.
    """
    k, actual = len(classes), labels.numpy()
    probabilities = rule.probabilities(logits_NK)
    called = rule.call(probabilities)
    chance = probabilities.double().numpy()
    judgement = judge_calls(logits_NK, called, labels, n_classes=k)
    counts = np.array(judgement.confusion)
    hits, of_actual, of_called = np.diag(counts), counts.sum(1), counts.sum(0)
    headlines, over = _headlines(counts, called.numpy(), actual, lots, k)
    raw, weights = logits_NK.double().softmax(1).numpy(), weigh(actual, shares)
    certain = chance[np.arange(len(actual)), called.numpy()]
    is_sure = certain >= rule.sure_from if rule.sure_from is not None else None
    return Scored(
        judgement=judgement,
        plain=judge_calls(logits_NK, logits_NK.argmax(1), labels, n_classes=k),
        probabilities=chance,
        called=called.numpy(),
        labels=actual,
        headlines=headlines,
        over=over,
        precision=[wilson(int(h), int(n)) for h, n in zip(hits, of_called, strict=True)],
        recall=[wilson(int(h), int(n)) for h, n in zip(hits, of_actual, strict=True)],
        f1=[_f1(counts, i) for i in range(k)],
        calibration=(
            calibration_error(raw, actual, weights=weights),
            calibration_error(chance, actual, weights=weights),
        ),
        bins=reliability(chance, actual, weights=weights),
        defects=_count_defects(chance, actual, rule, classes),
        sure=None if is_sure is None else (int(is_sure.sum()), int((called.numpy() == actual)[is_sure].sum())),
    )


def _headlines(
    counts: NDArray[np.int64], called: NDArray[np.int64], labels: NDArray[np.int64], lots: NDArray[Any], k: int
) -> tuple[dict[str, Interval], str]:
    names, places = np.unique(lots, return_inverse=True)
    if len(names) < 20:  # of fewer, intervals over lots are too narrow
        return {name: bootstrap_confusion(counts, statistic) for name, statistic in _HEADLINES.items()}, "wafers"
    by_lot = np.zeros((1, 1, len(names), k, k), dtype=np.int64)
    np.add.at(by_lot[0, 0], (places, labels, called), 1)
    return {name: rank_by_seeds(by_lot, statistic).means[0] for name, statistic in _HEADLINES.items()}, "lots"


def _f1(counts: NDArray[np.int64], i: int) -> Interval:
    return bootstrap_confusion(counts, f1_of(i)) if counts[i].sum() else Interval(math.nan, math.nan, math.nan)


def _count_defects(
    chance: NDArray[np.float64], labels: NDArray[np.int64], rule: DecisionRule, classes: tuple[str, ...]
) -> Defects | None:
    defect = defect_chance(chance, classes)
    if rule.defect_from is None or defect is None:
        return None
    is_defective, is_called = labels != classes.index(NONE), defect >= rule.defect_from
    return Defects(
        threshold=rule.defect_from,
        n_escaped=int((is_defective & ~is_called).sum()),
        n_defective=int(is_defective.sum()),
        n_alarms=int((~is_defective & is_called).sum()),
        n_fine=int((~is_defective).sum()),
    )


def scored_to_row(scored: Scored, classes: tuple[str, ...], *, split: str) -> dict[str, Any]:
    """Write everything as plain JSON values; names begin with the split, None stands for NaN."""
    row = judgement_to_row(scored.judgement, classes, split=split)
    more: dict[str, Any] = {
        "intervals": {name: _pair(interval) for name, interval in scored.headlines.items()},
        "intervals_over": scored.over,
        "calibration_error": list(scored.calibration),
        "reliability": [asdict(each) for each in scored.bins],
        "plain_macro_f1": scored.plain.scores.macro_f1,
        "plain_balanced_macro_f1": scored.plain.scores.balanced_macro_f1,
        "defects": asdict(scored.defects) if scored.defects else None,
        "sure": list(scored.sure) if scored.sure else None,
    }
    for name in ("precision", "recall", "f1"):
        pairs = [_pair(interval) for interval in getattr(scored, name)]
        more[f"{name}_interval"] = dict(zip(classes, pairs, strict=True))
    return row | {f"{split}_{name}": value for name, value in more.items()}


def _pair(interval: Interval) -> list[float | None]:
    return [None if math.isnan(bound) else bound for bound in (interval.low, interval.high)]


def scored_table(scored: Scored, classes: tuple[str, ...], *, title: str) -> Table:
    """Lay out precision, recall and F1 of each class with intervals; the means first, accuracy last."""
    scores = scored.judgement.scores
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("class")
    for column in ("precision", "recall", "F1", "wafers"):
        table.add_column(column, justify="right")
    for name, words in (("balanced_macro_f1", "balanced macro-F1"), ("macro_f1", "macro-F1")):
        table.add_row(words, "", "", _percent(scored.headlines[name]), "")
    table.add_section()
    for i, name in enumerate(classes):
        support = scores.support[i]
        n_right = scored.judgement.confusion[i][i]
        few = f"{n_right} of {support}" if 0 < support < _FEW else ""
        table.add_row(
            name,
            _percent(scored.precision[i]),
            few or _percent(scored.recall[i]),
            _percent(scored.f1[i]),
            f"{support:,}",
        )
    table.add_section()
    table.add_row("worst class", "", "", _percent(scored.headlines["worst_class_f1"]), "")
    table.add_row("accuracy", "", "", f"{100 * scores.accuracy:.2f}", f"{sum(scores.support):,}")
    return table


def _percent(interval: Interval, digits: int = 0) -> str:
    if math.isnan(interval.value):
        return "-"
    return f"{100 * interval.value:.2f} [{100 * interval.low:.{digits}f}, {100 * interval.high:.{digits}f}]"


def sentences(scored: Scored, rule: DecisionRule) -> list[str]:
    """Say what the table does not: calibration, thresholds, escapes, who is sure."""
    n, scores, plain = len(scored.labels), scored.judgement.scores, scored.plain.scores
    told = [f"Intervals: 95 %; of the means over {scored.over}, of classes over their wafers."]
    before, after = (f"{100 * error:.2f}" for error in scored.calibration)
    told.append(
        f"Calibration error {after} points" + (f", {before} without the temperature." if rule.n_fitted else ".")
    )
    if rule.shifts:
        told.append(
            f"Class thresholds: macro-F1 {100 * scores.macro_f1:.2f} against {100 * plain.macro_f1:.2f} without, "
            f"balanced {100 * scores.balanced_macro_f1:.2f} against {100 * plain.balanced_macro_f1:.2f}."
        )
    if scored.sure:
        sure, right = scored.sure
        share = f", of which {_percent(wilson(right, sure), 1)} % are right" if sure else ""
        told.append(f"Sure of {sure:,} of {n:,} wafers ({sure / n:.1%}){share}.")
    if scored.defects:
        d = scored.defects
        told.append(
            f"Defect or none, at P(defect) >= {d.threshold:.3f}: {d.n_escaped:,} of {d.n_defective:,} defective wafers"
            f" escape ({_percent(wilson(d.n_escaped, d.n_defective), 1)} %), {d.n_alarms:,} of {d.n_fine:,} others "
            f"raise a false alarm ({_percent(wilson(d.n_alarms, d.n_fine), 1)} %)."
        )
    return told


def tell_other_shares(scored: Scored, *, assumed: NDArray[np.float64], wanted: NDArray[np.float64], whose: str) -> str:
    """Say what the same probabilities are worth when they are read for other class shares, without any thresholds.

    Args:
        scored: Of wafers.
        assumed: Shares that the model takes for granted, shape (K,).
        wanted: Shares to read for, shape (K,).
        whose: These are, in words.
    """
    called = correct_shares(scored.probabilities, assumed=assumed, wanted=wanted).argmax(1)
    counts = np.zeros((len(assumed), len(assumed)), dtype=np.int64)
    np.add.at(counts, (scored.labels, called), 1)
    scores = score_confusion(counts)
    return (
        f"Read for the class shares of {whose} instead (predict --shares): balanced macro-F1 "
        f"{100 * scores.balanced_macro_f1:.2f}, macro-F1 {100 * scores.macro_f1:.2f}, worst class "
        f"{100 * scores.worst_class_f1:.2f}, accuracy {100 * scores.accuracy:.2f}."
    )


def defect_curve(scored: Scored, classes: tuple[str, ...]) -> EscapeCurve | None:
    """Return the escape curve; None without a class "none"."""
    defect = defect_chance(scored.probabilities, classes)
    return None if defect is None else escape_curve(defect, scored.labels != classes.index(NONE))
