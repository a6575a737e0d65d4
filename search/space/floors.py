"""The `constraints` of a space file: floors under single scores, such as "f1[Scratch] >= 0.60"."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from search.space.objective import METRICS
from search.trial.metrics import Scores
from search.trial.vocabulary import nearest

_OF_ONE_CLASS = ("f1", "precision", "recall")
_OF_ALL = ("accuracy", *METRICS)
# Names of classes may hold anything but brackets.
_FORM = re.compile(r"(?P<metric>\w+)\s*(?P<brackets>\[(?P<name>[^\[\]]*)\])?\s*>=\s*(?P<least>\S+)")
_FORMS = (
    f"must be METRIC[CLASS] >= NUMBER with {', '.join(_OF_ONE_CLASS)}, or METRIC >= NUMBER with {', '.join(_OF_ALL)}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The least that one score of the validation part may be.

    Attributes:
        metric: f1, precision or recall of one class; accuracy or a metric of the objective over all of them.
        class_name: The class; None where the metric is over all.
        least: In (0, 1].
    """

    metric: str
    class_name: str | None = None
    least: float

    @property
    def text(self) -> str:
        """The form in which YAML files hold it; `parse_floor` gives an equal floor."""
        where = "" if self.class_name is None else f"[{self.class_name}]"
        return f"{self.metric}{where} >= {self.least!r}"

    def shortfall(self, scores: Scores, classes: Sequence[str]) -> float:
        """Return what is missing: positive below the floor, 0 on it, negative above.

        All of `least` is missing for a class without validation wafers: what nobody measured is not met. A search
        does not get there, because `check_floor` refuses such a floor.
        """
        value = getattr(scores, self.metric)
        if self.class_name is not None:
            value = value[classes.index(self.class_name)]
        return self.least - (0.0 if math.isnan(value) else float(value))


def parse_floor(text: str) -> Floor:
    """Read one floor.

    Raises:
        ValueError: With the forms that are accepted.

    Example:
        >>> parse_floor("f1[Edge-Ring] >= 0.60")
        Floor(metric='f1', class_name='Edge-Ring', least=0.6)
    """
    match = _FORM.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{_FORMS}; got {text!r}")
    metric, name = match["metric"], match["name"] and match["name"].strip()
    if metric not in (*_OF_ONE_CLASS, *_OF_ALL):
        raise ValueError(f"unknown metric {metric!r}; {nearest(metric, [*_OF_ONE_CLASS, *_OF_ALL])}")
    if metric in _OF_ONE_CLASS and not name:
        raise ValueError(f"{metric} is of one class: write {metric}[CLASS]; got {text!r}")
    if metric in _OF_ALL and match["brackets"]:
        raise ValueError(f"{metric} is over all classes: leave out {match['brackets']}; got {text!r}")
    try:
        least = float(match["least"])
    except ValueError:
        raise ValueError(f"{match['least']!r} is no number; {_FORMS}") from None
    if not 0 < least <= 1:
        raise ValueError(f"a floor must be in (0, 1]; got {match['least']}")
    return Floor(metric=metric, class_name=name or None, least=least)


def find_shortfalls(floors: Iterable[Floor], scores: Scores | None, classes: Sequence[str]) -> dict[str, float]:
    """Return what is missing of each floor, by its text; nothing of a trial that has no scores yet."""
    return {floor.text: floor.shortfall(scores, classes) for floor in floors} if scores else {}


def check_floor(floor: Floor, *, classes: Sequence[str], support: Sequence[int]) -> str | None:
    """Say why the validation part cannot tell whether a floor is met, or return None.

    A floor below 1 must survive one mistake: everything right but a single wafer of the class missed, or, for
    precision, a single other one called so. A floor that does not is finer than one wafer: it should say 1.0, which
    is what it means, or lie lower. For worst_class_f1 the rarest class counts. Means over all wafers or classes are
    not looked at.

    Args:
        floor: What is demanded.
        classes: Names of the classes, in the order of their labels.
        support: Validation wafers of each class.
    """
    wafers = {name: n for name, n in zip(classes, support, strict=True) if n > 0}
    if floor.class_name is not None and floor.class_name not in classes:
        return f"{floor.text}: unknown class {floor.class_name!r}; {nearest(floor.class_name, list(classes))}"
    if floor.metric == "worst_class_f1":
        name = min(wafers, key=lambda each: wafers[each])
    elif floor.class_name is None:
        return None
    else:
        name = floor.class_name
    if name not in wafers:
        return f"{floor.text}: validation holds no wafers of {name}, so nothing can be said of it; remove it"
    n = wafers[name]
    after_a_mistake = _after_a_mistake(floor.metric, n)
    if floor.least == 1 or floor.least <= after_a_mistake:
        return None
    advice = f"at most {math.floor(after_a_mistake * 1000) / 1000:g}, or 1.0" if after_a_mistake else "1.0"
    return (
        f"{floor.text}: is finer than one wafer; validation holds {n:,} of {name}, so its recall moves in steps of "
        f"{1 / n:.3g}, and one mistake leaves {floor.metric} at {after_a_mistake:.4g}; make it {advice}"
    )


def _after_a_mistake(metric: str, n: int) -> float:
    """What the costliest single mistake leaves of a perfect score, of a class of n wafers."""
    match metric:
        case "recall":
            return (n - 1) / n
        case "precision":
            return n / (n + 1) if n > 1 else 0.0  # if its only wafer is missed, none is called so, which counts 0
    return 2 * (n - 1) / (2 * n - 1)  # F1: a miss; a false alarm would leave 2n / (2n + 1)
