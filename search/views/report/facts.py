"""Everything that the page tells, gathered from a study's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.errors import ConfigError
from search.space.config import AshaConfig
from search.space.floors import Floor, find_shortfalls, parse_floor
from search.space.objective import Objective
from search.space.space import Branch, Choice, Constant, Node, Range, Space
from search.space.strict_yaml import read_yaml
from search.study.asha import Asha
from search.study.confirmed import Confirmed, read_current
from search.study.hindsight import rank
from search.study.marks import marks_of
from search.study.records import StudyFolder, fingerprint_file, read_json, read_lines, read_lock
from search.study.rows import COMPLETE, INFEASIBLE, RUNNING, STOPPED, TrialRecord, collect_rows
from search.study.winner import Winner, read_winner
from search.trial import intervals
from search.trial.intervals import Difference, Interval, Statistic
from search.views.words import metric_words


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a study.

    Attributes:
        folder: Of the study.
        data: What it trains on, from its provenance.
        attempts: Each run of the driver.
        tree: The space file with all defaults.
        space: What was searched.
        objective: What was maximised.
        floors: What had to be reached.
        records: All trials by number.
        ended: Numbers of the trials in the order in which they ended.
        elapsed: Seconds, over all attempts.
        looks: At the locked test, the earliest first.
        final: Numbers of the final training; empty without one.
    """

    folder: StudyFolder
    data: Mapping[str, Any]
    attempts: Sequence[Mapping[str, Any]]
    tree: Mapping[str, Any]
    space: Space
    objective: Objective
    floors: Sequence[Floor]
    records: Mapping[int, TrialRecord]
    ended: Sequence[int]
    elapsed: float
    looks: Sequence[Mapping[str, Any]]
    final: Mapping[str, Any]

    @property
    def classes(self) -> Sequence[str]:
        """Names of the K classes."""
        return list(self.data["classes"])

    @property
    def marks(self) -> tuple[str, ...]:
        """SYNTHETIC, LEAKY, where they are true."""
        return marks_of(self.data)

    @cached_property
    def trials(self) -> list[TrialRecord]:
        """All trials in the order of asking."""
        return [self.records[number] for number in sorted(self.records)]

    @cached_property
    def ranked(self) -> list[TrialRecord]:
        """Those that ran to their end, the best first; a winner comes before all that miss a floor."""
        return rank(self.trials)

    @cached_property
    def confirmed(self) -> Confirmed | None:
        """What training the best again has found, if the search has found nothing better since."""
        if not self.ranked:
            return None
        split = self.data["split_fingerprint"]
        return read_current(self.folder, winner=self.ranked[0].number, split_fingerprint=split)

    @property
    def leader(self) -> TrialRecord | None:
        """The confirmed one, else the best of those that ran to their end, whether it meets the floors or not."""
        if self.confirmed:
            return self.records[self.confirmed.chosen]
        return self.ranked[0] if self.ranked else None

    @property
    def winner(self) -> TrialRecord | None:
        """The leader if it meets all floors."""
        leader = self.leader
        return leader if leader and not leader.shortfalls[-1] else None

    @property
    def runner_up(self) -> TrialRecord | None:
        """The second of those that may win."""
        others = [
            record
            for record in self.ranked
            if record is not self.leader and (self.winner is None or not record.shortfalls[-1])
        ]
        return others[0] if others else None

    @cached_property
    def asha(self) -> Asha | None:
        """Knows the rungs; None where every trial runs to its end."""
        stop = self.tree["search"].get("stop")
        return Asha(AshaConfig(**stop["asha"])) if isinstance(stop, Mapping) else None

    @cached_property
    def judged_again(self) -> Winner | None:
        """What the winner makes of each validation wafer, if that was kept and is of this winner."""
        found, leader = read_winner(self.folder), self.leader
        fits = found and leader and found.is_of(leader.number, self.data["split_fingerprint"])
        return found if fits else None

    @property
    def n_judged(self) -> int:
        """Trials that count towards those asked for."""
        return sum(record.status in (COMPLETE, STOPPED, INFEASIBLE) for record in self.trials)

    @cached_property
    def unfinished(self) -> str:
        """What became of trials that have not ended: they train, or the search has left them."""
        is_over = "ended" in self.attempts[-1] or not read_lock(self.folder.path)[0]
        return "interrupted" if is_over else "running"

    @cached_property
    def _model(self) -> str:
        """Fingerprint of the final model's file; "" if it is not there."""
        path = self.folder.final / "model.pt"
        return fingerprint_file(path) if path.exists() else ""

    @property
    def first_look(self) -> Mapping[str, Any]:
        """The first look at the present model; if there is none, the first of all. There must be one."""
        return next((look for look in self.looks if not self.other_model(look)), self.looks[0])

    def other_model(self, look: Mapping[str, Any]) -> str:
        """Say of which model a look at the locked test was, if it was not that of the leader; else ""."""
        if self._model and look["model"] != self._model:
            return "That was another model: the final one was trained since, or again."
        trial = self.final.get("trial")
        if trial is None or self.leader is None or trial == self.leader.number:
            return ""
        return f"That was a model of trial {trial}, before trial {self.leader.number} took the lead: retrain."

    @property
    def metric(self) -> str:
        """The objective as people read it."""
        return metric_words(self.objective.metric)

    def shortfalls(self, record: TrialRecord) -> dict[str, float]:
        """By how much a trial misses each floor at its last report; negative where it is above."""
        return find_shortfalls(self.floors, record.scores, self.classes)

    @property
    def statistic(self) -> Statistic:
        """The objective of one confusion matrix."""
        return self.objective.statistic(self.classes)

    def interval(self, record: TrialRecord) -> Interval | None:
        """Put an interval around the objective of a trial's last epoch."""
        counts = confusion_of(record)
        return None if counts is None else intervals.bootstrap_confusion(counts, self.statistic)

    def difference(self, one: TrialRecord, other: TrialRecord) -> Difference | None:
        """Put an interval around the difference of two trials' last epochs, as if on different wafers."""
        a, b = confusion_of(one), confusion_of(other)
        return None if a is None or b is None else intervals.difference_of(a, b, self.statistic)


def gather(folder: StudyFolder) -> Facts:
    """Read what a study's folder holds.

    Raises:
        ConfigError: If it holds no study, or one that cannot be read.
    """
    provenance, tree = read_json(folder.provenance), read_yaml(folder.resolved)[0]
    rows = list(read_lines(folder.trials))
    records = collect_rows(rows)
    last = {row["trial"]: at for at, row in enumerate(rows)}
    ended = sorted((n for n in records if records[n].status != RUNNING), key=lambda n: last[n])
    try:
        return Facts(
            folder=folder,
            data=provenance["data"],
            attempts=provenance["attempts"],
            tree=tree,
            space=Space(_nodes(tree["space"])),
            objective=_objective(tree["objective"]),
            floors=[parse_floor(text) for text in tree.get("constraints", [])],
            records=records,
            ended=ended,
            elapsed=max((row["elapsed"] for row in rows), default=0.0),
            looks=_read_if_there(folder.final / "test.json").get("looks", []),
            final=_read_if_there(folder.final / "metrics.json"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{folder.path}: is not a study of this version ({type(error).__name__}: {error})") from None


def confusion_of(record: TrialRecord) -> NDArray[np.int64] | None:
    """Return the confusion matrix of a trial's last report."""
    last = record.reports[-1].val if record.reports else None
    return None if last is None else np.array(last.confusion)


def _objective(tree: Mapping[str, Any]) -> Objective:
    if "weights" in tree:
        return Objective(metric="weighted_f1", weights=tree["weights"], over=tree.get("over", "last"))
    return Objective(metric=tree["maximize"], over=tree.get("over", "last"))


def _read_if_there(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = read_json(path) if path.exists() else {}
    return found


def _nodes(tree: Mapping[str, Any]) -> dict[str, Node]:
    """Read a space that `search.space.space.to_tree` wrote, unchecked: weights that it names may be elsewhere now."""
    return {key: _node(value) for key, value in tree.items()}


def _node(value: Any) -> Node:
    match value:
        case {"choose": options}:
            return Branch({name: _nodes(inner or {}) for name, inner in options.items()})
        case {"low": low, "high": high}:
            return Range(low, high, value.get("log", False), value.get("step"))
        case list():
            return Choice(tuple(value))
    return Constant(value)
