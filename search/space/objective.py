"""What a search maximises: one number out of the per-class F1 of the validation part."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from search.trial import intervals
from search.trial.intervals import Counts, Statistic, Values
from search.trial.metrics import Scores

# What an objective may be: each is an attribute of Scores, and here what makes it of many confusion matrices at once.
METRICS: Mapping[str, Statistic] = {
    "balanced_macro_f1": intervals.balanced_macro_f1,
    "macro_f1": intervals.macro_f1,
    "worst_class_f1": intervals.worst_class_f1,
}
# What is made of the numbers of all epochs so far; the same for the sampler, the judge and the winner.
OVER = ("last", "mean_last_3", "ema")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One of METRICS, or a weighted mean of the F1 of single classes, of those that occur.

    Attributes:
        metric: A name out of METRICS, or "weighted_f1".
        weights: For "weighted_f1": weight of each class that counts, all positive.
        over: One of OVER. last: the last epoch counts; mean_last_3: the mean of the last three; ema: all, each half as
            much as the one after it. The two smooth the noise of single epochs.
    """

    metric: str = "balanced_macro_f1"
    weights: Mapping[str, float] = field(default_factory=dict)
    over: str = "last"

    def value(self, epochs: Sequence[Scores], classes: tuple[str, ...]) -> float:
        """Return the number to maximise, in [0, 1].

        Args:
            epochs: Scores after each epoch so far, at least one.
            classes: Names of the K classes.
        """
        values = [self._of_epoch(scores, classes) for scores in epochs]
        match self.over:
            case "mean_last_3":
                return statistics.fmean(values[-3:])
            case "ema":
                return statistics.fmean(values, weights=[0.5 ** (len(values) - i) for i in range(len(values))])
        return values[-1]

    def _of_epoch(self, scores: Scores, classes: tuple[str, ...]) -> float:
        if self.metric != "weighted_f1":
            return float(getattr(scores, self.metric))
        f1 = {name: scores.f1[classes.index(name)] for name in self.weights}
        present = {name: weight for name, weight in self.weights.items() if not math.isnan(f1[name])}
        return float(sum(weight * f1[name] for name, weight in present.items()) / sum(present.values()))

    def statistic(self, classes: Sequence[str]) -> Statistic:
        """Return what the objective makes of one confusion matrix, for intervals."""
        if self.metric != "weighted_f1":
            return METRICS[self.metric]
        weights = {list(classes).index(name): weight for name, weight in self.weights.items()}
        return partial(_weighted_f1, weights=weights)

    def to_tree(self) -> dict[str, Any]:
        """Write it in the form in which YAML files hold it."""
        what = {"weights": dict(self.weights)} if self.weights else {"maximize": self.metric}
        return {**what, "over": self.over}


def _weighted_f1(confusions: Counts, *, weights: Mapping[int, float]) -> Values:
    f1 = np.stack([intervals.f1_of(k)(confusions) for k in weights])
    share = np.where(np.isnan(f1), 0.0, np.array(list(weights.values()))[:, None])
    with np.errstate(invalid="ignore"):  # a draw of lots may hold none of these classes
        result: Values = (share * np.nan_to_num(f1)).sum(0) / share.sum(0)
    return result
