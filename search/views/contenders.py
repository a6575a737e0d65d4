"""Studies whose final models judged the same test wafers: what a comparison of them tells."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from search.errors import ConfigError
from search.study.marks import marks_of
from search.study.predictions import Origin, Predictions, read_predictions
from search.study.records import StudyFolder, fingerprint_file, read_json, read_lines
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, STOPPED, collect_rows
from search.trial.intervals import Difference, accuracy, balanced_macro_f1, f1_of, macro_f1, paired_differences
from search.trial.metrics import Scores, score_confusion
from search.views.words import count, duration

# What is said of both, in this order, and what it is called.
HEADLINES = {"balanced_macro_f1": "balanced macro-F1", "macro_f1": "macro-F1", "accuracy": "accuracy"}
_STATISTICS = {"balanced_macro_f1": balanced_macro_f1, "macro_f1": macro_f1, "accuracy": accuracy}
# Lots, or wafers where no lots are known. Of 300 simulated differences, intervals of 95 % by 20 lots held 95 %, by 10
# 88 %, by 5 83 %; a class that a single lot has comes with an interval without width.
FEW, TOO_FEW = 20, 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """A study and what its final model made of the test wafers.

    Attributes:
        letter: By which tables tell it from the others.
        name: The same in sentences.
        folder: Of the study.
        predictions: Of its final model.
        confusion: Counts, shape (K, K).
        scores: What they say.
        budget: What went into it, in words, by what it is.
        n_looks: At the test part.
        is_outdated: Whether the final model was trained anew since.
    """

    letter: str
    name: str
    folder: StudyFolder
    predictions: Predictions
    confusion: NDArray[np.int64]
    scores: Scores
    budget: Mapping[str, str]
    n_looks: int
    is_outdated: bool

    @property
    def origin(self) -> Origin:
        """Which model, which wafers."""
        return self.predictions.origin


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two of them on the same wafers; differences are those of the first minus those of the second.

    Attributes:
        first: One.
        second: The other.
        headlines: Differences by the keys of HEADLINES.
        f1: Difference in the F1 of each class.
        right: Wafers that (both, only the first, only the second, none) called right.
        only_first: Wafers of each class that only the first called right, shape (K,).
        only_second: The same of the second.
    """

    first: Contender
    second: Contender
    headlines: Mapping[str, Difference]
    f1: Sequence[Difference]
    right: tuple[int, int, int, int]
    only_first: NDArray[np.int64]
    only_second: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Contenders, and every two of them.

    Attributes:
        contenders: In the order in which they were asked for.
        pairs: All of them.
        classes: Names of the K classes.
        n_lots: Lots of the test wafers; 0 where they are not known.
        units: Lots with wafers of each class, or its wafers where no lots are known.
    """

    contenders: Sequence[Contender]
    pairs: Sequence[Pair]
    classes: tuple[str, ...]
    n_lots: int
    units: tuple[int, ...]

    @property
    def n_units(self) -> int:
        """What intervals are drawn from: lots, or wafers where no lots are known."""
        return self.n_lots or self.n_wafers

    @property
    def n_wafers(self) -> int:
        """Test wafers."""
        return len(self.contenders[0].predictions.labels)

    @property
    def data(self) -> Mapping[str, object]:
        """What marks and warnings are made of."""
        origin = self.contenders[0].origin
        return {"synthetic": origin.synthetic, "leaky": origin.leaky}

    @property
    def marks(self) -> tuple[str, ...]:
        """SYNTHETIC, LEAKY, where they are true."""
        return marks_of(self.data)


def compare_studies(folders: Sequence[StudyFolder]) -> Comparison:
    """Put studies side by side.

    Args:
        folders: Two or more.

    Raises:
        ConfigError: If one of them is named twice, has no test predictions, or was tested on other wafers.
    """
    twice = [str(path) for path, n in Counter(folder.path for folder in folders).items() if n > 1]
    if twice:
        raise ConfigError(f"{', '.join(twice)}: named twice; a comparison needs different studies")
    predictions = _read_all(folders)
    names = _tell_apart(folders)
    _check_same_wafers(dict(zip(names, predictions, strict=True)))
    contenders = [_to_contender(i, names[i], folders[i], predictions[i]) for i in range(len(folders))]
    first = predictions[0]
    lots = np.unique(first.lots, return_inverse=True)[1]
    n_lots = int(lots.max()) + 1
    is_known = 1 < n_lots < len(lots)  # sources without lots make every wafer one
    units = lots if is_known else np.arange(len(lots))
    return Comparison(
        contenders=contenders,
        pairs=[_to_pair(*pair, lots=lots if is_known else None) for pair in combinations(contenders, 2)],
        classes=first.classes,
        n_lots=n_lots if is_known else 0,
        units=tuple(len(np.unique(units[first.labels == k])) for k in range(len(first.classes))),
    )


def _read_all(folders: Sequence[StudyFolder]) -> list[Predictions]:
    """Read them, and say of all at once which are missing."""
    found, problems = [], []
    for folder in folders:
        try:
            found.append(read_predictions(folder))
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n  ".join(["studies are compared by their predictions of the test part", *problems]))
    return found


def _tell_apart(folders: Sequence[StudyFolder]) -> list[str]:
    names = [folder.name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder.path) for folder in folders]


def _check_same_wafers(by_name: Mapping[str, Predictions]) -> None:
    (name, one), *others = by_name.items()
    problems = []
    for other_name, other in others:
        for key, what in (("data_fingerprint", "wafers"), ("split_fingerprint", "split")):
            a, b = getattr(one.origin, key), getattr(other.origin, key)
            if a != b:
                problems.append(
                    f"{what}: {name} has {a} ({one.origin.protocol}), {other_name} {b} ({other.origin.protocol})"
                )
        is_same = np.array_equal(one.wafers, other.wafers) and np.array_equal(one.labels, other.labels)
        if not problems and not (is_same and one.classes == other.classes):
            problems.append(f"test part: that of {name} and that of {other_name} are not the same")
    if problems:
        raise ConfigError(
            "\n  ".join(
                [
                    "studies can be compared on the same test wafers only; search with the same --data, and the same "
                    "data.split in the space",
                    *problems,
                ]
            )
        )


def _to_contender(position: int, name: str, folder: StudyFolder, predictions: Predictions) -> Contender:
    k = len(predictions.classes)
    cells = np.bincount(predictions.labels * k + predictions.predicted, minlength=k * k)
    confusion = cells.reshape(k, k).astype(np.int64)
    ledger, model = folder.final / "test.json", folder.final / "model.pt"
    return Contender(
        letter=_letter(position),
        name=name,
        folder=folder,
        predictions=predictions,
        confusion=confusion,
        scores=score_confusion(confusion),
        budget=_budget_of(folder, predictions.origin),
        n_looks=len(read_json(ledger)["looks"]) if ledger.exists() else 1,
        is_outdated=model.exists() and fingerprint_file(model) != predictions.origin.model,
    )


def _letter(position: int) -> str:
    """Return A to Z; after them AA."""
    letter = chr(ord("A") + position % 26)
    return letter if position < 26 else _letter(position // 26 - 1) + letter


def _budget_of(folder: StudyFolder, origin: Origin) -> dict[str, str]:
    """Say what went into a study; what is not known is left out."""
    rows = list(read_lines(folder.trials))
    records = collect_rows(rows).values()
    counted = Counter(record.status for record in records)
    words = {COMPLETE: "to their end", STOPPED: "stopped", INFEASIBLE: "infeasible", FAILED: "failed"}
    ended = ", ".join(f"{counted[status]} {word}" for status, word in words.items() if counted[status])
    attempts = read_json(folder.provenance)["attempts"]
    budget = {
        "trials": f"{len(records)} ({ended})" if ended else str(len(records)),
        "wafers drawn": f"{sum(record.reports[-1].samples for record in records if record.reports):,}",
        "time of the search": duration(max((row["elapsed"] for row in rows), default=0.0)),
        "device": ", ".join(dict.fromkeys(attempt["device"] for attempt in attempts)),
        "model": str(origin.config.get("model", "")),
        "parameters": f"{origin.n_parameters:,}",
        "trained on": origin.on,
    }
    metrics = folder.final / "metrics.json"
    if metrics.exists():
        final = read_json(metrics)
        budget["final training"] = (
            f"{count(final['epochs'], 'nominal epoch')} in {duration(final['seconds'])}, {final['device']}"
        )
    return budget


def _to_pair(first: Contender, second: Contender, *, lots: NDArray[np.int64] | None) -> Pair:
    a, b = first.predictions, second.predictions
    n_classes = len(a.classes)
    by_class = {f"f1 {k}": f1_of(k) for k in range(n_classes)}
    found = paired_differences(
        a.labels, a.predicted, b.predicted, _STATISTICS | by_class, groups=lots, n_classes=n_classes
    )
    is_first, is_second = a.predicted == a.labels, b.predicted == b.labels
    only_first, only_second = (
        np.bincount(a.labels[chosen], minlength=n_classes).astype(np.int64)
        for chosen in (is_first & ~is_second, is_second & ~is_first)
    )
    return Pair(
        first=first,
        second=second,
        headlines={key: found[key] for key in HEADLINES},
        f1=[found[key] for key in by_class],
        right=(
            int((is_first & is_second).sum()),
            int(only_first.sum()),
            int(only_second.sum()),
            int((~is_first & ~is_second).sum()),
        ),
        only_first=only_first,
        only_second=only_second,
    )
