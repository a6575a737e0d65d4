"""What a confirmation has found: who is best, whether that can be told, and what it is worth."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from search.study.records import StudyFolder, confirm_folder, read_json, write_json

_FORMAT = 1
_NAME = "confirmed.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What is known of one candidate. Scores are the objective's; NaN where there is none.

    Attributes:
        trial: Its number in the search.
        search_value: What the search saw, once.
        seed_values: Of each fresh seed on the search's own validation part.
        mean: Of these; of the last epochs alone, whatever the objective makes of several.
        low: Lower bound of `mean`, 95 %, over seeds and lots.
        high: Upper bound.
        spread: Standard deviation between the seeds.
        fold_value: Over all folds together.
        fold_low: Lower bound of `fold_value`, 95 %.
        fold_high: Upper bound.
        behind: By how much it is behind the best, on what decides.
        behind_low: Lower bound, 95 %.
        behind_high: Upper bound.
        p_value: Of no difference from the best.
        is_tied: Whether it cannot be told from the best.
        is_close: Whether it is less than one standard error behind.
        macs: Multiplications for one wafer, as predicted.
        broken: Runs that diverged, did not fit into memory or failed.
        left_after: Epochs after which the search has left it unfinished; 0: it ran to its end.
    """

    trial: int
    search_value: float
    seed_values: Sequence[float]
    mean: float
    low: float
    high: float
    spread: float
    fold_value: float
    fold_low: float
    fold_high: float
    behind: float
    behind_low: float
    behind_high: float
    p_value: float
    is_tied: bool
    is_close: bool
    macs: int
    broken: int
    left_after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """The whole finding.

    Attributes:
        metric: The objective.
        decided_by: "folds", or "seeds" where there are none.
        candidates: The best first.
        chosen: Number of the trial to retrain: the best, or a cheaper one that is close.
        n_seeds: Fresh seeds of each candidate.
        n_folds: Folds; 0 for none.
        n_lots: Lots of the wafers that decided.
        n_wafers: Wafers that decided.
        seed_sd: Standard deviation between seeds, over all candidates; NaN if unknown.
        optimism: By how much the search's score of its own winner exceeds the mean of the fresh seeds; NaN if unknown.
        split_fingerprint: Of the search's division.
        left_out: Candidates that diverged, did not fit into memory or failed from a fresh seed.
    """

    metric: str
    decided_by: str
    candidates: Sequence[Candidate]
    chosen: int
    n_seeds: int
    n_folds: int
    n_lots: int
    n_wafers: int
    seed_sd: float
    optimism: float
    split_fingerprint: str
    left_out: Sequence[int] = ()

    @property
    def best(self) -> Candidate:
        """The candidate with the highest score."""
        return self.candidates[0]

    @property
    def winner(self) -> Candidate:
        """The chosen one."""
        return next(each for each in self.candidates if each.trial == self.chosen)

    def is_of(self, winner: int, split_fingerprint: str) -> bool:
        """Whether it is of this division, and had the search's winner among its candidates."""
        is_candidate = winner in [each.trial for each in self.candidates] or winner in self.left_out
        return is_candidate and self.split_fingerprint == split_fingerprint

    @property
    def is_alone(self) -> bool:
        """Whether there was only one candidate, so that nothing is behind anything."""
        return len(self.candidates) == 1

    @property
    def tied(self) -> list[Candidate]:
        """Those that cannot be told from the best, which is the first."""
        return [each for each in self.candidates if each.is_tied]


def write_confirmed(folder: StudyFolder, confirmed: Confirmed) -> None:
    """Write what was found into the study's `confirm/`; NaN becomes null."""
    write_json(confirm_folder(folder).path / _NAME, {"format": _FORMAT, **_without_nan(asdict(confirmed))})


def read_confirmed(folder: StudyFolder) -> Confirmed | None:
    """Read what was found of a study; None if nothing was, or by another version."""
    path = confirm_folder(folder).path / _NAME
    if not path.exists():
        return None
    tree = read_json(path)
    if tree.pop("format", None) != _FORMAT:
        return None
    rows = [Candidate(**_with_nan(row)) for row in tree.pop("candidates")]
    return Confirmed(candidates=rows, **_with_nan(tree))


def read_current(folder: StudyFolder, *, winner: int, split_fingerprint: str) -> Confirmed | None:
    """Read what was found, unless the search has a winner since that was not among the candidates."""
    found = read_confirmed(folder)
    return found if found and found.is_of(winner, split_fingerprint) else None


def sentences(found: Confirmed) -> Iterator[str]:
    """Say what follows from the numbers."""
    best, tied = found.best, found.tied
    seeds = f"{found.n_seeds} fresh seeds" if found.n_seeds else "no fresh seed"
    basis = (
        f"{found.n_folds} folds, {found.n_wafers:,} wafers of {found.n_lots:,} lots, each judged by a model that has "
        "not seen its lot"
        if found.n_folds
        else f"{seeds} each, on {found.n_wafers:,} validation wafers of {found.n_lots:,} lots"
    )
    yield (
        f"Decided by {basis}. Brackets: 95 %, over seeds and lots{_without_seeds(found)}"
        + ("." if found.is_alone else "; those of what is behind the best hold all together.")
    )
    if found.is_alone:
        yield f"Trial {best.trial} was the only candidate."
    elif len(tied) == 1:
        yield f"Trial {best.trial} is better than all others that were confirmed."
    else:
        others = ", ".join(str(row.trial) for row in tied[1:])
        rest = len(found.candidates) - len(tied)
        better = (
            f", but is better than the {rest} others" if rest > 1 else ", but is better than the other" if rest else ""
        )
        yield f"Trial {best.trial} cannot be told from trial{'s' if len(tied) > 2 else ''} {others}{better}."
    for trial in found.left_out:
        yield f"Left out: trial {trial}, which broke when it was trained from a fresh seed."
    for row in found.candidates:
        if row.left_after:
            yield (
                f"The search left trial {row.trial} unfinished, after epoch {row.left_after} higher than all that it "
                "finished: that epoch's is its score there."
            )
    if found.chosen != best.trial:
        yield (
            f"Chosen (*): trial {found.chosen}, the cheapest that is less than one standard error behind "
            f"({found.winner.macs / best.macs:.0%} of the multiplications of trial {best.trial})."
        )
    if not math.isnan(found.optimism):
        verb = "flattered" if found.optimism > 0 else "did not flatter"
        yield (
            f"The search's score {verb} its winner: {100 * found.optimism:+.2f} points against the mean of fresh seeds "
            "on the same wafers."
        )


def _without_seeds(found: Confirmed) -> str:
    return "; over lots alone, since one seed says nothing of others" if math.isnan(found.seed_sd) else ""


def with_bounds(value: float, low: float, high: float) -> str:
    """Write a share and its bounds in percent."""
    return f"{100 * value:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def describe_candidate(row: Candidate, *, is_alone: bool) -> str:
    """Write one candidate for a comment in best.yaml; one that is alone is behind nobody."""
    seeds = f"{with_bounds(row.mean, row.low, row.high)} over seeds" if row.seed_values else ""
    folds = (
        f"{with_bounds(row.fold_value, row.fold_low, row.fold_high)} over folds"
        if not math.isnan(row.fold_value)
        else ""
    )
    bounds = with_bounds(row.behind, row.behind_low, row.behind_high)
    behind = "" if is_alone else f", {bounds} behind the best, p {row.p_value:.3f}"
    return f"trial {row.trial}: search {100 * row.search_value:.2f}, {', '.join(filter(None, [seeds, folds]))}{behind}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _with_nan(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in tree.items()}
