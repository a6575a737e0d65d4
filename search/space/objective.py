"""What a search maximises: one number out of the per-class F1 of the validation part."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.trial.metrics import Scores

METRICS = ("balanced_macro_f1", "macro_f1", "worst_class_f1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One of METRICS, or a weighted mean of the F1 of single classes, of those that occur.

    Attributes:
        metric: A name out of METRICS, or "weighted_f1".
        weights: For "weighted_f1": weight of each class that counts, all positive.
    """

    metric: str = "balanced_macro_f1"
    weights: Mapping[str, float] = field(default_factory=dict)

    def value(self, scores: Scores, classes: tuple[str, ...]) -> float:
        """Return the number to maximise, in [0, 1]."""
        if self.metric != "weighted_f1":
            return float(getattr(scores, self.metric))
        f1 = {name: scores.f1[classes.index(name)] for name in self.weights}
        present = {name: weight for name, weight in self.weights.items() if not math.isnan(f1[name])}
        return float(sum(weight * f1[name] for name, weight in present.items()) / sum(present.values()))

    def to_tree(self) -> dict[str, Any]:
        """Write it in the form in which YAML files hold it."""
        return {"weights": dict(self.weights)} if self.weights else {"maximize": self.metric}
